"""Texts conditioned on bins of properties: trained, saved, asked for; with tiny models."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.composition_generation import conditions as study
from benchmarks.results import load
from matfm import (
    CompositionTokenizer,
    MatBERTConfig,
    MatBERTForProperty,
    MatfmError,
    MatGPTConfig,
    SmilesTokenizer,
    parse_formula,
)
from matfm.cli import app
from matfm.core.config import from_mapping
from matfm.core.property_bins import PropertyBins
from matfm.core.sampling import SamplingConfig, choose, uniforms
from matfm.models.matgpt import MatGPTForCausalLM
from matfm.models.sampler import Sampler
from matfm.tasks import generate
from matfm.tasks.generate import GenerateConfig
from matfm.tasks.generation.conditions import STREAM, Condition, Conditions
from matfm.tasks.generation.generator import Generator
from matfm.tasks.pretrain import ModelConfig, PretrainConfig, load_corpus, new_model, new_vocabulary, run, setting_of
from matfm.tasks.pretraining.conditions import conditional_step
from matfm.tasks.tables import read_table

METALS = ("Li", "Na", "K", "Mg", "Ca", "Fe", "Zn", "Al")
ANIONS = ("O", "S", "F", "Cl")


def materials():
    """Formulas with `oxygen` (0 or 1, missing for some) and `atoms` (their number)."""
    rows = []
    for metal in METALS:
        for anion in ANIONS:
            for first in (1, 2, 3):
                for second in (1, 2, 3):
                    oxygen = "" if (first, second) == (3, 3) else str(int(anion == "O"))
                    rows.append(f"{metal}{first}{anion}{second},{oxygen},{first + second}")
    return rows


def config_of(path, **causal):
    causal = {"name": "causal", "condition": ["oxygen", "atoms"], "bins": 3, **causal}
    values = {
        "data": {"table": str(path), "targets": ["oxygen", "atoms"], "held_out": 0.1},
        "model": {"family": "matgpt", "size": "tiny"},
        "objective": [causal],
        "train": {"steps": 90, "tokens_per_batch": 500, "evaluations": 1, "log_every": 60},
        "optimizer": {"method": "muon", "learning_rate": 1e-2},
        "device": "cpu",
    }
    return from_mapping(PretrainConfig, values, "test")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "materials.csv"
    path.write_text("\n".join(["formula,oxygen,atoms", *materials()]) + "\n")
    return path


@pytest.fixture(scope="module")
def model(table, tmp_path_factory):
    """A folder of a model that was trained on both conditions, and the summary of its training."""
    out = tmp_path_factory.mktemp("run") / "run"
    return str(out), run(config_of(table), out)


def generated(model, tmp_path, resume=False, **options):
    options = {"n": 60, "max_length": 12, "device": "cpu", "batch_size": 16, **options}
    config = GenerateConfig(model[0], out=str(tmp_path / "out.csv"), **options)
    summary = generate.run(config, resume)
    return read_table(config.out).columns, summary


def oxides(columns):
    valid = [text for text, good in zip(columns["formula"], columns["valid"], strict=True) if good == "True"]
    assert len(valid) > 0.7 * len(columns["formula"])
    return np.mean(["O" in parse_formula(text).amounts for text in valid])


def atoms(columns):
    valid = [text for text, good in zip(columns["formula"], columns["valid"], strict=True) if good == "True"]
    return np.array([sum(parse_formula(text).amounts.values()) for text in valid])


def test_samples_follow_a_condition(model, tmp_path):
    free, _ = generated(model, tmp_path)
    assert 0.05 < oxides(free) < 0.6
    with_oxygen, summary = generated(model, tmp_path, condition=("oxygen=1",))
    assert oxides(with_oxygen) > 0.9
    assert set(with_oxygen["condition_oxygen"]) == {"1"}
    without, _ = generated(model, tmp_path, condition=("oxygen=0",))
    assert oxides(without) < 0.1
    assert summary["conditions"][0] | {"training_share": None} == {
        "property": "oxygen", "unit": "", "low": 1.0, "high": 1.0, "drawn": {"1": 60}, "training_share": None,
    }  # fmt: skip
    assert summary["conditions"][0]["training_share"] == pytest.approx(0.25, abs=0.05)


def test_two_conditions_at_once_and_a_range_drawn_as_in_training(model, tmp_path):
    columns, summary = generated(model, tmp_path, n=90, condition=("atoms=4..", "oxygen=1"))
    assert oxides(columns) > 0.9
    few, _ = generated(model, tmp_path, n=90, condition=("atoms=2", "oxygen=1"))
    assert atoms(few).mean() < atoms(columns).mean() - 0.8
    drawn = Counter(columns["condition_atoms"])
    assert drawn == summary["conditions"][1]["drawn"]
    bins = PropertyBins.saved(MatGPTForCausalLM.from_pretrained(model[0]).config.conditions[1], "config.json")
    expected = bins.rows_between(4, 9) / bins.rows_between(4, 9).sum()
    shares = np.array([drawn[text] / 90 for text in bins.texts])
    assert np.abs(shares - expected).max() < 4 * np.sqrt(0.25 / 90)
    assert len(drawn) > 1


def test_training_with_conditions_reports_what_they_are_worth(model):
    folder, summary = model
    assert summary["valid"]["causal_nats"] < summary["valid"]["unconditional_nats"]
    assert summary["valid"]["score"] == summary["valid"]["causal_nats"]
    assert summary["conditions"] == {"oxygen": ["0", "1"], "atoms": summary["conditions"]["atoms"]}
    card = (generate.Path(folder) / "card.md").read_text()
    assert "`matfm generate --condition oxygen=…`" in card


def test_bins_are_those_of_training_rows_and_saved_with_the_model(table, model, tmp_path):
    corpus = load_corpus(config_of(table), tmp_path)
    saved = json.loads((generate.Path(model[0]) / "config.json").read_text())["conditions"]
    assert [bins.mapping() for bins in corpus.conditions] == saved
    trained = corpus.train.tokens.targets_RK[:, 0]
    assert corpus.conditions[0].rows == (int((trained == 0).sum()), int((trained == 1).sum()))
    vocabulary = new_vocabulary(config_of(table), corpus.conditions)
    assert vocabulary.size == len(Generator(GenerateConfig(model[0], 1, "x.csv"), torch.device("cpu"))._tokenizer)
    assert not vocabulary.ordinary_V[-len(corpus.conditions[0]) :].any()


class Remembers:
    """A model that keeps what it is given."""

    def logits_packed(self, ids_N, layout):
        self.rows = [row.tolist() for row in ids_N.split(layout.lengths())]
        return torch.zeros(len(ids_N), 300)


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_tokens_of_conditions_are_dropped_at_their_rate_and_missing_labels_have_none(drop, table, tmp_path):
    config = config_of(table, drop=drop)
    corpus = load_corpus(config, tmp_path)
    vocabulary = new_vocabulary(config, corpus.conditions)
    step = conditional_step(config.objectives[0], setting_of(config, vocabulary, corpus.train))
    batch, seen = corpus.train.tokens.batch(np.arange(len(corpus.train))), Remembers()
    names = {index: token for token, index in vocabulary.tokenizer.get_vocab().items()}
    counts, rng = Counter(), torch.Generator().manual_seed(0)
    for _ in range(10):
        output = step(seen, batch, rng)
        assert output.weight == len(batch.ids_N) - batch.layout.sequences
        for row in seen.rows:
            tokens = [names[index] for index in row if index >= vocabulary.size - sum(map(len, corpus.conditions))]
            assert [names[index] for index in row[1 : 1 + len(tokens)]] == tokens
            assert [token.partition(":")[0] for token in tokens] in ([], ["<oxygen"], ["<atoms"], ["<oxygen", "<atoms"])
            counts.update(token.partition(":")[0] for token in tokens)
    known = (~batch.targets_BK.isnan()).sum(dim=0) * 10
    for place, name in enumerate(("<oxygen", "<atoms")):
        assert counts[name] / int(known[place]) == pytest.approx(1 - drop, abs=0.03 if drop else 1e-9)


def test_a_generator_without_conditions_is_continued_with_them(table, tmp_path):
    """Before any step its texts cost what they cost: only tokens of conditions are new."""
    start, tokenizer = tmp_path / "start", CompositionTokenizer(scheme="count", order="electronegativity")
    first = MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=len(tokenizer))).eval()
    first.save_pretrained(start)
    tokenizer.save_pretrained(start)
    config = replace(config_of(table), model=ModelConfig("matgpt", start=str(start)))
    corpus = load_corpus(config, tmp_path)
    model = new_model(config, corpus, new_vocabulary(config, corpus.conditions)).eval()
    assert model.config.conditions == [bins.mapping() for bins in corpus.conditions]
    text = tokenizer("Li2O", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        old, new = first(text).logits, model(text).logits
    assert new.shape[-1] == old.shape[-1] + sum(map(len, corpus.conditions))
    torch.testing.assert_close(new[..., : old.shape[-1]], old)


def test_a_saved_folder_gives_the_same_samples_whatever_the_batch(model, tmp_path):
    asked = ("atoms=2..6", "oxygen=0..1")
    config = GenerateConfig(model[0], 40, str(tmp_path / "a.csv"), condition=asked, max_length=12, batch_size=40)
    whole = Generator(config, torch.device("cpu")).draw(0, 40)
    assert len({draw.bins for draw in whole}) > 3
    again = Generator(GenerateConfig(model[0], 9, "b.csv", condition=asked, max_length=12, batch_size=7), "cpu")
    assert [(d.text, d.bins) for d in again.draw(11, 20)] == [(d.text, d.bins) for d in whole[11:31]]
    loaded = Generator(config, torch.device("cpu"))
    copy = tmp_path / "copy"
    loaded.model.save_pretrained(copy)
    loaded._tokenizer.save_pretrained(copy)
    moved = GenerateConfig(str(copy), 40, str(tmp_path / "a.csv"), condition=asked, max_length=12, batch_size=40)
    assert Generator(moved, torch.device("cpu")).draw(0, 40) == whole


def test_cached_equals_uncached_and_the_probability_is_given_the_condition(model):
    config = GenerateConfig(model[0], 12, "x.csv", condition=("atoms=2..6",), seed=3, max_length=12, batch_size=5)
    generator = Generator(config, torch.device("cpu"))
    net, ids = generator.model, generator._ids
    for number, draw in enumerate(generator.draw(0, 12)):
        uniform = uniforms(3, number, 1, STREAM)[0]
        assert draw.bins == (generator.conditions.asked[0].draw(uniform),)
        prompt = [2, ids[f"<atoms:{draw.bins[0]}>"]]
        made, total, tokens = [], 0.0, uniforms(3, number, 12)
        forbidden = [0, 1, 2, 4, *(index for token, index in ids.items() if token[0] == "<")]
        for place in range(12):
            with torch.no_grad():
                logits = net(torch.tensor([[*prompt, *made]]), use_cache=False).logits[0, -1]
            masked = logits.clone()
            masked[forbidden] = -torch.inf
            token = int(choose(masked[None], torch.tensor([tokens[place]]), SamplingConfig()))
            total += float(logits.log_softmax(0)[token])
            if token == 3:
                break
            made.append(token)
        assert draw.text == generator._tokenizer.to_formula(made)
        assert draw.log_probability == pytest.approx(total, abs=1e-3)


def test_one_prompt_for_all_is_as_before(model):
    """A function that gives every sample the same prompt, and the prompt itself: the same bits."""
    net = MatGPTForCausalLM.from_pretrained(model[0]).eval()
    for prompt in ([2], [2, 9, 130]):
        plain = Sampler(net, prompt, 10, SamplingConfig(), batch=6)(0, 20)
        assert plain == Sampler(net, lambda _, prompt=prompt: prompt, 10, SamplingConfig(), batch=6)(0, 20)
    mixed = Sampler(net, lambda index: [2, 9 + index % 3], 10, SamplingConfig(), batch=6)(0, 20)
    for remainder in range(3):
        alone = Sampler(net, [2, 9 + remainder], 10, SamplingConfig(), batch=6)(0, 20)
        assert [s.ids for s in mixed[remainder::3]] == [s.ids for s in alone[remainder::3]]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """Weights that predict `atoms` (always 4.5), and another property."""
    folder = tmp_path_factory.mktemp("predictor")
    config = MatBERTConfig.of_size("tiny", property_names=["volume", "atoms"], property_units=["", ""])
    made = MatBERTForProperty(config)
    made.property_head.set_scaling(torch.tensor([1.0, 4.5]), torch.tensor([1.0, 1e-6]))
    made.save_pretrained(folder)
    CompositionTokenizer().save_pretrained(folder)
    return folder


def test_the_study_compares_samples_with_and_without_the_condition(model, predictor, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results.jsonl"
    call = ["conditions.py", "--model", model[0], "--predict", str(predictor), "--condition", "atoms=4.25..9", "--n", "20",
            "--seeds", "0,1", "--device", "cpu", "--work", str(tmp_path / "work"), "--results", str(results)]  # fmt: skip
    monkeypatch.setattr("sys.argv", call)
    study.main()
    found = {
        (e["model"].endswith("not asked for"), e["metric"]): e["value"] for e in load(results) if e["split"] == "mean"
    }
    assert found[False, "as_asked"] == found[True, "as_asked"] == found[False, "ratio:as_asked_unconditional"] == 1.0
    assert found[False, "valid"] > 0.5
    before = load(results)
    study.main()  # which finds everything done
    assert load(results) == before
    assert "| **run, atoms=4.25..9 by predictor0** (n = 20) | 1.0000 ± 0.0000 |" in capsys.readouterr().out


def test_novelty_to_the_table_of_the_models_own_training(model, table, tmp_path):
    columns, summary = generated(model, tmp_path, novel_to="training")
    assert summary["novel_to"] == str(table)
    known = {line.split(",")[0] for line in materials()}
    for text, novel in zip(columns["formula"], columns["novel"], strict=True):
        assert not (text in known and novel == "True")
    assert "False" in columns["novel"]
    with pytest.raises(MatfmError, match="matfm data build composition_known --out data"):
        generated(("matgpt-small",), tmp_path, novel_to="training", n=1)
    with pytest.raises(MatfmError, match="--novel-to training knows its own"):
        generated(model, tmp_path, novel_to="training", novel_input="formula")


def test_rows_that_a_run_predicts_as_asked_are_counted(model, predictor, tmp_path):
    shares = {}
    for asked in ("atoms=2..4.25", "atoms=4.25..9", "oxygen=1"):
        columns, summary = generated(model, tmp_path, condition=(asked,), predict=str(predictor))
        shares[asked] = summary["conditions"][0].get("share_as_asked")
        valid = columns["valid"].count("True")
        assert summary["conditions"][0].get("rows_predicted", valid) == valid
    assert shares == {"atoms=2..4.25": 0.0, "atoms=4.25..9": 1.0, "oxygen=1": None}


def test_conditions_work_with_constraints_and_prompts_and_resume(model, tmp_path, monkeypatch):
    options = {
        "condition": ("oxygen=1", "atoms=..5"), "prompt": "Li2", "charge_neutral": True, "elements": ("Li", "O", "Fe"),
        "n": 70, "only": ("valid",),
    }  # fmt: skip
    whole, _ = generated(model, tmp_path, **options)
    assert all(text.startswith("Li2") for text in whole["formula"])
    assert set(whole["charge_neutral"]) == {"True"}
    (tmp_path / "out.csv").unlink()
    draw = Generator.draw

    def broken(self, first, count):
        if first:
            raise KeyboardInterrupt
        return draw(self, first, count)

    monkeypatch.setattr("matfm.tasks.generation.config.CHUNK", 64)
    monkeypatch.setattr(Generator, "draw", broken)
    with pytest.raises(MatfmError, match="interrupted before"):
        generated(model, tmp_path, **options)
    monkeypatch.setattr(Generator, "draw", draw)
    with pytest.raises(MatfmError, match="begun with another condition"):
        generated(model, tmp_path, resume=True, **{**options, "condition": ("oxygen=1",)})
    resumed, _ = generated(model, tmp_path, resume=True, **options)
    assert resumed == whole


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("gap=1", r"'gap' is none of the conditions of .*; it knows oxygen, atoms"),
        ("oxygen=2", r"--condition oxygen=2 is in none of the bins 0, 1"),
        ("atoms=7..9", r"--condition atoms=7\.\.9 is in none of the bins 2"),
        ("atoms=many", r"--condition atoms=many: give a number \(2\.0\) or a range"),
        ("atoms=..", r"give a number"),
        ("atoms=nan", r"give a number"),
        ("atoms=5..3", r"the range ends before it begins"),
        ("atoms", r"--condition 'atoms' is not of the form property=value"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(model, asked, message):
    with pytest.raises(MatfmError, match=message):
        Generator(GenerateConfig(model[0], 1, "x.csv", condition=(asked,)), torch.device("cpu"))


def test_models_without_conditions_refuse_them_and_prompts_hold_none(model, tmp_path):
    with pytest.raises(MatfmError, match="matgpt-small was not trained with conditions"):
        Generator(GenerateConfig("matgpt-small", 1, "x.csv", condition=("band_gap=1",)), torch.device("cpu"))
    with pytest.raises(MatfmError, match="'oxygen' is asked for twice"):
        Generator(GenerateConfig(model[0], 1, "x.csv", condition=("oxygen=1", "oxygen=0")), torch.device("cpu"))
    with pytest.raises(MatfmError, match="holds the token of a condition"):
        Generator(GenerateConfig(model[0], 1, "x.csv", prompt="<oxygen:1>Li2"), torch.device("cpu"))


def test_properties_go_by_their_column_or_by_what_it_holds():
    values = np.linspace(0, 5, 50, dtype=np.float32)
    bins = PropertyBins.fit("oqmd_gap", "eV", values, 4, "band_gap")
    other = PropertyBins.fit("oqmd_formation_enthalpy", "eV/atom", -values, 4, "formation_enthalpy")
    saved = [bins.mapping(), other.mapping()]
    asked = Conditions.read(("e_form=-1.5..-0.5", "band_gap=2.0"), saved, "m", 0).asked
    assert [condition.bins.name for condition in asked] == ["oqmd_gap", "oqmd_formation_enthalpy"]  # as in training
    assert Conditions.read(("oqmd_gap=2",), saved, "m", 0).asked[0].bins == bins
    assert asked[0].holds(np.array([asked[0].low, 2.0, 4.9, 9.0])).tolist() == [True, True, False, False]
    assert asked[1].holds(np.array([-1.5, -0.5, -0.4])).tolist() == [True, True, False]
    assert asked[1].training_share() == pytest.approx(0.2, abs=0.02)
    assert [Condition.read(bins, "..9").draw(u) for u in (0.0, 0.999999)] == [0, len(bins) - 1]


REFUSED = [
    ({"condition": ["weight"]}, "condition has 'weight'; add that column to data.targets"),
    ({"condition": ["oxygen"]}, "data.targets has 'atoms', which is no condition"),
    ({"condition": []}, "data.targets is given, but no objective learns it"),
    ({"bins": 1}, "bins is 1; at least 2"),
    ({"drop": 1.0}, "drop is 1.0; it is a share"),
    ({"condition": ["oxygen", "atoms", "atoms"]}, "must name each column once"),
]


@pytest.mark.parametrize(("causal", "message"), REFUSED)
def test_contradictions_are_refused(causal, message, table):
    with pytest.raises(MatfmError) as caught:
        config_of(table, **causal)
    assert message in str(caught.value)


def test_molecules_have_conditions_too(tmp_path):
    path = tmp_path / "molecules.csv"
    chains = [f"{'C' * n}{end},{n}" for n in range(1, 13) for end in ("", "O", "N", "Cl")]
    path.write_text("\n".join(["smiles,carbons", *chains]) + "\n")
    values = {
        "data": {"kind": "smiles", "table": str(path), "targets": ["carbons"], "held_out": 0.1},
        "model": {"family": "matgpt", "size": "tiny"},
        "objective": [{"name": "causal", "condition": ["carbons"], "bins": 4}],
        "train": {"steps": 8, "tokens_per_batch": 300, "evaluations": 1},
        "device": "cpu",
    }
    run(from_mapping(PretrainConfig, values, "test"), tmp_path / "run")
    assert len(SmilesTokenizer.from_pretrained(tmp_path / "run")) > len(SmilesTokenizer())
    call = ["generate", str(tmp_path / "run"), "--n", "12", "--out", str(tmp_path / "new.csv"), "--device", "cpu",
            "--condition", "carbons=5..8", "--max-atoms", "9", "--max-length", "20"]  # fmt: skip
    result = CliRunner().invoke(app, call)
    assert sum(json.loads(result.stdout.splitlines()[-1])["conditions"][0]["drawn"].values()) == 12
    columns = read_table(str(tmp_path / "new.csv")).columns
    assert len(columns["condition_carbons"]) == 12
    assert "<carbons" not in "".join(columns["smiles"])
