"""Step functions on small stand-in models: the loss is that of the definition, and it can be learned."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from matfm.core.batching import EpochBatches, RaggedTokens
from matfm.core.denoising import DenoisingConfig
from matfm.core.objectives import causal_lm_loss
from matfm.core.optim import OptimizerConfig
from matfm.core.packed_index import lengths_of_sequences, rows_of_tokens
from matfm.core.permutation_lm import packed_two_stream_masks
from matfm.core.span_corruption import SpanConfig, corrupt_spans
from matfm.core.steps import (
    causal_step,
    contrastive_step,
    denoising_step,
    noisy_view,
    permutation_step,
    span_step,
)
from matfm.core.trainer import LoopConfig, fit, read_log

START, END, MASK, DOT, VOCABULARY = 2, 3, 4, 5, 24
SENTINELS = torch.arange(20, 24)
ORDINARY = torch.arange(VOCABULARY) >= 5
WIDTH = 32


def summed_before(hidden_ND, layout):
    """Mean over each token and those before it in its sequence."""
    parts = hidden_ND.split(lengths_of_sequences(layout).tolist())
    return torch.cat([part.cumsum(0) / torch.arange(1, len(part) + 1, device=part.device)[:, None] for part in parts])


class Stand(nn.Module):
    """Embeddings and two linear maps; subclasses mix tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def read(self, own_ND, mixed_ND):
        return self.head(torch.tanh(self.mix(torch.cat([own_ND, mixed_ND], dim=1))))


class Decoder(Stand):
    def logits_packed(self, ids_N, layout):
        hidden_ND = self.embed(ids_N)
        return self.read(hidden_ND, summed_before(hidden_ND, layout))


class EncoderDecoder(Stand):
    def logits_packed(self, input_ids_N, input_layout, target_ids_M, target_layout):
        assert input_layout.sequences == target_layout.sequences
        memory_BD = input_layout.mean(self.embed(input_ids_N))
        hidden_MD = self.embed(target_ids_M)
        return self.read(
            hidden_MD,
            summed_before(hidden_MD, target_layout) + memory_BD[rows_of_tokens(target_layout).to(memory_BD.device)],
        )


class TwoStream(Stand):
    def logits_packed(self, ids_N, layout, order):
        hidden_ND = self.embed(ids_N)
        blocks = zip(hidden_ND.split(layout.sizes()), packed_two_stream_masks(order.rank_N, layout), strict=True)
        known_ND = torch.cat(
            [(query.to(block.dtype) @ block.view(*query.shape[:2], -1)).flatten(0, 1) for block, (_, query) in blocks]
        )
        return self.read(torch.zeros_like(known_ND), known_ND)[order.positions_M]


class Embedder(Stand):
    def embed_packed(self, ids_N, amounts_N, layout):
        assert len(ids_N) == len(amounts_N) == layout.tokens
        return layout.mean(self.embed(ids_N) * (1 + amounts_N[:, None]))


@pytest.fixture
def tokens():
    """Sequences that can be foretold: arithmetic rows of ids between start and end."""
    rows = []
    for first in range(6, 12):
        for length in (4, 6, 8):
            ids = [START, *(6 + (first + k) % 12 for k in range(length)), END]
            rows.append((ids, np.linspace(0, 1, len(ids)).tolist()))
    return RaggedTokens.from_sequences(rows)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


CASES = {
    "causal": (Decoder, causal_step()),
    "span": (EncoderDecoder, span_step(ORDINARY, SENTINELS, START, END, SpanConfig(0.3, 2))),
    "denoising": (EncoderDecoder, denoising_step(ORDINARY, MASK, DOT, DenoisingConfig(deleted=0.1))),
    "permutation": (TwoStream, permutation_step(ORDINARY, 3)),
    "contrastive": (
        Embedder,
        contrastive_step(0.1, noisy_view(ORDINARY, MASK, DOT, DenoisingConfig(infilled=0, deleted=0.1))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_objective_is_learned_in_the_one_loop(tokens, tmp_path, name):
    model_class, step = CASES[name]
    torch.manual_seed(0)
    loop = LoopConfig(steps=120, log_every=1)
    optimizer = OptimizerConfig(learning_rate=2e-2, weight_decay=0.0)
    fit(
        model_class(),
        step,
        EpochBatches(tokens, 200, seed=0),
        optimizer,
        loop,
        tmp_path,
        seed=0,
        device=torch.device("cpu"),
    )
    losses = [record["loss"] for record in read_log(tmp_path / "log.jsonl")]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])


@pytest.mark.parametrize("name", CASES)
def test_the_same_generator_gives_the_same_loss(tokens, name):
    model_class, step = CASES[name]
    torch.manual_seed(0)
    model, batch = model_class(), tokens.batch(np.arange(len(tokens)))
    first, second = (step(model, batch, generator(7)) for _ in range(2))
    assert first.loss_sum.item() == second.loss_sum.item()
    assert math.isfinite(first.loss_sum.item())
    assert first.weight.item() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_same_on_a_gpu(tokens, name):
    model_class, step = CASES[name]
    torch.manual_seed(0)
    model, batch = model_class().double(), tokens.batch(np.arange(len(tokens)))
    here = step(model, batch, generator(7))
    there = step(model.cuda(), batch.to(torch.device("cuda")), generator(7))
    torch.testing.assert_close(there.loss_sum.cpu(), here.loss_sum)
    assert there.weight.item() == here.weight.item()


def test_causal_batches_add_up(tokens):
    torch.manual_seed(0)
    model, step = Decoder().double(), causal_step(0.1)
    whole = step(model, tokens.batch(np.arange(len(tokens))), generator())
    parts = [step(model, tokens.batch(np.array([row])), generator()) for row in range(len(tokens))]
    torch.testing.assert_close(whole.loss_sum, sum(part.loss_sum for part in parts))
    assert whole.weight == sum(part.weight for part in parts) == len(tokens.ids_N) - len(tokens)


def test_span_step_is_the_causal_loss_of_the_targets(tokens):
    torch.manual_seed(0)
    model, batch = EncoderDecoder().double(), tokens.batch(np.arange(len(tokens)))
    output = span_step(ORDINARY, SENTINELS, START, END, SpanConfig())(model, batch, generator(3))
    spans = corrupt_spans(
        batch.ids_N, batch.layout, ORDINARY[batch.ids_N], SENTINELS, START, END, SpanConfig(), generator(3)
    )
    logits = model.logits_packed(spans.input_ids_N, spans.input_layout, spans.target_ids_M, spans.target_layout)
    total, weight = causal_lm_loss(logits, spans.target_ids_M, spans.target_layout)
    assert (output.loss_sum.item(), output.weight.item()) == (total.item(), weight.item())


def test_contrastive_views_without_noise_agree_and_groups_are_no_negatives(tokens):
    torch.manual_seed(0)
    model, batch = Embedder(), tokens.batch(np.arange(len(tokens)))
    apart = contrastive_step(1e-3)(model, batch, generator())
    assert apart.loss_sum.item() / apart.weight.item() < 0.1
    together = contrastive_step(1e3, groups=lambda batch: torch.zeros_like(batch.rows_B))(model, batch, generator())
    assert together.loss_sum.item() == pytest.approx(0, abs=1e-6)
    assert together.weight.item() == len(tokens)


def test_a_view_that_changes_the_order_is_refused(tokens):
    batch, other = tokens.batch(np.arange(3)), tokens.batch(np.array([0, 3, 6]))
    with pytest.raises(ValueError, match="keep the sequences and their order"):
        contrastive_step(view=lambda *_: other)(Embedder(), batch, generator())


def test_views_keep_the_amounts_of_their_tokens(tokens):
    batch = tokens.batch(np.arange(len(tokens)))
    seen = noisy_view(ORDINARY, MASK, DOT, DenoisingConfig(masked=0.2, deleted=0.2))(batch, generator())
    pairs = set(
        zip(
            batch.rows_B[rows_of_tokens(batch.layout)].tolist(),
            batch.ids_N.tolist(),
            batch.amounts_N.tolist(),
            strict=True,
        )
    )
    rows = seen.rows_B[rows_of_tokens(seen.layout)].tolist()
    for row, token, amount in zip(rows, seen.ids_N.tolist(), seen.amounts_N.tolist(), strict=True):
        assert (row, token, amount) in pairs or (token, amount) == (MASK, 0)
