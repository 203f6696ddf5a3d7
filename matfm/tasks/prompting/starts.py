"""What prompts begin as: tokens by name, the task's own tokens, or classes of its training rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from matfm.core.batching import RaggedTokens
from matfm.errors import MatfmError
from matfm.models.strategies import NAMED_TOKENS, PROMPTS, StrategyOptions
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.huggingface_encoding import HuggingFaceEncoder

# N tokens of R rows, P vectors, D width

MOST_ROWS = 4096
"""Training rows that classes are found among at most."""
_STARTS_OF_KMEANS = 10


def prompt_start(
    options: StrategyOptions, model: Any, encoder: RowEncoder, train: Examples, names: list[str], seed: int
) -> str | Tensor:
    """For `add_delta`: the name of a start that needs no data, or vectors (·, D) like embeddings of tokens.

    Args:
        options: say what to begin as (docs/prompts.md) and how long.
        model: with the frozen encoder.
        encoder: made the tokens.
        train: training rows, for `task` and `classes`.
        names: of the targets, for `task`.
        seed: of the classes.

    Raises:
        MatfmError: the tokenizer has no token of that name.
    """
    start = options.prompt_start
    if options.strategy not in PROMPTS or start in ("tokens", "random"):
        return start if start in ("tokens", "random") else "tokens"
    embedding = _input_embedding(model.base_model)
    if start == "classes":
        rows_RD = _row_vectors(model.base_model, train.tokens, seed)
        return torch.from_numpy(class_vectors(rows_RD, options.delta_spec().length, seed))
    if start == "task":
        ids = _task_tokens(encoder, train.tokens, names, options.delta_spec().length)
    else:
        ids = _tokens_by_name(encoder, start.removeprefix(NAMED_TOKENS), len(embedding))
    return embedding[ids]


def class_vectors(rows_RD: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Centres of `count` clusters of rows (k-means), the largest first, (P, D); fewer where fewer rows differ."""
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(rows_RD, axis=0)))
    found = KMeans(count, n_init=_STARTS_OF_KMEANS, random_state=seed).fit(rows_RD)
    order = np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable")
    centres: np.ndarray = found.cluster_centers_[order].astype(np.float32)
    return centres


def _input_embedding(encoder: Any) -> Tensor:
    holder = encoder.encoder if hasattr(encoder, "prompted") else encoder
    weight: Tensor = holder.get_input_embeddings().weight.detach()
    return weight


@torch.no_grad()
def _row_vectors(encoder: Any, tokens: RaggedTokens, seed: int) -> np.ndarray:
    """Mean of the embeddings of each row's tokens but the first, with their amounts if the encoder has these."""
    rows = np.random.default_rng(seed).permutation(len(tokens))[:MOST_ROWS]
    batch = tokens.take(np.sort(rows)).batch(np.arange(len(rows)))
    embedding = _input_embedding(encoder)
    ids_N = batch.ids_N.to(embedding.device)
    kept_N = ids_N < len(embedding)  # control tokens have no embedding yet
    vectors_ND = embedding[ids_N.clamp_max(len(embedding) - 1)] * kept_N[:, None]
    if hasattr(encoder, "embed_amounts"):
        vectors_ND = vectors_ND + encoder.embed_amounts(batch.amounts_N.to(embedding))
    vectors: np.ndarray = batch.layout.mean(vectors_ND, skip=1).cpu().numpy()
    return vectors


def _tokens_by_name(encoder: RowEncoder, text: str, vocabulary: int) -> list[int]:
    known = encoder.tokenizer.get_vocab()
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if known.get(name, vocabulary) >= vocabulary]:
        raise MatfmError(
            f"fit.prompt_start names the token {unknown[0]!r}, which the backbone's vocabulary does not have; name "
            "tokens of it, such as tokens:O,Ti for formulas"
        )
    return [known[name] for name in names]


def _task_tokens(encoder: RowEncoder, tokens: RaggedTokens, names: list[str], count: int) -> list[int]:
    """The pieces of the targets' names in a tokenizer of text; else the most frequent tokens of the training rows."""
    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids)
    if isinstance(encoder, HuggingFaceEncoder):
        text = " ".join(names).replace("_", " ")
        pieces = [index for index in tokenizer(text, add_special_tokens=False)["input_ids"] if index not in special]
        if pieces:
            return pieces
    ids, counts = np.unique(tokens.ids_N.astype(np.int64), return_counts=True)
    order = ids[np.argsort(-counts, kind="stable")].tolist()
    return [index for index in order if index not in special][:count]
