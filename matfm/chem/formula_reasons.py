"""Why a character cannot be read in a formula, and what to write instead."""

from __future__ import annotations

import unicodedata

_PERCENT = "add wt% or at% to read percentages"

_REASONS = {
    ":": "a colon marks a dopant; write how much of it there is, like Lu1.99Eu0.01O3",
    ";": "what follows the semicolon reads as a comment; give the formula alone",
    ",": f"a comma leaves the amounts open; write them like Fe0.5Mn0.5, or {_PERCENT}",
    "/": f"a slash leaves the amounts open; write one formula, or {_PERCENT}",
    "%": "a percentage of what? write wt% or at%, like 'Fe 70 wt%, Cr 30 wt%'",
    "+": "a plus sign inside joins a mixture, or is a charge; a charge stands at the end, like (2+)",
    "=": "an equals sign belongs to a reaction; give one formula",
    ">": "an arrow belongs to a reaction; give one formula",
    "^": "write a charge without '^', in brackets at the end, like (2-)",
    "_": "write an amount directly behind its element, without '_'",
    "$": "give the formula as plain text, without '$'",
    "\\": "give the formula as plain text, without '\\'",
    "\n": "a line break; one cell holds one formula",
    "\r": "a line break; one cell holds one formula",
    "·": "a hydrate dot stands between two formulas",
}
_IN_NUMBERS = {
    ",": "write decimals with a full stop, not a comma",
    "/": "write the fraction as a decimal, like 0.333",
}
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"


def unreadable(text: str, position: int) -> str:
    """The reason for the character of `text` (normalised) at `position`."""
    character, before, after = text[position], text[position - 1 : position], text[position + 1 : position + 2]
    if character == "-":
        return _hyphen(after)
    if before.isdigit() and after.isdigit() and character in _IN_NUMBERS:
        return _IN_NUMBERS[character]
    if character in _REASONS:
        return _REASONS[character]
    if character.islower():
        variable = f"; if it is a variable, pass variables={{'{character}': ...}}" if before in {"+", "-"} else ""
        return f"'{character}' starts no element symbol; symbols begin with a capital letter, as in 'Fe2O3'{variable}"
    return _no_meaning(character)


def _no_meaning(character: str) -> str:
    code = f"U+{ord(character):04X}"
    if character in _SUPERSCRIPTS:
        return f"the superscript '{character}' is no charge at the end, and isotopes are not read"
    if unicodedata.category(character) == "Cf":
        return f"an invisible character ({code}); delete it"
    return f"{character!r} ({code}) has no meaning in a formula"


def _hyphen(after: str) -> str:
    if after.isdigit() or after == ".":
        return f"an amount cannot be negative; for alloy notation like Fe-18Cr {_PERCENT}"
    if after.islower():
        return f"if '{after}' is a variable, write its value or, in Python, pass variables={{'{after}': ...}}"
    return f"a hyphen joins the parts of a mixture; write one formula like Al1.6Cr0.4O3, or {_PERCENT}"
