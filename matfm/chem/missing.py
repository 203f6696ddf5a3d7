"""What people and programs write for a value that is not there."""

from __future__ import annotations

_WORDS = "nan none null nil n/a na <na> #n/a #na #ref! #value! #name? #div/0! - -- − – — ?"
_MISSING = frozenset(_WORDS.split())


def is_missing(text: str) -> bool:
    """Whether a cell says, in any case, that it holds nothing. (`NaN` is also a formula: those are read before.)"""
    return text.lower() in _MISSING
