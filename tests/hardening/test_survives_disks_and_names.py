"""Full and read-only disks, links, names and locales: nothing half-written under the final name, nothing lost."""

import ctypes
import errno
import json
import os
from contextlib import contextmanager

import pytest

from matfm import MatfmError
from matfm.core.files import atomic_path
from matfm.errors import RunError
from matfm.tasks.tables import read_table

TABLE = "formula\nGaN\nFe2O3\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(TABLE)
    return path


@contextmanager
def without_root_rights():
    """Folders that say read-only are so, for root too: without CAP_DAC_OVERRIDE in the effective set (Linux)."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()
    if libc.capget(header, before) != 0:
        pytest.skip("the system does not tell its capabilities")
    fewer = (ctypes.c_uint32 * 6)(*before)
    fewer[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, fewer) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def test_survives_a_read_only_output_folder(trained, table, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    calls = [
        ("predict", trained.run, table, "--input", "formula", "--out", folder / "o.csv"),
        ("finetune", trained.table, *trained.options, "--out", folder / "run"),
        ("embed", trained.run, table, "--input", "formula", "--out", folder / "e.parquet"),
        ("report", trained.run, "--out", folder / "report.html"),
    ]
    with without_root_rights():
        errors = [trained.call(*call) for call in calls]
    for error in errors:
        assert "cannot be written (Permission denied); choose another place" in str(error)
        assert error.exit_code == 2
    assert list(folder.iterdir()) == []


def test_survives_a_disk_that_fills_up_while_training(trained, start, tmp_path):
    """Files may not grow, as on a full disk, and weights are the first too large. The same call goes on when there is room."""
    arguments = [
        "finetune",
        trained.table,
        *trained.options,
        "--out",
        tmp_path / "run",
        "--set",
        "fit.checkpoint_every=1",
    ]
    code, _, errors = start(arguments, size=60_000).end()
    assert code == 1, errors
    assert errors.strip().splitlines()[-1].startswith("matfm: the disk is full: ")
    names = {path.name for path in (tmp_path / "run").rglob("*")}
    assert "model.safetensors" not in names
    assert not any(name.endswith(".tmp") or name.startswith((".saving", ".lock")) for name in names)
    assert trained.call(*arguments, "--resume")["rows_used"] == 24


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.parquet"])
def test_survives_a_disk_that_fills_up_while_writing_a_table(trained, tmp_path, monkeypatch, name):
    table, out = tmp_path / "t.csv", tmp_path / name
    table.write_text(TABLE)
    out.write_text("kept")
    real = os.fsync

    def full(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tmp") and "unfinished" not in os.readlink(
            f"/proc/self/fd/{descriptor}"
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    error = trained.call("predict", trained.run, table, "--input", "formula", "--out", out)
    assert "the disk is full" in str(error)
    assert error.exit_code == 1
    assert out.read_text() == "kept"
    monkeypatch.undo()
    assert trained.call("predict", trained.run, table, "--input", "formula", "--out", out, "--resume")["rows_in"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["t.csv", name])


def test_survives_a_device_that_is_full(trained, table):
    error = trained.call("predict", trained.run, table, "--input", "formula", "--out", "/dev/full/o.csv")
    assert "/dev/full" in str(error)

    def write_to_a_full_device():
        with atomic_path(table.parent / "x") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("x")

    with pytest.raises(RunError, match="the disk is full"):
        write_to_a_full_device()
    assert not (table.parent / "x").exists()


def test_survives_symbolic_links_as_input_and_output(trained, table, tmp_path):
    real = tmp_path / "large disk"
    real.mkdir()
    (tmp_path / "in.csv").symlink_to(table)
    (tmp_path / "out.csv").symlink_to(real / "out.csv")
    assert trained.call(
        "predict", trained.run, tmp_path / "in.csv", "--input", "formula", "--out", tmp_path / "out.csv"
    )
    assert (tmp_path / "out.csv").is_symlink()
    assert [path.name for path in real.iterdir()] == ["out.csv"]
    assert read_table(str(tmp_path / "out.csv")).columns["formula"] == ["GaN", "Fe2O3"]
    error = trained.call("predict", trained.run, table, "--input", "formula", "--out", tmp_path / "in.csv")
    assert "is the table that is read" in str(error)
    assert table.read_text() == TABLE


def test_survives_links_in_a_circle(trained, table, tmp_path):
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    loop = tmp_path / "loop.csv"
    error = trained.call("predict", trained.run, loop, "--input", "formula", "--out", tmp_path / "o.csv")
    assert "is not a file" in str(error)
    trained.call("predict", trained.run, table, "--input", "formula", "--out", loop)  # the link leads nowhere else
    assert read_table(str(loop)).columns["formula"] == ["GaN", "Fe2O3"]
    assert table.read_text() == TABLE


NAMES = {
    "blanks and other scripts": "a table of Bandlücken_带隙_عربي",
    "a leading dash, quotes and newline": '-rf it\'s "new"\nline',
    "bytes that are no UTF-8": os.fsdecode(b"caf\xe9"),
}


@pytest.mark.parametrize("what", NAMES)
def test_survives_names_with(what, trained, tmp_path):
    name = NAMES[what]
    table, run, out = (tmp_path / f"{name}{ending}" for ending in (".csv", " run", ".out.csv"))
    if what == "bytes that are no UTF-8":
        error = trained.call("finetune", trained.table, *trained.options, "--out", run)
        assert str(error).endswith("is no name in UTF-8; choose another --out")
        assert list(tmp_path.iterdir()) == []
        run, out = tmp_path / "run", tmp_path / "out.csv"
    table.write_bytes(trained.table.read_bytes())
    summary = trained.call("finetune", table, *trained.options, "--out", run)
    assert json.loads((run / "summary.json").read_text()) == summary
    assert json.loads((run / "config.json").read_text())["run"]["table"] == str(table)
    assert trained.call("predict", run, table, "--input", "formula", "--out", out)["rows_predicted"] == 24
    assert trained.call("finetune", table, *trained.options, "--out", run, "--resume") == summary
    assert "report" in trained.call("report", run)["task"]


def test_survives_a_name_that_is_too_long(trained, table, tmp_path):
    error = trained.call("predict", trained.run, table, "--input", "formula", "--out", tmp_path / f"{'x' * 260}.csv")
    assert "name too long" in str(error)


def test_survives_a_terminal_without_letters(trained, start, tmp_path):
    """ASCII only, and a name with a leading dash behind `--`: the summary is still JSON."""
    (tmp_path / "-Bandlücken.csv").write_text("formula,Lücke\nGaN,Å\n")
    arguments = ["predict", trained.run, "--input", "formula", "--out", "Größe.csv", "--", "-Bandlücken.csv"]
    before = f"import os, sys\nos.chdir({str(tmp_path)!r})\nsys.stdout.reconfigure(encoding='ascii')"
    code, output, errors = start(arguments, before).end()
    assert code == 0, errors
    assert output.isascii()
    assert json.loads(output.splitlines()[-1])["out"] == "Größe.csv"
    assert read_table(str(tmp_path / "Größe.csv")).columns["Lücke"] == ["Å"]


def test_a_folder_where_a_file_should_be_is_named(trained, table, tmp_path):
    (tmp_path / "o.csv").mkdir()
    error = trained.call("predict", trained.run, table, "--input", "formula", "--out", tmp_path / "o.csv")
    assert isinstance(error, MatfmError)
    assert "cannot be written (Is a directory)" in str(error)
