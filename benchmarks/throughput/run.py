"""How much of the machine's matmul rate pretraining uses: 6 × parameters × real tokens ÷ time ÷ rate.

The rate is measured between the training steps of the same run, because shared machines drift.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, record
from matfm.core.batching import EpochBatches
from matfm.core.bundled import WEIGHTS
from matfm.core.config import from_mapping, load_toml
from matfm.core.trainer import LoopConfig, fit
from matfm.tasks.devices import resolve_device
from matfm.tasks.pretrain import PretrainConfig, load_corpus, new_model, new_vocabulary, pretraining_step

RESULTS = Path(__file__).parent / "results" / "pretraining.jsonl"
MATMUL_SIZE = 2048
CONFIG = WEIGHTS / "matbert-small" / "pretrain.toml"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_flops(device: torch.device, repeats: int = 2) -> tuple[float, float]:
    """Floating-point operations and seconds of square float32 matrix products."""
    left = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device)
    right = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device)
    left @ right
    synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        left @ right
    synchronize(device)
    return 2.0 * MATMUL_SIZE**3 * repeats, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=str(CONFIG))
    parser.add_argument("--table", help="built table of the recipe, to spare building it")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4, help="training steps between two measurements of the rate")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = resolve_device(arguments.device)
    config = from_mapping(PretrainConfig, load_toml(arguments.config), arguments.config)
    if arguments.table:
        config = replace(config, data=replace(config.data, recipe="", table=arguments.table))
    with tempfile.TemporaryDirectory() as folder:
        corpus = load_corpus(config, Path(folder))
        model = new_model(config, corpus, new_vocabulary(config))
        parameters = sum(p.numel() for p in model.matbert.encoder.parameters())
        batches = EpochBatches(corpus.train.tokens, config.train.tokens_per_batch, config.seed)
        measured = Interleaved(batches, arguments.steps, device)
        loop = LoopConfig(steps=arguments.rounds * arguments.steps + 1, checkpoint_every=10**9)
        fit(
            model, pretraining_step(config), measured, config.optimizer, loop, Path(folder) / "run",
            seed=config.seed, device=device, label="throughput",
        )  # fmt: skip
    rate = measured.matmul_operations / measured.matmul_seconds
    used = 6.0 * parameters * measured.tokens / measured.training_seconds
    common = {
        "benchmark": "throughput", "task": f"pretrain {config.name}", "split": "run", "model": config.name,
        "n": measured.tokens, "seconds": round(measured.training_seconds, 2),
    }  # fmt: skip
    measurements = (
        ("tokens_per_second", "1/s", measured.tokens / measured.training_seconds),
        ("matmul_rate", "GFLOP/s", rate / 1e9),
        ("ratio:model_flops_of_matmul_rate", "", used / rate),
    )
    entries = [
        record(device.type, config.seed, **common, metric=metric, unit=unit, value=value)
        for metric, unit, value in measurements
    ]
    append(RESULTS, *entries)
    for entry in entries:
        print(f"{entry['metric']:36} {entry['value']:12.3f} {entry['unit']}")


class Interleaved:
    """Batches for the loop; measures the matmul rate before every `steps`-th one and the time between."""

    def __init__(self, batches: EpochBatches, steps: int, device: torch.device) -> None:
        self.batches, self.steps, self.device = batches, steps, device
        self.calls = self.tokens = self.pending = 0
        self.training_seconds = self.matmul_seconds = self.matmul_operations = 0.0
        self.resumed: float | None = None

    def next(self):
        if self.calls % self.steps == 0:
            synchronize(self.device)
            if self.resumed is not None:
                self.training_seconds += time.perf_counter() - self.resumed
                self.tokens += self.pending
                self.pending = 0
            operations, seconds = matmul_flops(self.device)
            # The first round warms caches and allocators up and is not counted.
            if self.calls:
                self.matmul_operations += operations
                self.matmul_seconds += seconds
            self.resumed = time.perf_counter()
        self.calls += 1
        batch = self.batches.next()
        self.pending += batch.layout.tokens
        return batch

    def state_dict(self) -> dict[str, int]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batches.load_state_dict(state)


if __name__ == "__main__":
    main()
