"""Save a model so that a folder never holds half of one, and load it with readable errors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import logging

from matfm.core.bundled import MODEL_FILE, resolve_weights
from matfm.core.files import os_error_code, readable_os_errors
from matfm.errors import MatfmError

_LONGEST_REASON = 300
"""Characters of what transformers says; some of its messages hold whole configurations."""


def save_model(model: Any, folder: Path, run: dict[str, Any]) -> None:
    """Write `config.json` (the architecture, and under `run` the resolved configuration) and the weights.

    The weights appear last: a folder that has them is complete.
    """
    model.config.run = run
    with _whole_files(folder) as temporary, without_bars():
        model.save_pretrained(temporary)


def load_model(cls: Any, name: str) -> Any:
    """`cls.from_pretrained` by bundled name, folder or Hub id, in evaluation mode.

    Raises:
        MatfmError: nothing is there, it is another architecture, or its files are damaged or incomplete.
    """
    path = resolve_weights(name)
    with readable_loading(name):
        said = PreTrainedConfig.get_config_dict(path)[0]
        refuse_code(said, name)
        refuse_other_weights(said, path, name)
        architecture = said.get("model_type")
        if architecture != cls.config_class.model_type:
            raise MatfmError(f"{name} is a {architecture} model; {cls.config_class.model_type} is what this needs")
        with without_bars():
            model, report = cls.from_pretrained(path, use_safetensors=True, output_loading_info=True)
    headless = not getattr(model.config, "property_names", None)
    lacking = sorted(key for key in report["missing_keys"] if not (headless and key.startswith("property_head.")))
    if lacking:
        # Transformers fills them with random numbers, and every result would be one.
        raise MatfmError(f"the weights {name!r} lack {lacking[0]} ({len(lacking)} such tensors); save the model again")
    return model.eval()


def refuse_code(said: Any, name: str) -> None:
    """Raise MatfmError where a configuration names attention that transformers would fetch from the Hub and run."""
    for key, value in said.items() if isinstance(said, dict) else ():
        if str(key).endswith("_implementation") and "/" in str(value):
            raise MatfmError(
                f"{name}: config.json names code of the Hub ({key} {value!r}), which is never run; remove it"
            )
        refuse_code(value, name)


def refuse_other_weights(said: dict[str, Any], folder: str, name: str) -> None:
    """Raise MatfmError where transformers would read other weights than those that `resolve_weights` has checked.

    These are what `transformers_weights` names, and adapters.

    Args:
        said: its `config.json`.
        folder: what `resolve_weights` returned.
        name: for messages.
    """
    if said.get("transformers_weights") is not None:
        raise MatfmError(
            f"{name}: config.json names other weights (transformers_weights), which are not read; remove it"
        )
    if (Path(folder) / "adapter_config.json").exists():
        raise MatfmError(f"{name} holds an adapter of PEFT, which is not read; merge it into the weights and save them")


@contextmanager
def readable_loading(name: str) -> Iterator[None]:
    """Turn whatever damaged or hostile files make transformers raise into one sentence that names the weights."""
    try:
        yield
    except MatfmError:
        raise
    except Exception as error:  # the checks of its configurations raise plain Exceptions
        raise MatfmError(f"the weights {name!r} cannot be loaded: {in_short(error)}") from error


def in_short(error: Exception) -> str:
    """What a library says of a file, in one line; some of its messages hold whole lists of models."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the files of a tokenizer, each whole or not at all."""
    with _whole_files(folder) as temporary:
        try:
            tokenizer.save_pretrained(temporary)
        except Exception as error:
            # The tokenizers package, which writes its file itself, raises nothing more exact.
            if (code := os_error_code(error)) is None:
                raise
            raise OSError(code, os.strerror(code)) from error


@contextmanager
def _whole_files(folder: Path) -> Iterator[str]:
    """A temporary folder, whose files are moved into `folder` at the end, the weights last."""
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
            yield temporary
            for written in sorted(Path(temporary).iterdir(), key=lambda path: path.name == MODEL_FILE):
                written.replace(folder / written.name)


def saved_tokenizer(cls: Any, folder: str) -> Any:
    """The tokenizer of that class in the folder of a model.

    Raises:
        MatfmError: its file is not there (transformers would make a tokenizer of the shipped vocabulary and say
            nothing) or damaged.
    """
    for file in cls.vocab_files_names.values():
        if not (Path(folder) / file).is_file():
            raise MatfmError(f"{folder} holds no {file}; save the tokenizer of the model's pretraining there")
    try:
        return cls.from_pretrained(folder)
    except Exception as error:  # the tokenizers package raises plain Exceptions
        raise MatfmError(f"the tokenizer in {folder} cannot be loaded: {in_short(error)}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Transformers draws a bar for every small file; put its setting back afterwards."""
    active = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if active:
            logging.enable_progress_bar()
