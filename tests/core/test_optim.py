"""Schedules, rates by name, and what an optimizer configuration refuses."""

import sys

import pytest
import torch

from matfm.core.optim import OptimizerConfig, build_optimizers, parameter_groups, schedule_factor
from matfm.errors import MatfmError


def curve(steps=100, **config):
    settings = OptimizerConfig(**config)
    return [schedule_factor(settings, step, steps) for step in range(steps)]


def test_restarts_begin_every_cycle_at_the_peak():
    factors = curve(schedule="restarts", warmup=0.2, cycles=4)
    peaks = [step for step in range(20, 100) if factors[step] == 1.0]
    assert peaks == [20, 40, 60, 80]
    assert factors[20:40] == pytest.approx(factors[60:80])
    assert factors[20:40] == pytest.approx(curve(20, schedule="cosine", warmup=0.0))
    assert schedule_factor(OptimizerConfig(schedule="restarts"), 100, 100) == 0.0


def test_one_restart_is_a_cosine():
    assert curve(schedule="restarts", cycles=1) == curve(schedule="cosine")


def test_stable_stays_at_the_peak_and_falls_at_the_end():
    factors = curve(schedule="stable", warmup=0.0, decay_share=0.25, final_share=0.1)
    assert factors[:75] == [1.0] * 75
    assert factors[75:] == pytest.approx([0.1 + 0.9 * (1 - k / 25) for k in range(25)])


def test_rates_by_name_multiply_and_keep_the_decay(tiny_model):
    config = OptimizerConfig(
        learning_rate=1.0, layer_decay=0.5, rates={"embed": 0.1, r"^lm_head\.": 3.0, "tokens": 0.5}
    )
    groups = parameter_groups(tiny_model, config, tiny_model.matbert.layers_from_top)
    rate = {id(p): group["peak_lr"] for group in groups for p in group["params"]}
    named = dict(tiny_model.named_parameters())
    assert rate[id(named["matbert.embed_tokens.weight"])] == pytest.approx(0.125 * 0.1 * 0.5)
    assert rate[id(named["matbert.embed_amounts.projection.weight"])] == pytest.approx(0.125 * 0.1)
    assert rate[id(named["lm_head.dense.weight"])] == 3.0
    assert rate[id(named["property_head.out.weight"])] == 1.0
    assert len(rate) == len(named)


def test_a_pattern_that_is_found_nowhere_is_an_error(tiny_model):
    with pytest.raises(
        MatfmError, match=r"'embedd' is found in no trainable parameter's name; names are like matbert\."
    ):
        parameter_groups(tiny_model, OptimizerConfig(rates={"embedd": 0.1}), lambda name: 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rates": {"a(": 1.0}}, r"'a\(' is not a regular expression"),
        ({"rates": {"a": -1.0}}, "factor of 'a' is -1.0"),
        ({"cycles": 0}, "optimizer.cycles is 0"),
        ({"decay_share": 0.0}, "optimizer.decay_share is 0.0"),
        ({"sam": -0.1}, "optimizer.sam is -0.1"),
        ({"final_share": 2.0}, "optimizer.final_share is 2.0"),
        ({"method": "sgd"}, "choose one of adamw, muon, adamw8bit"),
    ],
)
def test_contradictions_are_named(settings, message):
    with pytest.raises(MatfmError, match=message):
        OptimizerConfig(**settings)


def test_8_bit_states_need_their_library(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    config = OptimizerConfig(method="adamw8bit")
    with pytest.raises(MatfmError, match="bitsandbytes is not installed; pip install"):
        build_optimizers(parameter_groups(tiny_model, config, lambda name: 0), config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="8-bit optimizers run on CUDA")
def test_8_bit_states_follow_adamw(tiny_model):
    pytest.importorskip("bitsandbytes")
    tiny_model.cuda()
    config = OptimizerConfig(method="adamw8bit")
    (optimizer,) = build_optimizers(parameter_groups(tiny_model, config, lambda name: 0), config)
    before = tiny_model.lm_head.dense.weight.detach().clone()
    tiny_model.lm_head.dense.weight.grad = torch.ones_like(before)
    optimizer.step()
    assert not torch.equal(before, tiny_model.lm_head.dense.weight)
