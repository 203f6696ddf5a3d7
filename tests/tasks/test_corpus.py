"""Tables to token files and vocabularies: equal to the tokenizers, nothing dropped silently, on several processes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_processes import tracebacks

from matfm import CompositionTokenizer, MatfmError, SelfiesTokenizer, SmilesTokenizer
from matfm.chem.composition_schemes import encode_fractions
from matfm.chem.vocabulary import load_vocabulary
from matfm.core.token_files import open_tokens
from matfm.tasks import corpus
from matfm.tasks.corpus import EncodeConfig, VocabConfig, encode, vocab

SMILES = ["CCO", "c1ccc2[nH]ccc2c1", "[13CH4]", "C[C@@H](N)C(=O)O", "[Na+].[Cl-]", "ClCBr", "C%10CCCCC%10", "[Xq+7]C"]


def table(path, cells, name="text"):
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow([name, "other"])
        writer.writerows([cell, "x"] for cell in cells)
    return str(path)


def sequences(folder):
    tokens, rows, meta = open_tokens(folder)
    ids = [tokens.ids_N[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
    return ids, rows.tolist(), meta


def test_smiles_equal_the_tokenizer_and_dirty_cells_are_listed(tmp_path):
    cells = [*SMILES[:4], "", "nan", *SMILES[4:], "CCO ethanol"]
    out = tmp_path / "tokens"
    summary = encode(EncodeConfig(table(tmp_path / "t.csv", cells), "text", str(out), "smiles"))
    ids, rows, meta = sequences(out)
    assert ids == SmilesTokenizer()([*SMILES, "CCO"])["input_ids"]
    assert rows == [0, 1, 2, 3, 6, 7, 8, 9, 10]
    assert (summary["rows_in"], summary["rows_used"], summary["rows_rejected"]) == (11, 9, 2)
    assert summary["unknown"] == {"[Xq+7]": 1}
    assert meta["unknown_tokens"] == 1
    lines = (out / "rejects.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["4", "5"]
    assert "missing value" in lines[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_chunks_and_processes_change_nothing(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(corpus, "CHUNK_ROWS", 50)
    cells = [SMILES[i % 8] + "C" * (i % 5) for i in range(333)]
    out = tmp_path / "tokens"
    summary = encode(EncodeConfig(table(tmp_path / "t.csv", cells), "text", str(out), "smiles", workers=workers))
    ids, rows, _ = sequences(out)
    assert ids == SmilesTokenizer()(cells)["input_ids"]
    assert rows == list(range(333))
    assert summary["unknown"] == {"[Xq+7]": sum(i % 8 == 7 for i in range(333))}


def test_truncation_is_asked_for_and_counted(tmp_path):
    path = table(tmp_path / "t.csv", ["C" * 30, "CC", "C" * 8])
    whole = encode(EncodeConfig(path, "text", str(tmp_path / "whole"), "smiles"))
    cut = encode(EncodeConfig(path, "text", str(tmp_path / "cut"), "smiles", max_length=10))
    assert (whole["truncated"], cut["truncated"]) == (0, 1)
    expected = SmilesTokenizer()(["C" * 30, "CC", "C" * 8], truncation=True, max_length=10)["input_ids"]
    assert sequences(tmp_path / "cut")[0] == expected


def test_compositions_keep_their_amounts(tmp_path, formulas):
    cells = [*formulas, "XxO2"]
    summary = encode(EncodeConfig(table(tmp_path / "t.csv", cells), "text", str(tmp_path / "tokens")))
    tokens, rows, meta = open_tokens(tmp_path / "tokens")
    assert meta["amounts"]
    assert len(rows) == len(formulas)
    assert summary["rows_rejected"] == 1
    expected = [encode_fractions(formula) for formula in formulas]
    assert tokens.ids_N.tolist() == [i for ids, _ in expected for i in ids]
    assert tokens.amounts_N.tolist() == pytest.approx([a for _, amounts in expected for a in amounts])
    assert [i for ids, _ in expected for i in ids] == [
        i for ids in CompositionTokenizer()(formulas).input_ids for i in ids
    ]


def test_stop_at_bad_cells_writes_nothing(tmp_path):
    path = table(tmp_path / "t.csv", ["CC", ""])
    with pytest.raises(MatfmError, match=r"t.csv, row 1, column 'text': .*missing value.*--on-bad stop"):
        encode(EncodeConfig(path, "text", str(tmp_path / "tokens"), "smiles", on_bad="stop"))
    assert not (tmp_path / "tokens").exists()


def test_a_vocabulary_is_built_saved_and_used(tmp_path):
    path = table(tmp_path / "t.csv", [*SMILES, "[Xq+7]C"])
    out = tmp_path / "vocabulary.json"
    summary = vocab(VocabConfig(path, "text", str(out), min_count=2))
    tokens = load_vocabulary(out)
    assert "[Xq+7]" in tokens
    assert summary["from_the_corpus"] == 1
    assert summary["tokens"] == len(SmilesTokenizer(tokens))
    used = encode(EncodeConfig(path, "text", str(tmp_path / "tokens"), "smiles", vocabulary=str(out)))
    assert used["unknown_tokens"] == 0
    assert "t.csv sha256:" in json.loads(out.read_text())["sources"][0]
    small = vocab(VocabConfig(path, "text", str(tmp_path / "small.json"), keep_shipped=False, max_size=3))
    assert small["tokens"] == 3 + 5
    assert load_vocabulary(tmp_path / "small.json")[0] == "C"


def test_selfies_are_encoded_too(tmp_path):
    cells = ["[C][=C][Branch1][C][O][C]", "[Na+1].[Cl-1]"]
    encode(EncodeConfig(table(tmp_path / "t.csv", cells), "text", str(tmp_path / "tokens"), "selfies"))
    assert sequences(tmp_path / "tokens")[0] == SelfiesTokenizer()(cells)["input_ids"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "inchi"}, "choose one of composition, smiles, selfies"),
        ({"max_length": 9}, "never cut"),
        ({"kind": "smiles", "max_length": 2}, "make 3"),
        ({"workers": -1}, "number of processes"),
    ],
)
def test_contradictions_die_early(settings, message):
    with pytest.raises(MatfmError, match=message):
        EncodeConfig("t.csv", "text", "out", **settings)


def test_files_that_are_no_vocabulary_are_named(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(MatfmError, match="is not a vocabulary"):
        load_vocabulary(bad)
    with pytest.raises(MatfmError, match="is not a file; give a vocabulary"):
        load_vocabulary(tmp_path / "none.json")


def test_readings_to_check_are_reported_and_used(tmp_path):
    path = table(tmp_path / "t.csv", ["Fe2O3", "CuSO4.5H2O", "U235O2", "LiD"])
    summary = encode(EncodeConfig(path, "text", str(tmp_path / "tokens")))
    assert (summary["rows_used"], summary["rows_to_check"]) == (4, 3)
    assert [entry["row"] for entry in summary["first_to_check"]] == [1, 2, 3]
    assert "hydrate" in summary["first_to_check"][0]["reading"]


def test_rows_that_are_wrong_as_a_whole_keep_their_cell_in_the_rejects(tmp_path):
    (tmp_path / "t.csv").write_text("text,other\nFe2O3,1,2\nNaCl,1\n")
    summary = encode(EncodeConfig(str(tmp_path / "t.csv"), "text", str(tmp_path / "tokens")))
    assert (summary["rows_used"], summary["rows_rejected"]) == (1, 1)
    assert (
        (tmp_path / "tokens" / "rejects.csv").read_text().splitlines()[1].startswith('0,text,Fe2O3,"line 2 has 3 cells')
    )


def test_a_vocabulary_leaves_missing_values_and_special_tokens_out(tmp_path):
    path = table(tmp_path / "t.csv", ["C", "nan", "", "[CLS]C"])
    summary = vocab(VocabConfig(path, "text", str(tmp_path / "v.json"), keep_shipped=False))
    assert load_vocabulary(tmp_path / "v.json") == ["C"]
    assert (summary["rows_in"], summary["rows_rejected"], summary["tokens"]) == (4, 2, 6)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker processes through /proc")
@pytest.mark.parametrize("victim", ["worker", "parent", "interrupt"])
def test_killed_processes_leave_one_sentence_and_no_process(tmp_path, victim):
    path = table(tmp_path / "t.csv", [f"C{'C' * (i % 60)}" for i in range(600_000)])
    command = [sys.executable, "-m", "matfm", "data", "encode", path, "--input", "text", "--kind", "smiles"]
    command += ["--out", str(tmp_path / "tokens"), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    workers = wait_for(lambda: spawned(process.pid))
    target = workers[0] if victim == "worker" else process.pid
    os.kill(target, signal.SIGINT if victim == "interrupt" else signal.SIGKILL)
    try:
        _, errors = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert tracebacks(errors) == 0
    if victim == "worker":
        assert process.returncode == 1
        assert "matfm: a worker process was ended" in errors
    assert not (tmp_path / "tokens").exists()
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def spawned(parent):
    """Processes that were started as workers by `parent`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = b"spawn_main" in (folder / "cmdline").read_bytes()
            if is_worker and f"PPid:\t{parent}\n" in (folder / "status").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return found if len(found) == 2 else None


def wait_for(condition):
    """What `condition` returns once that is something; at most a minute."""
    for _ in range(600):
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("it took more than a minute")
