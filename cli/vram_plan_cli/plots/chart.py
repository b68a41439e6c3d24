"""What a small plot shows, whatever draws it: `terminal`, `svg`, or `files` as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

__all__ = ["Axis", "Bar", "Bars", "Chart", "Mark", "Point", "Series", "above", "any_of", "ticks", "value_at"]

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """`label` with its unit; `binary` counts in 1,024s: 16k, 1M. Axes start at 0."""

    label: str
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Points in ascending x, in the axes' units. An "area" stands on the areas before it, a "line" goes through its points,
    "points" are marked alone."""

    name: str
    points: tuple[Point, ...]
    kind: Literal["area", "line", "points"] = "line"


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across at `at`: "y" at a height (a limit), "x" at a place (where it ends)."""

    axis: Literal["x", "y"]
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """`summary` is the chart in a sentence, for those who do not see it."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    summary: str = ""

    @property
    def highest(self) -> Point:
        """The ends of both axes; a limit far above everything else is left outside."""
        xs = [x for series in self.series for x, _ in series.points] + [m.at for m in self.marks if m.axis == "x"]
        tops = [y for series in self.series if series.kind != "area" for _, y in series.points]
        tops += [above(self.areas, x)[-1] for x in xs if self.areas]
        limits = [m.at for m in self.marks if m.axis == "y" and m.at <= 4 * max(tops, default=math.inf)]
        return max(xs, default=1.0) or 1.0, 1.08 * max((*tops, *limits), default=1.0) or 1.0

    @property
    def areas(self) -> tuple[Series, ...]:
        return tuple(series for series in self.series if series.kind == "area")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its parts in one unit, `text` what they sum to, `scale` what the whole width stands for (None: their sum)."""

    label: str
    parts: tuple[tuple[str, float], ...]
    text: str
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    title: str
    bars: tuple[Bar, ...]
    summary: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The parts' names in the order they first come; one that is 0 everywhere only keeps its place."""
        return tuple(dict.fromkeys(name for bar in self.bars for name, _ in bar.parts))

    @property
    def keys(self) -> tuple[tuple[int, str], ...]:
        """(place, name) of the parts that are drawn."""
        drawn = {name for bar in self.bars for name, value in bar.parts if value > 0}
        return tuple((i, name) for i, name in enumerate(self.names) if name in drawn)


def ticks(axis: Axis, high: float, most: int) -> list[tuple[float, str]]:
    """At most `most` + 1 round places from 0 to `high`, with their labels."""
    step = _step(axis, high / max(most, 1))
    count = int(high / step + 1e-9)
    return [(i * step, _label(axis, i * step)) for i in range(count + 1)]


def _step(axis: Axis, least: float) -> float:
    if axis.binary:
        return float(2 ** max(math.ceil(math.log2(max(least, 1))), 0))
    power = 10.0 ** math.floor(math.log10(max(least, 1e-12)))
    return next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= least * (1 - 1e-9))


def _label(axis: Axis, value: float) -> str:
    if not axis.binary:
        return f"{value:g}" if value < 1e6 else f"{value:,.0f}"
    for size, unit in ((1 << 20, "M"), (1 << 10, "k")):
        if value >= size and value % (size / 4) == 0:
            return f"{value / size:g}{unit}"
    return f"{value:,.0f}"


def value_at(series: Series, x: float) -> float | None:
    """The height on the line between two points; None outside them."""
    points = series.points
    if not points or not points[0][0] <= x <= points[-1][0]:
        return None
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y1 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def above(areas: Sequence[Series], x: float) -> list[float]:
    """The upper edge of each stacked area at x."""
    edges, total = [], 0.0
    for area in areas:
        points = area.points
        total += value_at(area, min(max(x, points[0][0]), points[-1][0])) or 0.0 if points else 0.0
        edges.append(total)
    return edges


def any_of(series: Series) -> bool:
    """False for an area that is nowhere higher than 0."""
    return any(y > 0 for _, y in series.points)
