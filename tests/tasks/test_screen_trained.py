"""Screening with what `matfm fewshot` trained: the numbers of `FewShotScreener`, resumed too, and what is refused."""

import math

import pytest
import torch

from matfm import FewShotScreener
from matfm.core.files import sha256_of
from matfm.errors import MatfmError, RunError
from matfm.models.fewshot_encoder import FewShotConfig, FewShotEncoder, save_fewshot
from matfm.models.matbert import MatBERTModel
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.saving import save_model
from matfm.tasks import screen
from matfm.tasks.screen import ScreenConfig
from matfm.tasks.screening.findings import Findings
from matfm.tasks.tables import read_table

KNOWN = {"Li2O": 1, "MgO": 1, "CaO": 1, "FeS": 0, "GaN": 0, "ZnSe": 0}
LIBRARY = [f"{a}{n}{b}" for a in ("Li", "Mg", "Fe", "Ga", "Ti") for b in ("O", "S", "N", "Cl") for n in (1, 2, 3)]


def save(folder, log_scale=1.0):
    """Cosine distance and fractions in the projection; the same weights but for the temperature."""
    torch.manual_seed(0)
    encoder = MatBERTModel(MatBERTConfig.of_size("tiny"))
    model = FewShotEncoder(encoder, FewShotConfig("cosine", 8, "fractions", 118)).eval()
    with torch.no_grad():
        model.prototype_head.log_scale.fill_(log_scale)
    save_fewshot(model, folder, {})
    return str(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def call(tmp_path, trained):
    (tmp_path / "l.csv").write_text("f\n" + "\n".join([*LIBRARY, "bad!"]) + "\n")
    (tmp_path / "s.csv").write_text("f,y\n" + "\n".join(f"{f},{y}" for f, y in KNOWN.items()) + "\n")

    def made(out="o.csv", **options):
        known = {"backbone": trained, "top": 100, "workers": 1, "device": "cpu", **options}
        return ScreenConfig(
            str(tmp_path / "l.csv"), str(tmp_path / "s.csv"), "f", "y", str(tmp_path / out), **known
        )  # fmt: skip

    return made


@pytest.mark.parametrize("scorer", ["kernel", "prototypes"])
def test_the_numbers_are_those_of_the_screener(call, trained, scorer):
    config = call(scorer=scorer)
    summary = screen.run(config)
    assert summary["features"] == ["embedding", "fractions"]
    assert (summary["trained_over_tasks"], summary["scorer"]) == (True, scorer)
    hits = FewShotScreener(trained, scorer=scorer, device="cpu").fit(list(KNOWN), list(KNOWN.values())).rank(LIBRARY)
    table = read_table(config.out).columns
    found = {int(row): place for place, row in enumerate(table["row"])}
    assert sorted(found) == [hit.row for hit in sorted(hits, key=lambda hit: hit.row)] == list(range(len(LIBRARY)))
    for hit in hits:
        place = found[hit.row]
        assert float(table["score"][place]) == pytest.approx(hit.score, rel=5e-5)
        assert float(table["uncertainty"][place]) == pytest.approx(hit.uncertainty, rel=5e-5, abs=1e-6)
        assert table["applicable"][place] == ("yes" if hit.applicable else "no")
        assert table["nearest_support"][place] == hit.nearest
    assert len(set(table["applicable"])) == 2


def test_what_was_learned_is_used(call, tmp_path):
    scores = {}
    for name, log_scale in (("o", 1.0), ("other", 2.0)):
        config = call(f"{name}.csv", scorer="prototypes", backbone=save(tmp_path / name, log_scale))
        screen.run(config)
        table = read_table(config.out).columns
        scores[name] = dict(zip(table["f"], map(float, table["score"]), strict=True))
    for formula, score in scores["o"].items():  # two classes: log odds are proportional to the learned scale
        odds, other = (math.log(p / (1 - p)) for p in (score, scores["other"][formula]))
        assert other == pytest.approx(math.e * odds, rel=1e-3, abs=1e-4)


def test_an_interrupted_one_goes_on_to_the_identical_file(call, tmp_path, monkeypatch):
    monkeypatch.setattr("matfm.tasks.screening.library.CHUNK_ROWS", 7)
    options = {"scorer": "prototypes", "top": 9, "label_next": 3}
    whole = screen.run(call("whole.csv", **options))
    enter, calls = Findings.enter, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise RunError("stopped")
        return enter(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Findings, "enter", stopping)
        with pytest.raises(RunError, match="stopped"):
            screen.run(call("cut.csv", **options))
    same_encoder = save(tmp_path / "other", 2.0)
    with pytest.raises(MatfmError, match="begun with another few-shot model"):
        screen.run(call("cut.csv", **options, backbone=same_encoder), resume=True)
    resumed = screen.run(call("cut.csv", **options), resume=True)
    for ending in ("csv", "next.csv", "support.json", "rejects.csv"):
        assert sha256_of(tmp_path / f"cut.{ending}") == sha256_of(tmp_path / f"whole.{ending}")
    assert resumed["support"] == whole["support"]


def test_what_does_not_go_together_is_refused(call, tmp_path, trained):
    with pytest.raises(MatfmError, match="distance is 'euclidean' and this model learned cosine"):
        screen.run(call(scorer="prototypes", distance="euclidean"))
    with pytest.raises(MatfmError, match="was trained with the features fractions"):
        screen.run(call(classical="none"))
    with pytest.raises(MatfmError, match="only the scorer prototypes takes"):
        call(distance="cosine")
    with pytest.raises(MatfmError, match="scorer is 'svm'"):
        call(scorer="svm")
    with pytest.raises(MatfmError, match="prototypes is for two classes"):
        FewShotScreener(trained, scorer="prototypes", device="cpu").fit(["Li2O", "MgO"], [1.5, 7.0])
    with pytest.raises(MatfmError, match="distance is 'l7'"):
        FewShotScreener(trained, scorer="prototypes", distance="l7", device="cpu").fit(["Li2O", "MgO"], [0, 1])


def test_prototypes_of_a_plain_encoder_take_three_distances(call, tmp_path):
    torch.manual_seed(0)
    plain = str(tmp_path / "plain")
    save_model(MatBERTModel(MatBERTConfig.of_size("tiny")), tmp_path / "plain", {})
    scores = set()
    for distance in ("euclidean", "cosine", "mahalanobis", None):
        screener = FewShotScreener(plain, "prototypes", "none", device="cpu", distance=distance)
        hits = screener.fit(list(KNOWN), list(KNOWN.values())).rank(LIBRARY, top=5)
        config = call(f"{distance}.csv", backbone=plain, scorer="prototypes", distance=distance, top=5)
        screen.run(config)
        table = read_table(config.out).columns
        assert [float(score) for score in table["score"]] == pytest.approx([hit.score for hit in hits], rel=5e-5)
        scores.add(tuple(table["score"]))
    assert len(scores) == 3
