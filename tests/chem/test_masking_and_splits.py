"""Masked elements: laws and rates."""

import pytest
import torch
from scipy.stats import binom

from matfm import MatfmError
from matfm.chem.composition_tokenizer import FIRST_ELEMENT, MASK
from matfm.chem.masking import MaskingConfig, mask_elements
from matfm.core.layout import PackedLayout


def many_tokens(sequences=40_000, length=4):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST_ELEMENT, 123, (sequences, length), generator=generator)
    ids[:, 0] = 2
    return ids.flatten(), PackedLayout.from_lengths([length] * sequences)


def inside(count, trials, rate):
    return binom.ppf(0.0005, trials, rate) <= count <= binom.ppf(0.9995, trials, rate)


def test_laws_and_rates():
    ids, layout = many_tokens()
    config = MaskingConfig(rows=0.3, rate=0.25)
    masked = mask_elements(ids, layout, 123, config, torch.Generator().manual_seed(1))
    changed = masked.ids_N != ids
    assert (ids[masked.positions_M] >= FIRST_ELEMENT).all()
    assert set(changed.nonzero()[:, 0].tolist()) <= set(masked.positions_M.tolist())
    assert torch.equal(ids[masked.positions_M], masked.labels_M)
    rows = masked.positions_M // 4
    assert torch.equal(torch.unique(rows), masked.masked_row_B.nonzero()[:, 0])
    assert inside(int(masked.masked_row_B.sum()), layout.sequences, 0.3)
    count = len(masked.positions_M)
    became_mask = int((masked.ids_N[masked.positions_M] == MASK).sum())
    assert inside(became_mask, count, 0.8)
    kept = int((~changed[masked.positions_M]).sum())
    assert inside(kept, count, 0.1 + 0.1 / 118)
    # Three elements a row, at least one masked: 3·0.25 expected, plus one where the draw hid none.
    expected = 3 * 0.25 + 0.75**3
    assert abs(count / int(masked.masked_row_B.sum()) - expected) < 0.03


def test_same_generator_same_masks():
    ids, layout = many_tokens(100)
    first, second = (
        mask_elements(ids, layout, 123, MaskingConfig(), torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first.ids_N, second.ids_N)


def test_no_rows_chosen_masks_nothing():
    ids, layout = many_tokens(50)
    masked = mask_elements(ids, layout, 123, MaskingConfig(rows=0.0), torch.Generator())
    assert torch.equal(masked.ids_N, ids)
    assert len(masked.labels_M) == 0
    with pytest.raises(MatfmError, match=r"masking.rows is 1.5; it is a share"):
        MaskingConfig(rows=1.5)
