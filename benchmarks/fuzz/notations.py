"""Parsers of single texts: formulas, SMILES, SELFIES, words on properties, labels; and tokenizers."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.target import ROOT, Target, given, text_of
from matfm.errors import MatfmError

TRICKY = ROOT / "tests" / "data" / "tricky.json"


@functools.cache
def _tricky() -> dict[str, Any]:
    return json.loads(TRICKY.read_text("utf-8"))


@functools.cache
def _smiles() -> list[bytes]:
    lines = (ROOT / "tests" / "data" / "drug_like.smi").read_text("utf-8").splitlines()
    return [line.encode() for line in (*lines, *(entry["smiles"] for entry in _tricky()["smiles"]))]


@functools.cache
def _selfies() -> list[bytes]:
    from matfm import smiles_to_selfies

    found = [entry["selfies"].encode() for entry in _tricky()["smiles"] if entry.get("selfies")]
    for text in _smiles()[:40]:
        try:
            found.append(smiles_to_selfies(text.decode()).encode())
        except MatfmError:
            continue
    return found


@functools.cache
def _formulas() -> list[bytes]:
    usual = (
        "Fe2O3 Ba(Zr0.1Ti0.9)O3 CuSO4·5H2O K4[Fe(CN)6] Li7La3Zr2O12 YBa2Cu3O6.93 Fe3+ SO4(2-) H2O(aq) Ti-6Al-4V "
        "CH3NH3PbI3 {[Fe(H2O)6]}2 NaN D2O (La1-xSrx)MnO3 C60 Al2O3*3H2O"
    ).split()
    alloys = ["Fe 70 wt%, Cr 30 wt%", "Ti-6Al-4V wt%", "50 at% Ni 50 at% Ti", "Cu:Zn 60:40"]
    return [text.encode() for text in (*usual, *alloys, *(entry["formula"] for entry in _tricky()["formulas"]))]


def _formula(content: bytes, _: Path) -> object:
    from matfm.chem.composition_groups import composition_group
    from matfm.chem.formula import read_formula

    formula = read_formula(text_of(content))
    composition_group(text_of(content))
    return str(formula), formula.reduced, formula.fractions


def _read_smiles(content: bytes, _: Path) -> object:
    from matfm import parse_smiles

    return parse_smiles(text_of(content)).canonical


def _to_selfies(content: bytes, _: Path) -> object:
    from matfm import smiles_to_selfies

    return smiles_to_selfies(text_of(content))


def _from_selfies(content: bytes, _: Path) -> object:
    from matfm import selfies_to_smiles

    return selfies_to_smiles(text_of(content))


# Words and numbers


def _descriptions() -> list[bytes]:
    from matfm.chem.property_text import PHRASES

    every = [phrase.statement(1.25) for phrase in PHRASES.values()]
    texts = ["metal", "semiconductor, band gap 2.0 eV, volume 12.3 Å³/atom", "insulator, band gap 5.1 eV"]
    return [text.encode() for text in (*texts, *every, ", ".join(every[3:9]))]


def _description(content: bytes, _: Path) -> object:
    from matfm.chem.property_text import read_description

    return str(read_description(text_of(content)))


def _label(content: bytes, _: Path) -> object:
    from matfm.tasks.labels import parse_label

    return parse_label(text_of(content))


def _unit(content: bytes, _: Path) -> object:
    from matfm.chem.units import property_named

    name, _, unit = text_of(content).partition("|")
    return property_named(name, unit).limits


def _composition_line(content: bytes, _: Path) -> object:
    from matfm.chem.joint_tokenizer import read_composition_line

    return read_composition_line(text_of(content))


def _split_name(content: bytes, _: Path) -> object:
    from matfm.chem.splits import parse_split

    kind, _, split = text_of(content).partition("|")
    return parse_split(split, kind)


# Tokenizers


@functools.cache
def _tokenizers() -> list[Any]:
    from matfm import CompositionTokenizer, SelfiesTokenizer, SmilesTokenizer
    from matfm.chem.joint_tokenizer import JointTokenizer

    schemes = [CompositionTokenizer(scheme=scheme) for scheme in ("fraction", "repeat", "count")]
    return [SmilesTokenizer(), SelfiesTokenizer(), JointTokenizer(), *schemes]


def _decode(content: bytes, _: Path) -> object:
    """The first byte names the tokenizer, the others are ids of one byte (or two, in the later tokenizers' range)."""
    tokenizers = _tokenizers()
    tokenizer = tokenizers[content[0] % len(tokenizers)] if content else tokenizers[0]
    ids = [
        int(index) for index in np.frombuffer(content[1 : 1 + 2 * (len(content) // 2)][: len(content) - 1], np.uint8)
    ]
    text = tokenizer.decode(ids)
    skipped = tokenizer.decode(ids, skip_special_tokens=True)
    if tokenizer is tokenizers[3]:
        return text, skipped, tokenizer.decode(ids, amounts=[1 / (1 + index) for index in ids])
    return text, skipped


def _tokens(content: bytes, _: Path) -> object:
    found = [encoder([text_of(content)]) for encoder in _row_encoders()]
    return [(encoded.errors, encoded.tokens.ids_N) for encoded in found]


@functools.cache
def _row_encoders() -> list[Any]:
    from matfm.tasks.encoding import row_encoder

    return [row_encoder(kind) for kind in ("composition", "smiles", "selfies")]


_FORMULA_WORDS = tuple("( ) [ ] { } . · * + - , : % wt% at% H2O Fe O3 (aq) 2+ 0.5 ₂ ³ x 1-x /".split())
_SMILES_WORDS = (
    "[C@@H]",
    "[Na+]",
    "(",
    ")",
    "%12",
    "%(123)",
    "1",
    "=",
    "#",
    "/",
    "\\",
    ".",
    ":",
    "[nH]",
    ">",
    "*",
    "[2H]",
)
_SELFIES_WORDS = ("[C]", "[=O]", "[Ring1]", "[Branch2]", "[#Branch1]", "[Na+1]", "[/C]", ".", "[nop]", "[13C@@H1]", "[")

TARGETS: dict[str, Target] = {
    "formula": Target(_formula, _formulas, _FORMULA_WORDS, 30),
    "smiles": Target(_read_smiles, _smiles, _SMILES_WORDS, 6),
    "smiles_to_selfies": Target(_to_selfies, _smiles, _SMILES_WORDS, 3),
    "selfies_to_smiles": Target(_from_selfies, _selfies, _SELFIES_WORDS, 4),
    "description": Target(_description, _descriptions, (", ", " ", "-", "eV", "band gap", "metal", "9" * 400), 30),
    "label": Target(
        _label, given("5", "<5", "≥ 10", ">=1e-3", " -1_000 ", "", "≤٣"), ("<", ">", "=", "e", "_", "nan"), 30
    ),
    "unit": Target(
        _unit, given("band_gap|eV", "K_VRH|GPa", "gap pbe|meV", "y|", "volume|nm^3/atom"), ("|", "µ", "Å"), 8
    ),
    "composition_line": Target(_composition_line, given(" Fe2 O3", " Na1 Cl1", " Li0.5 Co1 O2"), (" ", "0", "."), 8),
    "split_name": Target(
        _split_name,
        given(
            "composition|random",
            "smiles|scaffold",
            "composition|loco:5",
            "smiles|butina:0.4",
            "x|column:fold",
            "composition|domain:name=z",
            "smiles|file:a.json",
        ),
        (":", "=", "|", "nan", "-1", "1e9"),
        6,
    ),
    "decode": Target(_decode, lambda: [bytes([n, *range(2, 60, 7)]) for n in range(6)], ("\x00", "\x02"), 6),
    "row_encoders": Target(_tokens, lambda: [*_formulas(), *_smiles()[:30], *_selfies()[:30]], _SMILES_WORDS, 2),
}
