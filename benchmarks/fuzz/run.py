"""Feed every parser with changed real inputs: `python benchmarks/fuzz/run.py --inputs 100000 --seed 0`.

One record a target and run is added to `results/fuzz.jsonl`: inputs, how many were read, how many refused with a
MatfmError, unexpected exceptions, and the slowest input. The inputs are a function of target and seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.fuzz.mutate import mutated
from benchmarks.fuzz.targets import TARGETS, Target, outcome
from benchmarks.results import append, record

RESULTS = Path(__file__).parent / "results" / "fuzz.jsonl"
MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of a random name in it)
"""Where parsers of files find theirs, if the system has it: the disk is not what is tried."""
SLOW = 1.0
"""Seconds of processor time for one input of up to 8 KiB that count as a hang."""


@dataclass
class Tally:
    """What became of the inputs of one target."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    failures: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Where an unexpected exception came from, or that an input took too long, to its message and first input."""

    def add(self, other: Tally) -> None:
        """Together with other inputs of the target."""
        self.inputs += other.inputs
        self.read += other.read
        self.refused += other.refused
        self.slowest = max(self.slowest, other.slowest)
        self.seconds += other.seconds
        self.failures = {**other.failures, **self.failures}


def fuzz(target: Target, inputs: int, seed: str, folder: Path, seconds: float = float("inf")) -> Tally:
    """Try so many inputs, or as many as the time allows."""
    generator, corpus = random.Random(seed), target.corpus()  # noqa: S311 (no secret)
    words = [word.encode("utf-8", "surrogatepass") for word in target.words]
    for content in corpus[:3]:  # pays for imports
        _try(target, content, folder, Tally())
    tally, started = Tally(), time.monotonic()
    while tally.inputs < inputs and time.monotonic() - started < seconds:
        _try(target, mutated(corpus, words, generator), folder, tally)
    tally.seconds = time.monotonic() - started
    return tally


def _try(target: Target, content: bytes, folder: Path, tally: Tally) -> None:
    started = time.thread_time()
    try:
        read = outcome(target, content, folder)
    except Exception as error:  # noqa: BLE001  (which is what is looked for)
        tally.failures.setdefault(_place(error), (str(error), content))
    else:
        tally.read += read
        tally.refused += not read
    used = time.thread_time() - started
    tally.inputs += 1
    tally.slowest = max(tally.slowest, used)
    if used > SLOW:
        tally.failures.setdefault("slow", (f"{used:.1f} s", content))


def _place(error: Exception) -> str:
    """Type of an exception, and the deepest line of this repository that it passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/matfm/" in frame.filename]
    where = f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].name}" if frames else "the target"
    return f"{type(error).__name__} in {where}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, separated by commas")
    parser.add_argument("--inputs", type=int, default=10_000, help="over all targets, by their weights")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="write no record")
    options = parser.parse_args()
    names = options.targets.split(",")
    weights = sum(TARGETS[name].weight for name in names)
    warnings.simplefilter("ignore")
    failed = False
    for name in names:
        target = TARGETS[name]
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            wanted = max(1, options.inputs * target.weight // weights)
            tally = fuzz(target, wanted, f"{name}-{options.seed}", Path(folder), options.seconds)
        _show(name, tally)
        failed |= bool(tally.failures)
        if not options.dry:
            append(RESULTS, _record(name, options.seed, tally))
    sys.exit(failed)


def _record(name: str, seed: int, tally: Tally) -> dict[str, object]:
    return record(
        "cpu",
        seed,
        benchmark="fuzz",
        task=name,
        split=seed,
        model="mutations",
        metric="unexpected",
        unit="inputs",
        value=len(tally.failures),
        n=tally.inputs,
        seconds=round(tally.seconds, 1),
        read=tally.read,
        refused=tally.refused,
        slowest_ms=round(tally.slowest * 1e3, 1),
    )


def _show(name: str, tally: Tally) -> None:
    rate = tally.inputs / max(tally.seconds, 1e-9)
    print(
        f"{name:18} {tally.inputs:8,} inputs, {tally.read:8,} read, {tally.refused:8,} refused, "
        f"slowest {tally.slowest * 1e3:7.1f} ms, {rate:8,.0f}/s",
        flush=True,
    )
    for what, (message, content) in tally.failures.items():
        print(f"    {what}: {message[:200]}\n        {content[:300]!r}")


if __name__ == "__main__":
    main()
