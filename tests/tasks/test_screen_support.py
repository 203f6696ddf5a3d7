"""What a screening says of its support, and which rows it proposes to label next."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from matfm import FewShotScreener
from matfm.errors import MatfmError
from matfm.models.matbert import MatBERTModel
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.saving import save_model
from matfm.tasks import screen
from matfm.tasks.few_shot.support_report import SupportSet, support_report
from matfm.tasks.screen import ScreenConfig
from matfm.tasks.screening.library_distances import SAMPLE, DistanceTally
from matfm.tasks.screening.next_rows import Selection
from matfm.tasks.screening.top_rows import random_keys
from matfm.tasks.tables import read_table

KNOWN = ["Li2O", "MgO", "OMg", "FeS", "GaN", "Li1O1"]
GAPS = [5.5, 7.8, 7.0, 0.1, 3.4, 2.0]
METALS = ("Li", "Mg", "Fe", "Ga")
LIBRARY = [f"{a}{n}{b}" for a in METALS for b in ("O", "S", "N") for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbone")
    save_model(MatBERTModel(MatBERTConfig.of_size("tiny")), folder, {})
    return str(folder)


@pytest.fixture
def call(tmp_path, backbone, monkeypatch):
    monkeypatch.setattr("matfm.tasks.screening.library.CHUNK_ROWS", 7)
    rows = [f"{formula},{formula[:2]}" for formula in [*LIBRARY[:4], "bad!", *LIBRARY[4:]]]
    (tmp_path / "l.csv").write_text("f,metal\n" + "\n".join(rows) + "\n")
    (tmp_path / "s.csv").write_text("f,y\n" + "\n".join(f"{f},{y}" for f, y in zip(KNOWN, GAPS, strict=True)) + "\n")

    def made(**options):
        known = {"backbone": backbone, "top": 5, "workers": 1, "device": "cpu", "out": str(tmp_path / "o.csv")}
        return ScreenConfig(str(tmp_path / "l.csv"), str(tmp_path / "s.csv"), "f", "y", **{**known, **options})

    return made


def test_the_report_of_a_stream_is_that_of_a_library_in_memory(call, backbone):
    config = call()
    summary = screen.run(config)
    library = read_table(config.library).columns["f"]
    expected = FewShotScreener(backbone, device="cpu").fit(KNOWN, GAPS).report(library).to_json()
    assert summary["support"] == json.loads(Path(config.report).read_text())
    for name, value in expected.items():
        if isinstance(value, dict):
            assert summary["support"][name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
        elif name == "farthest":
            assert len(set(value) & set(summary["support"][name])) >= 8  # equally far ones may change places
        else:
            assert summary["support"][name] == pytest.approx(value, rel=1e-4), name
    assert (summary["support"]["duplicates"], summary["support"]["conflicts"]) == (1, 1)
    assert summary["support"]["values"] == {"0": 0.1, "0.5": 4.45, "1": 7.8}
    assert summary["support"]["in_library"] == 6
    assert 4 not in summary["support"]["farthest"], "the row that cannot be read"
    told = screen.told(summary)
    assert "6 examples (labels 0.1 to 7.8, median 4.45); 1 copies, 1 of them with another label" in told
    assert "% of 36 rows" in told


def test_an_empty_library_has_no_coverage(call):
    config = call()
    Path(config.library).write_text("f,metal\n")
    summary = screen.run(config)
    assert (summary["support"]["coverage"], summary["support"]["library_rows"]) == (None, 0)
    assert "library" not in screen.told(summary).splitlines()[-1].split(":")[0]


def test_a_tally_is_exact_but_for_quantiles_and_independent_of_chunks():
    generator = np.random.default_rng(0)
    support_SD, library_LD = generator.normal(size=(20, 3)), generator.normal(size=(6000, 3)) * 1.5
    library_LD[5999] = support_SD[3]
    exact = support_report(support_SD, np.arange(20) % 2, library_LD)
    found = []
    for chunk in (6000, 700):
        support = SupportSet.of(support_SD)
        tally = DistanceTally(support)
        for start in range(0, 6000, chunk):
            numbers = np.arange(start, min(start + chunk, 6000))
            tally.add(numbers, *support.measure(library_LD[numbers]))
            state = json.loads(json.dumps(tally.state()))
            tally = DistanceTally.of_state(support, state)
        found.append(support.report(np.arange(20) % 2, tally.result(), numbers=False))
    assert found[0] == found[1]
    assert found[0].quantile_rows == SAMPLE
    for name in ("coverage", "in_library", "library_rows", "classes", "duplicates", "support_distance", "farthest"):
        assert getattr(found[0], name) == getattr(exact, name), name
    assert found[0].library_distance["1"] == exact.library_distance["1"]
    apart = support.measure(library_LD)[0]
    for level in (0.1, 0.5, 0.9):  # four standard errors of a quantile's rank
        rank = (apart <= found[0].library_distance[f"{level:g}"]).mean()
        assert rank == pytest.approx(level, abs=4 * (level * (1 - level) / SAMPLE) ** 0.5)
    assert exact.in_library == 1


def test_random_keys_are_uniform_and_of_the_row_alone():
    keys = random_keys(np.arange(100_000))
    assert keys.min() >= 0
    assert keys.max() < 1
    counts = np.bincount((keys * 20).astype(int), minlength=20)
    assert ((counts - 5000) ** 2 / 5000).sum() < 55, "chi square of 19 degrees of freedom"
    assert abs(np.corrcoef(keys[:-1], keys[1:])[0, 1]) < 0.02
    np.testing.assert_array_equal(random_keys(np.array([7, 99])), keys[[7, 99]])


@pytest.mark.parametrize("select", ["most-uncertain", "medoids", "stratified:metal"])
def test_rows_to_label_next_are_new_and_unlike_each_other(call, tmp_path, select):
    summary = screen.run(call(label_next=4, select=select, out=str(tmp_path / "o.csv.gz")))
    assert summary["rows_to_label"] == 4
    table = read_table(str(tmp_path / "o.next.csv.gz")).columns
    assert "rank" not in table
    assert not set(table["f"]) & {"Li1O", "Mg1O", "Fe1S", "Ga1N", "Li2O"}, "they have a label"
    assert len(set(table["f"])) == 4
    if select == "stratified:metal":
        assert sorted(table["metal"]) == sorted(METALS)
    if select == "most-uncertain":
        uncertainty = [float(value) for value in table["uncertainty"]]
        assert uncertainty == sorted(uncertainty, reverse=True)


def test_more_groups_than_rows_and_fewer_rows_than_asked_for():
    vectors, groups = np.random.default_rng(0).normal(size=(12, 3)), list("aaaaabbbbccd")
    for count, expected in ((2, {"a", "b"}), (4, set("abcd")), (20, set("abcd"))):
        chosen = Selection(count, "stratified:g").choose(vectors, np.zeros(12), groups)
        assert {groups[row] for row in chosen} == expected
        assert len(chosen) == min(count, 12)


def test_wrong_calls_are_named(call):
    with pytest.raises(MatfmError, match="--next is 0; choose at least one row"):
        call(label_next=0)
    with pytest.raises(MatfmError, match="--select is 'best'; choose one of most-uncertain, medoids"):
        call(select="best")
    with pytest.raises(MatfmError, match="no column 'phase'"):
        screen.run(call(label_next=2, select="stratified:phase"))
    with pytest.raises(MatfmError, match="choose another name"):
        call(label_next=2, keep_bad=call(label_next=2).next_rows)
