"""MatBERT as a permutation language model: nothing leaks, the content stream is the encoder, it learns, it is saved."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from matfm import MatBERTConfig, MatBERTForPermutationLM, MatBERTModel, MatfmError, SmilesTokenizer
from matfm.chem.vocabulary import SPECIAL_TOKENS
from matfm.core.attention_context import AttentionContext, AttentionRun
from matfm.core.batching import EpochBatches, RaggedTokens
from matfm.core.layout import PackedLayout
from matfm.core.optim import OptimizerConfig
from matfm.core.permutation_lm import FactorisationOrder, draw_factorisation_order, packed_two_stream_masks
from matfm.core.steps import permutation_step
from matfm.core.trainer import LoopConfig, fit, read_log
from matfm.core.two_streams import TwoStreams

VOCABULARY = 30
PLACED = ["rotary", "absolute", "sinusoidal"]
LENGTHS = [4, 4, 7, 9, 9, 9]


def built(positions="rotary", vocabulary=VOCABULARY):
    torch.manual_seed(0)
    config = MatBERTConfig.of_size("tiny", vocab_size=vocabulary, position_embedding=positions)
    return MatBERTForPermutationLM(config)


def drawn(one_in=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layout = PackedLayout.from_lengths(LENGTHS)
    ids = torch.randint(3, VOCABULARY, (layout.tokens,), generator=generator)  # special tokens (below 5) among them
    return ids, layout, draw_factorisation_order(ids, layout, ids >= 5, one_in, generator)


def rows(layout):
    return torch.arange(layout.sequences).repeat_interleave(torch.tensor(layout.lengths()))


def changed(ids):
    return torch.where(ids == VOCABULARY - 1, 5, ids + 1)


def in_one_order(rank, layout, positions, ids):
    return FactorisationOrder(rank, positions, ids[positions])


@pytest.mark.parametrize("positions", PLACED)
def test_a_prediction_depends_on_the_tokens_known_earlier_and_on_no_others(positions):
    model = built(positions).double().eval()
    ids, layout, order = drawn()
    assert len({int(count) for count in torch.bincount(rows(layout)[order.positions_M])}) > 1
    plain = model.logits_packed(ids, layout, order)
    row = rows(layout)
    for token in range(layout.tokens):
        other = ids.clone()
        other[token] = changed(ids[token])
        differs = (model.logits_packed(other, layout, order) != plain).any(dim=1)
        earlier = order.rank_N[token] < order.rank_N[order.positions_M]
        assert torch.equal(differs, earlier & (row[token] == row[order.positions_M]))


@pytest.mark.parametrize("positions", PLACED)
def test_a_prediction_depends_on_its_place(positions):
    model = built(positions).double().eval()
    ids, layout = torch.tensor([2, 6, 7, 8]), PackedLayout.from_lengths([4])
    known = torch.tensor([0, 1, 2, 2])
    both = model.logits_packed(ids, layout, in_one_order(known, layout, torch.tensor([2, 3]), ids))
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize("positions", PLACED)
def test_the_content_stream_is_the_encoder_with_the_mask_of_the_order(positions):
    model = built(positions).double().eval()
    ids, layout, order = drawn()
    seen = []
    hook = model.matbert.encoder.register_forward_hook(lambda *call: seen.append(call[-1]))
    model.logits_packed(ids, layout, order)
    hook.remove()
    is_token = TwoStreams.join(order, layout).source_P < layout.tokens
    hidden = model.matbert.embed_positions(model.matbert.embed_tokens(ids), layout.positions())
    rotary, masks = model.matbert.rotary, packed_two_stream_masks(order.rank_N, layout)
    runs = [
        AttentionRun(
            count, length, length, content[:, None],
            rotation=None if rotary is None else rotary(torch.arange(length), torch.float64),
        )
        for (count, length), (content, _) in zip(layout.runs, masks, strict=True)
    ]  # fmt: skip
    plain = model.matbert.encoder(hidden, AttentionContext(tuple(runs)))
    for joined, alone in zip(seen[0][:-1], plain[:-1], strict=True):
        torch.testing.assert_close(joined[is_token], alone)


def content_states(model, ids, layout, rank):
    """Normed output of the content stream of an order."""
    order = in_one_order(rank, layout, torch.empty(0, dtype=torch.long), ids)
    streams = TwoStreams.join(order, layout)
    hidden = streams.hidden(model.matbert.embed_tokens(ids), model.embed_query.weight)
    hidden = model.matbert.embed_positions(hidden, streams.positions_P)
    return model.matbert.encoder(hidden, streams.context(hidden, model.matbert.rotary))[-1]


def test_from_left_to_right_it_is_causal_and_with_one_rank_for_all_it_is_the_plain_encoder():
    model = built().double().eval()
    ids, layout, _ = drawn()
    encoder = model.matbert
    hidden = encoder.embed_tokens(ids)
    context = AttentionContext.packed(layout, hidden, causal=True, rotary=encoder.rotary)
    left_to_right = content_states(model, ids, layout, layout.positions())
    torch.testing.assert_close(left_to_right, encoder.encoder(hidden, context)[-1])
    known = content_states(model, ids, layout, torch.zeros_like(ids))
    torch.testing.assert_close(known, encoder.forward_packed(ids, None, layout))


def test_other_sequences_and_other_queries_change_nothing():
    model = built().double().eval()
    ids, layout, order = drawn()
    together = model.logits_packed(ids, layout, order)
    for column, place in enumerate(order.positions_M.tolist()):
        here = rows(layout) == rows(layout)[place]
        at = torch.tensor([place - int(here.nonzero()[0])])
        alone = in_one_order(order.rank_N[here], layout, at, ids[here])
        logits = model.logits_packed(ids[here], PackedLayout.from_lengths([int(here.sum())]), alone)
        torch.testing.assert_close(logits[0], together[column])
    shuffled = torch.randperm(len(order.positions_M))
    mixed = in_one_order(order.rank_N, layout, order.positions_M[shuffled], ids)
    torch.testing.assert_close(model.logits_packed(ids, layout, mixed), together[shuffled])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_equals_packed_in_loss_and_gradients(side):
    tokenizer = SmilesTokenizer(padding_side=side)
    texts = ["CCO", "c1ccccc1", "CC(=O)O"]
    model = built(vocabulary=len(tokenizer)).double()
    sequences = [torch.tensor(tokenizer(text)["input_ids"]) for text in sorted(texts, key=len)]
    ids, layout = torch.cat(sequences), PackedLayout.from_lengths(map(len, sequences))
    ordinary = ids >= len(SPECIAL_TOKENS)
    order = draw_factorisation_order(ids, layout, ordinary, 2, torch.Generator().manual_seed(0))
    logits = model.logits_packed(ids, layout, order)
    loss = torch.nn.functional.cross_entropy(logits, order.labels_M)
    batch = tokenizer(sorted(texts, key=len), padding=True, return_tensors="pt")
    real = batch["attention_mask"].bool()
    ranks = torch.zeros_like(batch["input_ids"]).masked_scatter(real, order.rank_N)
    label_N = torch.full_like(ids, -100).index_copy(0, order.positions_M, order.labels_M)
    labels = torch.full_like(batch["input_ids"], -100).masked_scatter(real, label_N)
    output = model(batch["input_ids"], batch["attention_mask"], ranks=ranks, labels=labels)
    torch.testing.assert_close(output.loss, loss)
    torch.testing.assert_close(output.logits[labels >= 0], logits)
    assert not output.logits[labels < 0].any()
    parameters = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(output.loss, parameters, allow_unused=True),
        torch.autograd.grad(loss, parameters, allow_unused=True),
        strict=True,
    ):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.isfinite().all()
            torch.testing.assert_close(one, other)


def test_learns_real_molecules_better_than_their_token_frequencies(tmp_path):
    lines = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()
    tokenizer = SmilesTokenizer()
    tokens = tokenizer(lines)["input_ids"]
    ordinary = torch.arange(len(tokenizer)) >= len(SPECIAL_TOKENS)
    counts = torch.bincount(torch.cat([torch.tensor(ids) for ids in tokens]), minlength=len(tokenizer)) * ordinary
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * shares.log()).sum().item()
    data = RaggedTokens.from_sequences([(ids, [0.0] * len(ids)) for ids in tokens])
    model = built(vocabulary=len(tokenizer))
    fit(
        model, permutation_step(ordinary), EpochBatches(data, 1500, seed=0), OptimizerConfig(learning_rate=5e-3),
        LoopConfig(steps=120, log_every=30), tmp_path, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    losses = [record["loss"] for record in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < entropy - 0.4


def test_its_file_serves_the_other_classes(tmp_path):
    model = built().eval()
    model.save_pretrained(tmp_path)
    ids, layout, order = drawn()
    loaded = MatBERTForPermutationLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.logits_packed(ids, layout, order), model.logits_packed(ids, layout, order))
    assert loaded.lm_head.decoder.weight is loaded.matbert.embed_tokens.weight
    (backbone, report), (masked, masked_report) = (
        auto.from_pretrained(tmp_path, output_loading_info=True) for auto in (AutoModel, AutoModelForMaskedLM)
    )
    assert not any(report.values())
    assert not any(masked_report.values())
    assert isinstance(backbone, MatBERTModel)
    plain = model.matbert.forward_packed(ids, None, layout)
    assert torch.equal(backbone.eval().forward_packed(ids, None, layout), plain)
    torch.testing.assert_close(masked.eval()(ids[None, :9]).logits, model.lm_head(model.matbert(ids[None, :9])[0]))


def test_what_cannot_be_predicted_is_named():
    with pytest.raises(MatfmError, match="by their place, but model.position_embedding is 'none'; choose rotary"):
        MatBERTForPermutationLM(MatBERTConfig.of_size("tiny"))
    ids, layout = torch.tensor([2, 6, 7]), PackedLayout.from_lengths([3])
    order = in_one_order(torch.tensor([0, 1, 2]), layout, torch.tensor([0, 2]), ids)
    with pytest.raises(MatfmError, match="the first token of an order cannot be predicted"):
        built().logits_packed(ids, layout, order)
