"""The contamination audit: counts by hand on small sets, and the verdicts that follow from them."""

import json

import pytest

from matfm import MatfmError
from matfm.tasks.audit import AuditConfig, markdown, may_be_scored, require_scorable, run


def pair(result, pretrain, evaluate):
    return next(p for p in result["pairs"] if (p["pretrain"], p["evaluate"]) == (pretrain, evaluate))


@pytest.fixture
def weights(tmp_path):
    """A folder that counts as one of weights."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_shares_of_compositions_and_of_labels(small_recipes, weights):
    config = AuditConfig(("oqmd_like", "mp_like"), ("bench",), str(weights))
    result = run(config)
    oqmd, mp, both = (pair(result, name, "bench") for name in ("oqmd_like", "mp_like", "all of them"))
    # NaCl and, as Fe0.5O0.5, FeO; MgO2 is not MgO
    assert (oqmd["rows"], oqmd["identical"], oqmd["identical_share"]) == (6, 2, 0.333333)
    assert (oqmd["labels"][0]["same_family"], oqmd["labels"][0]["same_label"]) == (2, 0)
    assert (mp["identical"], mp["labels"][0]["same_family"], mp["labels"][0]["same_label"]) == (1, 1, 1)  # ZnO
    assert (both["identical"], both["labels"][0]["same_label"]) == (3, 1)
    assert both["labels"][0]["seen_in"] == ["mp_like: gap", "oqmd_like: gap"]
    assert json.loads((weights / "audit.json").read_text())["pairs"] == result["pairs"]
    assert "| all of them | bench | gap (band_gap) | 6 | 50.0% | 50.0% | 16.7% |" in markdown(result)
    assert markdown(result) in (weights / "audit.md").read_text()


def test_labels_of_one_origin_forbid_a_score_and_others_are_named(small_recipes, weights):
    run(AuditConfig(("oqmd_like",), ("bench", "potency"), str(weights)))
    verdict = may_be_scored(str(weights), "bench")
    assert verdict.allowed
    assert verdict.contaminated_share == pytest.approx(1 / 3, abs=1e-6)
    assert "33.3% of the test rows of bench occur" in verdict.sentence
    assert "33.3% with a band_gap label of other origin (oqmd_like: gap)" in verdict.sentence
    assert require_scorable(str(weights), "bench", "gap") == verdict
    other_kind = may_be_scored(str(weights), "potency")
    assert other_kind.allowed
    assert other_kind.contaminated_share == 0
    run(AuditConfig(("oqmd_like", "mp_like"), ("bench",), str(weights)))
    verdict = may_be_scored(str(weights), "bench")
    assert not verdict.allowed
    assert "saw the band_gap label of 16.7% of its test rows" in verdict.sentence
    with pytest.raises(MatfmError, match="must not be scored on bench"):
        require_scorable(str(weights), "bench")


def test_only_the_labels_that_were_used_count(small_recipes, weights):
    result = run(AuditConfig(("mp_like:",), ("bench",), str(weights)))
    assert pair(result, "mp_like", "bench")["identical"] == 1
    assert may_be_scored(str(weights), "bench").allowed
    assert pair(run(AuditConfig(("mp_like:gap",), ("bench",))), "mp_like", "bench")["labels"][0]["same_label"] == 1
    with pytest.raises(MatfmError, match="mp_like has no label 'energy'; it has gap"):
        run(AuditConfig(("mp_like:energy",), ("bench",)))


def test_labels_of_a_corpus_keep_their_origin(small_recipes):
    labels = pair(run(AuditConfig(("all_formulas",), ("bench",))), "all_formulas", "bench")["labels"]
    assert (labels[0]["same_family"], labels[0]["same_label"]) == (2, 0)  # OQMD's labels only
    assert pair(run(AuditConfig(("all_formulas",), ("mp_like",))), "all_formulas", "mp_like")["identical"] == 4


def test_molecules_are_compared_by_canonical_smiles_on_test_rows(small_recipes):
    found = pair(run(AuditConfig(("flat",), ("potency",))), "flat", "potency")
    assert (found["rows"], found["identical"]) == (2, 2)
    found = pair(run(AuditConfig(("potency",), ("flat",))), "potency", "flat")
    assert (found["rows"], found["identical"]) == (1, 1)
    assert run(AuditConfig(("flat",), ("bench",)))["pairs"] == []


def test_a_table_of_unknown_origin_counts_as_the_same_labels(small_recipes, tmp_path, weights):
    table = tmp_path / "mine.csv"
    table.write_text("f,band gap,weight\nCl1Na1,5.0,1\nbad,1,2\nCuO,,1\n")
    result = run(AuditConfig((str(table),), ("bench",), str(weights), input="f"))
    assert pair(result, "mine.csv", "bench")["labels"][0]["same_label"] == 1
    assert not may_be_scored(str(weights), "bench").allowed
    reverse = pair(run(AuditConfig(("bench",), (str(table),), input="f")), "bench", "mine.csv")
    assert (reverse["rows"], reverse["identical"], [entry["rows"] for entry in reverse["labels"]]) == (2, 1, [1])
    with pytest.raises(MatfmError, match="does not say which column is the input; name it with --input"):
        run(AuditConfig((str(table),), ("bench",)))


def test_an_audit_that_is_missing_or_does_not_know_the_benchmark_says_so(small_recipes, weights):
    with pytest.raises(MatfmError, match=r"has no audit.json; run matfm data audit"):
        may_be_scored(str(weights), "bench")
    run(AuditConfig(("oqmd_like",), ("bench",), str(weights)))
    with pytest.raises(MatfmError, match="does not cover 'mp_like'; run matfm data audit --evaluate mp_like"):
        may_be_scored(str(weights), "mp_like")
    with pytest.raises(MatfmError, match="bench has no label 'energy' in the audit .*; it has gap"):
        may_be_scored(str(weights), "bench", "energy")
    (weights / "audit.json").write_text('{"format": 9}')
    with pytest.raises(MatfmError, match="has format 9; this version reads format 1"):
        may_be_scored(str(weights), "bench")
    (weights / "audit.json").write_text("[]")
    with pytest.raises(MatfmError, match="is not an audit"):
        may_be_scored(str(weights), "bench")


def test_the_audits_of_the_shipped_weights_cover_matbench_and_moleculeace():
    shares = {
        # The union corpus has every composition, without Matbench's labels.
        ("matbert-small", "matbench_expt_gap"): 1.0,
        ("matbert-small-oqmd", "matbench_expt_gap"): 0.579,
        ("molbert-small", "moleculeace_CHEMBL204_Ki"): 0.0,
        ("molbert-small", "moleculeace_CHEMBL4792_Ki"): 0.0,
        ("matbert-small-dft", "matbench_expt_gap"): 0.802,
        ("matbert-small-dft", "matbench_steels"): 0.0,
    }
    for (weights, name), share in shares.items():
        verdict = may_be_scored(weights, name)
        assert verdict.allowed
        assert verdict.contaminated_share == pytest.approx(share, abs=1e-3)
    for name in ("matbench_mp_gap", "matbench_mp_e_form", "matbench_mp_is_metal"):
        assert may_be_scored("matbert-small", name).allowed
        assert not may_be_scored("matbert-small-dft", name).allowed
