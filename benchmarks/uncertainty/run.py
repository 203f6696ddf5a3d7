"""Do intervals cover as often as they promise? CV+ on Matbench folds and MoleculeACE sets.

Every model is one of the members of the ensemble that is scored beside, so the intervals cost no further training.
Resumable. `python benchmarks/uncertainty/run.py --tasks expt_gap --backbone matbert-small`
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.arguments import chosen
from benchmarks.contamination import Pretraining
from benchmarks.labelled import LabelledTable, labelled
from benchmarks.results import MEAN, append, load, matching, mean_record, record, rewrite
from benchmarks.scored import slug
from benchmarks.tables import digits, markdown
from benchmarks.tuned import Tuning, fine_tuned
from benchmarks.weights import weights_of
from matfm.core.files import write_text
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device

RESULTS = Path(__file__).parent / "results"
SETS = ("CHEMBL2034_Ki", "CHEMBL204_Ki", "CHEMBL234_Ki", "CHEMBL2971_Ki", "CHEMBL4792_Ki")
TASKS = ("expt_gap", *SETS)
LEVEL = "90"
METRICS = {
    "coverage": f"coverage_{LEVEL}",
    "width": f"width_{LEVEL}",
    "nll": "nll",
    "ence": "ence",
    "mae": "mae",
    "rmse": "rmse",
}
"""Name of a record's metric, and of the score in the run's metrics.json."""
WITH_UNIT = ("width", "mae", "rmse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="expt_gap", help=f"of {', '.join(TASKS)}; or all")
    parser.add_argument("--backbone", default="matbert-small", help="bundled name or folder, with its audit")
    parser.add_argument("--folds", default="0,1,2,3,4", help="of expt_gap")
    parser.add_argument("--models", type=int, default=5, help="folds of CV+, and members of the ensemble")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of matfm finetune")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/uncertainty", help="tables and run directories")
    arguments = parser.parse_args()
    for name in chosen(arguments.tasks, TASKS):
        molecules = name in SETS
        known = labelled(f"moleculeace_{name}" if molecules else f"matbench_{name}", Path(arguments.work))
        splits = {0: "split"} if molecules else {int(fold): f"fold_{fold}" for fold in arguments.folds.split(",")}
        for split, column in splits.items():
            score(name, known, split, column, arguments)
        summarise(RESULTS)


def score(name: str, known: LabelledTable, split: int, column: str, arguments: argparse.Namespace) -> None:
    """Fine-tune with CV+ and add the scores of the test rows, if they are not there."""
    pretraining = Pretraining(arguments.backbone)
    pretraining.require_scorable(known)
    said = f" [{', '.join(arguments.set)}]" if arguments.set else ""
    model = f"{Path(arguments.backbone).name} ×{arguments.models}, CV+{said}"
    path = RESULTS / f"{name}.jsonl"
    weights = weights_of(arguments.backbone)
    if matching(load(path), split=split, model=model, seed=arguments.seed, weights=weights):
        return
    out = Path(arguments.work) / name / f"{slug(model)}-{weights}-seed{arguments.seed}-split{split}"
    tuning = Tuning(
        arguments.backbone,
        (f"cross_conformal={arguments.models}", "valid_share=0.0", *arguments.set),
        arguments.device,
    )
    predicted = fine_tuned(known, column, tuning, arguments.seed, out)
    scores = json.loads((out / "metrics.json").read_text("utf-8"))["test"][known.target]
    seen_R = pretraining.seen_rows(known, "smiles" if name in SETS else "composition")
    test_R = known.test_rows(column)
    new = [
        record(
            resolve_device(arguments.device).type, arguments.seed, benchmark="uncertainty", task=name, split=split,
            model=model, metric=metric, unit=known.unit if metric in WITH_UNIT else "", value=float(scores[key]),
            n=int(test_R.sum()), seconds=predicted.seconds, external_labels=pretraining.external_labels(),
            weights=weights, contaminated_share=None if seen_R is None else round(float(seen_R[test_R].mean()), 4),
        )
        for metric, key in METRICS.items()
        if key in scores
    ]  # fmt: skip
    append(path, *new)
    print(f"{name} split {split}  {model}  " + "  ".join(f"{e['metric']} {e['value']:.4f}" for e in new), flush=True)


def summarise(folder: Path) -> None:
    """Rewrite `means.jsonl` and `table.md`: means over the splits of each task."""
    entries = [entry for name in TASKS for entry in load(folder / f"{name}.jsonl")]
    keys = dict.fromkeys((entry["task"], entry["model"], entry["metric"]) for entry in entries)
    means = []
    for task, model, metric in keys:
        own = matching(entries, task=task, model=model, metric=metric)
        means.append(mean_record(own, own[0]["device"], command=own[-1]["command"]))
    rewrite(folder / "means.jsonl", means)
    header = ["task", "model", "rows", *(f"{metric} at 90 %" if metric == "coverage" else metric for metric in METRICS)]
    rows = []
    for task, model in dict.fromkeys((entry["task"], entry["model"]) for entry in means):
        own = {entry["metric"]: entry for entry in matching(means, task=task, model=model, split=MEAN)}
        cells = [f"{digits(own[m]['value'])} {own[m]['unit'] or ''}".strip() if m in own else "" for m in METRICS]
        rows.append([task, model, f"{next(iter(own.values()))['n']:,}", *cells])
    write_text(folder / "table.md", markdown(header, rows))


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
