"""The table of docs/reliability.md, from the committed results: `python benchmarks/fuzz/summary.py` rewrites it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import load
from benchmarks.tables import markdown
from matfm.core.files import write_text

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = Path(__file__).parent / "results" / "fuzz.jsonl"
MARKED = re.compile(r"(<!-- fuzz:start -->\n).*?(<!-- fuzz:end -->)", re.DOTALL)


def table() -> str:
    """Inputs by parser over all runs: how many, how many were read, the slowest, and unexpected exceptions."""
    records = load(RESULTS)
    rows = []
    for task in dict.fromkeys(record["task"] for record in records):
        own = [record for record in records if record["task"] == task]
        total = sum(record["n"] for record in own)
        read = sum(record["read"] for record in own)
        slowest = max(record["slowest_ms"] for record in own)
        unexpected = sum(record["value"] for record in own)
        rows.append([f"`{task}`", f"{total:,}", f"{read / total:.0%}", f"{slowest:,.0f}", str(unexpected)])
    total, read = (sum(record[key] for record in records) for key in ("n", "read"))
    slowest = max(record["slowest_ms"] for record in records)
    rows.append(
        ["**all**", f"**{total:,}**", f"{read / total:.0%}", f"{slowest:,.0f}", str(sum(r["value"] for r in records))]
    )
    return markdown(("parser", "inputs", "read", "slowest (ms)", "unexpected exceptions or more than 1 s"), rows)


def page(text: str) -> str:
    """The page with the table of the results."""
    return MARKED.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", text)


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text("utf-8")))
