"""The property head: every law in physical units, missing labels, two parts, logarithms, conditions."""

import math

import numpy as np
import pytest
import torch

from matfm import MatBERTConfig, MatBERTForProperty, MatfmError, SmilesTokenizer
from matfm.core.layout import PackedLayout
from matfm.models.heads import PropertyHead, scale_to_labels
from matfm.models.output_laws import PROPERTY_LOSSES, QuantileLaw, output_law

WIDTH = 8
UNBOUNDED = (-math.inf, math.inf)


def head(loss="l1", targets=2, **options):
    torch.manual_seed(0)
    return PropertyHead(WIDTH, targets, law=output_law(loss), **options).eval()


def pooled(rows=6):
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1))


LABELS = np.array([[1, 10], [2, 30], [3, np.nan], [np.nan, 20], [5, 60], [8, 90]], dtype=np.float32)


def test_a_plain_head_has_the_tensors_it_always_had():
    names = {"dense.weight", "dense.bias", "out.weight", "out.bias", "mean", "scale", "lower", "upper"}
    assert head().state_dict().keys() == names


@pytest.mark.parametrize("loss", PROPERTY_LOSSES)
def test_predictions_are_in_physical_units(loss):
    """Multiplying the labels by ten multiplies every statistic but probabilities by ten."""
    plain, tenfold = head(loss), head(loss)
    scale_to_labels(plain, LABELS, [UNBOUNDED] * 2)
    scale_to_labels(tenfold, LABELS * 10, [UNBOUNDED] * 2)
    one, ten = plain.estimate(plain(pooled())), tenfold.estimate(tenfold(pooled()))
    assert one.shape == (6, 2, len(plain.statistics))
    torch.testing.assert_close(10 * one, ten)
    torch.testing.assert_close(plain.physical(plain(pooled())), one[..., 0])


@pytest.mark.parametrize("loss", PROPERTY_LOSSES)
def test_a_missing_label_has_no_gradient(loss):
    model = head(loss, two_part=(True, False))
    scale_to_labels(model, LABELS, [UNBOUNDED] * 2)
    raw = model(pooled()).detach().requires_grad_()
    total, weight = model.loss(raw, torch.from_numpy(LABELS))
    total.backward()
    assert float(weight) == 10
    outputs = model.law.outputs
    assert raw.grad[3, :outputs].abs().sum() == raw.grad[2, outputs : 2 * outputs].abs().sum() == 0
    assert raw.grad[2, :outputs].abs().sum() > 0


@pytest.mark.parametrize("loss", PROPERTY_LOSSES)
def test_every_law_learns_a_line(loss):
    torch.manual_seed(0)
    model = PropertyHead(WIDTH, 1, law=output_law(loss))
    x = torch.linspace(-1, 1, 64)[:, None]
    features = x * pooled(1)
    y = 300 + 50 * x + torch.randn(64, 1)
    scale_to_labels(model, y.numpy(), [UNBOUNDED])
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(150):
        total, weight = model.loss(model(features), y)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
    read = model.estimate(model(features)).detach()[:, 0]
    statistics = dict(zip(model.statistics, read.unbind(dim=-1), strict=True))
    assert (statistics["value"] - 300 - 50 * x[:, 0]).abs().mean() < 3
    if loss == "gaussian":
        assert 0.5 < float(statistics["std"].mean()) < 6
    if loss == "quantile":
        assert (statistics["q0.1"] < statistics["q0.5"]).all()
        assert (statistics["q0.5"] < statistics["q0.9"]).all()


def test_quantiles_never_cross():
    law = QuantileLaw((0.25, 0.5, 0.75))
    read = law.estimate(torch.tensor([[[3.0, 1.0, 2.0]]]), lambda values: values, lambda mean, std: std)
    assert read.tolist() == [[[2.0, 1.0, 2.0, 3.0]]]
    for levels in ((0.1, 0.9), (0.9, 0.5), (0.0, 0.5)):
        with pytest.raises(MatfmError, match="quantiles is"):
            QuantileLaw(levels)


def test_logarithmic_targets_are_scaled_as_logarithms_and_come_back_positive():
    model = head(log=(True, False))
    scale_to_labels(model, LABELS, [UNBOUNDED] * 2)
    logs = np.log(LABELS[:, 0])
    assert float(model.mean[0]) == pytest.approx(np.nanmean(logs))
    assert float(model.scale[0]) == pytest.approx(np.nanstd(logs))
    labels = torch.from_numpy(LABELS)
    torch.testing.assert_close(model.physical(model.scaled(labels)), labels, equal_nan=True)
    assert (model.physical(torch.full((1, 2), -50.0))[:, 0] > 0).all()
    assert model.physical(torch.full((1, 2), 1e6)).isfinite().all()


def test_the_spread_of_a_logarithmic_gaussian_is_that_of_a_log_normal():
    model = head("gaussian", targets=1, log=(True,))
    model.set_scaling(torch.tensor([0.5]), torch.tensor([0.8]))
    raw = torch.tensor([[0.7, 0.2]])
    value, std = model.estimate(raw)[0, 0].tolist()
    sigma = 0.8 * math.sqrt(math.log1p(math.exp(0.2)) + 1e-6)
    sample = np.exp(np.random.default_rng(0).normal(0.5 + 0.8 * 0.7, sigma, 2_000_000))
    assert value == pytest.approx(np.median(sample), rel=0.01)
    assert std == pytest.approx(sample.std(), rel=0.03)


def two_parts(loss, logit):
    """A head of one target whose value is 3 with a given logit of zero."""
    model = head(loss, targets=1, two_part=(True,))
    model.set_bounds(torch.tensor([0.0]), torch.tensor([math.inf]))
    raw = torch.tensor([[3.0, *([0.5] if loss == "gaussian" else []), logit]])
    return dict(zip(model.statistics, model.estimate(raw)[0, 0].tolist(), strict=True))


@pytest.mark.parametrize("logit", [-2.0, 2.0])
def test_two_parts_predict_the_median_for_l1_and_the_mean_elsewhere(logit):
    probability = 1 / (1 + math.exp(-logit))
    assert two_parts("l1", logit) == pytest.approx({"value": 0 if logit > 0 else 3, "zero": probability})
    assert two_parts("l2", logit) == pytest.approx({"value": 3 * (1 - probability), "zero": probability})
    found = two_parts("gaussian", logit)
    generator = np.random.default_rng(0)
    sigma = math.sqrt(math.log1p(math.exp(0.5)) + 1e-6)
    sample = np.where(generator.random(1_000_000) < probability, 0.0, generator.normal(3, sigma, 1_000_000))
    assert found["value"] == pytest.approx(sample.mean(), rel=0.02)
    assert found["std"] == pytest.approx(sample.std(), rel=0.02)


def test_zeros_scale_and_train_the_probability_alone():
    model = head(targets=1, two_part=(True,))
    labels = np.array([[0.0], [0.0], [0.0], [2.0], [4.0]], np.float32)
    scale_to_labels(model, labels, [(0.0, math.inf)])
    assert (float(model.mean), float(model.scale)) == (3.0, 1.0)
    raw = torch.zeros(5, 2, requires_grad=True)
    model.loss(raw, torch.from_numpy(labels))[0].backward()
    assert raw.grad[:3, 0].abs().sum() == 0
    assert raw.grad[3:, 0].abs().min() > 0
    assert raw.grad[:, 1].sign().tolist() == [-1, -1, -1, 1, 1]


def test_conditions_are_standardised_and_demanded():
    model = head(conditions=2)
    conditions = np.array([[300, 1.0], [400, 1.0], [500, 1.0]], np.float32)
    model.set_conditions(conditions)
    assert model.condition_mean.tolist() == [400, 1]
    assert model.condition_scale.tolist() == pytest.approx([81.6497, 1.0])
    rows = pooled(3)
    outputs = model(rows, torch.from_numpy(conditions))
    assert not torch.allclose(outputs, model(rows, torch.from_numpy(conditions + 100)))
    in_celsius = head(conditions=2)
    in_celsius.set_conditions(conditions - 273.15)
    torch.testing.assert_close(outputs, in_celsius(rows, torch.from_numpy(conditions - 273.15)), atol=1e-5, rtol=1e-4)
    with pytest.raises(MatfmError, match="2 condition"):
        model(rows)


@pytest.mark.parametrize("loss", ["gaussian", "quantile"])
def test_a_saved_model_repeats_its_statistics_and_hugging_face_s_path_agrees(loss, tmp_path):
    torch.manual_seed(0)
    config = MatBERTConfig.of_size(
        "tiny", vocab_size=len(SmilesTokenizer()), position_embedding="rotary", property_names=["a", "b"],
        property_units=["", ""], property_loss=loss, property_log=[True, False], condition_names=["temperature"],
    )  # fmt: skip
    model = MatBERTForProperty(config).eval()
    scale_to_labels(model.property_head, LABELS, [UNBOUNDED] * 2)
    model.property_head.set_conditions(np.array([[250.0], [350.0]]))
    model.save_pretrained(tmp_path)
    loaded = MatBERTForProperty.from_pretrained(tmp_path).eval()
    texts, conditions = ["C", "CCO", "c1ccccc1"], torch.tensor([[280.0], [300.0], [320.0]])
    ids = [torch.tensor(SmilesTokenizer()(text)["input_ids"]) for text in texts]
    layout = PackedLayout.from_lengths([len(row) for row in ids])
    packed = model.estimate_packed(torch.cat(ids), None, layout, conditions)
    torch.testing.assert_close(packed, loaded.estimate_packed(torch.cat(ids), None, layout, conditions))
    batch = SmilesTokenizer()(texts, padding=True, return_tensors="pt")
    output = loaded(**batch, conditions=conditions, labels=torch.tensor([[1.0, 2.0], [2.0, math.nan], [3.0, 4.0]]))
    torch.testing.assert_close(output.logits, packed[..., 0], rtol=1e-4, atol=1e-4)
    assert output.loss.isfinite()
