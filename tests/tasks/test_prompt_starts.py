"""Prompts begin as the tokens that are named, the task's own, or the classes of its rows."""

import numpy as np
import pytest
import torch

from matfm import MatBERTConfig, MatBERTForProperty, MatfmError
from matfm.core.config import apply_overrides
from matfm.models.deltas import use_delta
from matfm.models.strategies import DELTA, StrategyOptions, apply_strategy
from matfm.tasks.encoding import FormulaEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.prompting.starts import class_vectors, prompt_start

FORMULAS = ["NaCl", "KCl", "LiCl", "CsCl", "Fe2O3", "FeO", "NiO", "MgO", "MgCl2"]


def start_of(text, length=3, strategy="prompt", formulas=FORMULAS):
    torch.manual_seed(0)
    model = MatBERTForProperty(MatBERTConfig.of_size("tiny")).eval()
    encoder = FormulaEncoder()
    options = StrategyOptions(strategy=strategy, prompt_start=text, prompt_length=length)
    found = prompt_start(options, model, encoder, Examples(encoder(formulas).tokens), ["gap"], 0)
    return model, options, found


def embeddings(model, *symbols):
    ids = FormulaEncoder().tokenizer.convert_tokens_to_ids(list(symbols))
    return model.matbert.embed_tokens.weight[ids]


def test_named_tokens_are_taken_in_turn_by_every_kind_of_prompt():
    assert apply_overrides({}, ["fit.prompt_start=tokens:O,F,Ti"]) == {"fit": {"prompt_start": "tokens:O,F,Ti"}}
    for strategy in ("prompt", "deep-prompt", "prefix"):
        model, options, start = start_of("tokens:O, Ti", strategy=strategy)
        assert torch.equal(start, embeddings(model, "O", "Ti"))
        apply_strategy(model, options, model.matbert.layers_from_top, start)
        added = model.matbert.encoder.added[DELTA]
        if strategy != "prefix":
            first = added.tokens if strategy == "prompt" else added.tokens[0]
            assert torch.equal(first, embeddings(model, "O", "Ti", "O"))
        else:
            assert torch.equal(added.keys[:, 0], added.keys[:, 2])
            use_delta(model, None)
            block = model.matbert.encoder.blocks[0]
            expected = block.attention.qkv(block.attention_norm(embeddings(model, "O"))).chunk(3, dim=-1)[1]
            torch.testing.assert_close(added.keys[0, :1], expected)
    for text in ("tokens:O,Xx", "tokens:"):
        with pytest.raises(MatfmError, match="which the backbone's vocabulary does not have"):
            start_of(text)


def test_a_task_of_formulas_begins_as_its_most_frequent_elements():
    model, _, start = start_of("task", length=2)
    assert torch.equal(start, embeddings(model, "Cl", "O"))


def test_classes_are_the_centres_of_clusters_the_largest_first():
    rows_RD = np.array([[0.0, 0], [0, 1], [0, 2], [9, 9], [9, 10]])
    np.testing.assert_allclose(class_vectors(rows_RD, 2, seed=0), [[0, 1], [9, 9.5]])
    assert len(class_vectors(rows_RD[[0, 0, 3]], 5, seed=0)) == 2
    model, _, start = start_of("classes", length=1)
    encoded = FormulaEncoder()(FORMULAS).tokens
    batch = encoded.batch(np.arange(len(FORMULAS)))
    mean = model.matbert.embed_packed(batch.ids_N, batch.amounts_N, batch.layout, "mean", layer=0).mean(dim=0)
    torch.testing.assert_close(start[0], mean, rtol=1e-4, atol=1e-5)


def test_what_needs_no_data_and_what_takes_no_start():
    assert start_of("tokens")[2] == "tokens"
    assert start_of("random")[2] == "random"
    assert start_of("classes", strategy="lora")[2] == "tokens"
    assert start_of("task", strategy="control")[2].shape[1] == 64
