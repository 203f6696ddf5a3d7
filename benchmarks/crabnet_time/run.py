"""How long it takes to reach CrabNet's published band-gap error, against CrabNet's own default run on this machine.

Both train on the training rows of an official fold of Matbench `expt_gap`, one after the other in this process, with
the same number of threads. Ours is `matfm finetune` from reading the table to the last picture; CrabNet's is `fit`
without its pictures and files. With fewer than 300 `--crabnet-epochs` its time is that of its median epoch (training
alone) times 300, and the records say `extrapolated`; the whole run may end earlier by its own rule.

`python benchmarks/crabnet_time/run.py --epochs 10 --crabnet-epochs 300`
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.contamination import Pretraining
from benchmarks.crabnet_time.peer import DEFAULT_EPOCHS, Stopped, load_crabnet, timed_crabnet
from benchmarks.labelled import LabelledTable, labelled
from benchmarks.results import append, record
from benchmarks.tuned import Tuning, fine_tuned
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device
from matfm.tasks.examples import Examples
from matfm.tasks.kinds import backbone_encoder
from matfm.tasks.predictions import predict_members
from matfm.tasks.predictor import load_predictor

RESULTS = Path(__file__).parent / "results" / "expt_gap.jsonl"
PUBLISHED = 0.3463
"""eV, CrabNet on Matbench's leaderboard, mean over five folds."""
LIBRARY = "matbench_log_kvrh"
"""Its 10,987 formulas are what both predict; neither was trained on them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--backbone", default="matbert-small")
    parser.add_argument("--epochs", type=float, default=10.0, help="of our fine-tuning")
    parser.add_argument("--crabnet-epochs", type=int, default=DEFAULT_EPOCHS, help="fewer are extrapolated to 300")
    parser.add_argument("--rows", type=int, default=10_987, help="formulas to predict")
    parser.add_argument("--rounds", type=int, default=3, help="predictions, taken in turns; the median counts")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves it as it is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/crabnet_time")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    work = Path(arguments.work).resolve()
    known = labelled("matbench_expt_gap", work)
    library = labelled(LIBRARY, work).inputs[: arguments.rows]
    with tempfile.TemporaryDirectory() as folder:
        ours = our_run(arguments, known, work)
        theirs = their_run(arguments, known, Path(folder))
        rates = prediction_rates(ours, theirs, library, arguments)
    entries = records(arguments, known, ours, theirs, rates, len(library))
    append(RESULTS, *entries)
    for entry in entries:
        said = " (extrapolated)" if entry.get("extrapolated") else ""
        print(f"{entry['model']:44} {entry['metric']:32} {entry['value']:10.4g} {entry['unit']}{said}")


@dataclass
class Run:
    """One training."""

    name: str
    model: Any
    seconds: float
    mae: float | None
    """Of the test rows; None if the training was cut short to be timed."""
    epochs: float
    extrapolated: bool = False


def our_run(arguments: argparse.Namespace, known: LabelledTable, work: Path) -> Run:
    """A fresh fine-tuning; its time is the wall time from outside."""
    Pretraining(arguments.backbone).require_scorable(known)
    tuning = Tuning(arguments.backbone, (f"fit.epochs={arguments.epochs}",), arguments.device)
    split = f"fold_{arguments.fold}"
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder) / "run"
        started = time.perf_counter()
        predicted = fine_tuned(known, split, tuning, arguments.seed, out)
        seconds = time.perf_counter() - started
        model = load_predictor(out)
    mae = float(np.abs(predicted.value_T - known.label_R[known.test_rows(split)]).mean())
    name = f"{Path(arguments.backbone).name} fine-tuned, {arguments.epochs:g} epochs"
    return Run(name, model, seconds, mae, arguments.epochs)


def their_run(arguments: argparse.Namespace, known: LabelledTable, folder: Path) -> Run:
    """CrabNet with its defaults, but for what it would draw and save."""
    import pandas as pd

    timed = timed_crabnet(load_crabnet(folder), arguments.crabnet_epochs)
    test_R = known.test_rows(f"fold_{arguments.fold}")
    frame = pd.DataFrame({"formula": np.array(known.inputs, dtype=object), "target": known.label_R})
    device = torch.device(resolve_device(arguments.device))
    with contextlib.chdir(folder), quiet():
        model = timed(
            compute_device=device, random_state=arguments.seed, verbose=False, losscurve=False, learningcurve=False,
            save=False,
        )  # fmt: skip
        started = time.perf_counter()
        try:
            model.fit(frame[~test_R].reset_index(drop=True))
        except Stopped:
            median = float(np.median(model.epoch_seconds))
            return Run("CrabNet 2.0.8", model, median * DEFAULT_EPOCHS, None, len(model.epoch_seconds), True)
        seconds = time.perf_counter() - started
        predicted = model.predict(frame[test_R].reset_index(drop=True))
    mae = float(np.abs(np.ravel(predicted) - known.label_R[test_R]).mean())
    return Run("CrabNet 2.0.8", model, seconds, mae, len(model.epoch_seconds))


def prediction_rates(ours: Run, theirs: Run, formulas: list[str], arguments: argparse.Namespace) -> tuple[float, float]:
    """Rows a second from formulas to numbers, in turns, the median of the rounds."""
    import pandas as pd

    device = resolve_device(arguments.device)
    encoder = backbone_encoder(arguments.backbone)
    frame = pd.DataFrame({"formula": np.array(formulas, dtype=object), "target": np.zeros(len(formulas))})

    def our_predictions() -> None:
        predict_members([ours.model], Examples(encoder(formulas).tokens), device)

    def their_predictions() -> None:
        with quiet():
            theirs.model.predict(frame.copy())

    seconds = [[timed(predict) for predict in (our_predictions, their_predictions)] for _ in range(arguments.rounds)]
    our_seconds, their_seconds = np.median(seconds, axis=0)
    return len(formulas) / our_seconds, len(formulas) / their_seconds


def timed(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """CrabNet draws bars and prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def records(
    arguments: argparse.Namespace, known: LabelledTable, ours: Run, theirs: Run, rates: tuple[float, float], rows: int
) -> list[dict[str, Any]]:
    """Times, errors, rates and ratios; the ratio of times only where the published error was reached."""
    common = {
        "benchmark": "crabnet_time", "task": "expt_gap", "split": arguments.fold, "threads": torch.get_num_threads(),
    }  # fmt: skip
    test_rows = int(known.test_rows(f"fold_{arguments.fold}").sum())
    labels = Pretraining(arguments.backbone).external_labels()
    entries = []
    for run, rate in ((ours, rates[0]), (theirs, rates[1])):
        told = {**common, "model": run.name, "epochs": run.epochs}
        told["external_labels"] = labels if run is ours else None
        measured: list[tuple[str, str, float | None, int]] = [
            ("seconds", "s", run.seconds, test_rows),
            ("mae", known.unit, run.mae, test_rows),
            ("rows_per_second", "1/s", rate, rows),
        ]
        entries += [
            {
                **told,
                "metric": metric,
                "unit": unit,
                "value": value,
                "n": count,
                "extrapolated": run.extrapolated and metric == "seconds",
            }
            for metric, unit, value, count in measured
            if value is not None
        ]
    ratios = [("ratio:prediction_time", rates[0] / rates[1], False)]
    if ours.mae is not None and ours.mae <= PUBLISHED:
        ratios.append(("ratio:training_time", theirs.seconds / ours.seconds, theirs.extrapolated))
    else:
        print(f"{ours.mae:.4f} eV is above CrabNet's {PUBLISHED} eV: no ratio of training times", flush=True)
    entries += [
        {**common, "model": ours.name, "metric": metric, "unit": "", "value": value, "extrapolated": guessed}
        for metric, value, guessed in ratios
    ]
    device = resolve_device(arguments.device).type
    return [record(device, arguments.seed, **entry) for entry in entries]


if __name__ == "__main__":
    try:
        main()
    except MatfmError as error:
        raise SystemExit(str(error)) from error
