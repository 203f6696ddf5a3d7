"""Token files appear whole, are read through a memory map, and notice truncation."""

import json

import numpy as np
import pytest

from matfm import MatfmError
from matfm.core.batching import RaggedTokens
from matfm.core.token_files import open_tokens, token_writer


def ragged(*sequences):
    return RaggedTokens.from_sequences([(list(ids), [0.5] * len(ids)) for ids in sequences])


def write(folder, amounts=True):
    with token_writer(folder, amounts, {"kind": "composition"}) as writer:
        writer.append(ragged((2, 7), (2, 8, 9)), np.array([0, 3]))
        writer.append(ragged((2, 65_535, 1, 1)), np.array([4]))


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
            writer.append(ragged((1, 2)), np.array([0]))
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
