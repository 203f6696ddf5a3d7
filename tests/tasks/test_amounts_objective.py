"""The objective `amounts`: the fractions of a composition from its elements."""

import json
import math

import numpy as np
import pytest
import torch

from matfm import MatfmError
from matfm.core.config import from_mapping
from matfm.core.run_log import read_log
from matfm.tasks.pretrain import PretrainConfig, load_corpus, new_model, new_vocabulary, run, setting_of
from matfm.tasks.pretraining.amounts import amounts, log_softmax_of_rows
from matfm.tasks.pretraining.setting import SharedBatch

FORMULAS = [f"{a}{n}O{m}" for a in ("Fe", "Al", "Mg", "Na", "Ti") for n, m in ((1, 1), (2, 3), (1, 2), (2, 1))]
TERMS = [
    {"name": "property"},
    {"name": "amounts", "weight": 0.5, "rows": 0.4},
    {"name": "masked", "weight": 0.1},
]


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,gap\n" + "\n".join(f"{f},{i}" for i, f in enumerate(FORMULAS)) + "\n")
    values = {
        "data": {"table": str(path), "targets": ["gap"], "held_out": 0.2}, "objective": TERMS,
        "model": {"size": "tiny"}, "masking": {"rows": 0.3}, "device": "cpu",
        "train": {"steps": 30, "tokens_per_batch": 60, "log_every": 1, "evaluations": 2},
        "optimizer": {"learning_rate": 3e-3},
    }  # fmt: skip
    return from_mapping(PretrainConfig, values, "test")


@pytest.fixture
def shared(case, tmp_path):
    corpus = load_corpus(case, tmp_path / "run")
    vocabulary = new_vocabulary(case)
    model = new_model(case, corpus, vocabulary).eval()
    batch = corpus.train.batches(400, 0, 1).next()
    return SharedBatch(model, batch, torch.Generator().manual_seed(1), setting_of(case, vocabulary, corpus.train))


def test_rows_without_amounts_are_neither_masked_nor_labelled(shared):
    hidden, batch = shared.hidden_amounts, shared.batch
    assert hidden.row_B.any()
    assert not (hidden.row_B & shared.masked.masked_row_B).any()
    assert torch.equal(shared.targets_BK.isnan()[:, 0], hidden.row_B | shared.masked.masked_row_B)
    first = 0
    for row, length in enumerate(n for count, n in batch.layout.runs for _ in range(count)):
        tokens = slice(first, first + length)
        expected = torch.zeros(length) if hidden.row_B[row] else batch.amounts_N[tokens]
        assert torch.equal(hidden.amounts_N[tokens], expected)
        first += length


def test_the_loss_is_the_divergence_of_each_row(case, shared):
    """Against a slow twin, in values and gradients."""
    objective = next(o for o in case.objectives if o.name == "amounts")
    output = amounts(objective, shared.setting)(shared)
    slow, rows, first = 0.0, 0, 0
    for row, length in enumerate(n for count, n in shared.batch.layout.runs for _ in range(count)):
        if shared.hidden_amounts.row_B[row]:
            true = shared.batch.amounts_N[first + 1 : first + length]  # the first token is [CLS]
            logits = shared.model.amount_head(shared.hidden_ND[first + 1 : first + length])[:, 0]
            slow = slow + (true * (true / logits.softmax(0)).log()).sum()
            rows += 1
        first += length
    torch.testing.assert_close(output.loss_sum, slow)
    assert int(output.weight) == rows
    weights = [shared.model.amount_head.weight, shared.model.matbert.embed_tokens.weight]
    fast_g, slow_g = (torch.autograd.grad(loss, weights, retain_graph=True) for loss in (output.loss_sum, slow))
    torch.testing.assert_close(fast_g, slow_g, rtol=1e-4, atol=1e-6)
    total, count = output.metrics["amounts_mae"]
    assert 0 <= total / count <= 1


def test_softmax_of_rows_is_exact_for_large_logits():
    logits = torch.tensor([1000.0, 999.0, -1000.0, 5.0], dtype=torch.float64, requires_grad=True)
    row = torch.tensor([0, 0, 0, 2])
    found = log_softmax_of_rows(logits, row, 3)
    torch.testing.assert_close(found, torch.cat([logits[:3].log_softmax(0), torch.zeros(1, dtype=torch.float64)]))
    assert torch.autograd.gradcheck(lambda x: log_softmax_of_rows(x / 100, row, 3), (logits,))


def test_thirty_steps_learn_and_evaluate(case, tmp_path):
    """The curve is the recorded one."""
    summary = run(case, tmp_path / "run")
    losses = [record["loss"] for record in read_log(tmp_path / "run" / "log.jsonl") if "loss" in record]
    np.testing.assert_allclose(losses[::10], GOLDEN, rtol=2e-3)
    valid = summary["valid"]
    assert {"amounts_nats", "amounts_mae", "masked_nats", "mae_gap"} <= set(valid)
    assert 0 < valid["amounts_nats"] < math.log(2)  # less than nothing known of two elements
    assert json.loads((tmp_path / "run" / "config.json").read_text())["amount_head"] is True


GOLDEN = [0.606403, 0.370508, 0.407452]
"""Losses of the steps 1, 11 and 21, as recorded."""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": {"kind": "smiles", "targets": []}}, "'amounts' needs compositions in data.scheme 'fraction'"),
        ({"data": {"scheme": "count"}}, "'amounts' needs compositions in data.scheme 'fraction'"),
        ({"objective": [{"name": "amounts", "rows": 1.0}]}, "rows is 1.0; it is a share between 0 and 1"),
    ],
)
def test_what_it_cannot_do(tmp_path, change, says):
    data = {"table": "x.csv", **change.pop("data", {})}
    values = {"data": data, "objective": [{"name": "amounts"}], **change}
    with pytest.raises(MatfmError, match=says):
        from_mapping(PretrainConfig, values, "test")
