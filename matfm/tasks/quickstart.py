"""`matfm quickstart`: the bundled encoder fine-tuned on real band gaps, beside the literature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matfm.core.files import write_json
from matfm.tasks import data, finetune
from matfm.tasks.audit import external_labels, read_audit
from matfm.tasks.recipes.recipe import load_recipe
from matfm.tasks.tables import read_table

RECIPE, FOLD, TARGET = "matbench_expt_gap", "fold_0", "band_gap"


@dataclass(frozen=True)
class QuickstartConfig:
    """`matfm quickstart`."""

    out: str = "matfm-quickstart"
    """Folder for the data and the run."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    cache: str | None = None
    """Folder of fetched files."""
    offline: bool = False
    """Use only the cache."""


def run(config: QuickstartConfig, resume: bool = False) -> dict[str, Any]:
    """Fine-tune on the training rows of official fold 0 of matbench_expt_gap and score its test rows."""
    out = Path(config.out)
    table = out / "data" / f"{RECIPE}.parquet"
    if not table.is_file():
        data.run(data.BuildConfig(RECIPE, str(table.parent), config.cache, config.offline))
    tuning = finetune.FinetuneConfig(
        table=str(table),
        input=data.INPUT_COLUMN,
        targets=(TARGET,),
        split=f"column:{FOLD}",
        device=config.device,
    )
    run_folder = out / "run"
    summary = finetune.run(tuning, run_folder, resume=resume or (run_folder / "config.json").is_file())
    recipe = load_recipe(RECIPE)
    result = {
        "task": "quickstart",
        "data": RECIPE,
        "fold": FOLD,
        "mae": summary["metrics"]["test"][TARGET]["mae"],
        "unit": summary["units"][TARGET],
        "rows_test": summary["rows"]["test"],
        "dummy_mae_this_fold": _dummy_error(str(table)),
        "published_mae_mean_of_5_folds": {entry.model: entry.mae for entry in recipe.published},
        "backbone": summary["backbone"],
        "external_labels": external_labels(read_audit(summary["backbone"])),
        "seconds_training": summary["seconds"],
        "run": str(run_folder),
        "picture": str(run_folder / "parity.png"),
    }
    write_json(out / "summary.json", result)
    return result


def comparison(summary: dict[str, Any]) -> str:
    """The result beside the published ones, best first, for people."""
    unit = summary["unit"]
    scores = {
        f"matfm {summary['backbone']} (this run, {summary['fold']})": summary["mae"],
        f"training mean (this run, {summary['fold']})": summary["dummy_mae_this_fold"],
        **{f"{name} (published)": mae for name, mae in summary["published_mae_mean_of_5_folds"].items()},
    }
    lines = [f"{mae:8.4f} {unit}  {name}" for name, mae in sorted(scores.items(), key=lambda item: item[1])]
    heading = f"Mean absolute error on {summary['data']} (published: mean of 5 folds)"
    return "\n".join([heading, *lines, f"Picture: {summary['picture']}"])


def _dummy_error(path: str) -> float:
    """Mean absolute error of predicting the mean of the training rows, on the test rows of the fold."""
    table = read_table(path)
    values = np.array([float(cell) for cell in table.columns[TARGET]])
    test = np.array(table.columns[FOLD]) == "test"
    return float(np.abs(values[test] - values[~test].mean()).mean())
