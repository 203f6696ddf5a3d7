"""What `matfm doctor` says of an installation and a machine, healthy and broken."""

import importlib
import json
import struct
from importlib import metadata

import pytest
import torch
from typer.testing import CliRunner

from matfm import MatfmError
from matfm.cli import app
from matfm.core.bundled import MODEL_FILE, WEIGHTS, bundled_names
from matfm.errors import RunError
from matfm.tasks import doctor, machine

SHORT = doctor.DoctorConfig(seconds=0.01)


def problems(summary):
    return {problem["what"]: problem for problem in summary["problems"]}


def test_a_healthy_machine_is_described_on_both_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "matmul_rate", lambda device, dtype, seconds: 100.0)
    result = CliRunner().invoke(app, ["doctor", "--out", str(tmp_path), "--cache", str(tmp_path / "none")])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["healthy"]
    assert set(doctor.ESSENTIAL) < set(summary["versions"])
    assert set(summary["weights"]) == set(bundled_names())
    assert summary["cache"] == {"folder": str(tmp_path / "none"), "fault": None, "size_mib": 0.0}
    assert ["torch", metadata.version("torch")] in [line.split() for line in result.stderr.splitlines()]
    assert "100 GFLOP/s in float32" in result.stderr


def test_rates_are_measured():
    assert machine.matmul_rate(torch.device("cpu"), torch.float32, 0.01) > 0.01


def test_a_package_that_cannot_be_imported_breaks_it(monkeypatch):
    original = importlib.import_module

    def broken(name):
        if name == "selfies":
            raise ImportError("libx.so.1: cannot open shared object file")
        return original(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    versions, found = doctor._versions()
    assert "selfies" not in versions
    (problem,) = found
    assert problem.essential
    assert problem.what == "selfies cannot be imported: libx.so.1: cannot open shared object file"
    assert problem.remedy == "pip install --force-reinstall selfies"


def test_broken_things_are_named_with_exit_code_1(monkeypatch, tmp_path):
    broken = doctor.Problem("no weights", "install", essential=True)
    monkeypatch.setattr(doctor, "_machine", lambda summary, config: [])
    monkeypatch.setattr(doctor, "_of_weights", lambda faults: [broken])
    result = CliRunner().invoke(app, ["doctor"])
    assert isinstance(result.exception, RunError)
    assert (str(result.exception), result.exception.exit_code) == ("no weights", 1)
    assert not json.loads(result.stdout)["healthy"]
    assert "BROKEN: no weights" in result.stderr


def test_damaged_weights_are_found_by_their_header(tmp_path):
    whole = (WEIGHTS / bundled_names()[0] / MODEL_FILE).read_bytes()
    cases = {
        "whole": (whole, None),
        "cut": (whole[:-5], f"it should have {len(whole)} bytes and has {len(whole) - 5}"),
        "short": (whole[:20], f"its header should have {struct.unpack('<Q', whole[:8])[0]} bytes and the file has 20"),
        "empty": (b"", "its header cannot be read"),
        "text": (struct.pack("<Q", 4) + b"null", "its header cannot be read"),
    }
    for name, (content, fault) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert doctor.weights_fault(path) == fault
    assert doctor.weights_fault(tmp_path / "absent") == "No such file or directory"
    assert doctor._of_weights({"a": "cut"})[0].essential
    assert doctor._of_weights({})[0].what == "no weights are installed with matfm"


def test_extras_say_how_they_are_installed(monkeypatch):
    required = [
        "torch>=2.9",
        'optuna>=5.0; extra == "tune"',
        "numpy>=1; extra == 'validity'",
        "smact-that-is-not-there>=4; extra == 'validity'",
        "pytest>=8; extra == 'test'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: required)
    monkeypatch.setattr(doctor, "_version", lambda name: None if "not-there" in name else "1.0")
    found = doctor.extras()
    assert found["tune"] == {"installed": True, "packages": {"optuna": "1.0"}}
    assert found["validity"]["install"] == "pip install 'matfm[validity]'"
    assert set(found) == {"tune", "validity"}


CORES = {"machine": 4, "available": 4, "quota": None, "load": 0.5, "threads": 4, "omp_num_threads": None}


@pytest.mark.parametrize(
    ("cores", "said", "remedy"),
    [
        ({}, None, None),
        ({"threads": 8}, "torch uses 8 threads and this process may use 4", "OMP_NUM_THREADS=4"),
        ({"quota": 1.5}, "may use 1.5 core", "OMP_NUM_THREADS=1"),
        ({"load": 9.0}, "the load is 9.0 on 4", "wait for them"),
        ({"load": None}, None, None),
    ],
)
def test_cores(cores, said, remedy):
    found = doctor._of_cores({**CORES, **cores})
    assert len(found) == (said is not None)
    if said is not None:
        assert said in found[0].what
        assert remedy in found[0].remedy


def test_devices_and_space():
    rates = {"float32": 50.0, "bfloat16": 20.0}
    summary = {"matmul_gflops": rates, "accelerators": {"cuda_build": "12.8", "cuda": False}}
    gpu, bfloat = doctor._of_device(summary)
    assert gpu.what == "torch is built for CUDA 12.8 and finds no GPU"
    assert "20 and 50 GFLOP/s" in bfloat.what
    summary = {
        "out": {"folder": "runs", "fault": "Read-only file system", "free_gib": 0.5},
        "cache": {"folder": "cache", "fault": "Permission denied"},
        "memory": {"free_gib": 0.3},
    }
    out, cache, memory, disk = doctor._of_space(summary)
    assert out.essential
    assert [problem.essential for problem in (cache, memory, disk)] == [False] * 3
    assert "MATFM_CACHE" in cache.remedy


def test_a_container_limits_cores_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine._cpu_quota() is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    assert machine._cpu_quota() == 1.5
    assert machine.memory() == {"free_gib": 0.5, "total_gib": 1.0}
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine._cpu_quota() is None
    assert machine.memory()["total_gib"] != 1.0


def test_folders(tmp_path):
    assert machine.writable(tmp_path / "not" / "yet" / "there") is None
    assert not (tmp_path / "not").exists()
    file = tmp_path / "file"
    file.write_bytes(b"x" * 2**20)
    assert machine.writable(file) == "Not a directory"
    assert machine.size_mib(tmp_path) == 1.0
    assert machine.disk_free_gib(tmp_path / "not") > 0


def test_a_wrong_time_is_refused():
    with pytest.raises(MatfmError, match="seconds is 0"):
        doctor.DoctorConfig(seconds=0)
    assert metadata.version("matfm")
