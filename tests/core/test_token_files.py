"""Token files appear whole, are read through a memory map, and notice truncation."""

import json

import numpy as np
import pytest

from matfm import MatfmError
from matfm.core.token_files import TokenWriter, open_tokens


def append(writer, rows, *sequences, amounts=True):
    ids = np.array([index for sequence in sequences for index in sequence])
    offsets = np.cumsum([0, *map(len, sequences)])
    writer.append(ids, offsets, np.array(rows), np.full(len(ids), 0.5) if amounts else None)


def write(folder, amounts=True):
    with TokenWriter(folder.with_name("unfinished"), amounts) as writer:
        append(writer, [0, 3], (2, 7), (2, 8, 9), amounts=amounts)
        append(writer, [4], (2, 65_535, 1, 1), amounts=amounts)
        writer.finish(folder, {"kind": "composition"})


@pytest.mark.parametrize("amounts", [True, False])
def test_what_is_appended_is_read_back(tmp_path, amounts):
    write(tmp_path / "tokens", amounts)
    tokens, rows, meta = open_tokens(tmp_path / "tokens")
    assert tokens.ids_N.tolist() == [2, 7, 2, 8, 9, 2, 65_535, 1, 1]
    assert tokens.offsets.tolist() == [0, 2, 5, 9]
    assert rows.tolist() == [0, 3, 4]
    assert tokens.amounts_N.tolist() == [0.5 if amounts else 0.0] * 9
    assert (meta["sequences"], meta["tokens"], meta["kind"]) == (3, 9, "composition")
    assert isinstance(tokens.ids_N, np.memmap)
    assert tokens.batch(np.array([2, 0])).ids_N.tolist() == [2, 7, 2, 65_535, 1, 1]


def test_a_writer_that_ends_in_the_middle_leaves_no_token_file(tmp_path):
    with TokenWriter(tmp_path / "unfinished", True) as writer:
        append(writer, [0], (1, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished"]
    with pytest.raises(MatfmError, match="not a token file"):
        open_tokens(tmp_path / "unfinished")


@pytest.mark.parametrize("amounts", [True, False])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_writer_goes_on_where_it_was_recorded(tmp_path, amounts, done):
    """Appends after the record, which a killed process leaves, are cut off."""
    parts = [([0, 3], (2, 7), (2, 8, 9)), ([4], (2, 65_535, 1, 1)), ([5], (2, 6))]
    with TokenWriter(tmp_path / "cut", amounts) as writer:
        for rows, *sequences in parts[:done]:
            append(writer, rows, *sequences, amounts=amounts)
        writer.save()
        at = (writer.tokens, writer.sequences)
        append(writer, [9], (9, 9, 9), amounts=amounts)
    with TokenWriter(tmp_path / "cut", amounts, *at) as writer:
        for rows, *sequences in parts[done:]:
            append(writer, rows, *sequences, amounts=amounts)
        writer.finish(tmp_path / "resumed", {})
    with TokenWriter(tmp_path / "whole", amounts) as writer:
        for rows, *sequences in parts:
            append(writer, rows, *sequences, amounts=amounts)
        writer.finish(tmp_path / "tokens", {})
    for path in (tmp_path / "tokens").iterdir():
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes()


def test_arrays_that_lost_what_was_recorded_are_named(tmp_path):
    with TokenWriter(tmp_path / "cut", False) as writer:
        append(writer, [0], (1, 2), amounts=False)
    with pytest.raises(MatfmError, match=r"ids.bin has fewer bytes than were recorded; begin again without --resume"):
        TokenWriter(tmp_path / "cut", False, 3, 1)


def test_no_sequences_at_all(tmp_path):
    with TokenWriter(tmp_path / "unfinished", False) as writer:
        writer.finish(tmp_path / "tokens", {})
    tokens, rows, _ = open_tokens(tmp_path / "tokens")
    assert (len(tokens), len(rows)) == (0, 0)


def test_truncated_foreign_and_future_files_are_recognised(tmp_path):
    write(tmp_path / "tokens")
    with pytest.raises(MatfmError, match="not a token file"):
        open_tokens(tmp_path)
    ids = tmp_path / "tokens" / "ids.bin"
    ids.write_bytes(ids.read_bytes()[:-1])
    with pytest.raises(MatfmError, match=r"ids.bin has 17 bytes but 18 were written"):
        open_tokens(tmp_path / "tokens")
    meta = tmp_path / "tokens" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 9}))
    with pytest.raises(MatfmError, match="format 9 is not 1"):
        open_tokens(tmp_path / "tokens")
