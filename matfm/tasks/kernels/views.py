"""Views of compositions and molecules: the features that kernels compare, in the parts that have a kernel each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from matfm.chem.descriptors import descriptor_values
from matfm.chem.line_corpus import first_field
from matfm.chem.magpie import magpie_features
from matfm.chem.selfies import selfies_to_smiles
from matfm.chem.smiles import parse_smiles
from matfm.chem.tanimoto import atom_pair_counts, morgan_counts, torsion_counts
from matfm.errors import MatfmError
from matfm.tasks.pretraining.molecule_targets import descriptor_names
from matfm.tasks.recipes.element_properties import magpie_table

# R rows, D features of a part

EMBEDDING, MAGPIE, DESCRIPTORS = "embedding", "magpie", "descriptors"
MORGAN, PAIRS, ATOM_PAIRS, TORSIONS = "morgan", "pairs", "atom_pairs", "torsions"
COMPOSITION_VIEWS = (MAGPIE, EMBEDDING)
MOLECULE_VIEWS = (MORGAN, PAIRS, DESCRIPTORS, EMBEDDING)
PARTS = {PAIRS: (ATOM_PAIRS, TORSIONS)}
"""Views of several parts; any other is one part, of the same name."""
MOLECULE_PARTS: dict[str, Callable[[Sequence[Any]], np.ndarray]] = {
    MORGAN: morgan_counts,
    ATOM_PAIRS: atom_pair_counts,
    TORSIONS: torsion_counts,
    DESCRIPTORS: lambda molecules: descriptor_values(molecules, descriptor_names("rdkit")),
}
"""Part to features (R, D) of RDKit molecules."""


def chosen_views(features: str | Sequence[str], kind: str) -> tuple[str, ...]:
    """Views by name, in the order in which their kernels are summed, whatever the order of the names.

    Args:
        features: auto (all of the kind), or names.
        kind: composition, smiles or selfies.

    Raises:
        MatfmError: no name, or one that is no view of the kind.
    """
    views = COMPOSITION_VIEWS if kind == "composition" else MOLECULE_VIEWS
    if isinstance(features, str) and features == "auto":
        return views
    names = (features,) if isinstance(features, str) else tuple(features)
    for name in names:
        if name not in views:
            raise MatfmError(f"features holds {name!r} and the input is {kind}; choose auto, or of {', '.join(views)}")
    if not names:
        raise MatfmError(f"features names no view; choose auto, or of {', '.join(views)}")
    return tuple(view for view in views if view in names)


def parts_of(views: Iterable[str]) -> tuple[str, ...]:
    """The parts of the views, in order."""
    return tuple(part for view in views for part in PARTS.get(view, (view,)))


def described_parts(parts: Iterable[str], inputs: Sequence[str], kind: str) -> dict[str, np.ndarray]:
    """Features (R, D) of every part but the embedding, which needs an encoder.

    Magpie features float64; counts uint16; descriptors float32, NaN where RDKit has no number.

    Raises:
        MatfmError: naming the row of an input that cannot be read, or that holds an element without Magpie properties.
        RunError: Magpie's table cannot be fetched.
    """
    wanted = [part for part in parts if part != EMBEDDING]
    if kind == "composition":
        return {part: magpie_features(inputs, magpie_table()) for part in wanted}
    molecules = [parse_smiles(_smiles(text, kind)).molecule for text in inputs] if wanted else []
    return {part: MOLECULE_PARTS[part](molecules) for part in wanted}


def _smiles(text: str, kind: str) -> str:
    return selfies_to_smiles(first_field(text)) if kind == "selfies" else text
