"""Charts as SVG: colours are CSS classes, so one picture serves light and dark pages; marks have hover titles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from matfm.tasks.reporting.html import Html, figure, joined, number, tag

# N points

_WIDTH, _HEIGHT = 420.0, 300.0
"""Of the drawing. A page is about as wide on a phone, so text keeps its size there."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 12.0, 10.0, 44.0
_TICKS = 5
_LONGEST_LINE = 400
"""Points of a line; more are thinned out."""
_DECADES_WITH_STEPS = 1.5
"""Logarithmic axes shorter than this have ticks at 2 and 5 too."""


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with its label."""

    label: str
    low: float
    high: float
    log: bool = False

    def share(self, values: np.ndarray | float) -> np.ndarray:
        """Place along the axis, 0 at its beginning and 1 at its end."""
        shown = np.asarray(values, np.float64)
        low, high = self.low, self.high
        if self.log:
            shown, low, high = np.log10(shown), math.log10(low), math.log10(high)
        place: np.ndarray = (shown - low) / (high - low)
        return place

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        if not self.log:
            step = _round_step((self.high - self.low) / _TICKS)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [count * step for count in range(first, last + 1)]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if math.log10(self.high / self.low) < _DECADES_WITH_STEPS else (1,)
        step = max(1, (last - first) // _TICKS)
        every = [factor * 10.0**power for power in range(first, last + 1, step) for factor in factors]
        within = [value for value in every if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
        return within if len(within) > 1 else replace(self, log=False).ticks()


def axis(label: str, *values: np.ndarray, log: bool = False, from_zero: bool = False) -> Axis:
    """An axis that holds all finite values, with a little room; logarithmic ones hold the positive values."""
    every = np.concatenate([np.asarray(some, np.float64).ravel() for some in values] or [np.zeros(0)])
    kept = every[np.isfinite(every) & ((every > 0) | (not log))]
    if len(kept) == 0:
        return Axis(label, 1.0 if log else 0.0, 10.0 if log else 1.0, log)
    low, high = float(kept.min()), float(kept.max())
    if log:
        return Axis(label, low / 1.1, high * 1.1, log=True)
    room = 0.03 * (high - low) or 0.5 * abs(high) or 0.5
    return Axis(label, 0.0 if from_zero else low - room, high + room)


@dataclass(frozen=True)
class Frame:
    """A pair of axes to draw in."""

    x: Axis
    y: Axis
    height: float = _HEIGHT

    def at(self, x_N: np.ndarray, y_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of points in the drawing."""
        right, down = _WIDTH - _LEFT - _RIGHT, self.height - _TOP - _BOTTOM
        return _LEFT + right * self.x.share(x_N), _TOP + down * (1 - self.y.share(y_N))

    def line(self, x_N: np.ndarray, y_N: np.ndarray, series: int = 0, dots: bool = False) -> Html:
        """A line in the colour of a series, with dots at its points or without."""
        x_N, y_N = np.asarray(x_N, np.float64), np.asarray(y_N, np.float64)
        positive = (not self.y.log) | (y_N > 0)
        x_N, y_N = x_N[np.isfinite(y_N) & positive], y_N[np.isfinite(y_N) & positive]
        thin = np.unique(np.linspace(0, len(x_N) - 1, min(len(x_N), _LONGEST_LINE)).astype(int))
        places = np.stack(self.at(x_N[thin], y_N[thin]), axis=1)
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) if len(places) else ""
        drawn = tag("path", d=path, class_=f"line s{series}")
        if not dots:
            return drawn
        titles = [f"{number(float(x))}: {number(float(y))}" for x, y in zip(x_N[thin], y_N[thin], strict=True)]
        return joined([drawn, self.points(x_N[thin], y_N[thin], titles, series, radius=3.0)])

    def points(
        self, x_N: np.ndarray, y_N: np.ndarray, titles: Sequence[str] = (), series: int = 0, radius: float = 2.5
    ) -> Html:
        """Dots; `titles` show where the pointer rests."""
        x_N, y_N = self.at(x_N, y_N)
        shown = titles or [""] * len(x_N)
        dots = (
            tag("circle", *([tag("title", title)] if title else []), cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius)
            for x, y, title in zip(x_N, y_N, shown, strict=True)
        )
        return tag("g", *dots, class_=f"dots s{series}")

    def bars(self, edges: np.ndarray, heights_N: np.ndarray, titles: Sequence[str], series: int = 0) -> Html:
        """Bars between consecutive edges (N + 1,)."""
        left, top = self.at(edges[:-1], heights_N)
        right, bottom = self.at(edges[1:], np.full(len(heights_N), max(0.0, self.y.low)))
        shapes = (
            tag(
                "rect",
                tag("title", title),
                x=f"{x:.1f}",
                y=f"{y:.1f}",
                width=f"{max(until - x - 1, 0.5):.1f}",
                height=f"{max(foot - y, 0):.1f}",
            )
            for x, y, until, foot, title in zip(left, top, right, bottom, titles, strict=True)
        )
        return tag("g", *shapes, class_=f"bars s{series}")

    def guide(self, x_N: Sequence[float], y_N: Sequence[float]) -> Html:
        """A thin line to compare with."""
        places = zip(*self.at(np.array(x_N), np.array(y_N)), strict=True)
        return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places), class_="guide")

    def drawn(self, description: str, *marks: Html) -> Html:
        """The picture; `description` is read out to those who do not see it."""
        return tag(
            "svg",
            tag("title", description),
            *self._scale_x(),
            *self._scale_y(),
            *marks,
            viewBox=f"0 0 {_WIDTH:.0f} {self.height:.0f}",
            role="img",
            aria_label=description,
            class_="chart",
        )

    def _scale_x(self) -> list[Html]:
        foot, right = self.height - _BOTTOM, _WIDTH - _RIGHT
        ticks = self.x.ticks()
        places, _ = self.at(np.array(ticks), np.full(len(ticks), self.y.high))
        marks = [tag("path", d=f"M{_LEFT} {foot}H{right}", class_="axis")]
        for value, x in zip(ticks, places, strict=True):
            marks.append(tag("path", d=f"M{x:.1f} {_TOP}V{foot}", class_="grid"))
            marks.append(tag("text", tick_label(value), x=f"{x:.1f}", y=f"{foot + 16:.1f}", class_="tick middle"))
        middle = (_LEFT + right) / 2
        return [*marks, tag("text", self.x.label, x=middle, y=self.height - 6, class_="middle")]

    def _scale_y(self) -> list[Html]:
        foot, right = self.height - _BOTTOM, _WIDTH - _RIGHT
        ticks = self.y.ticks()
        _, places = self.at(np.full(len(ticks), self.x.high), np.array(ticks))
        marks = [tag("path", d=f"M{_LEFT} {_TOP}V{foot}", class_="axis")]
        for value, y in zip(ticks, places, strict=True):
            marks.append(tag("path", d=f"M{_LEFT} {y:.1f}H{right}", class_="grid"))
            marks.append(tag("text", tick_label(value), x=_LEFT - 6, y=f"{y + 4:.1f}", class_="tick end"))
        middle = (_TOP + foot) / 2
        turned = f"rotate(-90 13 {middle:.1f})"
        return [*marks, tag("text", self.y.label, x=13, y=f"{middle:.1f}", transform=turned, class_="middle")]


def square(x: Axis, y: Axis) -> Frame:
    """A frame whose axes are equally long."""
    return Frame(x, y, _WIDTH - _LEFT - _RIGHT + _TOP + _BOTTOM)


def chart(picture: Html, caption: object, legend: Sequence[str] = ()) -> Html:
    """A picture with caption and, for several series, what their colours mean."""
    keys = [tag("span", tag("i", class_=f"s{place}"), name, class_="key") for place, name in enumerate(legend)]
    return figure(picture, joined([tag("span", *keys, class_="legend") if len(keys) > 1 else None, caption]))


def tick_label(value: float) -> str:
    """Short: 0.25, 1,500, 2×10⁻⁵."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    if -4 < power < 6:
        return f"{value:,.10g}".replace("-", "−")
    return number(value).removeprefix("1×")


def _round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
