"""`matfm tune`: search the settings of a fine-tuning on folds of its training rows, then train with the best."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from matfm.chem.split_file import inputs_digest
from matfm.core.config import from_mapping, to_mapping
from matfm.core.files import write_text
from matfm.core.locks import exclusive
from matfm.core.process import refuse_several
from matfm.core.run_directory import RunDirectory
from matfm.core.toml_text import toml_text, toml_value
from matfm.errors import MatfmError, RunError
from matfm.tasks import cards, finetune, labelled_rows
from matfm.tasks.devices import resolve_device
from matfm.tasks.finetune import FinetuneConfig
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import backbone_kind
from matfm.tasks.labelled_rows import LabelledRows
from matfm.tasks.predictions import predict_members
from matfm.tasks.predictor import check_backbone, in_prediction_forms, in_training_forms, train_predictor
from matfm.tasks.splitting import UsableRows
from matfm.tasks.tables import STANDARD_INPUT, read_table
from matfm.tasks.targets import with_heads
from matfm.tasks.tuning.inner_folds import Fold, inner_folds
from matfm.tasks.tuning.pictures import draw_search
from matfm.tasks.tuning.search_space import (
    Space,
    check_space,
    default_space,
    draw,
    read_space,
    usual_settings,
    with_settings,
)
from matfm.tasks.tuning.trials_table import write_trials

if TYPE_CHECKING:
    import optuna

    from matfm.tasks.tuning.study import Ended, Study

PRUNERS = ("median", "hyperband", "none")
BEST, SPACE = "best.toml", "space.toml"
OPTIMISTIC = (
    "the validation score of the best trial is optimistic: it is the smallest of several, chosen on these rows; "
    "judge by the test score, on rows that took no part in the search"
)
_TRIALS, _REFIT = "trials", "refit"


@dataclass(frozen=True)
class TuneConfig:
    """`matfm tune`."""

    finetune: FinetuneConfig
    """Table, split and what is not searched. A trial trains one model a fold; the ensemble is of the last training."""
    space: dict[str, Any] | None = None
    """What is searched, as `matfm.tasks.tuning.search_space.read_space` reads it; None for the default space."""
    fixed: tuple[str, ...] = ()
    """Settings, such as fit.epochs, that were chosen: they are not in the default space, nor may be in `space`."""
    trials: int = 30
    """Trials in all, over all processes that work on the search."""
    timeout: float = 0.0
    """Seconds after which no trial begins; 0 is without end."""
    folds: int = 3
    """Folds of the training and validation rows that a trial is scored on; 1 takes the validation rows of the split."""
    pruner: str = "median"
    """Which trials are given up early: median (worse than half of the others so far), hyperband or none."""
    refit: bool = True
    """Whether to fine-tune with the best settings at the end, and score the test rows."""

    def __post_init__(self) -> None:
        for name in ("trials", "folds"):
            if getattr(self, name) < 1:
                raise MatfmError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.timeout < 0:
            raise MatfmError(f"timeout is {self.timeout}; it must not be negative")
        if self.pruner not in PRUNERS:
            raise MatfmError(f"pruner is {self.pruner!r}; choose one of {', '.join(PRUNERS)}")


@dataclass(frozen=True)
class Search:
    """What all trials share."""

    config: FinetuneConfig
    """With kind and batch size known."""
    space: Space
    labelled: LabelledRows
    folds: list[Fold]
    device: torch.device

    @property
    def evaluations(self) -> int:
        """Places in a fold at which trials are compared."""
        return self.config.fit.evaluations


class _GivenUp(Exception):  # noqa: N818 (not an error: it ends a trial)
    """The pruner ended the trial."""


def run(config: TuneConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Search, write the best settings as `best.toml`, train with them; returns the summary.

    Several processes with `resume` may work on one folder; the last one to end writes the results. The test rows of the
    split take no part before the last training is scored.

    Raises:
        MatfmError: Optuna is not installed, a setting that cannot be searched, or what fine-tuning would refuse.
        RunError: no trial reached its end, or the user interrupted.
    """
    refuse_several("matfm tune")
    study_module = _study_module()
    search = _prepare(config)
    resolved = {
        **to_mapping(config),
        "finetune": to_mapping(search.config),
        "space": _entries(search.space),
        "rows_sha256": _rows_digest(search.labelled),
    }
    directory = RunDirectory.open(out, resolved, resume, free=frozenset({"trials", "timeout"}))
    if (finished := directory.finished_summary()) is not None and finished["trials"]["counted"] >= config.trials:
        return finished
    write_text(out / SPACE, _space_text(search.space))
    pruner = study_module.pruner_named(config.pruner, len(search.folds), search.evaluations)
    study = study_module.Study(out, pruner, search.config.seed)
    _work(config, search, study, out)
    with exclusive(out / "finish.lock"):
        return _finish(config, search, study, directory)


def _study_module() -> Any:
    """The module that imports Optuna."""
    try:
        from matfm.tasks.tuning import study
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "optuna":
            raise
        raise MatfmError("matfm tune needs Optuna, which is not installed; pip install 'matfm[tune]'") from error
    return study


def _prepare(config: TuneConfig) -> Search:
    """Read the table, make the folds and check that every fold and every setting can be trained."""
    tuning = config.finetune
    if tuning.table == STANDARD_INPUT:
        raise MatfmError("matfm tune reads the table several times; give a file instead of standard input")
    device = resolve_device(tuning.device)
    check_backbone(tuning.fit)
    kind = backbone_kind(tuning.backbone, tuning.kind)
    # The optimizer stays open where it is not set: each strategy has its own.
    tuning = replace(tuning, kind=kind, fit=replace(tuning.fit.for_kind(kind), optimizer=tuning.fit.optimizer))
    fixed = frozenset(config.fixed)
    space = default_space(tuning, fixed) if config.space is None else read_space(config.space, "--space")
    check_space(space, tuning, fixed)
    table = read_table(tuning.table)
    labelled = labelled_rows.load_rows(tuning, table)
    labels, targets = labelled.examples.tokens.targets_RK, labelled.targets
    usable = UsableRows(table, tuning.table, tuning.input, kind, labelled.rows, labels, targets.classes)
    folds = inner_folds(tuning.split, usable, labelled.parts, config.folds, tuning.seed)
    for number, (train, valid) in enumerate(folds):
        with_heads(targets, tuning.fit, labelled.examples.take(train))
        if np.isnan(labelled.examples.take(valid).exact_labels()).all():
            raise MatfmError(f"fold {number + 1} of {len(folds)} has no row with an exact label; choose fewer --folds")
    return Search(tuning, space, labelled, folds, device)


def _rows_digest(labelled: LabelledRows) -> str:
    """Of inputs, labels and parts: the scores of a resumed search are those of the same rows."""
    digest = hashlib.sha256(inputs_digest([*labelled.inputs, *labelled.parts]).encode())
    digest.update(np.ascontiguousarray(labelled.examples.tokens.targets_RK).tobytes())
    return digest.hexdigest()


def _work(config: TuneConfig, search: Search, study: Study, out: Path) -> None:
    """Trials until there are enough, or the time is over."""
    until = time.monotonic() + config.timeout if config.timeout else float("inf")
    usual = usual_settings(search.space, search.config)
    bar = tqdm(total=config.trials, desc="tune", unit="trial", leave=False, disable=None)
    with study.working(), bar:
        while time.monotonic() < until and (trial := study.begin(config.trials, usual)) is not None:
            folder = out / _TRIALS / str(trial.number)
            try:
                _try(search, study, trial, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            ended = study.ended()
            bar.n = len(ended)
            scores = [known.score for known in ended if known.score is not None]
            bar.set_postfix(best=f"{min(scores):.4g}" if scores else "-")


def _try(search: Search, study: Study, trial: optuna.Trial, folder: Path) -> None:
    """One trial on all folds, and how it ended."""
    settings = draw(search.space, search.config, trial)
    trial.set_user_attr("settings", settings)
    report = _Report(trial, search.evaluations)
    try:
        fit = with_settings(search.config, settings).fit
        metrics = [
            _fold(search, fit, fold, folder / str(number), report.of_fold(number))
            for number, fold in enumerate(search.folds)
        ]
    except _GivenUp:
        study.give_up(trial, f"pruned in fold {len(report.best)} of {len(search.folds)}: its score so far was too high")
    except (MatfmError, torch.OutOfMemoryError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise
        study.fail(trial, " ".join(str(error).split()))
    else:
        trial.set_user_attr("folds", report.best)
        trial.set_user_attr("metrics", _mean(metrics))
        study.complete(trial, float(np.mean(report.best)))


class _Report:
    """Tells the trial its score so far: the mean over the folds of the best evaluation of each."""

    def __init__(self, trial: optuna.Trial, evaluations: int) -> None:
        self.trial = trial
        self.evaluations = evaluations
        self.best: list[float] = []

    def of_fold(self, number: int) -> Any:
        """What the training of a fold is to tell of its evaluations."""

        def on_evaluation(step: int, steps: int, score: float) -> None:
            if len(self.best) == number:
                self.best.append(score)
            self.best[number] = min(self.best[number], score)
            # Tenths of the training, so that short and long ones can be compared.
            self.trial.report(float(np.mean(self.best)), number * self.evaluations + step * self.evaluations // steps)
            if self.trial.should_prune():
                raise _GivenUp

        return on_evaluation


def _fold(search: Search, fit: FitConfig, fold: Fold, folder: Path, on_evaluation: Any) -> dict[str, dict[str, float]]:
    """Train on the fold's training rows; target -> metric -> value of its validation rows."""
    labelled, seed = search.labelled, search.config.seed
    train_rows, valid_rows = fold
    train, valid = (labelled.examples.take(rows) for rows in fold)
    cells = [labelled.inputs[row] for row in train_rows.tolist()]
    model, _ = train_predictor(
        fit,
        targets := with_heads(labelled.targets, fit, train),
        labelled.encoder,
        in_training_forms(train, labelled.encoder, cells, fit.enumerate, seed),
        valid,
        folder,
        seed,
        search.device,
        {},
        label="fold",
        on_evaluation=on_evaluation,
    )
    cells = [labelled.inputs[row] for row in valid_rows.tolist()]
    whole = in_prediction_forms(valid, labelled.encoder, cells, fit.predict_enumerations)
    predicted = predict_members([model], whole, search.device)
    parts = np.full(len(valid), "valid", dtype=object)
    shutil.rmtree(folder, ignore_errors=True)
    return finetune.score_parts(replace(labelled, examples=valid, parts=parts, targets=targets), predicted.value)[
        "valid"
    ]


def _mean(folds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean over the folds of every metric that all of them have; intervals and counts are of one fold alone."""
    first = folds[0]
    return {
        target: {
            name: float(np.mean([fold[target][name] for fold in folds]))
            for name in scores
            if name not in ("n", "mae_low", "mae_high") and all(name in fold[target] for fold in folds)
        }
        for target, scores in first.items()
    }


def _finish(config: TuneConfig, search: Search, study: Study, directory: RunDirectory) -> dict[str, Any]:
    """Tables, picture, `best.toml` and the last training, unless other processes still work on trials."""
    out, running = directory.path, study.running()
    if running:
        return {"task": "tune", "finished": False, "running": running, "run": str(out)}
    shutil.rmtree(out / _TRIALS, ignore_errors=True)
    ended = study.ended()
    counts = {state: sum(t.state == state for t in ended) for state in ("complete", "pruned", "failed", "interrupted")}
    counts["counted"] = len(ended) - counts["interrupted"]
    finished = directory.finished_summary()
    if finished is not None and finished["trials"]["counted"] == counts["counted"]:
        return finished  # another process was quicker
    names = [parameter.name for parameter in search.space]
    write_trials(out / "trials.csv", ended, names, len(search.folds))
    complete = [trial for trial in ended if trial.score is not None]
    if not complete:
        raise RunError(_nothing_complete(ended, out))
    best = min(complete, key=lambda trial: (trial.score, trial.number))
    importance = study.importance()
    draw_search(out, [(t.number, t.score, t.state) for t in ended if t.state != "interrupted"], importance)
    chosen = with_settings(search.config, best.told["settings"])
    write_text(out / BEST, _best_text(chosen, best, search, out / BEST))
    summary = {
        "task": "tune",
        "finished": True,
        "trials": counts,
        "folds": len(search.folds),
        "score": _SCORE[search.config.task],
        "best": _described(best),
        "usual": next((_described(trial) for trial in complete if trial.number == complete[0].number == 0), None),
        "note": OPTIMISTIC,
        "importance": importance,
        "config": str(out / BEST),
        "refit": _refit(chosen, best, out) if config.refit else None,
        "seconds_of_trials": round(sum(trial.seconds for trial in ended), 1),
        "versions": {**cards.versions(), "optuna": version("optuna")},
    }
    cards.write_environment(out, search.config.device)
    directory.finish(summary)
    return directory.summary()


_SCORE = {
    "regression": "mean absolute error in standard deviations of the validation labels",
    "classification": "mean negative log-likelihood of the validation labels (nats)",
}


def _described(trial: Ended) -> dict[str, Any]:
    told = trial.told
    return {
        "trial": trial.number,
        "score": trial.score,
        "score_of_folds": told["folds"],
        "metrics": told["metrics"],
        "settings": told["settings"],
    }


def _refit(config: FinetuneConfig, best: Ended, out: Path) -> dict[str, Any]:
    """Fine-tune with the best settings in a folder of its own; another best trial later gets another folder."""
    folder = out / _REFIT / f"trial-{best.number}"
    summary = finetune.run(config, folder, resume=(folder / "config.json").is_file())
    return {"run": str(folder), "rows": summary["rows"], "metrics": summary["metrics"]}


def _nothing_complete(ended: list[Ended], out: Path) -> str:
    reason = next((trial.told["reason"] for trial in ended if trial.state == "failed"), None)
    said = f"; the first failed: {reason}" if reason else "; give it more time"
    return f"none of {len(ended)} trials reached its end{said} ({out / 'trials.csv'} lists them)"


def _entries(space: Space) -> dict[str, Any]:
    return {parameter.name: parameter.entry() for parameter in space}


def _space_text(space: Space) -> str:
    lines = ["# What was searched; change it and give it with --space."]
    lines += [f"{toml_value(name)} = {toml_value(entry)}" for name, entry in _entries(space).items()]
    return "\n".join(lines) + "\n"


def _best_text(config: FinetuneConfig, best: Ended, search: Search, path: Path) -> str:
    """The whole configuration: a later version with other defaults trains the same."""
    values = to_mapping(config)
    assert from_mapping(FinetuneConfig, values, BEST) == config
    said = [
        f"# Trial {best.number}: {best.score:.4f}, {_SCORE[config.task]},",
        f"# mean of {len(search.folds)} fold(s); optimistic, as the best of several. Train with it:",
        f"#   matfm finetune --config {path} --out DIR",
        "",
    ]
    return "\n".join(said) + toml_text(values)
