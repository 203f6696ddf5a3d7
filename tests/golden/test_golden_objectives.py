"""Thirty steps of each sequence objective on fixed SMILES follow a recorded curve.

`python tests/golden/test_golden_objectives.py` records it again.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from matfm import (
    MatBERTConfig,
    MatBERTForPermutationLM,
    MatBERTModel,
    MatGPTConfig,
    MatGPTForCausalLM,
    MatT5Config,
    MatT5ForConditionalGeneration,
    SmilesTokenizer,
)
from matfm.chem.vocabulary import SPECIAL_TOKENS
from matfm.core.batching import EpochBatches, RaggedTokens
from matfm.core.denoising import DenoisingConfig
from matfm.core.optim import OptimizerConfig
from matfm.core.span_corruption import SpanConfig
from matfm.core.steps import causal_step, contrastive_step, denoising_step, noisy_view, permutation_step, span_step
from matfm.core.trainer import LoopConfig, fit, read_log

GOLDEN = Path(__file__).parent / "objectives_30_steps.json"
SMILES = ["CCO", "c1ccccc1", "CC(=O)O.[Na+]", "CCN(CC)CC", "C1CCCCC1", "CC(C)C", "OCCO", "c1ccncc1Cl"] * 4
TOKENIZER = SmilesTokenizer(sorted({token for text in SMILES for token in SmilesTokenizer.split(text)}))
SIZE = len(TOKENIZER)
SENTINELS = torch.arange(SIZE, SIZE + 8)
ORDINARY = torch.arange(SIZE + 8) >= len(SPECIAL_TOKENS)
START, END, MASK = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.mask_token_id
SEPARATOR = TOKENIZER.convert_tokens_to_ids(".")


def gpt():
    return MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=SIZE + 8))


def bert(cls=MatBERTModel):
    return cls(MatBERTConfig.of_size("tiny", vocab_size=SIZE + 8, position_embedding="rotary"))


def t5():
    return MatT5ForConditionalGeneration(MatT5Config.of_size("tiny", vocab_size=SIZE + 8))


OBJECTIVES = {
    "causal": lambda: (gpt(), causal_step(label_smoothing=0.1)),
    "span": lambda: (t5(), span_step(ORDINARY, SENTINELS, START, END, SpanConfig())),
    "contrastive": lambda: (bert(), contrastive_step(0.1, noisy_view(ORDINARY, MASK, SEPARATOR, DenoisingConfig()))),
    "denoising": lambda: (t5(), denoising_step(ORDINARY, MASK, SEPARATOR, DenoisingConfig())),
    "permutation": lambda: (bert(MatBERTForPermutationLM), permutation_step(ORDINARY)),
}


def curve(name, folder):
    torch.manual_seed(0)
    model, step = OBJECTIVES[name]()
    tokens = RaggedTokens.from_sequences([(ids, [0.0] * len(ids)) for ids in TOKENIZER(SMILES)["input_ids"]])
    fit(
        model, step, EpochBatches(tokens, 100, seed=0), OptimizerConfig(learning_rate=3e-3),
        LoopConfig(steps=30, log_every=1), folder, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    return [record["loss"] for record in read_log(folder / "log.jsonl")]


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_losses(name, tmp_path):
    losses = curve(name, tmp_path)
    np.testing.assert_allclose(losses, json.loads(GOLDEN.read_text())[name], rtol=2e-3)
    assert losses[-1] < losses[0]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        curves = {name: [round(loss, 6) for loss in curve(name, Path(temporary) / name)] for name in OBJECTIVES}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")
    sys.stdout.write(f"{GOLDEN}\n")
