"""Write plain values as TOML; reading it again gives the same values."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_value(value: Any) -> str:
    """Text, number, bool, list or mapping on one line. None inside a list or at the top is refused.

    Raises:
        TypeError: a type that TOML has no word for.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # Written so that it stays a float: TOML tells 1 from 1.0, as Python's repr does.
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # JSON's escapes are TOML's, but for DEL
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(key)} = {toml_value(inner)}" for key, inner in value.items() if inner is not None)
        return f"{{ {inside} }}" if inside else "{}"
    raise TypeError(f"TOML has no word for {value!r}")


def toml_text(values: dict[str, Any]) -> str:
    """A mapping as a document: mappings inside become sections; keys whose value is None are left out."""
    return "\n".join(_section(values, "")) + "\n"


def _section(values: dict[str, Any], name: str) -> list[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and value is not None}
    inner = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{_key(key)} = {toml_value(value)}" for key, value in plain.items()]
    if name and (lines or not inner):
        lines = [f"[{name}]", *lines]
    for key, value in inner.items():
        below = _section(value, f"{name}.{_key(key)}" if name else _key(key))
        lines += ["", *below] if lines else below
    return lines


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else toml_value(key)
