"""Strict configuration: frozen dataclasses from TOML and `--set a.b=value`."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import tomllib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from matfm.errors import MatfmError

Config = TypeVar("Config")


def load_toml(path: str) -> dict[str, Any]:
    """A TOML file as a mapping."""
    if not Path(path).is_file():
        raise MatfmError(f"{path} is not a file; check the path of the configuration")
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # of numbers with thousands of digits, and of deep nesting
        raise MatfmError(f"{path} is not valid TOML: {error}") from error


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Put `a.b=value` settings over a mapping; values are TOML, or plain text where they are not."""
    result = _copied(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise MatfmError(f"--set {override!r} is not of the form key=value")
        *parents, last = key.strip().split(".")
        table = result
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise MatfmError(f"--set {override!r}: {parent} is a value, not a section")
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            table[last] = text.strip()
    return result


def from_mapping(cls: type[Config], values: dict[str, Any], where: str) -> Config:
    """Build a (nested) dataclass. Unknown keys, missing keys and wrong types raise MatfmError naming them.

    A dataclass with a class method `class_of(values)` stands for several, of which that method names one.
    """
    return _build(cls, values, where, "")


def to_mapping(config: Any) -> dict[str, Any]:
    """The full configuration as plain values."""
    return dataclasses.asdict(config)


def _build(cls: Any, values: Any, where: str, prefix: str) -> Any:
    if not isinstance(values, dict):
        raise MatfmError(f"{where}: {prefix.rstrip('.')} must be a section, not {values!r}")
    if choose := getattr(cls, "class_of", None):
        cls = choose(values)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else f"; known keys: {', '.join(fields)}"
            raise MatfmError(f"{where}: unknown key {prefix}{key}{hint}")
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in values:
            raise MatfmError(f"{where}: the key {prefix}{name} is missing")
    try:
        return cls(**{key: _coerce(hints[key], value, where, prefix + key) for key, value in values.items()})
    except MatfmError as error:
        raise MatfmError(f"{where}: {error}" if where not in str(error) else str(error)) from error


def _coerce(hint: Any, value: Any, where: str, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        lists = [argument for argument in inner if typing.get_origin(argument) is tuple]
        chosen = lists if lists and isinstance(value, (list, tuple)) else inner
        return None if value is None else _coerce(chosen[0], value, where, key)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, key + ".")
    if origin is tuple:
        return _coerce_tuple(arguments, value, where, key)
    if origin is dict:
        if not isinstance(value, dict):
            raise MatfmError(f"{where}: {key} must be a section, not {value!r}")
        return {name: _coerce(arguments[1], inner, where, f"{key}.{name}") for name, inner in value.items()}
    return _coerce_plain(hint, value, where, key)


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, where: str, key: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise MatfmError(f"{where}: {key} must be a list, not {value!r}")
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(hints) != len(value):
        raise MatfmError(f"{where}: {key} must have {len(hints)} values, not {len(value)}")
    return tuple(
        _coerce(hint, item, where, f"{key}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _coerce_plain(hint: Any, value: Any, where: str, key: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise MatfmError(f"{where}: {key} is larger than any number that can be computed with")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise MatfmError(f"{where}: {key} is {value!r}; it must be {_READABLE.get(hint, hint)}")
    return value


_READABLE = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in values.items()}
