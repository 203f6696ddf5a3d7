"""Pairs of rows, the term of the loss, held-out scores, and corpora of molecules and compositions in one run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from matfm import JointTokenizer, MatfmError, parse_smiles, selfies_to_smiles, smiles_to_selfies
from matfm.chem.property_text import read_description
from matfm.core import trainer
from matfm.core.config import from_mapping
from matfm.core.layout import PackedLayout
from matfm.core.objectives import token_loss
from matfm.tasks.pretrain import PretrainConfig, load_corpus, new_model, new_vocabulary, run, setting_of
from matfm.tasks.pretraining.objectives import objective_step
from matfm.tasks.pretraining.pairs import TASK_NAMES
from matfm.tasks.pretraining.translation import own_sequences, pair_writer

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()[:40]
MATERIALS = "formula,band_gap,volume_per_atom,formation_enthalpy\nGaN,3.4,11.4,-0.8\nFe2O3,2.0,,-1.7\nCu,0,11.8,0\nNaCl,8.5,22.4,\nKCl,8.6,31.2,-2.2\nSi,1.1,20.0,0\nZnO,3.3,11.9,-1.8\nAl,0,,\nMgO,7.8,9.3,-3.0\n"


@pytest.fixture
def tables(tmp_path):
    molecules, materials = tmp_path / "molecules.csv", tmp_path / "materials.csv"
    molecules.write_text("\n".join(["smiles", *SMILES]) + "\n")
    materials.write_text(MATERIALS)
    return {
        "molecules": {"kind": "smiles", "table": str(molecules), "held_out": 0.2},
        "materials": {
            "kind": "composition", "table": str(materials), "held_out": 0.2,
            "targets": ["band_gap", "volume_per_atom", "formation_enthalpy"],
        },
    }  # fmt: skip


class Case:
    """A corpus with its writer of pairs."""

    def __init__(self, data, out, **values):
        objective = {"name": "translation", "sample": 6, **values.pop("objective", {})}
        model = {"family": "matt5", "size": "tiny", **values.pop("model", {})}
        values = {"data": data, "model": model, "objective": [objective, *values.pop("others", [])], **values}
        self.config = from_mapping(PretrainConfig, values, "test")
        self.corpus = load_corpus(self.config, out)
        self.vocabulary = new_vocabulary(self.config)
        self.setting = setting_of(self.config, self.vocabulary, self.corpus.train)
        self.writer = pair_writer(self.config.objectives[0], self.setting)
        self.part = self.corpus.train

    def pairs(self, seed=0):
        """(task, source, target) of every row for every task, decoded."""
        tokenizer = self.vocabulary.tokenizer
        tokens, found = self.part.tokens, []
        for row in range(len(tokens)):
            own = tokens.ids_N[tokens.offsets[row] : tokens.offsets[row + 1]]
            for task in self.writer.tasks_of(row * self.part.ways, row):
                generator = np.random.default_rng(seed + row)
                source, target = self.writer.pair(task, own, row * self.part.ways, row, generator)
                assert (source[0], source[-1], target[0], target[-1]) == (2, 3, 0, 3)
                assert tokenizer.decode(source[1]) == task
                found.append((task, *(tokenizer.decode(ids, skip_special_tokens=True) for ids in (source, target))))
        return found


def test_molecules_are_pairs_of_the_same_spelling(tables, tmp_path):
    case = Case({**tables["molecules"], "enumerations": 2}, tmp_path)
    assert case.part.ways == 3
    pairs = case.pairs()
    assert {task for task, _, _ in pairs} == {"<to_selfies>", "<to_smiles>"}
    for task, source, target in pairs:
        smiles, selfies = (source, target) if task == "<to_selfies>" else (target, source)
        assert smiles_to_selfies(smiles) == selfies
    # Every way of a row has its own partner.
    sequences, partners = case.part.varied.sequences, case.part.pairs.partners
    decode = case.vocabulary.tokenizer.decode
    for number in range(len(sequences)):
        smiles, selfies = (
            decode(each.ids_N[each.offsets[number] : each.offsets[number + 1]], skip_special_tokens=True)
            for each in (sequences, partners)
        )
        assert smiles_to_selfies(smiles) == selfies
        assert parse_smiles(selfies_to_smiles(selfies)).canonical == parse_smiles(smiles).canonical


def test_compositions_are_pairs_with_what_is_known_of_them(tables, tmp_path):
    case = Case(tables["materials"], tmp_path)
    pairs = case.pairs()
    by_task = {task: [pair[1:] for pair in pairs if pair[0] == task] for task in dict.fromkeys(p[0] for p in pairs)}
    assert set(by_task) == {"<to_text>", "<to_composition>", "<answer>"}
    assert [pair[::-1] for pair in by_task["<to_composition>"]] == by_task["<to_text>"]
    texts = {source.replace(" ", ""): target.strip() for source, target in by_task["<to_text>"]}
    expected = {
        "Fe2O3": "semiconductor, band gap 2.0 eV, formation enthalpy -1.70 eV/atom",
        "Cu1": "metal, formation enthalpy 0.00 eV/atom, volume 11.8 Å³/atom",
        "Na1Cl1": "insulator, band gap 8.5 eV, volume 22.4 Å³/atom",
    }
    assert texts.items() & expected.items() == {(name, text) for name, text in expected.items() if name in texts}
    for source, target in by_task["<answer>"]:
        composition, _, asked = source.partition("; ")
        said = read_description(target.strip())
        assert len(said.values) == asked.count("?") > 0
        words = [statement.rsplit(" ", 2)[0] for statement in target.strip().split(", ")]
        assert words == [question.strip() for question in asked.split("?")[:-1]]
        assert texts[composition.replace(" ", "")]


def test_missing_labels_are_not_asked_for(tables, tmp_path):
    case = Case(tables["materials"], tmp_path)
    asked = {source for seed in range(20) for task, source, _ in case.pairs(seed * 100) if task == "<answer>"}
    assert not any(" Al1" in source and ("volume" in source or "enthalpy" in source) for source in asked)
    assert len(asked) > 20


def test_packed_pairs_have_the_loss_of_each_pair_alone(tables, tmp_path):
    data = {**tables["molecules"], "more": [tables["materials"]]}
    case = Case(data, tmp_path)
    model = new_model(case.config, case.corpus, case.vocabulary).eval().double()
    batch = case.part.batches(3000, 0, 1).next()
    output = objective_step(case.config.objectives, case.setting)(model, batch, torch.Generator().manual_seed(4))
    made = case.writer.batch(
        own_sequences(batch), batch.rows_B.numpy(), case.part.ways, torch.Generator().manual_seed(4)
    )
    sources = made.source_ids_N.split(made.source_layout.lengths())
    targets = made.target_ids_M.split(made.target_layout.lengths())
    total = weight = 0
    for source, target in zip(sources, targets, strict=True):
        layouts = [PackedLayout.from_lengths([len(ids)]) for ids in (source, target[:-1])]
        loss, count = token_loss(model.logits_packed(source, layouts[0], target[:-1], layouts[1]), target[1:])
        total, weight = total + loss, weight + count
    torch.testing.assert_close(output.loss_sum, total)
    assert output.weight == weight
    by_task = {name: value for name, value in output.metrics.items() if name != "translation"}
    assert set(by_task) <= {f"{name}_nats" for name in TASK_NAMES}
    torch.testing.assert_close(sum(value[0] for value in by_task.values()), total)


def test_every_task_is_drawn_and_the_same_state_gives_the_same_pairs(tables, tmp_path):
    case = Case({**tables["molecules"], "more": [tables["materials"]]}, tmp_path)
    batch = case.part.batches(10_000, 0, 1).next()

    def made(seed):
        generator = torch.Generator().manual_seed(seed)
        return case.writer.batch(own_sequences(batch), batch.rows_B.numpy(), 1, generator)

    drawn = [made(seed) for seed in range(4)]
    assert {task for each in drawn for task, _ in each.by_task} == set(TASK_NAMES)
    assert torch.equal(drawn[0].target_ids_M, made(0).target_ids_M)
    assert not torch.equal(drawn[0].target_ids_M, drawn[1].target_ids_M)
    assert drawn[0].source_layout.sequences == drawn[0].target_layout.sequences == batch.layout.sequences


def test_a_batch_without_pairs_costs_nothing(tables, tmp_path):
    case = Case({**tables["materials"], "targets": ["volume_per_atom"]}, tmp_path)
    model = new_model(case.config, case.corpus, case.vocabulary)
    unlabelled = np.flatnonzero(np.isnan(case.part.pairs.labels_RK[:, 0]))
    batch = case.part.tokens.batch(unlabelled)
    output = objective_step(case.config.objectives, case.setting)(model, batch, torch.Generator())
    assert float(output.loss_sum.detach()) == float(output.weight) == 0
    output.loss_sum.backward()


def settings(tables, steps, **values):
    base = {
        "data": {**tables["molecules"], "more": [tables["materials"]]},
        "model": {"family": "matt5", "size": "tiny", "relative_buckets": 64},
        "objective": [{"name": "translation", "sample": 2}, {"name": "span", "weight": 0.5}],
        "train": {"steps": steps, "tokens_per_batch": 500, "evaluations": 1, "log_every": 1, "checkpoint_every": 3},
        "optimizer": {"method": "muon", "learning_rate": 5e-3},
        "device": "cpu",
    }
    return from_mapping(PretrainConfig, {**base, **values}, "test")


def test_one_run_learns_molecules_and_compositions_and_loads_elsewhere(tables, tmp_path):
    summary = run(settings(tables, 20), tmp_path / "run")
    losses = [record["loss"] for record in trainer.read_log(tmp_path / "run" / "log.jsonl") if "loss" in record]
    assert losses[-1] < 0.75 * losses[0]
    assert {"translation_nats", "span_nats", "to_selfies_nats", "to_smiles_exact"} <= set(summary["valid"])
    assert summary["rows_in"] == len(SMILES) + 9 == summary["rows_used"] + summary["rows_rejected"]
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert isinstance(tokenizer, JointTokenizer)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.translation_tasks == list(TASK_NAMES)
    assert model.config.translation_properties == ["band_gap", "volume_per_atom", "formation_enthalpy"]
    assert model.config.relative_attention_num_buckets == 64
    assert model.generate(**tokenizer("<to_selfies>CCO", return_tensors="pt"), max_new_tokens=5).shape[0] == 1


def test_a_killed_run_resumes_bit_by_bit(tables, tmp_path, monkeypatch):
    config = settings(tables, 4)
    run(config, tmp_path / "whole")
    original = trainer._Run.save

    def save(self):
        original(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer._Run, "save", save)
    with pytest.raises(MatfmError):
        run(config, tmp_path / "cut")
    monkeypatch.undo()
    run(config, tmp_path / "cut", resume=True)
    whole, cut = (AutoModelForSeq2SeqLM.from_pretrained(tmp_path / name) for name in ("whole", "cut"))
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), cut.parameters(), strict=True))


def test_the_first_rows_of_a_table_are_enough(tables, tmp_path):
    assert Case({**tables["molecules"], "rows": 25}, tmp_path).corpus.rows_in == 25


MOLECULES = {"kind": "smiles", "table": "t"}
REFUSED = [
    ({"kind": "selfies", "table": "t"}, {}, "give data.kind = 'smiles'"),
    ({"kind": "smiles", "tokens": "t"}, {}, "a token file has only tokens"),
    ({**MOLECULES, "vocabulary": "smiles"}, {}, "has a vocabulary of its own"),
    ({**MOLECULES, "max_length": 50}, {}, "cut ones are no pairs"),
    ({**MOLECULES, "targets": ["x"]}, {}, "no objective learns it"),
    ({"table": "t"}, {}, "needs data.targets, the columns of its texts"),
    ({"table": "t", "targets": ["x"], "order": "hill"}, {}, "in data.scheme 'count' and data.order"),
    ({**MOLECULES, "enumerations": 1, "more": [{"table": "t", "targets": ["x"]}]}, {}, "leave data.enumerations out"),
    ({**MOLECULES, "more": [{"table": "t"}]}, {}, "needs data.targets"),
    ({**MOLECULES, "more": [{**MOLECULES, "more": [MOLECULES]}]}, {}, "has none of its own"),
    ({**MOLECULES, "rows": -1}, {}, "data.rows is -1"),
    (MOLECULES, {"tasks": ["to_inchi"]}, "there is no task 'to_inchi'"),
    (MOLECULES, {"tasks": ["to_smiles", "to_smiles"]}, "each once"),
    (MOLECULES, {"sample": -1}, "sample is -1"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "objective", "message"), REFUSED)
def test_contradictions_are_refused(data, objective, message):
    values = {"data": data, "model": {"family": "matt5"}, "objective": [{"name": "translation", **objective}]}
    with pytest.raises(MatfmError) as caught:
        from_mapping(PretrainConfig, values, "c.toml")
    assert message in str(caught.value)


def test_further_corpora_and_buckets_need_their_objective_and_family():
    with pytest.raises(MatfmError, match="which is not given"):
        from_mapping(PretrainConfig, {"data": {**MOLECULES, "more": [MOLECULES]}}, "c.toml")
    with pytest.raises(MatfmError, match="matbert has no relative positions"):
        from_mapping(PretrainConfig, {"data": MOLECULES, "model": {"relative_buckets": 64}}, "c.toml")


def test_columns_that_texts_cannot_say(tables, tmp_path):
    table = Path(tables["materials"]["table"])
    table.write_text(MATERIALS.replace("volume_per_atom", "egap"))
    with pytest.raises(MatfmError, match="hold the property 'band_gap'"):
        Case({**tables["materials"], "targets": ["band_gap", "egap"]}, tmp_path)
    table.write_text(MATERIALS.replace("volume_per_atom", "colour"))
    with pytest.raises(MatfmError, match="no words for the property 'colour'"):
        Case({**tables["materials"], "targets": ["colour"]}, tmp_path)
