"""What each process of `test_distributed` runs: 30 steps of pretraining, as the options say."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from matfm import MatBERTConfig
from matfm.core.batching import EpochBatches
from matfm.core.distributed import process_group
from matfm.core.optim import OptimizerConfig
from matfm.core.trainer import LoopConfig, fit
from matfm.models.matbert import MatBERTForPretraining
from matfm.tasks.encoding import encode_formulas
from matfm.tasks.pretrain import CorpusConfig, PretrainConfig, pretraining_step

CPU = torch.device("cpu")
TARGETS = ("band_gap", "energy_per_atom")


def tokens():
    """Sixty formulas with two targets, some missing."""
    encoded = encode_formulas(
        [f"{metal}{n}O{n + 1}" for metal in ("Fe", "Zn", "Ti", "Na") for n in range(1, 16)]
    ).tokens
    targets = np.random.default_rng(0).normal(size=(len(encoded), 2)).astype(np.float32)
    targets[::4, 1] = np.nan
    encoded.targets_RK = targets
    return encoded


def model():
    """Tiny, with tied embeddings; the head for properties and the one for masked elements."""
    torch.manual_seed(0)
    config = MatBERTConfig.of_size("tiny", property_names=list(TARGETS), property_units=["eV", "eV/atom"])
    made = MatBERTForPretraining(config)
    assert made.lm_head.decoder.weight is made.matbert.embed_tokens.weight
    return made


class StoppedError(Exception):
    """As if killed."""


def train(folder, shard="auto", resume=False, stop_after=None, **options):
    """30 steps of two batches; with `stop_after`, every process fails once it has begun that many batches."""
    pretraining = pretraining_step(PretrainConfig(data=CorpusConfig(targets=TARGETS, table="unused")))
    calls = iter(range(10**6))

    def step(model, batch, rng):
        if next(calls) == stop_after:
            raise StoppedError
        return pretraining(model, batch, rng)

    def evaluate(evaluated):
        return {"score": float(sum(p.detach().double().abs().sum() for p in evaluated.parameters()))}

    loop = LoopConfig(
        steps=30, log_every=1, accumulate=2, shard=shard, checkpoint_every=10, evaluate_every=5, keep_best=True,
        **options,
    )  # fmt: skip
    trained, batches, optimizer = model(), EpochBatches(tokens(), 40, seed=0), OptimizerConfig(learning_rate=1e-3)
    result = fit(
        trained, step, batches, optimizer, loop, Path(folder), seed=0, device=CPU, evaluate=evaluate, resume=resume
    )
    return trained, result


def run_jobs(folder, jobs):
    """One training after the other; its result and weights as this process has them."""
    with process_group(CPU) as ranks:
        for name, options in jobs.items():
            (folder / name).mkdir(exist_ok=True)
            try:
                trained, result = train(folder / name, **options)
            except StoppedError:
                continue
            (folder / name / f"rank-{ranks.rank}.json").write_text(json.dumps(result))
            torch.save(trained.state_dict(), folder / name / f"rank-{ranks.rank}.pt")


if __name__ == "__main__":
    run_jobs(Path(sys.argv[1]), json.loads(sys.argv[2]))
