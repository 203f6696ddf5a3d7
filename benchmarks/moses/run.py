"""MOSES: samples of a generator of molecules against the benchmark's reference statistics, beside published models.

Resumable: samples and records that are there are not made again.
`python benchmarks/moses/run.py --model molgpt-small` · `python benchmarks/moses/run.py --training-set 3000` checks the
metrics themselves: molecules of the training set against the published row of the training set.
"""

from __future__ import annotations

import argparse
import sys
from functools import cached_property
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation_tables import Measured, generated, generator_options, named, over_seeds, table
from matfm.models.chemnet import ChemNet
from matfm.tasks.devices import resolve_device
from matfm.tasks.moses import PARTS, MosesFiles, Reference, moses_metrics

HERE = Path(__file__).parent
RESULTS, PUBLISHED = HERE / "results" / "moses.jsonl", HERE / "published.csv"
NAMES = {
    "valid": "valid", "unique@1000": "unique@1k", "unique@10000": "unique@10k", "FCD/Test": "fcd_test",
    "FCD/TestSF": "fcd_test_scaffolds", "SNN/Test": "snn_test", "SNN/TestSF": "snn_test_scaffolds",
    "Frag/Test": "fragment_similarity_test", "Frag/TestSF": "fragment_similarity_test_scaffolds",
    "Scaf/Test": "scaffold_similarity_test", "Scaf/TestSF": "scaffold_similarity_test_scaffolds",
    "IntDiv": "internal_diversity", "IntDiv2": "internal_diversity_2", "Filters": "filters", "Novelty": "novelty",
    "logP": "wasserstein_logp", "SA": "wasserstein_sa", "QED": "wasserstein_qed", "weight": "wasserstein_weight",
}  # fmt: skip
SHOWN = (
    "valid unique@10k fcd_test fcd_test_scaffolds snn_test scaffold_similarity_test internal_diversity filters novelty"
)


class Suite:
    """The metrics with everything they need, loaded once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.files = MosesFiles.fetch(Path(arguments.cache) if arguments.cache else None, arguments.offline)
        self.device = resolve_device(arguments.device)
        self.filters = self.files.filters()

    @cached_property
    def chemnet(self) -> ChemNet:
        return ChemNet.from_wheel(self.files.fcd)

    @cached_property
    def references(self) -> dict[str, Reference]:
        return {name: self.files.bundled(part) for part, name in PARTS.items()}

    @cached_property
    def train(self) -> list[str]:
        return self.files.smiles("train")

    @cached_property
    def known(self) -> set[str]:
        return set(self.train)

    def __call__(self, smiles: list[str]) -> dict[str, float]:
        found = moses_metrics(smiles, self.references, self.known, self.filters, self.chemnet, self.device)
        return {NAMES[name]: value for name, value in found.items()}


def samples(arguments: argparse.Namespace, seed: int) -> list[str]:
    """Generated SMILES; empty where a SELFIES is not valid."""
    columns = generated(arguments, seed)
    written = columns.get("smiles", columns["canonical"])
    # A sample that was cut off before its end is not valid, whatever its beginning is.
    return [text if valid == "true" else "" for text, valid in zip(written, columns["valid"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="bundled name or folder of a generator of molecules")
    parser.add_argument("--training-set", type=int, default=0, help="molecules of the training set to measure instead")
    parser.add_argument("--cache", help="folder of fetched files")
    parser.add_argument("--offline", action="store_true")
    generator_options(parser, 30_000, "runs/moses", RESULTS)
    arguments = parser.parse_args()
    if not arguments.model and not arguments.training_set:
        parser.error("give --model, or --training-set")

    suite = Suite(arguments)
    n = arguments.training_set
    measured = Measured("training set (sample)", n) if n else named(arguments)

    def measure(seed: int) -> dict[str, float]:
        if not n:
            return suite(samples(arguments, seed))
        chosen = np.random.default_rng(seed).choice(len(suite.train), n, replace=False)
        metrics = suite([suite.train[row] for row in chosen.tolist()])
        del metrics["novelty"]
        return metrics

    over_seeds(arguments, measured, measure, benchmark="moses", task="distribution_learning")
    print(table(arguments.results, PUBLISHED, SHOWN.split(), [measured]))


if __name__ == "__main__":
    main()
