"""Build the shipped vocabularies of SMILES and SELFIES, and count what is lossless on MOSES and MoleculeACE.

`--build` writes `matfm/chem/vocabularies/*.json`; without it the shipped files are measured.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, record
from matfm.chem import selfies_tokenizer, smiles_tokenizer
from matfm.chem.line_tokenizer import LineNotationTokenizer
from matfm.chem.selfies import selfies_to_smiles, smiles_to_selfies, split_selfies
from matfm.chem.smiles import parse_smiles, split_smiles
from matfm.chem.vocabulary import build_vocabulary, save_vocabulary
from matfm.errors import MatfmError

RESULTS = Path(__file__).parent / "results" / "lossless.jsonl"
VOCABULARIES = Path(smiles_tokenizer.__file__).parent / "vocabularies"
SOURCES = ("MoleculeACE 3.0.0", "molsets 0.3.1 (MOSES)")
CHUNK = 10_000


def moleculeace(wheel: Path) -> list[str]:
    """Rows of all 30 tables."""
    with zipfile.ZipFile(wheel) as archive:
        tables = sorted(name for name in archive.namelist() if "benchmark_data/" in name and name.endswith(".csv"))
        return [
            row["smiles"] for name in tables for row in csv.DictReader(io.StringIO(archive.read(name).decode("utf-8")))
        ]


def moses(wheel: Path) -> list[str]:
    """Rows of train, test and scaffold test."""
    rows: list[str] = []
    with zipfile.ZipFile(wheel) as archive:
        for part in ("train", "test", "test_scaffolds"):
            text = gzip.decompress(archive.read(f"moses/dataset/data/{part}.csv.gz")).decode("utf-8")
            rows += [line.split(",")[0] for line in text.splitlines()[1:]]
    return rows


def in_selfies(smiles: list[str]) -> Iterator[str]:
    """SELFIES of those that SELFIES can express."""
    for text in smiles:
        try:
            yield smiles_to_selfies(text)
        except MatfmError as error:
            print(error, file=sys.stderr)


def build(data: dict[str, list[str]], every: int) -> None:
    """Write both vocabularies; that of SELFIES from every `every`-th MOSES molecule."""
    corpus = [text for rows in data.values() for text in rows]
    tokens = build_vocabulary(corpus, split_smiles, smiles_tokenizer.ALWAYS)
    save_vocabulary(VOCABULARIES / "smiles.json", tokens, SOURCES)
    corpus = list(dict.fromkeys([*data["moleculeace"], *data["moses"][::every]]))
    tokens = build_vocabulary(in_selfies(corpus), split_selfies, selfies_tokenizer.ALWAYS)
    save_vocabulary(VOCABULARIES / "selfies.json", tokens, (*SOURCES[:1], f"{SOURCES[1]}, every {every}th row"))


def lossless(tokenizer: LineNotationTokenizer, rows: list[str]) -> dict[str, int]:
    """Rows that encode and decode to themselves, and unknown tokens."""
    same = 0
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        ids = tokenizer(chunk, return_attention_mask=False)["input_ids"]
        same += sum(a == b for a, b in zip(chunk, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True))
    return {"lossless": same, "unknown_tokens": tokenizer.count_unknown(rows)}


def through_selfies(rows: list[str]) -> dict[str, int]:
    """Molecules that are the same after SMILES to SELFIES and back, by RDKit's canonical SMILES."""
    counts: Counter[str] = Counter({"same_molecule": 0, "other_stereo": 0, "other_molecule": 0, "not_expressible": 0})
    for text in rows:
        try:
            back = selfies_to_smiles(smiles_to_selfies(text))
        except MatfmError:
            counts["not_expressible"] += 1
            continue
        counts[_compare(parse_smiles(text).molecule, parse_smiles(back).molecule)] += 1
    return dict(counts)


def _compare(left: Any, right: Any) -> str:
    from rdkit import Chem

    for kind, stereo in (("same_molecule", True), ("other_stereo", False)):
        if Chem.MolToSmiles(left, isomericSmiles=stereo) == Chem.MolToSmiles(right, isomericSmiles=stereo):
            return kind
    return "other_molecule"


def write(task: str, model: str, count: Callable[[list[str]], dict[str, int]], rows: list[str]) -> None:
    started = time.perf_counter()
    counts, n = count(rows), len(rows)
    seconds = round(time.perf_counter() - started, 1)
    shared = {"benchmark": "tokenizers", "task": task, "split": "all", "model": model, "unit": "1"}
    for metric, value in counts.items():
        append(RESULTS, record("cpu", 0, **shared, metric=metric, value=value, n=n, seconds=seconds))
    print(task, model, n, counts, f"{seconds} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moleculeace", type=Path, required=True, help="MoleculeACE-3.0.0-py3-none-any.whl")
    parser.add_argument("--moses", type=Path, required=True, help="molsets-0.3.1-py3-none-any.whl")
    parser.add_argument("--every", type=int, default=100, help="of MOSES, convert every n-th molecule to SELFIES")
    parser.add_argument("--build", action="store_true")
    arguments = parser.parse_args()
    data = {"moleculeace": moleculeace(arguments.moleculeace), "moses": moses(arguments.moses)}
    if arguments.build:
        build(data, arguments.every)
    smiles, selfies = smiles_tokenizer.SmilesTokenizer(), selfies_tokenizer.SelfiesTokenizer()
    for task, rows in data.items():
        write(task, "SmilesTokenizer", partial(lossless, smiles), rows)
        step = 1 if task == "moleculeace" else arguments.every
        distinct = list(dict.fromkeys(rows[::step]))
        name = f"{task}, distinct" if step == 1 else f"{task}, distinct of every {step}th"
        write(name, "selfies", through_selfies, distinct)
        write(name, "SelfiesTokenizer", partial(lossless, selfies), list(in_selfies(distinct)))


if __name__ == "__main__":
    main()
