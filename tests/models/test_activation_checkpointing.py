"""Hugging Face's switch for activation checkpointing: equal values and gradients, less memory, in every family."""

import copy

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, Trainer, TrainingArguments

from matfm import (
    MatBERTConfig,
    MatBERTForMaskedLM,
    MatGPTConfig,
    MatGPTForCausalLM,
    MatT5Config,
    MatT5ForConditionalGeneration,
)

SHAPE = {"vocab_size": 30, "num_hidden_layers": 4}
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
FAMILIES = {
    "matbert": lambda: MatBERTForMaskedLM(
        MatBERTConfig.of_size("tiny", position_embedding="rotary", **SHAPE, **DROPOUT)
    ),
    "matgpt": lambda: MatGPTForCausalLM(MatGPTConfig.of_size("tiny", **SHAPE, **DROPOUT)),
    "matt5": lambda: MatT5ForConditionalGeneration(MatT5Config.of_size("tiny", dropout_rate=0.2, **SHAPE)),
}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return FAMILIES[request.param]().train()


def batch():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(12) < torch.tensor([[12], [7], [12], [9]])).long()
    ids = torch.randint(5, 30, (4, 12), generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def loss_and_gradients(model, **options):
    torch.manual_seed(1)
    model.zero_grad()
    loss = model(**batch(), **options).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


def kept(model):
    """Numbers that the forward pass keeps for the backward pass."""
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t.numel()) or t, lambda t: t):
        model(**batch())
    return sum(stored)


def equal(ones, others):
    return len(ones) == len(others) and all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def test_values_and_gradients_are_equal_and_less_is_kept(model):
    plain, names, much = loss_and_gradients(model), list(model.state_dict()), kept(model)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    assert equal(plain, loss_and_gradients(model))
    assert list(model.state_dict()) == names
    little = kept(model)
    assert little < 0.5 * much
    model.activation_checkpointing_enable(every_n_layers=2)
    assert equal(plain, loss_and_gradients(model))
    assert little < kept(model) < much
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing
    assert kept(model) == much
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprecated:FutureWarning")
def test_the_older_name_and_the_reentrant_kind_give_the_same(model):
    plain = loss_and_gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    assert equal(plain, loss_and_gradients(model))
    model.gradient_checkpointing_disable()
    assert not model.is_activation_checkpointing


def test_the_switch_works_inside_a_copy_and_from_the_part_inside(model):
    plain = loss_and_gradients(model)
    model.base_model.activation_checkpointing_enable()
    twin = copy.deepcopy(model)
    twin.activation_checkpointing_disable()
    assert not any(part.is_activation_checkpointing for part in (twin, twin.base_model))
    assert model.is_activation_checkpointing
    assert kept(model) < 0.5 * kept(twin)
    assert equal(plain, loss_and_gradients(twin))


@pytest.mark.parametrize("family", ["matgpt", "matt5"])
def test_caches_are_written_once(family):
    torch.manual_seed(0)
    model = FAMILIES[family]().train()
    plain = loss_and_gradients(model, use_cache=True)
    model.activation_checkpointing_enable()
    cache = DynamicCache(config=model.config)
    if family == "matt5":
        cache = EncoderDecoderCache(cache, DynamicCache(config=model.config))
    assert equal(plain, loss_and_gradients(model, past_key_values=cache))
    assert cache.get_seq_length() == 12


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprecated:FutureWarning")
def test_trainer_trains_the_same_weights_with_it(model, tmp_path):
    rows = [{name: values[row] for name, values in batch().items()} for row in range(4)]
    twin = copy.deepcopy(model)
    for each, checkpointing in ((model, False), (twin, True)):
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[],
            disable_tqdm=True, save_strategy="no", use_cpu=True, gradient_checkpointing=checkpointing, seed=0,
        )  # fmt: skip
        Trainer(each, arguments, train_dataset=rows).train()
        assert each.is_activation_checkpointing == checkpointing
    assert equal(list(model.parameters()), list(twin.parameters()))
