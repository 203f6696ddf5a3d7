"""MC dropout: drawn networks are fixed functions of their seed, and average to dropout's own statistics."""

import numpy as np
import pytest
import torch
from torch import nn

from matfm import MatBERTConfig, MatBERTForProperty, MatfmError
from matfm.models.dropout_samples import thinned
from matfm.models.inference import predict_statistics, statistics_and_pooled

CPU = torch.device("cpu")


def model(dropout=0.2):
    torch.manual_seed(0)
    config = MatBERTConfig.of_size(
        "tiny", property_names=["a", "b"], property_units=["", ""], hidden_dropout_prob=dropout
    )
    return MatBERTForProperty(config).eval()


def test_a_drawn_network_depends_on_the_seed_and_not_on_the_rows_beside(tiny_tokens):
    net = model()
    whole = predict_statistics(net, tiny_tokens, CPU)
    with thinned(net, [0, 1]):
        drawn = predict_statistics(net, tiny_tokens, CPU)
        few = predict_statistics(net, tiny_tokens.take(np.array([3, 7])), CPU)
    np.testing.assert_allclose(few, drawn[[3, 7]], atol=1e-5)
    with thinned(net, [0, 1]):
        assert (predict_statistics(net, tiny_tokens, CPU) == drawn).all()
    with thinned(net, [0, 2]):
        assert np.abs(predict_statistics(net, tiny_tokens, CPU) - drawn).max() > 1e-3
    assert np.abs(whole - drawn).max() > 1e-3
    assert (predict_statistics(net, tiny_tokens, CPU) == whole).all(), "the network is whole again"


def test_masks_keep_the_mean_and_drop_the_share():
    layer = nn.Sequential(nn.Dropout(0.25)).eval()
    with thinned(layer, [1]):
        dropped = layer(torch.ones(3, 40_000))
    assert (dropped == dropped[0]).all()
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)


def test_a_model_without_dropout_has_nothing_to_drop():
    with pytest.raises(MatfmError, match="trained with fit.dropout=0"), thinned(model(0.0), [0]):
        pass


def test_what_the_head_reads_is_the_pooled_embedding(tiny_tokens):
    from matfm.models.inference import map_rows

    net = model()
    statistics, pooled = statistics_and_pooled(net, tiny_tokens, CPU)
    embedded = map_rows(net, tiny_tokens, lambda b: net.matbert.embed_packed(b.ids_N, b.amounts_N, b.layout), CPU)
    np.testing.assert_array_equal(pooled, embedded)
    np.testing.assert_array_equal(statistics, predict_statistics(net, tiny_tokens, CPU))
