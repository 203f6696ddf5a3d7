"""Models by name, whichever they are: MatBERT, or any encoder of Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from matfm.core.bundled import resolve_weights
from matfm.errors import MatfmError
from matfm.models.huggingface_backbone import HuggingFaceForProperty, HuggingFaceModel, adopt_encoder
from matfm.models.huggingface_config import HuggingFaceConfig
from matfm.models.matbert import MatBERTForProperty, MatBERTModel
from matfm.models.saving import load_model, readable_loading, refuse_code

PropertyModel = MatBERTForProperty | HuggingFaceForProperty
Encoder = MatBERTModel | HuggingFaceModel

OWN = ("matbert", "matgpt", "matt5")
"""Types of models that are made by this package."""


def saved_architecture(name: str) -> dict[str, Any]:
    """What `config.json` of a model says, by bundled name, folder or Hub id.

    Raises:
        MatfmError: there is no such model, or it has no readable configuration.
    """
    with readable_loading(name):
        said = dict(PreTrainedConfig.get_config_dict(resolve_weights(name))[0])
        refuse_code(said, name)
        return said


def is_foreign(architecture: dict[str, Any]) -> bool:
    """Whether a configuration is neither one of this package nor of an encoder that it has wrapped."""
    kind = architecture.get("model_type")
    return kind is not None and kind not in (*OWN, HuggingFaceConfig.model_type)


def load_encoder(name: str, kind: str | None = None) -> Encoder:
    """An encoder in evaluation mode; `kind`, what it reads, is kept with a foreign one.

    Raises:
        MatfmError: there is no such model, it is no encoder, or its files are damaged.
    """
    architecture = saved_architecture(name)
    if is_foreign(architecture):
        return adopt_encoder(name, kind)
    wrapped = architecture.get("model_type") == HuggingFaceConfig.model_type
    encoder: Encoder = load_model(HuggingFaceModel if wrapped else MatBERTModel, name)
    return encoder


def load_predictor(name: str | Path) -> PropertyModel:
    """A saved predictor in evaluation mode.

    Raises:
        MatfmError: there is no such model, it is no predictor, or its files are damaged.
    """
    wrapped = saved_architecture(str(name)).get("model_type") == HuggingFaceConfig.model_type
    model: PropertyModel = load_model(HuggingFaceForProperty if wrapped else MatBERTForProperty, str(name))
    return model


def with_new_head(name: str, head: dict[str, Any], vocabulary: int, kind: str) -> PropertyModel:
    """Encoder weights by name with a fresh head.

    Args:
        name: bundled name, folder or Hub id.
        head: values of a `PropertyConfig`.
        vocabulary: tokens of the tokenizer.
        kind: composition, smiles or selfies.

    Raises:
        MatfmError: as `load_encoder`, or the tokenizer has more tokens than the encoder.
    """
    encoder = load_encoder(name, kind)
    config = encoder.config
    if vocabulary > config.vocab_size:
        raise MatfmError(
            f"the tokenizer in {name} has {vocabulary} tokens and its model {config.vocab_size}; save both"
        )
    for key, value in head.items():
        setattr(config, key, value)
    model: PropertyModel = (
        HuggingFaceForProperty(config) if isinstance(encoder, HuggingFaceModel) else MatBERTForProperty(config)
    )
    model.base_model.load_state_dict(encoder.state_dict())
    return model
