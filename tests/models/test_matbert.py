"""MatBERT: padding, order and packing change nothing; saving and loading; Auto classes; pipelines."""

import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from matfm import (
    CompositionTokenizer,
    MatBERTConfig,
    MatBERTForMaskedLM,
    MatBERTForProperty,
    MatBERTModel,
    MatfmError,
    SmilesTokenizer,
)
from matfm.chem.composition_schemes import MASK
from matfm.core.layout import PackedLayout
from matfm.models.matbert import MatBERTForPretraining


@pytest.fixture
def encoded(formulas):
    return CompositionTokenizer()(formulas, padding=True, return_tensors="pt")


def test_predictions_do_not_depend_on_padding_or_batch(tiny_model, encoded, formulas):
    tiny_model.eval()
    together = tiny_model(**encoded).logits
    tokenizer = CompositionTokenizer()
    alone = torch.cat([tiny_model(**tokenizer(formula, return_tensors="pt")).logits for formula in formulas])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    wide = tokenizer(formulas, padding="max_length", max_length=30, return_tensors="pt")
    torch.testing.assert_close(together, tiny_model(**wide).logits, rtol=1e-4, atol=1e-5)
    left = CompositionTokenizer(padding_side="left")(formulas, padding=True, return_tensors="pt")
    torch.testing.assert_close(together, tiny_model(**left).logits, rtol=1e-4, atol=1e-5)


def test_order_of_elements_does_not_matter(tiny_model):
    tiny_model.eval()
    tokenizer = CompositionTokenizer()
    first = tiny_model(**tokenizer("Li7La3Zr2O12", return_tensors="pt")).logits
    second = tiny_model(**tokenizer("O12Zr2La3Li7", return_tensors="pt")).logits
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_amounts_matter(tiny_model):
    tiny_model.eval()
    tokenizer = CompositionTokenizer()
    iron = [tiny_model(**tokenizer(f, return_tensors="pt")).logits for f in ("FeO", "Fe2O3", "Fe0.99O0.01")]
    assert not torch.allclose(iron[0], iron[1], atol=1e-5)
    assert not torch.allclose(iron[0], iron[2], atol=1e-5)


def test_packed_and_padded_paths_agree_in_values_and_gradients(tiny_model, tiny_tokens):
    tiny_model = tiny_model.double()
    rows = torch.arange(len(tiny_tokens)).numpy()
    batch = tiny_tokens.batch(rows)
    packed = tiny_model.raw_packed(batch.ids_N, batch.amounts_N.double(), batch.layout)
    width = max(length for _, length in batch.layout.runs)
    ids, amounts = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.float64)
    start, row = 0, 0
    for count, length in batch.layout.runs:
        for _ in range(count):
            ids[row, :length] = batch.ids_N[start : start + length]
            amounts[row, :length] = batch.amounts_N[start : start + length]
            start, row = start + length, row + 1
    padded = tiny_model(input_ids=ids, attention_mask=(ids > 0).long(), amounts=amounts).logits
    torch.testing.assert_close(packed, padded)
    weights = torch.randn_like(packed)
    gradients = []
    for output in (packed, padded):
        tiny_model.zero_grad()
        (output * weights).sum().backward()
        gradients.append([p.grad.clone() for p in tiny_model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("pooling", ["mean", "mean-max", "cls"])
def test_rows_keep_their_place_whatever_their_length(pooling, encoded, formulas):
    torch.manual_seed(0)
    model = MatBERTForProperty(MatBERTConfig.of_size("tiny", pooling=pooling)).eval()
    tokenizer = CompositionTokenizer()
    whole = model(**encoded).logits
    for row in (0, 7, 17):
        alone = model(**tokenizer(formulas[row], return_tensors="pt")).logits
        torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_scaling_and_bounds_give_physical_units(tiny_model, encoded):
    tiny_model.eval()
    head = tiny_model.property_head
    before = tiny_model(**encoded).logits
    head.set_scaling(torch.tensor([2.0, -5.0]), torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(
        tiny_model(**encoded).logits, before * torch.tensor([3.0, 1.0]) + torch.tensor([2.0, -5.0])
    )
    head.set_bounds(torch.tensor([2.0, -torch.inf]), torch.tensor([torch.inf, -5.0]))
    bounded = tiny_model(**encoded).logits
    assert bounded[:, 0].min() >= 2.0
    assert bounded[:, 1].max() <= -5.0


def test_one_file_serves_every_class_and_auto_class(tiny_model, encoded, tmp_path):
    tiny_model.eval().save_pretrained(tmp_path)
    reference = tiny_model(**encoded).logits
    for cls in (MatBERTForPretraining, MatBERTForProperty, AutoModelForSequenceClassification):
        torch.testing.assert_close(cls.from_pretrained(tmp_path).eval()(**encoded).logits, reference)
    for cls in (MatBERTForMaskedLM, AutoModelForMaskedLM):
        loaded = cls.from_pretrained(tmp_path)
        assert loaded.lm_head.decoder.weight is loaded.matbert.embed_tokens.weight
        assert torch.equal(loaded.lm_head.dense.weight, tiny_model.lm_head.dense.weight)
    for cls in (MatBERTModel, AutoModel):
        assert torch.equal(cls.from_pretrained(tmp_path).embed_tokens.weight, tiny_model.matbert.embed_tokens.weight)


@pytest.mark.parametrize(
    "first", ["import matfm; from transformers import AutoModel", "from transformers import AutoModel; import matfm"]
)
def test_import_order_does_not_matter_for_registration(first, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    code = f"{first}; print(type(AutoModel.from_pretrained({str(tmp_path)!r})).__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "MatBERTModel"


def test_masked_lm_loss_is_that_of_the_masked_positions(tiny_model, encoded, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    model = MatBERTForMaskedLM.from_pretrained(tmp_path).eval()
    labels = torch.full_like(encoded["input_ids"], -100)
    labels[:, 1] = encoded["input_ids"][:, 1]
    encoded["input_ids"][:, 1] = MASK
    output = model(**encoded, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits[:, 1], labels[:, 1])
    torch.testing.assert_close(output.loss, expected)


def test_hugging_face_trainer_trains_it(formulas, tmp_path):
    tokenizer = CompositionTokenizer()
    rows = [{**tokenizer(formula), "labels": [float(len(formula))]} for formula in formulas]
    torch.manual_seed(0)
    model = MatBERTForProperty(MatBERTConfig.of_size("tiny"))
    model.property_head.set_scaling(torch.tensor([8.0]), torch.tensor([4.0]))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=40, per_device_train_batch_size=8, learning_rate=3e-3,
        report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True, logging_strategy="epoch",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.3 * losses[0]


def test_hidden_states_and_sizes():
    model = MatBERTModel(MatBERTConfig.of_size("tiny"))
    output = model(input_ids=torch.tensor([[2, 30, 12]]), output_hidden_states=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(1, 3, 64)] * 3
    with pytest.raises(MatfmError, match="model.size is 'huge'; choose one of tiny"):
        MatBERTConfig.of_size("huge")
    with pytest.raises(MatfmError, match="model.pooling is 'max'"):
        MatBERTConfig(pooling="max")


def test_layout_of_one_run_needs_no_copy():
    assert PackedLayout.from_lengths([3, 3, 3]).runs == ((3, 3),)


SMILES = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "C"]


def smiles_config(positions):
    return MatBERTConfig.of_size("tiny", vocab_size=len(SmilesTokenizer()), position_embedding=positions)


@pytest.mark.parametrize("positions", ["rotary", "absolute", "sinusoidal"])
def test_strings_are_read_with_positions_whatever_the_padding(positions, tmp_path):
    torch.manual_seed(0)
    MatBERTModel(smiles_config(positions)).save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).eval()
    first = {}
    for side in ("left", "right"):
        tokenizer = SmilesTokenizer(padding_side=side)
        batch = tokenizer(SMILES, padding=True, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        for row, text in enumerate(SMILES):
            alone = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            together = hidden[row][batch["attention_mask"][row].bool()]
            torch.testing.assert_close(together, first.setdefault(text, alone), rtol=1e-4, atol=1e-5)
    ethanol, ether = (
        model(**SmilesTokenizer()(text, return_tensors="pt")).last_hidden_state for text in ("CCO", "COC")
    )
    assert not torch.allclose(ethanol[0, 0], ether[0, 0], atol=1e-4)


def test_pipelines_fill_masks_and_extract_features():
    torch.manual_seed(0)
    tokenizer, model = SmilesTokenizer(), MatBERTForMaskedLM(smiles_config("rotary")).eval()
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=3)
    answers = fill("CC[MASK]")
    logits = model(**tokenizer("CC[MASK]", return_tensors="pt")).logits[0, 3]
    assert [answer["token"] for answer in answers] == logits.topk(3).indices.tolist()
    assert answers[0]["sequence"] == "CC" + tokenizer.convert_ids_to_tokens(answers[0]["token"])
    features = pipeline("feature-extraction", model=model.matbert, tokenizer=tokenizer)(["CCO", "c1ccccc1"])
    expected = model.matbert(**tokenizer("c1ccccc1", return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(torch.tensor(features[1]), expected)


def test_unknown_positions_are_named():
    with pytest.raises(MatfmError, match="model.position_embedding is 'relative'; choose one of none, rotary"):
        MatBERTConfig(position_embedding="relative")


@pytest.mark.parametrize("positions", ["none", "rotary", "absolute", "sinusoidal"])
def test_attention_maps_come_with_the_same_hidden_states(positions):
    torch.manual_seed(0)
    model = MatBERTModel(smiles_config(positions)).eval()
    batch = SmilesTokenizer()(SMILES, padding=True, return_tensors="pt")
    plain = model(**batch, output_hidden_states=True)
    mapped = model(**batch, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(mapped.last_hidden_state, plain.last_hidden_state, rtol=1e-4, atol=1e-5)
    assert len(mapped.hidden_states) == len(plain.hidden_states) == 3
    length = batch["input_ids"].shape[1]
    assert [tuple(weights.shape) for weights in mapped.attentions] == [(5, 2, length, length)] * 2
    mask = batch["attention_mask"]
    for weights in mapped.attentions:
        torch.testing.assert_close(weights.sum(dim=-1), mask[:, None, :].expand(5, 2, length).float())
        assert (weights * (1 - mask)[:, None, None, :]).abs().max() == 0


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # PEFT asks by the old name
@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_peft_trains_the_property_model(method):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = MatBERTForProperty(smiles_config("rotary"))
    head = {"task_type": "SEQ_CLS", "modules_to_save": ["property_head"]}
    config = {
        "lora": peft.LoraConfig(**head, r=4, target_modules=["qkv", "attention.out"]),
        "prompt": peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
    }[method]
    tuned = peft.get_peft_model(model, config).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-2)
    batch = SmilesTokenizer()(SMILES, padding=True, return_tensors="pt")
    labels = torch.tensor([[float(len(text))] for text in SMILES])
    model.property_head.set_scaling(labels.mean(dim=0), labels.std(dim=0))
    losses = []
    for _ in range(15):
        loss = tuned(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
