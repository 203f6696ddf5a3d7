"""What fine-tuning makes of the rows of a table, and what a run leaves at each point."""

import json

import numpy as np
import pytest
import torch

from matfm import MatfmError
from matfm.chem.units import Property
from matfm.core.batching import RaggedTokens
from matfm.tasks import finetune, labelled_rows, predict
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.predictions import Predicted
from matfm.tasks.predictor import loss_beside
from matfm.tasks.tables import read_table
from matfm.tasks.targets import Targets
from matfm.tasks.uncertainty.calibration import Calibration, by_target, load_calibration, save_calibration

SCRATCH = FitConfig(backbone="scratch:tiny", epochs=1)
ALKANES = ["C" * n for n in range(1, 31)]


def table_of(folder, rows, header="smiles,y"):
    path = folder / "t.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def config_of(path, fit=SCRATCH, **options):
    return finetune.FinetuneConfig(str(path), "smiles", ("y",), kind="smiles", fit=fit, **options)


def test_a_table_of_mostly_missing_labels_is_used_and_one_of_words_is_refused(tmp_path):
    path = table_of(tmp_path, [f"{s},{row if row < 8 else ''}" for row, s in enumerate(ALKANES)])
    labelled = labelled_rows.load_rows(config_of(path), read_table(str(path)))
    assert (len(labelled.rows), len(labelled.rejects)) == (8, 22)
    path = table_of(tmp_path, [f"{s},{row if row < 8 else 'low' if row < 20 else ''}" for row, s in enumerate(ALKANES)])
    with pytest.raises(MatfmError, match="most cells of column 'y' are not numbers .row 8: 'low' is not a number"):
        labelled_rows.load_rows(config_of(path), read_table(str(path)))


def test_errors_of_small_numbers_are_kept_for_the_intervals(tmp_path):
    path = table_of(tmp_path, [f"{s},{row * 1e-9}" for row, s in enumerate(ALKANES)])
    labelled = labelled_rows.load_rows(config_of(path, valid_share=0.3), read_table(str(path)))
    zeros = np.zeros((len(labelled.rows), 1), np.float32)
    held = by_target(labelled.targets, labelled.examples.exact_labels(), Predicted(zeros, zeros, has_std=False))
    save_calibration(Calibration("valid", held), tmp_path)
    again = load_calibration(tmp_path).targets["y"]
    assert (again.true_R.astype(np.float32) == held["y"].true_R).all()
    assert 1e-9 < again.true_R.max() < 3e-8


def test_an_interrupted_run_has_its_tokenizer_beside_its_weights(tmp_path, monkeypatch):
    path = table_of(tmp_path, [f"{s},{row}" for row, s in enumerate(ALKANES)])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "_train_members", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(config_of(path), tmp_path / "run")
    assert (tmp_path / "run" / "tokenizer.json").is_file()


def test_a_run_continued_after_training_says_what_was_trained(tmp_path):
    path = table_of(tmp_path, [f"{s},{row}" for row, s in enumerate(ALKANES)])
    config = config_of(path, FitConfig(backbone="scratch:tiny", epochs=1, strategy="feature"))
    share = finetune.run(config, tmp_path / "run")["trainable_share"]
    assert share < 1
    (tmp_path / "run" / "summary.json").unlink()
    assert finetune.run(config, tmp_path / "run", resume=True)["trainable_share"] == share
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["trainable_share"] == share


def test_balanced_classes_weigh_rows_and_not_their_written_forms():
    forms = np.array([0, 1, 2, 6, 10])  # two rows of one form, two of four
    labels_R = np.array([[0.0], [0.0], [1.0], [1.0]], np.float32)
    tokens = RaggedTokens.from_sequences([([1], [0.0])] * 10, np.repeat(labels_R, np.diff(forms), axis=0))
    config = FitConfig(backbone="scratch:tiny", task="classification", class_weights="balanced")
    targets = Targets((Property("y", ""),), (("a", "b"),))
    loss = loss_beside(config, targets, Examples(tokens, forms=forms), torch.device("cpu"))
    seen = []

    class Head:
        def __call__(self, *_):
            return None

        def loss(self, raw, targets_BK, side_BK, weight_B, smoothing):
            seen.append(weight_B)
            return torch.zeros(()), torch.ones(())

    class Model:
        property_head = Head()

    loss(Model(), torch.zeros(4, 1), tokens.batch(forms[:-1]))
    assert seen[0].tolist() == [[1.0], [1.0], [1.0], [1.0]]


def test_methods_for_numbers_are_refused_for_classes(tmp_path):
    path = table_of(tmp_path, [f"{s},{'long' if row > 15 else 'short'}" for row, s in enumerate(ALKANES)])
    fit = FitConfig(backbone="scratch:tiny", epochs=1, task="classification")
    finetune.run(config_of(path, fit), tmp_path / "run")
    wanted = predict.PredictConfig(
        str(tmp_path / "run"), str(path), "smiles", str(tmp_path / "p.csv"), 0.5, interval_method="std"
    )
    with pytest.raises(MatfmError, match="'y' is a class; choose the --interval-method lac or aps"):
        predict.run(wanted)


@pytest.mark.parametrize("columns", [{"targets": ("part",)}, {"input": "row"}, {"conditions": ("row",)}])
def test_columns_that_the_run_writes_itself_are_refused(columns):
    with pytest.raises(MatfmError, match="has a column '(part|row)' of its own; rename"):
        finetune.FinetuneConfig(**{"table": "t.csv", "input": "smiles", "targets": ("y",), **columns})
