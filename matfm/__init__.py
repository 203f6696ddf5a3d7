"""matfm: foundation models for materials and molecules.

Names are loaded on first use, so that `import matfm` is fast. Importing matfm also makes its
classes known to Hugging Face's Auto classes, at the moment those are first imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from matfm.errors import FormulaWarning, MatfmError
from matfm.registration import register_when_imported

if TYPE_CHECKING:
    from matfm.chem.composition_tokenizer import CompositionTokenizer
    from matfm.chem.formula import Formula, parse_formula, read_formula
    from matfm.chem.joint_tokenizer import JointTokenizer
    from matfm.chem.selfies import selfies_to_smiles, smiles_to_selfies
    from matfm.chem.selfies_tokenizer import SelfiesTokenizer
    from matfm.chem.smiles import Smiles, parse_smiles
    from matfm.chem.smiles_tokenizer import SmilesTokenizer
    from matfm.estimators import EmbeddingTransformer, PropertyClassifier, PropertyRegressor
    from matfm.kernel_estimator import KernelRegressor
    from matfm.models.matbert import MatBERTForMaskedLM, MatBERTForProperty, MatBERTModel
    from matfm.models.matbert_config import MatBERTConfig
    from matfm.models.matbert_permutation import MatBERTForPermutationLM
    from matfm.models.matgpt import MatGPTForCausalLM, MatGPTModel
    from matfm.models.matgpt_config import MatGPTConfig
    from matfm.models.matt5 import MatT5ForConditionalGeneration, MatT5Model
    from matfm.models.matt5_config import MatT5Config
    from matfm.tasks.few_shot.screener import FewShotScreener

__version__ = "0.1.0"

_HOMES = {
    "CompositionTokenizer": "matfm.chem.composition_tokenizer",
    "Formula": "matfm.chem.formula",
    "parse_formula": "matfm.chem.formula",
    "read_formula": "matfm.chem.formula",
    "SelfiesTokenizer": "matfm.chem.selfies_tokenizer",
    "JointTokenizer": "matfm.chem.joint_tokenizer",
    "selfies_to_smiles": "matfm.chem.selfies",
    "smiles_to_selfies": "matfm.chem.selfies",
    "Smiles": "matfm.chem.smiles",
    "parse_smiles": "matfm.chem.smiles",
    "SmilesTokenizer": "matfm.chem.smiles_tokenizer",
    "MatBERTConfig": "matfm.models.matbert_config",
    "MatBERTModel": "matfm.models.matbert",
    "MatBERTForMaskedLM": "matfm.models.matbert",
    "MatBERTForProperty": "matfm.models.matbert",
    "MatBERTForPermutationLM": "matfm.models.matbert_permutation",
    "MatGPTConfig": "matfm.models.matgpt_config",
    "MatGPTModel": "matfm.models.matgpt",
    "MatGPTForCausalLM": "matfm.models.matgpt",
    "MatT5Config": "matfm.models.matt5_config",
    "MatT5Model": "matfm.models.matt5",
    "MatT5ForConditionalGeneration": "matfm.models.matt5",
    "EmbeddingTransformer": "matfm.estimators",
    "PropertyRegressor": "matfm.estimators",
    "PropertyClassifier": "matfm.estimators",
    "KernelRegressor": "matfm.kernel_estimator",
    "FewShotScreener": "matfm.tasks.few_shot.screener",
}

__all__ = [
    "CompositionTokenizer",
    "EmbeddingTransformer",
    "FewShotScreener",
    "Formula",
    "FormulaWarning",
    "JointTokenizer",
    "KernelRegressor",
    "MatBERTConfig",
    "MatBERTForMaskedLM",
    "MatBERTForPermutationLM",
    "MatBERTForProperty",
    "MatBERTModel",
    "MatGPTConfig",
    "MatGPTForCausalLM",
    "MatGPTModel",
    "MatT5Config",
    "MatT5ForConditionalGeneration",
    "MatT5Model",
    "MatfmError",
    "PropertyClassifier",
    "PropertyRegressor",
    "SelfiesTokenizer",
    "Smiles",
    "SmilesTokenizer",
    "parse_formula",
    "parse_smiles",
    "read_formula",
    "selfies_to_smiles",
    "smiles_to_selfies",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'matfm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


register_when_imported()
