"""The MOSES suite: generated molecules against the benchmark's reference statistics.

Reference statistics and alerts come from the wheel of `molsets` 0.3.1, the weights of ChemNet from that of `fcd` 1.2.2;
both are fetched through pip and verified, neither is imported or unpickled (`core.plain_pickle`).
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matfm.chem.moses_metrics import (
    MosesFilters,
    cosine_similarity,
    fragments,
    internal_diversity,
    moses_fingerprints,
    nearest_similarity,
    property_functions,
    scaffolds,
    wasserstein,
)
from matfm.chem.smiles import parse_smiles
from matfm.core.plain_pickle import read_plain_array_file
from matfm.errors import MatfmError
from matfm.models.chemnet import ChemNet, chemnet_activations, frechet_distance
from matfm.tasks.recipes.recipe import Source, load_recipe
from matfm.tasks.recipes.sources import default_cache, fetch, read_member

CHEMNET = Source(
    kind="package",
    sha256="9d8284a4d886778db787bc2653678bd050b358bc0a9c4ff835721edf301facda",
    name="fcd",
    version="1.2.2",
    file="fcd-1.2.2-py3-none-any.whl",
    bytes=5_246_346,
)
"""Weights of ChemNet v0.13 (LGPL-3.0)."""
PARTS = {"test": "Test", "test_scaffolds": "TestSF"}
"""Reference sets to the names of MOSES in its metrics."""
UNIQUE_AT = (1_000, 10_000)


@dataclass(frozen=True)
class Reference:
    """Statistics of a set of molecules."""

    mean_D: np.ndarray
    """Of ChemNet's activations."""
    covariance_DD: np.ndarray
    fingerprints_RW: np.ndarray
    """Packed Morgan fingerprints."""
    fragments: Counter[str]
    scaffolds: Counter[str]
    properties: dict[str, np.ndarray]
    """Property to its values."""


@dataclass(frozen=True)
class MosesFiles:
    """The two wheels, fetched."""

    molsets: Path
    fcd: Path

    @classmethod
    def fetch(cls, cache: Path | None = None, offline: bool = False) -> MosesFiles:
        """From the cache or through pip. Raises RunError or MatfmError as `sources.fetch` does."""
        folder = cache or default_cache()
        source = load_recipe("moses").source
        assert source is not None
        return cls(fetch(source, folder, offline), fetch(CHEMNET, folder, offline))

    def filters(self) -> MosesFilters:
        """MOSES' filters with the alerts of the package."""
        mcf = csv.DictReader(io.StringIO(read_member(self.molsets, "moses/metrics/mcf.csv")))
        pains = csv.reader(io.StringIO(read_member(self.molsets, "moses/metrics/wehi_pains.csv")))
        return MosesFilters([*(row["smarts"] for row in mcf), *(row[0] for row in pains)])

    def smiles(self, part: str) -> list[str]:
        """Molecules of train, test or test_scaffolds, as the benchmark writes them."""
        text = read_member(self.molsets, f"moses/dataset/data/{part}.csv.gz")
        return [line.split(",")[0] for line in text.splitlines()[1:]]

    def bundled(self, part: str) -> Reference:
        """Bundled statistics of test or test_scaffolds.

        Fragments and scaffolds are written as the present RDKit writes them: spellings changed since 2020.
        """
        member = f"moses/dataset/data/{part}_stats.npz"
        with zipfile.ZipFile(self.molsets) as outer, zipfile.ZipFile(io.BytesIO(outer.read(member))) as inner:
            stored = read_plain_array_file(inner.read("stats.npy"), member)
        return Reference(
            np.asarray(stored["FCD"]["mu"], np.float64),
            np.asarray(stored["FCD"]["sigma"], np.float64),
            np.packbits(stored["SNN"]["fps"], axis=1),
            _respelled(stored["Frag"]["frag"]),
            _respelled(stored["Scaf"]["scaf"]),
            {name: np.asarray(stored[name]["values"], np.float64) for name in property_functions()},
        )


def reference_of(smiles: Sequence[str], chemnet: ChemNet, device: torch.device) -> Reference:
    """Statistics of any set of valid SMILES. Raises MatfmError for one that is not valid."""
    parsed = [parse_smiles(text) for text in smiles]
    molecules = [one.molecule for one in parsed]
    activations = chemnet_activations(chemnet, [one.canonical for one in parsed], device).astype(np.float64)
    values = {name: np.array([of(one) for one in molecules]) for name, of in property_functions().items()}
    return Reference(
        activations.mean(axis=0),
        np.cov(activations.T),
        moses_fingerprints(molecules),
        fragments(molecules),
        scaffolds(molecules),
        values,
    )


def moses_metrics(
    smiles: Sequence[str],
    references: dict[str, Reference],
    train: set[str],
    filters: Callable[[Any], bool],
    chemnet: ChemNet,
    device: torch.device,
) -> dict[str, float]:
    """All metrics of MOSES' table, by MOSES' names.

    Args:
        smiles: generated, valid or not, in the order they came.
        references: by name in the metrics (`Test`, `TestSF`).
        train: canonical SMILES that are not novel.
        filters: of `MosesFiles.filters`.
        chemnet: of `ChemNet.from_wheel`.
        device: where ChemNet computes.

    Raises:
        MatfmError: fewer than two of them are valid.
    """
    parsed = [one for one in map(_readable, smiles) if one is not None]
    if len(parsed) < 2:
        raise MatfmError(f"{len(parsed)} of {len(smiles)} generated SMILES are valid; the metrics need at least 2")
    canonical = [text for text, _ in parsed]
    own = reference_of(canonical, chemnet, device)
    metrics = {"valid": len(parsed) / len(smiles)}
    for count in UNIQUE_AT:
        metrics[f"unique@{count}"] = len(set(canonical[:count])) / min(count, len(canonical))
    for name, reference in references.items():
        metrics |= _against(own, reference, name)
    metrics["IntDiv"] = internal_diversity(own.fingerprints_RW)
    metrics["IntDiv2"] = internal_diversity(own.fingerprints_RW, power=2)
    metrics["Filters"] = float(np.mean([filters(molecule) for _, molecule in parsed]))
    first = next(iter(references.values()))
    for name, values in own.properties.items():
        metrics[name] = wasserstein(first.properties[name], values)
    different = set(canonical)
    metrics["Novelty"] = len(different - train) / len(different)
    return metrics


def _against(own: Reference, reference: Reference, name: str) -> dict[str, float]:
    fcd = frechet_distance(reference.mean_D, reference.covariance_DD, own.mean_D, own.covariance_DD)
    return {
        f"FCD/{name}": fcd,
        f"SNN/{name}": nearest_similarity(reference.fingerprints_RW, own.fingerprints_RW),
        f"Frag/{name}": cosine_similarity(reference.fragments, own.fragments),
        f"Scaf/{name}": cosine_similarity(reference.scaffolds, own.scaffolds),
    }


def _readable(text: str) -> tuple[str, Any] | None:
    """Canonical SMILES and its molecule, None for what is not valid."""
    try:
        canonical = parse_smiles(text).canonical
        return canonical, parse_smiles(canonical).molecule
    except MatfmError:
        return None


def _respelled(counts: Counter[str]) -> Counter[str]:
    """Counts by canonical SMILES of the present RDKit; what it no longer reads keeps its spelling."""
    from rdkit import Chem, rdBase

    respelled: Counter[str] = Counter()
    with rdBase.BlockLogs():
        for text, count in counts.items():
            molecule = Chem.MolFromSmiles(text)
            respelled[text if molecule is None else Chem.MolToSmiles(molecule)] += int(count)
    return respelled


__all__ = [
    "CHEMNET",
    "PARTS",
    "MosesFiles",
    "Reference",
    "moses_metrics",
    "reference_of",
]
