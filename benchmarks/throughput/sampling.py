"""Samples per second against Hugging Face's `generate`, with the same weights, batch and limit, taking turns.

Both draw at temperature 1 from the whole vocabulary until the end token or the limit. The sampler keeps its batch full;
`generate` runs batch after batch, each until its longest sequence has ended. Samples have the lengths of the weights'
own distribution, so use trained ones.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, record
from matfm import MatGPTForCausalLM
from matfm.chem.composition_schemes import CLS, PAD
from matfm.core.sampling import SamplingConfig
from matfm.models.sampler import Sampler
from matfm.models.saving import load_model
from matfm.tasks.devices import resolve_device

RESULTS = Path(__file__).parent / "results" / "sampling.jsonl"


def ours(model: Any, arguments: Any, first: int) -> tuple[int, int]:
    """Samples and their tokens (the end included)."""
    sampler = Sampler(model, [CLS], arguments.limit, SamplingConfig(), seed=0, batch=arguments.batch)
    made = sampler(first, arguments.samples)
    return len(made), sum(len(sample.ids) + sample.ended for sample in made)


def theirs(cache: str | None) -> Callable[[Any, Any, int], tuple[int, int]]:
    """Hugging Face's `generate` with its default or its static cache."""

    def run(model: Any, arguments: Any, first: int) -> tuple[int, int]:
        torch.manual_seed(first)
        samples = tokens = 0
        while samples < arguments.samples:
            rows = min(arguments.batch, arguments.samples - samples)
            start = torch.full((rows, 1), CLS, device=model.device)
            made = model.generate(
                start, attention_mask=torch.ones_like(start), max_new_tokens=arguments.limit, do_sample=True, top_k=0,
                pad_token_id=PAD, cache_implementation=cache,
            )  # fmt: skip
            samples += rows
            tokens += int((made[:, 1:] != PAD).sum())
        return samples, tokens

    return run


METHODS = {"matfm": ours, "huggingface_generate": theirs(None)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="bundled name or folder of a MatGPT")
    parser.add_argument("--samples", type=int, default=1024, help="of every turn")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--limit", type=int, default=128, help="most tokens of a sample")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every method; the first one warms up")
    parser.add_argument("--static-cache", action="store_true", help="also generate with Hugging Face's static cache")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    device = resolve_device(arguments.device)
    model = load_model(MatGPTForCausalLM, arguments.model).to(device)
    methods = dict(METHODS)
    if arguments.static_cache:
        methods["huggingface_generate_static"] = theirs("static")
    totals = {name: [0, 0, 0.0] for name in methods}
    for turn in range(arguments.rounds):
        for name, method in methods.items():
            started = time.perf_counter()
            samples, tokens = method(model, arguments, turn * arguments.samples)
            if turn or arguments.rounds == 1:
                for place, value in enumerate((samples, tokens, time.perf_counter() - started)):
                    totals[name][place] += value
    rates = {name: samples / seconds for name, (samples, _, seconds) in totals.items()}
    for name, (samples, tokens, seconds) in totals.items():
        common = {
            "benchmark": "throughput", "task": f"sampling, {Path(arguments.model).name}", "split": "run",
            "n": int(samples), "seconds": round(seconds, 2),
        }  # fmt: skip
        entries = [("samples_per_second", "1/s", rates[name]), ("tokens_per_sample", "1", tokens / samples)]
        append(
            arguments.results,
            *(record(device.type, 0, **common, model=name, metric=m, unit=u, value=round(v, 3)) for m, u, v in entries),
        )
        if name != "matfm":
            ratio = round(rates["matfm"] / rates[name], 2)
            ours_first = {**common, "model": "matfm", "metric": f"ratio:{name}", "unit": "1", "value": ratio}
            append(arguments.results, record(device.type, 0, **ours_first, batch=arguments.batch))
        ratio = rates["matfm"] / rates[name]
        length = tokens / samples
        print(f"{name:30} {rates[name]:9.1f} samples/s of {length:.1f} tokens, matfm is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
