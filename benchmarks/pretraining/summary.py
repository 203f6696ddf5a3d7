"""Means over splits and seeds, and the gain over random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.pretraining.tasks import MOLECULES, TASKS
from benchmarks.results import MEAN, Record, load, matching, mean_record, rewrite
from benchmarks.tables import digits, markdown, published, share
from matfm.core.files import write_text

FROM_SCRATCH = "from scratch"
MEANS = "means.jsonl"
PUBLISHED = Path(__file__).parents[1] / "moleculeace" / "published.csv"
DEEP, FOREST = ("CNN_SMILES", "GCN_GRAPH", "Transformer_TOKENS"), "RF_ECFP"


def summarise(folder: Path) -> None:
    """Rewrite `means.jsonl` and `table.md` from the files of the tasks."""
    entries = [entry for name in TASKS for entry in load(folder / f"{name}.jsonl")]
    means = []
    for task, model in dict.fromkeys((entry["task"], entry["model"]) for entry in entries):
        own = matching(entries, task=task, model=model)
        mean = mean_record(
            own, own[0]["device"], command=own[-1]["command"], splits=sorted({entry["split"] for entry in own}),
            seeds=sorted({entry["seed"] for entry in own}),
        )  # fmt: skip
        means.append({**mean, "gain": gain(own, entries)})
    rewrite(folder / MEANS, means)
    write_text(folder / "table.md", table(means))


def gain(own: Sequence[Record], entries: Sequence[Record]) -> float | None:
    """One minus the error over that from scratch, on the splits that both have; None for scratch itself.

    Records of the same backbone and task; frozen encoders are compared with what was fine-tuned from scratch.
    """
    first = own[0]
    name = Path(first["backbone"]).name
    if first["model"].startswith(f"{name} {FROM_SCRATCH}"):
        return None
    settings = first["model"].partition("[")[2]
    twins = [
        entry
        for entry in matching(entries, task=first["task"], backbone=first["backbone"])
        if entry["model"].startswith(f"{name} {FROM_SCRATCH}") and (not settings or entry["model"].endswith(settings))
    ]
    shared = {entry["split"] for entry in own} & {entry["split"] for entry in twins}
    if not shared:
        return None
    error, twin = (
        np.mean([np.mean([one["value"] for one in matching(side, split=split)]) for split in shared])
        for side in (own, twins)
    )
    return float(1 - error / twin)


def table(means: Sequence[Record]) -> str:
    """One line for each task and model."""
    rows = [
        [
            entry["task"], error_name(entry), entry["model"],
            f"{digits(entry['value'])} ± {digits(entry['std'])}", share(entry["gain"]),
            f"{len(entry['splits'])} × {len(entry['seeds'])}", entry["external_labels"] or "",
            share(entry["contaminated_share"]),
        ]
        for entry in matching(means, split=MEAN)
    ]  # fmt: skip
    rows += [[task, "rmse", name, digits(error), "", "published", "", ""] for task, name, error in _published(means)]
    rows.sort(key=lambda cells: TASKS.index(cells[0]))
    header = [
        "task", "error", "model", "mean ± std over splits and seeds", "less than from scratch", "splits × seeds",
        "external labels", "seen test rows",
    ]  # fmt: skip
    return markdown(header, rows)


def _published(means: Sequence[Record]) -> list[tuple[str, str, float]]:
    """Task, name and error: the mean of three published deep learners, and a random forest."""
    known = {
        (row["dataset"], row["algorithm"]): float(row["value"])
        for row in published(PUBLISHED)
        if row["metric"] == "rmse"
    }
    found = []
    for task in [name for name in MOLECULES if matching(means, task=name)]:
        found.append((task, f"mean of {', '.join(DEEP)}", float(np.mean([known[task, name] for name in DEEP]))))
        found.append((task, FOREST, known[task, FOREST]))
    return found


def error_name(entry: Record) -> str:
    """Metric and unit."""
    return f"{entry['metric']} ({entry['unit']})" if entry["unit"] else str(entry["metric"])
