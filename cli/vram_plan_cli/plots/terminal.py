"""Small plots: what is drawn, and how it is drawn in a terminal. `plots_svg` draws the same as SVG, `plots_files` writes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from rich.console import Console
from rich.text import Text

from ..screens.plan import show

__all__ = ["Axis", "Bar", "Bars", "Chart", "Mark", "Series", "above", "print_bars", "print_chart", "save_chart", "ticks"]

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


def save_chart(chart: Chart, path: str) -> None:
    """Write a chart as .svg, or as .png with the `plot` extra. Raises UsageError, MissingExtraError."""
    from .files import save

    save(chart, path)


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


# --- the terminal -----------------------------------------------------------------------------------------------------

#: Marks and colours of areas and parts by their place, for a terminal with Unicode and for one without.
_MARKS: Final = ("█▓▒░▞▚▤▥", "#%+:=*~-")
_STYLES: Final = ("cyan", "magenta", "blue", "yellow", "green", "red", "cyan", "magenta")
#: Across, up, axis, corner, tick, point, line, and across where the areas reach higher.
_LINES: Final = ("─││└┤●∙═", "-||++o.=")
_MOST_WIDE: Final = 100
_Cells = list[list[tuple[str, str]]]


def _unicode(out: Console) -> bool:
    return "utf" in (out.encoding or "").lower()


def print_chart(chart: Chart, out: Console, height: int = 14) -> None:
    """The chart as lines of text within the console's width, colours only where it has them."""
    marks, lines = (pair[0 if _unicode(out) else 1] for pair in (_MARKS, _LINES))
    x_high, y_high = chart.highest
    y_ticks = ticks(chart.y, y_high, max(height // 3, 2))
    left = max(len(label) for _, label in y_ticks) + 1
    width = max(min(out.width, _MOST_WIDE) - left - 2, 10)
    cells = _cells(chart, width, height, marks, lines)
    rows = {_row(value, y_high, height): label for value, label in y_ticks if value}
    show(out, Text(f"{chart.title} ({chart.y.label})", style="bold"))
    body = [
        Text(f"{rows.get(y, ''):>{left}} {lines[4] if y in rows else lines[2]}").append(Text.assemble(*row)) for y, row in enumerate(cells)
    ]
    show(out, *body, *_below(chart, x_high, left, width, lines), *_legend(chart, out.width, marks, lines))


def _cells(chart: Chart, width: int, height: int, marks: str, lines: str) -> _Cells:
    """The plot's area, one character and style a cell, from the back to the front."""
    x_high, y_high = chart.highest

    def column(value: float) -> int:
        return min(int(value / x_high * width), width - 1)

    cells: _Cells = [[(" ", "")] * width for _ in range(height)]
    _draw_areas(chart, cells, marks)
    for mark in chart.marks:
        if mark.axis == "y" and mark.at <= y_high:
            middles = ((x + 0.5) / width * x_high for x in range(width))
            over = [bool(chart.areas) and above(chart.areas, x)[-1] > mark.at for x in middles]
            cells[_row(mark.at, y_high, height)] = [(lines[7 if higher else 0], "bold red") for higher in over]
        for y in range(height) if mark.axis == "x" and mark.at <= x_high else ():
            cells[y][column(mark.at)] = (lines[1], "bold")
    for n, series in enumerate(s for s in chart.series if s.kind == "line"):
        for x in range(width):
            value = value_at(series, (x + 0.5) / width * x_high)
            if value is not None and 0 <= value <= y_high:
                cells[_row(value, y_high, height)][x] = (lines[6], _STYLES[n % len(_STYLES)])
    for series in chart.series:
        for x_value, y_value in series.points if series.kind == "points" else ():
            cells[_row(max(y_value, 0.0), y_high, height)][column(x_value)] = (lines[5], "bold")
    return cells


def _row(value: float, high: float, height: int) -> int:
    """The row a height is in, from the top."""
    return height - 1 - min(int(value / high * height), height - 1)


def _draw_areas(chart: Chart, cells: _Cells, marks: str) -> None:
    """Each cell belongs to the area its middle is in."""
    height, width = len(cells), len(cells[0])
    x_high, y_high = chart.highest
    for x in range(width) if chart.areas else ():
        edges = above(chart.areas, (x + 0.5) / width * x_high)
        for y in range(height):
            middle = (height - y - 0.5) / height * y_high
            part = next((i for i, edge in enumerate(edges) if middle <= edge), None)
            if part is not None:
                cells[y][x] = (marks[part % len(marks)], _STYLES[part % len(_STYLES)])


def _below(chart: Chart, x_high: float, left: int, width: int, lines: str) -> list[str]:
    """The axis below, its labels, and what it counts."""
    labels = [" "] * width
    for value, label in ticks(chart.x, x_high, max(width // 9, 1)):
        at = min(int(value / x_high * width), width - 1)
        start = min(max(at - len(label) // 2, 0), width - len(label))
        if all(character == " " for character in labels[max(start - 1, 0) : start + len(label) + 1]):
            labels[start : start + len(label)] = label
    indent = " " * (left + 1)
    across = f"{indent} {''.join(labels).rstrip()}"
    return [f"{indent}{lines[3]}{lines[0] * width}", across, f"{chart.x.label:>{left + 2 + width}}"]


def _legend(chart: Chart, width: int, marks: str, lines: str) -> list[Text]:
    """What each mark stands for."""
    areas = [(marks[i % len(marks)], _STYLES[i % len(_STYLES)], series.name) for i, series in enumerate(chart.areas) if any_of(series)]
    drawn = [(lines[6], _STYLES[i], s.name) for i, s in enumerate(s for s in chart.series if s.kind == "line")]
    drawn += [(lines[5], "bold", s.name) for s in chart.series if s.kind == "points"]
    across = [(lines[0] * 2, "bold red", m.label) if m.axis == "y" else (lines[1], "bold", m.label) for m in chart.marks]
    return [*_packed([_key(*key) for key in (*areas, *drawn)], width), *(_key(*key) for key in across)]


def _packed(keys: Sequence[Text], width: int) -> list[Text]:
    """As many keys on a line as go."""
    lines: list[Text] = []
    for key in keys:
        if lines and len(lines[-1]) + 3 + len(key) <= width:
            lines[-1].append("   ").append_text(key)
        else:
            lines.append(key.copy())
    return lines


def _key(mark: str, style: str, name: str) -> Text:
    return Text(mark, style=style).append(f" {name}", style="default")


def any_of(series: Series) -> bool:
    """False for an area that is nowhere higher than 0."""
    return any(y > 0 for _, y in series.points)


def print_bars(bars: Bars, out: Console) -> None:
    """Each bar on a line of its own, with what it sums to, and below what the marks stand for."""
    marks = _MARKS[0 if _unicode(out) else 1]
    names = bars.names
    label = max(len(bar.label) for bar in bars.bars)
    text = max(len(bar.text) for bar in bars.bars)
    width = max(min(out.width, _MOST_WIDE) - label - text - 4, 10)
    rows = [
        Text(f"{bar.label:{label}}  ").append(_filled(bar, names, width, marks)).append(f"  {bar.text}", style="default")
        for bar in bars.bars
    ]
    legend = [_key(marks[i % len(marks)], _STYLES[i % len(_STYLES)], name) for i, name in bars.keys]
    show(out, Text(bars.title, style="bold"), *rows, *_packed(legend, out.width))


def _filled(bar: Bar, names: Sequence[str], width: int, marks: str) -> Text:
    filled, done, start = Text(), 0.0, 0
    for name, value in bar.parts:
        done += value
        end = round(width * done / ((bar.scale or sum(v for _, v in bar.parts)) or 1))
        if name in names:
            i = names.index(name)
            filled.append(marks[i % len(marks)] * (end - start), style=_STYLES[i % len(_STYLES)])
        start = end
    return filled.append(" " * max(width - start, 0))

