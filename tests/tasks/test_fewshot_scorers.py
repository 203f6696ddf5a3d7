"""Features and scorers: kernels against definitions, both scorers on problems that can be solved."""

import numpy as np
import pytest
import torch

from matfm import MatfmError
from matfm.chem.smiles import parse_smiles
from matfm.chem.tanimoto import count_tanimoto, min_max_similarity, morgan_counts
from matfm.models.prototypes import PrototypeHead
from matfm.tasks.few_shot.classical_features import (
    ECFP,
    FRACTIONS,
    FeatureBlock,
    Features,
    classical_block,
    classical_features,
    euclidean,
    split_blocks,
)
from matfm.tasks.few_shot.embedding_cache import EmbeddingCache, values_digest
from matfm.tasks.few_shot.scorers import KernelScorer, PrototypeScorer

SMILES = ["CCO", "CCCO", "c1ccccc1", "Cc1ccccc1", "CC(=O)O", "C"]
BLOCKS = (FeatureBlock("vectors", 4, "rbf"), FeatureBlock("counts", 3, "tanimoto"))


@pytest.fixture
def problem():
    """Vectors whose first column tells the classes; the counts tell nothing."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    vectors = generator.normal(size=(60, 4))
    vectors[:, 0] += 4 * labels
    return np.concatenate([vectors, generator.integers(0, 4, (60, 3))], axis=1).astype(np.float32), labels


def test_min_max_similarity_is_its_definition_and_of_counts_the_faster_one():
    counts = morgan_counts([parse_smiles(text).molecule for text in SMILES])
    np.testing.assert_allclose(min_max_similarity(counts, counts), count_tanimoto(counts, counts))
    shares = np.random.default_rng(0).dirichlet(np.ones(5), 6)
    left, right = shares[:, None], shares[None]
    expected = np.minimum(left, right).sum(-1) / np.maximum(left, right).sum(-1)
    np.testing.assert_allclose(min_max_similarity(shares, shares), expected)
    assert np.linalg.eigvalsh(expected).min() > -1e-9
    assert min_max_similarity(np.zeros((1, 3)), np.zeros((2, 3))).tolist() == [[1, 1]]


def test_classical_features_are_chosen_by_kind():
    assert classical_block("auto", "smiles") == classical_block("auto", "selfies") == ECFP
    assert classical_block("auto", "composition") == FRACTIONS
    assert classical_block("none", "smiles") is None
    with pytest.raises(MatfmError, match="classical is 'magpie' and the input is smiles"):
        classical_block("magpie", "smiles")
    with pytest.raises(MatfmError, match="choose one of auto, none, ecfp, fractions, magpie"):
        classical_block("soap", "smiles")
    fractions = classical_features(FRACTIONS, ["Fe2O3", "Fe4O6"], "composition")
    assert fractions.shape == (2, 118)
    np.testing.assert_allclose(fractions[0], fractions[1])
    np.testing.assert_allclose(fractions[0, [7, 25]], [0.6, 0.4])
    same = classical_features(ECFP, ["[C][C][O]"], "selfies")
    np.testing.assert_array_equal(same, classical_features(ECFP, ["OCC"], "smiles"))


def test_blocks_are_columns(problem):
    features = Features(problem[0], BLOCKS)
    np.testing.assert_array_equal(features.block("counts").vectors_RW, problem[0][:, 4:])
    np.testing.assert_array_equal(features.only(["vectors", "counts"]).vectors_RW, problem[0])
    np.testing.assert_array_equal(features.take(np.array([3])).vectors_RW, problem[0][3:4])
    with pytest.raises(ValueError, match="vectors have 6 columns and the blocks 7"):
        split_blocks(problem[0][:, :6], BLOCKS)
    points = problem[0][:9]
    np.testing.assert_allclose(
        euclidean(points, points), np.linalg.norm(points[:, None] - points[None], axis=-1), atol=1e-3
    )


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "mahalanobis"])
def test_prototypes_tell_the_classes(problem, distance):
    vectors, labels = problem
    vectors = vectors[:, :4] - np.array([2, 0, 0, 0], np.float32)  # the classes lie on two sides of the origin
    scorer = PrototypeScorer(distance).fit(vectors[:20], labels[:20])
    score, uncertainty, nearest = scorer.score(vectors[20:])
    assert ((score > 0.5) == labels[20:]).mean() > 0.85
    assert ((score >= 0) & (score <= 1)).all()
    np.testing.assert_allclose(uncertainty, np.sqrt(score * (1 - score)))
    assert (labels[nearest] == labels[20:]).mean() > 0.8
    np.testing.assert_allclose(scorer.class_scores(vectors[20:]).sum(axis=1), 1)


def test_a_trained_head_is_used_as_it_is(problem):
    vectors, labels = problem
    head = PrototypeHead("euclidean", 4)
    scorer = PrototypeScorer(head=head).fit(vectors[:20, :4], labels[:20])
    told = [torch.from_numpy(values) for values in (vectors[20:, :4], vectors[:20, :4], labels[:20])]
    expected = head(*told, 2).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(scorer.class_scores(vectors[20:, :4]), expected, rtol=1e-4)


def test_the_kernel_finds_the_block_that_matters(problem):
    vectors, labels = problem
    scorer = KernelScorer(BLOCKS).fit(vectors[:24], labels[:24])
    shares = scorer.process_.used()
    of_vectors = sum(share * scorer.candidates_[number][0][0] for number, share in shares.items())
    assert of_vectors > 0.6
    scores = scorer.score(vectors[24:])
    assert ((scores.score_B > 0.5) == labels[24:]).mean() > 0.85
    assert ((scores.score_B >= 0) & (scores.score_B <= 1)).all()
    assert (scores.uncertainty_B >= 0).all()
    order = np.argsort(scores.score_B)
    np.testing.assert_array_equal(order, np.argsort(scorer.class_scores(vectors[24:])[:, 1]))


def test_every_row_is_scored_alone(problem):
    vectors, labels = problem
    scorer = KernelScorer(BLOCKS).fit(vectors[:24], labels[:24])
    whole, part = scorer.score(vectors[24:]), scorer.score(vectors[40:41])
    for of_whole, of_part in zip(whole, part, strict=True):
        np.testing.assert_allclose(of_whole[16:17], of_part, rtol=1e-6)


def test_the_kernel_regresses_numbers_and_tells_several_classes(problem):
    vectors, _ = problem
    values = 3 + 2 * vectors[:, 0]
    score, std, _ = KernelScorer(BLOCKS).fit(vectors[:40], values[:40]).score(vectors[40:])
    assert np.abs(score - values[40:]).mean() < 0.6 * np.abs(values[40:] - values[:40].mean()).mean()
    assert (std > 0).all()
    with pytest.raises(MatfmError, match="labels were taken as numbers"):
        KernelScorer(BLOCKS).fit(vectors[:40], values[:40]).class_scores(vectors[40:])
    classes = np.digitize(vectors[:, 0], [0.5, 3.0])
    scorer = KernelScorer(BLOCKS, regression=False).fit(vectors[:40], classes[:40])
    assert scorer.class_scores(vectors[40:]).shape == (20, 3)
    assert (scorer.class_scores(vectors[40:]).argmax(axis=1) == classes[40:]).mean() > 0.6


@pytest.mark.parametrize("scorer", [KernelScorer(), PrototypeScorer()])
def test_one_class_is_refused(scorer):
    with pytest.raises(MatfmError, match="all 3 support examples have the label 1"):
        scorer.fit(np.eye(3, dtype=np.float32), np.ones(3))


def test_embeddings_are_found_again_by_content(tmp_path):
    calls = []

    def vectors(cache, inputs):
        def embed():
            calls.append(list(inputs))
            return np.array([[len(text), 0.5] for text in inputs], np.float32)

        return cache(inputs, embed)

    cache = EmbeddingCache(tmp_path, "maker")
    first = vectors(cache, ["ab", "c"])
    np.testing.assert_array_equal(vectors(EmbeddingCache(tmp_path, "maker"), ["ab", "c"]), first)
    assert len(calls) == 1
    for other, inputs in ((EmbeddingCache(tmp_path, "other"), ["ab", "c"]), (cache, ["a", "bc"]), (cache, ["c", "ab"])):
        vectors(other, inputs)
    assert len(calls) == 4
    (tmp_path / f"{cache.key(['ab', 'c'])}.safetensors").write_bytes(b"damaged")
    np.testing.assert_array_equal(vectors(cache, ["ab", "c"]), first)
    assert len(calls) == 5


def test_a_digest_is_of_the_values():
    torch.manual_seed(0)
    one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert values_digest(one) != values_digest(other)
    other.load_state_dict(one.state_dict())
    assert values_digest(one) == values_digest(other)
