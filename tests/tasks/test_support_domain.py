"""What a support can speak of, and what a support must be."""

import numpy as np
import pytest

from matfm.errors import MatfmError
from matfm.tasks.few_shot.support_scorer import MAX_SUPPORT, check_support
from matfm.tasks.screening.support_domain import SupportDomain


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def test_the_domain_holds_the_support_and_not_what_is_far_away(vectors):
    domain = SupportDomain.of(vectors[:10], vectors)
    assert domain.covers(vectors[:10]).all()
    assert not domain.covers(vectors[:10] + 100).any()
    assert 0 < domain.limit < np.inf


def test_the_domain_of_a_row_does_not_depend_on_its_company_or_on_units(vectors):
    domain = SupportDomain.of(vectors[:10], vectors)
    alone = [bool(domain.covers(vectors[row : row + 1])[0]) for row in range(40)]
    assert alone == domain.covers(vectors).tolist()
    assert 10 <= sum(alone) < 40
    scale = np.array([1, 10, 0.1, 5, 2, 100], np.float32)
    assert SupportDomain.of(vectors[:10] * scale, vectors * scale).covers(vectors * scale).tolist() == alone


def test_columns_that_are_constant_do_not_matter(vectors):
    flat = vectors.copy()
    flat[:, 2] = 5.0
    assert np.isfinite(SupportDomain.of(flat[:2], flat).limit)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.0], "has 1 examples"),
        ([1.0, 1.0, 1.0], "all examples of the support have the label 1"),
        ([], "has 0 exam"),
        (range(MAX_SUPPORT + 1), "give 2 to 2,000"),
    ],
)
def test_a_support_without_information_is_refused(labels, message):
    with pytest.raises(MatfmError, match=message):
        check_support(np.array(labels, float))
