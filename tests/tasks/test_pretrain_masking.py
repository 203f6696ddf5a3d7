"""Pretraining with every masking scheme of formulas, from the settings of the command line to a finished run."""

import json

import pytest

from matfm import MatfmError
from matfm.core.config import apply_overrides, from_mapping
from matfm.tasks.pretrain import PretrainConfig, run


def configuration(table, *settings):
    values = {
        "data": {"targets": ["gap"], "table": str(table), "held_out": 0.3},
        "model": {"size": "tiny"},
        "train": {"epochs": 2.0, "tokens_per_batch": 60, "evaluations": 1},
        "device": "cpu",
    }
    return from_mapping(PretrainConfig, apply_overrides(values, settings), "--set")


@pytest.mark.parametrize("scheme", ["uniform", "span", "element_group"])
def test_schemes_run_and_are_saved(scheme, small_table, tmp_path):
    config = configuration(
        small_table, f"masking.scheme={scheme}", "masking.replacement=class", 'masking.groups.late=["Cu", "Zn"]'
    )
    assert config.masking.groups == {"late": ("Cu", "Zn")}
    summary = run(config, tmp_path / "run")
    assert summary["rows_used"] == 75
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["run"]["masking"]
    assert (saved["scheme"], saved["replacement"], saved["groups"]) == (scheme, "class", {"late": ["Cu", "Zn"]})


def test_a_scheme_for_molecules_is_refused_before_anything_is_read(small_table):
    with pytest.raises(MatfmError, match=r"masking.scheme is 'ring', which needs molecules; formulas take uniform"):
        configuration(small_table, "masking.scheme=ring")
    with pytest.raises(MatfmError, match=r"masking.groups: element group 'late' names 'Qq'"):
        configuration(small_table, 'masking.groups.late=["Qq"]')
