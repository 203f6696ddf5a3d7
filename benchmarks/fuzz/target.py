"""What a fuzzer needs to know of a parser: how it is called, real inputs, and words of its language."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matfm.errors import MatfmError

ROOT = Path(__file__).resolve().parents[2]

JSON_WORDS = (
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "null",
    "true",
    "NaN",
    "1e999",
    '"\\ud800"',
    "[[",
    '{"a":',
    "-0",
    "\\",
)
TOML_WORDS = (
    "[",
    "]",
    "[[",
    "=",
    '"',
    "'''",
    "{",
    "}",
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "true",
    "[]",
    "{}",
    "1979-05-27",
    ".",
)

Parse = Callable[[bytes, Path], object]
"""Content, and a folder of this process for parsers of files."""


@dataclass(frozen=True)
class Target:
    """A parser and what it is fed with."""

    parse: Parse
    corpus: Callable[[], list[bytes]]
    """Inputs as users have them, most of which are read."""
    words: tuple[str, ...] = ()
    """Pieces of the language, which a fuzzer puts in."""
    weight: int = 1
    """Share of a run's inputs, against the other targets."""


def outcome(target: Target, content: bytes, folder: Path) -> bool:
    """Whether the input was read; False if a MatfmError with a reason says why not. Anything else is raised."""
    try:
        target.parse(content, folder)
    except MatfmError as error:
        if not str(error).strip():
            raise AssertionError("an error without a sentence") from error
        if error.position is not None and not 0 <= error.position <= len(error.text):
            raise AssertionError(f"position {error.position} is outside of the text") from error
        return False
    return True


def text_of(content: bytes) -> str:
    """As tables and the command line hand text on: bytes that are no UTF-8 become lone surrogates."""
    return content.decode("utf-8", "surrogateescape")


def given(*texts: str) -> Callable[[], list[bytes]]:
    """A corpus of texts."""
    return lambda: [text.encode() for text in texts]


@functools.cache
def named(module: str, name: str) -> Any:
    """An object of matfm; heavy modules are imported when they are fuzzed."""
    return getattr(importlib.import_module(module), name)
