"""`predict` and `embed` that were interrupted go on to the identical file."""

import numpy as np
import pyarrow as pa
import pytest

from matfm.core.files import sha256_of
from matfm.errors import MatfmError, RunError
from matfm.tasks import tables
from matfm.tasks.encoding import row_encoder
from matfm.tasks.streaming.rows import RowStream

CELLS = ["Fe", "FeO", "", "Xx", "Fe2O3", "NaCl", "CuSO4.5H2O", "Mg149", "bad", "GaN"]


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """Three rows a chunk; lengths of tokens and vectors as outputs. `fail_at` chunks computed, a run ends."""
    chunks = tables.iterate_table
    monkeypatch.setattr("matfm.tasks.streaming.rows.iterate_table", lambda name: chunks(name, 3))
    (tmp_path / "t.csv").write_text("x,n\n" + "".join(f"{cell},{n}\n" for n, cell in enumerate(CELLS)))
    computed = []

    def run(out, resume=False, fail_at=None, **begun_with):
        fields = {"length": pa.float64(), "vector": pa.list_(pa.float32(), 2)}
        if not out.endswith("parquet"):
            fields.pop("vector")
        computed.clear()

        def compute(examples, cells):
            if len(computed) == fail_at:
                raise RunError("stopped")
            computed.append(cells)
            length = np.diff(examples.tokens.offsets).astype(float) / 3
            return {"length": length, "vector": np.stack([length, -length], axis=1).astype(np.float32)}

        rows = RowStream(
            str(tmp_path / "t.csv"), "x", str(tmp_path / out), row_encoder("composition"), fields, begun_with=begun_with
        )
        return rows.run(compute, resume)

    return run, computed, tmp_path


@pytest.mark.parametrize("extension", ["csv", "jsonl", "tsv", "parquet"])
@pytest.mark.parametrize("fail_at", [0, 1, 3])
def test_resumed_output_is_identical_and_nothing_is_computed_twice(stream, extension, fail_at):
    run, computed, folder = stream
    summary = run(f"whole.{extension}")
    everything = list(computed)
    with pytest.raises(RunError):
        run(f"cut.{extension}", fail_at=fail_at)
    done = list(computed)
    assert run(f"cut.{extension}", resume=True) == summary
    assert done + computed == everything
    assert sha256_of(folder / f"cut.{extension}") == sha256_of(folder / f"whole.{extension}")
    assert sorted(path.name for path in folder.iterdir()) == sorted(["t.csv", f"cut.{extension}", f"whole.{extension}"])


def test_without_resume_a_run_begins_anew_and_with_it_only_the_same_run_goes_on(stream):
    run, computed, folder = stream
    with pytest.raises(RunError):
        run("o.csv", fail_at=2, interval=0.9)
    with pytest.raises(MatfmError, match=r"begun with another interval \(0.9, now 0.8\)"):
        run("o.csv", resume=True, interval=0.8)
    (folder / "t.csv").write_text((folder / "t.csv").read_text().replace("FeO", "FeS"))
    with pytest.raises(MatfmError, match="its first 6 rows differ"):
        run("o.csv", resume=True, interval=0.9)
    run("o.csv", interval=0.9)
    assert sum(map(len, computed)) == 7
    assert tables.read_table(str(folder / "o.csv")).columns["x"][1] == "FeS"


def test_a_damaged_journal_is_named(stream):
    run, _, folder = stream
    with pytest.raises(RunError):
        run("o.csv", fail_at=2)
    (folder / ".o.csv.unfinished" / "state.json").write_text("{")
    with pytest.raises(MatfmError, match="state.json cannot be read"):
        run("o.csv", resume=True)
