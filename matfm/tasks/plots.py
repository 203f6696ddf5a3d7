"""Pictures of a run, drawn from its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matfm.core.diagnostics import KEY
from matfm.core.files import atomic_path
from matfm.core.run_log import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 4.0
TRAIN, VALID, _GUIDE = "#4477aa", "#ee6677", "#999999"


def draw_curves(run: Path) -> None:
    """`curves.png`: loss, learning rate and held-out score against the step, from `log.jsonl`."""
    records = read_log(run / "log.jsonl")
    trained = [record for record in records if "loss" in record]
    valid = [record for record in records if "valid" in record]
    figure, (losses, rates) = new_figure(2, 2.4 * _HEIGHT)
    losses.plot([r["step"] for r in trained], [r["loss"] for r in trained], color=TRAIN, label="training loss")
    if valid:
        losses.plot(
            [r["step"] for r in valid],
            [r["valid"]["score"] for r in valid],
            "o-",
            color=VALID,
            label="validation score",
        )
    # A negative log density may lie below 0.
    scale = "log" if all(record["loss"] > 0 for record in trained) else "linear"
    losses.set(xlabel="step", ylabel="loss", yscale=scale)
    losses.legend(frameon=False)
    rates.plot([r["step"] for r in trained], [r["lr"] for r in trained], color=TRAIN)
    rates.set(xlabel="step", ylabel="learning rate")
    save_figure(figure, run / "curves.png")


def draw_diagnostics(run: Path) -> None:
    """`diagnostics.png`: gradient norms and relative updates of the layers, and activations of the blocks;
    `attention.png`: for each block, what the tokens of one sequence attend to.

    Nothing is drawn where the run was not diagnosed.
    """
    records = [record for record in read_log(run / "log.jsonl") if KEY in record]
    if not records:
        return
    figure, axes = new_figure(4, 5 * _HEIGHT)
    panels = (
        ("gradient norm", "log", lambda seen: seen["gradient_norm"]),
        ("norm of update / norm of weights", "log", lambda seen: seen["update_ratio"]),
        ("standard deviation of activations", "linear", lambda seen: _of_blocks(seen, "std")),
        ("share of dead units", "linear", lambda seen: _of_blocks(seen, "dead")),
    )
    last = records[-1][KEY]
    color_of = _colors(list(dict.fromkeys([*last["update_ratio"], *last["activation"]])))
    for panel, (title, scale, values) in zip(axes, panels, strict=True):
        for layer in values(last):
            points = [
                (record["step"], values(record[KEY])[layer]) for record in records if layer in values(record[KEY])
            ]
            shown = [(step, value) for step, value in points if scale == "linear" or value > 0]
            steps, heights = [step for step, _ in shown], [value for _, value in shown]
            panel.plot(steps, heights, ".-", color=color_of[layer], linewidth=1, label=layer)
        panel.set(xlabel="step", title=title, yscale=scale)
    axes[0].legend(frameon=False, fontsize=5)
    save_figure(figure, run / "diagnostics.png")
    if maps := records[-1][KEY]["attention"]:
        _draw_attention(run, maps)


def draw_parity(run: Path, name: str, unit: str, true: np.ndarray, predicted: np.ndarray, title: str) -> None:
    """`parity.png`: predicted against true values, with the mean absolute error."""
    figure, (axes,) = new_figure(1, 1.15 * _HEIGHT)
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color=_GUIDE, linewidth=1, zorder=0)
    axes.scatter(true, predicted, s=8, alpha=0.35, color=TRAIN, linewidths=0)
    mae = float(np.abs(true - predicted).mean())
    suffix = f" ({unit})" if unit else ""
    axes.set(xlabel=f"true {name}{suffix}", ylabel=f"predicted {name}{suffix}", title=title, aspect="equal")
    axes.text(0.04, 0.95, f"MAE {mae:.3f} {unit}\nn = {len(true)}", transform=axes.transAxes, va="top")
    save_figure(figure, run / "parity.png")


def draw_classes(run: Path, names: Sequence[str], true_R: np.ndarray, probability_RC: np.ndarray, title: str) -> None:
    """`roc.png`: true against false positive rate; of more than two classes each against all others, and beside it
    the share of every true class (row) by predicted class (column).

    Args:
        run: folder.
        names: of the classes.
        true_R: index of each row's class; at least two classes are present.
        probability_RC: or other scores, larger for likelier classes.
        title: of the picture.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    several = len(names) > 2
    of_class = np.stack([true_R == c for c in range(len(names))])
    # Of two classes, the curve of the second says it all; of very many, those of the commonest can be told apart.
    common = np.argsort(-of_class.sum(axis=1), kind="stable")[:_CURVES]
    shown = sorted(c for c in common.tolist() if of_class[c].any()) if several else [1]
    figure, (axes, *beside) = new_figure(1 + several, 1.15 * _HEIGHT * (1 + several))
    axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=1)
    for c, color in zip(shown, _class_colors(len(shown)), strict=True):
        false_rate, true_rate, _ = roc_curve(of_class[c], probability_RC[:, c])
        area = f"area {roc_auc_score(of_class[c], probability_RC[:, c]):.3f}"
        axes.plot(false_rate, true_rate, color=color, label=f"{area}: {_short(names[c])}" if several else area)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    legend = axes.legend(frameon=False, loc="lower right", fontsize=7 if several else None)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names of classes may hold $
    for panel in beside:
        _draw_confusion(panel, names, of_class, probability_RC.argmax(axis=1))
    save_figure(figure, run / "roc.png")


_CURVES, _NAMED, _LETTERS = 8, 20, 20
"""Classes that have a curve of their own; classes with a name beside the confusion matrix; letters of a name."""


def confusion(of_class_CR: np.ndarray, chosen_R: np.ndarray) -> np.ndarray:
    """Shares (C, C) of every true class (row) by chosen class (column); a row of 0 for a class without rows.

    Args:
        of_class_CR: which rows are of a class.
        chosen_R: index of each row's chosen class.
    """
    counts_CC = of_class_CR.astype(np.float64) @ (chosen_R[:, None] == np.arange(len(of_class_CR)))
    shares_CC: np.ndarray = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    return shares_CC


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…"


def _draw_confusion(panel: Any, names: Sequence[str], of_class_CR: np.ndarray, chosen_R: np.ndarray) -> None:
    shares = confusion(of_class_CR, chosen_R)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    panel.set(xlabel="predicted class", ylabel="true class", title="share of the true class", xticks=[], yticks=[])
    if len(names) > _NAMED:
        return
    labels = [_short(name) for name in names]
    panel.set_xticks(range(len(names)), labels, rotation=90, fontsize=7, parse_math=False)
    panel.set_yticks(range(len(names)), labels, fontsize=7, parse_math=False)
    for row, of_true in enumerate(shares):
        for column, share in enumerate(of_true):
            color = "white" if share > 0.5 else "black"
            panel.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=6, color=color)


def _class_colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [TRAIN] if count == 1 else [colormaps["tab10"](c) for c in range(count)]


@dataclass(frozen=True)
class CalibrationPanel:
    """What should be, against what is: curves that lie on the diagonal for calibrated predictions."""

    expected: str
    """Label of the horizontal axis."""
    observed: str
    """Label of the vertical axis."""
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    """Name to horizontal and vertical values."""


def draw_calibration(run: Path, panels: Sequence[CalibrationPanel]) -> None:
    """`calibration.png`: the panels side by side; nothing where there are none."""
    if not panels:
        return
    figure, axes = new_figure(len(panels), 1.15 * _HEIGHT * len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        ends = [end for curve in panel.curves.values() for values in curve for end in (values.min(), values.max())]
        axis.plot([min(ends), max(ends)], [min(ends), max(ends)], color=_GUIDE, linewidth=1, zorder=0)
        for color, (label, (expected, observed)) in zip((TRAIN, VALID), panel.curves.items(), strict=False):
            axis.plot(expected, observed, "o-", color=color, markersize=4, label=label)
        axis.set(xlabel=panel.expected, ylabel=panel.observed, aspect="equal")
        axis.legend(frameon=False)
    save_figure(figure, run / "calibration.png")


def draw_strategies(run: Path, table: list[dict[str, Any]], dummy: dict[str, float], title: str) -> None:
    """`comparison.png`: score against trained share of every strategy, on the test rows or, without, the validation's.

    The line is where a strategy has 90 % of full fine-tuning's improvement over the dummy.
    """
    part = next((part for part in ("test", "valid") if all(row[part] is not None for row in table)), None)
    if part is None:
        return
    figure, (axes,) = new_figure(1, 1.5 * _HEIGHT)
    axes.scatter([row["trainable_share"] for row in table], [row[part] for row in table], color=TRAIN, zorder=2)
    for row in table:
        at = (row["trainable_share"], row[part])
        axes.annotate(row["strategy"], at, xytext=(4, 4), textcoords="offset points", fontsize=8)
    full = next((row[part] for row in table if row["strategy"] == "full"), None)
    if full is not None:
        axes.axhline(dummy[part] - 0.9 * (dummy[part] - full), color=_GUIDE, linewidth=1, zorder=0)
    axes.set(xlabel="trained share of the parameters", ylabel=f"{title} of the {part} rows", xscale="log")
    save_figure(figure, run / "comparison.png")


def draw_points(
    path: Path, panels: dict[str, np.ndarray], color_R: np.ndarray, label: str, classes: tuple[str, ...] = ()
) -> None:
    """Points (R, 2) of the same rows in panels side by side, by title, coloured by numbers or by classes."""
    figure, axes = new_figure(len(panels), 1.1 * _HEIGHT * len(panels))
    for panel, (title, points_R2) in zip(axes, panels.items(), strict=True):
        shown = panel.scatter(
            *points_R2.T, c=color_R, s=6, alpha=0.7, linewidths=0, cmap="tab10" if classes else "viridis"
        )
        panel.set(title=title, xticks=[], yticks=[])
    if classes:
        axes[-1].legend(shown.legend_elements()[0], classes, title=label, frameon=False, fontsize=7)
    else:
        figure.colorbar(shown, ax=list(axes), label=label)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)


def _draw_attention(run: Path, maps: dict[str, list[list[float]]]) -> None:
    figure, axes = new_figure(len(maps), _HEIGHT * len(maps))
    for panel, (block, weights) in zip(axes, maps.items(), strict=True):
        panel.imshow(weights, cmap="viridis", vmin=0, vmax=1)
        panel.set(title=block, xlabel="token attended to", ylabel="token")
    save_figure(figure, run / "attention.png")


def _of_blocks(seen: dict[str, Any], statistic: str) -> dict[str, float]:
    return {block: values[statistic] for block, values in seen["activation"].items()}


def _colors(layers: list[str]) -> dict[str, Any]:
    """From the first layer to the last along one colour map."""
    from matplotlib import colormaps

    return {layer: colormaps["viridis"](index / max(1, len(layers) - 1)) for index, layer in enumerate(layers)}


def new_figure(panels: int, width: float) -> tuple[Figure, Any]:
    """A figure without pyplot's global state, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
