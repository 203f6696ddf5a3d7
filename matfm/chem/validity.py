"""Validity, uniqueness and novelty of generated compositions and molecules.

Definitions of Polykovskiy et al., Molecular Sets (MOSES), Front. Pharmacol. 11, 565644 (2020); for compositions with
the shares of charge-neutral and electronegativity-balanced ones, as in Fu et al., Material transformers, Mach. Learn.:
Sci. Technol. 4, 015001 (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from matfm.chem.composition_validity import charge_balance, element_table
from matfm.chem.formula import read_formula
from matfm.chem.molecule_validity import canonical_selfies, canonical_smiles
from matfm.chem.reduced_composition import canonical_formula
from matfm.errors import MatfmError

KINDS = ("composition", "smiles", "selfies")
UNIQUE_AT = 10_000
KEPT_INVALID = 100


@dataclass(frozen=True)
class Verdict:
    """What is found about one text."""

    canonical: str | None = None
    """Reduced formula in Hill order, or canonical SMILES: equal texts are the same thing. None if invalid."""
    charge_neutral: bool | None = None
    electronegativity_balanced: bool | None = None
    error: str | None = None
    """Why the text is not valid."""

    @property
    def valid(self) -> bool:
        """Whether the text could be read (and, for molecules, sanitised)."""
        return self.canonical is not None


Check = Callable[[str], Verdict]


def validity_check(
    kind: str, oxidation_states: str = "icsd24", *, alloys: bool = True, mixed_valence: bool = False
) -> Check:
    """The check of one text of that kind; it never raises for a bad text.

    Args:
        kind: composition, smiles or selfies.
        oxidation_states: for compositions, as the next two: see `charge_balance`.
        alloys: compositions of metals only are neutral and balanced.
        mixed_valence: one element may have two neighbouring states.

    Raises:
        MatfmError: unknown kind or set, or smact is not installed.
    """
    if kind not in KINDS:
        raise MatfmError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "composition":
        element_table(oxidation_states)

    def composition(text: str) -> Verdict:
        formula = read_formula(text)
        found = charge_balance(formula, oxidation_states, alloys=alloys, mixed_valence=mixed_valence)
        return Verdict(canonical_formula(formula), found.charge_neutral, found.electronegativity_balanced)

    checks: dict[str, Check] = {
        "composition": composition,
        "smiles": lambda text: Verdict(canonical_smiles(text)),
        "selfies": lambda text: Verdict(canonical_selfies(text)),
    }

    def check(text: str) -> Verdict:
        try:
            return checks[kind](text)
        except MatfmError as error:
            return Verdict(error=str(error))

    return check


@dataclass(frozen=True)
class Invalid:
    """A text that is not valid; rows count from 0."""

    row: int
    text: str
    reason: str


@dataclass(frozen=True)
class ValidityReport:
    """Counts over a set of texts, and the shares they give (None where nothing is there to share)."""

    n: int
    """Texts."""
    n_valid: int
    k: int
    """The k of unique@k."""
    n_unique_at_k: int
    """Different ones among the first k valid ones."""
    n_unique: int
    """Different ones among all valid ones."""
    n_novel: int | None = None
    """Of these, not in the reference; None without a reference."""
    n_charge_neutral: int | None = None
    """Texts, repeated ones too; None for molecules."""
    n_electronegativity_balanced: int | None = None
    """The same."""
    invalid: tuple[Invalid, ...] = ()
    """The first invalid ones; all are counted in n - n_valid."""

    @property
    def valid(self) -> float | None:
        """Share of the texts that are valid."""
        return _share(self.n_valid, self.n)

    @property
    def unique(self) -> float | None:
        """unique@k: share of the first k valid ones (of all if they are fewer) that are different."""
        return _share(self.n_unique_at_k, min(self.k, self.n_valid))

    @property
    def novelty(self) -> float | None:
        """Share of the different valid ones that are not in the reference."""
        return _share(self.n_novel, self.n_unique)

    @property
    def charge_neutral(self) -> float | None:
        """Share of the texts that are charge neutral; invalid ones are not."""
        return _share(self.n_charge_neutral, self.n)

    @property
    def electronegativity_balanced(self) -> float | None:
        """Share of the texts that are charge neutral and electronegativity balanced."""
        return _share(self.n_electronegativity_balanced, self.n)

    def summary(self) -> dict[str, Any]:
        """Counts and shares for JSON; what does not apply is left out, what has no denominator is null."""
        size = f"{self.k // 1000}k" if self.k % 1000 == 0 else str(self.k)
        shares: dict[str, Any] = {"valid": self.valid, f"unique@{size}": self.unique}
        counts = {"n": self.n, "n_valid": self.n_valid, "n_unique": self.n_unique}
        if self.n_novel is not None:
            counts["n_novel"], shares["novelty"] = self.n_novel, self.novelty
        if self.n_charge_neutral is not None:
            shares["charge_neutral"] = self.charge_neutral
            shares["electronegativity_balanced"] = self.electronegativity_balanced
        return {**counts, **shares}


class ValidityCounter:
    """Counts verdicts one by one. Memory grows with the different valid ones only.

    Args:
        kind: composition, smiles or selfies.
        reference: canonical texts of the training set, for novelty.
        k: of unique@k.
        keep: invalid ones to keep with their reasons.
    """

    def __init__(
        self, kind: str, reference: Collection[str] | None = None, k: int = UNIQUE_AT, keep: int = KEPT_INVALID
    ) -> None:
        if k < 1:
            raise MatfmError(f"k is {k}; unique@k needs at least one")
        self._compositions = kind == "composition"
        self._reference = None if reference is None else frozenset(reference)
        self._k, self._keep = k, keep
        self._n = self._n_valid = self._neutral = self._balanced = self._unique_at_k = 0
        self._seen: set[str] = set()
        self._invalid: list[Invalid] = []

    def add(self, text: str, verdict: Verdict) -> None:
        """Count one text."""
        if verdict.canonical is None:
            if len(self._invalid) < self._keep:
                self._invalid.append(Invalid(self._n, text, verdict.error or "not valid"))
        else:
            self._n_valid += 1
            self._seen.add(verdict.canonical)
            if self._n_valid <= self._k:
                self._unique_at_k = len(self._seen)
        self._n += 1
        self._neutral += bool(verdict.charge_neutral)
        self._balanced += bool(verdict.electronegativity_balanced)

    def report(self) -> ValidityReport:
        """What was counted so far."""
        return ValidityReport(
            n=self._n,
            n_valid=self._n_valid,
            k=self._k,
            n_unique_at_k=self._unique_at_k,
            n_unique=len(self._seen),
            n_novel=None if self._reference is None else len(self._seen - self._reference),
            n_charge_neutral=self._neutral if self._compositions else None,
            n_electronegativity_balanced=self._balanced if self._compositions else None,
            invalid=tuple(self._invalid),
        )


def validity_report(
    texts: Iterable[str],
    kind: str,
    reference: Collection[str] | None = None,
    k: int = UNIQUE_AT,
    *,
    oxidation_states: str = "icsd24",
    alloys: bool = True,
    mixed_valence: bool = False,
) -> ValidityReport:
    """Check texts of any number in one pass; arguments as for `validity_check` and `ValidityCounter`."""
    check = validity_check(kind, oxidation_states, alloys=alloys, mixed_valence=mixed_valence)
    counter = ValidityCounter(kind, reference, k)
    for text in texts:
        counter.add(text, check(text))
    return counter.report()


def _share(part: int | None, whole: int) -> float | None:
    return None if part is None or not whole else part / whole
