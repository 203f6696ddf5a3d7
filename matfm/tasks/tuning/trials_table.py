"""`trials.csv`: every trial of a search with its settings, scores and the reason of its end."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from matfm.core.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matfm.tasks.tuning.study import Ended


def write_trials(path: Path, trials: Sequence[Ended], settings: Sequence[str], folds: int) -> None:
    """One row a trial; empty cells where there is nothing.

    Columns: trial, state, score, score_1 … of the folds, seconds, reason, metrics (mean over the folds), the settings,
    and `evaluations`: the score so far at each place that was reached, as `place:score`.
    """
    metrics = {
        f"{target} {name}": None
        for trial in trials
        for target, scores in trial.told.get("metrics", {}).items()
        for name in scores
    }
    of_folds = [f"score_{number + 1}" for number in range(folds)]
    header = ["trial", "state", "score", *of_folds, "seconds", "reason", *metrics, *settings, "evaluations"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        writer.writerow(
            {
                "trial": trial.number,
                "state": trial.state,
                "score": "" if trial.score is None else trial.score,
                **dict(zip(of_folds, trial.told.get("folds", ()), strict=False)),
                "seconds": round(trial.seconds, 1),
                "reason": trial.told.get("reason", ""),
                **{
                    f"{target} {name}": value
                    for target, scores in trial.told.get("metrics", {}).items()
                    for name, value in scores.items()
                },
                **trial.told.get("settings", {}),
                "evaluations": " ".join(f"{place}:{score:.6g}" for place, score in sorted(trial.reports.items())),
            }
        )
    write_text(path, text.getvalue())
