"""SIGKILL in the middle of `matfm screen`: the resumed run writes the identical files."""

import json
import signal

import pytest
import torch
from command_processes import Command

from matfm.core.files import sha256_of
from matfm.models.matbert import MatBERTModel
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.saving import save_model
from matfm.tasks import screen

METALS, OTHERS = ("Li", "Na", "K", "Mg", "Ca", "Fe", "Zn", "Ti", "Al", "Ga"), ("O", "S", "Se", "N", "F")


def library(path):
    rows = [f"{a}{n}{b}{m}" for n in range(1, 29) for m in range(1, 29) for a in METALS for b in OTHERS]
    rows[12_345] = "Xx"
    path.write_text("formula\n" + "\n".join(rows) + "\n")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_screening_is_resumed_to_identical_files(tmp_path):
    torch.manual_seed(0)
    save_model(MatBERTModel(MatBERTConfig.of_size("tiny")), tmp_path / "backbone", {})
    library(tmp_path / "l.csv")
    (tmp_path / "s.csv").write_text("formula,gap\nLi2O,5.5\nMgO,7.8\nFeS,0.1\nGaN,3.4\n")
    common = {"library": str(tmp_path / "l.csv"), "support": str(tmp_path / "s.csv"), "input": "formula", "label": "gap",
              "backbone": str(tmp_path / "backbone"), "device": "cpu", "workers": 1}  # fmt: skip
    options = ["--support", common["support"], "--input", "formula", "--label", "gap", "--backbone", common["backbone"],
               "--device", "cpu", "--workers", "1", "--out", str(tmp_path / "cut.csv")]  # fmt: skip
    state = tmp_path / ".cut.csv.unfinished" / "state.json"
    assert Command(["screen", common["library"], *options]).killed_when(state.is_file)
    done = json.loads(state.read_text())["rows"]
    assert 0 < done < 39_200
    screen.run(screen.ScreenConfig(**common, out=str(tmp_path / "whole.csv")))
    summary = screen.run(screen.ScreenConfig(**common, out=str(tmp_path / "cut.csv")), resume=True)
    assert (summary["rows_in"], summary["rows_with_error"]) == (39_200, 1)
    for name in ("csv", "rejects.csv"):
        assert sha256_of(tmp_path / f"cut.{name}") == sha256_of(tmp_path / f"whole.{name}")
