"""Synthetic accessibility score (Ertl and Schuffenhauer, J. Cheminform. 1:8 (2009)), as in RDKit's `SA_Score`."""

from __future__ import annotations

import gzip
import math
from functools import cache
from pathlib import Path
from typing import Any

from matfm.core.plain_pickle import read_plain_pickle
from matfm.errors import RunError

_UNKNOWN = -4.0
"""Contribution of a fragment that the table does not know."""
_LARGE_RING = 8


def synthetic_accessibility(molecule: Any) -> float:
    """1 (easy to make) to 10 (very hard) of an RDKit molecule with at least one atom.

    Raises:
        RunError: this RDKit comes without the table of fragments.
    """
    from rdkit.Chem import FindMolChiralCenters, rdFingerprintGenerator, rdMolDescriptors

    fingerprint = rdFingerprintGenerator.GetMorganGenerator(radius=2).GetSparseCountFingerprint(molecule)
    fragments = fingerprint.GetNonzeroElements()
    known = _contributions()
    mean = sum(known.get(index, _UNKNOWN) * count for index, count in fragments.items()) / sum(fragments.values())
    atoms = molecule.GetNumAtoms()
    penalty = atoms**1.005 - atoms
    counts = (
        len(FindMolChiralCenters(molecule, includeUnassigned=True)),
        rdMolDescriptors.CalcNumSpiroAtoms(molecule),
        rdMolDescriptors.CalcNumBridgeheadAtoms(molecule),
        # One or more large rings weigh the same, in which the code differs from the paper.
        any(len(ring) > _LARGE_RING for ring in molecule.GetRingInfo().AtomRings()),
    )
    penalty += sum(math.log10(count + 1) for count in counts)
    # Symmetric molecules have fewer different fragments than atoms.
    density = 0.5 * math.log(atoms / len(fragments)) if atoms > len(fragments) else 0.0
    score = 11.0 - (mean - penalty + density + 5.0) / 6.5 * 9.0
    if score > 8.0:
        score = 8.0 + math.log(score - 8.0)
    return min(max(score, 1.0), 10.0)


@cache
def _contributions() -> dict[int, float]:
    """Contribution by fragment: rows of the table are a value and the fragments that have it."""
    from rdkit import RDConfig

    path = Path(RDConfig.RDContribDir) / "SA_Score" / "fpscores.pkl.gz"
    if not path.is_file():
        raise RunError(f"{path} is missing, which RDKit's packages bring; install rdkit again")
    rows = read_plain_pickle(gzip.decompress(path.read_bytes()), path.name)
    return {int(fragment): float(row[0]) for row in rows for fragment in row[1:]}
