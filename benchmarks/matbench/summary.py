"""Means over the five folds, paired tests against peers measured on the same folds, and the table beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.paired import folds_compared
from benchmarks.results import MEAN, Record, load, matching, mean_record, record, rewrite
from benchmarks.tables import digits, markdown, published, share, with_std
from matfm.core.files import write_text

FOLDS = 5
PUBLISHED = Path(__file__).parent / "published.csv"
PUBLISHED_AS = {"mae": ("MAE",), "balanced_accuracy": ("balanced_accuracy",), "roc_auc": ("ROCAUC_true",)}
"""Metric to its names in `published.csv`. The leaderboard's own ROC-AUC is the balanced accuracy under another name."""
OTHER_FOLDS = "[CrabNet paper]"
"""Marks published scores on de-duplicated folds, which are not comparable."""
TEST = "corrected resampled t over the five folds (Nadeau and Bengio 2003), two-sided"
SHOWN = 6
"""Best published models in a table."""
REFERENCES = ("CrabNet", "MODNet (v0.1.12)", "RF-SCM/Magpie", "Dummy")
"""Published models that every table shows."""


def summarise(folder: Path, task: str) -> None:
    """Rewrite `<task>.jsonl` (means and tests) from the fold files, and `table.md` from all of them."""
    path = folder / f"{task}.jsonl"
    folds = [entry for fold in range(FOLDS) for entry in load(folder / f"{task}_fold_{fold}.jsonl")]
    before = load(path)
    means = [_kept(before, mean) for mean in _means(folds)]
    rewrite(path, [*means, *_tests(folds)])
    tasks = sorted(
        {entry["task"] for file in folder.glob("*.jsonl") for entry in load(file) if "@" not in entry["task"]}
    )
    closing = f"† on de-duplicated folds, not comparable. Published scores: `published.csv`. Tests: {TEST}.\n"
    write_text(folder / "table.md", "\n".join([*(_section(folder, name) for name in tasks), closing]))


def _groups(folds: Iterable[Record]) -> dict[tuple[object, ...], dict[int, Record]]:
    groups: dict[tuple[object, ...], dict[int, Record]] = {}
    for entry in folds:
        key = (entry["task"], entry["model"], entry["metric"], entry["seed"], entry.get("clean_of"), entry["weights"])
        groups.setdefault(key, {})[entry["split"]] = entry
    return groups


def _means(folds: list[Record]) -> list[Record]:
    """Of the models that have all five folds."""
    means = []
    for (*_, clean_of, _weights), of_fold in _groups(folds).items():
        if len(of_fold) == FOLDS:
            entries = [of_fold[fold] for fold in range(FOLDS)]
            extra = {} if clean_of is None else {"clean_of": clean_of}
            means.append(mean_record(entries, entries[0]["device"], command=entries[-1]["command"], **extra))
    return means


def _kept(before: list[Record], mean: Record) -> Record:
    """The record of an earlier call, if it says the same."""
    told = {key: mean.get(key) for key in ("task", "model", "metric", "seed", "n", "clean_of", "weights")}
    same = [entry for entry in matching(before, split=MEAN, **told) if abs(entry["value"] - mean["value"]) < 1e-12]
    return same[0] if same else mean


def _tests(folds: list[Record]) -> list[Record]:
    """Ours (whatever knows more than the training rows) against every other measured model, all test rows."""
    groups = {key: of for key, of in _groups(folds).items() if "@" not in str(key[0]) and len(of) == FOLDS}
    found = []
    for (task, model, metric, seed, *_further), ours in groups.items():
        if ours[0]["contaminated_share"] is None:
            continue
        for (other_task, peer, other_metric, *_), theirs in groups.items():
            if (other_task, other_metric) != (task, metric) or peer == model or str(peer).startswith("dummy"):
                continue
            scores = [{fold: entry["value"] for fold, entry in of.items()} for of in (ours, theirs)]
            compared = folds_compared(*scores, 1 / (FOLDS - 1), metric in ("mae", "rmse"))
            if compared is not None:
                found.append(record(
                    "cpu", seed, benchmark="matbench", task=task, split=MEAN, model=model, metric=f"p_value:{metric}",
                    unit="", value=compared.p_value, n=compared.splits, against=peer, test=compared.test,
                    difference=compared.difference, better=compared.better,
                ))  # fmt: skip
    return found


def _section(folder: Path, task: str) -> str:
    entries = load(folder / f"{task}.jsonl")
    partial = [entry for fold in range(FOLDS) for entry in load(folder / f"{task}_fold_{fold}.jsonl")]
    parts = [
        _table(task, metric, entries, partial) for metric in PUBLISHED_AS if matching(partial, task=task, metric=metric)
    ]
    return "\n".join(parts)


def _table(task: str, metric: str, entries: list[Record], partial: list[Record]) -> str:
    smaller = metric == "mae"
    unit = next(entry["unit"] for entry in partial if entry["metric"] == metric)
    rows: list[tuple[float, list[str]]] = []
    for entry in matching(entries, task=task, metric=metric, split=MEAN):
        same = {"metric": metric, "model": entry["model"], "seed": entry["seed"]}
        clean = matching(entries, task=f"{task}@clean", **same)
        tests = matching(entries, task=task, metric=f"p_value:{metric}", model=entry["model"], seed=entry["seed"])
        seed = f", seed {entry['seed']}" if entry["seed"] else ""
        rows.append((entry["value"], [
            f"**{entry['model']}**{seed}", with_std(entry), "measured here", entry["external_labels"] or "",
            share(entry["contaminated_share"]), "; ".join(f"{digits(one['value'])} ({one['n']} rows)" for one in clean),
            "; ".join(f"{test['against']}: {test['value']:.2g}" for test in tests),
        ]))  # fmt: skip
    whole = {(entry["model"], entry["seed"]) for entry in matching(entries, task=task, metric=metric, split=MEAN)}
    for entry in matching(partial, task=task, metric=metric):
        if (entry["model"], entry["seed"]) not in whole:
            name = f"**{entry['model']}**, fold {entry['split']}, seed {entry['seed']}"
            rows.append((entry["value"], [
                name, digits(entry["value"]), "measured here", entry["external_labels"] or "",
                share(entry["contaminated_share"]), "", "",
            ]))  # fmt: skip
    rows += [
        (score, [name, text, "published", "", "", "", ""]) for score, name, text in _published(task, metric, smaller)
    ]
    rows.sort(key=lambda row: row[0] if smaller else -row[0])
    title = f"## {task}: {metric}{f' ({unit})' if unit else ''}\n\n"
    header = ["model", "mean ± std", "source", "external labels", "seen test rows", "unseen test rows", "p against"]
    return title + markdown(header, (cells for _, cells in rows))


def _published(task: str, metric: str, smaller: bool) -> list[tuple[float, str, str]]:
    """The best published models that read compositions only, and those that everybody knows."""
    found = []
    for row in published(PUBLISHED):
        if row["task"] == f"matbench_{task}" and row["metric"] in PUBLISHED_AS[metric] and row["kind"] != "structure":
            score, std = float(row["mean"]), row["std"]
            name = row["algorithm"] + (" †" if OTHER_FOLDS in row["algorithm"] else "")
            found.append((score, name, digits(score) + (f" ± {digits(float(std))}" if std else ""), row["kind"]))
    found.sort(key=lambda one: one[0] if smaller else -one[0])
    best = [one for one in found if one[3] != "dummy"][:SHOWN]
    return [one[:3] for one in [*best, *(one for one in found if one[1] in REFERENCES and one not in best)]]
