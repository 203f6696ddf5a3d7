"""Domain adaptation on four real shifts: source only, intermediate, CORAL, MMD, DANN, CDAN, and trained on the target.

Resumable: what is in the results is not run again, and training goes on from its checkpoint. The source-only model of a
shift and seed is trained once and is the control of all methods. `--rows` other than the default, and `--trial`, write
beside the tables and not into the results.

`python benchmarks/adaptation/run.py --shifts all --seeds 0,1,2,3,4`
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.adaptation.shifts import SHIFTS, Drawn, Shift, draw
from benchmarks.adaptation.summary import summarise
from benchmarks.arguments import chosen
from benchmarks.contamination import Pretraining
from benchmarks.results import append, load, matching, record
from benchmarks.scored import regression_errors, slug
from benchmarks.weights import weights_of
from matfm.core.config import apply_overrides, from_mapping
from matfm.core.files import atomic_path
from matfm.errors import MatfmError
from matfm.tasks import adapt
from matfm.tasks.audit import require_scorable
from matfm.tasks.devices import resolve_device
from matfm.tasks.kinds import SCRATCH
from matfm.tasks.tables import read_table

RESULTS = Path(__file__).parent / "results"
METHODS = ("none", "intermediate", "coral", "mmd", "dann", "cdan", "joint", "target")
DEFAULT = "none,intermediate,coral,dann,cdan,joint,target"
ROWS = 4000
LEARNING_FROM_LABELS = ("intermediate", "joint")


@dataclass(frozen=True)
class Case:
    """One row of the table, for one seed."""

    shift: str
    method: str
    labels: int | None
    """Target labels that are given; None for all."""
    seed: int

    @property
    def task(self) -> str:
        return f"{self.shift}@{'all' if self.labels is None else self.labels}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shifts", default="all", help=f"comma-separated: {', '.join(SHIFTS)}; or all")
    parser.add_argument("--methods", default=DEFAULT, help=f"comma-separated: {', '.join(METHODS)}; or all")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=float, default=8.0, help="passes over the source rows (and target labels)")
    parser.add_argument("--rows", type=int, default=ROWS, help="most source rows, and most target rows to adapt to")
    parser.add_argument("--backbone", default="matbert-small", help="of compositions")
    parser.add_argument("--molecule-backbone", default="molbert-small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of matfm adapt")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/adaptation", help="tables and run directories")
    parser.add_argument("--trial", action="store_true", help="write records into --work, not into the results")
    arguments = parser.parse_args()
    results = Path(arguments.work) / "results" if arguments.trial or arguments.rows != ROWS else RESULTS
    methods = chosen(arguments.methods, METHODS)
    for name in chosen(arguments.shifts, tuple(SHIFTS)):
        for seed in [int(seed) for seed in arguments.seeds.split(",")]:
            drawn: Drawn | None = None
            for case in cases(name, methods, seed):
                path = results / f"{name}.jsonl"
                if matching(load(path), task=case.task, model=case.method, seed=seed, **decides(name, arguments)):
                    continue
                drawn = drawn or draw(name, seed, Path(arguments.work), arguments.rows)
                append(path, measured(case, drawn, arguments))
        summarise(results, tuple(SHIFTS))


def cases(name: str, methods: list[str], seed: int) -> list[Case]:
    """Source only first, as the others share it; without labels alignment alone, with labels all methods."""
    found = [Case(name, "none", 0, seed)]
    aligning = [method for method in methods if method not in ("none", "target", *LEARNING_FROM_LABELS)]
    found += [Case(name, method, 0, seed) for method in aligning]
    for labels in SHIFTS[name].labels:
        found += [Case(name, method, labels, seed) for method in methods if method != "none"]
    return found + ([Case(name, "target", None, seed)] if "target" in methods else [])


def decides(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the numbers of a shift depend on, beside method, labels and seed."""
    backbone = _backbone(SHIFTS[name], arguments)
    return {
        "backbone": backbone, "weights": weights_of(backbone), "epochs": arguments.epochs, "settings": arguments.set,
    }  # fmt: skip


def _backbone(shift: Shift, arguments: argparse.Namespace) -> str:
    backbone: str = arguments.backbone if shift.kind == "composition" else arguments.molecule_backbone
    return backbone


def measured(case: Case, drawn: Drawn, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case (or go on with it) and score its test rows."""
    shift = SHIFTS[case.shift]
    backbone = _backbone(shift, arguments)
    share, external = _known_of(backbone, shift)
    out, control = _folders(case, backbone, arguments)
    summary = adapt.run(_config(case, shift, drawn, backbone, arguments), out, resume=_prepared(out, control, case))
    columns = read_table(str(out / "predictions.parquet")).columns
    rows = [
        n for n, (s, p) in enumerate(zip(columns["side"], columns["part"], strict=True)) if (s, p) == ("target", "test")
    ]
    true_T, value_T = (np.array([float(columns[c][n]) for n in rows]) for c in ("label", "predicted_label"))
    entry = record(
        resolve_device(arguments.device).type, case.seed, benchmark="adaptation", task=case.task, split=case.seed,
        model=case.method, metric=shift.metric, unit=shift.unit, value=regression_errors(true_T, value_T)[shift.metric],
        n=len(rows), seconds=summary["seconds"], external_labels=external,
        contaminated_share=share, **decides(case.shift, arguments),
        source_rows=drawn.train, overlap=round(summary["overlap"], 4),
        negative_transfer=summary["negative_transfer"]["negative"], judged_on=summary["negative_transfer"]["basis"],
    )  # fmt: skip
    print(
        f"{case.task} seed {case.seed}  {case.method:13} {entry['value']:.4f} {shift.unit}  {summary['seconds']} s",
        flush=True,
    )
    return entry


def _known_of(backbone: str, shift: Shift) -> tuple[float | None, str | None]:
    """Share of the target's rows that pretraining knew, and its labels; a backbone that saw the target's is refused."""
    if backbone.startswith(SCRATCH):
        return None, None
    pretraining = Pretraining(backbone)
    assert pretraining.audit is not None
    if shift.target in [one["name"] for one in pretraining.audit["evaluate"]]:
        share = require_scorable(backbone, shift.target, shift.target_label).contaminated_share
        return share, pretraining.external_labels()
    pretraining.refuse_family(shift.target_label, shift.target)
    return None, pretraining.external_labels()


def _folders(case: Case, backbone: str, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Of the run, and of the source-only run that its control is copied from."""
    told = [
        Path(backbone).name,
        str(weights_of(backbone)),
        f"{arguments.rows}",
        f"{arguments.epochs:g}",
        *arguments.set,
    ]
    base = Path(arguments.work) / "runs" / slug("-".join(told)) / case.shift / f"seed{case.seed}"
    return base / f"{case.method}-{'all' if case.labels is None else case.labels}", base / "none-0"


def _config(case: Case, shift: Shift, drawn: Drawn, backbone: str, arguments: argparse.Namespace) -> adapt.AdaptConfig:
    values = {
        "source": [{"table": str(drawn.source)}],
        "target": [{"table": str(drawn.target(case.labels))}],
        "input": "input",
        "label": "label",
        "method": case.method,
        "kind": shift.kind,
        "target_split": "column:part",
        "test_share": 0.0,
        "diagnostics": False,
        "seed": case.seed,
        "device": arguments.device,
        "fit": {"backbone": backbone, "epochs": arguments.epochs},
    }
    return from_mapping(adapt.AdaptConfig, apply_overrides(values, arguments.set), "--set")


def _prepared(out: Path, control: Path, case: Case) -> bool:
    """Put the finished source-only model where the run looks for its control; always to be resumed."""
    if case.method == "none" or (out / "control" / "model.safetensors").is_file():
        return True
    (out / "control").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):  # the weights last: they say that it is complete
        with atomic_path(out / "control" / name) as temporary:
            shutil.copyfile(control / name, temporary)
    return True


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
