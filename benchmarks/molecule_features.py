"""Fixed features of a set of molecules, each computed once in a process."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labelled import LabelledTable
from matfm.chem.fingerprints import morgan_fingerprints
from matfm.chem.smiles import parse_smiles
from matfm.core.files import atomic_path
from matfm.tasks.kernels.views import DESCRIPTORS, MOLECULE_PARTS

# R rows, D features


@dataclass
class MoleculeFeatures:
    """Of the rows of one set, in its order."""

    known: LabelledTable
    folder: Path
    """Where descriptors are kept."""
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    """What was computed of the views' parts."""

    @cached_property
    def molecules(self) -> list[Any]:
        return [parse_smiles(text).molecule for text in self.known.inputs]

    @cached_property
    def bits(self) -> np.ndarray:
        """ECFP4: Morgan bits of radius 2, (R, 2048), float32."""
        return np.unpackbits(morgan_fingerprints(self.molecules), axis=1).astype(np.float32)

    def part(self, name: str) -> np.ndarray:
        """Features (R, D) of a part of a view of molecules (`matfm.tasks.kernels.views`)."""
        if name not in self.parts:
            self.parts[name] = self._descriptors() if name == DESCRIPTORS else MOLECULE_PARTS[name](self.molecules)
        return self.parts[name]

    def _descriptors(self) -> np.ndarray:
        """RDKit's take longest, so they are kept in a file."""
        path = self.folder / f"{self.known.recipe}.npy"
        if not path.is_file():
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, MOLECULE_PARTS[DESCRIPTORS](self.molecules))
        return np.load(path)
