"""Fixed features of a set of molecules, each computed once in a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labelled import LabelledTable
from matfm.chem.descriptors import descriptor_values
from matfm.chem.fingerprints import morgan_fingerprints
from matfm.chem.smiles import parse_smiles
from matfm.chem.tanimoto import atom_pair_counts, morgan_counts, torsion_counts
from matfm.core.files import atomic_path
from matfm.tasks.pretraining.molecule_targets import Winsor, descriptor_names

# R rows, D descriptors


@dataclass
class MoleculeFeatures:
    """Of the rows of one set, in its order."""

    known: LabelledTable
    folder: Path
    """Where descriptors are kept."""

    @cached_property
    def molecules(self) -> list[Any]:
        return [parse_smiles(text).molecule for text in self.known.inputs]

    @cached_property
    def bits(self) -> np.ndarray:
        """ECFP4: Morgan bits of radius 2, (R, 2048), float32."""
        return np.unpackbits(morgan_fingerprints(self.molecules), axis=1).astype(np.float32)

    @cached_property
    def counts(self) -> np.ndarray:
        """Chiral Morgan counts of radius 2, (R, 2048)."""
        return morgan_counts(self.molecules)

    @cached_property
    def further_counts(self) -> list[np.ndarray]:
        """Counts of atom pairs and of torsions."""
        return [atom_pair_counts(self.molecules), torsion_counts(self.molecules)]

    @cached_property
    def descriptors(self) -> np.ndarray:
        """RDKit's, (R, D), NaN where there is no number."""
        path = self.folder / f"{self.known.recipe}.npy"
        if not path.is_file():
            values = descriptor_values(self.molecules, descriptor_names("rdkit"))
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, values)
        return np.load(path)

    def bounded_descriptors(self, train_rows: np.ndarray) -> np.ndarray:
        """Within bounds found on training rows, medians of these where there is no number, (R, kept)."""
        values_RD = self.descriptors
        winsor = Winsor.fit(values_RD[train_rows])
        bounded = winsor.apply(values_RD)
        medians = np.nanmedian(bounded[train_rows], axis=0)
        return np.where(np.isnan(bounded), medians, bounded)
