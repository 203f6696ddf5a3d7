"""`matfm generate`: rows, reasons, filters, constraints, resuming and properties, with tiny random models."""

import json

import numpy as np
import pytest
import torch
from rdkit import Chem
from typer.testing import CliRunner

from matfm import (
    CompositionTokenizer,
    MatBERTConfig,
    MatBERTForProperty,
    MatfmError,
    MatGPTConfig,
    MatGPTForCausalLM,
    SelfiesTokenizer,
    SmilesTokenizer,
    parse_formula,
    smiles_to_selfies,
)
from matfm.chem.composition_validity import charge_neutral
from matfm.cli import app
from matfm.errors import RunError
from matfm.tasks import generate
from matfm.tasks.generate import GenerateConfig
from matfm.tasks.generation.generator import Generator
from matfm.tasks.tables import read_table

TOKENIZERS = {
    "composition": lambda: CompositionTokenizer(scheme="count", order="electronegativity"),
    "smiles": SmilesTokenizer,
    "selfies": SelfiesTokenizer,
}

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "C#N", "CC(C)C", "OCC=C", "FC(F)F"]
TEXTS = {
    "composition": ["Li2O", "Fe2O3", "LiFePO4", "NaCl", "BaTiO3", "FeNi3", "GaAs", "Cu"],
    "smiles": SMILES,
    "selfies": [smiles_to_selfies(text) for text in SMILES],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of generators by kind, which know eight texts by heart."""
    folders = {}
    for kind, make in TOKENIZERS.items():
        tokenizer, folder = make(), tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        model = MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=len(tokenizer)))
        batch = tokenizer(TEXTS[kind], padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(25):
            optimizer.zero_grad()
            model(batch["input_ids"], batch["attention_mask"], labels).loss.backward()
            optimizer.step()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[kind] = str(folder)
    return folders


def generated(models, tmp_path, kind="composition", resume=False, **options):
    options = {"n": 40, "max_length": 12, "device": "cpu", "batch_size": 16, **options}
    config = GenerateConfig(models[kind], out=str(tmp_path / "out.csv"), **options)
    summary = generate.run(config, resume)
    return read_table(config.out).columns, summary


def test_every_sample_is_a_row_with_its_reason(models, tmp_path):
    columns, summary = generated(models, tmp_path, n=60, temperature=3.0)
    assert list(columns) == [
        "sample", "formula", "canonical", "valid", "charge_neutral", "electronegativity_balanced", "unique",
        "log_probability", "error",
    ]  # fmt: skip
    assert columns["sample"] == [str(number) for number in range(60)]
    valid = [cell == "True" for cell in columns["valid"]]
    assert [error == "" for error in columns["error"]] == valid
    assert summary["rows_written"] == summary["drawn"] == 60
    assert summary["n_valid"] == sum(valid)
    assert sum(summary["invalid_by_reason"].values()) == 60 - sum(valid)
    assert "longer than the limit of tokens" in summary["invalid_by_reason"]
    assert all(float(cell) < 0 for cell in columns["log_probability"])
    assert not (tmp_path / "out.csv.parts").exists()


def test_constraints_hold_for_every_row(models, tmp_path):
    columns, summary = generated(
        models, tmp_path, elements=("Li", "Fe", "P", "O"), require=("Fe",), min_elements=2, max_elements=3,
        max_atoms=12, charge_neutral=True, alloys=False,
    )  # fmt: skip
    assert summary["valid"] == summary["charge_neutral"] == 1.0
    for formula in columns["formula"]:
        amounts = parse_formula(formula).amounts
        assert {"Fe"} <= set(amounts) <= {"Li", "Fe", "P", "O"}
        assert 2 <= len(amounts) <= 3
        assert sum(amounts.values()) <= 12
        assert charge_neutral(formula, alloys=False)


def test_a_short_limit_still_lets_constrained_compositions_end(models, tmp_path):
    columns, summary = generated(models, tmp_path, charge_neutral=True, max_length=4)
    assert summary["valid"] == 1.0
    assert all(len(parse_formula(formula).amounts) == 1 for formula in columns["formula"])


def test_a_prompt_begins_every_row_and_constraints_continue_it(models, tmp_path):
    columns, _ = generated(models, tmp_path, prompt="Li2Fe", charge_neutral=True)
    assert all(formula.startswith("Li2Fe") for formula in columns["formula"])
    columns, _ = generated(models, tmp_path, "smiles", prompt="c1ccccc1", max_atoms=8, elements=("C", "O"))
    assert all(text.startswith("c1ccccc1") for text in columns["smiles"])
    with pytest.raises(MatfmError, match="the prompt 'LiCl' breaks the constraints"):
        generated(models, tmp_path, prompt="LiCl", elements=("Li", "O"))
    with pytest.raises(MatfmError, match="has tokens that smiles models do not know"):
        generated(models, tmp_path, "smiles", prompt="[Xx]")


def test_only_what_is_asked_for_is_kept_and_the_rest_is_counted(models, tmp_path):
    known = tmp_path / "known.csv"
    known.write_text("formula\nLi2O\nFe\nnonsense?\nFe2O3\n")
    columns, summary = generated(
        models, tmp_path, n=8, elements=("Li", "Fe", "O"), max_atoms=4, novel_to=str(known),
        only=("valid", "unique", "novel"), temperature=5.0,
    )  # fmt: skip
    assert len(set(columns["canonical"])) == len(columns["canonical"]) == summary["rows_written"] == 8
    assert not {"Li2O", "Fe", "Fe2O3"} & set(columns["canonical"])
    assert set(columns["novel"]) == {"True"}
    assert summary["drawn"] == 8 + sum(summary["left_out_by_reason"].values())
    assert set(summary["left_out_by_reason"]) <= {"seen before", "known"}
    assert summary["novel_to_rows_with_error"] == 1
    few, summary = generated(models, tmp_path, n=50, elements=("Fe",), max_atoms=1, only=("unique",), max_draws=60)
    assert few["formula"] == ["Fe"]
    assert summary["drawn"] == 60
    assert summary["left_out_by_reason"] == {"seen before": 59}


def test_selfies_are_valid_and_substructures_are_found(models, tmp_path):
    columns, summary = generated(models, tmp_path, "selfies", n=80, substructure="[#7]", max_length=30)
    assert {"selfies", "smiles", "substructure"} <= set(columns)
    for valid, error, smiles, found in zip(
        *(columns[name] for name in ("valid", "error", "smiles", "substructure")), strict=True
    ):
        assert (valid == "True") == (error == "") == (smiles != "") == (found != "")
        if found:
            assert (found == "True") == any(atom.GetSymbol() == "N" for atom in Chem.MolFromSmiles(smiles).GetAtoms())
    assert summary["valid"] > 0.2
    assert {"True", "False"} <= set(columns["substructure"])


def test_an_interrupted_run_goes_on_to_the_same_table(models, tmp_path, monkeypatch):
    monkeypatch.setattr("matfm.tasks.generation.config.CHUNK", 16)
    whole, summary = generated(models, tmp_path)
    (tmp_path / "again").mkdir()
    draw, calls = Generator.draw, []

    def stopped(self, first, count):
        calls.append(first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(self, first, count)

    monkeypatch.setattr(Generator, "draw", stopped)
    with pytest.raises(RunError, match="go on with the same call and --resume"):
        generated(models, tmp_path / "again")
    assert not (tmp_path / "again" / "out.csv").exists()
    with pytest.raises(MatfmError, match="continue it with --resume"):
        generated(models, tmp_path / "again")
    with pytest.raises(MatfmError, match="was begun with another seed"):
        generated(models, tmp_path / "again", resume=True, seed=1)
    resumed, again = generated(models, tmp_path / "again", resume=True)
    assert calls == [0, 16, 32, 32]
    assert resumed == whole
    assert {**again, "out": "", "seconds": 0} == {**summary, "out": "", "seconds": 0}


def test_properties_of_valid_rows_are_those_of_predict(models, tmp_path):
    torch.manual_seed(0)
    names = {"property_names": ["band_gap"], "property_units": ["eV"]}
    run = tmp_path / "run"
    MatBERTForProperty(MatBERTConfig.of_size("tiny", **names)).save_pretrained(run)
    CompositionTokenizer().save_pretrained(run)
    columns, _ = generated(models, tmp_path, predict=str(run), elements=("Li", "O", "Cl"))
    assert all(np.isfinite(float(cell)) for cell in columns["predicted_band_gap"])
    table, out = tmp_path / "out.csv", tmp_path / "predicted.csv"
    call = ["predict", str(run), str(table), "--input", "canonical", "--out", str(out), "--device", "cpu"]
    assert CliRunner().invoke(app, call).exit_code == 0
    expected = read_table(str(out)).columns["predicted_band_gap"]
    np.testing.assert_allclose(
        np.array(columns["predicted_band_gap"], float), np.array(expected, float), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(MatfmError, match="reads composition, but the model writes smiles"):
        generated(models, tmp_path, "smiles", predict=str(run))


def test_the_command_prints_its_summary_and_writes_parquet(models, tmp_path):
    out = tmp_path / "made.parquet"
    call = ["generate", models["composition"], "--n", "7", "--out", str(out), "--elements", "Li, Fe,O", "--seed", "3"]
    result = CliRunner().invoke(app, [*call, "--temperature", "0.8", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["rows_written"] == 7
    assert set().union(*(parse_formula(text).amounts for text in read_table(str(out)).columns["formula"])) <= {
        "Li",
        "Fe",
        "O",
    }


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("smiles", {"charge_neutral": True}, "--charge-neutral is for compositions"),
        ("smiles", {"only": ("neutral",)}, "--only neutral is for compositions"),
        ("composition", {"substructure": "C"}, "--substructure is for molecules"),
        ("smiles", {"substructure": "C(("}, "is not a SMARTS pattern"),
        ("composition", {"elements": ("Xx",)}, "'Xx' is no element"),
        ("composition", {"only": ("new",)}, "--only has 'new'"),
        ("composition", {"only": ("novel",)}, "--only novel needs --novel-to"),
        ("composition", {"novel_input": "x"}, "--novel-input is a column of --novel-to"),
        ("composition", {"n": 0}, "--n is 0"),
        ("composition", {"seed": -1}, "--seed is -1"),
        ("composition", {"temperature": -1.0}, "temperature is -1.0"),
        ("composition", {"max_length": 1}, "--max-length is 1"),
        ("composition", {"max_draws": 3, "only": ("valid",)}, "--max-draws is 3"),
        ("composition", {"batch_size": 0}, "--batch-size is 0"),
    ],
)
def test_wrong_calls_are_one_sentence(models, tmp_path, kind, options, message):
    with pytest.raises(MatfmError, match=message):
        generated(models, tmp_path, kind, **options)


def test_models_that_cannot_generate_are_named(tmp_path, models):
    fraction = tmp_path / "fraction"
    MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=123)).save_pretrained(fraction)
    CompositionTokenizer().save_pretrained(fraction)
    with pytest.raises(MatfmError, match="scheme 'fraction'"):
        generated({"composition": str(fraction)}, tmp_path)
    with pytest.raises(MatfmError, match="matgpt is what this needs"):
        generated({"composition": "matbert-small"}, tmp_path)
