"""Properties of a material as a short text, and back: "semiconductor, band gap 2.0 eV, volume 12.3 Å³/atom".

A text is a list of statements: at most one word for the kind of material first, then phrase, rounded number and unit of
every property that is known. The words are few and fixed, numbers are digits, so a small vocabulary writes all texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matfm.chem.units import PROPERTIES, conversion_factor, property_named
from matfm.errors import MatfmError

LARGEST_SEMICONDUCTOR_GAP = 4.0
"""eV; a material with a wider gap is called an insulator. GaN (3.4 eV) and ZnO (3.3 eV) are semiconductors."""
KINDS = ("metal", "semiconductor", "insulator", "nonmetal")
"""A gap that rounds to 0 is a metal's; where only that is known, what is no metal is a nonmetal."""
IS_METAL = "is_metal"
"""The property that is written as metal or nonmetal."""

_SEPARATOR = ", "
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Phrase:
    """How a property is written."""

    property: str
    """Name in `matfm.chem.units.PROPERTIES`."""
    words: str
    decimals: int
    """Digits behind the point; the number is rounded to them."""
    unit: str
    """Unit of the number, which labels in other units are converted to."""

    def number(self, value: float) -> str:
        """The rounded number; never -0."""
        return f"{round(value, self.decimals) + 0.0:.{self.decimals}f}"

    def statement(self, value: float) -> str:
        """Words, number and unit."""
        return f"{self.words} {self.number(value)} {self.unit}".rstrip()


def _phrase(name: str, words: str, decimals: int, unit: str | None = None) -> Phrase:
    return Phrase(name, words, decimals, PROPERTIES[name].unit if unit is None else unit)


PHRASES: dict[str, Phrase] = {
    phrase.property: phrase
    for phrase in (
        _phrase("band_gap", "band gap", 1),
        _phrase("band_gap_expt", "measured band gap", 1),
        _phrase("band_gap_pbe", "PBE band gap", 1),
        _phrase("formation_enthalpy", "formation enthalpy", 2),
        _phrase("perovskite_formation_energy", "perovskite formation energy", 2),
        _phrase("energy_per_atom", "energy", 2),
        _phrase("e_above_hull", "energy above hull", 2),
        _phrase("decomposition_energy", "decomposition energy", 2),
        _phrase("exfoliation_energy", "exfoliation energy", 0),
        _phrase("volume_per_atom", "volume", 1),
        _phrase("refractive_index", "refractive index", 2),
        _phrase("magnetization", "magnetization", 1),
        _phrase("phonon_peak", "phonon peak", 0),
        _phrase("debye_temperature", "Debye temperature", 0),
        _phrase("thermal_conductivity", "thermal conductivity", 1),
        # Of the order of 1e-5 per kelvin, which has no short decimal.
        _phrase("thermal_expansion", "thermal expansion", 0, "ppm/K"),
        _phrase("bulk_modulus", "bulk modulus", 0),
        _phrase("shear_modulus", "shear modulus", 0),
        _phrase("log10_bulk_modulus", "log bulk modulus", 2),
        _phrase("log10_shear_modulus", "log shear modulus", 2),
        _phrase("elastic_anisotropy", "elastic anisotropy", 1),
        _phrase("yield_strength", "yield strength", 0),
    )
}
"""Property to its phrase, in the order in which a text has them."""
_GAPS = ("band_gap", "band_gap_expt", "band_gap_pbe")
_OF_WORDS = {phrase.words: phrase for phrase in PHRASES.values()}

WORDS: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *KINDS,
            *(word for phrase in PHRASES.values() for word in phrase.words.split()),
            *(phrase.unit for phrase in PHRASES.values() if phrase.unit),
        )
    )
)
"""Every word and unit that a text may hold."""


@dataclass(frozen=True)
class Description:
    """What a text says."""

    kind: str | None
    """One of `KINDS`, if it says so."""
    values: Mapping[str, float]
    """Property to value, in the units of `PHRASES`."""

    def __str__(self) -> str:
        """The text, statements in the order in which `describe` has them."""
        statements = [phrase.statement(self.values[name]) for name, phrase in PHRASES.items() if name in self.values]
        return _SEPARATOR.join([self.kind, *statements] if self.kind else statements)


def property_of_column(name: str, unit: str | None = None) -> tuple[str, float]:
    """The property that a column of this name holds, and what its numbers are multiplied by to be written.

    Args:
        name: of the column or of the property, or an alias.
        unit: of its numbers; None for the unit of the table of properties.

    Raises:
        MatfmError: there are no words for this property, or the unit cannot be converted.
    """
    known = property_named(name, unit)
    if known.name == IS_METAL:
        return IS_METAL, 1.0
    phrase = PHRASES.get(known.name)
    if phrase is None:
        raise MatfmError(
            f"there are no words for the property {name!r}; texts are made of {', '.join((*PHRASES, IS_METAL))}"
        )
    factor = conversion_factor(known.unit, phrase.unit)
    if factor is None:
        raise MatfmError(f"{name!r} is in {known.unit!r}, which cannot be converted to {phrase.unit!r}")
    return phrase.property, factor


def describe(values: Mapping[str, float]) -> str:
    """The text of a material; empty if nothing is known. NaN is a missing value.

    Args:
        values: property (of `PHRASES`, or `is_metal`) to value, in the units of `PHRASES`.
    """
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    kind = _kind(known)
    # Of a metal the word says all that there is to say of the gap.
    unsaid = {_gap_of(known)} if kind == "metal" else set()
    return str(Description(kind, {name: value for name, value in known.items() if name not in unsaid}))


def answers(values: Mapping[str, float], asked: Sequence[str]) -> str:
    """A statement for each property that is asked for, in that order, numbers of metals' gaps included.

    Raises:
        KeyError: a property has no value.
    """
    return _SEPARATOR.join(PHRASES[name].statement(values[name]) for name in asked)


def questions(asked: Sequence[str]) -> str:
    """The properties that are asked for: `band gap? volume?`."""
    return " ".join(f"{PHRASES[name].words}?" for name in asked)


def read_description(text: str) -> Description:
    """What a text of `describe` or `answers` says.

    Raises:
        MatfmError: the text is empty or holds something else, at the position where it begins.
    """
    kind: str | None = None
    values: dict[str, float] = {}
    position = 0
    for statement in text.split(_SEPARATOR):
        if statement in KINDS and position == 0:
            kind = statement
        else:
            phrase, value = _read_statement(text, statement, position)
            if phrase.property in values:
                raise MatfmError(text, position, f"{phrase.words!r} is said twice")
            values[phrase.property] = value
        position += len(statement) + len(_SEPARATOR)
    return Description(kind, values)


def _read_statement(text: str, statement: str, position: int) -> tuple[Phrase, float]:
    words = statement.split(" ")
    at = next((index for index, word in enumerate(words) if _NUMBER.fullmatch(word)), None)
    phrase = None if at is None else _OF_WORDS.get(" ".join(words[:at]))
    if at is None or phrase is None:
        raise MatfmError(text, position, "this is no statement; one is a phrase, a number and a unit: band gap 2.0 eV")
    if " ".join(words[at + 1 :]) != phrase.unit:
        raise MatfmError(text, position, f"{phrase.words!r} is written in {phrase.unit or 'plain numbers'}")
    return phrase, float(words[at])


def _gap_of(known: Mapping[str, float]) -> str | None:
    return next((name for name in _GAPS if name in known), None)


def _kind(known: Mapping[str, float]) -> str | None:
    """Word for the kind of material, from its gap or, without one, from `is_metal`."""
    gap = _gap_of(known)
    if gap is None:
        if IS_METAL not in known:
            return None
        return "metal" if known[IS_METAL] >= 0.5 else "nonmetal"
    rounded = float(PHRASES[gap].number(known[gap]))
    if rounded <= 0:
        return "metal"
    return "semiconductor" if rounded <= LARGEST_SEMICONDUCTOR_GAP else "insulator"
