"""Compositions: neutral, balanced, new and known ones among samples of a generator, beside random formulas.

Measured are samples without constraints, samples constrained to charge-neutral compositions at decode time, and random
formulas with the sizes and amounts of the training set. The corpus and the compositions held out of it are those of the
generator's own pretraining. Resumable. `python benchmarks/composition_generation/run.py --model matgpt-small`
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.generation_tables import (
    Measured,
    generated,
    generator_options,
    named,
    over_seeds,
    recorded,
    table,
)  # fmt: skip
from matfm.chem.composition_metrics import composition_profile, distribution_distances, random_compositions, recovery
from matfm.chem.composition_schemes import SCHEMES
from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.chem.reduced_composition import canonical_formula
from matfm.chem.validity import ValidityCounter, validity_check
from matfm.core.bundled import bundled_or_same
from matfm.core.config import from_mapping
from matfm.models.matgpt_config import MatGPTConfig
from matfm.tasks.pretraining.config import PretrainConfig
from matfm.tasks.pretraining.data import load_corpus

HERE = Path(__file__).parent
RESULTS, PUBLISHED = HERE / "results" / "compositions.jsonl", HERE / "published.csv"
RANDOM = "random formulas"
CONSTRAINED = ", constrained to neutral"
SHOWN = (
    "charge_neutral electronegativity_balanced charge_neutral_no_alloys electronegativity_balanced_no_alloys unique "
    "novelty recovery distance_elements distance_stoichiometries ratio:random_charge_neutral"
)


class Corpus:
    """Training and held-out compositions of a generator, in canonical form."""

    def __init__(self, model: str, work: Path) -> None:
        run = MatGPTConfig.from_pretrained(model).run
        if not run:
            raise SystemExit(f"{model} does not say what it was trained on")
        config = from_mapping(PretrainConfig, run, model)
        corpus = load_corpus(config, work)
        self.tokenizer = CompositionTokenizer.from_pretrained(bundled_or_same(model))
        self.train = self._formulas(corpus.train)
        self.held_out = self._formulas(corpus.held_out) - self.train
        self.profile = composition_profile(sorted(self.train))

    def _formulas(self, part: Any) -> set[str]:
        tokens, scheme = part.tokens, SCHEMES[self.tokenizer.scheme_name]
        words = {index: token for token, index in self.tokenizer.get_vocab().items()}
        special, found = set(self.tokenizer.all_special_ids), set()
        for start, stop in zip(tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True):
            ids = [index for index in tokens.ids_N[start:stop].tolist() if index not in special]
            found.add(canonical_formula(scheme.text([words[index] for index in ids], None)))
        return found


def measured(texts: list[str], corpus: Corpus) -> dict[str, float]:
    """Metrics of generated texts, unreadable ones included. Recovery counts what was drawn, n for n."""
    metrics: dict[str, float] = {}
    for suffix, alloys in (("", True), ("_no_alloys", False)):
        check, counter = validity_check("composition", alloys=alloys), ValidityCounter("composition", corpus.train)
        canonical = []
        for text in texts:
            verdict = check(text)
            counter.add(text, verdict)
            if verdict.canonical:
                canonical.append(verdict.canonical)
        report = counter.report()
        metrics[f"charge_neutral{suffix}"] = report.charge_neutral or 0.0
        metrics[f"electronegativity_balanced{suffix}"] = report.electronegativity_balanced or 0.0
    metrics |= {"valid": report.valid or 0.0, "unique": len(set(canonical)) / max(len(canonical), 1)}
    metrics |= {"novelty": report.novelty or 0.0, "recovery": recovery(set(canonical), corpus.held_out)}
    if canonical:
        metrics |= distribution_distances(corpus.profile, composition_profile(canonical))
    return metrics


def samples(arguments: argparse.Namespace, seed: int, constrained: bool) -> list[str]:
    """Generated formulas; empty for samples that were cut off."""
    columns = generated(arguments, seed, "neutral" if constrained else "free", charge_neutral=constrained)
    return [text if valid == "true" else "" for text, valid in zip(columns["formula"], columns["valid"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="matgpt-small", help="bundled name or folder of a generator")
    generator_options(parser, 10_000, "runs/composition-generation", RESULTS)
    arguments = parser.parse_args()

    corpus = Corpus(arguments.model, Path(arguments.work))
    drawn, free, constrained = Measured(RANDOM, arguments.n), named(arguments), named(arguments, CONSTRAINED)

    def measure(model: Measured, seed: int) -> dict[str, float]:
        if model == drawn:
            return measured(random_compositions(corpus.profile, arguments.n, np.random.default_rng(seed)), corpus)
        metrics = measured(samples(arguments, seed, model == constrained), corpus)
        rate = recorded(arguments.results, drawn, seed, "charge_neutral_no_alloys")
        if rate:
            metrics["ratio:random_charge_neutral"] = metrics["charge_neutral_no_alloys"] / rate
        return metrics

    common = {"benchmark": "composition_generation", "task": "distribution_learning"}
    for model in (drawn, free, constrained):
        over_seeds(arguments, model, partial(measure, model), **common)
    print(f"held out: {len(corpus.held_out):,} of {len(corpus.held_out) + len(corpus.train):,} compositions")
    print(table(arguments.results, PUBLISHED, SHOWN.split(), [drawn, free, constrained]))


if __name__ == "__main__":
    main()
