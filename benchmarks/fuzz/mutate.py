"""Real inputs, changed a little: most are still nearly right, so that a parser gets beyond its first check."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LONGEST = 8_192
"""Bytes of one input."""
_NUMBERS = (b"0", b"-1", b"1e400", b"nan", b"99999999999999999999", b"0.5", b"2147483648", b"9" * 30)

Change = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutated(corpus: Sequence[bytes], words: Sequence[bytes], generator: random.Random) -> bytes:
    """One input of the corpus with 0 to 5 changes, at most `LONGEST` bytes."""
    content = bytearray(generator.choice(corpus)[:LONGEST])
    if generator.random() < 0.1:
        other = generator.choice(corpus)
        content[generator.randrange(len(content) + 1) :] = other[generator.randrange(len(other) + 1) :]
    for _ in range(generator.choice((0, 1, 1, 1, 1, 2, 2, 5))):
        generator.choice(_CHANGES)(content, generator, words)
    return bytes(content[:LONGEST])


def _span(content: bytearray, generator: random.Random) -> slice:
    start = generator.randrange(len(content) + 1)
    return slice(start, min(len(content), start + generator.choice((1, 1, 2, 4, 16))))


def _flip(content: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    if content:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)


def _any_byte(content: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    if content:
        content[generator.randrange(len(content))] = generator.randrange(256)


def _delete(content: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    del content[_span(content, generator)]


def _repeat(content: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    """Often a few times, now and then until it is long: nesting and quadratic parsers show themselves."""
    span = _span(content, generator)
    piece = bytes(content[span])
    times = generator.choice((1, 1, 2, 3, 50, 2000)) if generator.random() < 0.2 else 1
    content[span.start : span.start] = piece * min(times, LONGEST // max(1, len(piece)))


def _move(content: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    span = _span(content, generator)
    piece = bytes(content[span])
    del content[span]
    at = generator.randrange(len(content) + 1)
    content[at:at] = piece


def _word(content: bytearray, generator: random.Random, words: Sequence[bytes]) -> None:
    if words:
        at = generator.randrange(len(content) + 1)
        content[at:at] = generator.choice(words)


def _word_instead(content: bytearray, generator: random.Random, words: Sequence[bytes]) -> None:
    if words:
        content[_span(content, generator)] = generator.choice(words)


def _number(content: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    """One run of digits becomes another number."""
    digits = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if digits:
        start = generator.choice(digits)
        end = start
        while end < len(content) and 48 <= content[end] <= 57:
            end += 1
        content[start:end] = generator.choice(_NUMBERS)


def _cut(content: bytearray, generator: random.Random, _: Sequence[bytes]) -> None:
    if generator.random() < 0.3:
        del content[generator.randrange(len(content) + 1) :]


_CHANGES: tuple[Change, ...] = (_flip, _any_byte, _delete, _repeat, _move, _word, _word_instead, _number, _cut)
