"""Several written forms of a molecule: for training, one an epoch; for prediction, the mean over all."""

from __future__ import annotations

import hashlib

import numpy as np

from matfm.chem.augment import enumerate_smiles
from matfm.chem.selfies import selfies_to_smiles, smiles_to_selfies
from matfm.core.batching import RaggedTokens
from matfm.errors import MatfmError
from matfm.tasks.encoding import MoleculeEncoder, RowEncoder, model_text
from matfm.tasks.huggingface_encoding import HuggingFaceEncoder


def written_forms(cell: str, kind: str, count: int, seed: int) -> list[str]:
    """Up to `count` different strings of one molecule; the first is the one that is read without enumeration.

    The others are random SMILES (`enumerate_smiles`), or these as SELFIES. They depend on the molecule, `count` and
    `seed` alone, not on the table around the cell. Small molecules have fewer.

    Raises:
        MatfmError: the cell is no molecule.
    """
    first = model_text(cell, kind)
    if count <= 1:
        return [first]
    digest = hashlib.sha256(first.encode()).digest()
    generator = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    if kind == "smiles":
        others = enumerate_smiles(first, count, generator)
    else:
        others = _as_selfies(enumerate_smiles(selfies_to_smiles(first), count, generator))
    return list(dict.fromkeys([first, *others]))[:count]


def encode_forms(encoder: RowEncoder, cells: list[str], count: int, seed: int) -> tuple[RaggedTokens, np.ndarray]:
    """Tokens of all forms of readable cells, and where those of each cell start, int64 (R + 1,).

    Raises:
        MatfmError: the encoder is not one of molecules, or a cell cannot be read.
    """
    if encoder.kind == "composition" or not isinstance(encoder, (MoleculeEncoder, HuggingFaceEncoder)):
        raise MatfmError(f"a {encoder.kind} has one written form; only smiles and selfies are enumerated")
    forms = [written_forms(cell, encoder.kind, count, seed) for cell in cells]
    starts = np.concatenate([[0], np.cumsum([len(of_row) for of_row in forms], dtype=np.int64)])
    return encoder.as_written([text for of_row in forms for text in of_row]).tokens, starts


def _as_selfies(smiles: list[str]) -> list[str]:
    """Those that SELFIES can express."""
    written = []
    for text in smiles:
        try:
            written.append(smiles_to_selfies(text))
        except MatfmError:  # another order of the atoms may have no SELFIES; it is left out
            continue
    return written
