"""Tables through a model: what the summary says of the rows."""

import numpy as np
import pyarrow as pa

from matfm.tasks import tables
from matfm.tasks.encoding import row_encoder
from matfm.tasks.streaming.rows import RowStream


def stream(path, cells, kind, monkeypatch, **encoder):
    (path / "t.csv").write_text("x,n\n" + "".join(f"{cell},\n" for cell in cells))
    chunks = tables.iterate_table
    monkeypatch.setattr("matfm.tasks.streaming.rows.iterate_table", lambda name: chunks(name, 3))
    fields = {"length": pa.float64()}
    rows = RowStream(str(path / "t.csv"), "x", str(path / "o.csv"), row_encoder(kind, **encoder), fields)
    return rows.run(lambda examples, _: {"length": np.diff(examples.tokens.offsets).astype(float)})


def test_the_first_row_of_every_reason_is_named(tmp_path, monkeypatch):
    summary = stream(tmp_path, ["C", "", "", "C1CC", "", "CCO", ""], "smiles", monkeypatch)
    assert (summary["rows_in"], summary["rows_done"], summary["rows_with_error"]) == (7, 2, 5)
    assert [entry["row"] for entry in summary["first_errors"]] == [1, 3]
    assert tables.read_table(str(tmp_path / "o.csv")).columns["length"] == ["3.0", "", "", "", "", "5.0", ""]


def test_cut_rows_are_counted_over_all_chunks_and_the_first_are_named(tmp_path, monkeypatch):
    cells = ["C", *["CCCCCCC"] * 8]
    summary = stream(tmp_path, cells, "smiles", monkeypatch, max_length=5)
    assert (summary["rows_truncated"], summary["first_truncated"]) == (8, [1, 2, 3, 4, 5])
    assert summary["rows_to_check"] == 0


def test_readings_to_check_are_counted_over_all_chunks_and_the_first_are_named(tmp_path, monkeypatch):
    summary = stream(tmp_path, ["Fe", *["CuSO4.5H2O"] * 8], "composition", monkeypatch)
    assert summary["rows_to_check"] == 8
    assert [entry["row"] for entry in summary["first_to_check"]] == [1, 2, 3, 4, 5]
