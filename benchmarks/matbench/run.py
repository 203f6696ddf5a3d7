"""Matbench v0.1 on its official folds: fine-tuned matfm, the same from scratch, random forest on Magpie features.

Every fold has its own file of results. What is there is not run again, and a fold that was cut off goes on from its
checkpoint, so a killed run is continued by its own command, and several machines can share folds or tasks.

`python benchmarks/matbench/run.py --tasks expt_gap,steels --models finetuned,ensemble,rf-magpie,dummy`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import baselines
from benchmarks.arguments import chosen
from benchmarks.contamination import Pretraining
from benchmarks.frozen import embeddings
from benchmarks.labelled import LabelledTable, labelled
from benchmarks.matbench.summary import summarise
from benchmarks.results import Record, append, load, matching, record
from benchmarks.scored import class_scores, kept, regression_errors, slug, timed
from benchmarks.tuned import Predictions, Tuning, averaged, fine_tuned
from benchmarks.weights import edition, weights_of
from matfm.chem.magpie import magpie_features
from matfm.chem.units import property_named
from matfm.core.config import load_toml
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.kernels.summed import fit_summed
from matfm.tasks.kernels.views import EMBEDDING, MAGPIE
from matfm.tasks.recipes.element_properties import magpie_table
from matfm.tasks.recipes.recipe import recipe_names

RESULTS = Path(__file__).parent / "results"
TASKS = tuple(name.removeprefix("matbench_") for name in recipe_names() if name.startswith("matbench_"))
FOLDS = range(5)
TUNED = ("finetuned", "scratch", "ensemble", "blend")
PRETRAINED = ("finetuned", "ensemble", "blend", "kernel-stacked")
MODELS = (*TUNED, "kernel-magpie", "kernel-stacked", "rf-magpie", "dummy")
BLENDED = "kernel-stacked"
"""What `blend` is the plain mean of, with the ensemble; no weight is chosen."""
LARGEST_KERNEL = 6000
"""Training rows; the time of a kernel model grows with their cube."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="expt_gap", help=f"comma-separated, or all: {', '.join(TASKS)}")
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--models", default="finetuned,rf-magpie,dummy", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--backbone", default="matbert-small", help="bundled name or folder, with its audit")
    parser.add_argument("--scratch", default="small", help="size of the model from scratch")
    parser.add_argument("--ensemble", type=int, default=5, help="members of the models `ensemble` and `blend`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of matfm finetune")
    parser.add_argument("--settings", help="TOML: label (or the file's name), and for a task (or all) a list `set`")
    parser.add_argument("--corpus", action="append", default=[], help="recipe or table of the backbone's pretraining")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/matbench", help="tables, run directories and predictions")
    arguments = parser.parse_args()
    models = chosen(arguments.models, MODELS)
    benchmark = Matbench(arguments, models, Pretraining(arguments.backbone, arguments.corpus))
    refused = []
    for task in chosen(arguments.tasks, TASKS):
        try:
            benchmark.run(task, [int(fold) for fold in arguments.folds.split(",")])
        except MatfmError as error:
            refused.append(f"{task}: {error}")
            print(refused[-1], flush=True)
        else:
            summarise(RESULTS, task)
    if refused:
        raise MatfmError("; ".join(refused))


@dataclass
class Matbench:
    """One call's settings."""

    arguments: argparse.Namespace
    models: list[str]
    pretraining: Pretraining
    magpie: dict[str, np.ndarray] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def run(self, task: str, folds: list[int]) -> None:
        """Score every model on the folds of a task; models whose backbone must not be scored are refused."""
        known = labelled(f"matbench_{task}", self.work)
        seen_R = None
        if set(PRETRAINED) & set(self.models):
            self.pretraining.require_scorable(known)
            seen_R = self.pretraining.seen_rows(known, "composition")
        for fold in folds:
            test_R = known.test_rows(f"fold_{fold}")
            for key in self.models:
                for name, seed, predicted in self.predictions(key, task, known, fold, test_R):
                    self.score(task, known, fold, test_R, seen_R, key, name, seed, predicted)

    @property
    def work(self) -> Path:
        return Path(self.arguments.work)

    def weights(self, key: str) -> str | None:
        """Of the backbone, for models that use it."""
        return weights_of(self.arguments.backbone) if key in PRETRAINED else None

    def tuning(self, task: str, scratch: bool) -> tuple[Tuning, str]:
        """Settings of a task, and what the model's name says of them."""
        overrides, label = list(self.arguments.set), ", ".join(self.arguments.set)
        if self.arguments.settings:
            settings = load_toml(self.arguments.settings)
            label = settings.get("label", Path(self.arguments.settings).stem)
            overrides = [*settings.get("all", {}).get("set", []), *settings.get(task, {}).get("set", []), *overrides]
        backbone = f"scratch:{self.arguments.scratch}" if scratch else self.arguments.backbone
        name = f"{Path(backbone).name} fine-tuned" + (f" [{label}]" if label else "")
        return Tuning(backbone, tuple(overrides), self.arguments.device), name

    def predictions(
        self, key: str, task: str, known: LabelledTable, fold: int, test_R: np.ndarray
    ) -> list[tuple[str, int, Callable[[], Predictions]]]:
        """Name of the model, seed, and how to get its predictions; of an ensemble also those of its members."""
        folder, first, count = self.work / task, self.arguments.seed, self.arguments.ensemble
        if (key == "blend" or key.startswith("kernel")) and (~test_R).sum() > LARGEST_KERNEL:
            print(f"{task} fold {fold}  {key} is left out: more than {LARGEST_KERNEL} training rows", flush=True)
            return []

        def fixed(which: str) -> tuple[str, Callable[[], Predictions]]:
            name = self.fixed_name(which, known)
            path = folder / f"{slug(name)}{edition(self.weights(which))}-seed{first}-fold{fold}.npz"
            return name, lambda: kept(path, lambda: timed(lambda: self.fixed(which, known, test_R)))

        if key not in TUNED:
            name, predict = fixed(key)
            return [(name, first, predict)]
        tuning, name = self.tuning(task, key == "scratch")

        def member(seed: int) -> Predictions:
            out = folder / f"{slug(name)}{edition(self.weights(key))}-seed{seed}-fold{fold}"
            return fine_tuned(known, f"fold_{fold}", tuning, seed, out)

        def together() -> Predictions:
            return averaged([member(seed) for seed in range(first, first + count)])

        if key == "blend":
            other, predict = fixed(BLENDED)
            return [(f"mean of {name} ×{count} and {other}", first, lambda: averaged([together(), predict()]))]
        seeds = range(first, first + (count if key == "ensemble" else 1))
        found = [(name, seed, partial(member, seed)) for seed in seeds]
        return [*found, (f"{name} ×{count}", first, together)] if key == "ensemble" else found

    def fixed_name(self, key: str, known: LabelledTable) -> str:
        constant = "training mean" if known.classes is None else "majority class"
        stacked = f"kernel of Magpie and {Path(self.arguments.backbone).name} embedding"
        return {"dummy": f"dummy ({constant})", "kernel-magpie": "kernel of Magpie", "kernel-stacked": stacked}.get(
            key, key
        )

    def fixed(self, key: str, known: LabelledTable, test_R: np.ndarray) -> np.ndarray:
        """Predictions of a learner on fixed features."""
        train, classes = known.label_R[~test_R], known.classes is not None
        if key == "dummy":
            return baselines.constant(train, int(test_R.sum()), classes)
        described = self.features(known)
        if key == "rf-magpie":
            seed = self.arguments.seed
            return baselines.random_forest(described[~test_R], train, described[test_R], classes, seed)
        parts = {MAGPIE: described}
        if key == "kernel-stacked":
            parts[EMBEDDING] = self.embedded(known)
        fitted = fit_summed({part: values[~test_R] for part, values in parts.items()}, train, self.arguments.seed)
        predicted = fitted.predict({part: values[test_R] for part, values in parts.items()})
        return predicted.clip(*((0, 1) if classes else property_named(known.target, known.unit).limits))

    def features(self, known: LabelledTable) -> np.ndarray:
        if known.recipe not in self.magpie:
            self.magpie[known.recipe] = magpie_features(known.inputs, magpie_table())
        return self.magpie[known.recipe]

    def embedded(self, known: LabelledTable) -> np.ndarray:
        if known.recipe not in self.vectors:
            self.vectors[known.recipe] = embeddings(self.arguments.backbone, known, self.arguments.device)
        return self.vectors[known.recipe]

    def score(
        self, task: str, known: LabelledTable, fold: int, test_R: np.ndarray, seen_R: np.ndarray | None,
        key: str, name: str, seed: int, predict: Callable[[], Predictions],
    ) -> None:  # fmt: skip
        """Add the records that are missing: of all test rows, and of those that pretraining did not hold."""
        path, corpora = RESULTS / f"{task}_fold_{fold}.jsonl", Path(self.arguments.backbone).name
        own = key in PRETRAINED
        parts: dict[str, tuple[np.ndarray, str | None]] = {task: (np.ones(test_R.sum(), bool), None)}
        if seen_R is not None and not seen_R[test_R].all():
            parts[f"{task}@clean"] = ~seen_R[test_R], corpora
        there = matching(load(path), split=fold, model=name, seed=seed, weights=self.weights(key))
        missing = {part: of for part, of in parts.items() if not matching(there, task=part, **_clean(of[1]))}
        if not missing:
            return
        predicted, true_T = predict(), known.label_R[test_R]
        scores = regression_errors if known.classes is None else class_scores
        device = resolve_device(self.arguments.device).type if key in TUNED else "cpu"
        new: list[Record] = []
        for part, (rows_T, clean_of) in missing.items():
            share = None if not own or seen_R is None else round(float(seen_R[test_R][rows_T].mean()), 4)
            for metric, value in scores(true_T[rows_T], predicted.value_T[rows_T]).items():
                new.append(record(
                    device, seed, benchmark="matbench", task=part, split=fold, model=name, metric=metric,
                    unit=known.unit if metric in ("mae", "rmse") else "", value=value, n=int(rows_T.sum()),
                    seconds=predicted.seconds, external_labels=self.pretraining.external_labels() if own else None,
                    contaminated_share=share, weights=self.weights(key), **_clean(clean_of),
                ))  # fmt: skip
        append(path, *new)
        for entry in new:
            print(
                f"{entry['task']} fold {fold}  {name:44} {entry['metric']:18} {entry['value']:.4f} {entry['unit']}",
                flush=True,
            )


def _clean(clean_of: str | None) -> dict[str, str]:
    """Whose pretraining the rows are clean of: part of what tells a record."""
    return {} if clean_of is None else {"clean_of": clean_of}


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
