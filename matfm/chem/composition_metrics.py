"""How close generated compositions are to known ones: recovery, distributions, and random formulas to compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matfm.chem.elements import SYMBOLS
from matfm.chem.formula import Formula, read_formula
from matfm.chem.formula_text import formula_text
from matfm.chem.reduced_composition import whole_amounts
from matfm.errors import MatfmError

# R formulas


@dataclass(frozen=True)
class CompositionProfile:
    """Distributions of a set of compositions, each reduced to whole amounts."""

    elements: Counter[str]
    """Element to number of compositions with it."""
    sizes: Counter[int]
    """Number of elements to number of compositions."""
    stoichiometries: Counter[str]
    """Amounts without elements, ascending (`1-2-4`), to number of compositions."""
    atoms: Counter[int]
    """Atoms of the reduced formula to number of compositions."""


def composition_profile(formulas: Iterable[str | Formula]) -> CompositionProfile:
    """Count a set. Raises MatfmError for a formula that cannot be read."""
    profile = CompositionProfile(Counter(), Counter(), Counter(), Counter())
    for formula in formulas:
        amounts = whole_amounts(read_formula(formula) if isinstance(formula, str) else formula)
        profile.elements.update(list(amounts))  # a mapping would add its values
        profile.sizes[len(amounts)] += 1
        profile.stoichiometries["-".join(map(str, sorted(amounts.values())))] += 1
        profile.atoms[sum(amounts.values())] += 1
    return profile


def jensen_shannon(left: Mapping[Any, int], right: Mapping[Any, int]) -> float:
    """Jensen–Shannon distance of two distributions by counts: 0 (equal) to 1 (nothing in common).

    The square root of the divergence in bits (Endres and Schindelin, IEEE Trans. Inf. Theory 49, 1858 (2003)).

    Raises:
        MatfmError: one of them is empty.
    """
    totals = sum(left.values()), sum(right.values())
    if not all(totals):
        raise MatfmError("a distance of distributions needs at least one composition on both sides")
    divergence = 0.0
    for key in left.keys() | right.keys():
        p, q = left.get(key, 0) / totals[0], right.get(key, 0) / totals[1]
        middle = (p + q) / 2
        divergence += sum(share * np.log2(share / middle) for share in (p, q) if share) / 2
    return float(max(divergence, 0.0) ** 0.5)


def distribution_distances(reference: CompositionProfile, generated: CompositionProfile) -> dict[str, float]:
    """Jensen–Shannon distances of elements, numbers of elements, stoichiometries and atoms."""
    return {
        f"distance_{name}": jensen_shannon(getattr(reference, name), getattr(generated, name))
        for name in ("elements", "sizes", "stoichiometries", "atoms")
    }


def recovery(generated: Collection[str], held_out: Collection[str]) -> float:
    """Share of the held-out canonical formulas that are among the generated ones.

    Raises:
        MatfmError: nothing was held out.
    """
    wanted = set(held_out)
    if not wanted:
        raise MatfmError("recovery needs held-out compositions, and there are none")
    return len(wanted.intersection(generated)) / len(wanted)


def random_compositions(profile: CompositionProfile, count: int, generator: np.random.Generator) -> list[str]:
    """Random formulas with the sizes and amounts of a set, but any of its elements: what no chemistry knows.

    The number of elements is drawn as in the set, the elements uniformly from those that occur in it, and the amounts
    as those of a composition with that many elements.
    """
    symbols = sorted(profile.elements, key=SYMBOLS.index)
    by_size: dict[int, list[str]] = {}
    for text in sorted(profile.stoichiometries):
        by_size.setdefault(text.count("-") + 1, []).append(text)
    weights = {size: _shares([profile.stoichiometries[text] for text in texts]) for size, texts in by_size.items()}
    sizes = sorted(profile.sizes)
    drawn = generator.choice(sizes, size=count, p=_shares([profile.sizes[size] for size in sizes]))
    formulas = []
    for size in drawn.tolist():
        chosen = generator.choice(symbols, size=size, replace=False)
        amounts = by_size[size][generator.choice(len(by_size[size]), p=weights[size])].split("-")
        formulas.append(_formula(chosen.tolist(), generator.permutation(amounts).tolist()))
    return formulas


def _shares(counts: Sequence[int]) -> np.ndarray:
    return np.array(counts, float) / sum(counts)


def _formula(symbols: Sequence[str], amounts: Sequence[str]) -> str:
    return formula_text({symbol: float(amount) for symbol, amount in zip(symbols, amounts, strict=True)})
