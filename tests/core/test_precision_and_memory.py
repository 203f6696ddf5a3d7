"""Autocast, loss scaling, activation checkpointing and compilation against the plain path."""

import copy
import sys

import pytest
import torch

from matfm.core.acceleration import checkpoint_activations, compile_feed_forward, repeated_blocks
from matfm.core.batching import EpochBatches
from matfm.core.optim import OptimizerConfig
from matfm.core.precision import LossScale
from matfm.core.trainer import LoopConfig, fit, read_log
from matfm.errors import MatfmError, RunError
from matfm.tasks.predictor import property_step

CPU = torch.device("cpu")


def losses(model, tokens, folder, **options):
    loop = LoopConfig(steps=8, log_every=1, **options)
    fit(model, property_step, EpochBatches(tokens, 40, 0), OptimizerConfig(), loop, folder, seed=0, device=CPU)
    return [record["loss"] for record in read_log(folder / "log.jsonl")]


def gradients(model, tokens):
    torch.manual_seed(5)
    model.zero_grad()
    property_step(model, EpochBatches(tokens, 400, 0).next(), torch.Generator()).loss_sum.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def with_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    return model.train()


def test_activation_checkpointing_gives_equal_gradients_with_dropout(tiny_model, tiny_tokens):
    plain = gradients(with_dropout(tiny_model), tiny_tokens)
    names = list(tiny_model.state_dict())
    undo = checkpoint_activations(tiny_model)
    assert list(tiny_model.state_dict()) == names
    again = gradients(tiny_model, tiny_tokens)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    undo()
    assert all("forward" not in vars(module) for module in tiny_model.modules())


def test_activation_checkpointing_keeps_fewer_activations(tiny_model, tiny_tokens):
    def kept(model):
        stored = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t.numel()) or t, lambda t: t):
            property_step(model, EpochBatches(tiny_tokens, 400, 0).next(), torch.Generator())
        return sum(stored)

    before = kept(tiny_model)
    checkpoint_activations(tiny_model)
    assert kept(tiny_model) < before / 2


def test_a_checkpointed_run_equals_a_plain_one(tiny_model, tiny_tokens, tmp_path):
    other = copy.deepcopy(tiny_model)
    plain = losses(tiny_model, tiny_tokens, tmp_path / "a")
    assert losses(other, tiny_tokens, tmp_path / "b", activation_checkpointing=True) == plain


def test_blocks_are_found(tiny_model):
    assert [name for name, _ in repeated_blocks(tiny_model)] == ["matbert.encoder.blocks.0", "matbert.encoder.blocks.1"]


def test_bfloat16_stays_close_to_float32(tiny_model, tiny_tokens, tmp_path):
    other = copy.deepcopy(tiny_model)
    plain = losses(tiny_model, tiny_tokens, tmp_path / "a")
    rounded = losses(other, tiny_tokens, tmp_path / "b", precision="bfloat16")
    assert plain != rounded
    assert rounded == pytest.approx(plain, rel=0.05)
    assert all(p.dtype == torch.float32 for p in other.parameters())


def test_float16_needs_cuda(tiny_model, tiny_tokens, tmp_path):
    with pytest.raises(MatfmError, match="precision float16 needs CUDA and the device is cpu; use bfloat16"):
        losses(tiny_model, tiny_tokens, tmp_path, precision="float16")


def test_the_loss_scale_halves_on_overflow_and_doubles_after_good_steps():
    scale = LossScale(8.0, patience=2)
    assert scale.skips(True, False)
    assert scale.value == 4.0
    assert not scale.skips(True, True)
    assert not scale.skips(True, True)
    assert scale.value == 8.0
    assert not scale.skips(False, False)  # a loss that is not finite is for the guard
    other = LossScale(1.0)
    other.load_state_dict(scale.state_dict())
    assert other.value == 8.0
    for _ in range(3):
        assert scale.skips(True, False)
    with pytest.raises(RunError, match="overflow at every loss scale"):
        scale.skips(True, False)


def test_a_fixed_scale_never_skips():
    assert not LossScale().skips(True, False)
    assert LossScale().value == 1.0


def test_scaled_losses_give_the_same_weights_and_overflows_are_skipped(tiny_model, tiny_tokens, tmp_path, monkeypatch):
    """The float16 path of the loop with float32 numbers, where scaling by powers of two is exact."""
    other = copy.deepcopy(tiny_model)
    plain = losses(tiny_model, tiny_tokens, tmp_path / "a")
    scale = LossScale(2.0**10)
    monkeypatch.setattr("matfm.core.trainer.loss_scale_for", lambda precision, device: scale)
    assert losses(other, tiny_tokens, tmp_path / "b") == pytest.approx(plain, rel=1e-5)
    # 2^126 times a gradient is more than float32 holds: the first steps only lower the scale.
    scale.value = 2.0**126
    before = {name: value.clone() for name, value in other.state_dict().items()}
    losses(other, tiny_tokens, tmp_path / "c", clip="none")
    assert scale.value < 2.0**126
    assert all(
        torch.isfinite(value).all()
        for name, value in other.state_dict().items()
        if "bound" not in name and "head.lower" not in name and "head.upper" not in name
    )
    assert before.keys() == other.state_dict().keys()


@pytest.mark.skipif(sys.platform == "win32", reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_feed_forward_gives_the_same_losses(tiny_model, tiny_tokens, tmp_path):
    other = copy.deepcopy(tiny_model)
    plain = losses(tiny_model, tiny_tokens, tmp_path / "a")
    try:
        compiled = losses(other, tiny_tokens, tmp_path / "b", compile=True)
    except Exception as error:  # noqa: BLE001
        pytest.skip(f"torch.compile does not work here: {type(error).__name__}")
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert all(module._compiled_call_impl is None for module in other.modules())
    assert list(other.state_dict()) == list(tiny_model.state_dict())


def test_compilation_is_taken_off(tiny_model):
    undo = compile_feed_forward(tiny_model)
    assert sum(module._compiled_call_impl is not None for module in tiny_model.modules()) == 2
    undo()
    assert not any(module._compiled_call_impl for module in tiny_model.modules())
