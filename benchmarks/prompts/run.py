"""Prompts on a frozen encoder against no prompt, untrained prompts and full fine-tuning: Matbench tasks, seed by seed.

Resumable: what is in the results is not run again, and a run that was cut off goes on from its checkpoint.

`python benchmarks/prompts/run.py --learning-rates 5e-4,1e-3,2e-3,5e-3,1e-2`   learning rates, on training rows alone
`python benchmarks/prompts/run.py`                                             four tasks, five seeds, at these rates
`python benchmarks/prompts/run.py --methods prompt,deep-prompt,prefix --lengths 1,2,4,8`       the sweep of lengths
`python benchmarks/prompts/run.py --pictures`                                  pictures and attention of finished runs
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import baselines
from benchmarks.arguments import chosen
from benchmarks.contamination import Pretraining
from benchmarks.frozen import embeddings
from benchmarks.labelled import LabelledTable, labelled
from benchmarks.prompts.data import PART, Fold, fold_table, test_table
from benchmarks.prompts.methods import DEFAULT, DUMMY, FIXED, METHODS, Method
from benchmarks.prompts.summary import ATTENTION, RATES, best_rate, summarise
from benchmarks.results import Record, append, load, matching, record
from benchmarks.scored import class_scores, regression_errors, slug, timed
from benchmarks.tuned import Predictions, Tuning, fine_tuned
from benchmarks.weights import weights_of
from matfm.core.bundled import MODEL_FILE, resolve_weights
from matfm.errors import MatfmError
from matfm.models.backbones import load_encoder
from matfm.models.deltas import backbone_weights
from matfm.models.strategies import PROMPTS
from matfm.tasks.devices import resolve_device
from matfm.tasks.prompting import analysis as prompt_analysis

RESULTS = Path(__file__).parent / "results"
TASKS = ("expt_gap", "log_kvrh", "phonons", "expt_is_metal")
TUNING = "tuning"
"""Split of the records of learning rates: a part of the training rows of the fold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--methods", default=",".join(DEFAULT), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--backbone", default="matbert-small", help="bundled name or folder, with its audit")
    parser.add_argument("--folds", default="0")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--lengths", default="8", help="of prompts, deep prompts and prefixes")
    parser.add_argument("--epochs", type=float, default=30.0)
    parser.add_argument("--rows", default="", help="training rows at most, as log_kvrh=2000,phonons=500")
    parser.add_argument("--learning-rates", default="", help="compare these on a part of the training rows, no more")
    parser.add_argument("--rates", choices=("tuned", "own"), default="tuned", help="tuned: the best of the compared")
    parser.add_argument("--pictures", action="store_true", help="only pictures and attention of finished runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of matfm finetune")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/prompts", help="tables and run directories")
    arguments = parser.parse_args()
    benchmark = Prompts(arguments)
    for task in chosen(arguments.tasks, TASKS):
        for fold in _numbers(arguments.folds):
            benchmark.run(task, fold)
            summarise(RESULTS, TASKS)


@dataclass
class Prompts:
    """One call's settings."""

    arguments: argparse.Namespace

    @property
    def work(self) -> Path:
        return Path(self.arguments.work)

    @cached_property
    def pretraining(self) -> Pretraining:
        return Pretraining(self.arguments.backbone)

    @cached_property
    def backbone_numbers(self) -> int:
        """Of the encoder alone, without heads of pretraining."""
        encoder = load_encoder(self.arguments.backbone)
        parameters = {name for name, _ in encoder.named_parameters()}
        return sum(value.numel() for name, value in backbone_weights(encoder).items() if name in parameters)

    def run(self, task: str, fold: int) -> None:
        """Score what is asked for on one fold; a backbone that saw the labels is refused."""
        known = labelled(f"matbench_{task}", self.work)
        self.pretraining.require_scorable(known)
        rows = dict(pair.split("=") for pair in self.arguments.rows.split(",") if pair)
        tuning = bool(self.arguments.learning_rates)
        own = fold_table(known, fold, int(rows.get(task, 0)), tuning, self.work)
        for method in self.methods(task, fold):
            for seed in _numbers(self.arguments.seeds) if method.is_trained else [0]:
                if self.arguments.pictures:
                    self.picture(task, own, fold, method, seed)
                else:
                    self.score(task, own, fold, method, seed, tuning)

    def methods(self, task: str, fold: int) -> list[Method]:
        """With every length and learning rate that is asked for."""
        further, found = tuple(self.arguments.set), []
        for key in chosen(self.arguments.methods, METHODS):
            plain = Method(key, epochs=self.arguments.epochs, further=further)
            lengths = _numbers(self.arguments.lengths) if plain.has_length else [plain.length]
            for method in (replace(plain, length=length) for length in lengths):
                if not self.arguments.learning_rates:
                    found.append(replace(method, rate=self.rate(task, fold, method)))
                elif method.is_trained:
                    found += [replace(method, rate=float(r)) for r in self.arguments.learning_rates.split(",")]
        return found

    def rate(self, task: str, fold: int, method: Method) -> float | None:
        """The best of the rates that were compared; the strategy's own where none was."""
        if self.arguments.rates == "own":
            return None
        rates = matching(load(RESULTS / RATES), weights=weights_of(self.arguments.backbone), fold=fold)
        return best_rate(rates, task, method)

    def folder(self, task: str, own: Fold, fold: int, method: Method, seed: int) -> Path:
        """Run directory."""
        table = slug(Path(own.known.path).stem)
        return (
            self.work
            / "runs"
            / str(weights_of(self.arguments.backbone))
            / task
            / table
            / f"{slug(method.name)}-seed{seed}-fold{fold}"
        )

    def score(self, task: str, own: Fold, fold: int, method: Method, seed: int, tuning: bool) -> None:
        """Add the records that are missing."""
        path = RESULTS / (RATES if tuning else f"{task}.jsonl")
        told = {"task": task, "model": method.name, "seed": seed, "fold": fold, "train_rows": own.train_rows}
        told["weights"] = weights_of(self.arguments.backbone) if method.key != DUMMY else None
        if matching(load(path), split=TUNING if tuning else fold, **told):
            return
        predicted = self.predictions(task, own, fold, method, seed)
        true_T = own.known.label_R[own.scored]
        scores = regression_errors if own.known.classes is None else class_scores
        seen_R = self.seen(own.known)
        pretrained = method.key != DUMMY
        share = None if seen_R is None or not pretrained else round(float(seen_R[own.scored].mean()), 4)
        counts = self.counts(method, self.folder(task, own, fold, method, seed))
        new: list[Record] = [
            record(
                resolve_device(self.arguments.device).type if method.is_trained else "cpu", benchmark="prompts",
                split=TUNING if tuning else fold, metric=metric, value=value, n=int(own.scored.sum()),
                unit=own.known.unit if metric in ("mae", "rmse") else "", seconds=predicted.seconds,
                external_labels=self.pretraining.external_labels() if pretrained else None,
                contaminated_share=share, backbone=self.arguments.backbone, method=method.key, short=method.short,
                settings=list(method.further), learning_rate=method.learning_rate if method.is_trained else None,
                all_train_rows=own.all_train_rows, length=method.length if method.has_length else None,
                epochs=method.epochs, **counts, **told,
            )
            for metric, value in scores(true_T, predicted.value_T).items()
        ]  # fmt: skip
        append(path, *new)
        said = "  ".join(f"{entry['metric']} {entry['value']:.4f}" for entry in new)
        print(f"{task} fold {fold} seed {seed}  {method.name:48} {said}  {predicted.seconds:.0f} s", flush=True)

    def seen(self, known: LabelledTable) -> np.ndarray | None:
        """Rows whose composition pretraining held; looked up once a table."""
        cache: dict[str, Any] = self.__dict__.setdefault("seen_of", {})
        if known.path not in cache:
            cache[known.path] = self.pretraining.seen_rows(known, "composition")
        return cache[known.path]

    def counts(self, method: Method, folder: Path) -> dict[str, int]:
        """Numbers of the prompt, of the head and of the encoder."""
        head = 0
        if method.is_trained:
            with safe_open(folder / MODEL_FILE, "pt") as file:
                names = [name for name in file.keys() if name.startswith(("property_head.dense", "property_head.out"))]  # noqa: SIM118
                head = sum(int(np.prod(file.get_slice(name).get_shape())) for name in names)
        return {
            "delta_numbers": method.delta_numbers(resolve_weights(self.arguments.backbone)),
            "delta_trained": int(not method.key.startswith(FIXED)),
            "head_numbers": head,
            "backbone_numbers": self.backbone_numbers,
        }

    def predictions(self, task: str, own: Fold, fold: int, method: Method, seed: int) -> Predictions:
        """Of the scored rows."""
        known, test_T = own.known, own.scored
        if method.is_trained:
            backbone = method.backbone(self.arguments.backbone, self.work, seed)
            tuning = Tuning(backbone, method.overrides(), self.arguments.device)
            return fine_tuned(known, PART, tuning, seed, self.folder(task, own, fold, method, seed))
        label = known.label_R[~test_T]
        if method.key == DUMMY:
            return timed(lambda: baselines.constant(label, int(test_T.sum()), known.classes is not None))

        def probed() -> np.ndarray:
            vectors = embeddings(self.arguments.backbone, known, self.arguments.device)
            learner = baselines.ridge if known.classes is None else baselines.logistic
            return learner(vectors[~test_T], label, vectors[test_T])

        return timed(probed)

    def picture(self, task: str, own: Fold, fold: int, method: Method, seed: int) -> None:
        """Embeddings of the test rows with and without a trained prompt, and the attention to it."""
        folder = self.folder(task, own, fold, method, seed)
        if method.key not in PROMPTS or not (folder / MODEL_FILE).is_file():
            return
        path = RESULTS / ATTENTION
        told = {"task": task, "model": method.name, "seed": seed, "fold": fold}
        if matching(load(path), **told):
            return
        out = self.work / "pictures" / folder.name
        summary = prompt_analysis.run(prompt_analysis.AnalyseConfig(
            str(folder), test_table(own, self.work), own.known.input, own.known.target, str(out),
            device=self.arguments.device,
        ))  # fmt: skip
        if seed == _numbers(self.arguments.seeds)[0]:
            target = RESULTS / "pictures" / f"{task}-{slug(method.short)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((out / "embeddings.png").read_bytes())
        shares = summary["attention_to_prompt"] or []
        append(path, *(
            record(
                resolve_device(self.arguments.device).type, benchmark="prompts", split=fold,
                metric=f"attention:layer_{layer}", unit="", value=share, n=summary["rows"], short=method.short,
                even=summary["attention_if_even"], length=method.length, **told,
            )
            for layer, share in enumerate(shares, start=1)
        ))  # fmt: skip
        print(f"{task} fold {fold} seed {seed}  {method.short}: attention to the prompt {shares}", flush=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
