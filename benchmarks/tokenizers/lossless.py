"""Counts of what goes through the tokenizers unchanged, on whole corpora."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.results import append, record
from matfm import CompositionTokenizer, SelfiesTokenizer, SmilesTokenizer
from matfm.chem.formula import read_formula
from matfm.chem.line_tokenizer import LineNotationTokenizer
from matfm.chem.selfies import selfies_to_smiles, smiles_to_selfies
from matfm.chem.smiles import parse_smiles
from matfm.errors import MatfmError

RESULTS = Path(__file__).parent / "results" / "lossless.jsonl"
CHUNK = 10_000
LOADED_ELSEWHERE = 10_000
"""Strings on which a saved tokenizer is compared with the original."""


def run(formulas: list[str], molecules: dict[str, list[str]], every: int) -> None:
    """Count on all formulas and SMILES; SELFIES of every `every`-th MOSES molecule and of all others."""
    write("formulas", "CompositionTokenizer", compositions, formulas)
    write("formulas", "parse_formula against pymatgen", agreement, formulas)
    smiles, selfies = SmilesTokenizer(), SelfiesTokenizer()
    for task, rows in molecules.items():
        write(task, "SmilesTokenizer", partial(lossless, smiles), rows)
        distinct = list(dict.fromkeys(rows[:: 1 if task == "moleculeace" else every]))
        name = f"{task}, distinct" if task == "moleculeace" else f"{task}, distinct of every {every}th"
        write(name, "selfies", through_selfies, distinct)
        write(name, "SelfiesTokenizer", partial(lossless, selfies), list(in_selfies(distinct)))


def compositions(rows: list[str]) -> dict[str, int]:
    """Formulas whose tokens decode to the same composition (atomic fractions within 1e-6), by scheme."""
    tokenizers = {scheme: CompositionTokenizer(scheme=scheme) for scheme in ("fraction", "count", "repeat")}
    counts: Counter[str] = Counter()
    for formula in rows:
        fractions = read_formula(formula).fractions
        for scheme, tokenizer in tokenizers.items():
            try:
                encoded = tokenizer(formula)
            except MatfmError:  # `repeat` says that the stoichiometry is too fine for it
                counts[f"refused by {scheme}"] += 1
                continue
            back = read_formula(tokenizer.to_formula(encoded["input_ids"], encoded.get("amounts"))).fractions
            counts[f"lossless in {scheme}"] += _same(fractions, back, 1e-6)
    return dict(counts)


def agreement(rows: list[str]) -> dict[str, int]:
    """Formulas that both read, those with the same composition (within 1e-6), and how many pymatgen reduces to."""
    from pymatgen.core import Composition

    counts: Counter[str] = Counter({"read by both": 0, "same composition": 0})
    reduced = set()
    for formula in rows:
        theirs = Composition(formula)
        reduced.add(theirs.reduced_formula)
        counts["read by both"] += 1
        total = theirs.num_atoms
        fractions = {symbol: amount / total for symbol, amount in theirs.get_el_amt_dict().items()}
        counts["same composition"] += _same(read_formula(formula).fractions, fractions, 1e-6)
    return {**counts, "distinct reduced formulas": len(reduced)}


def _same(ours: dict[str, float], theirs: dict[str, float], tolerance: float) -> bool:
    return ours.keys() == theirs.keys() and all(abs(ours[s] - theirs[s]) <= tolerance for s in ours)


def lossless(tokenizer: LineNotationTokenizer, rows: list[str]) -> dict[str, int]:
    """Strings that decode to themselves; those with equal ids on the fast path; unknown tokens; saved = original."""
    same = fast = 0
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        ids = tokenizer(chunk, return_attention_mask=False)["input_ids"]
        same += sum(a == b for a, b in zip(chunk, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True))
        flat, offsets = tokenizer.encode_flat(chunk)
        fast += sum(flat[a:b].tolist() == one for (a, b), one in zip(pairwise(offsets), ids, strict=True))
    sample = rows[:: max(1, len(rows) // LOADED_ELSEWHERE)][:LOADED_ELSEWHERE]
    return {
        "lossless": same,
        "same ids on the fast path": fast,
        "unknown tokens": tokenizer.count_unknown(rows),
        f"same when saved and loaded, of {len(sample)}": saved_and_loaded(tokenizer, sample),
    }


def saved_and_loaded(tokenizer: LineNotationTokenizer, rows: list[str]) -> int:
    """Strings with the same ids from `AutoTokenizer.from_pretrained` of the saved folder."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        loaded = AutoTokenizer.from_pretrained(folder)
    return sum(a == b for a, b in zip(tokenizer(rows)["input_ids"], loaded(rows)["input_ids"], strict=True))


def in_selfies(smiles: list[str]) -> Iterator[str]:
    """SELFIES of those that SELFIES can express."""
    for text in smiles:
        try:
            yield smiles_to_selfies(text)
        except MatfmError:  # counted by `through_selfies`
            continue


def through_selfies(rows: list[str]) -> dict[str, int]:
    """Molecules that are the same after SMILES to SELFIES and back, by RDKit's canonical SMILES."""
    counts: Counter[str] = Counter({"same molecule": 0, "other stereo": 0, "other molecule": 0, "not expressible": 0})
    for text in rows:
        try:
            back = selfies_to_smiles(smiles_to_selfies(text))
        except MatfmError:
            counts["not expressible"] += 1
            continue
        counts[_compare(parse_smiles(text).molecule, parse_smiles(back).molecule)] += 1
    return dict(counts)


def _compare(left: Any, right: Any) -> str:
    from rdkit import Chem

    for kind, stereo in (("same molecule", True), ("other stereo", False)):
        if Chem.MolToSmiles(left, isomericSmiles=stereo) == Chem.MolToSmiles(right, isomericSmiles=stereo):
            return kind
    return "other molecule"


def write(task: str, model: str, count: Callable[[list[str]], dict[str, int]], rows: list[str]) -> None:
    """One record per count."""
    started = time.perf_counter()
    counts, n = count(rows), len(rows)
    seconds = round(time.perf_counter() - started, 1)
    shared = {"benchmark": "tokenizers", "task": task, "split": "all", "model": model, "unit": "1"}
    for metric, value in counts.items():
        append(RESULTS, record("cpu", 0, **shared, metric=metric, value=value, n=n, seconds=seconds))
    print(task, model, n, counts, f"{seconds} s", flush=True)
