"""Many SMILES or SELFIES to token ids at once: the tokenizers' regular expression as NumPy passes over bytes.

`LineNotationTokenizer` is the definition, this is its fast twin: the tests compare the two on every kind of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from matfm.errors import MatfmError

# M bytes, S special bytes, N tokens, R strings, W words of 8 bytes in the longest token

_FIRST, _LAST = 0xFF, 0xFE
"""Bytes that never occur in UTF-8; they stand for [CLS] and [SEP] around every string."""
_ORDINARY, _OPEN, _CLOSE, _EDGE, _SECOND, _RING, _CONTINUATION = range(7)
"""What a byte may be to the expression; most are ordinary, and only the others are looked at closely."""
_MULTIPLIERS = np.random.default_rng(0).integers(1, 2**63, size=(64, 16), dtype=np.uint64) | np.uint64(1)
_LARGEST_ID = 2**16 - 1


class LineEncoder:
    """Encodes lists of strings to one flat array of ids.

    Args:
        ids: token to id; must hold [CLS], [SEP] and [UNK].
        pairs: tokens of two characters outside of brackets (`Cl`, `->`).
        ring_numbers: whether `%12` and `%(123)` are one token.
    """

    def __init__(self, ids: Mapping[str, int], pairs: Sequence[str] = (), ring_numbers: bool = False) -> None:
        if max(ids.values()) > _LARGEST_ID:
            raise MatfmError(f"the vocabulary has {len(ids)} tokens; token files hold at most {_LARGEST_ID + 1}")
        self.unknown = ids["[UNK]"]
        self.pairs = [pair.encode() for pair in pairs]
        self.kind_of_byte = _kinds(self.pairs, ring_numbers)
        self.id_of_byte = np.full(256, self.unknown, np.uint16)
        for token, index in ids.items():
            if len(token) == 1 and token.isascii():
                self.id_of_byte[ord(token)] = index
        self.id_of_byte[_FIRST], self.id_of_byte[_LAST] = ids["[CLS]"], ids["[SEP]"]
        self.long = _LongTokens({token.encode(): i for token, i in ids.items() if len(token.encode()) > 1})

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all strings with [CLS] and [SEP] around each, (N,) uint16, and where each starts, (R + 1,) int64."""
        if not texts:
            return np.zeros(0, np.uint16), np.zeros(1, np.int64)
        between = bytes((_LAST, _FIRST))
        data = between.join([text.encode("utf-8", "surrogatepass") for text in texts])
        padded = b"".join((bytes((_FIRST,)), data, bytes((_LAST,)), bytes(self.long.width)))
        byte_M = np.frombuffer(padded, np.uint8)[: len(data) + 2]
        ids_M = self.id_of_byte[byte_M]
        kept_M = np.ones(len(byte_M), bool)
        kind_M = self.kind_of_byte[byte_M]
        at_S = np.flatnonzero(kind_M)
        kind_S = kind_M[at_S]
        kept_M[at_S[kind_S == _CONTINUATION]] = False
        starts, stops = _brackets(at_S, kind_S)
        if len(starts):
            kept_M &= ~_inside(starts, stops, len(byte_M))
        more = [self._pair_tokens(byte_M, kept_M, at_S[kind_S == _SECOND]), *self._rings(padded, kept_M, at_S, kind_S)]
        starts = np.concatenate([starts, *(first for first, _ in more)])
        stops = np.concatenate([stops, *(last for _, last in more)])
        ids_M[starts] = self.long.lookup(padded, starts, stops - starts + 1, self.unknown)
        firsts = at_S[(kind_S == _EDGE) & (byte_M[at_S] == _FIRST)]
        lengths = np.add.reduceat(kept_M, firsts, dtype=np.int64)
        return ids_M[kept_M], np.concatenate([[0], np.cumsum(lengths)])

    def _pair_tokens(self, byte_M: np.ndarray, kept_M: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last byte of every pair; the second character is no token of its own. Clears it in `kept_M`."""
        pair_code = byte_M[second - 1].astype(np.uint16) << 8 | byte_M[second]
        codes = [pair[0] << 8 | pair[1] for pair in self.pairs]
        last = second[np.isin(pair_code, codes) & kept_M[second] & kept_M[second - 1]]
        if len(last) > 1:  # in `<->` the first two characters are the pair
            taken = np.zeros(len(last), bool)
            for i in np.flatnonzero(np.diff(last) == 1):
                taken[i + 1] = not taken[i]
            last = last[~taken]
        kept_M[last] = False
        return last - 1, last

    def _rings(
        self, padded: bytes, kept_M: np.ndarray, at_S: np.ndarray, kind_S: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """First and last byte of every `%12` and `%(123)`; they are rare, so one at a time."""
        spans = []
        for start in at_S[kind_S == _RING].tolist():
            stop = _ring_end(padded, start)
            if kept_M[start] and stop > start:
                kept_M[start + 1 : stop + 1] = False
                spans.append((start, stop))
        if not spans:
            return []
        found = np.array(spans)
        return [(found[:, 0], found[:, 1])]


class _LongTokens:
    """Tokens of more than one byte, found by a perfect hash of their 8-byte words; every hit is compared in full."""

    def __init__(self, ids: Mapping[bytes, int]) -> None:
        words = -(-max(map(len, ids)) // 8)
        if words > _MULTIPLIERS.shape[1]:
            raise MatfmError(f"the vocabulary has a token of {max(map(len, ids))} bytes; at most 128 can be read")
        self.width = 8 * words
        padded = b"".join(token.ljust(self.width, b"\0") for token in ids)
        self.words_NW = np.frombuffer(padded, "<u8").reshape(len(ids), words)
        self.lengths_N = np.array([len(token) for token in ids])
        self.ids_N = np.array(list(ids.values()), np.uint16)
        self.multipliers_W, self.shift, self.slots = self._perfect_hash(words)
        self.masks = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)

    def _perfect_hash(self, words: int) -> tuple[np.ndarray, np.uint64, np.ndarray]:
        """Multipliers and table size for which no two tokens share a slot. Slots hold token numbers, -1 if empty."""
        for bits in range(10, 31):
            for multipliers in _MULTIPLIERS[:, :words]:
                shift = np.uint64(64 - bits)
                slot_N = (self.words_NW * multipliers).sum(axis=1, dtype=np.uint64) >> shift
                if len(np.unique(slot_N)) == len(slot_N):
                    slots = np.full(1 << bits, -1, np.int32)
                    slots[slot_N] = np.arange(len(slot_N))
                    return multipliers, shift, slots
        raise MatfmError(f"no hash separates the {len(self.ids_N)} tokens of this vocabulary; leave rare ones out")

    def lookup(self, padded: bytes, starts: np.ndarray, lengths: np.ndarray, unknown: int) -> np.ndarray:
        """Ids of the byte ranges; `unknown` where a range is no token."""
        word_at = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
        words = []
        hashed = np.zeros(len(starts), np.uint64)
        for w, multiplier in enumerate(self.multipliers_W):
            last = len(word_at) - 1
            word = word_at[np.minimum(starts + 8 * w, last)] & self.masks[np.clip(lengths - 8 * w, 0, 8)]
            words.append(word)
            hashed += word * multiplier
        token = self.slots[hashed >> self.shift]
        same = (token >= 0) & (self.lengths_N[token] == lengths)
        for w, word in enumerate(words):
            same &= self.words_NW[token, w] == word
        return np.where(same, self.ids_N[token], np.uint16(unknown))


def _kinds(pairs: Sequence[bytes], ring_numbers: bool) -> np.ndarray:
    kind = np.full(256, _ORDINARY, np.uint8)
    kind[0x80:0xC0] = _CONTINUATION
    kind[[_FIRST, _LAST]] = _EDGE
    kind[ord("[")], kind[ord("]")] = _OPEN, _CLOSE
    for pair in pairs:
        kind[pair[1]] = _SECOND
    if ring_numbers:
        kind[ord("%")] = _RING
    return kind


def _brackets(at_S: np.ndarray, kind_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last byte of every bracket token: an opening bracket with a closing one as next bracket."""
    bracket = (kind_S == _OPEN) | (kind_S == _CLOSE) | (kind_S == _EDGE)
    at, kind = at_S[bracket], kind_S[bracket]
    whole = np.flatnonzero((kind[:-1] == _OPEN) & (kind[1:] == _CLOSE))
    return at[whole], at[whole + 1]


def _inside(starts: np.ndarray, stops: np.ndarray, size: int) -> np.ndarray:
    """True from the byte after each start to its stop."""
    change = np.zeros(size + 1, np.int8)
    change[starts + 1] = 1
    change[stops + 1] -= 1
    return np.cumsum(change[:size], dtype=np.int8).view(bool)


def _ring_end(padded: bytes, start: int) -> int:
    """Last byte of the ring number that begins at `start`; `start` itself if there is none."""
    if padded[start + 1 : start + 2] == b"(":
        end = padded.find(b")", start)
        return end if end > start + 2 and _is_number(padded[start + 2 : end]) else start
    return start + 2 if _is_number(padded[start + 1 : start + 3]) else start


def _is_number(text: bytes) -> bool:
    return text.isdigit()
