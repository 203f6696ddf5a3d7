"""Classical features beside embeddings: ECFP counts of molecules; Magpie or atomic fractions of compositions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from matfm.chem.compositions import RaggedCompositions
from matfm.chem.elements import SYMBOLS
from matfm.chem.fingerprints import BITS
from matfm.chem.magpie import ElementTable, magpie_features
from matfm.chem.selfies import selfies_to_smiles
from matfm.chem.smiles import parse_smiles
from matfm.chem.tanimoto import min_max_similarity, morgan_counts
from matfm.core.kernel_ridge import rbf_kernel, squared_distances
from matfm.errors import MatfmError
from matfm.tasks.recipes.element_properties import magpie_table

# R rows, S support examples, F features of a block, W features of all blocks

_LARGEST = 5.0
"""Standard deviations at which a Magpie feature is cut."""
_REFERENCE = 3000
"""Random compositions that Magpie features are standardised by."""
_CLOSEST = 1e-6


@dataclass(frozen=True)
class FeatureBlock:
    """Some columns of the features, and how two rows are compared in them."""

    name: str
    width: int
    kernel: str
    """rbf (of the Euclidean distance) or tanimoto (of numbers that are not negative)."""

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise MatfmError(f"kernel of {self.name} is {self.kernel!r}; choose one of {', '.join(KERNELS)}")


@dataclass(frozen=True)
class Features:
    """Rows described by blocks of columns that lie side by side."""

    vectors_RW: np.ndarray
    blocks: tuple[FeatureBlock, ...]

    def take(self, rows: np.ndarray) -> Features:
        """The given rows, in that order."""
        return replace(self, vectors_RW=self.vectors_RW[rows])

    def block(self, name: str) -> Features:
        """One block alone."""
        position = [block.name for block in self.blocks].index(name)
        return Features(split_blocks(self.vectors_RW, self.blocks)[position], (self.blocks[position],))

    def only(self, names: Sequence[str]) -> Features:
        """Some of the blocks."""
        parts = [self.block(name) for name in names]
        return Features(np.concatenate([p.vectors_RW for p in parts], axis=1), tuple(p.blocks[0] for p in parts))


def split_blocks(vectors_RW: np.ndarray, blocks: Sequence[FeatureBlock]) -> list[np.ndarray]:
    """The columns of each block.

    Raises:
        ValueError: the vectors are not as wide as the blocks together.
    """
    ends = np.cumsum([block.width for block in blocks])
    if vectors_RW.shape[1] != ends[-1]:
        raise ValueError(f"vectors have {vectors_RW.shape[1]} columns and the blocks {ends[-1]}")
    return np.split(vectors_RW, ends[:-1], axis=1)


def median_distance(support_SF: np.ndarray) -> float:
    """Median Euclidean distance of two different examples; 1 if there are none."""
    distances = euclidean(support_SF, support_SF)[np.triu_indices(len(support_SF), 1)]
    apart = distances[distances > _CLOSEST]
    return float(np.median(apart)) if len(apart) else 1.0


def euclidean(left_RF: np.ndarray, right_SF: np.ndarray) -> np.ndarray:
    """Distances (R, S), float64."""
    distances: np.ndarray = np.sqrt(squared_distances(left_RF, right_SF))
    return distances


KERNELS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "rbf": rbf_kernel,
    "tanimoto": lambda left, right, _: min_max_similarity(left, right),
}
"""Name to function of rows, support and length scale; ones on the diagonal."""


def similarity(left: Features, right: Features) -> np.ndarray:
    """Mean of the blocks' kernels, (R, S); length scales are the medians of the distances on the right."""
    parts = [split_blocks(part.vectors_RW, part.blocks) for part in (left, right)]
    total = np.zeros((len(left.vectors_RW), len(right.vectors_RW)))
    for block, ours, theirs in zip(left.blocks, *parts, strict=True):
        length = median_distance(theirs) if block.kernel == "rbf" else 1.0
        total += KERNELS[block.kernel](ours, theirs, length) / len(left.blocks)
    return total


ECFP = FeatureBlock("ecfp", BITS, "tanimoto")
FRACTIONS = FeatureBlock("fractions", len(SYMBOLS), "tanimoto")
MAGPIE = FeatureBlock("magpie", 138, "rbf")
CLASSICAL = {block.name: block for block in (ECFP, FRACTIONS, MAGPIE)}
CHOICES = ("auto", "none", *CLASSICAL)


def classical_block(name: str, kind: str) -> FeatureBlock | None:
    """The block of a name and kind of input: auto is ecfp for molecules and fractions for compositions.

    Raises:
        MatfmError: there is none of that name, or it describes another kind.
    """
    if name not in CHOICES:
        raise MatfmError(f"classical is {name!r}; choose one of {', '.join(CHOICES)}")
    if name == "none":
        return None
    molecules = kind != "composition"
    if name == "auto":
        return ECFP if molecules else FRACTIONS
    if (name == "ecfp") != molecules:
        raise MatfmError(f"classical is {name!r} and the input is {kind}; choose auto")
    return CLASSICAL[name]


def classical_features(block: FeatureBlock, inputs: Sequence[str], kind: str) -> np.ndarray:
    """Features (R, F), float32, of inputs that can be read.

    ECFP: counts. Fractions: atomic fractions. Magpie: standardised by random compositions of one to five elements
    (always the same ones) and cut at ±5, so that a row's features depend on that row alone.

    Raises:
        MatfmError: an input cannot be read, or holds an element without Magpie properties.
        RunError: Magpie's table cannot be fetched.
    """
    if block.name == "ecfp":
        smiles = [selfies_to_smiles(text) for text in inputs] if kind == "selfies" else inputs
        return morgan_counts([parse_smiles(text).molecule for text in smiles]).astype(np.float32)
    if block.name == "fractions":
        return RaggedCompositions.from_formulas(inputs).dense()
    table, mean_F, deviation_F = _magpie_reference()
    standard = (magpie_features(inputs, table) - mean_F) / deviation_F
    return standard.clip(-_LARGEST, _LARGEST).astype(np.float32)


def readable_features(
    block: FeatureBlock, inputs: Sequence[str], kind: str
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Features (B, F) of the inputs that have them, their positions (B,), and the reasons of the others by position.

    Raises:
        RunError: Magpie's table cannot be fetched.
    """
    try:
        return classical_features(block, inputs, kind), np.arange(len(inputs)), {}
    except MatfmError:
        rows, reasons = [], {}
    for position, text in enumerate(inputs):
        try:
            rows.append(classical_features(block, [text], kind))
        except MatfmError as error:
            reasons[position] = str(error)
    kept = np.array([position for position in range(len(inputs)) if position not in reasons], np.int64)
    return np.concatenate([np.zeros((0, block.width), np.float32), *rows]), kept, reasons


def network_inputs(block: FeatureBlock, values_RF: np.ndarray) -> np.ndarray:
    """Features as a network takes them: counts as log(1 + count), others as they are; float32."""
    return np.log1p(values_RF) if block.name == "ecfp" else values_RF.astype(np.float32, copy=False)


@lru_cache(maxsize=1)
def _magpie_reference() -> tuple[ElementTable, np.ndarray, np.ndarray]:
    """The table, and mean and deviation of its features over random compositions."""
    table = magpie_table()
    known = [s for number, s in enumerate(SYMBOLS, start=1) if not np.isnan(table.values[number]).any()]
    generator = np.random.default_rng(0)
    formulas = []
    for _ in range(_REFERENCE):
        elements = generator.choice(known, generator.integers(1, 6), replace=False)
        formulas.append("".join(f"{symbol}{generator.integers(1, 9)}" for symbol in elements))
    features = magpie_features(formulas, table)
    deviation = features.std(axis=0)
    return table, features.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
