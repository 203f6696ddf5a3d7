"""Whole runs of `matfm pretrain`: they learn, repeat, resume, keep held-out rows apart, and load elsewhere."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from matfm import MatBERTForMaskedLM, MatfmError, SmilesTokenizer, parse_smiles
from matfm.chem.augment import enumerate_smiles
from matfm.core import trainer
from matfm.core.config import from_mapping
from matfm.core.span_corruption import corrupt_spans
from matfm.core.token_files import open_tokens
from matfm.models.backbones import with_new_head
from matfm.tasks import corpus
from matfm.tasks.pretrain import PretrainConfig, load_corpus, new_vocabulary, run

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()
EVERYTHING = {
    "data": {"targets": ["length"], "descriptors": ["MolWt", "TPSA"], "fingerprint_bits": 64, "enumerations": 2},
    "objective": [
        {"name": "property"}, {"name": "descriptors"}, {"name": "fingerprint"}, {"name": "masked", "weight": 0.1},
        {"name": "contrastive", "view": "enumeration", "weight": 0.1},
    ],
    "masking": {"scheme": "ring", "rows": 0.5},
}  # fmt: skip


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "molecules.csv"
    path.write_text("\n".join(["smiles,length", *(f"{smiles},{len(smiles)}" for smiles in SMILES)]) + "\n")
    return path


@pytest.fixture(scope="module")
def tokens(molecules):
    folder = molecules.parent / "molecules.tokens"
    corpus.encode(corpus.EncodeConfig(str(molecules), "smiles", str(folder), "smiles"))
    return folder


def configuration(molecules, **values):
    data = {"kind": "smiles", "held_out": 0.15, **values.pop("data", {})}
    if "tokens" not in data:
        data["table"] = data.get("table", str(molecules))
    train = {
        "steps": 8,
        "tokens_per_batch": 1500,
        "evaluations": 2,
        "log_every": 1,
        "checkpoint_every": 3,
        **values.pop("train", {}),
    }
    values = {"model": {"size": "tiny"}, "device": "cpu", "optimizer": {"learning_rate": 3e-3}, **values}
    return from_mapping(PretrainConfig, {"data": data, "train": train, **values}, "test")


def unigram_nats(counts):
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())


def span_targets(config, rows):
    """Counts of the target tokens of span corruption, without the start."""
    vocabulary, batch = new_vocabulary(config), rows.batch(np.arange(len(rows)))
    generator = torch.Generator().manual_seed(0)
    spans = corrupt_spans(
        batch.ids_N, batch.layout, vocabulary.ordinary_V[batch.ids_N], vocabulary.sentinels, 0, 3,
        config.objectives[0].spans, generator,
    )  # fmt: skip
    return Counter(spans.target_ids_M[spans.target_ids_M != 0].tolist())


@pytest.mark.parametrize("name", ["masked", "permutation", "causal", "span"])
def test_every_family_learns_more_than_frequencies(name, molecules, tmp_path):
    """Held-out molecules cost less than under the best guess that ignores the context."""
    family = {"masked": "matbert", "permutation": "matbert", "causal": "matgpt", "span": "matt5"}[name]
    masking = {"rows": 1.0, "rate": 0.15, "mask_share": 1.0, "random_share": 0.0}
    config = configuration(
        molecules, model={"size": "tiny", "family": family, "num_hidden_layers": 3}, masking=masking, objective=[{"name": name}],
        train={"steps": 60, "evaluations": 1, "log_every": 30, "checkpoint_every": 1000}, optimizer={"method": "muon", "learning_rate": 1e-2},
    )  # fmt: skip
    rows = load_corpus(config, tmp_path / "again").held_out.tokens
    ids = Counter(rows.ids_N.tolist())
    if name in ("masked", "permutation"):
        counts = Counter({token: count for token, count in ids.items() if token > 4})
    else:
        counts = Counter({t: n for t, n in ids.items() if t != 2}) if name == "causal" else span_targets(config, rows)
    valid = run(config, tmp_path / "run")["valid"]
    assert valid[f"{name}_nats"] < 0.85 * unigram_nats(counts)
    assert valid["score"] == valid[f"{name}_nats"]
    if name == "masked":
        assert valid["masked_accuracy"] > max(counts.values()) / sum(counts.values())
    if name == "causal":
        assert valid["causal_perplexity"] == pytest.approx(math.exp(valid["causal_nats"]))


def test_compositions_are_learned_with_amounts_as_tokens(small_table, tmp_path):
    data = {"kind": "composition", "table": str(small_table), "held_out": 0.3}
    config = configuration(small_table, data=data, model={"size": "tiny", "family": "matgpt"}, train={"steps": 40})
    run(config, tmp_path / "run")
    losses = [record["loss"] for record in trainer.read_log(tmp_path / "run" / "log.jsonl") if "loss" in record]
    assert losses[-1] < 0.4 * losses[0]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert model.config.vocab_size == len(tokenizer)
    made = model.generate(max_new_tokens=12, do_sample=True)[0]
    assert isinstance(tokenizer.decode(made, skip_special_tokens=True), str)
    assert tokenizer.decode(tokenizer("O3Fe2")["input_ids"], skip_special_tokens=True) == "Fe2O3"


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


class KilledError(Exception):
    """As if killed."""


@pytest.mark.parametrize("case", ["everything", "tokens", "spans"])
def test_a_run_repeats_itself_and_resumes_bit_by_bit(case, molecules, tokens, tmp_path, monkeypatch):
    values = {
        "everything": EVERYTHING,
        "tokens": {"data": {"tokens": str(tokens)}, "model": {"size": "tiny", "family": "matgpt", "dropout": 0.1}},
        "spans": {"data": {"enumerations": 1}, "model": {"size": "tiny", "family": "matt5"}},
    }[case]
    config = configuration(molecules, **values)
    whole = run(config, tmp_path / "whole")
    original, saves = trainer._Run.save, iter(range(10))

    def save(self):
        original(self)
        if next(saves) == 1:
            raise KilledError

    monkeypatch.setattr(trainer._Run, "save", save)
    with pytest.raises(KilledError):
        run(config, tmp_path / "cut")
    monkeypatch.undo()
    resumed = run(config, tmp_path / "cut", resume=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert resumed["valid"] == whole["valid"]
    steps = [record["step"] for record in trainer.read_log(tmp_path / "cut" / "log.jsonl") if "loss" in record]
    assert steps == list(range(1, 9))
    other = configuration(molecules, **values, seed=1)
    run(other, tmp_path / "other")
    assert not all(
        torch.equal(value, weights(tmp_path / "other")[name]) for name, value in weights(tmp_path / "whole").items()
    )


def test_a_run_goes_on_with_the_table_it_began_with_only(molecules, tmp_path, monkeypatch):
    table = tmp_path / "t.csv"
    table.write_bytes(Path(molecules).read_bytes())
    config = configuration(molecules, data={"table": str(table)})

    def killed(*_):
        raise KilledError

    monkeypatch.setattr(trainer._Run, "one_step", killed)
    for resume in (False, True):
        with pytest.raises(KilledError):
            run(config, tmp_path / "run", resume=resume)
    table.write_text(table.read_text() + "CCO\n")
    with pytest.raises(MatfmError, match="is not the table that .* began with"):
        run(config, tmp_path / "run", resume=True)


def texts_of(rows):
    tokenizer = SmilesTokenizer()
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in np.split(rows.ids_N, rows.offsets[1:-1])]


def test_a_molecule_is_never_on_both_sides_however_it_is_written(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "twice.csv"
    rows = [text for smiles in SMILES[:80] for text in (smiles, *enumerate_smiles(smiles, 2, generator))]
    path.write_text("\n".join(["smiles", *(rows[i] for i in generator.permutation(len(rows)))]) + "\n")
    config = configuration(path, data={"table": str(path), "held_out": 0.3, "enumerations": 1})
    found = load_corpus(config, tmp_path / "run")
    held_out = {parse_smiles(text).canonical for text in texts_of(found.held_out.tokens)}
    trained = {parse_smiles(text).canonical for text in texts_of(found.train.varied.sequences)}
    assert held_out
    assert not held_out & trained
    assert held_out | trained == {parse_smiles(smiles).canonical for smiles in SMILES[:80]}
    assert len(found.train) + len(found.held_out) == len(rows)


FORMULAS = [f"{a}{n}{b}{m}" for a in ("Li", "Fe", "Ga") for b in ("O", "N") for n in (1, 2) for m in (1, 3, 12)]


@pytest.mark.parametrize(("family", "scheme"), [("matgpt", "count"), ("matt5", "repeat"), ("matbert", "count")])
def test_compositions_as_strings_are_learned_from_a_token_file(family, scheme, tmp_path):
    """The rows are those that the same table gives, and the tokenizer that is saved wrote them."""
    (tmp_path / "t.csv").write_text("\n".join(["formula", *FORMULAS]) + "\n")
    folder = tmp_path / "tokens"
    corpus.encode(corpus.EncodeConfig(str(tmp_path / "t.csv"), "formula", str(folder), scheme=scheme, order="hill"))
    data = {"kind": "composition", "scheme": scheme, "order": "hill", "held_out": 0.2}
    model = {"size": "tiny", "family": family}
    from_file = configuration(None, data={**data, "tokens": str(folder)}, model=model, train={"steps": 2})
    from_table = configuration(None, data={**data, "table": str(tmp_path / "t.csv")}, model=model)
    found = load_corpus(from_table, tmp_path)
    rows = sorted(ids.tolist() for part in (found.train, found.held_out) for ids in split_rows(part.tokens))
    held_out = load_corpus(from_file, tmp_path).held_out
    assert sorted(ids.tolist() for ids in split_rows(open_tokens(folder)[0])) == rows
    assert 0 < len(held_out) < len(FORMULAS) / 2
    run(from_file, tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert sorted(tokenizer(text)["input_ids"] for text in FORMULAS) == rows


def split_rows(tokens):
    return np.split(tokens.ids_N, tokens.offsets[1:-1])


def test_a_token_file_of_another_scheme_or_order_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("\n".join(["formula", *FORMULAS]) + "\n")
    for name, settings in {"fraction": {}, "count": {"scheme": "count"}}.items():
        corpus.encode(corpus.EncodeConfig(str(tmp_path / "t.csv"), "formula", str(tmp_path / name), **settings))

    def load(name, family="matbert", **data):
        data = {"kind": "composition", "tokens": str(tmp_path / name), **data}
        return load_corpus(configuration(None, data=data, model={"family": family, "size": "tiny"}), tmp_path)

    assert load("fraction").train.tokens.amounts_N.any()
    assert load("count", "matgpt").rows_in == len(FORMULAS)
    with pytest.raises(MatfmError, match="in the scheme 'fraction', but data.scheme is 'count'; .* --scheme count"):
        load("fraction", "matgpt")
    with pytest.raises(MatfmError, match="in the scheme 'count', but data.scheme is 'fraction'; set data.scheme"):
        load("count")
    with pytest.raises(MatfmError, match="in the order 'electronegativity', but data.order is 'hill'"):
        load("count", "matgpt", order="hill")
    meta = tmp_path / "fraction" / "meta.json"  # as files were that could hold nothing else
    meta.write_text(meta.read_text().replace('"scheme": "fraction",', ""))
    assert load("fraction").rows_in == len(FORMULAS)


def test_a_token_file_has_the_same_rows_held_out_every_epoch(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("\n".join(["smiles", *SMILES, *SMILES]) + "\n")
    corpus.encode(corpus.EncodeConfig(str(path), "smiles", str(tmp_path / "t"), "smiles"))
    found = load_corpus(configuration(path, data={"tokens": str(tmp_path / "t"), "held_out": 0.2}), tmp_path)
    held_out = set(texts_of(found.held_out.tokens))
    batches = found.train.batches(1500, 0, 4)
    trained = Counter()
    whole = open_tokens(tmp_path / "t")[0]
    while batches.epoch < 2:
        batch = batches.next()
        trained.update(texts_of(whole.take(batch.rows_B.numpy())) if batches.epoch < 2 else [])
    assert held_out
    assert not held_out & set(trained)
    assert held_out | set(trained) == set(SMILES)
    assert set(trained.values()) == {4}  # written twice, read in two epochs
    assert found.rows_in == found.rows_used == 2 * len(SMILES)
    assert found.rows_held_out == len(found.held_out) == 2 * len(held_out)


def test_only_some_rows_of_a_large_token_file_are_evaluated(tokens, tmp_path, monkeypatch):
    from matfm.tasks.pretraining import data as pretraining_data

    monkeypatch.setattr(pretraining_data, "_SCANNED", 32)
    data = {"tokens": str(tokens), "held_out": 0.2, "held_out_rows": 5}
    found = load_corpus(configuration(None, data=data), tmp_path)
    assert len(found.held_out) == 5
    assert 20 < found.rows_held_out < 80
    assert found.notes == {"rows_evaluated": 5}


def test_tokens_of_another_vocabulary_or_kind_are_refused(tokens, molecules, tmp_path):
    with pytest.raises(MatfmError, match=r"holds tokens of kind 'smiles', but data.kind is 'selfies'"):
        load_corpus(configuration(None, data={"tokens": str(tokens), "kind": "selfies"}), tmp_path)
    own = tmp_path / "own.json"
    corpus.vocab(corpus.VocabConfig(str(molecules), "smiles", str(own), keep_shipped=False))
    with pytest.raises(
        MatfmError, match=r"encoded with another vocabulary \(shipped\) than data.vocabulary '.*own.json'"
    ):
        load_corpus(configuration(None, data={"tokens": str(tokens), "vocabulary": str(own)}), tmp_path)
    corpus.encode(corpus.EncodeConfig(str(molecules), "smiles", str(tmp_path / "t"), "smiles", str(own)))
    with pytest.raises(MatfmError, match="than the shipped vocabulary; give that one as data.vocabulary"):
        load_corpus(configuration(None, data={"tokens": str(tmp_path / "t")}), tmp_path)
    config = configuration(None, data={"tokens": str(tmp_path / "t"), "vocabulary": str(own)})
    summary = run(config, tmp_path / "run")
    assert AutoModel.from_pretrained(tmp_path / "run").config.vocab_size == len(
        AutoTokenizer.from_pretrained(tmp_path / "run")
    )
    assert summary["rows_in"] == len(SMILES)


def test_a_run_with_everything_is_a_backbone_and_reports_every_objective(molecules, tmp_path):
    folder = tmp_path / "run"
    summary = run(configuration(molecules, **EVERYTHING), folder)
    assert set(summary["valid"]) == {
        "score", "mae_length", "descriptors_mae", "fingerprint_nats", "masked_nats", "masked_accuracy", "contrastive_nats",
    }  # fmt: skip
    assert (summary["descriptors"], summary["descriptors_constant"]) == (2, 0)
    assert {"card.md", "config.json", "curves.png", "model.safetensors", "tokenizer.json", "rejects.csv"} <= {
        path.name for path in folder.iterdir()
    }
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    assert tokenizer("CCO")["input_ids"] == SmilesTokenizer()("CCO")["input_ids"]
    assert encoder.config.position_embedding == "rotary"
    assert encoder.config.property_names == ["length", "MolWt", "TPSA"]
    found, expected = encoder.state_dict(), weights(folder)
    assert all(torch.equal(value, expected[f"matbert.{name}"]) for name, value in found.items())
    backbone = with_new_head(str(folder), {"property_names": ["x"], "property_units": [""]}, len(tokenizer), "smiles")
    assert torch.equal(backbone.matbert.embed_tokens.weight, expected["matbert.embed_tokens.weight"])
    assert MatBERTForMaskedLM.from_pretrained(folder).lm_head.decoder.out_features == len(tokenizer)
    assert "2 random SMILES" in (folder / "card.md").read_text()


def test_descriptors_are_learned_in_their_own_units(molecules, tmp_path):
    config = configuration(
        molecules, data={"descriptors": ["MolWt", "HeavyAtomCount"]}, train={"steps": 80, "checkpoint_every": 1000},
        objective=[{"name": "descriptors"}], optimizer={"method": "muon", "learning_rate": 1e-2},
    )  # fmt: skip
    valid = run(config, tmp_path)["valid"]
    assert valid["score"] == valid["descriptors_mae"] < 0.4  # the mean would be off by about 0.8
    from matfm.models.inference import predict_properties
    from matfm.tasks.predictor import load_predictor

    rows = load_corpus(config, tmp_path).held_out.tokens
    predicted = predict_properties(load_predictor(tmp_path), rows, torch.device("cpu"))
    assert abs(predicted[:, 0].mean() - rows.targets_RK[:, 0].mean()) < 60
    assert rows.targets_RK[:, 0].mean() > 150


def test_rows_that_are_no_molecule_are_reported(tmp_path):
    path = tmp_path / "dirty.csv"
    path.write_text(
        "\n".join(["smiles,y", "C1CC,1", ",2", "CCO,high", *(f"{smiles},3" for smiles in SMILES[:40])]) + "\n"
    )
    summary = run(configuration(path, data={"table": str(path), "targets": ["y"]}), tmp_path / "run")
    assert (summary["rows_in"], summary["rows_used"], summary["rows_rejected"]) == (43, 41, 2)
    assert summary["labels_rejected"] == 1
    rejects = (tmp_path / "run" / "rejects.csv").read_text()
    assert "C1CC" in rejects
    assert "'high' is not a number" in rejects
    stopping = configuration(path, data={"table": str(path), "targets": ["y"], "on_bad": "stop"})
    with pytest.raises(MatfmError, match=r"row 0, column 'smiles': .*on_bad = 'stop'"):
        run(stopping, tmp_path / "stopped")


@pytest.mark.parametrize("kind", ["smiles", "composition"])
def test_a_row_with_too_many_cells_is_not_trained_on(tmp_path, kind):
    inputs = SMILES[:40] if kind == "smiles" else [f"Fe{n}O{41 - n}" for n in range(1, 41)]
    path = tmp_path / "ragged.csv"
    path.write_text("\n".join(["x,y", "CO,2,7", *(f"{text},{row}" for row, text in enumerate(inputs))]) + "\n")
    data = {"table": str(path), "targets": ["y"], "input": "x", "kind": kind}
    found = load_corpus(configuration(path, data=data), tmp_path)
    assert (found.rows_in, found.rows_used) == (41, 40)
    assert [(reject.row, reject.value) for reject in found.rejects] == [(0, "CO")]
    assert "line 2 has 3 cells, the header 2" in found.rejects[0].reason


def test_a_target_without_labels_is_refused_and_one_without_held_out_labels_is_left_out(tmp_path):
    path = tmp_path / "sparse.csv"
    path.write_text("\n".join(["smiles,y,none", *(f"{smiles},{len(smiles)}," for smiles in SMILES[:60])]) + "\n")
    data = {"table": str(path), "targets": ["y", "none"]}
    with pytest.raises(MatfmError, match="no training row has a number in column 'none'; leave it out"):
        load_corpus(configuration(path, data=data), tmp_path)
    config = configuration(path, data={"table": str(path)})
    trained = set(texts_of(load_corpus(config, tmp_path).train.tokens))
    rare = [i for i, smiles in enumerate(SMILES[:60]) if parse_smiles(smiles).canonical in trained][:5]
    rows = (f"{smiles},{len(smiles)},{1.5 * i if i in rare else ''}" for i, smiles in enumerate(SMILES[:60]))
    path.write_text("\n".join(["smiles,y,none", *rows]) + "\n")
    valid = run(configuration(path, data=data), tmp_path / "run")["valid"]
    assert math.isfinite(valid["score"])
    assert "mae_y" in valid
    assert "mae_none" not in valid


def test_sentinels_are_part_of_the_saved_tokenizer(molecules, tmp_path):
    values = {"model": {"size": "tiny", "family": "matt5"}, "objective": [{"name": "span", "sentinels": 12}]}
    run(configuration(molecules, **values), tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    assert model.config.vocab_size == len(tokenizer) == len(SmilesTokenizer()) + 12
    source = tokenizer("CC<extra_id_0>c1ccccc1", return_tensors="pt")
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") in source["input_ids"][0].tolist()
    made = model.generate(**source, max_new_tokens=8)
    assert tokenizer.decode(made[0], skip_special_tokens=True).count("<") == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["objectives"] == ["span"]


def test_too_few_sentinels_are_named(molecules, tmp_path):
    values = {"model": {"size": "tiny", "family": "matt5"}, "objective": [{"name": "span", "sentinels": 1}]}
    with pytest.raises(MatfmError, match="hidden spans but there are 1 sentinels"):
        run(configuration(molecules, **values), tmp_path / "run")


def test_widths_and_depths_can_be_given(molecules, tmp_path):
    model = {
        "size": "tiny",
        "hidden_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 96,
    }
    run(configuration(molecules, model=model, train={"steps": 1}), tmp_path / "run")
    config = AutoModel.from_pretrained(tmp_path / "run").config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (48, 1, 96)
    with pytest.raises(MatfmError, match=r"model.hidden_size is 50; each of 2 heads needs an even share"):
        run(configuration(molecules, model={"size": "tiny", "hidden_size": 50}), tmp_path / "odd")
