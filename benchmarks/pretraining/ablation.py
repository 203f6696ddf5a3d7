"""What each term of pretraining brings: short pretraining of every variant, short fine-tuning, and the table.

Resumable: a finished or interrupted pretraining is continued, and what is in the results is not run again.

`python benchmarks/pretraining/ablation.py --epochs 1 --finetune-epochs 10`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.contamination import Pretraining
from benchmarks.labelled import built
from benchmarks.pretraining.tasks import Task, load_task
from benchmarks.pretraining.twin import random_twin
from benchmarks.results import Record, append, load, matching, record
from benchmarks.scored import slug
from benchmarks.tables import digits, markdown
from benchmarks.tuned import Tuning, fine_tuned
from benchmarks.weights import weights_of
from matfm.core.config import apply_overrides, from_mapping, load_toml
from matfm.core.files import write_text
from matfm.errors import MatfmError
from matfm.tasks import pretrain
from matfm.tasks.audit import FILE, audit, write_audit
from matfm.tasks.devices import resolve_device
from matfm.tasks.labelled_sets import SetLoader

FOLDER = Path(__file__).parent
SCRATCH = "random weights"


@dataclass(frozen=True)
class Variant:
    """One way to pretrain."""

    name: str
    set: tuple[str, ...] = ()
    """`key=value` laid over the base."""
    against: str = ""
    """Variant that it is compared with; the first one if empty."""


@dataclass(frozen=True)
class Ablation:
    """The file of variants."""

    base: str
    variant: tuple[Variant, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default=str(FOLDER / "ablation.toml"))
    parser.add_argument("--only", help="comma-separated numbers of variants, from 0, to share the work")
    parser.add_argument("--epochs", type=float, default=1.0, help="of pretraining")
    parser.add_argument("--finetune-epochs", type=float, default=10.0)
    parser.add_argument("--tasks", default="expt_gap,log_kvrh,phonons")
    parser.add_argument("--folds", default="0,1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/ablation", help="tables and run directories")
    parser.add_argument("--results", default=str(FOLDER / "results"))
    arguments = parser.parse_args()
    ablation = from_mapping(Ablation, load_toml(arguments.variants), arguments.variants)
    work, results = Path(arguments.work), Path(arguments.results)
    tasks = [load_task(name, numbers(arguments.folds), work) for name in arguments.tasks.split(",")]
    loader = SetLoader()
    every = range(len(ablation.variant))
    for number in numbers(arguments.only) if arguments.only else every:
        variant = ablation.variant[number]
        folder = pretrained(ablation.base, variant, tasks, loader, arguments)
        if number == 0:
            twin = random_twin(str(folder), work / "random", 0)
            score(SCRATCH, str(twin), None, tasks, arguments)
        score(variant.name, str(folder), Pretraining(str(folder), loader=loader), tasks, arguments)
    path = results / "ablation.jsonl"
    write_text(results / "ablation.md", table(ablation, load(path), [task.name for task in tasks]))


def numbers(text: str) -> list[int]:
    """Comma-separated whole numbers."""
    return [int(number) for number in text.split(",")]


def pretrained(
    base: str, variant: Variant, tasks: Sequence[Task], loader: SetLoader, arguments: argparse.Namespace
) -> Path:
    """Folder of the pretrained encoder of a variant, with its audit."""
    work = Path(arguments.work)
    values = apply_overrides(load_toml(base), variant.set)
    recipe = values["data"].pop("recipe", None)
    if recipe is not None:
        values["data"]["table"] = built(recipe, work)  # once for all variants
    values["name"] = variant.name
    values["device"] = arguments.device
    values.setdefault("train", {})["epochs"] = arguments.epochs
    config = from_mapping(pretrain.PretrainConfig, values, f"{base} with {variant.name}")
    out = work / "pretrain" / f"{slug(variant.name)}-{arguments.epochs:g}"
    pretrain.run(config, out, resume=out.exists())
    if not (out / FILE).is_file():
        said = f"{recipe or config.data.table}:{','.join(config.data.targets)}"
        evaluate = [one for task in tasks for one in loader.load(task.known.recipe)]
        write_audit(out, audit(loader.load(said), evaluate, loader))
    return out


def score(
    name: str, backbone: str, pretraining: Pretraining | None, tasks: Sequence[Task], arguments: argparse.Namespace
) -> None:
    """Fine-tune on every task, fold and seed that has no record yet."""
    path = Path(arguments.results) / "ablation.jsonl"
    tuning = Tuning(backbone, (f"fit.epochs={arguments.finetune_epochs}",), arguments.device)
    decides = {
        "pretraining_epochs": arguments.epochs, "finetuning_epochs": arguments.finetune_epochs,
        "weights": weights_of(backbone),
    }  # fmt: skip
    for task in tasks:
        if pretraining is not None:
            pretraining.require_scorable(task.known)
        for fold, column in task.splits.items():
            for seed in numbers(arguments.seeds):
                if matching(load(path), task=task.name, split=fold, model=name, seed=seed, **decides):
                    continue
                place = f"{slug(name)}-{arguments.epochs:g}-{arguments.finetune_epochs:g}-seed{seed}-fold{fold}"
                predicted = fine_tuned(task.known, column, tuning, seed, Path(arguments.work) / task.name / place)
                entry = record(
                    resolve_device(arguments.device).type, seed, benchmark="pretraining ablation", task=task.name,
                    split=fold, model=name, metric=task.metric, unit=task.known.unit,
                    value=task.score(fold, predicted.value_T), n=len(predicted.value_T), seconds=predicted.seconds,
                    external_labels=None if pretraining is None else pretraining.external_labels(), **decides,
                )  # fmt: skip
                append(path, entry)
                print(
                    f"{task.name} fold {fold} seed {seed}  {name:44} {entry['value']:.4f} {entry['unit']}", flush=True
                )


def table(ablation: Ablation, entries: Sequence[Record], tasks: Sequence[str]) -> str:
    """A line for each variant: mean ± standard deviation over folds and seeds, and the change against another one."""
    first = ablation.variant[0].name
    against = {variant.name: variant.against or first for variant in ablation.variant}
    parts = []
    lengths = dict.fromkeys((entry["pretraining_epochs"], entry["finetuning_epochs"]) for entry in entries)
    for pretraining, finetuning in lengths:
        own = matching(entries, pretraining_epochs=pretraining, finetuning_epochs=finetuning)
        rows = [
            [name, against.get(name, "") if against.get(name) != name else "", *_cells(own, name, against, tasks)]
            for name in (SCRATCH, *against)
            if matching(own, model=name)
        ]
        header = ["pretraining", "compared with", *(text for task in tasks for text in (_error(own, task), "change"))]
        parts.append(
            f"## {pretraining:g} epochs of pretraining, {finetuning:g} of fine-tuning\n\n" + markdown(header, rows)
        )
    said = (
        "Mean ± standard deviation over folds and seeds; change of the mean error on the folds and seeds that both have"
    )
    return "\n".join([*parts, f"{said}, and on how many of them it is smaller.\n"])


def _error(entries: Sequence[Record], task: str) -> str:
    (first, *_) = matching(entries, task=task) or [{"metric": "", "unit": ""}]
    return f"{task} {first['metric']}" + (f" ({first['unit']})" if first["unit"] else "")


def _cells(entries: Sequence[Record], name: str, against: dict[str, str], tasks: Sequence[str]) -> list[str]:
    cells = []
    for task in tasks:
        own = _values(entries, task, name)
        if not own:
            cells += ["", ""]
            continue
        scores = np.array(list(own.values()))
        cells.append(f"{digits(float(scores.mean()))} ± {digits(float(scores.std()))} (n = {len(scores)})")
        peer = {} if against.get(name, name) == name else _values(entries, task, against[name])
        shared = sorted(own.keys() & peer.keys())
        if not shared:
            cells.append("")
            continue
        change = np.mean([own[key] for key in shared]) / np.mean([peer[key] for key in shared]) - 1
        smaller = sum(own[key] < peer[key] for key in shared)
        cells.append(f"{change:+.1%} ({smaller} of {len(shared)})")
    return cells


def _values(entries: Sequence[Record], task: str, name: str) -> dict[Any, float]:
    return {(entry["split"], entry["seed"]): entry["value"] for entry in matching(entries, task=task, model=name)}


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
