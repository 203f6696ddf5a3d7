"""Tokenizers on real corpora: what is lossless, how fast they are, and the shipped vocabularies.

`--only lossless` and `--only speed` write results; `--only vocabularies` writes `matfm/chem/vocabularies/*.json`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.tokenizers import corpora, lossless, speed
from matfm.chem import selfies_tokenizer, smiles_tokenizer
from matfm.chem.notations import SELFIES, SMILES
from matfm.chem.vocabulary import build_vocabulary, save_vocabulary

VOCABULARIES = Path(smiles_tokenizer.__file__).parent / "vocabularies"


def build_vocabularies(molecules: dict[str, list[str]], every: int) -> None:
    """Write both shipped vocabularies; that of SELFIES from every `every`-th MOSES molecule."""
    texts = [text for rows in molecules.values() for text in rows]
    tokens = build_vocabulary(texts, SMILES.split, smiles_tokenizer.ALWAYS)
    save_vocabulary(VOCABULARIES / "smiles.json", tokens, (corpora.MOLECULEACE, corpora.MOSES))
    texts = list(dict.fromkeys([*molecules["moleculeace"], *molecules["moses"][::every]]))
    tokens = build_vocabulary(lossless.in_selfies(texts), SELFIES.split, selfies_tokenizer.ALWAYS)
    sources = (corpora.MOLECULEACE, f"{corpora.MOSES}, every {every}th row")
    save_vocabulary(VOCABULARIES / "selfies.json", tokens, sources)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder with the three package files")
    parser.add_argument("--every", type=int, default=100, help="of MOSES, convert every n-th molecule to SELFIES")
    parser.add_argument("--only", choices=("lossless", "speed", "vocabularies"))
    arguments = parser.parse_args()
    if arguments.only == "speed":
        speed.one_thread()
    molecules = {
        "moleculeace": corpora.moleculeace(arguments.wheels / "MoleculeACE-3.0.0-py3-none-any.whl"),
        "moses": corpora.moses(arguments.wheels / "molsets-0.3.1-py3-none-any.whl"),
    }
    if arguments.only == "vocabularies":
        build_vocabularies(molecules, arguments.every)
        return
    formulas = corpora.formulas(arguments.wheels / "crabnet-2.0.8-py3-none-any.whl")
    if arguments.only in (None, "lossless"):
        lossless.run(formulas, molecules, arguments.every)
    if arguments.only in (None, "speed"):
        speed.one_thread()
        speed.run(formulas, molecules)


if __name__ == "__main__":
    main()
