"""Pictures of a run, drawn from its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matfm.core.files import atomic_path
from matfm.core.run_log import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 4.0
_TRAIN, _VALID, _GUIDE = "#4477aa", "#ee6677", "#999999"


def draw_curves(run: Path) -> None:
    """`curves.png`: loss, learning rate and held-out score against the step, from `log.jsonl`."""
    records = read_log(run / "log.jsonl")
    trained = [record for record in records if "loss" in record]
    valid = [record for record in records if "valid" in record]
    figure, (losses, rates) = _figure(2, 2.4 * _HEIGHT)
    losses.plot([r["step"] for r in trained], [r["loss"] for r in trained], color=_TRAIN, label="training loss")
    if valid:
        losses.plot(
            [r["step"] for r in valid],
            [r["valid"]["score"] for r in valid],
            "o-",
            color=_VALID,
            label="validation score",
        )
    losses.set(xlabel="step", ylabel="loss", yscale="log")
    losses.legend(frameon=False)
    rates.plot([r["step"] for r in trained], [r["lr"] for r in trained], color=_TRAIN)
    rates.set(xlabel="step", ylabel="learning rate")
    _save(figure, run / "curves.png")


def draw_parity(run: Path, name: str, unit: str, true: np.ndarray, predicted: np.ndarray, title: str) -> None:
    """`parity.png`: predicted against true values, with the mean absolute error."""
    figure, (axes,) = _figure(1, 1.15 * _HEIGHT)
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color=_GUIDE, linewidth=1, zorder=0)
    axes.scatter(true, predicted, s=8, alpha=0.35, color=_TRAIN, linewidths=0)
    mae = float(np.abs(true - predicted).mean())
    suffix = f" ({unit})" if unit else ""
    axes.set(xlabel=f"true {name}{suffix}", ylabel=f"predicted {name}{suffix}", title=title, aspect="equal")
    axes.text(0.04, 0.95, f"MAE {mae:.3f} {unit}\nn = {len(true)}", transform=axes.transAxes, va="top")
    _save(figure, run / "parity.png")


def draw_roc(run: Path, true: np.ndarray, score: np.ndarray, title: str) -> None:
    """`roc.png`: true against false positive rate of a binary classifier."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, (axes,) = _figure(1, 1.15 * _HEIGHT)
    false_rate, true_rate, _ = roc_curve(true, score)
    axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=1)
    axes.plot(false_rate, true_rate, color=_TRAIN, label=f"area {roc_auc_score(true, score):.3f}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    axes.legend(frameon=False, loc="lower right")
    _save(figure, run / "roc.png")


def _figure(panels: int, width: float) -> tuple[Figure, Any]:
    """A figure without pyplot's global state, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
