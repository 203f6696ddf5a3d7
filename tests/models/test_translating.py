"""Batched translation: the order of the sources, the same targets as one by one, ends and limits."""

import numpy as np
import pytest
import torch

from matfm import MatT5Config, MatT5ForConditionalGeneration
from matfm.models.translating import translate_ids

CPU = torch.device("cpu")
END = 7


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    # A token that this random model repeats stands for the end, so that targets end.
    config = MatT5Config.of_size("tiny", vocab_size=20, initializer_range=0.3, eos_token_id=END)
    return MatT5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def sources():
    generator = np.random.default_rng(0)
    return [[2, *generator.integers(5, 20, length).tolist(), 3] for length in (7, 1, 4, 2)]


@pytest.mark.parametrize("beams", [1, 2])
def test_batches_equal_single_sources_in_order(model, sources, beams):
    """Of beams those that end: where a target is cut, they depend on the limit of the batch."""
    together = translate_ids(model, sources, CPU, beams)
    split = translate_ids(model, sources, CPU, beams, tokens=8)
    assert beams == 1 or any(found.ended for found in together)
    for source, found, other in zip(sources, together, split, strict=True):
        assert found.ended == other.ended
        if found.ended or beams == 1:
            limit = 2 * len(source) + 64
            alone = model.generate(torch.tensor([source]), num_beams=beams, do_sample=False, max_new_tokens=limit)
            assert alone[0, 1:].tolist() == [*found.ids, *([END] if found.ended else [])]
            assert other == found


def test_ends_are_seen_and_left_out(model, sources):
    found = translate_ids(model, sources, CPU)
    assert len(found) == len(sources)
    for source, target in zip(sources, found, strict=True):
        assert END not in target.ids
        assert target.ended == (len(target.ids) < 2 * len(source) + 64)


def test_nothing_is_translated_to_nothing(model):
    assert translate_ids(model, [], CPU) == []
