"""What an estimator is, as JSON beside its weights: class, arguments and fitted attributes, never code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from matfm.core.files import write_json
from matfm.errors import MatfmError

E = TypeVar("E", bound=Any)
ESTIMATOR = "estimator.json"
FORMAT = 1


def plain(value: Any, where: str) -> Any:
    """Mappings, sequences, numbers, texts and nothing, as JSON has them; NumPy's as Python's.

    Raises:
        MatfmError: a value of another kind; `where` names it.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, where) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise MatfmError(f"{where} holds a {type(value).__name__}; give numbers, texts, lists and mappings")


def save_estimator(folder: Path, name: str, parameters: dict[str, Any], fitted: dict[str, Any]) -> None:
    """Write `estimator.json`."""
    content = {"format": FORMAT, "class": name, "parameters": parameters, "fitted": fitted}
    write_json(folder / ESTIMATOR, content)


def new_estimator(kind: type[E], folder: Path, device: str | None) -> tuple[E, dict[str, Any]]:
    """An estimator with its saved arguments (`device` in place of the saved one, if given), and what was fitted.

    Raises:
        MatfmError: as `load_estimator`.
    """
    parameters, fitted = load_estimator(folder, kind.__name__)
    estimator = kind(**parameters)
    if device is not None:
        estimator.device = device
    return estimator, fitted


def of_texts(tags: Any) -> Any:
    """scikit-learn's tags of an estimator whose inputs are texts, (R,)."""
    tags.input_tags.string = True
    tags.input_tags.one_d_array = True
    tags.input_tags.two_d_array = False
    return tags


def load_estimator(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments and fitted attributes of an estimator of class `name`; lists among the arguments become tuples.

    Raises:
        MatfmError: nothing is there, or something else.
    """
    path = folder / ESTIMATOR
    if not path.is_file():
        raise MatfmError(f"{folder} holds no {ESTIMATOR}; save the estimator there, or use matfm predict for a run")
    try:
        content = json.loads(path.read_text("utf-8"))
        parameters, fitted = dict(content["parameters"]), dict(content["fitted"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MatfmError(f"{path} is damaged ({error}); save the estimator again") from error
    if content.get("format") != FORMAT:
        raise MatfmError(f"{path} has format {content.get('format')!r}; this version reads format {FORMAT}")
    if content.get("class") != name:
        raise MatfmError(f"{folder} holds a {content.get('class')}, not a {name}; load it with its own class")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in parameters.items()}, fitted
