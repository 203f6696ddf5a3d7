"""Benchmarks on tiny recipes: records by hand, refusals, and calls that are continued."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.matbench import run as matbench
from benchmarks.moleculeace import run as moleculeace
from benchmarks.pretraining import ablation, tasks
from benchmarks.results import load, matching
from benchmarks.uncertainty import run as uncertainty
from matfm import MatBERTConfig, MatfmError
from matfm.models.matbert import MatBERTForProperty
from matfm.models.saving import save_model
from matfm.tasks.audit import AuditConfig
from matfm.tasks.audit import run as run_audit
from matfm.tasks.encoding import row_encoder

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()[:24]
TINY = ["--set", "fit.epochs=1", "--device", "cpu"]


def call(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    module.main()


def weights(folder, kind):
    torch.manual_seed(0)
    tokenizer = row_encoder(kind).tokenizer
    strings = {} if kind == "composition" else {"position_embedding": "rotary", "vocab_size": len(tokenizer)}
    names = {"property_names": ["x"], "property_units": [""]}
    tokenizer.save_pretrained(str(folder))
    save_model(MatBERTForProperty(MatBERTConfig.of_size("tiny", **strings, **names)), folder, {})
    return folder


@pytest.fixture
def bench(small_recipes, tmp_path, monkeypatch):
    """`matbench_bench`: NaCl, ZnO, AlN, FeO, Cu, MgO2 on three folds; results and work in temporary folders."""
    text = (small_recipes / "bench.toml").read_text().replace('name = "bench"', 'name = "matbench_bench"')
    (small_recipes / "matbench_bench.toml").write_text(text)
    monkeypatch.setattr(matbench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(matbench, "TASKS", ("bench",))
    return weights(tmp_path / "tiny", "composition")


def test_matbench_scores_all_rows_and_those_that_pretraining_did_not_hold(bench, tmp_path, monkeypatch):
    run_audit(AuditConfig(("oqmd_like",), ("matbench_bench",), str(bench)))
    given = ["--tasks", "bench", "--folds", "0,1,2", "--backbone", str(bench), "--work", str(tmp_path / "work"), *TINY]
    call(monkeypatch, matbench, *given, "--models", "finetuned,dummy")
    call(monkeypatch, matbench, *given, "--models", "ensemble", "--ensemble", "2", "--folds", "0")
    files = sorted((tmp_path / "results").glob("bench_fold_*.jsonl"))
    entries = [entry for path in files for entry in load(path)]
    name = "tiny fine-tuned [fit.epochs=1]"
    assert {(entry["model"], entry["seed"]) for entry in entries} == {
        (name, 0), (name, 1), (f"{name} ×2", 0), ("dummy (training mean)", 0),
    }  # fmt: skip
    whole = matching(entries, task="bench", model=name, seed=0, metric="mae")
    clean = matching(entries, task="bench@clean", model=name, seed=0, metric="mae")
    assert sum(entry["n"] for entry in whole) == 6
    assert sum(entry["n"] for entry in clean) == 4  # NaCl and FeO are in the pretraining corpus
    assert sum(entry["contaminated_share"] * entry["n"] for entry in whole) == pytest.approx(2)
    assert {entry["contaminated_share"] for entry in clean} == {0.0}
    assert {entry["external_labels"] for entry in whole} == {"oqmd_like (gap)"}
    assert {entry["external_labels"] for entry in matching(entries, model="dummy (training mean)")} == {None}
    before = [path.read_bytes() for path in files]
    call(monkeypatch, matbench, *given, "--models", "finetuned,dummy")
    assert [path.read_bytes() for path in files] == before
    assert "## bench: mae (eV)" in (tmp_path / "results" / "table.md").read_text()


def test_matbench_refuses_a_backbone_that_saw_the_labels(bench, tmp_path, monkeypatch):
    run_audit(AuditConfig(("mp_like",), ("matbench_bench",), str(bench)))
    given = ["--tasks", "bench", "--folds", "0", "--backbone", str(bench), "--work", str(tmp_path / "work"), *TINY]
    with pytest.raises(MatfmError, match="must not be scored on matbench_bench"):
        call(monkeypatch, matbench, *given, "--models", "finetuned")
    assert not (tmp_path / "results").exists()


def test_unknown_names_are_said(bench, monkeypatch):
    with pytest.raises(SystemExit, match="there is no 'steel'; choose of bench"):
        call(monkeypatch, matbench, "--tasks", "steel")


@pytest.fixture
def potencies(small_recipes, tmp_path, monkeypatch):
    """`moleculeace_TINY`: 24 molecules, every fourth a test row, half of these on a cliff."""
    lines = [
        f"{smiles},{-len(smiles) / 10},{int(row % 8 == 0)},{'test' if row % 4 == 0 else 'train'}"
        for row, smiles in enumerate(SMILES)
    ]
    table = "smiles,y,cliff_mol,split\n" + "\n".join(lines) + "\n"
    (small_recipes / "tiny.csv").write_text(table)
    (small_recipes / "moleculeace_TINY.toml").write_text(
        'name = "moleculeace_TINY"\ntitle = "t"\nversion = "1"\nkind = "smiles"\nrows = 24\nlicense = "MIT"\n'
        'citation = ["Nobody (2026)"]\norigin = "chembl"\n[source]\nkind = "file"\nfile = "tiny.csv"\n'
        f'sha256 = "{hashlib.sha256(table.encode()).hexdigest()}"\n[[tables]]\nmembers = {{ all = "tiny.csv" }}\n'
        'input = "smiles"\nkeep = { cliff = "cliff_mol" }\nsplit = "split"\nsplit_from = "split"\n'
        'columns = [{ from = "y", name = "pki", property = "pki", unit = "-log10(M)", offset = 9.0 }]\n'
    )
    monkeypatch.setattr(moleculeace, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(moleculeace, "SETS", ("TINY",))
    folder = weights(tmp_path / "mol", "smiles")
    run_audit(AuditConfig(("flat",), ("moleculeace_TINY",), str(folder)))
    return folder


def test_moleculeace_scores_all_rows_and_cliffs_and_goes_on(potencies, tmp_path, monkeypatch):
    given = ["--backbone", str(potencies), "--work", str(tmp_path / "work"), "--ensemble", "1", *TINY]
    models = "dummy,kernel,kernel-stacked,frozen-ridge,finetuned,blend"
    call(monkeypatch, moleculeace, *given, "--models", models)
    path = tmp_path / "results" / "TINY.jsonl"
    entries = load(path)
    assert len(entries) == 2 * len(models.split(","))
    assert {entry["n"] for entry in matching(entries, metric="rmse")} == {6}
    assert {entry["n"] for entry in matching(entries, metric="rmse_cliff")} == {3}
    kernel, dummy = (
        matching(entries, model=moleculeace.NAMES[name], metric="rmse")[0]["value"] for name in ("kernel", "dummy")
    )
    assert kernel < dummy
    (tuned, *_) = matching(entries, model="mol fine-tuned [fit.epochs=1]")
    assert (tuned["contaminated_share"], tuned["external_labels"], tuned["unit"]) == (0.0, None, "-log10(M)")
    before = path.read_bytes()
    call(monkeypatch, moleculeace, *given, "--models", models)
    assert path.read_bytes() == before
    assert len(load(tmp_path / "results" / "overall.jsonl")) == 2 * len(models.split(","))


def test_an_ablation_pretrains_audits_and_compares(bench, tmp_path, monkeypatch):
    folder = Path.cwd()
    formulas = "Ag2O GaN Fe2O3 SiO2 BaTiO3 NaCl GaAs CdTe Fe Cu MgB2 ZnO TiO2 PbTe Bi2Te3 InP LiF CaO KBr CsI".split()
    table = "formula,gap\n" + "".join(f"{formula},{len(formula)}\n" for formula in formulas)
    (folder / "learned.csv").write_text(table)
    recipe = (folder / "bench.toml").read_text().partition("[folds]")[0].replace("bench", "learned")
    recipe = recipe.replace("rows = 6", "rows = 20").replace('origin = "mp"', 'origin = "else"')
    old = recipe.partition('sha256 = "')[2].partition('"')[0]
    (folder / "learned.toml").write_text(recipe.replace(old, hashlib.sha256(table.encode()).hexdigest()))
    base = tmp_path / "base.toml"
    base.write_text(
        '[data]\nrecipe = "learned"\ntargets = ["gap"]\nheld_out = 0.3\n[model]\nsize = "tiny"\n'
        "[train]\ntokens_per_batch = 64\n"
    )
    variants = tmp_path / "variants.toml"
    variants.write_text(
        f'base = "{base}"\n[[variant]]\nname = "property"\nset = [\'objective=[{{name="property"}}]\']\n'
        "[[variant]]\nname = \"masked\"\nset = ['data.targets=[]', 'objective=[{name=\"masked\"}]']\n"
    )
    monkeypatch.setattr(tasks, "COMPOSITIONS", ("bench",))
    given = [
        "--variants", str(variants), "--tasks", "bench", "--folds", "0", "--seeds", "0", "--finetune-epochs", "1",
        "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results"), "--device", "cpu",
    ]  # fmt: skip
    call(monkeypatch, ablation, *given)
    entries = load(tmp_path / "results" / "ablation.jsonl")
    labels = {entry["model"]: entry["external_labels"] for entry in entries}
    assert labels == {"random weights": None, "property": "learned (gap)", "masked": None}
    text = (tmp_path / "results" / "ablation.md").read_text()
    assert "| masked | property |" in text
    assert "of 1)" in text
    call(monkeypatch, ablation, *given)
    assert load(tmp_path / "results" / "ablation.jsonl") == entries


def test_coverage_is_scored_once_for_each_split(small_recipes, tmp_path, monkeypatch):
    smiles = "".join(
        f"{text},{number / 10},{'test' if number % 4 == 0 else 'train'}\n" for number, text in enumerate(SMILES)
    )
    text = (small_recipes / "potency.toml").read_text().replace('name = "potency"', 'name = "moleculeace_potency"')
    table = small_recipes / "potency.csv"
    text = text.replace(
        hashlib.sha256(table.read_bytes()).hexdigest(), hashlib.sha256(f"s,y,part\n{smiles}".encode()).hexdigest()
    )
    table.write_text(f"s,y,part\n{smiles}")
    (small_recipes / "moleculeace_potency.toml").write_text(text.replace("rows = 5", f"rows = {len(SMILES)}"))
    monkeypatch.setattr(uncertainty, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(uncertainty, "TASKS", ("potency",))
    monkeypatch.setattr(uncertainty, "SETS", ("potency",))
    tiny = weights(tmp_path / "tiny", "smiles")
    run_audit(AuditConfig(("flat",), ("moleculeace_potency",), str(tiny)))
    given = ["--tasks", "potency", "--models", "2", "--backbone", str(tiny), "--work", str(tmp_path / "work"), *TINY]
    call(monkeypatch, uncertainty, *given)
    path = tmp_path / "results" / "potency.jsonl"
    entries, before = load(path), path.read_bytes()
    by_metric = {entry["metric"]: entry for entry in entries}
    assert by_metric["coverage"]["n"] == 6
    assert 0 <= by_metric["coverage"]["value"] <= 1
    assert by_metric["width"]["value"] > 0
    assert by_metric["width"]["unit"] == "-log10(M)"
    call(monkeypatch, uncertainty, *given)
    assert path.read_bytes() == before
    assert "tiny ×2, CV+ [fit.epochs=1]" in (tmp_path / "results" / "table.md").read_text()
