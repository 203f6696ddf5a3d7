"""Any encoder that `AutoModel` loads, as a backbone: embeds and predicts as a MatBERT does, on the same batches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from matfm.core.bundled import resolve_weights
from matfm.core.layout import PackedLayout
from matfm.errors import MatfmError
from matfm.models.deltas import restore_deltas
from matfm.models.foreign_prompts import PromptedInput
from matfm.models.heads import PropertyHead
from matfm.models.huggingface_config import HuggingFaceConfig
from matfm.models.matbert import PropertyPrediction
from matfm.models.pooling import POOLINGS
from matfm.models.pretrained import FamilyPreTrainedModel, mask_or_ones
from matfm.models.saving import in_short, readable_loading, refuse_other_weights, without_bars

# N packed tokens, B sequences, T padded length, D width

_NOT_OF_THE_ARCHITECTURE = ("_name_or_path", "auto_map", "architectures", "transformers_version")


class HuggingFacePreTrainedModel(FamilyPreTrainedModel):
    """Weight initialisation and loading."""

    config_class = HuggingFaceConfig
    base_model_prefix = "backbone"
    accepts_loss_kwargs = False  # as MatBERT's, the losses are means of a batch
    _keys_to_ignore_on_load_unexpected = [r"^property_head\."]


class HuggingFaceModel(HuggingFacePreTrainedModel):
    """A wrapped encoder. Packed batches are padded for it, with an attention mask, and packed again."""

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config)
        architecture = dict(config.architecture or {})
        if "hidden_dropout_prob" in architecture:
            architecture["hidden_dropout_prob"] = config.hidden_dropout_prob
        self.encoder = build_encoder(architecture)
        self.prompted = PromptedInput()
        restore_deltas(self)
        self.post_init()

    def embed_packed(
        self, ids_N: Tensor, amounts_N: Tensor | None, layout: PackedLayout, pooling: str | None = None, layer: int = -1
    ) -> Tensor:
        """One vector per sequence (B, D), as of `MatBERTModel`; the encoder's own text has no amounts.

        Layer 0 is the input of the first block, layer l the output of block l; the last one is the encoder's result.
        """
        del amounts_N
        lengths_B = torch.tensor(layout.lengths(), device=ids_N.device)
        mask_BT = torch.arange(max(layout.lengths()), device=ids_N.device) < lengths_B[:, None]
        ids_BT = ids_N.new_full(mask_BT.shape, self.config.pad_token_id or 0).masked_scatter(mask_BT, ids_N)
        if layer == -1:
            hidden_BTD = self(ids_BT, mask_BT).last_hidden_state
        else:
            hidden_BTD = self(ids_BT, mask_BT, output_hidden_states=True).hidden_states[layer]
        return self.pool(hidden_BTD[mask_BT], layout, pooling)

    def pool(self, hidden_ND: Tensor, layout: PackedLayout, pooling: str | None = None) -> Tensor:
        """Hidden states to vectors: mean and mean-max (over all but a first, special token), or cls (that token).

        Raises:
            MatfmError: cls, where no special token comes first.
        """
        name = pooling or self.config.pooling
        if name == "cls" and not self.config.first_token_is_special:
            raise MatfmError("pooling is cls, and the tokenizer puts no special token first; choose mean or mean-max")
        return POOLINGS[name](hidden_ND, layout, int(self.config.first_token_is_special))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        """What the encoder returns for padded (B, T) batches."""
        mask_BT = mask_or_ones(attention_mask, input_ids)
        embedding = self.encoder.get_input_embeddings()
        return self.prompted(self.encoder, embedding, input_ids, mask_BT.long(), return_dict=True, **inputs)

    def layers_from_top(self, name: str) -> int:
        """Distance of a parameter from the head: 0 outside the blocks, 1 the last block, then downwards."""
        inside = re.fullmatch(r"(?:backbone\.)?encoder\.(.*)", name)
        if inside is None:
            return 0
        depth: int = self.config.num_hidden_layers
        block = re.search(r"(?:^|\.)(\d+)\.", inside[1])
        if block:
            return max(1, depth - int(block[1]))
        return depth + 1 if re.search(r"embed|wte|wpe|shared", inside[1]) else 0


class HuggingFaceForProperty(PropertyPrediction, HuggingFacePreTrainedModel):
    """Predicts properties in their units: wrapped encoder, pooling, head."""

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config)
        self.backbone = HuggingFaceModel(config)
        self.property_head = PropertyHead.of(config)
        self.post_init()


def adopt_encoder(name: str, kind: str | None = None) -> HuggingFaceModel:
    """The weights of a saved encoder, wrapped, in evaluation mode. No code of the folder is run, nothing is unpickled.

    Args:
        name: folder or Hub id, with its tokenizer.
        kind: composition, smiles or selfies, to be kept beside the weights.

    Raises:
        MatfmError: nothing is there, the files are damaged or incomplete, or need code or pickles to load.
    """
    from transformers import AutoModel

    tokenizer = load_tokenizer(name)
    path = resolve_weights(name)
    with readable_loading(name), _silence(), without_bars():
        refuse_other_weights(PreTrainedConfig.get_config_dict(path)[0], path, name)
        loaded, report = AutoModel.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    lacking = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if lacking:
        raise MatfmError(f"the weights {name!r} lack {lacking[0]} ({len(lacking)} such tensors); save the model again")
    architecture = {key: value for key, value in loaded.config.to_dict().items() if key not in _NOT_OF_THE_ARCHITECTURE}
    encoder = _bare(loaded)
    width = int(loaded.config.hidden_size)
    config = HuggingFaceConfig(
        architecture=architecture,
        vocab_size=int(loaded.config.vocab_size),
        hidden_size=width,
        num_hidden_layers=int(loaded.config.num_hidden_layers),
        initializer_range=width**-0.5,
        pad_token_id=loaded.config.pad_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        input_kind=kind,
        first_token_is_special=_puts_a_token_first(tokenizer),
    )
    model = HuggingFaceModel(config)
    model.encoder.load_state_dict(encoder.state_dict())
    return model.eval()


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder of a model.

    Raises:
        MatfmError: there is none, or it is damaged or needs code or a package that is not there.
    """
    from transformers import AutoTokenizer

    try:
        with _silence():
            tokenizer = AutoTokenizer.from_pretrained(resolve_weights(name), trust_remote_code=False)
    except Exception as error:  # the tokenizers package raises plain Exceptions
        reason = in_short(error)
        raise MatfmError(f"the tokenizer of {name} cannot be loaded ({reason}); save it into that folder") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise MatfmError(f"{name} holds no tokenizer; save the one of the model's pretraining into that folder")
    return tokenizer


def build_encoder(architecture: dict[str, Any]) -> Any:
    """An encoder of that configuration with initial weights, on the current default device.

    Raises:
        MatfmError: there is no such architecture in the installed transformers.
    """
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.for_model(**architecture)
        with _silence():
            return _bare(AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False))
    except (ValueError, ImportError) as error:
        kind = architecture.get("model_type")
        raise MatfmError(f"an encoder of the type {kind!r} cannot be built: {in_short(error)}") from error


def longest_input(architecture: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Most tokens of a sequence, special ones included: what the tokenizer says and the positions allow, None for any.

    Positions of RoBERTa and its kin start behind the padding index, so their table holds fewer than it has rows.
    """
    with torch.device("meta"):
        encoder = build_encoder(architecture)
    limits = [int(tokenizer.model_max_length)] if tokenizer.model_max_length < _NO_LIMIT else []
    tables = [
        module
        for name, module in encoder.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    if tables:
        limits += [t.num_embeddings - (0 if t.padding_idx is None else t.padding_idx + 1) for t in tables]
    elif isinstance(rows := getattr(encoder.config, "max_position_embeddings", None), int):
        limits.append(rows)
    return min((limit for limit in limits if limit > 0), default=None)


_NO_LIMIT = 10**9
"""Tokenizers without a limit say a huge number."""


def _bare(model: Any) -> Any:
    """The encoder alone: no decoder, and no pooler, which would be left untrained."""
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    return model


def _puts_a_token_first(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("C")["input_ids"]
    return bool(ids) and ids[0] in tokenizer.all_special_ids


@contextmanager
def _silence() -> Iterator[None]:
    """Transformers reports every tensor of a task's head that an encoder does not need; put its setting back."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
