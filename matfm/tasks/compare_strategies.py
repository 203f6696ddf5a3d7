"""`matfm compare-strategies`: one table and split, every strategy; what each trains, reaches and costs."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matfm.core.config import to_mapping
from matfm.core.files import write_json, write_text
from matfm.core.locks import alone_in_folder
from matfm.core.process import refuse_several
from matfm.core.run_directory import RunDirectory
from matfm.errors import MatfmError, RunError
from matfm.models.backbones import load_encoder
from matfm.models.deltas import add_delta, deltas_of
from matfm.models.strategies import DELTA, STRATEGIES
from matfm.tasks import cards, finetune, labelled_rows, plots
from matfm.tasks.finetune import FinetuneConfig
from matfm.tasks.fit_config import optimizer_of
from matfm.tasks.kinds import SCRATCH, backbone_encoder
from matfm.tasks.predictor import check_backbone
from matfm.tasks.prompting.inputs import read_for
from matfm.tasks.tables import read_table

MEASURED = "measured.json"
"""In the folder of each strategy: its row of the comparison, which says that it is done."""
_MEGABYTE = 2**20


@dataclass(frozen=True)
class CompareStrategiesConfig:
    """`matfm compare-strategies`."""

    finetune: FinetuneConfig
    """Table, split and training, for all strategies alike; its strategy is not used, and where it has no optimizer of
    its own each strategy gets the one that suits it."""
    strategies: tuple[str, ...] | None = None
    """Which ones, in this order; all that the backbone can be trained with if None."""

    def __post_init__(self) -> None:
        for name in self.strategies or ():
            if name not in STRATEGIES:
                raise MatfmError(f"--strategies names {name!r}; choose from {', '.join(STRATEGIES)}")
        if self.strategies is not None and len(set(self.strategies)) < max(len(self.strategies), 1):
            raise MatfmError(f"--strategies is {','.join(self.strategies)!r}; name each strategy once")
        if len(self.finetune.targets) != 1:
            raise MatfmError("compare-strategies takes one target column; compare once for each")

    def of(self, strategy: str) -> FinetuneConfig:
        """The fine-tuning with a strategy."""
        return replace(self.finetune, fit=replace(self.finetune.fit, strategy=strategy))


@dataclass(frozen=True)
class Measured:
    """A row of the comparison. Scores are errors (mae) or, of classes, balanced accuracies."""

    strategy: str
    trainable_share: float
    """Trained numbers, those of the head included, as a share of all."""
    learning_rate: float
    valid: float | None
    """Score of the validation rows, None where there are none."""
    test: float | None
    seconds: float
    """Of the whole run, evaluations and pictures included."""
    peak_mb: float
    """Most memory of its process (on CUDA: of the tensors), in MiB."""
    start_mb: float
    """Of that, taken before the table was read."""


@alone_in_folder
def run(config: CompareStrategiesConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Fine-tune with every strategy, each in a process of its own, and write the comparison; returns the summary.

    Raises:
        MatfmError: what `matfm finetune` would refuse, before anything is written.
        RunError: a strategy failed; those that are done are kept for `resume`.
    """
    refuse_several("matfm compare-strategies")
    chosen, left_out = _suitable(config)
    labelled = labelled_rows.load_rows(config.finetune, read_table(config.finetune.table))
    directory = RunDirectory.open(out, to_mapping(config), resume)
    if (finished := directory.finished_summary()) is not None:
        return finished
    rows = [_measured(config.of(strategy), out / strategy) for strategy in chosen]
    dummy = _dummy(labelled)
    table = [{**asdict(row), **_gains(row, rows, dummy)} for row in rows]
    known = labelled.targets.properties[0]
    metric = "balanced accuracy" if labelled.targets.classes else f"mae ({known.unit})" if known.unit else "mae"
    _write_table(out, table)
    title = f"{known.name}, {metric}"
    write_text(out / "comparison.md", _markdown(config, table, dummy, title, left_out))
    plots.draw_strategies(out, table, dummy, title)
    summary = {
        "task": "compare-strategies",
        "target": known.name,
        "metric": metric,
        "dummy": dummy,
        "strategies": table,
        "left_out": left_out,
        "backbone": config.finetune.backbone,
        "split": config.finetune.split,
        "seed": config.finetune.seed,
        "versions": cards.versions(),
    }
    cards.write_environment(out, config.finetune.device)
    directory.finish(summary)
    return directory.summary()


def _suitable(config: CompareStrategiesConfig) -> tuple[list[str], dict[str, str]]:
    """Strategies to compare, and why the others of all cannot be trained; one that is asked for must be."""
    chosen, left_out = [], {}
    for strategy in config.strategies or STRATEGIES:
        try:
            _rehearse(config.of(strategy))
        except MatfmError as error:
            if config.strategies is not None or strategy == "full":
                raise
            left_out[strategy] = str(error)
        else:
            chosen.append(strategy)
    return chosen, left_out


def _rehearse(config: FinetuneConfig) -> None:
    """Raise MatfmError unless the backbone can be trained with the strategy."""
    fit, spec = config.fit, config.fit.delta()
    check_backbone(fit)
    if spec is None:
        return
    read_for(backbone_encoder(fit.backbone, config.kind), spec, config.targets)
    if not fit.backbone.startswith(SCRATCH):
        encoder = load_encoder(fit.backbone, config.kind)
        if not deltas_of(encoder):
            add_delta(encoder, DELTA, spec, "random")


def _measured(config: FinetuneConfig, folder: Path) -> Measured:
    """The row of a strategy: read where it is done, else trained in a fresh process, whose memory is its own."""
    done = folder / MEASURED
    if not done.is_file():
        # Spawned, not forked: a fork would count this process's memory, and torch's threads do not survive it.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                row = pool.submit(_train, config, folder).result()
            except BrokenProcessPool as error:
                raise RunError(
                    f"the process of strategy {config.strategy!r} was ended (out of memory?); go on with --resume"
                ) from error
        write_json(done, asdict(row))
    return Measured(**json.loads(done.read_text("utf-8")))


def _train(config: FinetuneConfig, folder: Path) -> Measured:
    start = _peak_memory(config.device)
    summary = finetune.run(config, folder, resume=(folder / "config.json").is_file())
    name, metric = config.targets[0], "mae" if config.task == "regression" else "balanced_accuracy"
    scores = {part: summary["metrics"].get(part, {}).get(name, {}).get(metric) for part in ("valid", "test")}
    return Measured(
        config.strategy,
        summary["trainable_share"],
        (config.fit.optimizer or optimizer_of(config.strategy)).learning_rate,
        scores["valid"],
        scores["test"],
        summary["seconds"],
        round(_peak_memory(config.device), 1),
        round(start, 1),
    )


def _peak_memory(device: str) -> float:
    """Most memory that this process took so far, MiB; on CUDA, its tensors."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / _MEGABYTE
    import resource

    # Kilobytes, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MEGABYTE


def _dummy(labelled: labelled_rows.LabelledRows) -> dict[str, float]:
    """Score by part of a predictor that knows no inputs: the training rows' mean, or for classes always one of them."""
    labels = labelled.examples.exact_labels()[:, 0].astype(np.float64)
    mean = np.nanmean(labels[labelled.parts == "train"])
    scores = {}
    for part in ("valid", "test"):
        true = labels[labelled.parts == part]
        true = true[~np.isnan(true)]
        if len(true):
            classes = labelled.targets.classes
            scores[part] = 1 / len(np.unique(true)) if classes else float(np.abs(true - mean).mean())
    return scores


def _gains(row: Measured, rows: list[Measured], dummy: dict[str, float]) -> dict[str, float | None]:
    """Improvement over the dummy as a share of full fine-tuning's, by part; None without full or the part."""
    full = next((other for other in rows if other.strategy == "full"), None)
    gains: dict[str, float | None] = {}
    for part in ("valid", "test"):
        score, best = getattr(row, part), None if full is None else getattr(full, part)
        if score is None or best is None or dummy[part] == best:
            gains[f"{part}_share_of_full"] = None
        else:
            gains[f"{part}_share_of_full"] = (dummy[part] - score) / (dummy[part] - best)
    return gains


def _write_table(out: Path, table: list[dict[str, Any]]) -> None:
    """`comparison.csv`; empty cells where there is nothing."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(out / "comparison.csv", text.getvalue())


def _markdown(
    config: CompareStrategiesConfig,
    table: list[dict[str, Any]],
    dummy: dict[str, float],
    title: str,
    left_out: dict[str, str],
) -> str:
    tuning = config.finetune
    lines = [
        f"# Strategies: {title}",
        "",
        (
            f"`{tuning.table}`, split `{tuning.split}`, backbone `{tuning.backbone}`, {tuning.fit.epochs:g} epochs, "
            f"seed {tuning.seed}. Made by `{cards.command_line()}`."
        ),
        "",
        (
            "| strategy | trained share | learning rate | validation | test | gain, share of full's (validation) "
            "| gain, share of full's (test) | seconds | memory at most (MiB) |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['strategy']} | {row['trainable_share']:.2%} | {row['learning_rate']:g} "
            f"| {_cell(row['valid'], '.4f')} | {_cell(row['test'], '.4f')} "
            f"| {_cell(row['valid_share_of_full'], '.1%')} | {_cell(row['test_share_of_full'], '.1%')} "
            f"| {row['seconds']:.0f} | {row['peak_mb']:.0f} ({row['peak_mb'] - row['start_mb']:.0f} in the run) |"
            for row in table
        ),
        f"| dummy | | | {_cell(dummy.get('valid'), '.4f')} | {_cell(dummy.get('test'), '.4f')} | 0.0% | 0.0% | | |",
        "",
        (
            "The trained share counts the head, which every strategy trains. The gain is the improvement over the "
            "dummy (the mean of the training rows, or always one class). Choose by the validation rows; the test rows "
            "say what the choice is worth."
        ),
        "",
        *(f"Left out: `{strategy}`. {reason[:1].upper()}{reason[1:]}." for strategy, reason in left_out.items()),
        *([""] if left_out else []),
    ]
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
