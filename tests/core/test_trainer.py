"""The loop: accumulation, resume, damaged checkpoints, the guard against infinite losses, early stopping."""

import json
import math

import pytest
import torch

from matfm.core.batching import EpochBatches
from matfm.core.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from matfm.core.optim import OptimizerConfig, parameter_groups, schedule_factor
from matfm.core.trainer import LoopConfig, StepOutput, fit, read_log
from matfm.errors import MatfmError, RunError
from matfm.tasks.predictor import property_step

CPU = torch.device("cpu")


def train(
    model,
    tokens,
    folder,
    steps=12,
    *,
    accumulate=1,
    tokens_per_batch=40,
    resume=False,
    step=property_step,
    sam=0.0,
    **loop,
):
    batches = EpochBatches(tokens, tokens_per_batch, seed=0)
    config = LoopConfig(steps=steps, accumulate=accumulate, checkpoint_every=4, log_every=1, **loop)
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup=0.2, sam=sam)
    return fit(model, step, batches, optimizer, config, folder, seed=0, device=CPU, resume=resume)


def test_overfits_a_few_rows(tiny_model, tiny_tokens, tmp_path):
    train(tiny_model, tiny_tokens, tmp_path, steps=200, tokens_per_batch=400)
    losses = [record["loss"] for record in read_log(tmp_path / "log.jsonl")]
    assert sum(losses[-5:]) / 5 < 0.1 * losses[0]


LOOPS = {
    "norm": {"clip": "norm"},
    "value": {"clip": "value", "clip_value": 0.01},
    "adaptive": {"clip": "adaptive"},
    "none": {"clip": "none"},
    "sam": {"sam": 0.05},
    "ema": {"average": "ema", "ema_decay": 0.5},
    "swa": {"average": "swa", "swa_start": 0.5},
}


@pytest.mark.parametrize("options", LOOPS.values(), ids=LOOPS)
def test_accumulated_small_batches_equal_one_big_batch(tiny_model, tiny_tokens, tmp_path, options):
    import copy

    tiny_model = tiny_model.double()
    tiny_tokens.amounts_N = tiny_tokens.amounts_N.astype("float64")
    tiny_tokens.targets_RK = tiny_tokens.targets_RK.astype("float64")
    other = copy.deepcopy(tiny_model)
    total = int(tiny_tokens.lengths_R.sum())
    train(tiny_model, tiny_tokens, tmp_path / "big", steps=2, tokens_per_batch=10 * total, **options)
    parts = EpochBatches(tiny_tokens, total // 4, seed=0).batches_per_epoch
    train(other, tiny_tokens, tmp_path / "parts", steps=2, tokens_per_batch=total // 4, accumulate=parts, **options)
    for big, small in zip(tiny_model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(big, small, rtol=1e-6, atol=1e-9)


class KilledError(Exception):
    pass


def interrupted(at):
    """A step function that fails after `at` calls, as a kill would."""
    calls = 0

    def step(model, batch, rng):
        nonlocal calls
        calls += 1
        if calls > at:
            raise KilledError
        return property_step(model, batch, rng)

    return step


def fresh(seed=0):
    from matfm import MatBERTConfig
    from matfm.models.matbert import MatBERTForPretraining

    torch.manual_seed(seed)
    names = ["band_gap", "energy_per_atom"]
    return MatBERTForPretraining(
        MatBERTConfig.of_size("tiny", property_names=names, property_units=["", ""], hidden_dropout_prob=0.1)
    )


def weights_after_interruption(tokens, folder, at, damage=None, **options):
    with pytest.raises(KilledError):
        train(fresh(), tokens, folder, step=interrupted(at), **options)
    if damage:
        damage(folder / "checkpoints")
    # Other weights, to see that they are replaced, where a checkpoint was written before the interruption.
    model = fresh(seed=1 if at >= 4 else 0)
    train(model, tokens, folder, resume=True, **options)
    return model.state_dict()


@pytest.fixture
def uninterrupted(tiny_tokens, tmp_path):
    model = fresh()
    train(model, tiny_tokens, tmp_path / "whole")
    return model.state_dict()


def assert_bit_equal(left, right):
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("at", [2, 5, 11])
def test_resumed_weights_are_bit_equal_with_dropout_on(tiny_tokens, tmp_path, uninterrupted, at):
    assert_bit_equal(weights_after_interruption(tiny_tokens, tmp_path / "cut", at), uninterrupted)
    whole = [r["loss"] for r in read_log(tmp_path / "whole" / "log.jsonl")]
    assert [r["loss"] for r in read_log(tmp_path / "cut" / "log.jsonl")] == whole


RESUMED = {
    "ema": {"average": "ema", "ema_decay": 0.8},
    "swa": {"average": "swa", "swa_start": 0.3},
    "sam": {"sam": 0.05},
    "bfloat16": {"precision": "bfloat16"},
    "accumulate": {"accumulate": 2, "tokens_per_batch": 20},
}


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED)
def test_every_state_is_in_the_checkpoint(tiny_tokens, tmp_path, options):
    model = fresh()
    train(model, tiny_tokens, tmp_path / "whole", **options)
    assert_bit_equal(weights_after_interruption(tiny_tokens, tmp_path / "cut", 11, **options), model.state_dict())


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def truncate(content):
    return content[:-10]


def empty(content):
    return b""


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, empty])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(
    tiny_tokens, tmp_path, uninterrupted, damage, file, caplog
):
    def spoil(checkpoints):
        path = checkpoints / "step-000000008" / file
        path.write_bytes(damage(path.read_bytes()))

    assert_bit_equal(weights_after_interruption(tiny_tokens, tmp_path / "cut", 10, spoil), uninterrupted)
    assert "step-000000008 is damaged" in caplog.text


def test_any_flipped_bit_of_the_state_is_noticed_or_harmless(tmp_path):
    checkpoint = Checkpoint(3, {"model": {"w": torch.ones(2)}}, {"progress": {"step": 3, "best_score": math.inf}})
    path = write_checkpoint(tmp_path, checkpoint) / "state.json"
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in (0, 3, 5):
            path.write_bytes(content[:position] + bytes([content[position] ^ (1 << bit)]) + content[position + 1 :])
            found = newest_checkpoint(tmp_path)
            assert found is None or (found.step, found.state) == (checkpoint.step, checkpoint.state)


def test_a_flipped_bit_of_the_average_is_noticed(tiny_tokens, tmp_path, caplog):
    with pytest.raises(KilledError):
        train(fresh(), tiny_tokens, tmp_path, step=interrupted(10), average="ema")
    path = tmp_path / "checkpoints" / "step-000000008" / "average.safetensors"
    path.write_bytes(flip_a_bit(path.read_bytes()))
    assert newest_checkpoint(tmp_path / "checkpoints").step == 4
    assert "average.safetensors does not match its sha256" in caplog.text


def test_the_average_is_evaluated_and_kept(tiny_model, tiny_tokens, tmp_path):
    evaluated = []

    def evaluate(model):
        evaluated.append(model.property_head.dense.weight.detach().clone())
        return {"score": 0.0}

    seen = []

    def step(model, batch, rng):
        seen.append(model.property_head.dense.weight.detach().clone())
        return property_step(model, batch, rng)

    loop = LoopConfig(steps=8, average="swa", swa_start=0.5)
    batches = EpochBatches(tiny_tokens, 40, seed=0)
    config = OptimizerConfig(schedule="constant")
    fit(tiny_model, step, batches, config, loop, tmp_path, seed=0, device=CPU, evaluate=evaluate)
    kept = tiny_model.property_head.dense.weight.detach()
    assert torch.equal(evaluated[0], kept)
    # Weights after steps 5, 6 and 7 are those seen by steps 6, 7 and 8; the last ones follow from the mean.
    last = 4 * kept - sum(seen[5:])
    assert 0 < float((last - seen[7]).abs().max()) < 10 * config.learning_rate


def test_early_stopping_is_remembered_by_a_resumed_run(tiny_tokens, tmp_path):
    def evaluate(model):
        return {"score": 1.0}

    def run(resume):
        loop = LoopConfig(steps=60, evaluate_every=2, patience=3, checkpoint_every=4, keep_best=True)
        batches = EpochBatches(tiny_tokens, 40, seed=0)
        model = fresh()
        result = fit(model, property_step, batches, OptimizerConfig(), loop, tmp_path, seed=0, device=CPU,
                     evaluate=evaluate, resume=resume)  # fmt: skip
        return model.state_dict(), {**result, "seconds": 0}

    (weights, result), (again, resumed) = run(False), run(True)
    assert result == resumed
    assert (result["steps"], result["best_step"], result["valid"]) == (8, 2, {"score": 1.0})
    assert_bit_equal(weights, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": "l2"}, "clip is 'l2'; choose one of norm, value, adaptive, none"),
        ({"clip_value": 0.0}, "clip_value is 0.0; it must be positive"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0; it must not be negative"),
        ({"average": "mean"}, "average is 'mean'; choose one of none, ema, swa"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"shard": "zero"}, "shard is 'zero'; choose one of auto, none, ddp, fsdp"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(MatfmError, match=message):
        LoopConfig(**{"steps": 1, **options})


def test_an_infinite_loss_stops_with_step_rows_and_rate(tiny_model, tiny_tokens, tmp_path):
    def step(model, batch, rng):
        output = property_step(model, batch, rng)
        return StepOutput(output.loss_sum * (math.inf if 7 in batch.rows_B.tolist() else 1), output.weight)

    with pytest.raises(RunError, match=r"not finite at step \d+ \(learning rate .*data rows \[.*7"):
        train(tiny_model, tiny_tokens, tmp_path, steps=20, tokens_per_batch=20, step=step)


def test_early_stopping_keeps_the_best_weights(tiny_model, tiny_tokens, tmp_path):
    scores = iter([3.0, 1.0, 2.0, 2.5, 2.6, 0.1])
    snapshots = []

    def evaluate(model):
        snapshots.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": next(scores)}

    batches = EpochBatches(tiny_tokens, 40, seed=0)
    loop = LoopConfig(steps=60, evaluate_every=2, keep_best=True, patience=3)
    result = fit(
        tiny_model, property_step, batches, OptimizerConfig(), loop, tmp_path, seed=0, device=CPU, evaluate=evaluate
    )
    assert (result["steps"], result["best_step"]) == (10, 4)
    assert_bit_equal(tiny_model.state_dict(), snapshots[1])


def test_a_log_cut_in_the_middle_of_a_line_is_read(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}]


def test_schedules_warm_up_peak_and_end():
    for name, middle, end in (("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)):
        config = OptimizerConfig(schedule=name, warmup=0.1)
        assert schedule_factor(config, 0, 100) == pytest.approx(0.1)
        assert schedule_factor(config, 9, 100) == pytest.approx(1.0)
        assert schedule_factor(config, 55, 100) == pytest.approx(middle, abs=0.02)
        assert schedule_factor(config, 100, 100) == pytest.approx(end)
    with pytest.raises(MatfmError, match="schedule is 'triangle'; choose one of cosine"):
        OptimizerConfig(schedule="triangle")


def test_groups_decay_matrices_only_and_slow_down_lower_layers(tiny_model):
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    groups = parameter_groups(tiny_model, config, tiny_model.matbert.layers_from_top)
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    named = dict(tiny_model.named_parameters())

    def group(name):
        return of[id(named[name])]["peak_lr"], of[id(named[name])]["weight_decay"]

    assert len(of) == len(named)
    assert group("property_head.out.weight") == (1.0, 0.1)
    assert group("property_head.out.bias") == (1.0, 0.0)
    assert group("matbert.encoder.blocks.1.feed_forward.up.weight") == (0.5, 0.1)
    assert group("matbert.encoder.blocks.0.attention_norm.weight") == (0.25, 0.0)
    assert group("matbert.embed_tokens.weight") == (0.125, 0.0)
