"""What pretraining brings: a pretrained encoder, the same architecture with random weights, and the frozen encoder.

Both encoders are fine-tuned with the same settings, seed by seed; the frozen one serves ridge and support-vector
regression. Resumable: what is in the results is not run again, and fine-tuning goes on from its checkpoint.

`python benchmarks/pretraining/run.py --backbone matbert-small --tasks expt_gap,phonons,log_kvrh,log_gvrh`
`python benchmarks/pretraining/run.py --backbone molbert-small --tasks CHEMBL204_Ki,CHEMBL234_Ki,CHEMBL2034_Ki`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import baselines
from benchmarks.contamination import Pretraining
from benchmarks.frozen import embeddings
from benchmarks.pretraining.summary import FROM_SCRATCH, summarise
from benchmarks.pretraining.tasks import COMPOSITIONS, TASKS, Task, load_task
from benchmarks.pretraining.twin import random_twin
from benchmarks.results import append, load, matching, record
from benchmarks.scored import slug, timed
from benchmarks.tuned import Predictions, Tuning, fine_tuned
from benchmarks.weights import weights_of
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.kinds import backbone_kind

RESULTS = Path(__file__).parent / "results"
MODELS = ("pretrained", "scratch", "frozen-ridge", "frozen-svm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="matbert-small", help="bundled name or folder, with its audit")
    parser.add_argument("--tasks", help=f"of {', '.join(TASKS)}; those that the backbone reads if left out")
    parser.add_argument("--folds", default="0,1", help="of Matbench tasks")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--epochs", type=float, default=30.0, help="of fine-tuning")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of matfm finetune")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/pretraining", help="tables and run directories")
    arguments = parser.parse_args()
    reads = backbone_kind(arguments.backbone)
    offered = [name for name in TASKS if (name in COMPOSITIONS) == (reads == "composition")]
    for name in arguments.tasks.split(",") if arguments.tasks else offered:
        task = load_task(name, [int(fold) for fold in arguments.folds.split(",")], Path(arguments.work))
        run_task(task, arguments)
        summarise(RESULTS)


def run_task(task: Task, arguments: argparse.Namespace) -> None:
    """Score every model on every split and seed; a backbone that saw the labels is refused."""
    pretraining = Pretraining(arguments.backbone)
    pretraining.require_scorable(task.known)
    seen_R = pretraining.seen_rows(task.known, task.kind)
    path, weights = RESULTS / f"{task.name}.jsonl", weights_of(arguments.backbone)
    for split, column in task.splits.items():
        test_R = task.known.test_rows(column)
        for key in arguments.models.split(","):
            for seed in [int(seed) for seed in arguments.seeds.split(",")]:
                if key.startswith("frozen") and seed:
                    continue  # nothing is random
                name = model_name(key, arguments)
                if matching(load(path), split=split, model=name, seed=seed, weights=weights):
                    continue
                predicted = predictions(key, name, task, split, seed, arguments)
                random = key == "scratch"
                share = None if seen_R is None or random else round(float(seen_R[test_R].mean()), 4)
                entry = record(
                    resolve_device(arguments.device).type, seed, benchmark="pretraining", task=task.name, split=split,
                    model=name, metric=task.metric, unit=task.known.unit, value=task.score(split, predicted.value_T),
                    n=int(test_R.sum()), seconds=predicted.seconds, contaminated_share=share,
                    external_labels=None if random else pretraining.external_labels(), backbone=arguments.backbone,
                    weights=weights,
                )  # fmt: skip
                append(path, entry)
                told = f"{entry['value']:.4f} {entry['unit']}  {predicted.seconds} s"
                print(f"{task.name} split {split} seed {seed}  {name:56} {told}", flush=True)


def model_name(key: str, arguments: argparse.Namespace) -> str:
    """What records and the table call it."""
    own = Path(arguments.backbone).name
    said = [f"{arguments.epochs:g} epochs", *arguments.set]
    return {
        "pretrained": f"{own} fine-tuned [{', '.join(said)}]",
        "scratch": f"{own} {FROM_SCRATCH} [{', '.join(said)}]",
        "frozen-ridge": f"{own} embedding + ridge",
        "frozen-svm": f"{own} embedding + SVM",
    }[key]


def predictions(key: str, name: str, task: Task, split: int, seed: int, arguments: argparse.Namespace) -> Predictions:
    """Of the test rows."""
    column = task.splits[split]
    work = Path(arguments.work) / f"{slug(Path(arguments.backbone).name)}-{weights_of(arguments.backbone)}"
    if key in ("pretrained", "scratch"):
        backbone = arguments.backbone
        if key == "scratch":
            backbone = str(random_twin(backbone, work / "twins" / f"{seed}", seed))
        tuning = Tuning(backbone, (f"fit.epochs={arguments.epochs}", *arguments.set), arguments.device)
        return fine_tuned(task.known, column, tuning, seed, work / task.name / f"{slug(name)}-seed{seed}-split{split}")
    test_R = task.known.test_rows(column)
    label = task.known.label_R[~test_R]
    learner: Callable[..., np.ndarray] = baselines.ridge
    if key == "frozen-svm":
        learner = lambda *given: baselines.support_vectors(*given, scale=True)  # noqa: E731

    def learned() -> np.ndarray:
        vectors = embeddings(arguments.backbone, task.known, arguments.device)
        return learner(vectors[~test_R], label, vectors[test_R])

    return timed(learned)


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
