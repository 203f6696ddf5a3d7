"""Token files appear whole, are read through a memory map, and notice truncation."""

import json

import numpy as np
import pytest

from matfm import MatfmError
from matfm.core.token_files import open_tokens, token_writer


def append(writer, rows, *sequences, amounts=True):
    ids = np.array([index for sequence in sequences for index in sequence])
    offsets = np.cumsum([0, *map(len, sequences)])
    writer.append(ids, offsets, np.array(rows), np.full(len(ids), 0.5) if amounts else None)


def write(folder, amounts=True):
    with token_writer(folder, amounts, {"kind": "composition"}) as writer:
        append(writer, [0, 3], (2, 7), (2, 8, 9), amounts=amounts)
        append(writer, [4], (2, 65_535, 1, 1), amounts=amounts)


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


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def interrupted():
        with token_writer(tmp_path / "tokens", True, {}) as writer:
            append(writer, [0], (1, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_over(tmp_path):
    write(tmp_path / "tokens")
    with pytest.raises(MatfmError, match="exists already"):
        write(tmp_path / "tokens")


def test_no_sequences_at_all(tmp_path):
    with token_writer(tmp_path / "tokens", False, {}):
        pass
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
