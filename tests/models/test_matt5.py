"""MatT5: packed equals padded, cached equals uncached, batched equals single, beams; learning, saving, Trainer."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EncoderDecoderCache,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    StaticCache,
    Trainer,
    TrainingArguments,
)

from matfm import MatfmError, MatT5Config, MatT5ForConditionalGeneration, MatT5Model, SmilesTokenizer
from matfm.core.layout import PackedLayout
from matfm.core.objectives import token_loss

SOURCES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "C#N", "CC(C)C", "OCC=C", "FC(F)F"]
TARGETS = ["OCC", "C1=CC=CC=C1", "OC(C)=O", "NCC", "N#C", "C(C)(C)C", "C=CCO", "C(F)(F)F"]


@pytest.fixture
def tokenizer():
    return SmilesTokenizer()


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    # Wide initial weights: the most probable token is then no near-tie that rounding could turn.
    config = MatT5Config.of_size("tiny", vocab_size=len(tokenizer), initializer_range=0.3)
    return MatT5ForConditionalGeneration(config).eval()


def padded(tokenizer, texts=SOURCES):
    return tokenizer(texts, padding=True, return_tensors="pt")


def padded_labels(tokenizer):
    batch = padded(tokenizer, TARGETS)
    return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)


def packed(sequences):
    return torch.cat(sequences), PackedLayout.from_lengths(len(sequence) for sequence in sequences)


@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_equals_padded_in_loss_and_gradients(model, tokenizer, side):
    model = model.double()
    sources = [torch.tensor(tokenizer(text)["input_ids"]) for text in SOURCES]
    labels = [torch.tensor(tokenizer(text)["input_ids"]) for text in TARGETS]
    shifted = [model.prepare_decoder_input_ids_from_labels(ids[None])[0] for ids in labels]
    total, weight = token_loss(model.logits_packed(*packed(sources), *packed(shifted)), torch.cat(labels))
    batch = padded(SmilesTokenizer(padding_side=side))
    losses = [total / weight]
    losses += [model(**batch, labels=padded_labels(tokenizer), use_cache=cached).loss for cached in (False, True)]
    reference = torch.autograd.grad(losses[0], list(model.parameters()))
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0])
        for one, other in zip(torch.autograd.grad(loss, list(model.parameters())), reference, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("static", [False, True])
def test_one_token_at_a_time_equals_all_at_once(model, tokenizer, static):
    model, batch = model.double(), padded(tokenizer)
    target = model.prepare_decoder_input_ids_from_labels(padded_labels(tokenizer))
    whole = model(**batch, decoder_input_ids=target).logits
    cache = None
    if static:
        longest = batch["input_ids"].shape[1]
        caches = (StaticCache(config=model.config, max_cache_len=length) for length in (30, longest))
        cache = EncoderDecoderCache(*caches)
    encoded = model.get_encoder()(**batch)
    steps = []
    for place in range(target.shape[1]):
        output = model(
            attention_mask=batch["attention_mask"], encoder_outputs=encoded, past_key_values=cache, use_cache=True,
            decoder_input_ids=target[:, place : place + 1],
        )  # fmt: skip
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


@pytest.mark.parametrize(
    "settings", [{"use_cache": False}, {"cache_implementation": "static"}, {"num_beams": 3}, {"num_beams": 1}]
)
def test_batched_generation_equals_single_and_cached_equals_uncached(model, tokenizer, settings):
    limits = {"max_new_tokens": 9, "do_sample": False}
    together = model.generate(**padded(tokenizer), **limits, **settings)
    uncached = {
        "use_cache": False,
        **({"num_beams": 3} if "num_beams" in settings and settings["num_beams"] > 1 else {}),
    }
    for source, row in zip(SOURCES, together, strict=True):
        alone = model.generate(**padded(tokenizer, [source]), **limits, **uncached)[0]
        assert row[: len(alone)].tolist() == alone.tolist()
        assert set(row[len(alone) :].tolist()) <= {tokenizer.pad_token_id}


def test_beams_find_the_most_probable_target(model, tokenizer):
    batch = padded(tokenizer, SOURCES[:1])
    wide = len(tokenizer)
    found = model.generate(**batch, num_beams=wide, max_new_tokens=2, do_sample=False, eos_token_id=-1)[0, 1:]
    first = model(**batch, decoder_input_ids=torch.tensor([[0]])).logits[0, -1].log_softmax(dim=0)
    pairs = torch.stack([torch.zeros(wide, dtype=torch.long), torch.arange(wide)], dim=1)
    encoded = model.get_encoder()(**batch)
    encoded["last_hidden_state"] = encoded["last_hidden_state"].expand(wide, -1, -1)
    second = model(encoder_outputs=encoded, decoder_input_ids=pairs).logits[:, -1].log_softmax(dim=1)
    best = int((first[:, None] + second).argmax())
    assert found.tolist() == [best // wide, best % wide]


@pytest.mark.parametrize("tied", [True, False])
def test_learns_eight_pairs_and_stays_the_same_when_saved(tokenizer, tmp_path, tied):
    torch.manual_seed(0)
    config = MatT5Config.of_size("tiny", vocab_size=len(tokenizer), tie_word_embeddings=tied)
    model = MatT5ForConditionalGeneration(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        loss = model(**padded(tokenizer), labels=padded_labels(tokenizer)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[19] < 0.3 * losses[0]
    labels = padded_labels(tokenizer)
    guessed = model(**padded(tokenizer), labels=labels).logits.argmax(dim=-1)
    assert (guessed == labels)[labels >= 0].float().mean() > 0.85
    model.eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert isinstance(loaded, MatT5ForConditionalGeneration)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MatT5Config)
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), SmilesTokenizer)
    assert isinstance(AutoModel.from_pretrained(tmp_path), MatT5Model)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    for one, other in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    made, expected = (
        each.generate(**padded(tokenizer), max_new_tokens=16, num_beams=2, do_sample=False) for each in (loaded, model)
    )
    assert torch.equal(made, expected)


def test_hugging_face_trainer_trains_it(tokenizer, tmp_path):
    torch.manual_seed(0)
    model = MatT5ForConditionalGeneration(MatT5Config.of_size("tiny", vocab_size=len(tokenizer)))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=10, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_strategy="epoch", eval_strategy="epoch", use_cpu=True,
    )  # fmt: skip
    pairs = zip(SOURCES, TARGETS, strict=True)
    rows = [{**tokenizer(source), "labels": tokenizer(target)["input_ids"]} for source, target in pairs]
    collator = DataCollatorForSeq2Seq(tokenizer, model)
    trainer = Trainer(model, arguments, collator, rows, rows, processing_class=tokenizer)
    trainer.train()
    history = trainer.state.log_history
    assert [e["eval_loss"] for e in history if "eval_loss" in e][-1] < 0.4 * history[0]["loss"]


def test_hugging_face_seq2seq_trainer_generates_and_scores_whole_targets(tokenizer, tmp_path):
    torch.manual_seed(0)
    model = MatT5ForConditionalGeneration(MatT5Config.of_size("tiny", vocab_size=len(tokenizer)))
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=100, per_device_train_batch_size=8, learning_rate=5e-3, report_to=[],
        disable_tqdm=True, save_strategy="no", use_cpu=True, predict_with_generate=True, generation_max_length=20,
        generation_num_beams=2,
    )  # fmt: skip
    pairs = zip(SOURCES, TARGETS, strict=True)
    rows = [{**tokenizer(source), "labels": tokenizer(target)["input_ids"]} for source, target in pairs]

    def exact(scored):
        made, wanted = (
            tokenizer.batch_decode(ids.clip(min=0), skip_special_tokens=True)
            for ids in (scored.predictions, scored.label_ids)
        )
        assert wanted == TARGETS
        return {"exact": sum(map(str.__eq__, made, wanted)) / len(wanted)}

    collator = DataCollatorForSeq2Seq(tokenizer, model)
    trainer = Seq2SeqTrainer(
        model, arguments, collator, rows, rows, processing_class=tokenizer, compute_metrics=exact
    )  # fmt: skip
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_exact"] == 0
    assert after["eval_exact"] > 0.5
    assert after["eval_loss"] < 0.3 * before["eval_loss"]


def test_initial_scores_have_a_moderate_spread(tokenizer):
    torch.manual_seed(0)
    config = MatT5Config.of_size("small", vocab_size=len(tokenizer))
    weight = MatT5Model(config).encoder.stack.blocks[0].attention.qkv.weight
    query, key = weight[: config.hidden_size], weight[config.hidden_size : 2 * config.hidden_size]
    assert (query.std() * 8 / key.std()).item() == pytest.approx(1, rel=0.05)  # heads are 64 wide


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"relative_attention_num_buckets": 7}, "num_buckets is 7; it must be even and at least 4"),
        ({"relative_attention_max_distance": 16}, "max_distance is 16; it must exceed 16"),
    ],
)
def test_impossible_buckets_are_named(fields, message):
    with pytest.raises(MatfmError, match=message):
        MatT5Config(**fields)


def test_learning_rates_decay_from_the_head_through_decoder_and_encoder(model):
    distances = {name: model.layers_from_top(name) for name, _ in model.named_parameters()}
    assert distances["lm_head.weight"] == distances["matt5.decoder.stack.norm.weight"] == 0
    assert distances["matt5.decoder.stack.blocks.1.cross_attention.kv.weight"] == 1
    assert distances["matt5.decoder.stack.blocks.0.attention.qkv.weight"] == 2
    assert distances["matt5.encoder.stack.blocks.1.attention.qkv.weight"] == 3
    assert distances["matt5.decoder.relative_bias.table.weight"] == 3
    assert distances["matt5.encoder.embed_tokens.weight"] == distances["matt5.encoder.relative_bias.table.weight"] == 5
