"""MoleculeACE: potencies of 30 ChEMBL sets with the shipped splits, on all test molecules and on activity cliffs.

Every set has its own file of results. What is there is not run again, and fine-tuning goes on from its checkpoint, so a
killed run is continued by its own command, and several machines can share the sets.

`python benchmarks/moleculeace/run.py --models kernel,rf-ecfp,svm-ecfp`
`python benchmarks/moleculeace/run.py --models ensemble,kernel-stacked,blend --backbone molbert-small --device cuda`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import baselines
from benchmarks.arguments import chosen
from benchmarks.contamination import Pretraining
from benchmarks.frozen import embeddings
from benchmarks.labelled import LabelledTable, labelled
from benchmarks.molecule_features import MoleculeFeatures
from benchmarks.moleculeace.summary import summarise
from benchmarks.results import append, load, matching, record
from benchmarks.scored import kept, slug, timed
from benchmarks.tuned import Predictions, Tuning, averaged, fine_tuned
from benchmarks.weights import edition, weights_of
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.kernels.summed import fit_summed
from matfm.tasks.kernels.views import DESCRIPTORS, EMBEDDING, MORGAN, PAIRS, parts_of
from matfm.tasks.recipes.recipe import recipe_names

RESULTS = Path(__file__).parent / "results"
PREFIX = "moleculeace_"
SETS = tuple(name.removeprefix(PREFIX) for name in recipe_names() if name.startswith(PREFIX))
SPLIT, CLIFF = "split", "cliff"
KERNELS = {
    "kernel": (MORGAN,),
    "kernel-descriptors": (MORGAN, DESCRIPTORS),
    "kernel-fingerprints": (MORGAN, PAIRS, DESCRIPTORS),
    "kernel-stacked": (MORGAN, DESCRIPTORS, EMBEDDING),
    "kernel-all": (MORGAN, PAIRS, DESCRIPTORS, EMBEDDING),
}
"""Views of `matfm.KernelRegressor`, whose kernels are summed with weights chosen by leave-one-out on training rows."""
NAMES = {
    "kernel": "count-Tanimoto kernel",
    "kernel-descriptors": "count-Tanimoto + descriptor kernel",
    "kernel-fingerprints": "Morgan + pair + torsion + descriptor kernel",
    "kernel-stacked": "count-Tanimoto + descriptor + {backbone} embedding kernel",
    "kernel-all": "Morgan + pair + torsion + descriptor + {backbone} embedding kernel",
    "frozen-ridge": "{backbone} embedding + ridge",
    "frozen-svm": "{backbone} embedding + SVM",
    "rf-ecfp": "rf-ecfp",
    "svm-ecfp": "svm-ecfp",
    "dummy": "dummy (training mean)",
}
TUNED = ("finetuned", "ensemble", "scratch")
MODELS = (*TUNED, "blend", *NAMES)
PRETRAINED = ("finetuned", "ensemble", "blend", "kernel-stacked", "kernel-all", "frozen-ridge", "frozen-svm")
BLENDED = "kernel-fingerprints"
"""What `blend` is the plain mean of, with the ensemble; no weight is chosen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="all", help="comma-separated, as CHEMBL204_Ki, or all 30")
    parser.add_argument("--models", default="kernel,rf-ecfp,svm-ecfp,dummy", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--backbone", default="molbert-small", help="bundled name or folder, with its audit")
    parser.add_argument("--scratch", default="small", help="size of the model from scratch")
    parser.add_argument("--ensemble", type=int, default=5, help="members of the models `ensemble` and `blend`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of matfm finetune")
    parser.add_argument("--label", default="", help="what --set is called in the model's name, instead of itself")
    parser.add_argument("--corpus", action="append", default=[], help="recipe or table of the backbone's pretraining")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/moleculeace", help="tables, run directories and predictions")
    arguments = parser.parse_args()
    models = chosen(arguments.models, MODELS)
    pretraining = Pretraining(arguments.backbone, arguments.corpus) if set(PRETRAINED) & set(models) else None
    for name in chosen(arguments.sets, SETS):
        Scorer(arguments, name, pretraining).run(models)
    summarise(RESULTS, SETS)


@dataclass
class Scorer:
    """One set."""

    arguments: argparse.Namespace
    name: str
    pretraining: Pretraining | None

    def __post_init__(self) -> None:
        self.work = Path(self.arguments.work)
        self.known: LabelledTable = labelled(PREFIX + self.name, self.work)
        self.features = MoleculeFeatures(self.known, self.work / "descriptors")
        self.test_R = self.known.test_rows(SPLIT)
        self.train = np.flatnonzero(~self.test_R)

    def run(self, models: list[str]) -> None:
        """Score the models that have no records yet."""
        share = None
        if self.pretraining is not None:
            self.pretraining.require_scorable(self.known)
            seen_R = self.pretraining.seen_rows(self.known, "smiles")
            share = None if seen_R is None else round(float(seen_R[self.test_R].mean()), 4)
        for key in models:
            for name, seed, predict in self.predictions(key):
                self.score(key, name, seed, predict, share if key in PRETRAINED else None)

    def predictions(self, key: str) -> Iterator[tuple[str, int, Callable[[], Predictions]]]:
        """Name of the model, seed, and how to get its predictions; of an ensemble also those of its members."""
        first, count = self.arguments.seed, self.arguments.ensemble
        if key not in (*TUNED, "blend"):
            yield self.fixed_name(key), first, lambda: self.fixed(key)
            return
        backbone = f"scratch:{self.arguments.scratch}" if key == "scratch" else self.arguments.backbone
        tuning = Tuning(backbone, (*self.kind(key), *self.arguments.set), self.arguments.device)
        label = self.arguments.label or ", ".join(self.arguments.set)
        name = f"{Path(backbone).name} fine-tuned" + (f" [{label}]" if label else "")

        def member(seed: int) -> Predictions:
            out = self.work / self.name / f"{slug(name)}{edition(self.weights(key))}-seed{seed}"
            return fine_tuned(self.known, SPLIT, tuning, seed, out)

        def together() -> Predictions:
            return averaged([member(seed) for seed in range(first, first + count)])

        if key == "blend":
            blended = f"mean of {name} ×{count} and {self.fixed_name(BLENDED)}"
            yield blended, first, lambda: averaged([together(), self.fixed(BLENDED)])
            return
        for seed in range(first, first + (count if key == "ensemble" else 1)):
            yield name, seed, lambda seed=seed: member(seed)
        if key == "ensemble":
            yield f"{name} ×{count}", first, together

    def weights(self, key: str) -> str | None:
        """Of the backbone, for models that use it."""
        return weights_of(self.arguments.backbone) if key in PRETRAINED else None

    @staticmethod
    def kind(key: str) -> tuple[str, ...]:
        """Random weights do not say what they read."""
        return ('kind="smiles"',) if key == "scratch" else ()

    def fixed_name(self, key: str) -> str:
        return NAMES[key].format(backbone=Path(self.arguments.backbone).name)

    def fixed(self, key: str) -> Predictions:
        """Predictions of a learner on fixed features; they are kept beside the runs."""
        path = (
            self.work
            / self.name
            / f"{slug(self.fixed_name(key))}{edition(self.weights(key))}-seed{self.arguments.seed}.npz"
        )
        return kept(path, lambda: timed(lambda: self.learned(key)))

    def learned(self, key: str) -> np.ndarray:
        train, test, seed = self.train, np.flatnonzero(self.test_R), self.arguments.seed
        label = self.known.label_R[train]
        if key == "dummy":
            return baselines.constant(label, len(test), classes=False)
        if key in KERNELS:
            parts = {part: self.part(part) for part in parts_of(KERNELS[key])}
            fitted = fit_summed({part: values[train] for part, values in parts.items()}, label, seed)
            return fitted.predict({part: values[test] for part, values in parts.items()})
        if key == "rf-ecfp":
            return baselines.random_forest(self.features.bits[train], label, self.features.bits[test], False, seed)
        if key == "svm-ecfp":
            return baselines.support_vectors(self.features.bits[train], label, self.features.bits[test], False, seed)
        vectors = self.part(EMBEDDING)
        if key == "frozen-ridge":
            return baselines.ridge(vectors[train], label, vectors[test])
        return baselines.support_vectors(vectors[train], label, vectors[test], True, seed)

    def part(self, name: str) -> np.ndarray:
        """Features of all rows."""
        if name == EMBEDDING:
            return embeddings(self.arguments.backbone, self.known, self.arguments.device)
        return self.features.part(name)

    def score(self, key: str, name: str, seed: int, predict: Callable[[], Predictions], share: float | None) -> None:
        """Add the records if they are not there: of all test rows, and of those on an activity cliff."""
        path = RESULTS / f"{self.name}.jsonl"
        if matching(load(path), model=name, seed=seed, weights=self.weights(key)):
            return
        predicted = predict()
        squares_T = (predicted.value_T - self.known.label_R[self.test_R]) ** 2
        cliff_T = np.array(self.known.table.columns[CLIFF])[self.test_R] == "1"
        labels = self.pretraining.external_labels() if self.pretraining is not None and key in PRETRAINED else None
        device = resolve_device(self.arguments.device).type if key in (*TUNED, "blend") else "cpu"
        new = [
            record(
                device, seed, benchmark="moleculeace", task=self.name, split=seed, model=name, metric=metric,
                unit=self.known.unit, value=float(np.sqrt(squares_T[rows].mean())), n=int(rows.sum()),
                seconds=predicted.seconds, external_labels=labels, contaminated_share=share,
                weights=self.weights(key),
            )
            for metric, rows in (("rmse", np.ones(len(cliff_T), bool)), ("rmse_cliff", cliff_T))
            if rows.any()
        ]  # fmt: skip
        append(path, *new)
        scores = " ".join(f"{entry['value']:.4f}" for entry in new)
        print(f"{self.name:16} {name:60} {scores}  {predicted.seconds} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
