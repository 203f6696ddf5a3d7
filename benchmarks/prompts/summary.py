"""Means over seeds, gains over the probe, distances from full fine-tuning, learning rates, attention and the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.prompts.methods import DUMMY, FULL, PROBE, RIDGE, WITH_LENGTH, Method
from benchmarks.results import MEAN, Record, load, matching, mean_record, rewrite
from benchmarks.tables import digits, markdown, share
from matfm.core.files import atomic_path, write_text

RATES, ATTENTION, MEANS = "rates.jsonl", "attention.jsonl", "means.jsonl"
JUDGED = ("mae", "roc_auc")
"""The metric of a task by which methods are compared."""
LARGEST_SHARE = 0.01
NEAR_FULL = 0.15


def best_rate(rates: Sequence[Record], task: str, method: Method) -> float | None:
    """The rate with the best mean over the seeds of the tuning rows, for the method's length or else any; None if none.

    Records of other epochs or settings are not looked at.
    """
    own = [
        entry
        for entry in matching(rates, task=task, method=method.key, epochs=method.epochs, settings=list(method.further))
        if entry["metric"] in JUDGED
    ]
    own = matching(own, short=method.short) or own
    scores: dict[float, list[float]] = {}
    for entry in own:
        scores.setdefault(entry["learning_rate"], []).append(_badness(entry))
    return min(scores, key=lambda rate: float(np.mean(scores[rate]))) if scores else None


def summarise(folder: Path, tasks: Sequence[str]) -> None:
    """Rewrite `means.jsonl`, `table.md` and `sweep.png` from the files of the tasks."""
    entries = [entry for task in tasks for entry in load(folder / f"{task}.jsonl")]
    means = []
    for task, model, rows, metric in dict.fromkeys(
        (entry["task"], entry["model"], entry["train_rows"], entry["metric"]) for entry in entries
    ):
        own = matching(entries, task=task, model=model, train_rows=rows, metric=metric)
        kept = {key: own[0].get(key) for key in _KEPT}
        further = {**kept, "seeds": sorted({entry["seed"] for entry in own}), "command": own[-1]["command"]}
        mean = mean_record(own, own[0]["device"], **further)
        means.append({**mean, **(compared(own, entries) if metric in JUDGED else {})})
    rewrite(folder / MEANS, means)
    judged = [entry for entry in means if entry["metric"] in JUDGED]
    parts = [table(judged, task) for task in tasks if matching(judged, task=task)]
    rates, attention = load(folder / RATES), load(folder / ATTENTION)
    parts += [rate_table(rates)] if rates else []
    parts += [attention_table(attention)] if attention else []
    if parts:
        write_text(folder / "table.md", "\n".join(parts))
    draw_sweep(folder / "sweep.png", judged, tasks)


_KEPT = (
    "backbone", "method", "short", "length", "learning_rate", "epochs", "train_rows", "all_train_rows",
    "delta_numbers", "delta_trained", "head_numbers", "backbone_numbers",
)  # fmt: skip


def compared(own: Sequence[Record], entries: Sequence[Record]) -> dict[str, object]:
    """Against the others of the same task, rows and epochs that have the same folds (and seeds, if they have any).

    `below_probe`: mean over seeds of how much worse the probe is, with a 95 % interval (Student's t of the paired
    differences); `to_full`: how much worse than full fine-tuning, as a share of the latter's error (of an area under
    the curve: what it lacks to 1); `kept`: of full's improvement over the dummy.
    """
    first = own[0]
    same = matching(entries, task=first["task"], train_rows=first["train_rows"], metric=first["metric"])
    same = [entry for entry in same if entry["method"] in (DUMMY, RIDGE) or entry["epochs"] == first["epochs"]]
    mean = float(np.mean([_badness(entry) for entry in own]))
    found: dict[str, object] = {"below_probe": None, "below_probe_interval": None, "to_full": None, "kept": None}
    probe = {_place(entry): _badness(entry) for entry in matching(same, method=PROBE)}
    differences = np.array([probe[_place(entry)] - _badness(entry) for entry in own if _place(entry) in probe])
    if len(differences) and first["method"] != PROBE:
        found["below_probe"] = float(differences.mean())
        found["below_probe_interval"] = _interval(differences)
    folds = {entry["fold"] for entry in own}
    full, dummy = (
        [_badness(entry) for entry in matching(same, method=method) if entry["fold"] in folds]
        for method in (FULL, DUMMY)
    )
    if full:
        best = float(np.mean(full))
        error = best if first["metric"] == "mae" else 1 + best
        found["to_full"] = (mean - best) / error if error else None
        if dummy and np.mean(dummy) != best:
            found["kept"] = (float(np.mean(dummy)) - mean) / (float(np.mean(dummy)) - best)
    return found


def table(means: Sequence[Record], task: str) -> str:
    """One line a method, best first, and what the issue asks of them."""
    own = sorted(matching(means, task=task, split=MEAN), key=_badness)
    first = own[0]
    rows = []
    for entry in own:
        low_high = entry["interval"]
        interval = f" ({digits(low_high[0])} to {digits(low_high[1])})" if low_high else ""
        gained, bounds = entry["below_probe"], entry["below_probe_interval"]
        rows.append([
            entry["model"] + _sampled(entry), digits(entry["value"]) + interval, str(len(entry["seeds"])),
            _count(entry["delta_numbers"], entry["backbone_numbers"]) + ("" if entry["delta_trained"] else " fixed"),
            _count(entry["head_numbers"], entry["backbone_numbers"]),
            "" if gained is None else f"{gained:+.4f}" + (f" ({bounds[0]:+.4f} to {bounds[1]:+.4f})" if bounds else ""),
            share(entry["to_full"]), share(entry["kept"]), share(entry["contaminated_share"]),
            f"{entry['seconds'] / max(1, len(entry['seeds'])):.0f}",
        ])  # fmt: skip
    unit = f" ({first['unit']})" if first["unit"] else ""
    header = [
        "method", f"{first['metric']}{unit}, mean and 95 % interval", "seeds",
        "numbers of the prompt (of the encoder's)", "numbers of the head", "better than the probe by",
        "worse than full by", "gain over dummy, share of full's", "seen test rows", "seconds a run",
    ]  # fmt: skip
    return f"## {task}\n\n{markdown(header, rows)}\n{verdict(own)}\n"


def verdict(own: Sequence[Record]) -> str:
    """What the trained prompts of one task reach of what was asked for."""
    said = []
    for entry in own:
        if entry["method"] not in (*WITH_LENGTH, "control"):
            continue
        small = entry["delta_numbers"] / entry["backbone_numbers"]
        bounds = entry["below_probe_interval"]
        better = (
            "not compared with the probe" if entry["below_probe"] is None else _better(bounds, entry["below_probe"])
        )
        near = ""
        if entry["to_full"] is not None:
            near = f", {'within' if entry['to_full'] <= NEAR_FULL else 'not within'} {NEAR_FULL:.0%} of full"
        said.append(f"- {entry['short']}: {small:.2%} of the encoder's numbers, {better}{near}.")
    return "\n".join(said)


def rate_table(rates: Sequence[Record]) -> str:
    """Scores of the tuning rows by learning rate."""
    judged = [entry for entry in rates if entry["metric"] in JUDGED]
    columns = sorted({entry["learning_rate"] for entry in judged})
    rows = []
    for task, name, epochs, train in dict.fromkeys(
        (entry["task"], entry["short"], entry["epochs"], entry["train_rows"]) for entry in judged
    ):
        own = matching(judged, task=task, short=name, epochs=epochs, train_rows=train)
        means = {
            rate: float(np.mean([_badness(entry) for entry in matching(own, learning_rate=rate)]))
            for rate in columns
            if matching(own, learning_rate=rate)
        }
        best = min(means, key=means.__getitem__)
        cells = [
            "" if rate not in means else f"**{digits(abs(means[rate]))}**" if rate == best else digits(abs(means[rate]))
            for rate in columns
        ]
        rows.append([task, name, f"{epochs:g}", str(train), own[0]["metric"], *cells])
    header = ["task", "method", "epochs", "training rows", "metric", *(f"{rate:g}" for rate in columns)]
    return f"## Learning rates, on a part of the training rows\n\n{markdown(header, rows)}\n"


def attention_table(attention: Sequence[Record]) -> str:
    """Mean share of attention that goes to the prompt."""
    layers = list(dict.fromkeys(entry["metric"] for entry in attention))
    rows = []
    for task, name in dict.fromkeys((entry["task"], entry["short"]) for entry in attention):
        own = matching(attention, task=task, short=name)
        of_layers = [[entry["value"] for entry in matching(own, metric=layer)] for layer in layers]
        cells = ["" if not values else f"{np.mean(values):.1%}" for values in of_layers]
        rows.append([task, name, f"{np.mean([entry['even'] for entry in own]):.1%}", *cells])
    header = ["task", "prompt", "if attention were even", *(layer.removeprefix("attention:") for layer in layers)]
    return f"## Share of attention that goes to the prompt\n\n{markdown(header, rows)}\n"


def draw_sweep(path: Path, means: Sequence[Record], tasks: Sequence[str]) -> None:
    """Score against length for each task, with the probe and full fine-tuning; nothing where no length was varied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [task for task in tasks if len({entry["length"] for entry in matching(means, task=task)} - {None}) > 1]
    if not shown:
        return
    figure = Figure(figsize=(4.4 * len(shown), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, task in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        own = matching(means, task=task)
        for name in WITH_LENGTH:
            line = sorted(matching(own, method=name), key=lambda entry: entry["length"])
            if line:
                values = np.array([entry["value"] for entry in line])
                ends = np.array([entry["interval"] or [entry["value"]] * 2 for entry in line])
                errors = np.abs(ends - values[:, None]).T
                axes.errorbar([entry["length"] for entry in line], values, errors, marker="o", capsize=3, label=name)
        for name, style in ((PROBE, ":"), (FULL, "--")):
            for entry in matching(own, method=name)[:1]:
                axes.axhline(entry["value"], color="#999999", linestyle=style, label=name)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="length", ylabel=f"{own[0]['metric']} {own[0]['unit']}", title=task)
        axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _place(entry: Record) -> tuple[int, int]:
    return entry["fold"], entry["seed"]


def _badness(entry: Record) -> float:
    """Smaller is better: an error, or the negative of a score."""
    return entry["value"] if entry["metric"] == "mae" else -entry["value"]


def _interval(differences: np.ndarray) -> list[float] | None:
    from scipy import stats

    if len(differences) < 2:
        return None
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    return [float(differences.mean() - half), float(differences.mean() + half)]


def _better(bounds: Sequence[float] | None, difference: float) -> str:
    if bounds is None:
        return f"{'better' if difference > 0 else 'not better'} than the probe (one seed)"
    if bounds[0] > 0:
        return "better than the probe"
    return "worse than the probe" if bounds[1] < 0 else "not told apart from the probe"


def _count(numbers: int, of: int) -> str:
    return f"{numbers} ({numbers / of:.2%})" if numbers else ""


def _sampled(entry: Record) -> str:
    """Says it where not all training rows were used."""
    rows, every = entry["train_rows"], entry["all_train_rows"]
    return "" if rows == every else f" — {rows} of {every} training rows"
