"""RDKit's descriptors of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# R rows, D descriptors

_LARGEST = 1e30
"""Largest descriptor that is kept: float32 ends at 3e38."""


def descriptor_values(molecules: Sequence[Any], names: Sequence[str]) -> np.ndarray:
    """(R, D) float32 of RDKit molecules; what fails, is infinite or beyond float32 is NaN."""
    from rdkit import rdBase
    from rdkit.Chem import Descriptors

    functions = dict(Descriptors.descList)
    values_RD = np.full((len(molecules), len(names)), np.nan)
    with rdBase.BlockLogs(), np.errstate(all="ignore"):
        for row, molecule in enumerate(molecules):
            for column, name in enumerate(names):
                try:
                    values_RD[row, column] = functions[name](molecule)
                except (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError):
                    continue  # RDKit has no number for this molecule (no charges for an element, for example)
    values_RD[~(np.abs(values_RD) <= _LARGEST)] = np.nan
    return values_RD.astype(np.float32)
