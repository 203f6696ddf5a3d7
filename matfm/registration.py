"""Make matfm's classes known to Hugging Face's Auto classes without importing transformers early."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_AUTO = "transformers.models.auto."


def register_when_imported() -> None:
    """Register now with the Auto modules that are loaded, and with the others when they load. Once a process."""
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register()
    sys.meta_path.insert(0, _AfterImport())


def _configurations() -> tuple[Any, ...]:
    from matfm.models.matbert_config import MatBERTConfig
    from matfm.models.matgpt_config import MatGPTConfig
    from matfm.models.matt5_config import MatT5Config

    return MatBERTConfig, MatGPTConfig, MatT5Config


def _register_configurations() -> None:
    from transformers import AutoConfig

    from matfm.models.huggingface_config import HuggingFaceConfig

    for config in (*_configurations(), HuggingFaceConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_tokenizers() -> None:
    from transformers import AutoTokenizer

    from matfm.chem.composition_tokenizer import CompositionTokenizer
    from matfm.chem.joint_tokenizer import JointTokenizer
    from matfm.chem.selfies_tokenizer import SelfiesTokenizer
    from matfm.chem.smiles_tokenizer import SmilesTokenizer

    # Each becomes known by its name; the last one is what a folder without tokenizer_config.json gets.
    for config in _configurations():
        for tokenizer in (SmilesTokenizer, SelfiesTokenizer, JointTokenizer, CompositionTokenizer):
            AutoTokenizer.register(config, tokenizer, exist_ok=True)


def _register_models() -> None:
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
    )

    from matfm.models import huggingface_backbone, matbert, matgpt, matt5

    for auto, model in (
        (AutoModel, matbert.MatBERTModel),
        (AutoModelForMaskedLM, matbert.MatBERTForMaskedLM),
        (AutoModelForSequenceClassification, matbert.MatBERTForProperty),
        (AutoModel, huggingface_backbone.HuggingFaceModel),
        (AutoModelForSequenceClassification, huggingface_backbone.HuggingFaceForProperty),
        (AutoModel, matgpt.MatGPTModel),
        (AutoModelForCausalLM, matgpt.MatGPTForCausalLM),
        (AutoModel, matt5.MatT5Model),
        (AutoModelForSeq2SeqLM, matt5.MatT5ForConditionalGeneration),
    ):
        auto.register(model.config_class, model, exist_ok=True)


_REGISTRATIONS: dict[str, Callable[[], None]] = {
    _AUTO + "configuration_auto": _register_configurations,
    _AUTO + "tokenization_auto": _register_tokenizers,
    _AUTO + "modeling_auto": _register_models,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs a registration right after the module it belongs to was executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _REGISTRATIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader, _REGISTRATIONS[fullname])
        return spec


class _ThenRegister(importlib.abc.Loader):
    """Wraps a loader."""

    def __init__(self, loader: importlib.abc.Loader, register: Callable[[], None]) -> None:
        self.loader = loader
        self.register = register

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.register()
