"""New models of every family, for pretraining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matfm.errors import MatfmError
from matfm.models.continuing import Start
from matfm.models.matbert import MatBERTForMaskedLM, MatBERTForPretraining
from matfm.models.matbert_config import MatBERTConfig
from matfm.models.matbert_permutation import MatBERTForPermutationLM
from matfm.models.matgpt import MatGPTForCausalLM
from matfm.models.matgpt_config import MatGPTConfig
from matfm.models.matt5 import MatT5ForConditionalGeneration
from matfm.models.matt5_config import MatT5Config
from matfm.models.sizes import of_size
from matfm.tasks.pretraining.translation import TranslationObjective

if TYPE_CHECKING:
    from matfm.tasks.pretraining.config import PretrainConfig
    from matfm.tasks.pretraining.data import Corpus
    from matfm.tasks.pretraining.vocabulary import PretrainingVocabulary


def new_model(config: PretrainConfig, corpus: Corpus, vocabulary: PretrainingVocabulary) -> Any:
    """A model of the family, random or continued; its property head, if any, is scaled to the training targets."""
    start = Start(config.model.start) if config.model.start else None
    model = _FAMILIES[config.model.family](config, corpus, _sizes(config, vocabulary.size, start))
    if start is not None:
        start.copy_into(model, vocabulary.tokenizer.get_vocab())
    return model


def _matbert(config: PretrainConfig, corpus: Corpus, sizes: dict[str, Any]) -> Any:
    learns_amounts = any(objective.name == "amounts" for objective in config.objectives)
    heads = {"fingerprint_bits": config.data.fingerprint_bits, "amount_head": learns_amounts}
    heads = {name: value for name, value in heads.items() if value}
    architecture = MatBERTConfig(
        **sizes,
        **heads,
        position_embedding=config.position_embedding,
        max_position_embeddings=max(512, config.data.max_length),
        pooling=config.model.pooling,
        hidden_dropout_prob=config.model.dropout,
        property_names=[known.name for known in corpus.properties] or None,
        property_units=[known.unit for known in corpus.properties] or None,
        property_loss=config.model.loss,
    )
    torch.manual_seed(config.seed)
    if any(objective.name == "permutation" for objective in config.objectives):
        return MatBERTForPermutationLM(architecture)
    if not corpus.properties and not heads:
        return MatBERTForMaskedLM(architecture)
    model = MatBERTForPretraining(architecture)
    if corpus.properties:
        model.property_head.set_scaling(*_scaling(corpus.train.tokens.targets_RK, len(config.data.targets)))
        model.property_head.set_bounds(*torch.tensor([known.limits for known in corpus.properties]).T)
    return model


def _matgpt(config: PretrainConfig, corpus: Corpus, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(config.seed)
    conditions = [bins.mapping() for bins in corpus.conditions] or None
    architecture = MatGPTConfig(**sizes, hidden_dropout_prob=config.model.dropout, conditions=conditions)
    return MatGPTForCausalLM(architecture)


def _matt5(config: PretrainConfig, corpus: Corpus, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(config.seed)
    more: dict[str, Any] = {}
    if config.model.position_embedding == "rotary":
        more["rotary_cross_attention"] = True
    if config.model.relative_buckets:
        more["relative_attention_num_buckets"] = config.model.relative_buckets
    if corpus.train.pairs is not None:
        more["translation_properties"] = list(corpus.train.pairs.properties)
        more["translation_tasks"] = [
            task
            for objective in config.objectives
            if isinstance(objective, TranslationObjective)
            for task in corpus.train.pairs.tasks(objective.tasks)
        ]
    architecture = MatT5Config(**sizes, **more, dropout_rate=config.model.dropout)
    return MatT5ForConditionalGeneration(architecture)


_FAMILIES = {"matbert": _matbert, "matgpt": _matgpt, "matt5": _matt5}


def _sizes(config: PretrainConfig, vocabulary_size: int, start: Start | None) -> dict[str, Any]:
    """Widths and depth, those given over those of the size; weights start with a deviation of width ** -0.5."""
    sizes = start.sizes() if start else {**of_size(config.model.size), **config.model.sizes()}
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if width % heads or width // heads % 2:
        raise MatfmError(f"model.hidden_size is {width}; each of {heads} heads needs an even share of it")
    return {**sizes, "initializer_range": width**-0.5, "vocab_size": vocabulary_size}


def _scaling(targets_RK: np.ndarray, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the labels; of descriptors, whose squares leave float32, in double precision."""
    table_RK, descriptors_RD = targets_RK[:, :columns], targets_RK[:, columns:].astype(np.float64)
    mean = torch.cat([torch.from_numpy(table_RK).nanmean(dim=0), torch.from_numpy(np.nanmean(descriptors_RD, axis=0))])
    scale = np.concatenate([np.nanstd(table_RK, axis=0), np.nanstd(descriptors_RD, axis=0)])
    return mean.float(), torch.from_numpy(scale).float()
