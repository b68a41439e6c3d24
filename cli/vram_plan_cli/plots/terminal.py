"""Plots in a terminal: as many characters as it is wide, Unicode where it has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from ..language import say
from ..screens.plan import show
from .chart import Bar, Bars, Chart, above, any_of, ticks, value_at

__all__ = ["print_bars", "print_chart"]

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
    show(out, Text(f"{say(chart.title)} ({say(chart.y.label)})", style="bold"))
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
    return [f"{indent}{lines[3]}{lines[0] * width}", across, f"{say(chart.x.label):>{left + 2 + width}}"]


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
    return Text(mark, style=style).append(f" {say(name)}", style="default")


def print_bars(bars: Bars, out: Console) -> None:
    """Each bar on a line of its own, with what it sums to, and below what the marks stand for."""
    marks = _MARKS[0 if _unicode(out) else 1]
    names = bars.names
    labels = [say(bar.label) for bar in bars.bars]
    label = max(map(len, labels))
    text = max(len(bar.text) for bar in bars.bars)
    width = max(min(out.width, _MOST_WIDE) - label - text - 4, 10)
    rows = [
        Text(f"{said:{label}}  ").append(_filled(bar, names, width, marks)).append(f"  {bar.text}", style="default")
        for said, bar in zip(labels, bars.bars, strict=True)
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

