"""Diagnostics against numbers computed by hand; the run itself is not changed by being looked at."""

import copy
import sys

import pytest
import torch

from matfm.core.attention_maps import AttentionRecorder
from matfm.core.batching import EpochBatches
from matfm.core.diagnostics import KEY, Diagnostics, activation_statistics
from matfm.core.optim import OptimizerConfig
from matfm.core.run_log import RunLog, read_log
from matfm.core.trainer import LoopConfig, fit
from matfm.errors import MatfmError
from matfm.tasks.plots import draw_diagnostics
from matfm.tasks.predictor import property_step


def train(model, tokens, folder, **options):
    loop = LoopConfig(steps=6, log_every=1, **options)
    batches = EpochBatches(tokens, 40, 0)
    device = torch.device("cpu")
    fit(model, property_step, batches, OptimizerConfig(), loop, folder, seed=0, device=device)
    return [record[KEY] for record in read_log(folder / "log.jsonl") if KEY in record]


def test_a_looked_at_run_has_the_same_weights(tiny_model, tiny_tokens, tmp_path):
    other = copy.deepcopy(tiny_model)
    assert train(tiny_model, tiny_tokens, tmp_path / "a") == []
    seen = train(other, tiny_tokens, tmp_path / "b", diagnose_every=2)
    assert len(seen) == 3
    assert all(torch.equal(a, b) for a, b in zip(tiny_model.parameters(), other.parameters(), strict=True))
    assert not any(module._forward_hooks for module in other.modules())
    layers = {"matbert.embed_tokens", "matbert.encoder.blocks.0", "matbert.encoder.blocks.1", "property_head.out"}
    assert layers <= set(seen[0]["gradient_norm"])
    assert set(seen[0]["activation"]) == {"matbert.encoder.blocks.0", "matbert.encoder.blocks.1"}
    assert all(0 < seen[0]["update_ratio"][layer] < 1 for layer in layers)
    draw_diagnostics(tmp_path / "b")
    assert (tmp_path / "b" / "diagnostics.png").stat().st_size > 10_000
    assert (tmp_path / "b" / "attention.png").exists()
    weights = torch.tensor(seen[0]["attention"]["matbert.encoder.blocks.1"])
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)), atol=1e-2, rtol=0)
    draw_diagnostics(tmp_path / "a")
    assert not (tmp_path / "a" / "diagnostics.png").exists()


def test_an_error_in_a_block_leaves_nothing_behind(tiny_model, tiny_tokens, tmp_path):
    def fail(module, inputs):
        raise ZeroDivisionError

    handle = tiny_model.matbert.encoder.blocks[1].attention.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        train(tiny_model, tiny_tokens, tmp_path, diagnose_every=1)
    handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_model.modules())
    assert torch.overrides._get_current_function_mode() is None


def test_norms_and_ratios_are_those_of_the_layer(tiny_model):
    look = Diagnostics(tiny_model, 1)
    look.before_step(1)
    for parameter in tiny_model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    look.before_update(1.5)
    weights = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.mul_(1.25)
    seen = look.after_update()
    block = [p for name, p in weights.items() if name.startswith("matbert.encoder.blocks.1.")]
    count = sum(p.numel() for p in block)
    assert seen["gradient_norm"]["matbert.encoder.blocks.1"] == pytest.approx(2.0 * count**0.5, rel=1e-4)
    assert seen["update_ratio"]["matbert.encoder.blocks.1"] == pytest.approx(0.25, rel=1e-4)


def test_activation_statistics():
    hidden = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert activation_statistics(hidden) == {"mean": 3.5, "std": pytest.approx(hidden.std(correction=0)), "dead": 0.5}


def test_steps_between_are_not_looked_at(tiny_model):
    look = Diagnostics(tiny_model, 5)
    look.before_step(4)
    look.before_update(1.0)
    assert look.after_update() is None
    assert not any(module._forward_hooks for module in tiny_model.modules())


def test_tensorboard_needs_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MatfmError, match="TensorBoard is not installed; pip install"):
        RunLog(tmp_path, tensorboard=True)


def test_numbers_reach_tensorboard(tmp_path, tiny_model, tiny_tokens):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny_model, tiny_tokens, tmp_path, tensorboard=True, diagnose_every=3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [record["loss"] for record in read_log(tmp_path / "log.jsonl") if "loss" in record]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert len(events.Scalars(f"{KEY}/update_ratio/property_head.out")) == 2


@pytest.mark.parametrize("kind", ["plain", "causal", "mask", "bias", "grouped"])
def test_recorded_weights_are_those_of_torch(kind):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8), torch.eye(5).expand(2, 4, 5, 5)
    options = {
        "plain": {"scale": 0.7},
        "causal": {"is_causal": True},
        "mask": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu().T},
        "bias": {"attn_mask": torch.randn(5, 5)},
        "grouped": {"enable_gqa": True},
    }[kind]
    if kind == "grouped":
        k, v = k[:, :2], v[:, :2]
    seen = []
    with AttentionRecorder(seen.append):
        # Values that are unit vectors give the weights themselves.
        output = torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(torch.tensor(seen[0]), output[-1].mean(dim=0), atol=1e-4, rtol=0)
