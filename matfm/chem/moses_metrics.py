"""Metrics of MOSES on molecules (Polykovskiy et al., Molecular Sets, Front. Pharmacol. 11, 565644 (2020), section 4).

Each follows the code of `molsets` 0.3.1 where paper and code differ. Molecules are RDKit's, generated ones all valid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from matfm.chem.fingerprints import morgan_fingerprints, tanimoto
from matfm.chem.synthetic_accessibility import synthetic_accessibility

# R reference molecules, G generated ones, W bytes of a fingerprint

BITS = 1024
FEWEST_RINGS = 2
"""Scaffolds with fewer rings do not count."""
_BLOCK = 1024


def moses_fingerprints(molecules: Sequence[Any]) -> np.ndarray:
    """Packed bits of Morgan fingerprints (radius 2, 1024 bits), (G, W) uint8."""
    return morgan_fingerprints(molecules, BITS)


def nearest_similarity(reference_RW: np.ndarray, generated_GW: np.ndarray) -> float:
    """SNN: Tanimoto similarity to the nearest reference molecule, mean over the generated ones."""
    nearest_G = np.zeros(len(generated_GW))
    for low in range(0, len(generated_GW), _BLOCK):
        block = slice(low, low + _BLOCK)
        for start in range(0, len(reference_RW), _BLOCK):
            similar_RG = tanimoto(reference_RW[start : start + _BLOCK], generated_GW[block])
            nearest_G[block] = np.maximum(nearest_G[block], similar_RG.max(axis=0))
    return float(nearest_G.mean())


def internal_diversity(generated_GW: np.ndarray, power: int = 1) -> float:
    """IntDiv_p = 1 − mean over molecules of (mean over all, itself included, of similarityᵖ)^(1/p)."""
    sums_G = np.zeros(len(generated_GW))
    for low in range(0, len(generated_GW), _BLOCK):
        for start in range(0, len(generated_GW), _BLOCK):
            block = tanimoto(generated_GW[low : low + _BLOCK], generated_GW[start : start + _BLOCK])
            sums_G[low : low + _BLOCK] += (block**power).sum(axis=1)
    return float(1 - ((sums_G / len(generated_GW)) ** (1 / power)).mean())


def fragments(molecules: Iterable[Any]) -> Counter[str]:
    """BRICS fragments by canonical SMILES, counted."""
    from rdkit.Chem import MolToSmiles
    from rdkit.Chem.rdmolops import FragmentOnBRICSBonds

    found: Counter[str] = Counter()
    for molecule in molecules:
        found.update(MolToSmiles(FragmentOnBRICSBonds(molecule)).split("."))
    return found


def scaffolds(molecules: Iterable[Any]) -> Counter[str]:
    """Bemis–Murcko scaffolds with at least two rings by canonical SMILES, counted."""
    from rdkit.Chem import MolToSmiles
    from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

    found: Counter[str] = Counter()
    for molecule in molecules:
        try:
            scaffold = GetScaffoldForMol(molecule)
        except (ValueError, RuntimeError):  # as in molsets: a molecule without a scaffold does not count
            continue
        if scaffold.GetRingInfo().NumRings() >= FEWEST_RINGS:
            found[MolToSmiles(scaffold)] += 1
    return found


def cosine_similarity(reference: Mapping[str, int], generated: Mapping[str, int]) -> float:
    """Frag and Scaf: cosine of two vectors of counts; NaN where one is empty."""
    if not reference or not generated:
        return float("nan")
    dot = sum(float(count) * reference.get(key, 0) for key, count in generated.items())
    norms = [sum(float(count) ** 2 for count in counts.values()) ** 0.5 for counts in (reference, generated)]
    return dot / (norms[0] * norms[1])


def property_functions() -> dict[str, Callable[[Any], float]]:
    """Properties whose distributions are compared: logP, SA, QED, weight."""
    from rdkit.Chem import Descriptors

    known = dict(Descriptors.descList)

    return {"logP": known["MolLogP"], "SA": synthetic_accessibility, "QED": known["qed"], "weight": known["MolWt"]}


def wasserstein(left_R: np.ndarray, right_G: np.ndarray) -> float:
    """Wasserstein-1 distance of two samples of a number: the area between their distribution functions."""
    left, right = np.sort(left_R), np.sort(right_G)
    points = np.sort(np.concatenate([left, right]))
    below_left = np.searchsorted(left, points[:-1], side="right") / len(left)
    below_right = np.searchsorted(right, points[:-1], side="right") / len(right)
    return float(np.abs(below_left - below_right) @ np.diff(points))


class MosesFilters:
    """The filters that MOSES made its data with: neutral, usual elements, no large ring, no alert.

    Args:
        smarts: of medicinal chemistry filters and PAINS alerts.
    """

    _ELEMENTS = frozenset("C N S O F Cl Br H".split())
    _LARGEST_RING = 7

    def __init__(self, smarts: Iterable[str]) -> None:
        from rdkit.Chem import MolFromSmarts

        self._alerts = [MolFromSmarts(text) for text in smarts]

    def __call__(self, molecule: Any) -> bool:
        """Whether a molecule passes."""
        from rdkit.Chem import AddHs

        if any(len(ring) > self._LARGEST_RING for ring in molecule.GetRingInfo().AtomRings()):
            return False
        if any(atom.GetFormalCharge() or atom.GetSymbol() not in self._ELEMENTS for atom in molecule.GetAtoms()):
            return False
        with_hydrogens = AddHs(molecule)
        return not any(with_hydrogens.HasSubstructMatch(alert) for alert in self._alerts)
