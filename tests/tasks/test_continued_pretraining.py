"""Pretraining that continues from saved weights."""

import numpy as np
import pytest
import torch

from matfm import MatfmError
from matfm.core.config import from_mapping
from matfm.models.inference import predict_properties
from matfm.tasks.pretrain import PretrainConfig, load_corpus, new_model, new_vocabulary, run

FORMULAS = [f"{a}{n}{b}" for a in ("Fe", "Ga", "Li", "Na", "Zn") for b in ("O", "N", "S", "Cl") for n in (1, 2, 3)]


def table(path, columns):
    rows = [[formula, *(f"{scale * i + 3}" for scale in columns.values())] for i, formula in enumerate(FORMULAS)]
    path.write_text("\n".join(map(",".join, [["formula", *columns], *rows])) + "\n")
    return str(path)


def config_of(path, targets, **values):
    values.setdefault("model", {"size": "tiny"})
    data = {"table": path, "targets": targets, "held_out": 0.2, **values.pop("data", {})}
    train = {"steps": 4, "tokens_per_batch": 64, "evaluations": 1}
    return from_mapping(PretrainConfig, {"data": data, "train": train, "device": "cpu", **values}, "test")


def new(config, folder):
    corpus = load_corpus(config, folder)
    return new_model(config, corpus, new_vocabulary(config)).eval(), corpus


@pytest.fixture
def first(tmp_path):
    """A finished run with the properties gap and volume."""
    out = tmp_path / "first"
    config = config_of(table(tmp_path / "first.csv", {"gap": 1.0, "volume": 7.0}), ["gap", "volume"])
    run(config, out)
    model, corpus = new(config, tmp_path / "again")
    model.load_state_dict(type(model).from_pretrained(out).state_dict())
    return out, model.eval(), corpus


def test_shared_properties_are_predicted_as_before_whatever_their_scale_and_place(first, tmp_path):
    out, old, corpus = first
    path = table(tmp_path / "second.csv", {"mass": 2.0, "gap": 100.0})
    model, _ = new(config_of(path, ["mass", "gap"], model={"start": str(out)}), tmp_path / "second")
    before = predict_properties(old, corpus.train.tokens, torch.device("cpu"))[:, 0]
    after = predict_properties(model, corpus.train.tokens, torch.device("cpu"))[:, 1]
    assert model.property_head.scale[1] > 50 * old.property_head.scale[0]
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_encoder_and_token_head_are_taken_over_for_masked_tokens_alone(first, tmp_path):
    out, old, _ = first
    path = table(tmp_path / "second.csv", {})
    model, _ = new(config_of(path, [], model={"start": str(out)}), tmp_path / "second")
    ours, theirs = model.state_dict(), old.state_dict()
    assert set(ours) < set(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_tokens_that_the_weights_lack_stay_random(tmp_path):
    text = {"kind": "smiles", "table": str(tmp_path / "m.csv")}
    (tmp_path / "m.csv").write_text("smiles\n" + "\n".join(["C" * n + "O" for n in range(1, 40)]) + "\n")
    spans = {"family": "matt5", "size": "tiny"}
    run(config_of("", [], data=text, model=spans, objective=[{"name": "span", "sentinels": 3}]), tmp_path / "first")
    more = config_of(
        "", [], data=text, model={"family": "matt5", "start": str(tmp_path / "first")},
        objective=[{"name": "span", "sentinels": 5}],
    )  # fmt: skip
    model, _ = new(more, tmp_path / "second")
    old = type(model).from_pretrained(tmp_path / "first")
    rows, known = model.get_input_embeddings().weight, old.get_input_embeddings().weight
    assert len(rows) == len(known) + 2
    assert torch.equal(rows[: len(known)], known)
    assert rows[len(known) :].std() > 0


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"start": "{out}", "hidden_size": 32}, "model.start .* says the sizes"),
        ({"start": "{out}", "position_embedding": "rotary"}, "position_embedding 'none', and the new model 'rotary'"),
        ({"start": "{out}", "family": "matgpt"}, "model_type 'matbert', and the new model 'matgpt'"),
        ({"start": "nothing-like-it"}, "there are no weights 'nothing-like-it'"),
    ],
)
def test_what_cannot_be_continued_is_said(first, tmp_path, model, says):
    model = {key: str(first[0]) if value == "{out}" else value for key, value in model.items()}
    with pytest.raises(MatfmError, match=says):
        new(config_of(table(tmp_path / "t.csv", {}), [], model=model), tmp_path / "second")


def test_a_run_that_continues_and_resumes_is_that_run(first, tmp_path):
    path = table(tmp_path / "second.csv", {"gap": 2.0})
    config = config_of(path, ["gap"], model={"start": str(first[0])})
    assert run(config, tmp_path / "second")["steps"] == 4
    assert run(config, tmp_path / "second", resume=True)["steps"] == 4
    assert f"continued from `{first[0]}`" in (tmp_path / "second" / "card.md").read_text()
