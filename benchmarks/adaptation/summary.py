"""Means over seeds, differences to source only with their significance, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.paired import Comparison, folds_compared
from benchmarks.results import MEAN, Record, load, matching, mean_record, rewrite
from benchmarks.tables import digits, markdown
from matfm.core.files import write_text

MEANS = "means.jsonl"
SOURCE_ONLY, BOTH_LABELS = "none", "joint"
SIGNIFICANT = 0.05


def summarise(folder: Path, shifts: Sequence[str]) -> None:
    """Rewrite `means.jsonl` and `table.md` from the files of the shifts."""
    entries = [entry for name in shifts for entry in load(folder / f"{name}.jsonl")]
    means = [_mean(task, model, entries) for task, model in dict.fromkeys((e["task"], e["model"]) for e in entries)]
    rewrite(folder / MEANS, means)
    write_text(folder / "table.md", table(means))


def compared(task: str, model: str, entries: Sequence[Record]) -> Comparison | None:
    """With source only of the same shift, seed by seed; None for source only itself, or for fewer than three seeds.

    Seeds share rows, so the test is the corrected one (`benchmarks.paired.folds_compared`).
    """
    return _compared(task, model, f"{task.partition('@')[0]}@0", SOURCE_ONLY, entries)


def beyond_labels(task: str, model: str, entries: Sequence[Record]) -> Comparison | None:
    """With training on the labels of both sides: what alignment brings beyond the target labels it is given.

    None without target labels, and for the model that learns from all of them.
    """
    if task.partition("@")[2] in ("0", "all"):
        return None
    return _compared(task, model, task, BOTH_LABELS, entries)


def _compared(task: str, model: str, base_task: str, base_model: str, entries: Sequence[Record]) -> Comparison | None:
    own, base = matching(entries, task=task, model=model), matching(entries, task=base_task, model=base_model)
    if model == base_model or not base:
        return None
    ours, theirs = ({entry["seed"]: entry["value"] for entry in side} for side in (own, base))
    return folds_compared(ours, theirs, base[0]["n"] / base[0]["source_rows"])


def _mean(task: str, model: str, entries: Sequence[Record]) -> Record:
    own = matching(entries, task=task, model=model)
    found, beyond = compared(task, model, entries), beyond_labels(task, model, entries)
    return {
        **mean_record(own, own[0]["device"], command=own[-1]["command"]),
        "seeds": sorted(entry["seed"] for entry in own),
        "difference": None if found is None else found.difference,
        "p_value": None if found is None else found.p_value,
        "beyond_labels": None if beyond is None else beyond.difference,
        "beyond_labels_p": None if beyond is None else beyond.p_value,
        "warned": sum(entry["negative_transfer"] is True for entry in own),
        "judged": sum(entry["negative_transfer"] is not None for entry in own),
    }


def table(means: Sequence[Record]) -> str:
    """One line for each shift, number of target labels and method."""
    rows = []
    for entry in matching(means, split=MEAN):
        shift, _, labels = entry["task"].partition("@")
        low, high = entry["interval"] or (None, None)
        rows.append([
            shift, labels, "source only" if entry["model"] == SOURCE_ONLY else entry["model"],
            f"{entry['metric']} ({entry['unit']})", digits(entry["value"]),
            "" if low is None or high is None else f"{digits(low)} to {digits(high)}",
            *_tested(entry["difference"], entry["p_value"]), *_tested(entry["beyond_labels"], entry["beyond_labels_p"]),
            f"{entry['warned']} of {entry['judged']}", str(len(entry["seeds"])),
        ])  # fmt: skip
    header = [
        "shift", "target labels", "method", "error", "mean", "95 % interval", "minus source only", "p",
        "minus joint at these labels", "p", "warned", "seeds",
    ]  # fmt: skip
    return markdown(header, rows)


def _tested(difference: float | None, p_value: float | None) -> tuple[str, str]:
    if difference is None or p_value is None:
        return "", ""
    return f"{difference:+.4f}", f"{p_value:.3f}" + (" *" if p_value < SIGNIFICANT else "")
