"""`matfm data leakage`: what a test table shares with a training (or pretraining) table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from matfm.chem.leakage import BINS, MEASURES, leakage_report
from matfm.core.files import write_json
from matfm.errors import MatfmError
from matfm.tasks.tables import STANDARD_INPUT, iterate_table

MOST_PAIRS = 2_000_000_000
"""Pairs of rows whose similarity is computed; beyond, training rows are sampled."""
_LISTS = ("train_unreadable_rows", "test_unreadable_rows")


@dataclass(frozen=True)
class LeakageConfig:
    """`matfm data leakage`."""

    train: str
    """Path of the training table."""
    test: str
    """Path of the test table."""
    input: str
    """Input column of the test table."""
    train_input: str | None = None
    """Input column of the training table, where it has another name."""
    kind: str = "composition"
    """What the columns hold: composition, smiles or selfies."""
    out: str | None = None
    """JSON file of the whole report, with the unreadable rows."""
    seed: int = 0
    """Of the sample of training rows, where there are too many pairs."""

    def __post_init__(self) -> None:
        if self.kind not in MEASURES:
            raise MatfmError(f"kind is {self.kind!r}; choose one of {', '.join(MEASURES)}")
        if self.train == STANDARD_INPUT:
            raise MatfmError("the training table is read twice; give a file, not standard input")
        if self.out is not None and Path(self.out).suffix != ".json":
            raise MatfmError(f"--out {self.out} must be a .json file")


def run(config: LeakageConfig) -> dict[str, Any]:
    """Compare the tables; returns the summary, which counts the unreadable rows and lists none."""
    test = list(_cells(config.test, config.input))
    if not test:
        raise MatfmError(f"{config.test} has no rows")
    column = config.train_input or config.input
    rows = sum(1 for _ in _cells(config.train, column))
    if rows == 0:
        raise MatfmError(f"{config.train} has no rows")
    compare = min(1.0, MOST_PAIRS / (rows * len(test)))
    shown = tqdm(_cells(config.train, column), total=rows, desc="leakage", disable=None, leave=False)
    report = leakage_report(shown, test, config.kind, compare=compare, seed=config.seed)
    values = {"train": config.train, "test": config.test, **asdict(report), "shares": report.shares}
    if config.out is not None:
        write_json(Path(config.out), values)
    return {"task": "leakage", **{name: value for name, value in values.items() if name not in _LISTS}}


def readable(summary: dict[str, Any]) -> str:
    """The report for people: counts with shares, and the histogram as bars."""
    lines = [f"{summary[f'{side}_rows']:>9,} {side} rows  ({summary[side]})" for side in ("test", "train")]
    lines.append("Test rows that the training rows hold:")
    for name, count in summary["counts"].items():
        lines.append(f"  {name.replace('_', ' '):22} {count:>9,}  {summary['shares'][name]:7.2%}")
    lines += [
        f"  unreadable {side:11} {summary[f'{side}_unreadable']:>9,}"
        for side in ("test", "train")
        if summary[f"{side}_unreadable"]
    ]
    if summary["median"] is None:
        return "\n".join([*lines, "Nothing could be compared."])
    among = f"{summary['train_rows_compared']:,} of {summary['train_rows']:,} training rows"
    lines.append(f"Similarity of the nearest training row ({summary['similarity']}; among {among}):")
    largest = max(summary["histogram"])
    for number, count in enumerate(summary["histogram"]):
        bar = "#" * round(40 * count / largest)
        lines.append(f"  {number / BINS:.1f} to {(number + 1) / BINS:.1f} {count:>9,}  {bar}".rstrip())
    return "\n".join([*lines, f"  median {summary['median']:.3f}"])


def _cells(path: str, column: str) -> Iterator[str]:
    """The column; a row that cannot be read as a whole is an empty cell, and so unreadable."""
    for chunk in iterate_table(path):
        cells = chunk.column(column, path)
        yield from ("" if row in chunk.errors else cell for row, cell in enumerate(cells))
