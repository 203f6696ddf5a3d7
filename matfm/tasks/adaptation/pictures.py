"""Pictures of an adaptation: vectors of both sides before and after, and elements on the periodic table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matfm.chem.elements import SYMBOLS
from matfm.chem.periodic_table import COLUMNS, ROWS, table_position
from matfm.tasks.plots import TRAIN, VALID, new_figure, save_figure
from matfm.tasks.projection import two_dimensions

# R rows, D width

_DRAWN = 500
"""Rows of each side in the pictures."""
_PANEL = 4.2


def draw_embeddings(run: Path, vectors: dict[str, np.ndarray], target_R: np.ndarray, seed: int) -> None:
    """`embeddings.png`: vectors of source and target rows by model, in two principal components and by t-SNE.

    Axes of one panel say nothing of another's; t-SNE keeps neighbours, not distances.
    """
    chosen = _as_many(target_R, seed)
    second_R = target_R[chosen]
    flat = {name: two_dimensions(values[chosen], seed) for name, values in vectors.items()}
    panels = [(name, way) for way in ("PCA", "t-SNE") for name in vectors]
    figure, axes = new_figure(len(panels), _PANEL * len(panels))
    for panel, (name, way) in zip(axes, panels, strict=True):
        for label, color, of_side in (("source", TRAIN, ~second_R), ("target", VALID, second_R)):
            panel.scatter(*flat[name][way][of_side].T, s=6, alpha=0.5, linewidths=0, color=color, label=label)
        panel.set(title=f"{name}, {way}", xticks=[], yticks=[])
    axes[0].legend(frameon=False)
    save_figure(figure, run / "embeddings.png")


def draw_elements(run: Path, maps: Sequence[tuple[str, dict[str, float], bool]]) -> None:
    """`elements.png`: numbers by element on periodic tables, below each other.

    Args:
        run: folder.
        maps: title, element to number, and whether 0 is the middle of the colours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.6 * len(maps)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, numbers, around_zero) in zip(
        figure.subplots(len(maps), 1, squeeze=False)[:, 0], maps, strict=True
    ):
        _draw_table(figure, axes, title, numbers, around_zero)
    save_figure(figure, run / "elements.png")


def _draw_table(figure: Any, axes: Any, title: str, numbers: dict[str, float], around_zero: bool) -> None:
    grid = np.full((ROWS, COLUMNS), np.nan)
    for symbol, number in numbers.items():
        grid[table_position(symbol)] = number
    limit = max((abs(number) for number in numbers.values()), default=1.0) or 1.0
    low, colours = (-limit, "coolwarm") if around_zero else (0.0, "viridis")
    drawn = axes.imshow(grid, cmap=colours, vmin=low, vmax=limit)
    for symbol in SYMBOLS:
        row, column = table_position(symbol)
        known = symbol in numbers
        axes.text(column, row, symbol, ha="center", va="center", fontsize=7, color="black" if known else "#bbbbbb")
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, shrink=0.7)


def _as_many(target_R: np.ndarray, seed: int) -> np.ndarray:
    """Rows of both sides, as many at most as can be seen."""
    rng = np.random.default_rng(seed)
    sides = [rng.permutation(np.flatnonzero(target_R == side))[:_DRAWN] for side in (False, True)]
    return np.concatenate(sides)
