"""One masked-LM training step on MOSES SMILES: share of the machine's matmul rate, and peak memory against BERT's.

Share: floating-point operations of the linear layers, as they are computed (6 for each weight and token; the last block
computes only masked tokens after its attention; embeddings, attention scores and everything pointwise count as
nothing), over time, over the rate of 2048 × 2048 float32 products measured between the steps.

Memory: how far a fresh process's resident memory rises above what model, optimizer states and gradients take, while it
trains on one batch: ours with absolute positions and packed, `BertForMaskedLM` of the same shape padded, both with
PyTorch's kernels, dropout 0 and the same masked tokens. On CUDA the allocator's peak is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, record
from benchmarks.throughput.huggingface import MASKING, smiles
from benchmarks.throughput.run import Interleaved
from matfm import MatBERTConfig, MatBERTForMaskedLM
from matfm.chem.masking import mask_tokens
from matfm.core.batching import EpochBatches, RaggedTokens, TokenBatch
from matfm.core.objectives import masked_lm_loss
from matfm.core.optim import OptimizerConfig
from matfm.core.trainer import LoopConfig, StepOutput, fit
from matfm.tasks.devices import resolve_device

RESULTS = Path(__file__).parent / "results" / "step.jsonl"
DEPTH = 4
LONGEST = 64
WARM_UP = 2
"""Steps after which allocators and optimizer states have their size."""


def shape(width: int) -> dict[str, int]:
    return {
        "hidden_size": width, "num_hidden_layers": DEPTH, "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }  # fmt: skip


def our_model(width: int, vocabulary: int) -> MatBERTForMaskedLM:
    torch.manual_seed(0)
    return MatBERTForMaskedLM(
        MatBERTConfig(
            **shape(width), vocab_size=vocabulary, position_embedding="absolute", max_position_embeddings=LONGEST
        )
    )


def moses(wheels: Path) -> tuple[RaggedTokens, Any, Any]:
    sequences, tokenizer, classes = smiles(wheels)
    return RaggedTokens.from_sequences([(ids, [0.0] * len(ids)) for ids in sequences]), tokenizer, classes


def share(width: int, arguments: Any) -> None:
    """Operations a second over the matmul rate, in one run of the training loop."""
    tokens, tokenizer, classes = moses(arguments.wheels)
    model = our_model(width, len(tokenizer))
    last = model.matbert.encoder.blocks[-1]
    every = sum(m.weight.numel() for m in model.matbert.encoder.modules() if isinstance(m, torch.nn.Linear))
    masked_only = sum(
        layer.weight.numel() for layer in (last.attention.out, last.feed_forward.up, last.feed_forward.down)
    )
    head = model.lm_head.dense.weight.numel() + model.lm_head.decoder.weight.numel()
    masked_share: list[float] = []

    def step(model: MatBERTForMaskedLM, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        masked = mask_tokens(batch.ids_N, batch.layout, classes, MASKING, rng)
        masked_share.append(len(masked.positions_M) / batch.layout.tokens)
        hidden_MD = model.matbert.forward_packed(masked.ids_N, None, batch.layout, masked.positions_M)
        return StepOutput(*masked_lm_loss(model.lm_head(hidden_MD), masked.labels_M))

    batches = Interleaved(EpochBatches(tokens, arguments.tokens, 0, length_pool=50), 4, arguments.device)
    loop = LoopConfig(
        steps=4 * arguments.rounds + 1, checkpoint_every=10**9, log_every=10**9, compile=arguments.compile
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(model, step, batches, OptimizerConfig(), loop, Path(folder), seed=0, device=arguments.device)
    operations = 6 * (every - (1 - np.mean(masked_share)) * masked_only + np.mean(masked_share) * head)
    rate = batches.matmul_operations / batches.matmul_seconds
    tokens_per_second = batches.tokens / batches.training_seconds
    entries = (
        ("tokens_per_second", "1/s", round(tokens_per_second)),
        ("matmul_rate", "GFLOP/s", round(rate / 1e9, 1)),
        ("ratio:flops_of_matmul_rate", "1", round(float(operations) * tokens_per_second / rate, 3)),
    )
    task = f"masked LM, smiles, width {width}" + (", compiled" if arguments.compile else "")
    for metric, unit, value in entries:
        entry = {
            "benchmark": "throughput", "task": task, "split": "run", "model": "matfm", "n": batches.tokens,
            "seconds": round(batches.training_seconds, 2), "metric": metric, "unit": unit, "value": value,
        }  # fmt: skip
        append(RESULTS, record(arguments.device.type, 0, **entry))
        print(f"{task:45} {metric:30} {value} {unit}")


def memory(arguments: Any) -> None:
    """Ours over Hugging Face's, each in a process of its own."""
    task = f"masked LM, smiles, width {arguments.width[0]}"
    found = {}
    for name in ("matfm", "matfm-checkpointing", "huggingface"):
        command = [sys.executable, __file__, "--measure", name, "--wheels", str(arguments.wheels),
                   "--width", str(arguments.width[0]), "--sequences", str(arguments.sequences),
                   "--device", arguments.device.type]  # fmt: skip
        # Freed blocks go back to the system at once, so that resident memory is what is in use.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found[name] = json.loads(done.stdout)
    for name, seen in found.items():
        entry = {
            "benchmark": "throughput", "task": task, "split": "run", "model": name, "n": seen["tokens"],
            "seconds": None, "metric": "peak_memory_of_a_step", "unit": "MiB", "value": round(seen["bytes"] / 2**20, 1),
        }  # fmt: skip
        append(RESULTS, record(arguments.device.type, 0, **entry))
        ratio = round(seen["bytes"] / found["huggingface"]["bytes"], 3)
        if name != "huggingface":
            append(RESULTS, record(arguments.device.type, 0, **{
                **entry, "metric": "share:huggingface_memory_of_a_step", "unit": "1", "value": ratio}))  # fmt: skip
        print(f"{name:20} {entry['value']:10.1f} MiB   {ratio:.3f} of Hugging Face's   loss {seen['loss']:.3f}")


def measure(name: str, arguments: Any) -> None:
    """Train on one batch in this process; prints the rise of memory as JSON."""
    tokens, tokenizer, classes = moses(arguments.wheels)
    # In the order of the file, as a loader draws at random: lengths are mixed.
    batch = tokens.batch(np.arange(arguments.sequences)).to(arguments.device)
    masked = mask_tokens(batch.ids_N.cpu(), batch.layout, classes, MASKING, torch.Generator().manual_seed(0))
    ids_N, positions_M, labels_M = (
        part.to(arguments.device) for part in (masked.ids_N, masked.positions_M, masked.labels_M)
    )
    width = arguments.width[0]
    if name.startswith("matfm"):
        from matfm.core.acceleration import checkpoint_activations

        model: Any = our_model(width, len(tokenizer)).to(arguments.device)
        if name == "matfm-checkpointing":
            checkpoint_activations(model)

        def loss() -> torch.Tensor:
            hidden_MD = model.matbert.forward_packed(ids_N, None, batch.layout, positions_M)
            total, weight = masked_lm_loss(model.lm_head(hidden_MD), labels_M)
            return total / weight
    else:
        from transformers import BertConfig, BertForMaskedLM

        torch.manual_seed(0)
        model = BertForMaskedLM(
            BertConfig(**shape(width), vocab_size=len(tokenizer), max_position_embeddings=LONGEST, type_vocab_size=1,
                       hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        ).to(arguments.device)  # fmt: skip
        lengths = batch.layout.lengths()
        labels_N = torch.full_like(ids_N, -100).index_copy(0, positions_M, labels_M)
        pad = torch.nn.utils.rnn.pad_sequence
        inputs = {
            "input_ids": pad(ids_N.split(lengths), batch_first=True, padding_value=tokenizer.pad_token_id),
            "attention_mask": pad(torch.ones_like(ids_N).split(lengths), batch_first=True),
            "labels": pad(labels_N.split(lengths), batch_first=True, padding_value=-100),
        }

        def loss() -> torch.Tensor:
            return model(**inputs).loss

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    before = _resident(arguments.device)
    for _ in range(WARM_UP):
        optimizer.zero_grad(set_to_none=False)
        value = loss()
        value.backward()
        optimizer.step()
    rise = _peak(arguments.device) - before
    print(json.dumps({"bytes": rise, "tokens": batch.layout.tokens, "loss": float(value.detach())}))


def _resident(device: torch.device) -> int:
    """Bytes held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak(device: torch.device) -> int:
    """Most bytes held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", nargs="?", choices=("share", "memory"), default="share")
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder with the package files")
    parser.add_argument("--width", type=int, action="append", help="of the model (default 256 and 512; memory: 256)")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a step (share)")
    parser.add_argument("--rounds", type=int, default=8, help="of four steps (share)")
    parser.add_argument("--compile", action="store_true", help="compile the feed-forward layers (share)")
    parser.add_argument("--sequences", type=int, default=256, help="SMILES in the batch (memory)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.device = resolve_device(arguments.device)
    arguments.width = arguments.width or [256, 512]
    if arguments.measure:
        measure(arguments.measure, arguments)
    elif arguments.question == "memory":
        memory(arguments)
    else:
        for width in arguments.width:
            share(width, arguments)


if __name__ == "__main__":
    main()
