"""Many formulas to tokens at once.

The scheme `fraction` is NumPy passes over bytes: `composition_schemes.encode_fractions` is the definition, this is its
fast twin. A formula that is just elements with numbers is read here; any other one (brackets, hydrates, charges,
errors) goes to the definition. Schemes in which order matters read one formula after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from matfm.chem.composition_schemes import CLS, SCHEMES, SEP, SPECIAL_AMOUNT, VOCABULARY, fraction_ids
from matfm.chem.formula import MAX_LENGTH, Formula, read_formula
from matfm.chem.formula_grammar import LARGEST_USUAL_AMOUNT
from matfm.chem.vocabulary import token_ids
from matfm.errors import MatfmError

# M bytes, I items (an element with its number), R formulas, P plain formulas, N tokens

_ITEM = re.compile(rb"([A-Z][a-z]?)([0-9]+(?:\.[0-9]+)?)?")
_END = 0xFF
"""A byte that never occurs in UTF-8; it stands behind every formula."""
_LONGEST_ITEM = 8
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(_LONGEST_ITEM + 1)], np.uint64)


@dataclass
class EncodedFormulas:
    """Readable formulas as flat arrays."""

    ids_N: np.ndarray
    """Token ids, uint16, `[CLS]` before every formula and, where order matters, `[SEP]` behind it."""
    amounts_N: np.ndarray
    """Atomic fractions, float32, 0 for `[CLS]`; nothing but 0 where order matters."""
    offsets: np.ndarray
    """Where each readable formula starts, and the end; int64."""
    rows: np.ndarray
    """Position of each readable formula among those given, int64."""
    errors: dict[int, str] = field(default_factory=dict)
    """Position to reason, of the others."""
    warnings: dict[int, str] = field(default_factory=dict)
    """Position to the reading that a user should check."""


def encode_many_fractions(formulas: Sequence[str]) -> EncodedFormulas:
    """Equal to `encode_fractions` on every formula (amounts as float32); unreadable ones are reported, not raised."""
    # A text of megabytes would be cut into millions of items first; empty, it is left to `read_formula`.
    short = [formula if len(formula) <= MAX_LENGTH else "" for formula in formulas]
    is_plain_R, ids, amounts, lengths_P = _encode_plain(short)
    lengths_R = np.zeros(len(formulas), np.int64)
    lengths_R[is_plain_R] = lengths_P
    others: list[tuple[list[int], list[float]]] = []
    errors, warnings = {}, {}
    for row in np.flatnonzero(~is_plain_R).tolist():
        try:
            formula = read_formula(formulas[row])
        except MatfmError as error:
            errors[row] = str(error)
            continue
        if formula.warnings:
            warnings[row] = "; ".join(formula.warnings)
        others.append(fraction_ids(formula))
        lengths_R[row] = len(others[-1][0])
    plain_N = np.repeat(is_plain_R, lengths_R)
    ids_N, amounts_N = np.empty(len(plain_N), np.uint16), np.empty(len(plain_N), np.float32)
    ids_N[plain_N], amounts_N[plain_N] = ids, amounts
    ids_N[~plain_N] = [index for one, _ in others for index in one]
    amounts_N[~plain_N] = [amount for _, one in others for amount in one]
    rows = np.flatnonzero(lengths_R)
    offsets = np.concatenate([[0], np.cumsum(lengths_R[rows])])
    return EncodedFormulas(ids_N, amounts_N, offsets, rows, errors, warnings)


@dataclass(frozen=True)
class OrderedFormulas:
    """Columns of formulas in a scheme where order matters, as `CompositionTokenizer(scheme, order)` tokenizes them."""

    scheme: str
    """repeat or count."""
    order: str
    """One of `formula_text.ORDERS`."""

    def __call__(self, formulas: Sequence[str]) -> EncodedFormulas:
        """Tokens of the formulas; unreadable ones are reported, not raised."""
        scheme = SCHEMES[self.scheme]
        ids = token_ids(scheme.vocabulary)
        return encode_in_order(
            formulas, lambda formula: [ids[token] for token in scheme.tokens(formula, self.order)[0]]
        )


def encode_in_order(formulas: Sequence[str], ids_of: Callable[[Formula], list[int]]) -> EncodedFormulas:
    """`[CLS]`, the ids of each formula, `[SEP]`; those that cannot be read or written so are reported, not raised."""
    ids: list[int] = []
    offsets, rows = [0], []
    errors, warnings = {}, {}
    for row, text in enumerate(formulas):
        try:
            formula = read_formula(text)
            tokens = ids_of(formula)
        except MatfmError as error:
            errors[row] = str(error)
            continue
        if formula.warnings:
            warnings[row] = "; ".join(formula.warnings)
        ids += [CLS, *tokens, SEP]
        offsets.append(len(ids))
        rows.append(row)
    no_amounts_N = np.full(len(ids), SPECIAL_AMOUNT, np.float32)
    ids_N, starts = np.array(ids, np.uint16), np.array(offsets, np.int64)
    return EncodedFormulas(ids_N, no_amounts_N, starts, np.array(rows, np.int64), errors, warnings)


def _encode_plain(formulas: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which formulas are plain (R,), and the ids, amounts and lengths of those."""
    if not formulas:
        return np.zeros(0, bool), *(np.zeros(0, np.int64),) * 3
    data = bytes((_END,)).join([formula.encode("utf-8", "surrogatepass") for formula in formulas])
    byte_M = np.frombuffer(data + bytes((_END,)), np.uint8)
    end_R = np.flatnonzero(byte_M == _END)
    start_R = np.concatenate([[0], end_R[:-1] + 1])
    at_I = np.flatnonzero((byte_M >= ord("A")) & (byte_M <= ord("Z")))
    row_I = np.searchsorted(end_R, at_I)
    first_R = np.searchsorted(at_I, start_R)
    stop_I = np.minimum(np.append(at_I[1:], len(byte_M)), end_R[row_I])
    id_I, amount_I = _read_items(data, at_I, stop_I - at_I)
    items_R = np.diff(np.append(first_R, len(at_I)))
    plain_R = (items_R > 0) & (at_I[np.minimum(first_R, len(at_I) - 1)] == start_R) if len(at_I) else items_R > 0
    plain_R[row_I[id_I == 0]] = False
    seen = np.zeros((len(formulas), len(VOCABULARY)), bool)
    seen[row_I, id_I] = True
    plain_R &= seen.sum(axis=1) == items_R  # an element that comes twice is for the definition to add up
    plain_R[
        [row for row in np.flatnonzero(plain_R & _ends_in_water(byte_M, end_R)).tolist() if "." in formulas[row]]
    ] = False
    kept_I = plain_R[row_I]
    items_P = items_R[plain_R]
    first_P = np.cumsum(items_P) - items_P
    amounts = amount_I[kept_I]
    total_P = np.add.reduceat(amounts, first_P) if len(first_P) else amounts
    ids = np.insert(id_I[kept_I], first_P, CLS)
    shares = np.insert(amounts / np.repeat(total_P, items_P), first_P, SPECIAL_AMOUNT)
    return plain_R, ids, shares, items_P + 1


def _read_items(data: bytes, at_I: np.ndarray, length_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token id and amount of every item, each distinct one read once; id 0 for what is not plain."""
    word_at = np.ndarray((len(data) + 1,), "<u8", data + bytes(_LONGEST_ITEM), strides=(1,))
    words_I = word_at[at_I] & _MASKS[np.minimum(length_I, _LONGEST_ITEM)]
    words, inverse_I = np.unique(words_I, return_inverse=True)
    ids, amounts = np.zeros(len(words), np.int64), np.ones(len(words))
    lengths = np.zeros(len(words), np.int64)
    for number, word in enumerate(words.tolist()):
        item = word.to_bytes(_LONGEST_ITEM, "little").rstrip(b"\0")
        lengths[number] = len(item)
        found = _ITEM.fullmatch(item)
        index = VOCABULARY.get(found[1].decode(), 0) if found else 0
        amount = float(found[2] or 1) if found else 0.0
        if 0.0 < amount <= LARGEST_USUAL_AMOUNT:
            ids[number], amounts[number] = index, amount
    return np.where(length_I == lengths[inverse_I], ids[inverse_I], 0), amounts[inverse_I]


def _ends_in_water(byte_M: np.ndarray, end_R: np.ndarray) -> np.ndarray:
    """Formulas that end in H2O: a full stop before it may be that of a hydrate."""
    o, two, h = (byte_M[np.maximum(end_R - back, 0)] for back in (1, 2, 3))
    return (o == ord("O")) & (two == ord("2")) & (h == ord("H"))
