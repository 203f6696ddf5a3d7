"""Alignment of pooled vectors: what it reads, what it leaves alone, and what the reversal is for."""

import copy
import itertools

import numpy as np
import pytest
import torch

from matfm import MatBERTConfig, MatBERTForProperty
from matfm.core.conditional_map import BINS
from matfm.models.backbones import with_new_head
from matfm.models.domain import ALIGNMENTS, AlignedPropertyModel, AlignmentOptions, condition_on
from matfm.tasks.encoding import encode_formulas

METALS = "Li Na K Mg Ca Fe Zn Ti Al Ga Sr Ba".split()
ROWS = list(itertools.product(METALS, ("O", "S", "F", "Cl"), (1, 2, 3), (1, 2)))


def aligned_model(method, **head):
    torch.manual_seed(0)
    config = MatBERTConfig.of_size("tiny", property_names=["gap"], property_units=["eV"], **head)
    return AlignedPropertyModel(MatBERTForProperty(config).double(), AlignmentOptions(method, 16), 3).double()


@pytest.mark.parametrize("method", ALIGNMENTS)
def test_the_encoder_gets_minus_the_strength_and_the_predictor_stays_whole(method, tiny_tokens):
    batch = tiny_tokens.batch(np.arange(24))
    domain = torch.arange(24) % 3

    def gradients(strength):
        model = aligned_model(method)
        predictor = model.predictor
        pooled = predictor.base_model.embed_packed(batch.ids_N, batch.amounts_N.double(), batch.layout)
        told = condition_on(predictor.property_head, predictor.property_head(pooled))
        assert told.shape == (24, BINS)
        model.alignment(pooled, told, domain, strength)[0].backward()
        assert all(p.grad is None for p in predictor.property_head.parameters())
        of_encoder = [p.grad for p in predictor.base_model.parameters() if p.grad is not None]
        return of_encoder, [p.grad for p in model.alignment.parameters()]

    (once, classifier), (twice, same) = gradients(0.5), gradients(1.0)
    assert any(gradient.abs().max() > 0 for gradient in once)
    assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(classifier, same, strict=True))
    plain = gradients(-1.0)[0]
    assert all(torch.equal(-a, b) for a, b in zip(twice, plain, strict=True))


@pytest.mark.parametrize(
    "head",
    [
        {"property_two_part": [True]},
        {"property_log": [True]},
        {"property_loss": "gaussian"},
        {"property_loss": "quantile"},
        {"class_names": ["a", "b", "c"]},
    ],
)
def test_every_head_can_be_conditioned_on(head, tiny_tokens):
    model = aligned_model("cdan", **head)
    batch = tiny_tokens.batch(np.arange(6))
    predictor = model.predictor
    pooled = predictor.base_model.embed_packed(batch.ids_N, batch.amounts_N.double(), batch.layout)
    told = condition_on(predictor.property_head, predictor.property_head(pooled))
    assert torch.allclose(told.sum(1), torch.ones(6, dtype=told.dtype))
    assert not told.requires_grad
    loss, _ = model.alignment(pooled, told, torch.arange(6) % 3, 1.0)
    assert torch.isfinite(loss)


def test_layers_are_those_of_the_predictor_and_the_alignment_is_a_head():
    model = aligned_model("dann")
    of = model.predictor.base_model.layers_from_top
    assert all(model.layers_from_top(f"predictor.{name}") == of(name) for name, _ in model.predictor.named_parameters())
    assert {model.layers_from_top(name) for name, _ in model.named_parameters() if name.startswith("alignment")} == {0}


def test_without_the_reversal_domains_are_told_apart_and_with_it_no_longer():
    """On vectors of the bundled encoder: a classifier that tells domains apart, then 20 steps with and without."""
    tokens = encode_formulas([f"{m}{n}{a}{k}" for m, a, n, k in ROWS]).tokens
    domain = torch.tensor([int((n > k) != (a in ("F", "Cl"))) for _, a, n, k in ROWS])
    batch = tokens.batch(np.arange(len(ROWS)))
    torch.manual_seed(0)
    predictor = with_new_head("matbert-small", {"property_names": ["y"], "property_units": [""]}, 1, "composition")
    model = AlignedPropertyModel(predictor, AlignmentOptions("dann", 64), 2)
    domain_B = domain[batch.rows_B]

    def pooled(encoder, given):
        return encoder.embed_packed(given.ids_N, given.amounts_N, given.layout)

    def accuracy(aligned):
        with torch.no_grad():
            vectors = pooled(aligned.predictor.base_model.eval(), batch)
            right, count = aligned.alignment(vectors, None, domain_B, 0.0)[1]["domain_accuracy"]
        return float(right / count)

    with torch.no_grad():
        frozen = pooled(model.predictor.base_model.eval(), batch)
    learner = torch.optim.Adam(model.alignment.parameters(), lr=1e-3)
    for _ in range(12):
        learner.zero_grad()
        model.alignment(frozen, None, domain_B, 0.0)[0].backward()
        learner.step()
    before = accuracy(model)
    assert 0.6 < before < 0.98

    def trained(strength):
        changed, rng = copy.deepcopy(model), np.random.default_rng(0)
        optimizer = torch.optim.Adam(changed.parameters(), lr=3e-4)
        for _ in range(20):
            drawn = tokens.batch(rng.choice(len(ROWS), 48, replace=False))
            vectors = pooled(changed.predictor.base_model, drawn)
            optimizer.zero_grad()
            changed.alignment(vectors, None, domain[drawn.rows_B], strength)[0].backward()
            optimizer.step()
        return accuracy(changed)

    assert trained(-1.0) > before + 0.02
    assert trained(1.0) < before - 0.1
