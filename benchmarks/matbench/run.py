"""Matbench v0.1 on its official folds: fine-tuned matfm and a random forest on Magpie features.

Resumable: folds that are in the results file are not run again, and a fold that was cut off goes on
from its checkpoint. `python benchmarks/matbench/run.py --tasks expt_gap`
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, load, record
from matfm.chem.composition_groups import composition_group
from matfm.chem.magpie import magpie_features
from matfm.tasks import data, finetune
from matfm.tasks.element_properties import magpie_table
from matfm.tasks.predictor import FitConfig
from matfm.tasks.recipes import load_recipe
from matfm.tasks.tables import Chunk, read_table

RESULTS = Path(__file__).parent / "results"
TASKS = {"expt_gap": "matbench_expt_gap"}
BASELINE = "rf-magpie"
DUMMY = "dummy (training mean)"
FOREST = {"n_estimators": 500, "max_features": 1 / 3, "n_jobs": -1, "random_state": 0}
LABELS = {"matbert-small": "OQMD formation enthalpy, band gap, energy and volume per atom (computed)"}
CORPORA = {"matbert-small": "oqmd"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="expt_gap", help=f"comma-separated; known: {', '.join(TASKS)}")
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--backbone", default="matbert-small")
    parser.add_argument("--ensemble", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/matbench", help="tables and run directories")
    arguments = parser.parse_args()
    for task in arguments.tasks.split(","):
        run_task(task, [int(fold) for fold in arguments.folds.split(",")], arguments)


def run_task(task: str, folds: list[int], arguments: argparse.Namespace) -> None:
    work = Path(arguments.work)
    path = built(TASKS[task], work)
    table = read_table(path)
    (target, unit), *_ = load_recipe(TASKS[task]).column_units().items()
    results = RESULTS / f"{task}.jsonl"
    size = f" ×{arguments.ensemble}" if arguments.ensemble > 1 else ""
    model = f"{arguments.backbone} fine-tuned{size}"
    shares = contaminated_shares(arguments.backbone, table, folds, work)
    for fold in folds:
        common = {"benchmark": "matbench", "task": task, "split": fold, "metric": "mae", "unit": unit}
        if not done(results, fold, model):
            tuning = finetune.FinetuneConfig(
                table=path, input=data.INPUT_COLUMN, targets=(target,), split=f"column:fold_{fold}",
                ensemble=arguments.ensemble, seed=arguments.seed, device=arguments.device,
                fit=FitConfig(backbone=arguments.backbone),
            )  # fmt: skip
            out = work / task / f"{model.replace(' ', '-')}-seed{arguments.seed}-fold{fold}"
            summary = finetune.run(tuning, out, resume=out.exists())
            scores = summary["metrics"]["test"][target]
            entry = record(
                arguments.device, arguments.seed, **common, model=model, value=scores["mae"], n=scores["n"],
                seconds=summary["seconds"], external_labels=LABELS.get(arguments.backbone),
                contaminated_share=shares.get(fold),
            )  # fmt: skip
            append(results, entry)
        for baseline, fitted in ((BASELINE, random_forest), (DUMMY, training_mean)):
            if not done(results, fold, baseline):
                started = time.perf_counter()
                true, predicted = fitted(table, target, fold)
                mae = float(np.abs(true - predicted).mean())
                seconds = round(time.perf_counter() - started, 1)
                append(results, record("cpu", 0, **common, model=baseline, value=mae, n=len(true), seconds=seconds))
        for name in (model, BASELINE, DUMMY):
            value = next(e["value"] for e in load(results) if e["split"] == fold and e["model"] == name)
            print(f"{task} fold {fold}  {name:36} {value:.4f} {unit}", flush=True)
    for name in (model, BASELINE, DUMMY):
        aggregate(results, task, name, unit, arguments)


def built(recipe: str, work: Path) -> str:
    """Path of the recipe's table, built once."""
    path = work / "data" / f"{recipe}.parquet"
    if not path.is_file():
        data.run(data.BuildConfig(recipe, str(path.parent)))
    return str(path)


def done(results: Path, fold: int, model: str) -> bool:
    return any(entry["split"] == fold and entry["model"] == model for entry in load(results))


def fold_rows(table: Chunk, target: str, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Values, and which rows are test rows of the fold."""
    values = np.array([float(cell) for cell in table.columns[target]])
    return values, np.array(table.columns[f"fold_{fold}"]) == "test"


def random_forest(table: Chunk, target: str, fold: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.ensemble import RandomForestRegressor

    described = magpie_features(table.columns[data.INPUT_COLUMN], magpie_table())
    values, test = fold_rows(table, target, fold)
    forest = RandomForestRegressor(**FOREST).fit(described[~test], values[~test])
    return values[test], forest.predict(described[test])


def training_mean(table: Chunk, target: str, fold: int) -> tuple[np.ndarray, np.ndarray]:
    values, test = fold_rows(table, target, fold)
    return values[test], np.full(test.sum(), values[~test].mean())


def contaminated_shares(backbone: str, table: Chunk, folds: list[int], work: Path) -> dict[int, float]:
    """Share of each fold's test compositions that the backbone's pretraining corpus contains (other labels)."""
    if backbone not in CORPORA:
        return {}
    corpus = read_table(built(CORPORA[backbone], work)).columns[data.INPUT_COLUMN]
    seen = {composition_group(formula) for formula in corpus}
    known = np.array([composition_group(formula) in seen for formula in table.columns[data.INPUT_COLUMN]])
    tests = {fold: np.array(table.columns[f"fold_{fold}"]) == "test" for fold in folds}
    return {fold: round(float(known[test].mean()), 4) for fold, test in tests.items()}


def aggregate(results: Path, task: str, model: str, unit: str, arguments: argparse.Namespace) -> None:
    """Mean, standard deviation (ddof = 0, as on the leaderboard) and interval over five folds, once all are there."""
    entries = [entry for entry in load(results) if entry["model"] == model]
    folds = [entry for entry in entries if isinstance(entry["split"], int)]
    if len({entry["split"] for entry in folds}) < 5 or any(entry["split"] == "mean" for entry in entries):
        return
    values = np.array([entry["value"] for entry in folds])
    half = 2.776 * values.std(ddof=1) / len(values) ** 0.5  # Student's t with 4 degrees of freedom, 95 %
    extra: dict[str, Any] = {
        "std": float(values.std()),
        "interval": [float(values.mean() - half), float(values.mean() + half)],
        "external_labels": folds[0]["external_labels"],
    }
    if folds[0]["contaminated_share"] is not None:
        extra["contaminated_share"] = round(float(np.mean([entry["contaminated_share"] for entry in folds])), 4)
    entry = record(
        arguments.device, folds[0]["seed"], benchmark="matbench", task=task, split="mean", model=model, metric="mae",
        unit=unit, value=float(values.mean()), n=sum(e["n"] for e in folds),
        seconds=round(sum(e["seconds"] for e in folds), 1), **extra,
    )  # fmt: skip
    append(results, entry)
    print(f"{task} mean    {model:36} {values.mean():.4f} ± {values.std():.4f} {unit}")


if __name__ == "__main__":
    main()
