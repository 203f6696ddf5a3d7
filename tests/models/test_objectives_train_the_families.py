"""The step functions of `core.steps` train the real families through the one loop."""

import torch

from matfm import MatGPTConfig, MatGPTForCausalLM, MatT5Config, MatT5ForConditionalGeneration, SmilesTokenizer
from matfm.chem.vocabulary import SPECIAL_TOKENS
from matfm.core.batching import EpochBatches, RaggedTokens
from matfm.core.optim import OptimizerConfig
from matfm.core.span_corruption import SpanConfig
from matfm.core.steps import causal_step, span_step
from matfm.core.trainer import LoopConfig, fit, read_log

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN(CC)CC", "C1CCCCC1", "CC(C)C", "OCCO", "c1ccncc1"] * 4
SENTINELS = 8


def batches(tokenizer):
    sequences = [(ids, [0.0] * len(ids)) for ids in tokenizer(SMILES)["input_ids"]]
    return EpochBatches(RaggedTokens.from_sequences(sequences), tokens=120, seed=0)


def losses(model, step, source, folder):
    loop = LoopConfig(steps=60, log_every=10)
    fit(model, step, source, OptimizerConfig(learning_rate=3e-3), loop, folder, seed=0, device=torch.device("cpu"))
    return [record["loss"] for record in read_log(folder / "log.jsonl")]


def test_causal_lm(tmp_path):
    tokenizer = SmilesTokenizer()
    torch.manual_seed(0)
    model = MatGPTForCausalLM(MatGPTConfig.of_size("tiny", vocab_size=len(tokenizer)))
    curve = losses(model, causal_step(), batches(tokenizer), tmp_path)
    assert curve[-1] < 0.5 * curve[0]


def test_span_corruption(tmp_path):
    tokenizer = SmilesTokenizer()
    size = len(tokenizer)
    torch.manual_seed(0)
    model = MatT5ForConditionalGeneration(MatT5Config.of_size("tiny", vocab_size=size + SENTINELS))
    sentinels = torch.arange(size, size + SENTINELS)
    ordinary = torch.arange(size + SENTINELS) >= len(SPECIAL_TOKENS)
    step = span_step(ordinary, sentinels, tokenizer.cls_token_id, tokenizer.sep_token_id, SpanConfig())
    curve = losses(model, step, batches(tokenizer), tmp_path)
    assert curve[-1] < 0.8 * curve[0]
