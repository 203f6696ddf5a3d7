"""README: its links lead somewhere, its numbers are those of the committed results (its code: tests/docs)."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_numbers_are_those_of_the_results_files():
    from benchmarks.readme_table import table

    inside = re.search(r"<!-- results:start -->\n(.*?)<!-- results:end -->", README, re.DOTALL)
    assert inside is not None
    assert inside.group(1) == table()


def test_results_carry_command_seed_and_versions():
    files = list((ROOT / "benchmarks").glob("*/results/*.jsonl"))
    assert files
    for path in files:
        for line in path.read_text("utf-8").splitlines():
            entry = json.loads(line)
            assert {"command", "seed", "device", "versions", "metric", "value", "unit"} <= entry.keys()
