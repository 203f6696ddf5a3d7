"""When two texts are the same substance: equal reduced composition, or equal canonical SMILES."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from matfm.chem.reduced_composition import canonical_formula
from matfm.chem.scaffold_splits import read_molecule
from matfm.chem.skeletons import SkeletonFilter
from matfm.chem.splits import COMPOSITION, MOLECULE
from matfm.errors import MatfmError

KINDS = COMPOSITION + MOLECULE


def identity(text: str, kind: str) -> str:
    """Equal for texts of the same substance: the reduced formula in Hill order, or canonical SMILES with stereo.

    Raises:
        MatfmError: the text cannot be read, or `kind` is none of composition, smiles, selfies.
    """
    if kind in COMPOSITION:
        return canonical_formula(text)
    if kind in MOLECULE:
        return str(read_molecule(text, kind).canonical)
    raise MatfmError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")


class Identities:
    """`identity` with a memory: every text is read once. Unreadable texts give None."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, str | MatfmError] = {}

    def read(self, text: str) -> str:
        """The identity. Raises MatfmError for what cannot be read."""
        found = self._known.get(text)
        if found is None:
            try:
                found = identity(text, self.kind)
            except MatfmError as error:
                found = error
            self._known[text] = found
        if isinstance(found, MatfmError):
            raise found
        return found

    def of(self, texts: Iterable[str]) -> list[str | None]:
        """The identity of each text, None where it cannot be read."""
        return list(map(self._or_none, texts))

    def among(self, texts: Iterable[str], wanted: set[str]) -> Iterator[str | None]:
        """The identity of each text if it is one of `wanted`, else None.

        Exact, and fast for SMILES: only those are read whose text may say a wanted molecule (`SkeletonFilter`).
        """
        if self.kind != "smiles":
            yield from (found if found in wanted else None for found in map(self._or_none, texts))
            return
        skeletons = SkeletonFilter(wanted)
        for text in texts:
            found = self._or_none(text) if skeletons.may_hold(text) else None
            yield found if found in wanted else None

    def _or_none(self, text: str) -> str | None:
        try:
            return self.read(text)
        except MatfmError:
            return None
