"""SMILES to SELFIES and back on held-out MOSES molecules: exact matches and same molecules.

Resumable: translations are kept chunk by chunk under `--work`, and records that are in the results file are not made
again. `python benchmarks/translation/run.py --model runs/matt5-small`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, load, record
from benchmarks.weights import weights_of
from matfm.chem.selfies import smiles_to_selfies
from matfm.chem.smiles import parse_smiles
from matfm.errors import MatfmError
from matfm.tasks import data
from matfm.tasks.tables import read_table
from matfm.tasks.translate import Translator, load_translator

RESULTS = Path(__file__).parent / "results" / "moses.jsonl"
CHUNK = 500
DIRECTIONS = {"selfies": "smiles->selfies", "smiles": "selfies->smiles"}
METRICS = ("exact", "same_molecule", "readable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="bundled name, folder or run directory")
    parser.add_argument("--name", help="of the model in the results [default: the last part of --model]")
    parser.add_argument("--n", type=int, default=10_000, help="molecules of the test part of MOSES, drawn by --seed")
    parser.add_argument("--to", default="selfies,smiles", help="directions, by what is written")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--table", help="with a column of SMILES in place of the test part of MOSES, all of it held out"
    )
    parser.add_argument("--input", default=data.INPUT_COLUMN, help="that column")
    parser.add_argument("--work", default="runs/translation", help="the table of MOSES and translations so far")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    smiles = held_out_molecules(arguments)
    for to in arguments.to.split(","):
        evaluate(to, smiles, arguments)


def held_out_molecules(arguments: argparse.Namespace) -> list[str]:
    """Canonical SMILES of the molecules, the same for the same seed."""
    if arguments.table:
        cells = read_table(arguments.table).column(arguments.input, arguments.table)
    else:
        path = Path(arguments.work) / "data" / "moses.parquet"
        if not path.is_file():
            data.run(data.BuildConfig("moses", str(path.parent)))
        table = read_table(str(path))
        cells = [
            cell
            for cell, part in zip(table.columns[data.INPUT_COLUMN], table.columns["split"], strict=True)
            if part == "test"
        ]
    chosen = np.random.default_rng(arguments.seed).permutation(len(cells))[: arguments.n]
    return [parse_smiles(cells[row]).canonical for row in chosen.tolist()]


def evaluate(to: str, smiles: list[str], arguments: argparse.Namespace) -> None:
    """Translate what is not translated yet, and append the shares."""
    name = arguments.name or Path(arguments.model).name
    model = name if arguments.beams == 1 else f"{name}, {arguments.beams} beams"
    known = {"task": DIRECTIONS[to], "model": model, "split": arguments.seed, "n": len(smiles)}
    known |= {"weights": weights_of(arguments.model), "table": arguments.table and Path(arguments.table).name}
    if any(known.items() <= entry.items() for entry in load(arguments.results)):
        return
    selfies = [smiles_to_selfies(text) for text in smiles]
    cells, wanted = (smiles, selfies) if to == "selfies" else (selfies, smiles)
    made = translated(to, cells, arguments)
    counts = {
        "exact": sum(each["text"] == text for each, text in zip(made, wanted, strict=True)),
        "same_molecule": sum(each["same"] is True for each in made),
        "readable": sum(each["readable"] for each in made),
    }
    seconds = round(sum(each["seconds"] for each in made), 1)
    for metric in METRICS:
        share = counts[metric] / len(made)
        entry = record(
            arguments.device, arguments.seed, benchmark="translation", **known, metric=metric, unit="share",
            value=share, seconds=seconds,
        )  # fmt: skip
        append(arguments.results, entry)
        print(f"{DIRECTIONS[to]:18} {model:24} {metric:14} {share:.4f}  ({len(made)} molecules, {seconds:.0f} s)")


def translated(to: str, cells: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Translations of all cells; those of an earlier, interrupted call are read."""
    key = hashlib.sha256(
        "\n".join([str(weights_of(arguments.model)), to, str(arguments.beams), *cells]).encode()
    ).hexdigest()[:16]
    path = Path(arguments.work) / f"{to}-{key}.jsonl"
    done = load(path)
    translator = load_translator(arguments.model, to, beams=arguments.beams, device=arguments.device)
    for start in range(len(done), len(cells), CHUNK):
        done += _chunk(translator, cells[start : start + CHUNK], path)
        print(f"{len(done)} of {len(cells)} molecules", file=sys.stderr)
    return done


def _chunk(translator: Translator, cells: list[str], path: Path) -> list[dict[str, Any]]:
    started = time.perf_counter()
    made = translator(cells)
    seconds = (time.perf_counter() - started) / len(cells)
    rows = []
    for each in made:
        if isinstance(each, MatfmError):
            raise each
        readable = each.canonical is not None
        rows.append({"text": each.text, "same": each.same, "readable": readable, "seconds": seconds})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write("".join(json.dumps(row) + "\n" for row in rows))
    return rows


if __name__ == "__main__":
    main()
