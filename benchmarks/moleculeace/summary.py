"""Means over the 30 sets, paired tests against the kernel baseline and against published models, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.paired import sets_compared
from benchmarks.results import Record, load, matching, mean_record, record, rewrite
from benchmarks.tables import digits, markdown, published, share
from matfm.core.files import write_text

PUBLISHED = Path(__file__).parent / "published.csv"
OVERALL = "overall"
BASELINE = "count-Tanimoto kernel"
METRICS = ("rmse", "rmse_cliff")
PEERS = ("SVM_ECFP", "RF_ECFP")
"""Published models with scores of each set against which ours are tested."""
Scores = dict[str, float]
"""Set to score."""


def summarise(folder: Path, sets: Sequence[str]) -> None:
    """Rewrite `overall.jsonl` and `table.md` from the files of the sets."""
    entries = [entry for name in sets for entry in load(folder / f"{name}.jsonl")]
    whole: list[Record] = []
    for model, seed in dict.fromkeys((entry["model"], entry["seed"]) for entry in entries):
        for metric in METRICS:
            own = matching(entries, model=model, seed=seed, metric=metric)
            if len(own) == len(sets):
                whole.append(mean_record(own, own[0]["device"], task=OVERALL, command=own[-1]["command"]))
            whole += _tests(entries, own, metric)
    rewrite(folder / f"{OVERALL}.jsonl", whole)
    write_text(folder / "table.md", _table(entries, whole, len(sets)))


def _scores(entries: Sequence[Record]) -> Scores:
    return {entry["task"]: entry["value"] for entry in entries}


def _peers(metric: str) -> dict[str, Scores]:
    """Published scores of single sets, and of the mean over all under `overall`."""
    peers: dict[str, Scores] = {}
    for row in published(PUBLISHED):
        if row["metric"] == metric:
            peers.setdefault(row["algorithm"], {})[row["dataset"]] = float(row["value"])
    return peers


def _tests(entries: Sequence[Record], own: Sequence[Record], metric: str) -> list[Record]:
    """Against the kernel baseline measured here and published models, on the sets that both have."""
    if not own:
        return []
    first = own[0]
    peers = {f"{name} (published)": scores for name, scores in _peers(metric).items() if name in PEERS}
    if first["model"] != BASELINE:
        peers[BASELINE] = _scores(matching(entries, model=BASELINE, seed=0, metric=metric))
    found = []
    for peer, scores in peers.items():
        compared = sets_compared(_scores(own), scores)
        if compared is not None:
            found.append(record(
                "cpu", first["seed"], benchmark="moleculeace", task=OVERALL, split="mean", model=first["model"],
                metric=f"p_value:{metric}", unit="", value=compared.p_value, n=compared.splits, against=peer,
                test=compared.test, difference=compared.difference, better=compared.better,
            ))  # fmt: skip
    return found


def _table(entries: Sequence[Record], whole: Sequence[Record], sets: int) -> str:
    rows: list[tuple[bool, float, list[str]]] = []
    base = {metric: _scores(matching(entries, model=BASELINE, seed=0, metric=metric)) for metric in METRICS}
    for model, seed in dict.fromkeys((entry["model"], entry["seed"]) for entry in entries):
        own = {metric: _scores(matching(entries, model=model, seed=seed, metric=metric)) for metric in METRICS}
        count = len(own["rmse"])
        mean = {metric: float(np.mean(list(own[metric].values()))) for metric in METRICS}
        shared = own["rmse"].keys() & base["rmse"].keys()
        ahead = sum(own["rmse"][name] < base["rmse"][name] for name in shared) if model != BASELINE else None
        tests = matching(whole, model=model, seed=seed, metric="p_value:rmse")
        (first, *_) = matching(entries, model=model, seed=seed)
        rows.append((count < sets, mean["rmse"], [
            f"**{model}**" + (f", seed {seed}" if seed else ""), digits(mean["rmse"]), digits(mean["rmse_cliff"]),
            str(count), "measured here", first["external_labels"] or "", share(first["contaminated_share"]),
            "" if ahead is None else f"{ahead} of {len(shared)}",
            "; ".join(f"{test['against']}: {test['value']:.2g}" for test in tests),
        ]))  # fmt: skip
    cliffs = _peers("rmse_cliff")
    for name, scores in _peers("rmse").items():
        mean = [of[OVERALL] if OVERALL in of else float(np.mean(list(of.values()))) for of in (scores, cliffs[name])]
        rows.append((False, mean[0], [name, digits(mean[0]), digits(mean[1]), str(sets), "published", "", "", "", ""]))
    rows.sort(key=lambda row: row[:2])
    header = [
        "model", "RMSE", "RMSE on cliffs", "sets", "source", "external labels", "seen test rows",
        f"better than {BASELINE}", "p (Wilcoxon over sets) against",
    ]  # fmt: skip
    return (
        f"## MoleculeACE: mean over {sets} sets (−log10 M)\n\nRows that have fewer sets come last, and their means "
        "are not comparable with the others.\n\n" + markdown(header, (cells for *_, cells in rows))
    )
