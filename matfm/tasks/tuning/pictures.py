"""The picture of a search: what it reached, trial by trial, and which settings matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from matfm.tasks.plots import TRAIN, VALID, new_figure, save_figure

_PANEL = 5.6
"""Width of a panel, inches."""
_ENDED = "#999999"


def draw_search(run: Path, trials: Sequence[tuple[int, float | None, str]], importance: dict[str, float]) -> None:
    """`search.png`: score of every trial (number, score, state) and the best so far; how much each setting matters."""
    figure, axes = new_figure(2 if importance else 1, (2 if importance else 1) * _PANEL)
    scored = [(number, score) for number, score, _ in trials if score is not None]
    numbers, scores = [number for number, _ in scored], [score for _, score in scored]
    axes[0].plot(numbers, np.minimum.accumulate(scores), color=VALID, drawstyle="steps-post", label="best so far")
    axes[0].scatter(numbers, scores, s=18, color=TRAIN, label="complete", zorder=2)
    for state, marker in (("pruned", "|"), ("failed", "x")):
        ended = [number for number, _, other in trials if other == state]
        if ended:
            axes[0].scatter(ended, [max(scores)] * len(ended), s=24, color=_ENDED, marker=marker, label=state)
    axes[0].set(xlabel="trial", ylabel="validation score (lower is better)")
    axes[0].legend(frameon=False)
    if importance:
        names = list(importance)[::-1]
        axes[1].barh([name.removeprefix("fit.") for name in names], [importance[name] for name in names], color=TRAIN)
        axes[1].set(xlabel="importance (PED-ANOVA)")
    save_figure(figure, run / "search.png")
