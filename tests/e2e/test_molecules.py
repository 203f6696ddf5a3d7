"""Fine-tuning, predicting and embedding molecules, heads, conditions and censored labels, by the commands."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rdkit import Chem
from rdkit.Chem.Crippen import MolLogP
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from test_command_line import assert_same_weights, killed_in_the_middle
from typer.testing import CliRunner

from matfm import (
    EmbeddingTransformer,
    MatBERTConfig,
    MatBERTForProperty,
    MatBERTModel,
    MatfmError,
    PropertyClassifier,
    PropertyRegressor,
    SmilesTokenizer,
    smiles_to_selfies,
)
from matfm.cli import app
from matfm.tasks.tables import read_table

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()
LOGP = [MolLogP(Chem.MolFromSmiles(text)) for text in SMILES]


def call(*arguments):
    """Run a command in this process; returns its summary, or the error."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return result.exception
    return json.loads(result.stdout.splitlines()[-1])


def write(path, **columns):
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """An encoder of SMILES with its tokenizer, absolute positions that end at 40 tokens."""
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = SmilesTokenizer()
    absolute = {"position_embedding": "absolute", "max_position_embeddings": 40}
    MatBERTModel(MatBERTConfig.of_size("tiny", vocab_size=len(tokenizer), **absolute)).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on real molecules: several written forms, a normal distribution, scaffold split."""
    folder = tmp_path_factory.mktemp("molecules")
    table = write(folder / "t.csv", smiles=[*SMILES, "C1CC", ""], logp=[*LOGP, 1, 2])
    out = folder / "run"
    summary = call(
        "finetune", table, "--input", "smiles", "--target", "logp", "--out", out, "--kind", "smiles", "--backbone", "scratch:tiny",
        "--split", "scaffold", "--epochs", 20, "--set", "fit.optimizer.learning_rate=3e-3", "--set", "fit.enumerate=4",
        "--set", "fit.predict_enumerations=3", "--set", "fit.loss=gaussian", "--set", "fit.tokens_per_batch=1024",
    )  # fmt: skip
    return out, summary, table


def test_a_predictor_of_molecules_learns_and_its_run_tells_the_kind(trained):
    out, summary, _ = trained
    assert (summary["kind"], summary["rows_in"], summary["rows_rejected"]) == ("smiles", len(SMILES) + 2, 2)
    assert summary["rows_truncated"] == 0
    assert summary["metrics"]["train"]["logp"]["mae"] < 0.75 * np.abs(np.array(LOGP) - np.mean(LOGP)).mean()
    assert summary["leakage"] == {"same_canonical": 0.0}
    config = json.loads((out / "config.json").read_text())
    assert config["run"]["kind"] == "smiles"
    assert config["run"]["fit"]["length_pool"] == 16
    assert (config["position_embedding"], config["predict_enumerations"]) == ("rotary", 3)
    assert (out / "tokenizer.json").exists()


def test_predictions_of_molecules_keep_the_row_contract_and_the_run_s_numbers(trained, tmp_path):
    out, _, _ = trained
    cells = [SMILES[0], "C1CC", "", SMILES[5], "Fe2O3", Chem.MolToSmiles(Chem.MolFromSmiles(SMILES[5]), doRandom=True)]
    predicted = tmp_path / "p.csv"
    summary = call("predict", out, write(tmp_path / "t.csv", s=cells), "--input", "s", "--out", predicted)
    assert (summary["kind"], summary["rows_predicted"], summary["rows_with_error"]) == ("smiles", 3, 3)
    columns = read_table(str(predicted)).columns
    assert [bool(reason) for reason in columns["error"]] == [False, True, True, False, True, False]
    values, stds = columns["predicted_logp"], columns["predicted_logp_std"]
    assert float(values[3]) == pytest.approx(float(values[5]), abs=1e-5), "one molecule has one prediction"
    assert float(stds[0]) > 0
    known = read_table(str(out / "predictions.parquet")).columns
    assert float(values[0]) == pytest.approx(float(known["predicted_logp"][known["smiles"].index(SMILES[0])]), abs=1e-4)


def test_the_backbone_s_kind_limit_and_vocabulary_are_used(pretrained, tmp_path):
    table = write(tmp_path / "t.csv", smiles=[*SMILES[:40], "C" * 60], logp=[*LOGP[:40], 1.0])
    base = ("finetune", table, "--input", "smiles", "--target", "logp", "--backbone", pretrained, "--epochs", 1)
    summary = call(*base, "--out", tmp_path / "a", "--split", "butina")
    assert summary["kind"] == "smiles"
    assert summary["rows_truncated"] >= 1
    assert summary["first_truncated"][-1] == 40 or summary["rows_truncated"] > 5
    for kind, message in (("composition", "reads smiles and --kind is composition"), ("selfies", "--kind is selfies")):
        assert message in str(call(*base, "--out", tmp_path / "b", "--kind", kind))
    formulas = ("finetune", table, "--input", "smiles", "--target", "logp", "--out", tmp_path / "b", "--kind", "smiles")
    assert "matbert-small reads composition and --kind is smiles" in str(call(*formulas))
    assert not (tmp_path / "b").exists()


def test_selfies_are_a_kind_of_their_own(tmp_path):
    table = write(tmp_path / "t.csv", s=[smiles_to_selfies(text) for text in SMILES[:40]], logp=LOGP[:40])
    arguments = ("--backbone", "scratch:tiny", "--kind", "selfies", "--epochs", 2, "--set", "fit.enumerate=2")
    assert (
        call("finetune", table, "--input", "s", "--target", "logp", "--out", tmp_path / "r", *arguments)["kind"]
        == "selfies"
    )
    summary = call("embed", tmp_path / "r", table, "--input", "s", "--out", tmp_path / "e.parquet")
    assert summary["rows_embedded"] == 40


def test_a_killed_run_with_enumeration_and_weights_resumes_to_the_same_weights(tmp_path):
    table = write(tmp_path / "t.csv", smiles=SMILES[:60], logp=LOGP[:60], w=[1 + n % 3 for n in range(60)])
    base = ["finetune", str(table), "--input", "smiles", "--target", "logp", "--kind", "smiles", "--backbone", "scratch:tiny",
            "--epochs", "25", "--set", "fit.enumerate=3", "--set", "weight=w", "--set", "fit.tokens_per_batch=512",
            "--set", "fit.checkpoint_every=5", "--device", "cpu"]  # fmt: skip
    call(*base, "--out", tmp_path / "whole")
    arguments = [*base, "--out", str(tmp_path / "cut")]
    assert killed_in_the_middle(arguments, tmp_path / "cut", after_step=25)
    call(*arguments, "--resume")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_embeddings_are_the_model_s_and_every_row_has_its_place(trained, tmp_path):
    out, _, _ = trained
    cells = [SMILES[0], "C1CC", SMILES[7]]
    table = write(tmp_path / "t.csv", s=cells, k=[1, 2, 3])
    summary = call(
        "embed", out, table, "--input", "s", "--out", tmp_path / "e.parquet", "--layer", 1, "--pooling", "cls"
    )
    assert (summary["rows_in"], summary["rows_embedded"], summary["width"], summary["layer"]) == (3, 2, 64, 1)
    found = pq.read_table(tmp_path / "e.parquet")
    assert found.column_names == ["s", "k", "embedding", "error"]
    assert str(found.schema.field("embedding").type) == "fixed_size_list<element: float>[64]"
    assert found["embedding"].null_count == 1
    assert found["error"].to_pylist()[1].startswith("'C1CC'")
    model = MatBERTForProperty.from_pretrained(out).eval().matbert
    batch = SmilesTokenizer()(Chem.MolToSmiles(Chem.MolFromSmiles(SMILES[7])), return_tensors="pt")
    expected = model(**batch, output_hidden_states=True).hidden_states[1][0, 0].detach().numpy()
    np.testing.assert_allclose(found["embedding"].to_pylist()[2], expected, atol=1e-5)


def test_embeddings_do_not_depend_on_chunks(trained, tmp_path, monkeypatch):
    table = write(tmp_path / "t.csv", s=[*SMILES[:20], "bad", *SMILES[20:30]])
    for rows in (4, 1000):
        monkeypatch.setattr("matfm.tasks.tables.iterate_table.__defaults__", (rows,))
        call("embed", trained[0], table, "--input", "s", "--out", tmp_path / f"{rows}.parquet")
    few, many = (pq.read_table(tmp_path / f"{rows}.parquet") for rows in (4, 1000))
    assert few["error"].to_pylist() == many["error"].to_pylist()
    vectors = [np.stack([v for v in t["embedding"].to_pylist() if v is not None]) for t in (few, many)]
    np.testing.assert_allclose(*vectors, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "e.csv"), "must be a .parquet file"),
        (("--out", "e.parquet", "--layer", 3), "has the layers 0 (input of the first block) to 2"),
        (("--out", "e.parquet", "--pooling", "max"), "choose one of mean, mean-max, cls"),
    ],
)
def test_wrong_calls_of_embed(trained, options, message):
    error = call("embed", trained[0], trained[2], "--input", "smiles", *options)
    assert message in str(error)
    assert error.exit_code == 2


def test_conditions_are_learned_stored_and_demanded(tmp_path):
    formulas, kelvin = ["Fe", "Cu", "NaCl", "GaN", "TiO2"] * 12, [200 + 10 * n for n in range(60)]
    table = write(
        tmp_path / "t.csv",
        formula=[*formulas, "Zn", "Al"],
        temperature=[*kelvin, "", "hot"],
        y=[*(k / 100 for k in kelvin), 1, 2],
    )
    out = tmp_path / "run"
    summary = call(
        "finetune", table, "--input", "formula", "--target", "y", "--out", out, "--backbone", "scratch:tiny", "--epochs", 60,
        "--set", 'conditions=["temperature"]', "--set", "fit.optimizer.learning_rate=5e-3",
    )  # fmt: skip
    assert summary["conditions"] == ["temperature"]
    assert summary["rows_rejected"] == 2
    assert "the condition 'temperature' is missing" in read_table(str(out / "rejects.csv")).columns["reason"]
    assert summary["metrics"]["test"]["y"]["mae"] < 0.8
    new = write(tmp_path / "n.csv", formula=["Fe", "Fe", "Fe", "Xx"], temperature=[210, 790, "", 300])
    assert call("predict", out, new, "--input", "formula", "--out", tmp_path / "p.csv")["rows_predicted"] == 2
    columns = read_table(str(tmp_path / "p.csv")).columns
    assert float(columns["predicted_y"][1]) - float(columns["predicted_y"][0]) > 3
    assert columns["error"][2] == "the condition 'temperature' is missing"
    bare = write(tmp_path / "b.csv", formula=["Fe"])
    assert "has no column 'temperature'" in str(
        call("predict", out, bare, "--input", "formula", "--out", tmp_path / "q.csv")
    )


def test_censored_labels_push_predictions_to_their_side(tmp_path):
    """Half of the molecules are measured, half are known to be above 10: these must not be pulled to 10."""
    cells = [f"{metal}{n}O{20 - n}" for n in range(1, 19) for metal in ("Fe", "Zn")]
    labels = [f"{5 + int(c[2 : c.index('O')]) / 10:.2f}" if c.startswith("Fe") else ">10" for c in cells]
    table = write(tmp_path / "t.csv", formula=cells, y=labels)
    arguments = ("finetune", table, "--input", "formula", "--target", "y", "--backbone", "scratch:tiny", "--epochs", 40)
    rate = ("--set", "fit.optimizer.learning_rate=5e-3")
    summary = call(*arguments, *rate, "--out", tmp_path / "run", "--set", "fit.loss=gaussian")
    assert summary["censored"] == {"y": {"below": 0, "above": 18}}
    columns = read_table(str(tmp_path / "run" / "predictions.parquet")).columns
    above = np.array([sign == ">" for sign in columns["y_censored"]])
    predicted = np.array(columns["predicted_y"], float)
    train = np.array(columns["part"]) == "train"
    assert above.sum() == 18
    assert np.median(predicted[above & train]) > 10.2
    assert np.abs(predicted - np.array(columns["y"], float))[~above & train].mean() < 1.5
    assert summary["metrics"]["train"]["y"]["n"] == (~above & train).sum()
    error = call(*arguments, "--out", tmp_path / "b", "--set", "fit.loss=quantile")
    assert "which the loss quantile cannot use" in str(error)
    assert not (tmp_path / "b").exists()


def test_two_parts_and_quantiles_reach_the_table(small_table, tmp_path):
    base = (
        "finetune",
        small_table,
        "--input",
        "formula",
        "--target",
        "gap",
        "--backbone",
        "scratch:tiny",
        "--epochs",
        2,
    )
    summary = call(*base, "--out", tmp_path / "two", "--set", "fit.head=auto", "--set", "fit.loss=l2")
    assert summary["heads"] == {"gap": {"head": "two-part", "transform": "none"}}
    call("predict", tmp_path / "two", small_table, "--input", "formula", "--out", tmp_path / "p.csv")
    zero = np.array(read_table(str(tmp_path / "p.csv")).columns["probability_zero_gap"], float)
    assert ((zero > 0) & (zero < 1)).all()
    call(*base, "--out", tmp_path / "q", "--set", "fit.loss=quantile", "--set", "fit.quantiles=[0.25, 0.5, 0.75]")
    call("predict", tmp_path / "q", small_table, "--input", "formula", "--out", tmp_path / "q.jsonl")
    columns = read_table(str(tmp_path / "q.jsonl")).columns
    low, middle, high = (np.array(columns[f"predicted_gap_q{level}"], float) for level in ("0.25", "0.5", "0.75"))
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert columns["predicted_gap"] == columns["predicted_gap_q0.5"]


def test_balanced_classes_find_the_rare_one(tmp_path):
    cells = [f"{metal}{n}O{30 - n}" for n in range(1, 25) for metal in ("Fe", "Zn", "Ti", "Na", "Cu", "Ga", "Al", "K")]
    table = write(tmp_path / "t.csv", f=cells, y=["rare" if c.startswith("K") else "common" for c in cells])
    recalls = {}
    for weights in ("none", "balanced"):
        summary = call(
            "finetune", table, "--input", "f", "--target", "y", "--task", "classification", "--out", tmp_path / weights,
            "--backbone", "scratch:tiny", "--epochs", 4, "--set", f"fit.class_weights={weights}",
        )  # fmt: skip
        recalls[weights] = summary["metrics"]["train"]["y"]["balanced_accuracy"]
    assert recalls["balanced"] > recalls["none"]


def test_columns_named_twice_are_refused(tmp_path):
    table = write(tmp_path / "t.csv", f=["Fe", "Cu"], y=[1, 2])
    error = call(
        "finetune", table, "--input", "f", "--target", "y", "--out", tmp_path / "o", "--set", 'conditions=["y"]'
    )
    assert "column 'y' is named twice" in str(error)


def test_estimators_take_molecules_and_weights(pretrained):
    smiles, values = SMILES[:30], LOGP[:30]
    model = clone(PropertyRegressor(backbone=str(pretrained), epochs=1, kind="smiles"))
    assert model.get_params()["kind"] == "smiles"
    plain = model.fit(smiles, values).predict(smiles)
    weighted = clone(model).fit(smiles, values, sample_weight=np.linspace(1, 9, 30)).predict(smiles)
    assert plain.shape == (30,)
    assert not np.allclose(plain, weighted)
    with pytest.raises(MatfmError, match="row 1: .* cannot be read"):
        model.predict(["C", "C1CC"])
    with pytest.raises(MatfmError, match="30 positive numbers"):
        clone(model).fit(smiles, values, sample_weight=np.zeros(30))
    classifier = PropertyClassifier(backbone="scratch:tiny", epochs=1, kind="smiles").fit(smiles, np.array(values) > 2)
    assert set(classifier.predict(smiles)) <= {True, False}


def test_the_embedding_transformer_is_a_step_of_a_pipeline(pretrained, formulas):
    transformer = EmbeddingTransformer(backbone=str(pretrained), pooling="mean", layer=1)
    assert clone(transformer).get_params() == transformer.get_params()
    pipeline = make_pipeline(clone(transformer), Ridge()).fit(SMILES[:50], LOGP[:50])
    assert pipeline.predict(SMILES[:5]).shape == (5,)
    fitted = EmbeddingTransformer().fit()
    assert fitted.transform(formulas).shape == (len(formulas), len(fitted.get_feature_names_out()))
    with pytest.raises(MatfmError, match="reads smiles"):
        clone(transformer).set_params(kind="selfies").fit()


def test_only_expected_files_are_written(trained):
    assert "ensemble" not in os.listdir(trained[0])
    assert not (trained[0] / "checkpoints").exists()
