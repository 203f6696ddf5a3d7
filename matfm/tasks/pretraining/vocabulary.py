"""The vocabulary of a pretraining run: its tokenizer, the classes of its tokens, and what objectives add to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.chem.elements import SYMBOLS
from matfm.chem.joint_tokenizer import JointTokenizer
from matfm.chem.token_classes import TokenClasses, selfies_classes, smiles_classes
from matfm.chem.vocabulary import SPECIAL_TOKENS, load_vocabulary, token_ids
from matfm.core.property_bins import PropertyBins
from matfm.tasks.encoding import TOKENIZERS

if TYPE_CHECKING:
    from matfm.tasks.pretraining.config import CorpusConfig, PretrainConfig

SENTINEL = "<extra_id_{}>"
"""Name of the sentinels of span corruption, as in T5's vocabulary."""
_CLASSES = {"smiles": smiles_classes, "selfies": selfies_classes}


@dataclass(frozen=True)
class PretrainingVocabulary:
    """Tokens, and which of them objectives may hide or draw."""

    tokenizer: PreTrainedTokenizerBase
    """As it is saved, sentinels and tokens of conditions included."""
    classes: TokenClasses
    """Chemical classes; -1 for special tokens, sentinels and tokens of conditions."""
    sentinels: Tensor
    """Ids of the sentinels, in the order of their use."""
    conditions: tuple[PropertyBins, ...] = ()
    """What texts are conditioned on; every bin has a token."""

    @property
    def size(self) -> int:
        """V, sentinels and tokens of conditions included."""
        return len(self.tokenizer)

    @cached_property
    def ordinary_V(self) -> Tensor:  # noqa: N802 - the shape is part of the name
        """False for special tokens, sentinels and tokens of conditions."""
        return self.classes.class_of_V >= 0

    @property
    def separator(self) -> int:
        """Id of the dot between the parts of a salt; -1 where there is none."""
        return int(self.tokenizer.get_vocab().get(".", -1))


def vocabulary_of(
    config: PretrainConfig, sentinels: int, conditions: tuple[PropertyBins, ...] = ()
) -> PretrainingVocabulary:
    """The vocabulary that a configuration names, with that many sentinels and the tokens of conditions at its end."""
    tokenizer = new_tokenizer(config)
    ids = dict(tokenizer.get_vocab())
    if config.joint:
        # Sequence-to-sequence objectives ask only which tokens are ordinary.
        classes = smiles_classes(ids, tokenizer.all_special_tokens)
    elif config.data.kind in _CLASSES:
        classes = _CLASSES[config.data.kind](ids)
    else:
        classes = _composition_classes(ids, config.masking.element_classes)
    size = len(ids)
    of_conditions = [token for bins in conditions for token in bins.tokens]
    added = [*(SENTINEL.format(number) for number in range(sentinels)), *of_conditions]
    tokenizer.add_tokens(added, special_tokens=True)
    padded = TokenClasses(classes.names, torch.cat([classes.class_of_V, torch.full((len(added),), -1)]))
    return PretrainingVocabulary(tokenizer, padded, torch.arange(size, size + sentinels), conditions)


def new_tokenizer(config: PretrainConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a configuration, without sentinels."""
    data = config.data
    if config.joint:
        return JointTokenizer()
    if data.kind == "composition":
        return CompositionTokenizer(scheme=config.scheme, order=data.order)
    return TOKENIZERS[data.kind](load_vocabulary(data.vocabulary) if data.vocabulary else None)


def vocabulary_digest(data: CorpusConfig) -> str:
    """What `matfm data encode` writes as `vocabulary_sha256` for the same vocabulary."""
    ids = token_ids(load_vocabulary(data.vocabulary or data.kind))
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _composition_classes(ids: dict[str, int], elements: TokenClasses) -> TokenClasses:
    """Classes of the elements, and one of the amounts that the scheme `count` writes."""
    if len(ids) == len(SPECIAL_TOKENS) + len(SYMBOLS):
        return elements
    amounts = torch.full((len(ids) - len(elements.class_of_V),), len(elements.names))
    return TokenClasses((*elements.names, "amount"), torch.cat([elements.class_of_V, amounts]))
