"""What can be searched, how it is written, and which rows trials are scored on."""

import tomllib

import numpy as np
import pytest

from matfm import MatfmError
from matfm.core.toml_text import toml_value
from matfm.tasks.finetune import FinetuneConfig
from matfm.tasks.fit_config import FitConfig, optimizer_of
from matfm.tasks.labelled_rows import load_rows
from matfm.tasks.splitting import UsableRows
from matfm.tasks.tables import read_table
from matfm.tasks.tuning.inner_folds import inner_folds
from matfm.tasks.tuning.search_space import (
    Parameter,
    check_space,
    default_space,
    draw,
    read_space,
    setting,
    usual_settings,
    with_settings,
)

CONFIG = FinetuneConfig("t.csv", "formula", ("gap",), kind="composition", fit=FitConfig().for_kind("composition"))


class Recorded:
    """Draws the smallest value or the first choice, and remembers the names."""

    def __init__(self, **chosen):
        self.names, self.chosen = [], chosen

    def suggest_categorical(self, name, choices):
        self.names.append(name)
        return self.chosen.get(name.removeprefix("fit."), choices[0])

    def suggest_int(self, name, low, high, step, log):
        assert isinstance(low, int)
        return self.suggest_categorical(name, [low])

    def suggest_float(self, name, low, high, step, log):
        return self.suggest_categorical(name, [low])


def space_of(text):
    return read_space(tomllib.loads(text), "s.toml")


def test_a_space_may_be_written_in_sections_or_with_dotted_names_and_comes_back():
    sections = space_of("[fit]\ndropout = { low = 0.0, high = 0.3 }\n[fit.optimizer]\nlearning_rate = [1e-4, 1e-3]")
    dotted = space_of('fit.dropout = { low = 0.0, high = 0.3 }\n"fit.optimizer.learning_rate" = [1e-4, 1e-3]')
    assert sections == dotted
    for kind, task in (("composition", "regression"), ("smiles", "classification")):
        config = FinetuneConfig("t.csv", "x", ("y",), kind=kind, fit=FitConfig(task=task))
        space = default_space(config)
        written = "\n".join(f"{toml_value(p.name)} = {toml_value(p.entry())}" for p in space)
        assert space_of(written) == space
        check_space(space, config)


def test_layer_decay_is_drawn_only_where_layers_are_trained():
    space = default_space(CONFIG)
    full = draw(space, CONFIG, Recorded(strategy="full"))
    assert "fit.optimizer.layer_decay" in full
    assert "fit.optimizer.layer_decay" not in draw(space, CONFIG, Recorded(strategy="lora"))
    conditional_first = tuple(reversed(space))
    assert draw(conditional_first, CONFIG, Recorded(strategy="full")) == full


def test_every_strategy_keeps_its_own_optimizer_but_for_what_is_drawn():
    plain = FinetuneConfig("t.csv", "formula", ("gap",), kind="composition")
    lora = with_settings(plain, {"fit.strategy": "lora", "fit.optimizer.learning_rate": 0.01}).fit
    assert lora.optimizer.weight_decay == optimizer_of("lora").weight_decay == 0.0
    assert lora.optimizer.learning_rate == 0.01
    assert with_settings(plain, {"fit.dropout": 0.2}).fit.optimizer == optimizer_of("full")
    assert setting(plain, "fit.optimizer.layer_decay") == 0.75
    assert setting(plain, "fit.optimizer.nothing") is None


def test_the_usual_settings_lie_in_the_default_space_and_change_nothing():
    usual = usual_settings(default_space(CONFIG), CONFIG)
    assert set(usual) == {parameter.name for parameter in default_space(CONFIG)}
    assert isinstance(usual["fit.epochs"], int)
    assert with_settings(CONFIG, usual) == with_settings(CONFIG, {})
    assert "fit.dropout" not in usual_settings((Parameter("fit.dropout", low=0.2, high=0.3),), CONFIG)


def test_what_is_set_is_not_searched():
    names = {p.name for p in default_space(CONFIG, frozenset({"fit.optimizer", "fit.epochs"}))}
    assert not any(name.startswith("fit.optimizer") or name == "fit.epochs" for name in names)
    with pytest.raises(MatfmError, match=r"fit.dropout is both set and searched"):
        check_space(space_of("fit.dropout = [0.1, 0.2]"), CONFIG, frozenset({"fit.dropout"}))
    everything = frozenset(p.name for p in default_space(CONFIG))
    with pytest.raises(MatfmError, match="fix every setting"):
        default_space(CONFIG, everything)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names nothing to search"),
        ("fit.dropout = 0.1", "write a list of choices"),
        ("fit.dropout = []", "needs either choices"),
        ("fit.dropout = { low = 0.3, high = 0.1 }", "low must be below high"),
        ("fit.dropout = { low = 0.0, high = 0.3, log = true }", "low must be positive"),
        ("fit.dropout = { low = 0.0, high = 0.3, step = 0.2 }", "whole steps above low"),
        ("fit.dropout = { low = 0.0, hihg = 0.3 }", "unknown key hihg"),
        ('fit.dropout = { low = "a", high = 0.3 }', "low is 'a'; it must be a number"),
        ("fit.dropout = [0.1, 0.1]", "names a value twice"),
        ("fit.lora_maps = [['qkv']]", "cannot be a choice"),
        ("test_share = [0.1, 0.2]", "all trials share their rows"),
        ('fit.backbone = ["a", "b"]', "search once for each backbone"),
        ("fit.dropout = { low = 0.0, high = 0.3, only = 3 }", "only says for which values"),
    ],
)
def test_a_wrong_space_is_refused_with_its_place(text, reason):
    with pytest.raises(MatfmError, match=reason) as caught:
        space_of(text)
    assert "s.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fit.droput = [0.1, 0.2]", "unknown key fit.droput; did you mean fit.dropout"),
        ("fit.epochs.all = [1, 2]", "epochs has no settings of its own"),
        ('fit.loss = ["l1", "l7"]', "loss is 'l7'"),
        ("fit.tokens_per_batch = { low = 1.5, high = 9.5 }", "must be a whole number"),
        ('fit.dropout = { low = 0.0, high = 0.1, only = { "fit.no" = [1] } }', "there is no setting fit.no"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_trained(text, reason):
    with pytest.raises(MatfmError, match=reason):
        check_space(space_of(text), CONFIG)


def rows_of(path, split="random", **options):
    config = FinetuneConfig(
        str(path),
        "formula",
        ("gap",),
        kind="composition",
        split=split,
        fit=FitConfig(backbone="scratch:tiny"),
        **options,
    )
    table = read_table(str(path))
    labelled = load_rows(config, table)
    targets = labelled.examples.tokens.targets_RK
    return labelled, UsableRows(table, str(path), "formula", "composition", labelled.rows, targets, None)


def test_folds_cover_training_and_validation_rows_and_never_the_test_rows(small_table):
    labelled, usable = rows_of(small_table, test_share=0.3)
    folds = inner_folds("random", usable, labelled.parts, 3, 0)
    groups = np.array([str(group) for group in usable.groups()])
    used = np.flatnonzero(labelled.parts != "test")
    assert sorted(np.concatenate([valid for _, valid in folds])) == used.tolist()
    for train, valid in folds:
        assert sorted(np.concatenate([train, valid])) == used.tolist()
        assert not set(groups[train]) & set(groups[valid])


def test_one_fold_is_the_validation_part_or_a_fifth_of_the_training_rows(small_table, tmp_path):
    labelled, usable = rows_of(small_table, valid_share=0.2)
    ((train, valid),) = inner_folds("random", usable, labelled.parts, 1, 0)
    assert (labelled.parts[train] == "train").all()
    assert (labelled.parts[valid] == "valid").all()
    labelled, usable = rows_of(small_table, valid_share=0.0)
    ((train, valid),) = inner_folds("random", usable, labelled.parts, 1, 0)
    assert (labelled.parts[np.concatenate([train, valid])] == "train").all()
    assert 0.1 < len(valid) / (len(train) + len(valid)) < 0.3


def test_folds_keep_together_what_the_split_keeps_together(tmp_path):
    path = tmp_path / "t.csv"
    oxides = [f"{metal}{amount}O" for metal in ("Fe", "Zn", "Ti", "Na", "Cu", "Al") for amount in range(1, 5)]
    path.write_text("formula,gap,lab\n" + "\n".join(f"{f},{i},{'abc'[i % 3]}" for i, f in enumerate(oxides)) + "\n")
    for split in ("chemical-system", "domain:lab"):
        labelled, usable = rows_of(path, split)
        of_row = [frozenset(text.rstrip("O0123456789")) for text in usable.inputs]
        of_row = of_row if split == "chemical-system" else usable.cells("lab")
        for train, valid in inner_folds(split, usable, labelled.parts, 2, 0):
            assert not {of_row[row] for row in train} & {of_row[row] for row in valid}


def test_too_many_folds_are_refused(small_table):
    labelled, usable = rows_of(small_table)
    with pytest.raises(MatfmError, match="choose fewer"):
        inner_folds("random", usable, labelled.parts, 60, 0)
