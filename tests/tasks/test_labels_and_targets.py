"""Cells to labels, sides, weights and conditions; heads chosen on training labels alone."""

import math

import numpy as np
import pytest

from matfm import MatfmError
from matfm.chem.units import Property
from matfm.core.batching import RaggedTokens
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.labels import parse_label, read_labels
from matfm.tasks.tables import Chunk
from matfm.tasks.targets import Targets, censored_counts, with_heads


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("5", (5, 0)), (" -2.5e-3 ", (-0.0025, 0)), ("<5", (5, -1)), ("> 10", (10, 1)), ("≤5", (5, -1)), ("≥ 1e3", (1000, 1)),
        ("<=7", (7, -1)), (">=7", (7, 1)), (" <-3", (-3, -1)),
    ],
)  # fmt: skip
def test_labels_and_their_sides(cell, expected):
    assert parse_label(cell) == expected


@pytest.mark.parametrize("cell", ["<", ">=", "<<5", "5<", "~5", "<many", "<inf"])
def test_what_is_no_label(cell):
    with pytest.raises(MatfmError, match="is not a"):
        parse_label(cell)


def test_an_empty_cell_is_a_missing_label():
    value, side = parse_label(" ")
    assert math.isnan(value)
    assert side == 0


def table(**columns):
    return Chunk({name: list(cells) for name, cells in columns.items()}, 0)


def test_rows_that_cannot_be_used_have_a_reason():
    chunk = table(
        y=["1", "<2", "", "x", "5", "6", "7"],
        temperature=["300", "310", "320", "330", "", "hot", "360"],
        trust=["1", "2", "1", "1", "1", "1", "0"],
    )
    labels = read_labels(chunk, "t.csv", ["y"], "regression", ["temperature"], "trust")
    assert {row: column for row, (column, _) in labels.reasons.items()} == {
        2: "y", 3: "y", 4: "temperature", 5: "temperature", 6: "trust"
    }  # fmt: skip
    assert labels.reasons[4][1] == "the condition 'temperature' is missing"
    assert labels.reasons[6][1] == "the weight is 0; it must be positive"
    assert labels.side_RK[:2, 0].tolist() == [0, -1]
    assert labels.conditions_RC[:2, 0].tolist() == [300, 310]
    assert labels.weight_R[:2].tolist() == [1, 2]


def test_signs_are_part_of_the_names_of_classes():
    labels = read_labels(table(y=["<5", ">5", "<5"]), "t.csv", ["y"], "classification")
    assert labels.classes == (("<5", ">5"),)
    assert labels.targets_RK[:, 0].tolist() == [0, 1, 0]


def examples(*columns, side=None):
    labels = np.array(columns, dtype=np.float32).T
    tokens = RaggedTokens.from_sequences([([5], [0.0])] * len(labels), labels)
    return Examples(tokens, None if side is None else np.array(side, dtype=np.int8).reshape(labels.shape))


def chosen(config, *columns, side=None):
    known = tuple(Property(f"y{k}", "") for k in range(len(columns)))
    return with_heads(Targets(known), FitConfig(**config), examples(*columns, side=side))


ZEROS = [0.0] * 15 + list(np.linspace(1, 2, 15))
SKEWED = list(np.exp(np.random.default_rng(0).normal(size=200)))
EVEN = list(np.linspace(1, 9, 30))


def test_plain_heads_are_the_default():
    assert chosen({}, ZEROS) == Targets((Property("y0", ""),), two_part=(False,), log=(False,))


def test_auto_takes_two_parts_where_many_labels_are_zero():
    targets = chosen({"head": "auto"}, ZEROS, EVEN)
    assert targets.two_part == (True, False)
    assert targets.heads()["y0"] == {"head": "two-part", "transform": "none"}
    assert chosen({"head": "auto"}, [0.0] * 3 + EVEN).two_part == (False,)
    assert chosen({"head": "auto", "loss": "quantile"}, ZEROS).two_part == (False,)
    assert chosen({"head": "auto"}, ZEROS, side=[0] * 29 + [1]).two_part == (False,)


def test_auto_takes_logarithms_of_skewed_positive_labels():
    assert chosen({"transform": "auto"}, SKEWED).log == (True,)
    assert chosen({"transform": "auto"}, EVEN).log == (False,)
    assert chosen({"transform": "auto"}, [0.0, *SKEWED]).log == (False,)
    assert chosen({"transform": "auto", "head": "auto"}, [*([0.0] * 50), *SKEWED]).log == (True,)


@pytest.mark.parametrize(
    ("config", "side", "message"),
    [
        ({"transform": "log"}, None, "a training label of 'y0' is 0; choose none, or head=two-part"),
        ({"loss": "quantile"}, 1, "'y0' has censored labels, which the loss quantile cannot use"),
        ({"head": "two-part"}, -1, "'y0' has censored labels, which a two-part head cannot use"),
    ],
)
def test_labels_that_an_option_cannot_use_are_refused(config, side, message):
    with pytest.raises(MatfmError, match=message):
        chosen(config, ZEROS, side=None if side is None else [side] + [0] * 29)


def test_two_parts_need_zeros_and_other_labels():
    with pytest.raises(MatfmError, match="0 of the 30 training labels of 'y0' are 0; choose plain"):
        chosen({"head": "two-part"}, EVEN)


def test_a_target_without_training_labels_is_named():
    with pytest.raises(MatfmError, match="no training row has a label of 'y1'"):
        chosen({}, EVEN, [math.nan] * 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "classification", "head": "auto"}, "head is auto and task is classification; it is for regression"),
        ({"task": "classification", "loss": "l2"}, "it is for regression"),
        ({"class_weights": "balanced"}, "class_weights is balanced and task is regression; it is for classification"),
        ({"label_smoothing": 0.1}, "it is for classification"),
        ({"loss": "l3"}, "loss is 'l3'; choose one of l1, l2, huber, gaussian, quantile"),
        ({"loss": "quantile", "head": "two-part"}, "head is two-part and loss is quantile"),
        ({"loss": "quantile", "quantiles": (0.1, 0.9)}, "0.5, the prediction, must be one of them"),
        ({"loss": "quantile", "quantiles": (0.9, 0.5)}, "ascending"),
        ({"enumerate": -1}, "must not be negative"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(MatfmError, match=message):
        FitConfig(**options)


def test_defaults_depend_on_the_kind_of_input():
    formulas, strings = (FitConfig().for_kind(kind) for kind in ("composition", "smiles"))
    assert (formulas.tokens_per_batch, formulas.length_pool) == (256, 1)
    assert (strings.tokens_per_batch, strings.length_pool) == (2048, 16)
    assert FitConfig(tokens_per_batch=99).for_kind("selfies").tokens_per_batch == 99
    with pytest.raises(MatfmError, match="fit.enumerate is 5 and the input is composition"):
        FitConfig(enumerate=5).for_kind("composition")


def test_forms_repeat_what_stands_beside_a_row_and_censored_labels_are_not_exact():
    rows = examples([1.0, 2.0], side=[0, 1])
    tokens = RaggedTokens.from_sequences([([n], [0.0]) for n in range(3)])
    written = rows.in_forms(tokens, np.array([0, 1, 3]))
    assert written.tokens.targets_RK[:, 0].tolist() == [1, 2, 2]
    assert written.side_SK[:, 0].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(rows.exact_labels()[:, 0], [1, np.nan])
    assert censored_counts(Targets((Property("y", ""),)), rows) == {"censored": {"y": {"below": 0, "above": 1}}}
    with pytest.raises(ValueError, match="before"):
        written.take(np.array([0]))
