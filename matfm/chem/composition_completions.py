"""Which beginnings of a composition can be completed, decided exactly for all of them at once.

A composition is written as elements in a fixed order, each with its whole number of atoms. For every place in that
order, number of elements so far and number of atoms left, the set of charges is computed that a beginning may have so
that elements and oxidation states to come can bring the sum to zero (or, without charges, whether anything can come).
Sets of charges are the bits of whole numbers, and an element costs a few shifts, not its combinations.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_ATOMS = 99
"""Most atoms of a constrained composition: an amount token holds as many."""

# n elements of the order, j elements taken so far, p place of the next element, A atoms left


@dataclass(frozen=True)
class Way:
    """One way in which a composition may be right."""

    charges: tuple[tuple[int, ...], ...]
    """Oxidation states of each element in the order; none for an element that may not be taken."""
    required: frozenset[int]
    """Places of the elements that must be taken."""
    fewest: int
    """Elements."""
    most: int


class Completions:
    """Beginnings that a way can complete. A beginning is known by its possible charges, see `take`.

    Args:
        way: what is right.
        atoms: most atoms in all, 1 to 99.
    """

    def __init__(self, way: Way, atoms: int) -> None:
        self._way = way
        largest = max((abs(charge) for states in way.charges for charge in states), default=0)
        self.begin = 1 << largest * atoms
        """The charges before the first element: zero alone. Bit b stands for the charge b minus that bit's number."""
        self._last_required = max(way.required, default=-1)
        # [j][p][A]: charges of a beginning of j elements that the element at p may follow, and that any from p on may.
        self._next: list[list[list[int]]] = []
        self._later: list[list[list[int]]] = []
        later = [[0] * (atoms + 1) for _ in range(len(way.charges) + 1)]
        for taken in reversed(range(way.most)):
            following, later = self._one_element_less(taken, later, atoms)
            self._next.insert(0, following)
            self._later.insert(0, later)

    def _one_element_less(
        self, taken: int, later: list[list[int]], atoms: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Rows of `_next` and `_later` for `taken` elements, from that of `_later` for one more."""
        places = len(self._way.charges)
        following = [[0] * (atoms + 1) for _ in range(places)]
        any_later = [[0] * (atoms + 1) for _ in range(places + 1)]
        for place in reversed(range(places)):
            end = self.begin if self._is_complete(taken + 1, place + 1) else 0
            then = [charges | end for charges in later[place + 1]]
            for state in self._way.charges[place]:
                reached = 0
                for left in range(1, atoms + 1):
                    # One atom of this state, then what comes next or another atom of it.
                    reached = _shifted(then[left - 1] | reached, -state)
                    following[place][left] |= reached
            skipped = [0] * (atoms + 1) if place in self._way.required else any_later[place + 1]
            any_later[place] = [
                taking | not_taking for taking, not_taking in zip(following[place], skipped, strict=True)
            ]
        return following, any_later

    def _is_complete(self, taken: int, place: int) -> bool:
        return self._way.fewest <= taken <= self._way.most and self._last_required < place

    def take(self, charges: int, place: int, amount: int) -> int:
        """Charges after so many atoms of an element: one state for all of them, each possible one kept."""
        taken = 0
        for state in self._way.charges[place]:
            taken |= _shifted(charges, state * amount)
        return taken

    def may_follow(self, charges: int, taken: int, place: int, left: int) -> bool:
        """Whether the element at a place may be the next one, with some amount within the atoms left."""
        return taken < self._way.most and bool(charges & self._next[taken][place][left])

    def may_end(self, charges: int, taken: int, place: int) -> bool:
        """Whether a composition of `taken` elements, the last of them before `place`, is right as it is."""
        return self._is_complete(taken, place) and bool(charges & self.begin)

    def may_go_on(self, charges: int, taken: int, place: int, left: int) -> bool:
        """Whether it is right as it is, or elements from `place` on can make it so."""
        longer = taken < self._way.most and bool(charges & self._later[taken][place][left])
        return longer or self.may_end(charges, taken, place)


def _shifted(charges: int, by: int) -> int:
    return charges << by if by >= 0 else charges >> -by
