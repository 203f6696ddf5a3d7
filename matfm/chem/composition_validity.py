"""Charge neutrality and electronegativity balance of compositions, as SMACT defines them, in polynomial time.

Davies et al., Computational screening of all stoichiometric inorganic materials, Chem 1, 617 (2016);
Davies et al., SMACT: semiconducting materials by analogy and chemical theory, J. Open Source Softw. 4, 1361 (2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from matfm.chem.elements import SYMBOLS
from matfm.chem.formula import Formula, read_formula
from matfm.chem.reduced_composition import whole_amounts
from matfm.errors import MatfmError

OXIDATION_STATES = {
    "icsd24": "oxidation_states_icsd24",
    "icsd16": "oxidation_states_icsd16",
    "smact14": "oxidation_states_smact14",
    "pymatgen_sp": "oxidation_states_sp",
}
"""Sets of known oxidation states to their attribute of `smact.Element`: those of the ICSD as of 2024 (more than five
reports) and 2016, SMACT's own list of 2014, and that of pymatgen's structure predictor."""

CHARGE_TOLERANCE = 0.002
"""Elementary charges per atom that amounts written with decimals may be off: three decimals are rounded by so much."""

_MOST_ATOMS = 100_000
"""Larger reduced compositions are rounded to this many atoms, which bounds time and memory."""


@dataclass(frozen=True)
class ChargeBalance:
    """Whether oxidation states exist that make a composition neutral, and neutral in the order of electronegativity."""

    charge_neutral: bool
    electronegativity_balanced: bool
    states: Mapping[str, float] | None
    """One assignment (not the likeliest), balanced if there is one: oxidation state by element, 0 in elements and
    alloys, the mean where an element has mixed valence. None if there is none."""
    reason: str | None
    """Why the composition is not neutral or not balanced."""


@dataclass(frozen=True)
class _Elements:
    """What SMACT knows: oxidation states (ascending) by element, Pauling electronegativities, kinds of elements."""

    states: dict[str, tuple[int, ...]]
    electronegativity: dict[str, float]
    metals: frozenset[str]
    mixed: frozenset[str]


def charge_neutral(
    formula: str | Formula, oxidation_states: str = "icsd24", *, alloys: bool = True, mixed_valence: bool = False
) -> bool:
    """Whether the known oxidation states can sum to zero; arguments as for `charge_balance`."""
    return charge_balance(formula, oxidation_states, alloys=alloys, mixed_valence=mixed_valence).charge_neutral


def electronegativity_balanced(
    formula: str | Formula, oxidation_states: str = "icsd24", *, alloys: bool = True, mixed_valence: bool = False
) -> bool:
    """Whether they can do so with every cation less electronegative than every anion (Pauling test)."""
    found = charge_balance(formula, oxidation_states, alloys=alloys, mixed_valence=mixed_valence)
    return found.electronegativity_balanced


def charge_balance(
    formula: str | Formula, oxidation_states: str = "icsd24", *, alloys: bool = True, mixed_valence: bool = False
) -> ChargeBalance:
    """Look for oxidation states, one per element, that sum to zero over the composition.

    Whole numbers of atoms are counted exactly; amounts with decimals up to `CHARGE_TOLERANCE` per atom. A single
    element is neutral and balanced. An ion (`Fe3+`) is neither.

    Args:
        formula: text or parsed.
        oxidation_states: one of `OXIDATION_STATES`.
        alloys: compositions of metals only are neutral and balanced (SMACT's `include_alloys`).
        mixed_valence: one element of SMACT's list of mixed-valence elements may be shared between two neighbouring
            states of the same sign (magnetite, Fe3O4: two Fe +3 and one Fe +2).

    Raises:
        MatfmError: the formula cannot be read, the set is unknown, or smact is not installed.
    """
    elements = element_table(oxidation_states)
    parsed = read_formula(formula) if isinstance(formula, str) else formula
    without = _without_search(parsed, elements, alloys)
    if without is not None:
        return without
    search = _Search(parsed, elements, elements.mixed if mixed_valence else frozenset())
    unknown = sorted(symbol for symbol in parsed.amounts if symbol not in elements.electronegativity)
    states = None if unknown else search.balanced()
    if states is not None:
        return ChargeBalance(True, True, states, None)
    states = search.neutral()
    if states is None:
        return ChargeBalance(False, False, None, "no combination of known oxidation states sums to zero")
    reason = "every neutral combination has a cation that is as electronegative as an anion, or more"
    if unknown:
        reason = f"the electronegativity of {', '.join(unknown)} is not known"
    return ChargeBalance(True, False, states, reason)


def _without_search(parsed: Formula, elements: _Elements, alloys: bool) -> ChargeBalance | None:
    """Ions, elements, alloys and elements without known states."""
    symbols = parsed.amounts.keys()
    if parsed.charge:
        return ChargeBalance(False, False, None, f"an ion of charge {parsed.charge:+d}")
    if len(symbols) == 1 or (alloys and symbols <= elements.metals):
        return ChargeBalance(True, True, dict.fromkeys(symbols, 0.0), None)
    stateless = sorted(symbol for symbol in symbols if not elements.states.get(symbol))
    if stateless:
        return ChargeBalance(False, False, None, f"no oxidation state of {', '.join(stateless)} is known")
    return None


class _Search:
    """Oxidation states of one composition. Elements stand in order of electronegativity, the lowest first."""

    def __init__(self, formula: Formula, elements: _Elements, mixed: frozenset[str]) -> None:
        counts = whole_amounts(formula)
        atoms = sum(counts.values())
        whole = all(float(amount).is_integer() for amount in formula.amounts.values())
        if atoms > _MOST_ATOMS:
            counts = {symbol: max(1, round(count * _MOST_ATOMS / atoms)) for symbol, count in counts.items()}
            atoms, whole = _MOST_ATOMS, False
        self.tolerance = 0 if whole else int(CHARGE_TOLERANCE * atoms)
        self.electronegativity = elements.electronegativity
        self.symbols = sorted(counts, key=lambda symbol: (elements.electronegativity.get(symbol, 0.0), symbol))
        self.counts = [counts[symbol] for symbol in self.symbols]
        self.states = [elements.states[symbol] for symbol in self.symbols]
        self.mixed = mixed

    def neutral(self) -> dict[str, float] | None:
        """States that sum to zero."""
        return self._assign(self.states)

    def balanced(self) -> dict[str, float] | None:
        """The same, cations before anions: for a place between two electronegativities, the elements below it take no
        negative state and those above it no positive one. Places with the fewest anions come first.
        """
        values = [self.electronegativity[symbol] for symbol in self.symbols]
        for cut in reversed(range(len(values) + 1)):
            if 0 < cut < len(values) and values[cut - 1] == values[cut]:
                continue
            allowed = [
                tuple(state for state in states if (state >= 0 if place < cut else state <= 0))
                for place, states in enumerate(self.states)
            ]
            found = self._assign(allowed) if all(allowed) else None
            if found is not None:
                return found
        return None

    def _assign(self, allowed: list[tuple[int, ...]]) -> dict[str, float] | None:
        """One state per element, exactly or else within the tolerance, or else with a shared element."""
        for tolerance in sorted({0, self.tolerance}):
            found = _states_with_sum(self.counts, allowed, -tolerance, tolerance)
            if found is not None:
                return dict(zip(self.symbols, map(float, found), strict=True))
        choices = (self._assign_shared(allowed, *choice) for choice in self._shared(allowed))
        shared = [states for states in choices if states is not None]
        # The most electronegative element first: oxygen is -2 rather than -1 where there is a choice.
        best = min(shared, key=lambda states: states[::-1], default=None)
        return None if best is None else dict(zip(self.symbols, best, strict=True))

    def _shared(self, allowed: list[tuple[int, ...]]) -> Iterator[tuple[int, int, int]]:
        """Element and two neighbouring states of one sign that its atoms may have."""
        for place, symbol in enumerate(self.symbols):
            if symbol in self.mixed:
                yield from ((place, low, high) for low, high in pairwise(allowed[place]) if low * high > 0)

    def _assign_shared(
        self, allowed: list[tuple[int, ...]], place: int, lower: int, upper: int
    ) -> tuple[float, ...] | None:
        """States of all elements where the one at `place` has a mean between two states."""
        count, others = self.counts[place], [*self.counts[:place], *self.counts[place + 1 :]]
        low, high = -count * upper - self.tolerance, -count * lower + self.tolerance
        found = _states_with_sum(others, [*allowed[:place], *allowed[place + 1 :]], low, high)
        if found is None:
            return None
        mean = -sum(n * state for n, state in zip(others, found, strict=True)) / count
        return (*map(float, found[:place]), min(max(mean, lower), upper), *map(float, found[place:]))


def _states_with_sum(counts: list[int], allowed: list[tuple[int, ...]], low: int, high: int) -> tuple[int, ...] | None:
    """One state per element whose sum over all atoms lies in [low, high]; of the last elements the lowest ones.

    The sums that the first elements can reach are the bits of a whole number, so that an element costs one shift
    per state instead of multiplying the combinations. Bit b stands for the lowest possible sum plus b.
    """
    lowest = sum(count * states[0] for count, states in zip(counts, allowed, strict=True))
    reached = [1]
    for count, states in zip(counts, allowed, strict=True):
        sums = 0
        for state in states:
            sums |= reached[-1] << count * (state - states[0])
        reached.append(sums)
    first, last = max(low - lowest, 0), high - lowest
    if last < first:
        return None
    wanted = reached[-1] & (((1 << (last - first + 1)) - 1) << first)
    if not wanted:
        return None
    found: list[int] = []
    for place in reversed(range(len(counts))):
        for state in allowed[place]:
            before = (wanted >> counts[place] * (state - allowed[place][0])) & reached[place]
            if before:
                found.append(state)
                wanted = before
                break
    return tuple(reversed(found))


@cache
def element_table(oxidation_states: str) -> _Elements:
    """SMACT's data of the elements. Raises MatfmError for an unknown set and where smact is not installed."""
    if oxidation_states not in OXIDATION_STATES:
        choices = ", ".join(OXIDATION_STATES)
        raise MatfmError(f"oxidation_states is {oxidation_states!r}; choose one of {choices}")
    try:
        import smact
        from smact.screening import MIXED_VALENCE_ELEMENTS
    except ImportError as error:
        raise MatfmError(
            f"charge neutrality needs smact, which cannot be imported ({error}); run: pip install matfm[validity]"
        ) from error
    states, electronegativity = {}, {}
    for symbol in SYMBOLS:
        try:
            element = smact.Element(symbol)
        except KeyError:  # SMACT ends at lawrencium
            continue
        states[symbol] = tuple(sorted(set(getattr(element, OXIDATION_STATES[oxidation_states]) or ())))
        if element.pauling_eneg is not None:
            electronegativity[symbol] = element.pauling_eneg
    return _Elements(states, electronegativity, frozenset(smact.metals), frozenset(MIXED_VALENCE_ELEMENTS))
