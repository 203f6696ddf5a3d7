"""What README tells a new user to do, in its order, on real data: the quickstart, an own table, predictions, screening."""

import csv
import json
from functools import partial

import pytest
from documents import README, blocks
from typer.testing import CliRunner

from matfm.cli import app
from matfm.tasks import quickstart
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.tables import read_table


def run(words):
    result = CliRunner().invoke(app, words, prog_name="matfm")
    assert result.exit_code == 0, (words, result.exception, result.output)
    return json.loads(result.stdout.splitlines()[-1])


def calls_under(heading):
    """The calls of matfm in the first block of a section of README."""
    line = README.read_text("utf-8").partition(f"\n## {heading}\n")[0].count("\n")
    return list(next(block for block in blocks(README) if block.line > line).calls())


def write(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([header, *rows])


@pytest.mark.network
def test_from_the_quickstart_to_screening(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as shorter:
        short = partial(quickstart.finetune.FinetuneConfig, fit=FitConfig(epochs=1.0))  # 30 take minutes
        shorter.setattr(quickstart.finetune, "FinetuneConfig", short)
        first = run(["quickstart", "--device", "cpu"])
    assert first["rows_test"] == 921
    assert first["mae"] < first["dummy_mae_this_fold"]
    assert "aflow_band_gap" in first["external_labels"]
    assert (tmp_path / first["picture"]).stat().st_size > 10_000

    gaps = read_table(str(tmp_path / "matfm-quickstart" / "data" / "matbench_expt_gap.parquet")).columns
    rows = list(zip(gaps["formula"], gaps["band_gap"], strict=True))[::7]
    write(tmp_path / "my_gaps.csv", ["formula", "gap_eV"], [*rows[:200], ("Fe(OH", "1.0")])
    write(tmp_path / "candidates.csv", ["formula"], [[formula] for formula, _ in [*rows[200:], ("Xx2O", "")]])
    known = [(formula, int(float(gap) > 2)) for formula, gap in rows[:60]]
    write(tmp_path / "known.csv", ["formula", "active"], known)

    calls = calls_under("Your own table")
    assert [words[0] for words in calls] == ["finetune", "predict", "screen"]
    trained, predicted, screened = map(run, calls)
    assert trained["rows_rejected"] == 1
    assert (tmp_path / "runs" / "my-gaps" / "card.md").is_file()
    made = read_table(str(tmp_path / "predicted.csv")).columns
    assert len(made["formula"]) == predicted["rows_in"] == len(rows) - 200 + 1
    assert made["error"][-1] == "'Xx2O' at position 0: 'Xx' is not a chemical element"
    assert all(float(low) <= float(high) for low, high in zip(
        made["predicted_gap_eV_lower"][:-1], made["predicted_gap_eV_upper"][:-1], strict=True
    ))  # fmt: skip
    hits = read_table(str(tmp_path / "hits.csv")).columns
    assert len(hits["formula"]) == 100
    gap_of = dict(rows)
    wide = [sum(float(gap_of[formula]) > 2 for formula in part) / len(part) for part in (hits["formula"], list(gap_of))]
    assert wide[0] > 1.5 * wide[1]
    assert screened["rows_in"] == predicted["rows_in"]
