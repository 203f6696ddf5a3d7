"""Terms of the loss: what they compute of a batch, and how they add up."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from matfm.chem.masking import MASK
from matfm.core.config import from_mapping
from matfm.tasks.pretrain import PretrainConfig, load_corpus, new_model, new_vocabulary, setting_of
from matfm.tasks.pretraining.objectives import TERMS, objective_step
from matfm.tasks.pretraining.setting import Objective, SharedBatch

SMILES = (Path(__file__).parents[1] / "data" / "drug_like.smi").read_text().split()[:80]
TERMS_OF_ROWS = ("property", "descriptors", "fingerprint")


class Case:
    def __init__(self, folder, **values):
        table = folder / "molecules.csv"
        table.write_text(
            "\n".join(["smiles,length", *(f"{s},{len(s) if i % 3 else ''}" for i, s in enumerate(SMILES))]) + "\n"
        )
        data = {"kind": "smiles", "table": str(table), "held_out": 0.2, **values.pop("data", {})}
        self.config = from_mapping(PretrainConfig, {"data": data, "model": {"size": "tiny"}, **values}, "test")
        self.corpus = load_corpus(self.config, folder / "run")
        vocabulary = new_vocabulary(self.config)
        self.model = new_model(self.config, self.corpus, vocabulary).eval()
        self.setting = setting_of(self.config, vocabulary, self.corpus.train)
        self.step = objective_step(self.config.objectives, self.setting)

    def batch(self, tokens=4000, seed=0):
        return self.corpus.train.batches(tokens, seed, 1).next()

    def shared(self, batch, seed=0):
        return SharedBatch(self.model, batch, torch.Generator().manual_seed(seed), self.setting)

    def term(self, name, batch, seed=0):
        objective = next(o for o in self.config.objectives if o.name == name)
        return TERMS[name].build(objective, self.setting)(self.shared(batch, seed))


@pytest.fixture
def everything(tmp_path):
    data = {"targets": ["length"], "descriptors": ["MolWt", "TPSA"], "fingerprint_bits": 128, "enumerations": 2}
    weights = {"property": 0.5, "descriptors": 2.0, "fingerprint": 3.0, "masked": 0.1}
    terms = [{"name": name, "weight": weight} for name, weight in weights.items()]
    terms.append({"name": "contrastive", "view": "enumeration"})
    return Case(tmp_path, data=data, objective=terms, masking={"rows": 0.5, "rate": 0.3})


def test_the_loss_is_the_weighted_sum_of_the_terms(everything):
    batch = everything.batch()
    output = everything.step(everything.model, batch, torch.Generator().manual_seed(3))
    shared = everything.shared(batch, 3)
    parts = [
        objective.weight * TERMS[objective.name].build(objective, everything.setting)(shared).loss_sum
        for objective in everything.config.objectives
    ]
    torch.testing.assert_close(output.loss_sum, sum(parts))
    assert output.weight == batch.layout.sequences
    assert set(output.metrics) == {"property", "descriptors", "fingerprint", "masked", "masked_accuracy", "contrastive"}
    output.loss_sum.backward()
    untouched = [name for name, p in everything.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert all("embed_amounts" in name for name in untouched), untouched


def test_two_halves_of_a_batch_add_up_to_it(tmp_path):
    data = {"targets": ["length"], "descriptors": ["MolWt"], "fingerprint_bits": 64}
    case = Case(tmp_path, data=data, objective=[{"name": name} for name in TERMS_OF_ROWS])
    rows = np.arange(40)
    tokens = case.corpus.train.tokens
    generator = torch.Generator()
    whole, first, second = (
        case.step(case.model, tokens.batch(part), generator) for part in (rows, rows[:13], rows[13:])
    )
    torch.testing.assert_close(whole.loss_sum, first.loss_sum + second.loss_sum)
    assert whole.weight == first.weight + second.weight


def test_one_term_alone_is_a_mean_over_what_it_counts(tmp_path):
    case = Case(tmp_path, masking={"rows": 1.0, "rate": 0.15})
    batch = case.batch()
    output = case.step(case.model, batch, torch.Generator().manual_seed(0))
    masked = case.shared(batch).masked
    assert output.weight == len(masked.positions_M) > 100
    hidden = case.model.matbert.forward_packed(masked.ids_N, batch.amounts_N, batch.layout)[masked.positions_M]
    expected = torch.nn.functional.cross_entropy(case.model.lm_head(hidden), masked.labels_M, reduction="sum")
    torch.testing.assert_close(output.loss_sum, expected, rtol=1e-5, atol=1e-4)


def test_rows_with_a_mask_do_not_count_as_their_molecule(everything):
    batch = everything.batch()
    masked_row = everything.shared(batch).masked.masked_row_B
    assert 5 < int(masked_row.sum()) < len(masked_row) - 5
    assert int(everything.term("fingerprint", batch).weight) == int((~masked_row).sum())
    labelled = ~batch.targets_BK[:, 0].isnan()
    assert 0 < int(everything.term("property", batch).weight) == int((labelled & ~masked_row).sum())
    assert int(everything.term("descriptors", batch).weight) == int((~masked_row).sum())


def test_targets_of_a_batch_belong_to_its_molecules(everything):
    """Whatever way a row is written in, its targets are those of the molecule."""
    from matfm.chem.smiles import parse_smiles
    from matfm.tasks.pretraining.molecule_targets import _fingerprints

    tokenizer, part = everything.setting.vocabulary.tokenizer, everything.corpus.train
    batches = part.batches(4000, 1, 4)
    batches.load_state_dict({"epoch": 2, "index": 0})
    batch = batches.next()
    ways = set()
    other, place = part.other_way(batch, torch.Generator().manual_seed(0))
    others = other.ids_N.split(other.layout.lengths())
    for position, ids in enumerate(batch.ids_N.split(batch.layout.lengths())):
        molecule = parse_smiles(tokenizer.decode(ids, skip_special_tokens=True))
        row = part.rows_of(batch)[position]
        ways.add(int(batch.rows_B[position]) % part.ways)
        assert np.array_equal(part.fingerprints_RW[row], _fingerprints([molecule.molecule], 128)[0])
        from rdkit.Chem import Descriptors

        assert float(batch.targets_BK[position, 1]) == pytest.approx(Descriptors.MolWt(molecule.molecule), rel=0.2)
        seen = parse_smiles(tokenizer.decode(others[int(place[position])], skip_special_tokens=True))
        assert seen.canonical == molecule.canonical
    assert ways == {0, 1, 2}
    assert not torch.equal(other.rows_B[place], batch.rows_B)


def test_a_trained_pair_of_views_is_found(everything):
    """The contrastive term compares each molecule with its own other spelling, not with its neighbour's."""
    batch = everything.batch(1500)
    optimizer = torch.optim.AdamW(everything.model.parameters(), 2e-3)
    for step in range(25):
        loss = everything.term("contrastive", batch, step)
        optimizer.zero_grad()
        (loss.loss_sum / loss.weight).backward()
        optimizer.step()
    final = everything.term("contrastive", batch, 99)
    assert float((final.loss_sum / final.weight).detach()) < 0.3 * np.log(batch.layout.sequences)


@pytest.mark.parametrize("view", ["noise", "dropout"])
def test_views_without_spellings(view, tmp_path):
    case = Case(tmp_path, objective=[{"name": "contrastive", "view": view}], model={"size": "tiny", "dropout": 0.2})
    case.model.train()
    output = case.term("contrastive", case.batch())
    assert 0 < float((output.loss_sum / output.weight).detach()) < 2 * np.log(len(SMILES))


def test_jittered_amounts_are_a_view_of_compositions(small_table, tmp_path):
    values = {"data": {"table": str(small_table), "held_out": 0.3}, "model": {"size": "tiny"}}
    config = from_mapping(PretrainConfig, {**values, "objective": [{"name": "contrastive", "view": "jitter"}]}, "test")
    corpus = load_corpus(config, tmp_path)
    vocabulary = new_vocabulary(config)
    model = new_model(config, corpus, vocabulary).eval()
    step = objective_step(config.objectives, setting_of(config, vocabulary, corpus.train))
    batch = corpus.train.tokens.batch(np.arange(len(corpus.train)))
    first, again = (step(model, batch, torch.Generator().manual_seed(1)).loss_sum for _ in range(2))
    other = step(model, batch, torch.Generator().manual_seed(2)).loss_sum
    assert first == again != other
    # Every formula is in the table three times; repetitions are no negatives of each other.
    assert len(torch.unique(torch.from_numpy(corpus.train.group_R))) < len(corpus.train) / 2


@pytest.mark.parametrize("scheme", ["ring", "scaffold", "branch", "functional_group"])
@pytest.mark.parametrize("kind", ["smiles", "selfies"])
def test_units_are_masked_whole(kind, scheme, tmp_path):
    data = {"kind": kind, "enumerations": 1, "from_smiles": kind == "selfies", "input": "smiles"}
    case = Case(
        tmp_path,
        data=data,
        masking={"scheme": scheme, "rows": 1.0, "rate": 0.3, "mask_share": 1.0, "random_share": 0.0},
    )
    batch = case.batch()
    masked = case.shared(batch).masked
    hidden = np.split((masked.ids_N == MASK).numpy(), np.cumsum(batch.layout.lengths())[:-1])
    whole = 0
    for sequence, covered in zip(batch.rows_B.tolist(), hidden, strict=True):
        places = set((np.flatnonzero(covered) - 1).tolist())
        units = case.corpus.train.units.of(sequence)
        inside = [unit for unit in units if set(unit) <= places]
        if units:
            assert places == {position for unit in inside for position in unit}
            whole += len(inside)
    assert whole > 20


def test_spans_and_noise_start_where_generation_starts(tmp_path):
    """MatT5 generates from [PAD]; its decoder must have seen that as first input, and [SEP] as last label."""
    for name in ("span", "denoising"):
        case = Case(tmp_path, model={"size": "tiny", "family": "matt5"}, objective=[{"name": name}])
        seen = {}

        def record(ids, layout, target_ids, target_layout, seen=seen, original=case.model.logits_packed):
            seen["first"] = target_ids[target_layout.first_tokens()]
            seen["last"] = torch.stack([part[-1] for part in target_ids.split(target_layout.lengths())])
            return original(ids, layout, target_ids, target_layout)

        case.model.logits_packed = record
        case.step(case.model, case.batch(), torch.Generator().manual_seed(0))
        assert set(seen["first"].tolist()) == {case.model.config.decoder_start_token_id}
        assert set(seen["last"].tolist()) == {case.model.config.eos_token_id}


def test_spans_of_a_share_of_the_rows(tmp_path):
    spans = {"name": "span", "rows": 0.2}
    case = Case(tmp_path, model={"size": "tiny", "family": "matt5"}, objective=[spans])
    batch, drawn = case.batch(), []

    def record(ids, layout, *targets, original=case.model.logits_packed):
        drawn.append(layout.sequences)
        return original(ids, layout, *targets)

    case.model.logits_packed = record
    outputs = [case.step(case.model, batch, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert set(drawn) == {math.ceil(0.2 * batch.layout.sequences)}
    assert drawn[0] < batch.layout.sequences
    one, same, other = (output.loss_sum.item() for output in outputs)
    assert one == same != other


def test_a_new_term_is_one_function_and_one_entry(monkeypatch, tmp_path):
    from matfm.core.step import StepOutput
    from matfm.tasks.pretraining.objectives import Term

    def build(objective, setting):
        return lambda shared: StepOutput(
            shared.pooled_BD.square().sum(), torch.tensor(1.0), {"small": (torch.ones(()), torch.ones(()))}
        )

    monkeypatch.setitem(TERMS, "small", Term(("matbert",), build))
    case = Case(tmp_path, objective=[{"name": "small", "weight": 2.0}, {"name": "masked"}])
    assert case.config.objectives[0] == Objective("small", 2.0)
    output = case.step(case.model, case.batch(), torch.Generator().manual_seed(0))
    assert "small" in output.metrics


def test_label_smoothing_reaches_the_terms(tmp_path):
    case = Case(tmp_path, model={"size": "tiny", "family": "matgpt"}, train={"label_smoothing": 0.1})
    assert case.setting.label_smoothing == 0.1
    plain = objective_step(case.config.objectives, replace(case.setting, label_smoothing=0.0))
    batch, generator = case.batch(), torch.Generator()
    assert not torch.equal(
        case.step(case.model, batch, generator).loss_sum, plain(case.model, batch, generator).loss_sum
    )
