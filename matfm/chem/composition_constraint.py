"""Decode-time constraint of compositions in the scheme `count`: grammar, elements, atoms, charge neutrality."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from matfm.chem.composition_completions import MOST_ATOMS, Completions, Way
from matfm.chem.composition_validity import element_table
from matfm.chem.elements import SYMBOLS
from matfm.chem.formula_text import order_symbols
from matfm.errors import MatfmError

# V vocabulary

ORDERED = ("electronegativity", "alphabetical")
"""Orders in which every element has its place, whatever the others are."""
MOST_ELEMENTS = 10


@dataclass(frozen=True)
class CompositionRules:
    """What a generated composition must be. Amounts are whole numbers."""

    elements: tuple[str, ...] | None = None
    """Elements that may occur; None for all 118."""
    required: tuple[str, ...] = ()
    """Elements that must occur."""
    fewest_elements: int = 1
    most_elements: int = MOST_ELEMENTS
    most_atoms: int = MOST_ATOMS
    """Atoms in the formula as written, not reduced."""
    charge_neutral: bool = False
    """Known oxidation states, one per element, can sum to zero: see `charge_balance`."""
    oxidation_states: str = "icsd24"
    alloys: bool = True
    """Compositions of metals only count as neutral."""

    def __post_init__(self) -> None:
        for name in ("elements", "required"):
            unknown = [symbol for symbol in getattr(self, name) or () if symbol not in SYMBOLS]
            if unknown:
                raise MatfmError(f"{name}: {unknown[0]!r} is no element; give symbols such as Li,Fe,O")
        if self.elements is not None and not set(self.required) <= set(self.elements):
            lacking = sorted(set(self.required) - set(self.elements))
            raise MatfmError(f"required {', '.join(lacking)} is not among the elements that may occur; add it there")
        if not 1 <= self.fewest_elements <= self.most_elements <= MOST_ELEMENTS:
            raise MatfmError(
                f"the number of elements is {self.fewest_elements} to {self.most_elements}; it must ascend, "
                f"within 1 to {MOST_ELEMENTS}"
            )
        if not 1 <= self.most_atoms <= MOST_ATOMS:
            raise MatfmError(f"most_atoms is {self.most_atoms}; it is between 1 and {MOST_ATOMS}")


@dataclass(frozen=True)
class _State:
    """A beginning of a composition."""

    taken: int
    """Elements with their amounts."""
    place: int
    """First place in the order that the next element may have."""
    left: int
    """Atoms that may still come."""
    pending: int
    """Place of the element whose amount is next; -1 if an element is next."""
    charges: tuple[int, ...]
    """By way, as `Completions` counts them."""


class CompositionConstraint:
    """Element, amount, element, amount, …, end: elements in the tokenizer's order, none twice, rules kept.

    A token is allowed exactly if the composition can still be completed within the rules, so there are no dead ends.

    Args:
        rules: what is kept.
        vocabulary: token to id, of a tokenizer of scheme `count`.
        order: of that tokenizer, `electronegativity` or `alphabetical`.
        end: id of the end token.

    Raises:
        MatfmError: another order, or no composition keeps the rules.
    """

    stoppable = False

    def __init__(self, rules: CompositionRules, vocabulary: Mapping[str, int], order: str, end: int) -> None:
        if order not in ORDERED:
            raise MatfmError(
                f"the model writes elements in the order {order!r}, in which constraints cannot look ahead; "
                f"use one that was trained with data.order {' or '.join(ORDERED)}, or drop the constraints"
            )
        allowed = SYMBOLS if rules.elements is None else rules.elements
        self._symbols = [symbol for symbol in order_symbols(SYMBOLS, order) if symbol in allowed]
        self._element_ids = [vocabulary[symbol] for symbol in self._symbols]
        self._place_of = {index: place for place, index in enumerate(self._element_ids)}
        self._amount_ids = [0, *(vocabulary[str(amount)] for amount in range(1, MOST_ATOMS + 1))]
        self._amount_of = {index: amount for amount, index in enumerate(self._amount_ids) if amount}
        self._required = sorted(self._symbols.index(symbol) for symbol in rules.required)
        self._end, self._size, self._atoms = end, max(vocabulary.values()) + 1, rules.most_atoms
        self._ways = [Completions(way, rules.most_atoms) for way in _ways(rules, self._symbols)]
        if not self._may_go_on(self._first()):
            raise MatfmError("no composition keeps all constraints; allow more elements, atoms or numbers of elements")

    def start(self) -> Hashable:
        """Nothing written yet."""
        return self._first()

    def _first(self) -> _State:
        return _State(0, 0, self._atoms, -1, tuple(way.begin for way in self._ways))

    def allowed(self, state: Any) -> np.ndarray:
        """(V,) bool."""
        mask_V = np.zeros(self._size, bool)
        if state.pending >= 0:
            for amount in range(1, state.left + 1):
                mask_V[self._amount_ids[amount]] = self._may_go_on(self._with_amount(state, amount))
            return mask_V
        ways = list(zip(self._ways, state.charges, strict=True))
        mask_V[self._end] = any(way.may_end(charges, state.taken, state.place) for way, charges in ways)
        for place in range(state.place, self._last_next(state.place) + 1):
            follows = any(way.may_follow(charges, state.taken, place, state.left) for way, charges in ways)
            mask_V[self._element_ids[place]] = follows
        return mask_V

    def advance(self, state: Any, token: int) -> Hashable:
        """The state after an element or an amount."""
        if state.pending >= 0:
            return self._with_amount(state, self._amount_of[token])
        return _State(state.taken, state.place, state.left, self._place_of[token], state.charges)

    def _last_next(self, place: int) -> int:
        """Last place of the element that comes next: no required one is passed over."""
        return next((needed for needed in self._required if needed >= place), len(self._symbols) - 1)

    def _with_amount(self, state: _State, amount: int) -> _State:
        place = state.pending
        charges = tuple(way.take(known, place, amount) for way, known in zip(self._ways, state.charges, strict=True))
        return _State(state.taken + 1, place + 1, state.left - amount, -1, charges)

    def _may_go_on(self, state: _State) -> bool:
        ways = zip(self._ways, state.charges, strict=True)
        return any(way.may_go_on(charges, state.taken, state.place, state.left) for way, charges in ways)


def _ways(rules: CompositionRules, symbols: list[str]) -> list[Way]:
    """Without charges one way; for neutrality oxidation states, metals only, and a single element."""
    required = frozenset(symbols.index(symbol) for symbol in rules.required)
    fewest, most = rules.fewest_elements, rules.most_elements
    uncharged: list[tuple[int, ...]] = [(0,)] * len(symbols)
    if not rules.charge_neutral:
        return [Way(tuple(uncharged), required, fewest, most)]
    known = element_table(rules.oxidation_states)
    ways = [Way(tuple(known.states.get(symbol, ()) for symbol in symbols), required, fewest, most)]
    if rules.alloys:
        metals = tuple((0,) if symbol in known.metals else () for symbol in symbols)
        ways.append(Way(metals, required, fewest, most))
    if fewest == 1:
        ways.append(Way(tuple(uncharged), required, 1, 1))
    return ways
