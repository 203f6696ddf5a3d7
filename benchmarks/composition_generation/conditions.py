"""Conditional generation: how many samples have the property that was asked for, beside samples without the condition.

Properties are those that a fine-tuned run predicts. Both kinds of samples are drawn without constraints, and judged by
the same range: of a value, the bin that holds it. Resumable.
`python benchmarks/composition_generation/conditions.py --model runs/conditional-generator --predict runs/gap
--condition oqmd_band_gap=1.5..2.5`
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

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
from benchmarks.weights import weights_of
from matfm.models.matgpt_config import MatGPTConfig
from matfm.tasks.generation.conditions import Condition, Conditions, predicted_column
from matfm.tasks.predict import load_members, targets_of

RESULTS = Path(__file__).parent / "results" / "conditions.jsonl"
SHOWN = ["as_asked", "ratio:as_asked_unconditional", "training_share", "valid", "unique"]


def samples(arguments: argparse.Namespace, seed: int, condition: str) -> dict[str, list[str]]:
    """Columns of generated rows with their predictions; an empty condition asks for nothing."""
    judge = f"by {Path(arguments.predict).name} {weights_of(arguments.predict)}"
    asked = (condition,) if condition else ()
    return generated(arguments, seed, f"{condition or 'free'} {judge}", condition=asked, predict=arguments.predict)


def measured(columns: dict[str, list[str]], asked: Condition, column: str, factor: float) -> dict[str, float]:
    """Shares: as asked for, of the valid rows; valid; and unique, of the valid rows."""
    predicted = np.array([float(cell) for cell in columns[column] if cell]) * factor
    valid = [text for text in columns["canonical"] if text]
    return {
        "as_asked": float(asked.holds(predicted).mean()) if len(predicted) else 0.0,
        "valid": len(valid) / len(columns["canonical"]),
        "unique": len(set(valid)) / max(len(valid), 1),
        "training_share": asked.training_share(),
    }


def study(arguments: argparse.Namespace, condition: str) -> list[Measured]:
    """One condition, with and without; what the records call both."""
    saved = MatGPTConfig.from_pretrained(arguments.model).conditions
    (asked,) = Conditions.read((condition,), saved, arguments.model, 0).asked
    found = predicted_column(asked, targets_of(load_members(arguments.predict)[0]))
    if found is None:
        raise SystemExit(f"{arguments.predict} does not predict {asked.bins.name}")
    judged = f", {condition} by {Path(arguments.predict).name}"
    unasked = named(arguments, f"{judged}, not asked for")
    models = {unasked: "", named(arguments, judged): condition}
    common = {"benchmark": "composition_generation", "task": "conditional"}

    def measure(given: str, seed: int) -> dict[str, float]:
        metrics = measured(samples(arguments, seed, given), asked, *found)
        free = recorded(arguments.results, unasked, seed, "as_asked") if given else None
        return metrics | ({"ratio:as_asked_unconditional": metrics["as_asked"] / free} if free else {})

    for model, given in models.items():
        over_seeds(arguments, model, partial(measure, given), **common)
    return list(models)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a generator that was trained with conditions")
    parser.add_argument("--predict", required=True, help="run, or bundled weights, that predict the properties")
    parser.add_argument("--condition", action="append", required=True, help="property=value or property=low..high")
    generator_options(parser, 10_000, "runs/composition-generation", RESULTS)
    arguments = parser.parse_args()

    models = [model for condition in arguments.condition for model in study(arguments, condition)]
    print(table(arguments.results, None, SHOWN, models))


if __name__ == "__main__":
    main()
