"""MatGPT: packed equals padded, cached equals uncached, batched equals single; learning, saving, Trainer."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    StaticCache,
    Trainer,
    TrainingArguments,
)

from matfm import MatfmError, MatGPTConfig, MatGPTForCausalLM, MatGPTModel, SmilesTokenizer
from matfm.core.layout import PackedLayout
from matfm.core.objectives import causal_lm_loss

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "C#N", "CC(C)C", "OCC=C", "FC(F)F"]
PROMPTS = ["[CLS]CC(", "[CLS]c", "[CLS]", "[CLS]CC(=O)"]


@pytest.fixture
def tokenizer():
    return SmilesTokenizer(padding_side="left")


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    # Wide initial weights: the most probable token is then no near-tie that rounding could turn.
    return MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=len(tokenizer), initializer_range=0.3)).eval()


def prompted(tokenizer, prompts):
    return tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")


def packed(tokenizer):
    sequences = [torch.tensor(tokenizer(text)["input_ids"]) for text in sorted(SMILES, key=len)]
    return torch.cat(sequences), PackedLayout.from_lengths(len(sequence) for sequence in sequences)


@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_equals_padded_in_loss_and_gradients(model, side):
    model = model.double()
    tokenizer = SmilesTokenizer(padding_side=side)
    ids_N, layout = packed(tokenizer)
    total, weight = causal_lm_loss(model.logits_packed(ids_N, layout), ids_N, layout)
    batch = tokenizer(SMILES, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    losses = [total / weight, *(model(**batch, labels=labels, use_cache=cached).loss for cached in (False, True))]
    assert weight == sum(layout.lengths()) - len(SMILES)
    reference = torch.autograd.grad(losses[0], list(model.parameters()))
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0])
        for one, other in zip(torch.autograd.grad(loss, list(model.parameters())), reference, strict=True):
            torch.testing.assert_close(one, other)


def test_loss_is_that_of_the_next_tokens(model, tokenizer):
    ids = torch.tensor([tokenizer("CCO")["input_ids"]])
    output = model(ids, labels=ids)
    chances = output.logits[0].log_softmax(dim=-1)
    expected = -sum(chances[place, ids[0, place + 1]] for place in range(4)) / 4
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(model(ids, labels=ids, num_items_in_batch=8).loss, expected / 2)
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, output.logits[:, -2:])


@pytest.mark.parametrize("static", [False, True])
def test_one_token_at_a_time_equals_all_at_once(model, tokenizer, static):
    batch = tokenizer(SMILES, padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    whole = model(ids, mask).logits
    cache = StaticCache(config=model.config, max_cache_len=20) if static else None
    steps = []
    for place in range(ids.shape[1]):
        output = model(ids[:, place : place + 1], mask[:, : place + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    real = mask.bool()
    torch.testing.assert_close(torch.cat(steps, dim=1)[real], whole[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cache", [{"use_cache": False}, {"cache_implementation": "static"}, {"num_beams": 1}])
def test_batched_generation_equals_single_and_cached_equals_uncached(model, tokenizer, cache):
    settings = {"max_new_tokens": 12, "do_sample": False}
    batch = prompted(tokenizer, PROMPTS)
    together = model.generate(**batch, **settings, **cache)[:, batch["input_ids"].shape[1] :]
    for prompt, row in zip(PROMPTS, together, strict=True):
        one = prompted(tokenizer, [prompt])
        alone = model.generate(**one, **settings)[0, one["input_ids"].shape[1] :]
        assert row[: len(alone)].tolist() == alone.tolist()
        assert set(row[len(alone) :].tolist()) <= {tokenizer.pad_token_id}


def test_sampling_follows_temperature_top_k_and_top_p(model, tokenizer):
    prompt = prompted(tokenizer, ["[CLS]C"])
    logits = model(**prompt).logits[0, -1]
    many = {"do_sample": True, "max_new_tokens": 1, "num_return_sequences": 400, "top_k": 0}

    def drawn(**settings):
        torch.manual_seed(0)
        return model.generate(**prompt, **{**many, **settings})[:, -1]

    assert set(drawn(top_k=3).tolist()) == set(logits.topk(3).indices.tolist())
    assert set(drawn(temperature=1e-3).tolist()) == {int(logits.argmax())}
    ranked, order = (logits / 2).softmax(dim=0).sort(descending=True)
    nucleus = order[: int((ranked.cumsum(dim=0) < 0.5).sum()) + 1]
    assert set(drawn(temperature=2.0, top_p=0.5).tolist()) <= set(nucleus.tolist())


def test_generation_starts_at_the_first_and_ends_at_the_stop_token(model, tokenizer):
    assert model.generate(max_new_tokens=1)[0, 0] == tokenizer.cls_token_id
    stop = int(model(**prompted(tokenizer, ["[CLS]CC"])).logits[0, -1].argmax())
    ended = model.generate(**prompted(tokenizer, ["[CLS]CC"]), max_new_tokens=9, do_sample=False, eos_token_id=stop)
    assert ended.shape[1] == 4


@pytest.mark.parametrize("tied", [True, False])
def test_learns_eight_molecules_by_heart_and_keeps_them_when_saved(tokenizer, tmp_path, tied):
    torch.manual_seed(0)
    model = MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=len(tokenizer), tie_word_embeddings=tied))
    ids_N, layout = packed(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        total, weight = causal_lm_loss(model.logits_packed(ids_N, layout), ids_N, layout)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
        losses.append(total.item() / weight.item())
    assert losses[19] < 0.2 * losses[0]
    model.eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, MatGPTForCausalLM)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MatGPTConfig)
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), SmilesTokenizer)
    assert (loaded.lm_head.weight is loaded.matgpt.embed_tokens.weight) == tied
    prompt = prompted(tokenizer, ["[CLS]c1"])
    made = loaded.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(made[0], skip_special_tokens=True) == "c1ccccc1"
    base = AutoModel.from_pretrained(tmp_path)
    assert isinstance(base, MatGPTModel)
    torch.testing.assert_close(base(**prompt).last_hidden_state, model.matgpt(**prompt).last_hidden_state)


def test_hugging_face_trainer_trains_it(tmp_path):
    torch.manual_seed(0)
    tokenizer = SmilesTokenizer()
    model = MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=len(tokenizer)))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=10, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        learning_rate=1e-2, report_to=[], disable_tqdm=True, save_strategy="no", eval_strategy="epoch",
        logging_strategy="epoch", use_cpu=True,
    )  # fmt: skip
    rows = [dict(tokenizer(text)) for text in SMILES]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = Trainer(model, arguments, collator, rows, rows, processing_class=tokenizer)
    trainer.train()
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    measured = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert losses[0] < 1.2 * torch.tensor(float(len(tokenizer))).log()
    assert measured[-1] < 0.3 * losses[0]


def test_unknown_sizes_are_named():
    with pytest.raises(MatfmError, match="model.size is 'huge'; choose one of tiny"):
        MatGPTConfig.of_size("huge")


def test_learning_rates_decay_from_the_head_downwards(model):
    distances = {name: model.layers_from_top(name) for name, _ in model.named_parameters()}
    assert distances["matgpt.decoder.norm.weight"] == 0
    assert distances["matgpt.decoder.blocks.1.feed_forward.gate_up.weight"] == 1
    assert distances["matgpt.decoder.blocks.0.feed_forward.gate_up.weight"] == 2
    assert distances["matgpt.embed_tokens.weight"] == 3


def test_attention_maps_look_back_only_and_not_at_padding(model, tokenizer):
    batch = tokenizer(SMILES, padding=True, return_tensors="pt")
    output = model(**batch, output_attentions=True)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(output.logits[real], model(**batch).logits[real], rtol=1e-4, atol=1e-4)
    assert len(output.attentions) == 2
    for weights in output.attentions:
        assert weights.triu(1).abs().max() == 0
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
        seen = weights.amax(dim=1)[real]
        padding = ~real[:, None, :].expand(-1, real.shape[1], -1)[real]
        assert seen[padding].max() == 0
