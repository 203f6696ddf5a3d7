"""Every script of the benchmarks starts, and records of one model's weights are not taken for another's."""

import argparse
import importlib
from pathlib import Path

import pytest

import benchmarks
from benchmarks.adaptation.summary import beyond_labels, compared
from benchmarks.contamination import Pretraining
from benchmarks.generation_tables import Measured, over_seeds, recorded
from benchmarks.results import append, load, record
from benchmarks.weights import weights_of
from matfm import MatBERTConfig, MatBERTModel, MatfmError

ROOT = Path(benchmarks.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if path.stem not in ("__init__", "with_atheris")
)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_imported(name):
    importlib.import_module(name)


def test_weights_are_told_apart_by_their_numbers(tmp_path):
    for folder in ("one", "copy", "other"):
        model = MatBERTModel(MatBERTConfig.of_size("tiny"))
        for value in model.parameters():
            value.data.fill_(len(folder))
        model.save_pretrained(tmp_path / folder)
    one, copy, other = (weights_of(str(tmp_path / folder)) for folder in ("one", "copy", "other"))
    assert len(one) == 12
    assert len({one, copy, other}) == 3
    assert weights_of("scratch:small") is None
    assert weights_of("matbert-small") == weights_of("matbert-small")


def test_a_second_edition_under_the_same_name_is_measured_anew(tmp_path):
    arguments = argparse.Namespace(results=tmp_path / "r.jsonl", seeds="0,1", device="cpu")
    calls = []

    def measure(seed):
        calls.append(seed)
        return {"valid": 0.5 + 0.1 * len(calls)}

    first, second = Measured("m", 10, "aaa"), Measured("m", 10, "bbb")
    for measured in (first, first, second):
        over_seeds(arguments, measured, measure, benchmark="b", task="t")
    assert calls == [0, 1, 0, 1]
    assert recorded(arguments.results, first, "mean", "valid") == pytest.approx(0.65)
    assert recorded(arguments.results, second, "mean", "valid") == pytest.approx(0.85)
    assert len(load(arguments.results)) == 6


def test_alignment_is_compared_with_the_same_labels_without_it(tmp_path):
    values = {("s@0", "none"): 1.0, ("s@20", "joint"): 0.6, ("s@20", "dann"): 0.7, ("s@0", "dann"): 0.9}
    for (task, model), value in values.items():
        for seed in range(3):
            common = {"task": task, "model": model, "split": seed, "n": 10, "source_rows": 40}
            append(tmp_path / "r.jsonl", record("cpu", seed, **common, value=value + 0.01 * seed * len(model)))
    entries = load(tmp_path / "r.jsonl")
    assert compared("s@20", "dann", entries).difference == pytest.approx(-0.3)
    assert beyond_labels("s@20", "dann", entries).difference == pytest.approx(0.1 - 0.01)
    assert beyond_labels("s@20", "joint", entries) is None
    assert beyond_labels("s@0", "dann", entries) is None


def test_labels_of_a_family_that_pretraining_saw_are_refused():
    with pytest.raises(MatfmError, match="family of bulk_modulus of aflow"):
        Pretraining("matbert-small").refuse_family("bulk_modulus", "aflow")
    Pretraining("matbert-small-oqmd").refuse_family("bulk_modulus", "aflow")
