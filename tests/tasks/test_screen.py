"""Screening: what comes out for what goes in, whatever the format, the chunks and the moment of an interruption."""

import gzip
import io
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matfm.core.files import sha256_of
from matfm.errors import MatfmError, RunError
from matfm.models.matbert import MatBERTModel
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.saving import save_model
from matfm.tasks import screen
from matfm.tasks.screen import ScreenConfig
from matfm.tasks.screening.diversity import maxmin_pick
from matfm.tasks.screening.findings import Findings
from matfm.tasks.screening.library import Library
from matfm.tasks.screening.top_rows import TopRows
from matfm.tasks.tables import read_table

LIBRARY = [f"{a}{n}{b}{m}" for a in ("Li", "Mg", "Fe", "Ga") for b in ("O", "S", "N") for n in (1, 2) for m in (1, 3)]
BAD = {3: "", 17: "Xx2", 40: "Fe("}
SUPPORT = "f,gap\nLi2O,5.5\nMgO,7.8\nFeS,0.1\nGaN,3.4\nFe2O3,2.1\nbad!,1\nFeN,\n"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbone")
    save_model(MatBERTModel(MatBERTConfig.of_size("tiny")), folder, {})
    return str(folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A library in every format, a support, and chunks of seven rows."""
    monkeypatch.setattr("matfm.tasks.screening.library.CHUNK_ROWS", 7)
    cells = list(LIBRARY)
    for row, text in BAD.items():
        cells.insert(row, text)
    lines = [f"{cell},{number}" for number, cell in enumerate(cells)]
    text = "\n".join(["f,n", *lines]) + "\n"
    (tmp_path / "l.csv").write_text(text)
    (tmp_path / "l.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "l.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "l.jsonl").write_text("".join(json.dumps({"f": c, "n": str(i)}) + "\n" for i, c in enumerate(cells)))
    columns = {"f": cells, "n": [str(i) for i in range(len(cells))]}
    pq.write_table(pa.table(columns), tmp_path / "l.parquet")
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "a.csv").write_text("\n".join(["f,n", *lines[:14]]) + "\n")
    (shards / "b.csv.gz").write_bytes(gzip.compress("\n".join(["n,f", *_turned(lines[14:21])]).encode()))
    pq.write_table(pa.table(columns).slice(21), shards / "c.parquet")
    (shards / "README").write_text("no table")
    (tmp_path / "s.csv").write_text(SUPPORT)
    return tmp_path


def _turned(lines):
    return [",".join(reversed(line.split(","))) for line in lines]


def config(folder, backbone, library="l.csv", out="o.csv", **options):
    library = library if library == "-" else str(folder / library)
    known = {"support": str(folder / "s.csv"), "input": "f", "label": "gap", "top": 9, "workers": 1, "device": "cpu"}
    return ScreenConfig(library=library, out=str(folder / out), backbone=backbone, **{**known, **options})


def test_the_best_rows_come_first_with_all_that_is_known_of_them(folder, backbone):
    summary = screen.run(config(folder, backbone))
    assert (summary["rows_in"], summary["rows_scored"], summary["rows_with_error"]) == (51, 48, 3)
    assert (summary["support_rows"], summary["support_rejected"], summary["rows_out"]) == (5, 2, 9)
    table = read_table(str(folder / "o.csv")).columns
    assert table["rank"] == [str(rank) for rank in range(1, 10)]
    assert table["row"] == table["n"]
    scores = [float(score) for score in table["score"]]
    assert scores == sorted(scores, reverse=True)
    assert set(table["nearest_support"]) <= {"Li2O", "MgO", "FeS", "GaN", "Fe2O3"}
    assert set(table["applicable"]) <= {"yes", "no"}
    assert all(float(value) > 0 for value in table["uncertainty"])
    bad = read_table(str(folder / "o.rejects.csv")).columns
    assert dict(zip(map(int, bad["row"]), bad["value"], strict=True)) == BAD
    assert all(bad["reason"])
    assert not list(folder.glob(".o.csv*"))
    # Everything scored and ranked at once is the definition.
    screen.run(config(folder, backbone, out="all.csv", top=1000))
    every = read_table(str(folder / "all.csv")).columns
    assert len(every["f"]) == 48
    assert {name: cells[:9] for name, cells in every.items()} == table


@pytest.mark.parametrize("library", ["l.tsv", "l.csv.gz", "l.jsonl", "l.parquet", "shards", "-"])
def test_every_format_gives_the_same(folder, backbone, library, monkeypatch):
    screen.run(config(folder, backbone))
    if library == "-":
        text = io.TextIOWrapper(io.BytesIO((folder / "l.csv").read_bytes()))
        monkeypatch.setattr("sys.stdin", text)
    screen.run(config(folder, backbone, library, "p.csv"))
    expected, found = (read_table(str(folder / name)).columns for name in ("o.csv", "p.csv"))
    assert found == {name: expected[name] for name in found}
    assert (folder / "p.rejects.csv").read_text() == (folder / "o.rejects.csv").read_text()
    source = library if library == "-" else str(folder / library)
    assert Library.open(source).count_rows() == (None if library == "-" else 51)


@pytest.mark.parametrize("chunks", [0, 1, 4])
def test_an_interrupted_screening_goes_on_to_the_identical_file(folder, backbone, chunks, monkeypatch):
    whole = screen.run(config(folder, backbone))
    with monkeypatch.context() as patched:
        patched.setattr(Findings, "enter", _stopping_after(chunks, Findings.enter))
        with pytest.raises(RunError, match="stopped"):
            screen.run(config(folder, backbone, out="cut.csv"))
    assert not (folder / "cut.csv").exists()
    # What was written after the last recorded chunk is cut off again.
    (folder / ".cut.csv.unfinished").mkdir(exist_ok=True)
    with (folder / ".cut.csv.unfinished" / "rejects.csv").open("a") as rejects:
        rejects.write("half a li")
    resumed = screen.run(config(folder, backbone, out="cut.csv", engine="local"), resume=True)
    assert sha256_of(folder / "cut.csv") == sha256_of(folder / "o.csv")
    assert (folder / "cut.rejects.csv").read_text() == (folder / "o.rejects.csv").read_text()
    timing = {"out", "bad_rows", "support_report", "seconds", "rows_per_second"}
    assert {k: v for k, v in resumed.items() if k not in timing} == {k: v for k, v in whole.items() if k not in timing}
    assert not (folder / ".cut.csv.unfinished").exists()


def _stopping_after(chunks, function):
    left = iter(range(chunks))

    def stopping(*arguments):
        if next(left, None) is None:
            raise RunError("stopped")
        return function(*arguments)

    return stopping


def test_a_changed_library_or_call_is_not_resumed(folder, backbone, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Findings, "enter", _stopping_after(2, Findings.enter))
        with pytest.raises(RunError, match="stopped"):
            screen.run(config(folder, backbone))
    with pytest.raises(MatfmError, match=r"begun with another top \(9, now 8\)"):
        screen.run(config(folder, backbone, top=8), resume=True)
    text = (folder / "l.csv").read_text()
    (folder / "l.csv").write_text(text.replace("Li1O3", "Li1O4"))
    with pytest.raises(MatfmError, match="its first 14 rows differ"):
        screen.run(config(folder, backbone), resume=True)
    (folder / "s.csv").write_text(SUPPORT.replace("5.5", "5.6"))
    with pytest.raises(MatfmError, match="begun with another support"):
        screen.run(config(folder, backbone), resume=True)


def test_worker_processes_give_the_same_bits(folder, backbone):
    screen.run(config(folder, backbone))
    screen.run(config(folder, backbone, out="two.csv", workers=2))
    assert sha256_of(folder / "two.csv") == sha256_of(folder / "o.csv")


def test_with_an_accelerator_one_process_computes(folder, backbone, monkeypatch):
    import torch

    screen.run(config(folder, backbone))
    monkeypatch.setattr(screen, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr("matfm.tasks.screening.chunk_scorer.resolve_device", lambda name: torch.device("cpu"))
    screen.run(config(folder, backbone, out="g.csv"))
    assert sha256_of(folder / "g.csv") == sha256_of(folder / "o.csv")


def test_classes_as_words_a_wanted_class_and_low_values(folder, backbone):
    (folder / "s.csv").write_text("f,gap\nLi2O,active\nMgO,Active\nFeS,inactive\nGaN,inactive\n")
    assert screen.run(config(folder, backbone))["labels"] == "classes"
    words = read_table(str(folder / "o.csv")).columns
    assert all(0 < float(score) < 1 for score in words["score"])
    (folder / "s.csv").write_text("f,gap\nLi2O,ionic\nMgO,ionic\nFeS,metal\nGaN,covalent\n")
    screen.run(config(folder, backbone, positive="ionic"))
    assert read_table(str(folder / "o.csv")).columns["score"] == words["score"]
    with pytest.raises(MatfmError, match="'ionic' is not a number; name the wanted class with --positive"):
        screen.run(config(folder, backbone))
    with pytest.raises(MatfmError, match="no label in column 'gap' is 'x'"):
        screen.run(config(folder, backbone, positive="x"))
    screen.run(config(folder, backbone, positive="ionic", minimize=True, top=48))
    lowest = [float(score) for score in read_table(str(folder / "o.csv")).columns["score"]]
    assert lowest == sorted(lowest)


def test_rows_with_equal_scores_keep_their_order(folder, backbone):
    screen.run(config(folder, backbone, top=20), new_scorer=Constant)
    rows = [row for row in range(51) if row not in BAD]
    assert read_table(str(folder / "o.csv")).columns["row"] == [str(row) for row in rows[:20]]


def test_equal_rows_score_alike_wherever_they_stand(folder, backbone):
    (folder / "same.csv").write_text("f,n\n" + "\n".join(f"Fe2O3,{n}" for n in range(30)) + "\n")
    screen.run(config(folder, backbone, "same.csv", top=30))
    scores = [float(score) for score in read_table(str(folder / "o.csv")).columns["score"]]
    assert max(scores) - min(scores) <= 1.01e-5 * abs(scores[0])
    assert all(score == float(f"{score:.6g}") for score in scores)


def test_diverse_rows_are_picked_from_the_best_ones(folder, backbone):
    screen.run(config(folder, backbone, top=20))
    best = read_table(str(folder / "o.csv")).columns
    summary = screen.run(config(folder, backbone, out="d.csv", top=20, diversity=6))
    picked = read_table(str(folder / "d.csv")).columns
    assert summary["rows_out"] == 6
    assert picked["rank"][0] == "1"
    assert len(set(picked["f"])) == 6
    assert [best["f"][int(rank) - 1] for rank in picked["rank"]] == picked["f"]


def test_maxmin_is_the_definition():
    vectors = np.random.default_rng(1).normal(size=(30, 3))
    vectors[7] = vectors[0]
    picked = maxmin_pick(vectors, 30)
    assert sorted(picked) == list(range(30))
    assert picked[-1] == 7
    for count in range(1, 30):
        apart = np.linalg.norm(vectors[:, None] - vectors[picked[:count]], axis=2).min(axis=1)
        left = [row for row in range(30) if row not in picked[:count]]
        assert apart[picked[count]] == max(apart[left])


def test_top_rows_equal_sorting_everything():
    generator = np.random.default_rng(2)
    keys = generator.integers(0, 12, size=200).astype(float)
    top = TopRows(25)
    for start in range(0, 200, 9):
        part = keys[start : start + 9]
        for position in top.candidates(part, np.arange(len(part))):
            top.keep(float(part[position]), start + position, {"row": start + position})
        top = TopRows.of_state(25, json.loads(json.dumps(top.state())))
    expected = sorted(range(200), key=lambda row: (-keys[row], row))[:25]
    assert [record["row"] for record in top.ranked()] == expected


def test_an_empty_library_gives_an_empty_table(folder, backbone):
    (folder / "empty.csv").write_text("f,n\n")
    summary = screen.run(config(folder, backbone, "empty.csv"))
    assert (summary["rows_in"], summary["rows_out"]) == (0, 0)
    assert "nearest_support" in (folder / "o.csv").read_text()


def test_wrong_calls_are_one_sentence(folder, backbone):
    wrong = {
        "no column 'x'": {"input": "x"},
        "no column 'y'": {"label": "y"},
        "--engine is 'dask'": {"engine": "dask"},
        "--top is 0": {"top": 0},
        "--diversity is 10; pick from 1 to --top (9)": {"diversity": 10},
        "is the table that is read": {"out": "s.csv"},
        "cannot both be": {"keep_bad": str(folder / "o.csv")},
        "is in the library that is read": {"out": "l.csv"},
        "format is not known": {"out": "o.odt"},
        "is not a file": {"library": "none.csv"},
    }
    for message, options in wrong.items():
        with pytest.raises(MatfmError) as caught:
            screen.run(config(folder, backbone, **options))
        assert message in str(caught.value), message
    with pytest.raises(MatfmError, match="is in the library"):
        screen.run(config(folder, backbone, "shards", "shards/o.csv"))
    (folder / "shards" / "d.csv").write_text("f,m\nFe,1\n")
    with pytest.raises(MatfmError, match="different columns"):
        screen.run(config(folder, backbone, "shards"))
    (folder / "s.csv").write_text("f,gap\nLi2O,1\nXx,2\n")
    with pytest.raises(MatfmError, match=r"has 1 examples that can be used; give 2 to .* \(row 1: 'Xx'"):
        screen.run(config(folder, backbone))


def test_uncertainty_of_a_finite_table_is_finite(folder, backbone):
    screen.run(config(folder, backbone, out="o.parquet", top=48))
    table = pq.read_table(folder / "o.parquet")
    assert table.schema.field("score").type == pa.float64()
    assert all(math.isfinite(value) for value in table["uncertainty"].to_pylist())


class Constant:
    """A scorer of one's own."""

    def __init__(self, blocks):
        self.width = sum(block.width for block in blocks)

    def fit(self, support_vectors_SD, labels_S):
        return self

    def score(self, vectors_BD):
        zeros = np.zeros(len(vectors_BD))
        return zeros + self.width, zeros, zeros.astype(np.int64)


def test_any_scorer_of_the_protocol_can_be_used(folder, backbone):
    screen.run(config(folder, backbone), new_scorer=Constant)
    assert set(read_table(str(folder / "o.csv")).columns["score"]) == {"64.0"}, "the width of the tiny encoder"


def test_fingerprints_and_atomic_fractions_are_compared_beside_the_embedding(folder, backbone):
    plain = screen.run(config(folder, backbone, top=48))
    assert plain["features"] == ["embedding"]
    scores = read_table(str(folder / "o.csv")).columns["score"]
    beside = screen.run(config(folder, backbone, out="two.csv", top=48, classical="fractions"))
    assert beside["features"] == ["embedding", "fractions"]
    assert read_table(str(folder / "two.csv")).columns["score"] != scores
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Findings, "enter", _stopping_after(2, Findings.enter))
        with pytest.raises(RunError, match="stopped"):
            screen.run(config(folder, backbone))
    with pytest.raises(MatfmError, match="begun with another classical"):
        screen.run(config(folder, backbone, classical="fractions"), resume=True)
    with pytest.raises(MatfmError, match="classical is 'ecfp' and the input is composition"):
        screen.run(config(folder, backbone, classical="ecfp"))


def test_molecules_are_compared_by_their_fingerprints_too(tmp_path):
    import torch

    from matfm.tasks.encoding import row_encoder

    torch.manual_seed(0)
    tokenizer = row_encoder("smiles").tokenizer
    sizes = MatBERTConfig.of_size("tiny", position_embedding="rotary", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(str(tmp_path / "molecules"))
    save_model(MatBERTModel(sizes), tmp_path / "molecules", {})
    (tmp_path / "s.csv").write_text("smiles,y\nCCO ethanol,1\nCCCO,1\nc1ccccc1,0\nCc1ccccc1,0\n")
    (tmp_path / "l.csv").write_text("smiles\nCCCCO\nc1ccccc1CC\nC(C\nOCC\nCCc1ccccc1 again\n")
    given = ScreenConfig(
        str(tmp_path / "l.csv"), str(tmp_path / "s.csv"), "smiles", "y", str(tmp_path / "o.csv"),
        backbone=str(tmp_path / "molecules"), device="cpu",
    )  # fmt: skip
    summary = screen.run(given)
    assert summary["features"] == ["embedding", "ecfp"]
    assert (summary["rows_scored"], summary["rows_out"]) == (4, 4)
    table = read_table(str(tmp_path / "o.csv")).columns
    assert set(table["smiles"][:2]) == {"CCCCO", "OCC"}
    assert table["score"][2] == table["score"][3], "one molecule, written twice"


def test_a_row_without_classical_features_is_listed(tmp_path, folder, backbone, monkeypatch):
    from matfm.tasks.few_shot import classical_features

    def without_iron(block, inputs, kind):
        if any("Fe" in text for text in inputs):
            raise MatfmError("iron has no features")
        return whole(block, inputs, kind)

    whole = classical_features.classical_features
    monkeypatch.setattr(classical_features, "classical_features", without_iron)
    (folder / "s.csv").write_text("f,gap\nLi2O,5.5\nMgO,7.8\nGaN,3.4\n")
    summary = screen.run(config(folder, backbone, top=48, classical="fractions"))
    assert summary["rows_scored"] == 36
    assert (folder / "o.rejects.csv").read_text().count("iron has no features") == 12
    assert not any("Fe" in cell for cell in read_table(str(folder / "o.csv")).columns["f"])
