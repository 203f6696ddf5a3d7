"""Encoders of Hugging Face with tokenizers of their own go through every task."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5Model,
)

from matfm import EmbeddingTransformer, FewShotScreener, MatfmError, PropertyRegressor
from matfm.core.config import from_mapping
from matfm.core.layout import PackedLayout
from matfm.models.backbones import load_encoder, load_predictor
from matfm.models.huggingface_backbone import HuggingFaceForProperty, adopt_encoder
from matfm.models.strategies import StrategyOptions, apply_strategy
from matfm.tasks import embed, fewshot, finetune, predict, screen
from matfm.tasks.deltas import AddDeltaConfig, DeltaSet, add
from matfm.tasks.enumeration import encode_forms
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import backbone_encoder, backbone_kind, saved_kind
from matfm.tasks.prompting.analysis import attention_to_prompt
from matfm.tasks.tables import read_table

CHARACTERS = [*"CcNnOoSsFHlBr1234()[]=#@+-\\/", "é"]
SIZE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
MOLECULES = ["C" * n + tail for n in range(1, 9) for tail in ("O", "N", "C(=O)O", "S")]


def characters(first="<s>", last="</s>"):
    """A tokenizer of single characters, with special tokens around if asked for."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {token: index for index, token in enumerate([*special, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    around = [(token, vocabulary[token]) for token in (first, last) if token]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}".strip(), special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", cls_token="<s>", sep_token="</s>",
    )  # fmt: skip


def save(folder, model, tokenizer=None):
    model.save_pretrained(folder)
    (tokenizer or characters()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    torch.manual_seed(0)
    config = RobertaConfig(**SIZE, max_position_embeddings=26, pad_token_id=1, hidden_dropout_prob=0.3)
    return save(tmp_path_factory.mktemp("roberta"), RobertaForMaskedLM(config))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    rows = [
        f"{text},{text.count('C') + 0.5 * text.count('O')},{'acid' if '=' in text else 'other'}" for text in MOLECULES
    ]
    path.write_text("smiles,size,kind\n" + "\n".join([*rows, "C1CC,3,other", ",1,acid"]) + "\n")
    return path


def tune(table, roberta, out, resume=False, **options):
    fit = {"backbone": roberta, "epochs": 2.0, "tokens_per_batch": 100, **options.pop("fit", {})}
    settings = {
        "table": str(table),
        "input": "smiles",
        "targets": ("size",),
        "kind": "smiles",
        "device": "cpu",
        **options,
    }
    return finetune.run(finetune.FinetuneConfig(**settings, fit=FitConfig(**fit)), out, resume)


def run_predict(run, table, out, **options):
    summary = predict.run(predict.PredictConfig(str(run), str(table), "smiles", str(out), device="cpu", **options))
    return summary, read_table(str(out)).columns


@pytest.fixture
def tuned(roberta, table, tmp_path):
    """A run whose backbone is gone: it must not need the original folder again."""
    folder = tmp_path / "copy"
    shutil.copytree(roberta, folder)
    summary = tune(table, str(folder), tmp_path / "run")
    shutil.rmtree(folder)
    return tmp_path / "run", summary


def test_finetune_predict_and_the_row_contract(tuned, tmp_path):
    run, summary = tuned
    assert (summary["kind"], summary["rows_in"], summary["rows_used"], summary["rows_rejected"]) == (
        "smiles",
        34,
        32,
        2,
    )
    assert summary["unknown_tokens"]["count"] == 0
    dirty = tmp_path / "dirty.csv"
    dirty.write_text("smiles\nCCO\nOCC\n\nC1CC\nCCI\n" + "C" * 30 + "\n")
    told, columns = run_predict(run, dirty, tmp_path / "p.csv")
    assert (told["rows_in"], told["rows_predicted"], told["rows_with_error"]) == (6, 4, 2)
    assert columns["predicted_size"][0] == columns["predicted_size"][1] != ""
    assert [bool(reason) for reason in columns["error"]] == [False, False, True, True, False, False]
    assert told["unknown_tokens"] == {"count": 1, "first": {"I": 1}}
    assert told["first_truncated"] == [5]


def test_a_run_repeats_its_predictions_and_loads_with_the_auto_classes(tuned, table, tmp_path):
    run, _ = tuned
    written = read_table(str(run / "predictions.parquet")).columns
    _, columns = run_predict(run, table, tmp_path / "p.csv")
    expected = {int(row): float(value) for row, value in zip(written["row"], written["predicted_size"], strict=True)}
    assert [float(columns["predicted_size"][row]) for row in expected] == pytest.approx(
        list(expected.values()), abs=1e-5
    )
    model = AutoModelForSequenceClassification.from_pretrained(run).eval()
    assert isinstance(model, HuggingFaceForProperty)
    batch = AutoTokenizer.from_pretrained(run)(["CO", "CCCC(=O)O"], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits[:, 0]
    values = dict(zip(columns["smiles"], columns["predicted_size"], strict=True))
    assert logits.tolist() == pytest.approx([float(values["CO"]), float(values["CCCC(=O)O"])], abs=1e-5)


def test_a_run_is_a_backbone_again(tuned, table, tmp_path):
    run, _ = tuned
    assert saved_kind(run) == "smiles"
    summary = tune(table, str(run), tmp_path / "again", kind=None, fit={"strategy": "feature"})
    assert summary["kind"] == "smiles"
    before, after = load_file(run / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("backbone."))


def test_an_ensemble_is_resumed_and_ends_with_the_same_weights(roberta, table, tmp_path):
    options = {"ensemble": 2, "fit": {"enumerate": 2, "predict_enumerations": 2}}
    whole = tune(table, roberta, tmp_path / "whole", **options)
    tune(table, roberta, tmp_path / "cut", **options)
    second = Path("ensemble/1/model.safetensors")
    for name in ("summary.json", second):
        (tmp_path / "cut" / name).unlink()
    resumed = tune(table, roberta, tmp_path / "cut", resume=True, **options)
    assert resumed["metrics"] == whole["metrics"]
    one, other = load_file(tmp_path / "whole" / second), load_file(tmp_path / "cut" / second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert summary_of_spread(tmp_path, table) > 0


def summary_of_spread(tmp_path, table):
    _, columns = run_predict(tmp_path / "whole", table, tmp_path / "p.csv")
    return float(columns["predicted_size_std"][0])


@pytest.mark.parametrize("strategy", ["prompt", "prefix", "lora", "adapter"])
def test_deltas_are_trained_beside_the_encoder_and_predict_from_the_run(roberta, table, tmp_path, strategy):
    fit = {"strategy": strategy, "prompt_start": "task", "prompt_length": 4}
    summary = tune(table, roberta, tmp_path / "run", fit=fit)
    assert summary["trainable_share"] < 0.5
    assert backbone_encoder(str(tmp_path / "run")).reserved == (4 if strategy in ("prompt", "prefix") else 0)
    written = read_table(str(tmp_path / "run" / "predictions.parquet")).columns
    _, columns = run_predict(tmp_path / "run", table, tmp_path / "p.csv")
    expected = {int(row): float(value) for row, value in zip(written["row"], written["predicted_size"], strict=True)}
    assert [float(columns["predicted_size"][row]) for row in expected] == pytest.approx(
        list(expected.values()), abs=1e-4
    )
    add(AddDeltaConfig(str(tmp_path / "set"), str(tmp_path / "run"), "size"))
    model = DeltaSet.open(tmp_path / "set").members("size")[0]
    assert isinstance(model, HuggingFaceForProperty)
    if strategy in ("prompt", "prefix"):
        encoded = backbone_encoder(str(tmp_path / "run"))(["CCO", "CCN"]).tokens
        seen = attention_to_prompt(load_encoder(str(tmp_path / "run")), Examples(encoded), torch.device("cpu"))
        assert seen.share_L.shape == (2,)
        assert ((seen.share_L > 0) & (seen.share_L < 1)).all()


@pytest.mark.parametrize("strategy", ["full", "feature", "partial", "bitfit"])
def test_strategies_train_what_they_say(roberta, table, tmp_path, strategy):
    tune(table, roberta, tmp_path / "run", fit={"strategy": strategy})
    before = adopt_encoder(roberta).state_dict()
    after = load_encoder(str(tmp_path / "run")).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    blocks = {name for name in before if "layer." in name}
    if strategy == "feature":
        assert not changed
    elif strategy == "bitfit":
        assert changed
        assert all(name.endswith(".bias") for name in changed)
    elif strategy == "partial":  # both blocks of two
        assert changed <= blocks | {name for name in before if "embed" not in name}
        assert any(name in changed for name in blocks)
    else:
        assert any("embed" in name for name in changed)


def test_classes_and_embeddings(roberta, table, tmp_path):
    tune(table, roberta, tmp_path / "run", targets=("kind",), fit={"task": "classification"})
    _, columns = run_predict(tmp_path / "run", table, tmp_path / "p.csv")
    assert float(columns["probability_acid"][0]) + float(columns["probability_other"][0]) == pytest.approx(1)
    for model, kind in ((roberta, "smiles"), (str(tmp_path / "run"), None)):
        out = tmp_path / "e.parquet"
        summary = embed.run(embed.EmbedConfig(model, str(table), "smiles", str(out), device="cpu", kind=kind))
        assert (summary["width"], summary["layer"], summary["rows_embedded"], summary["rows_with_error"]) == (
            16,
            2,
            32,
            2,
        )
        out.unlink()
    with pytest.raises(MatfmError, match="roberta model, which may read anything; say with --kind"):
        embed.run(embed.EmbedConfig(roberta, str(table), "smiles", str(tmp_path / "e.parquet")))


def test_estimators(roberta):
    model = PropertyRegressor(backbone=roberta, kind="smiles", epochs=1, device="cpu")
    values = model.fit(MOLECULES, np.arange(32.0)).predict(["CCO", "OCC"])
    assert values[0] == pytest.approx(values[1])
    vectors = EmbeddingTransformer(backbone=roberta, kind="smiles", device="cpu").fit().transform(["CCO", "CCCCCC"])
    assert vectors.shape == (2, 16)


def test_screening_by_a_few_examples(roberta, table, tmp_path):
    config = screen.ScreenConfig(
        str(table), str(table), "smiles", "kind", str(tmp_path / "hits.csv"),
        top=6, backbone=roberta, kind="smiles", positive="acid", device="cpu", workers=1,
    )  # fmt: skip
    summary = screen.run(config)
    assert (summary["rows_in"], summary["rows_with_error"]) == (34, 2)
    assert all("=O" in text for text in read_table(config.out).columns["smiles"])
    known = (["CCC(=O)O", "CCS", "CC(=O)O", "CCN"], [1, 0, 1, 0])
    hits = FewShotScreener(backbone=roberta, kind="smiles", device="cpu").fit(*known).rank(MOLECULES, top=3)
    assert all("=O" in hit.input for hit in hits)


def test_training_over_tasks_leaves_a_backbone(roberta, tmp_path):
    path = tmp_path / "tasks.csv"
    columns = {name: [int(name in text) for text in MOLECULES] for name in ("N", "S", "=")}
    rows = [",".join([text, *(str(values[row]) for values in columns.values())]) for row, text in enumerate(MOLECULES)]
    path.write_text("\n".join(["smiles,N,S,acid", *rows]) + "\n")
    values = {
        "table": str(path), "input": "smiles", "kind": "smiles", "backbone": roberta, "width": 8, "device": "cpu",
        "train_tasks": ["N", "S"], "test_tasks": ["acid"], "train": {"steps": 2, "accumulate": 1},
        "episodes": {"support": [8], "queries": 8, "copies": 2}, "evaluate": {"episodes": 2, "methods": ["prototypes"]},
    }  # fmt: skip
    summary = fewshot.run(from_mapping(fewshot.FewshotConfig, values, "test"), tmp_path / "run")
    trained = {**values, "backbone": str(tmp_path / "run"), "kind": None, "train_tasks": []}
    again = fewshot.run(from_mapping(fewshot.FewshotConfig, trained, "test"), tmp_path / "again")
    assert again["metrics"] == summary["metrics"]


ARCHITECTURES = {
    "bert": (lambda: BertForMaskedLM(BertConfig(**SIZE, max_position_embeddings=24)), 24),
    "roberta": (lambda: RobertaForMaskedLM(RobertaConfig(**SIZE, max_position_embeddings=26, pad_token_id=1)), 24),
    "distilbert": (
        lambda: DistilBertModel(DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=24)),
        24,
    ),
    "t5": (lambda: T5Model(T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)), None),
    "gpt2": (lambda: GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=24)), 24),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_equals_itself_without_the_adapter(name, tmp_path):
    """One sequence at a time through the plain model, pooled by hand, is what the padded batch gives."""
    make, limit = ARCHITECTURES[name]
    torch.manual_seed(1)
    plain = make().eval()
    ends = ("", "</s>") if name in ("t5", "gpt2") else ("<s>", "</s>")
    folder = save(tmp_path / "m", plain, characters(*ends))
    plain = AutoModel.from_pretrained(folder).eval()
    plain = plain.get_encoder() if name == "t5" else plain
    encoder = backbone_encoder(folder, "smiles")
    assert encoder.max_length == limit
    texts = ["C", "CCO", "CC(=O)O", "C1CCCC1"]
    tokens = encoder.as_written(texts).tokens
    model = adopt_encoder(folder)
    layout = PackedLayout.from_lengths(tokens.lengths_R.tolist())
    ids_N = torch.from_numpy(tokens.ids_N.astype(np.int64))
    with torch.no_grad():
        states = [
            plain(torch.tensor([encoder.tokenizer(text)["input_ids"]]), output_hidden_states=True).hidden_states
            for text in texts
        ]
        finals = [plain(torch.tensor([encoder.tokenizer(text)["input_ids"]])).last_hidden_state[0] for text in texts]
        first = 1 if ends[0] else 0
        expected = torch.stack([final[first:].mean(dim=0) for final in finals])
        assert torch.allclose(model.embed_packed(ids_N, None, layout), expected, atol=1e-5)
        largest = torch.stack([final[first:].amax(dim=0) for final in finals])
        both = torch.cat([expected, largest], dim=1)
        assert torch.allclose(model.embed_packed(ids_N, None, layout, "mean-max"), both, atol=1e-5)
        lowest = torch.stack([of_text[0][0, first:].mean(dim=0) for of_text in states])
        assert torch.allclose(model.embed_packed(ids_N, None, layout, layer=0), lowest, atol=1e-5)
        if first:
            expected = torch.stack([final[0] for final in finals])
            assert torch.allclose(model.embed_packed(ids_N, None, layout, "cls"), expected, atol=1e-5)
        else:
            with pytest.raises(MatfmError, match="puts no special token first"):
                model.embed_packed(ids_N, None, layout, "cls")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_know_their_distance_from_the_head(name, tmp_path):
    folder = save(tmp_path / "m", ARCHITECTURES[name][0]())
    model = adopt_encoder(folder)
    distance = {key: model.layers_from_top(f"backbone.{key}") for key, _ in model.named_parameters()}
    numbers = {key: re.search(r"\.(\d+)\.", key) for key in distance}
    assert all(distance[key] == 2 - int(number[1]) for key, number in numbers.items() if number)
    assert {1, 2, 3} <= set(distance.values())
    assert model.layers_from_top("property_head.out.weight") == 0


def test_what_tokenizers_drop_is_counted(tmp_path):
    """A byte-pair tokenizer without an unknown token says nothing of what it leaves out."""
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<pad>", "C", "O", "CO"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("C", "O")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\."), "isolated")
    folder = save(
        tmp_path / "m", BertForMaskedLM(BertConfig(**SIZE)), PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
    )  # fmt: skip
    encoded = backbone_encoder(folder, "smiles")(["CCO", "CN", "[Na+]", "CC"])
    assert encoded.unknown == {"N": 2, "[": 1, "a": 1, "+": 1, "]": 1}
    assert encoded.rows.tolist() == [0, 1, 3]
    assert "makes no token of it" in encoded.errors[2]


def test_compositions_and_selfies_are_read_before_they_are_tokenized(roberta, tmp_path):
    encoded = backbone_encoder(roberta, "composition")([" CO2", "Xx", "", "CuSO4.5H2O"])
    assert encoded.rows.tolist() == [0, 3]
    assert set(encoded.errors) == {1, 2}
    assert set(encoded.warnings) == {3}
    selfies = backbone_encoder(roberta, "selfies")(["[C][O]", "[Nope"])
    assert selfies.rows.tolist() == [0]
    with pytest.raises(MatfmError, match="has one written form"):
        encode_forms(backbone_encoder(roberta, "composition"), ["CO2"], 2, 0)


def test_wrong_calls_and_damaged_folders_are_one_sentence(roberta, table, tmp_path):
    with pytest.raises(MatfmError, match="choose one of composition, smiles, selfies"):
        backbone_kind(roberta, "inchi")
    with pytest.raises(MatfmError, match="say with --kind what the column holds"):
        tune(table, roberta, tmp_path / "run", kind=None)
    bare = tmp_path / "bare"
    BertForMaskedLM(BertConfig(**SIZE)).save_pretrained(bare)
    with pytest.raises(MatfmError, match="tokenizer"):
        backbone_encoder(str(bare), "smiles")
    characters().save_pretrained(bare)
    weights = load_file(bare / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "layer.1.output.dense" not in name},
        bare / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(MatfmError, match=r"lack encoder\.layer\.1\.output\.dense\.bias \(2 such tensors\)"):
        adopt_encoder(str(bare))
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(
        json.dumps({**config, "model_type": "mystery", "auto_map": {"AutoConfig": "a.B"}})
    )
    with pytest.raises(MatfmError, match="cannot be"):
        adopt_encoder(str(bare))
    small = save(tmp_path / "small", BertForMaskedLM(BertConfig(**{**SIZE, "vocab_size": 20})))
    with pytest.raises(MatfmError, match="tokens and its model 20"):
        tune(table, small, tmp_path / "run")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(MatfmError, match="only pickled weights"):
        backbone_kind(str(bare), "smiles")


def test_dropout_of_the_options_reaches_the_encoder(roberta, table, tmp_path):
    tune(table, roberta, tmp_path / "run", fit={"dropout": 0.0, "epochs": 0.5})
    model = load_predictor(tmp_path / "run")
    assert model.backbone.encoder.config.hidden_dropout_prob == 0
    layers = model.base_model.layers_from_top
    assert 0 < apply_strategy(model, StrategyOptions(strategy="partial", partial_layers=1), layers) < 1
    with pytest.raises(MatfmError, match="'deep-prompt' needs a MatBERT encoder"):
        apply_strategy(model, StrategyOptions(strategy="deep-prompt"), layers)
