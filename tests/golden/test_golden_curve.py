"""Thirty steps of pretraining on fixed rows follow a recorded curve."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from matfm.core.batching import EpochBatches
from matfm.core.optim import OptimizerConfig
from matfm.core.trainer import LoopConfig, fit, read_log
from matfm.tasks.pretrain import CorpusConfig, PretrainConfig, pretraining_step

GOLDEN = json.loads((Path(__file__).parent / "pretraining_30_steps.json").read_text())


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_pretraining_losses(method, tiny_model, tiny_tokens, tmp_path):
    config = PretrainConfig(data=CorpusConfig(targets=("band_gap", "energy_per_atom"), table="unused"))
    optimizer = OptimizerConfig(method=method, learning_rate=5e-3)
    fit(
        tiny_model, pretraining_step(config), EpochBatches(tiny_tokens, 40, seed=0), optimizer,
        LoopConfig(steps=30, log_every=1), tmp_path, seed=0, device=torch.device("cpu"),
    )  # fmt: skip
    losses = [record["loss"] for record in read_log(tmp_path / "log.jsonl")]
    np.testing.assert_allclose(losses, GOLDEN[method], rtol=2e-3)
