"""One model, several classifications, labels missing here and there."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from matfm import MatfmError
from matfm.chem.units import Property
from matfm.core.batching import RaggedTokens
from matfm.models.heads import PropertyHead
from matfm.tasks import finetune, predict
from matfm.tasks.examples import Examples
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.labels import read_labels
from matfm.tasks.predictor import _class_balanced
from matfm.tasks.tables import Chunk, read_table
from matfm.tasks.targets import Targets, with_heads

NAN = float("nan")


def head(classes):
    torch.manual_seed(0)
    return PropertyHead(8, sum(classes), law=None, classes=classes).eval()


def test_the_loss_is_the_sum_of_those_of_the_targets_and_missing_labels_have_no_gradient():
    model = head([2, 3])
    raw = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, NAN], [1, 2], [NAN, NAN], [NAN, 0]], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    total, summed = model.loss(raw, labels, weight_B=weight)
    expected = (
        F.cross_entropy(raw[:1, :2], torch.tensor([0]))
        + 2 * F.cross_entropy(raw[1:2, :2], torch.tensor([1]))
        + 2 * F.cross_entropy(raw[1:2, 2:], torch.tensor([2]))
        + 0.5 * F.cross_entropy(raw[3:, 2:], torch.tensor([0]))
    )
    assert total.item() == pytest.approx(expected.item())
    assert summed.item() == 1 + 2 + 2 + 0.5
    (gradient,) = torch.autograd.grad(total, raw)
    assert (gradient == 0).tolist() == [
        [False, False, True, True, True],
        [False] * 5,
        [True] * 5,
        [True, True, False, False, False],
    ]
    probability = model.estimate(raw)[..., 0]
    assert torch.allclose(probability[:, :2].sum(1), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(probability[:, 2:].sum(1), torch.ones(4, dtype=torch.float64))


def test_one_target_is_what_it_was():
    one, plain = head([3]), PropertyHead(8, 3, law=None)
    raw, labels = torch.randn(5, 3), torch.tensor([[0.0], [2.0], [NAN], [1.0], [1.0]])
    assert torch.equal(one.estimate(raw)[..., 0], raw.softmax(-1))
    assert torch.equal(one.loss(raw, labels)[0], plain.loss(raw, labels)[0])


def test_balanced_weights_are_those_of_scikit_learn_for_each_target():
    from sklearn.utils.class_weight import compute_sample_weight

    labels = np.array([[0, 0], [0, NAN], [1, 2], [0, 2], [NAN, 1]], np.float32)
    weights = _class_balanced(Examples(RaggedTokens.from_sequences([([5], [0.0])] * 5, labels)), [2, 3])
    for k in range(2):
        present = ~np.isnan(labels[:, k])
        assert weights[present, k] == pytest.approx(compute_sample_weight("balanced", labels[present, k]))
        assert (weights[~present, k] == 0).all()


def test_classes_are_those_of_rows_that_are_used():
    table = Chunk({"y": ["a", "b", "typo", "c", "a", "b"], "t": ["1", "2", "3", "", "5", "6"]}, 0)
    labels = read_labels(table, "t.csv", ["y"], "classification", ["t"], unreadable={2: "no formula"})
    assert labels.classes == (("a", "b"),)
    assert labels.reasons == {3: ("t", "the condition 't' is missing")}
    with pytest.raises(MatfmError, match="the target 'y' has 1"):
        read_labels(table, "t.csv", ["y"], "classification", ["t"], unreadable={1, 2, 5})


def test_columns_that_would_share_a_name_are_refused():
    targets = Targets((Property("a", ""), Property("a_b", "")), (("b_c", "x"), ("c", "y")))
    tokens = RaggedTokens.from_sequences([([5], [0.0])], np.zeros((1, 2), np.float32))
    with pytest.raises(MatfmError, match="two classes would have the column 'probability_a_b_c'"):
        with_heads(targets, FitConfig(task="classification"), Examples(tokens))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Oxides and others, and the metal; every third label of the one and every fourth of the other is missing."""
    folder = tmp_path_factory.mktemp("several")
    lines = ["formula,oxide,metal"]
    for n in range(1, 13):
        for k, metal in enumerate(("Fe", "Zn", "Ti")):
            for anion in ("O", "S"):
                oxide = "" if (n + k) % 3 == 0 else ("yes" if anion == "O" else "no")
                lines.append(f"{metal}{n}{anion}{13 - n},{oxide},{'' if n % 4 == 0 and oxide else metal}")
    (folder / "t.csv").write_text("\n".join([*lines, "FeO,,", "Xx,maybe,Pb"]) + "\n")
    fit = FitConfig(
        backbone="scratch:tiny", task="classification", epochs=40, tokens_per_batch=60, class_weights="balanced"
    )
    config = finetune.FinetuneConfig(
        str(folder / "t.csv"), "formula", ("oxide", "metal"), device="cpu", ensemble=1, fit=fit, valid_share=0.2, test_share=0.2
    )  # fmt: skip
    return folder, finetune.run(config, folder / "run")


def test_several_targets_are_trained_scored_and_written(trained):
    folder, summary = trained
    assert (summary["rows_in"], summary["rows_used"], summary["rows_rejected"]) == (74, 72, 2)
    assert set(summary["metrics"]["test"]) == {"oxide", "metal"}
    assert "roc_auc" in summary["metrics"]["train"]["oxide"]
    assert "roc_auc" not in summary["metrics"]["train"]["metal"]
    assert summary["metrics"]["train"]["metal"]["accuracy"] > 0.9
    labelled = sum(scores["oxide"]["n"] for scores in summary["metrics"].values())
    assert labelled == 48
    written = read_table(str(folder / "run" / "predictions.parquet")).columns
    assert {
        "predicted_oxide",
        "probability_oxide_no",
        "probability_oxide_yes",
        "predicted_metal",
        "probability_metal_Fe",
    } <= set(written)
    assert (folder / "run" / "roc.png").exists()


def test_predict_writes_a_class_and_its_probabilities_for_each_target(trained, tmp_path):
    folder, _ = trained
    (tmp_path / "new.csv").write_text("formula\nFe2O3\nXx\nZnS\n")
    out = tmp_path / "p.csv"
    predict.run(
        predict.PredictConfig(str(folder / "run"), str(tmp_path / "new.csv"), "formula", str(out), device="cpu")
    )
    columns = read_table(str(out)).columns
    names = ["predicted_oxide", "probability_oxide_no", "probability_oxide_yes"]
    names += ["predicted_metal", *(f"probability_metal_{metal}" for metal in ("Fe", "Ti", "Zn"))]
    assert [name for name in columns if name.startswith(("predicted", "probability"))] == names
    assert columns["predicted_oxide"] == ["yes", "", "no"]
    assert columns["predicted_metal"][1] == ""
    for row in (0, 2):
        likeliest = max(names[4:], key=lambda name: float(columns[name][row]))
        assert columns["predicted_metal"][row] == likeliest.removeprefix("probability_metal_")
        assert sum(float(columns[name][row]) for name in names[1:3]) == pytest.approx(1, abs=1e-5)
        assert sum(float(columns[name][row]) for name in names[4:]) == pytest.approx(1, abs=1e-5)


def test_a_run_that_lacks_members_does_not_predict_but_a_member_alone_does(trained, tmp_path):
    folder, _ = trained
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    config = json.loads((run / "config.json").read_text())
    config["run"]["ensemble"] = 3
    (run / "config.json").write_text(json.dumps(config))
    shutil.copytree(folder / "run", run / "ensemble" / "1")
    (run / "ensemble" / "1" / "split.json").unlink()
    with pytest.raises(MatfmError, match="has 2 of the 3 models of its ensemble; finish it .* --resume"):
        predict.load_members(str(run))
    assert len(predict.load_members(str(run / "ensemble" / "1"))) == 1
    shutil.copytree(run / "ensemble" / "1", run / "ensemble" / "2")
    assert len(predict.load_members(str(run))) == 3
