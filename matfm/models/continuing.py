"""New models that begin with the weights of others: continued pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from matfm.core.bundled import MODEL_FILE, resolve_weights
from matfm.errors import MatfmError
from matfm.models.saving import readable_loading

# V tokens, K properties

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_OF_TOKENS = ("embed_tokens.weight", "lm_head.bias", "lm_head.decoder.bias", "lm_head.decoder.weight", "lm_head.weight")
"""Ends of the names of parameters that have one row for every token."""
_OF_PROPERTIES = ("property_head.out.weight", "property_head.out.bias")
_OF_LABELS = tuple(f"property_head.{name}" for name in ("mean", "scale", "lower", "upper"))
"""Scaling and bounds, which are those of the new labels."""


class Start:
    """Saved weights that a new model begins with.

    Args:
        name: bundled name, folder or Hub id.

    Raises:
        MatfmError: nothing is there, or it cannot be read.
    """

    def __init__(self, name: str) -> None:
        path = resolve_weights(name)
        with readable_loading(name):
            self.config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            self.tokens: dict[str, int] = tokenizer.get_vocab()
            self.weights = {key: value.float() for key, value in load_file(Path(path) / MODEL_FILE).items()}
        self.name = name

    def sizes(self) -> dict[str, int]:
        """Widths and depth."""
        return {name: getattr(self.config, name) for name in _SIZES}

    def check(self, model: Any) -> None:
        """Raise MatfmError unless the new model reads its input as the saved one does."""
        for name in ("model_type", "position_embedding", "rotary_cross_attention"):
            old, new = getattr(self.config, name, None), getattr(model.config, name, None)
            if old != new:
                raise MatfmError(f"model.start: {self.name} has {name} {old!r}, and the new model {new!r}")

    @torch.no_grad()
    def copy_into(self, model: Any, tokens: Mapping[str, int]) -> None:
        """Overwrite the random weights of a new model.

        Rows of the vocabulary go by token and outputs of the property head by the property's name, rescaled to the
        scaling of the new labels; everything else by name. What is new keeps its random values.

        Raises:
            MatfmError: the models are not of one kind and size.
        """
        self.check(model)
        state = model.state_dict()
        for name, value in state.items():
            old = self.weights.get(name)
            if old is None:
                continue
            if name.endswith(_OF_TOKENS):
                shared = [token for token in tokens if token in self.tokens]
                value[[tokens[token] for token in shared]] = old[[self.tokens[token] for token in shared]]
            elif name.endswith(_OF_PROPERTIES):
                self._copy_properties(name, value, state, model.config)
            elif name in _OF_LABELS:
                continue
            elif value.shape == old.shape:
                value.copy_(old)
            else:
                raise MatfmError(
                    f"model.start: {name} of {self.name} has shape {tuple(old.shape)}, and the new model "
                    f"{tuple(value.shape)}"
                )

    def _copy_properties(self, name: str, value: Tensor, state: Mapping[str, Tensor], config: Any) -> None:
        """value = raw · scale + mean stays the same function of the hidden state."""
        names = list(self.config.property_names or ())
        for row, known in enumerate(config.property_names or ()):
            if known not in names:
                continue
            place = names.index(known)
            mean, scale = (self.weights[f"property_head.{part}"][place] for part in ("mean", "scale"))
            value[row] = self.weights[name][place] * scale / state["property_head.scale"][row]
            if name.endswith("bias"):
                value[row] += (mean - state["property_head.mean"][row]) / state["property_head.scale"][row]
