"""A study of Optuna in a folder: trials that several processes share, that survive kills and say why they ended.

Import it where Optuna is needed: nothing else in the package imports Optuna.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from matfm.core.files import readable_os_errors
from matfm.core.locks import exclusive, lives, sign_of_life

JOURNAL = "journal.log"
STARTUP = 10
"""Trials drawn at random before the sampler learns from them."""
_WORKERS, _TURN = "workers", "turn.lock"
_WORKER, _REASON = "worker", "reason"
_COUNTED = frozenset({"complete", "pruned", "failed", "running"})
_FEWEST = 4
"""Complete trials that it takes to say which settings matter."""


@dataclass(frozen=True)
class Ended:
    """A trial that ended."""

    number: int
    state: str
    """complete, pruned, failed, or interrupted: its process was ended, and it does not count."""
    score: float | None
    """Of a complete trial."""
    reports: dict[int, float]
    """Score so far by place: the number of the evaluation, counted over the folds."""
    seconds: float
    told: dict[str, Any]
    """What the search told of it: its settings, the reason of its end, …"""


class RunningMedian(BasePruner):
    """Gives up a trial whose score so far is worse than the median of the complete trials' at the same place.

    Optuna's own takes a trial's best score at any place, and so an easy first fold would shield it in all others.
    """

    spared = 0.3
    """Share of every fold's evaluations, from the first on, after which none is given up: rates are still high."""
    judges = 4
    """Complete trials that it takes to judge another."""

    def __init__(self, evaluations: int) -> None:
        self.evaluations = evaluations

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to give up `trial`, which has reported at its newest place."""
        place = trial.last_step
        if place is None or (place - 1) % self.evaluations < self.evaluations * self.spared:
            return False
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = [other.intermediate_values[place] for other in complete if place in other.intermediate_values]
        return len(others) >= self.judges and trial.intermediate_values[place] > float(np.median(others))


def pruner_named(name: str, folds: int, evaluations: int) -> BasePruner:
    """median, hyperband or none, for trials of so many folds with so many evaluations each."""
    if name == "none":
        return NopPruner()
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=folds * evaluations, reduction_factor=3)
    return RunningMedian(evaluations)


class Study:
    """Trials with a smallest score, in `folder/journal.log`.

    Args:
        folder: shared by all processes of the search.
        pruner: which trials are given up.
        seed: of what is drawn; one process alone draws the same trials every time, whether it was killed or not.
    """

    def __init__(self, folder: Path, pruner: BasePruner, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.seed = seed
        self.worker = uuid.uuid4().hex[:12]
        path = folder / JOURNAL
        with exclusive(folder / _TURN), readable_os_errors(path):
            _drop_cut_line(path)
            self.study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path))),
                pruner=pruner,
                study_name="matfm",
                direction="minimize",
                load_if_exists=True,
            )

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this process works on trials: the others see that its trial is not orphaned."""
        with sign_of_life(self.folder / _WORKERS / self.worker):
            yield

    def begin(self, limit: int, usual: dict[str, Any]) -> optuna.Trial | None:
        """A new trial, None if there are `limit` already; the first one has the `usual` settings.

        Trials that a killed process left are closed first and do not count.
        """
        with exclusive(self.folder / _TURN):
            self._close_orphans()
            trials = self.study.get_trials(deepcopy=False)
            counted = sum(_state(trial) in _COUNTED for trial in trials)
            if counted >= limit:
                return None
            if not counted and not any(trial.state == TrialState.WAITING for trial in trials):
                self.study.enqueue_trial(usual)
            trial = self.study.ask()
            trial.set_user_attr(_WORKER, self.worker)
        # The place in the row of counted trials decides, not the process: a resumed search draws what was due.
        seed = int(np.random.SeedSequence([self.seed, counted]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, multivariate=False, constant_liar=True
        )
        return trial

    def complete(self, trial: optuna.Trial, score: float) -> None:
        """The trial reached its end."""
        self.study.tell(trial, score)

    def give_up(self, trial: optuna.Trial, reason: str) -> None:
        """The trial was pruned for its scores."""
        trial.set_user_attr(_REASON, reason)
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: optuna.Trial, reason: str) -> None:
        """The trial could not be trained."""
        trial.set_user_attr(_REASON, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def ended(self) -> list[Ended]:
        """All trials that ended, in their order."""
        return [_ended(trial) for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def running(self) -> int:
        """Trials that living processes work on."""
        with exclusive(self.folder / _TURN):
            self._close_orphans()
            return len(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def importance(self) -> dict[str, float]:
        """Share of each setting in how good trials differ from others (PED-ANOVA, Watanabe et al., IJCAI 2023).

        Nothing where fewer than four trials are complete, or all have one score.
        """
        scores = [trial.score for trial in self.ended() if trial.state == "complete"]
        if len(scores) < _FEWEST or len(set(scores)) == 1:
            return {}
        return {name: float(share) for name, share in optuna.importance.get_param_importances(self.study).items()}

    def _close_orphans(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get(_WORKER)
            if worker is None or not lives(self.folder / _WORKERS / worker):
                self.study.tell(trial.number, state=TrialState.FAIL)


def _state(trial: FrozenTrial) -> str:
    name: str = trial.state.name.lower()
    if name != "fail":
        return name
    return "failed" if _REASON in trial.user_attrs else "interrupted"


def _ended(trial: FrozenTrial) -> Ended:
    state = _state(trial)
    seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
    told = {key: value for key, value in trial.user_attrs.items() if key != _WORKER}
    score = trial.value if state == "complete" else None
    return Ended(trial.number, state, score, dict(trial.intermediate_values), seconds, told)


def _drop_cut_line(path: Path) -> None:
    """A full disk may have cut the last record; what is appended to it could not be read."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as journal:
            journal.truncate(content.rfind(b"\n") + 1)
