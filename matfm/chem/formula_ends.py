"""What is settled before a formula is read from the left: look-alike characters, phase, charge, hydrate dot."""

from __future__ import annotations

import functools
import re
import unicodedata

from matfm.chem.elements import ATOMIC_NUMBER, HYDROGEN_ISOTOPES
from matfm.errors import MatfmError

_SAME = {**dict.fromkeys("−–‐‑₋", "-"), **dict.fromkeys("•∙⋅・･\u0387*", "·")}
_KEPT_APART = ("<super>", "<circle>")
_TO_PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_CHARGE = re.compile(r"(?:\([0-9]*[+-]+\)|[⁰¹²³⁴⁵⁶⁷⁸⁹]*[⁺⁻]+|(?P<plain>[0-9]*[+-]+))\Z")
_LONGEST_CHARGE = 12
"""Characters at the end in which a charge is looked for; a longer one is an error."""
_PHASE = re.compile(r"\((aq|s|l|g|cr|am)\)\Z")
_COMPLEX = re.compile(r"\[[^\[\]]*\]")
_HYDRATE_STOP = re.compile(r"\.([1-9][0-9]*|[0-9]+\.[0-9]+)?(?:[HDT]2O|\([HDT]2O\)|\[[HDT]2O\])\Z")
_LONGEST_HYDRATE = 60
"""Characters from the end in which a hydrate dot is looked for; a longer count is no count of water molecules."""


def normalise(text: str) -> str:
    """Subscripts, wide letters, minus signs and middle dots in one spelling; as long as `text`.

    Superscripts stay: where they are no charge they mark isotopes (`H₂¹⁸O`), and must not become amounts.
    """
    return text.replace("*", "·") if text.isascii() else "".join(map(_normalised, text))


@functools.lru_cache(maxsize=1024)
def _normalised(character: str) -> str:
    if character in _SAME:
        return _SAME[character]
    if unicodedata.decomposition(character).startswith(_KEPT_APART):
        return character
    plain = unicodedata.normalize("NFKC", character)
    return _SAME.get(plain, plain) if len(plain) == 1 else character


def cut_phase(text: str) -> tuple[str, str | None]:
    """Split a trailing phase label off."""
    found = _PHASE.search(text, max(0, len(text) - 4))
    return (text[: found.start()].rstrip(), found[1]) if found else (text, None)


def cut_charge(text: str, shown: str) -> tuple[str, int]:
    """Split a trailing charge off. `Fe3+` and `SO4(2-)` carry a count, `Na+` and `Fe+++` do not.

    Raises:
        MatfmError: with `shown`, if the charge is malformed or its count may be an amount (`NO3-`, `SO42-`).
    """
    window = max(0, len(text) - _LONGEST_CHARGE)
    found = _CHARGE.search(text, window)
    if not found or found.start() == 0:
        return text, 0
    body, written = text[: found.start()], found.group()
    signs = written.translate(_TO_PLAIN).strip("()0123456789")
    count = written.translate(_TO_PLAIN).strip("()+-")
    if len(set(signs)) > 1 or (count and len(signs) > 1) or (count and not count.strip("0")) or found.start() == window:
        raise MatfmError(shown, found.start(), f"'{written}' is not a charge; write it like 2+ or ++")
    if count and found["plain"] and not (body[-1].isspace() or (len(count) == 1 and _takes_count(body))):
        raise MatfmError(shown, found.start(), f"'{written}' may hold an amount; put the charge in brackets, like (2-)")
    size = int(count) if count else len(signs)
    return body.rstrip(), size if signs[0] == "+" else -size


def _takes_count(body: str) -> bool:
    return body in ATOMIC_NUMBER or body in HYDROGEN_ISOTOPES or _COMPLEX.fullmatch(body) is not None


def hydrate_stop(body: str) -> int:
    """Position of the full stop that is a hydrate dot (`CuSO4.5H2O`), or -1.

    It stands before an optional count and one water molecule at the very end. Excepted are `Na0.5H2O`, as a number
    before the dot would be zero, and the decimal count of `CaSO4·1.5H2O`.
    """
    found = _HYDRATE_STOP.search(body, max(0, len(body) - _LONGEST_HYDRATE))
    if not found:
        return -1
    before = body[: found.start()]
    head = before.rstrip("0123456789")
    digits = before[len(head) :]
    is_count = digits and head.rstrip().endswith("·")
    return -1 if is_count or (digits and not digits.strip("0")) else found.start()
