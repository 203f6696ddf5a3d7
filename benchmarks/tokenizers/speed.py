"""Speed and memory of encoding on one core, as ratios to peers measured in turn on the same strings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import append, record
from matfm import SelfiesTokenizer, SmilesTokenizer
from matfm.chem.composition_encoder import encode_many_fractions
from matfm.chem.composition_schemes import encode_fractions
from matfm.chem.line_tokenizer import LineNotationTokenizer
from matfm.chem.selfies import smiles_to_selfies
from matfm.errors import MatfmError

RESULTS = Path(__file__).parent / "results" / "speed.jsonl"
REPEATS = 5
STRINGS = 50_000
CHUNK = 5_000
FEW, MANY = 100_000, 1_000_000
"""Rows of the two tables whose peak memories are compared."""


def run(formulas: list[str], molecules: dict[str, list[str]]) -> None:
    """All comparisons, in one process with one thread."""
    smiles = SmilesTokenizer()
    for task, rows in molecules.items():
        lines(f"{task} SMILES", smiles, _spread(rows))
    selfies = [text for row in _spread(molecules["moses"])[:10_000] if (text := _selfies(row))]
    lines("moses SELFIES", SelfiesTokenizer(), selfies)
    compositions(_spread(formulas))
    memory(molecules["moses"])


def lines(task: str, tokenizer: LineNotationTokenizer, rows: list[str]) -> None:
    """`encode_flat` against the Hugging Face pipeline and against Python's own means."""
    vocabulary, find = tokenizer.get_vocab(), re.compile(tokenizer.notation.pattern).findall
    pipeline = tokenizer.backend_tokenizer

    def by_lookup(texts: list[str]) -> Any:
        return [[vocabulary.get(token, 1) for token in find(text)] for text in texts]

    compare(task, len(rows), "encode_flat", rows, tokenizer.encode_flat, {
        "huggingface_encode_batch": lambda texts: [encoded.ids for encoded in pipeline.encode_batch(texts)],
        "findall_and_lookup": by_lookup,
    })  # fmt: skip


def compositions(rows: list[str]) -> None:
    """Formulas to (ids, amounts), many and one at a time, against reading them with pymatgen."""
    from pymatgen.core import Composition

    def one_by_one(texts: list[str]) -> Any:
        return [encode_fractions(text) for text in texts]

    def theirs(texts: list[str]) -> Any:
        return [Composition(text) for text in texts]

    peers = {"pymatgen_composition": theirs}
    compare("formulas", len(rows), "encode_many_fractions", rows, encode_many_fractions, peers)
    compare("formulas", len(rows), "encode_fractions", rows, one_by_one, peers)


def compare(
    task: str, n: int, model: str, rows: list[str], ours: Callable[..., Any], peers: dict[str, Callable[..., Any]]
) -> None:
    """Best of several rounds in which everybody takes a turn, so that a busy machine is busy for all."""
    best = dict.fromkeys((model, *peers), float("inf"))
    for _ in range(REPEATS):
        for name, function in {model: ours, **peers}.items():
            started = time.perf_counter()
            for start in range(0, n, CHUNK):
                function(rows[start : start + CHUNK])
            best[name] = min(best[name], time.perf_counter() - started)
    for name in peers:
        entry = {"benchmark": "tokenizers", "task": task, "split": "all", "model": model, "unit": "1", "n": n}
        entry |= {"metric": f"ratio:{name}", "value": round(best[name] / best[model], 2), "seconds": best[model]}
        append(RESULTS, {**record("cpu, one thread", 0, **entry), "peer_seconds": best[name]})
        print(task, name, f"{best[name] / best[model]:.1f} times as fast,", f"{best[model] / n * 1e6:.2f} µs a string")


def memory(rows: list[str]) -> None:
    """Peak memory of `matfm data encode` (one process) on a small and on a ten times larger table."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (FEW, MANY):
            table = Path(folder) / f"{size}.csv"
            table.write_text("SMILES\n" + "\n".join(rows[:size]) + "\n", "utf-8")
            peaks[size] = _peak_mib(table, Path(folder) / str(size))
    entry = {"benchmark": "tokenizers", "task": "matfm data encode", "split": "all", "model": "peak memory", "n": MANY}
    entry |= {"unit": "1", "metric": "ratio:memory_of_a_tenth_of_the_rows", "value": round(peaks[FEW] / peaks[MANY], 3)}
    append(RESULTS, {**record("cpu", 0, **entry), "mib": peaks[MANY], "peer_mib": peaks[FEW]})
    print("memory", peaks)


def _peak_mib(table: Path, out: Path) -> float:
    command = ["matfm", "data", "encode", str(table), "--input", "SMILES", "--kind", "smiles", "--workers", "1"]
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", measure, sys.executable, "-m", *command, "--out", str(out)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one_thread() -> None:
    """Before any tokenizer is used: the Hugging Face pipeline and NumPy stay on one core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _spread(rows: list[str]) -> list[str]:
    return rows[:: max(1, len(rows) // STRINGS)][:STRINGS]


def _selfies(smiles: str) -> str | None:
    try:
        return smiles_to_selfies(smiles)
    except MatfmError:
        return None
