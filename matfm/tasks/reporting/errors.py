"""Where a predictor errs: by element, functional group and scaffold, and its hardest cases."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from matfm.chem.formula import parse_formula
from matfm.chem.functional_groups import functional_groups
from matfm.chem.scaffold_splits import murcko_scaffold, read_molecule
from matfm.errors import MatfmError
from matfm.tasks.reporting.drawings import drawn_input
from matfm.tasks.reporting.html import Html, joined, number, scrolling, sentence, shortened, table, tag
from matfm.tasks.reporting.page import Section
from matfm.tasks.reporting.periodic_table import ElementValue, periodic_table
from matfm.tasks.reporting.results import Results
from matfm.tasks.reporting.run_files import RunFiles

# R rows

FEWEST = 5
"""Rows from which on a mean of errors is taken seriously."""
_CASES = 12
_LISTED = 15
_ANALYSED = 20_000
"""Rows that are read for these pictures; of more, the first."""
_MAPPED_TARGETS = 3
_LEAST_PROBABILITY = 1e-12

Parts = list[frozenset[str]]
"""What each row is made of, (R,); nothing where it cannot be read."""


def elements_section(run: RunFiles) -> Section | None:
    """Mean error of the rows that hold each element; of compositions, which hold many, on the periodic table."""
    shown = run.results[:_MAPPED_TARGETS]
    if not shown or run.kind is None:
        return None
    parts = []
    for results in shown:
        by_element = mean_errors(_elements(results, run.kind), results.errors[:_ANALYSED])
        if by_element:
            drawn = _map(results, by_element) if run.kind == "composition" else _list(results, by_element)
            parts.append(joined([tag("h3", results.label) if len(shown) > 1 else None, drawn]))
    return Section("elements", "Error by element", joined(parts)) if parts else None


def groups_section(run: RunFiles) -> Section | None:
    """Of molecules: errors by functional group, and of scaffolds that training had or had not."""
    if run.kind not in ("smiles", "selfies") or not run.results:
        return None
    results = run.results[0]
    molecules = [_molecule(text, run.kind) for text in results.inputs[:_ANALYSED]]
    groups = [frozenset() if one is None else _groups(one) for one in molecules]
    by_group = mean_errors(groups, results.errors[: len(groups)])
    listed = sorted(((v, name) for name, v in by_group.items() if v.rows >= FEWEST), key=lambda item: -item[0].value)
    body = [
        table(
            f"Functional groups (Ertl 2017) in at least {FEWEST} {results.part_name} rows, worst first",
            ("group", "rows", results.error_name),
            [(tag("code", shortened(name, 60)), number(v.rows), number(v.value)) for v, name in listed[:_LISTED]],
        )
        if listed
        else None,
        _scaffolds(run, results, molecules),
    ]
    return Section("groups", "Error by molecular part", joined(body)) if any(body) else None


def hardest_section(run: RunFiles) -> Section | None:
    """The rows with the largest errors, drawn."""
    if not run.results:
        return None
    results = run.results[0]
    order = np.argsort(-_difficulty(results), kind="stable").tolist()
    once = {results.inputs[position]: position for position in reversed(order)}  # the hardest row of each input
    hardest = [position for position in order if once[results.inputs[position]] == position][:_CASES]
    cases = [_case(run, results, position) for position in hardest]
    what = "lowest probability of the true class" if results.classes else "largest errors"
    of = f"{results.part_name} rows with the {what} of {results.name}"
    intro = f"The {of}, each input once; row 0 is the first of its table."
    return Section("hardest", "Hardest cases", joined([tag("p", intro), tag("ul", *cases, class_="cases")]))


def mean_errors(parts: Sequence[Iterable[str]], error_R: np.ndarray) -> dict[str, ElementValue]:
    """Of each part, the mean error of the rows that hold it and how many these are."""
    of: dict[str, list[float]] = {}
    for names, error in zip(parts, error_R.tolist(), strict=True):
        for name in names:
            of.setdefault(name, []).append(error)
    return {name: ElementValue(float(np.mean(errors)), len(errors)) for name, errors in of.items()}


def _map(results: Results, by_element: Mapping[str, ElementValue]) -> Html:
    what = results.error_name
    picture = scrolling(periodic_table(by_element, what, FEWEST), f"Periodic table of the {what}")
    intro = (
        f"{sentence(what)} of the {results.part_name} rows that hold the element, here of {results.name}. "
        f"Dashed: fewer than {FEWEST} rows. Without a number: no row."
    )
    listed = tag("details", tag("summary", "The same as a table"), _list(results, by_element))
    return joined([tag("p", intro), picture, listed])


def _list(results: Results, by_element: Mapping[str, ElementValue]) -> Html:
    worst = sorted(by_element.items(), key=lambda item: -item[1].value)
    rows = [(symbol, number(v.rows), number(v.value)) for symbol, v in worst]
    caption = f"{sentence(results.error_name)} of the {results.part_name} rows that hold an element, worst first"
    return table(caption, ("element", "rows", results.error_name), rows)


def _elements(results: Results, kind: str) -> Parts:
    return [_elements_of(text, kind) for text in results.inputs[:_ANALYSED]]


def _elements_of(text: str, kind: str) -> frozenset[str]:
    if kind != "composition":
        molecule = _molecule(text, kind)
        atoms = [] if molecule is None else molecule.GetAtoms()
        return frozenset(atom.GetSymbol() for atom in atoms if atom.GetAtomicNum() > 0)
    try:
        return frozenset(parse_formula(text).amounts)
    except MatfmError:
        return frozenset()


def _molecule(text: str, kind: str) -> Any:
    """The RDKit molecule; None for what is none."""
    try:
        return read_molecule(text, kind).molecule
    except MatfmError:
        return None


def _groups(molecule: Any) -> frozenset[str]:
    """Functional groups as SMILES of their atoms."""
    from rdkit.Chem import MolFragmentToSmiles

    return frozenset(MolFragmentToSmiles(molecule, sorted(atoms)) for atoms in functional_groups(molecule))


def _scaffolds(run: RunFiles, results: Results, molecules: Sequence[Any]) -> Html | None:
    """Errors of rows whose scaffold a training row has, and of the others."""
    train = run.inputs_of("train")
    if len(train) > _ANALYSED or results.part.endswith("train"):
        return None
    assert run.kind is not None
    seen = {_scaffold(_molecule(text, run.kind)) for text in train}
    scaffolds = [_scaffold(one) for one in molecules]
    known_R = np.array([scaffold in seen for scaffold in scaffolds], bool)
    error_R = results.errors[: len(known_R)]
    rows = [
        (name, number(int(chosen.sum())), number(float(error_R[chosen].mean())))
        for name, chosen in (("a training row has it", known_R), ("new", ~known_R))
        if chosen.any()
    ]
    return table("By Bemis–Murcko scaffold", ("scaffold", "rows", results.error_name), rows)


def _scaffold(molecule: Any) -> Hashable:
    try:
        return None if molecule is None else murcko_scaffold(molecule)
    except MatfmError:
        return None


def _difficulty(results: Results) -> np.ndarray:
    """Error, or of classes the negative logarithm of the true one's probability."""
    if not results.classes:
        return results.errors
    true = results.true_R.astype(int)[:, None]
    difficulty: np.ndarray = -np.log(np.take_along_axis(results.value_R, true, axis=1)[:, 0].clip(_LEAST_PROBABILITY))
    return difficulty


def _case(run: RunFiles, results: Results, position: int) -> Html:
    if results.classes:
        probability_C = results.value_R[position]
        true, chosen = int(results.true_R[position]), int(probability_C.argmax())
        facts = [
            ("true", shortened(results.classes[true], 30)),
            ("its probability", number(float(probability_C[true]))),
            ("predicted", shortened(results.classes[chosen], 30)),
        ]
    else:
        value = float(results.value_R[position])
        spread = "" if results.std_R is None else f" ± {number(float(results.std_R[position]))}"
        facts = [
            ("measured", number(float(results.true_R[position]))),
            ("predicted", f"{number(value)}{spread}"),
            ("error", f"{number(float(results.errors[position]))} {results.unit}".strip()),
        ]
    facts.append(("row", number(int(results.row_R[position]))))
    if results.tables:
        facts.append(("table", shortened(results.tables[position], 60)))
    terms = (part for name, value in facts for part in (tag("dt", name), tag("dd", value)))
    return tag("li", drawn_input(results.inputs[position], run.kind), tag("dl", *terms))
