"""Charts and bars as SVG: small, the same bytes for the same chart, light and dark, with a text alternative."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from ..language import say
from .chart import Bar, Bars, Chart, Point, above, any_of, ticks

__all__ = ["COLOURS", "bars_svg", "chart_svg", "svg_style"]

#: Background, text, lines of the grid, the limit, and the parts in order, for a light and a dark page.
COLOURS: Final = {
    "light": {
        "ground": "#ffffff", "text": "#1c2430", "quiet": "#566070", "grid": "#d9dee6", "limit": "#b3261e",
        "part": ("#1f6feb", "#8e44ad", "#0f766e", "#b45309", "#4d7c0f", "#be185d", "#475569", "#7c2d12"),
    },
    "dark": {
        "ground": "#12161c", "text": "#e8ecf2", "quiet": "#a4afbf", "grid": "#333c49", "limit": "#ff8a80",
        "part": ("#5aa2ff", "#c98be6", "#3fc1b3", "#f0a84b", "#a3d05a", "#ff86b7", "#9fb0c6", "#e0986f"),
    },
}  # fmt: skip
_PARTS: Final = 8
_LINE: Final = 20
_AROUND: Final = 14
#: A letter's width at most, on average, in 13 px.
_LETTER: Final = 7.6


def svg_style() -> str:
    """The classes the drawings use; a page says it once, a file of its own carries it."""
    light, dark = (_variables(COLOURS[name]) for name in ("light", "dark"))
    parts = "".join(f".p{i}{{fill:var(--p{i})}}.l{i}{{stroke:var(--p{i})}}" for i in range(_PARTS))
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        "svg text{font:13px system-ui,sans-serif;fill:var(--text)}svg .quiet{fill:var(--quiet)}"
        ".grid{stroke:var(--grid)}.free{fill:var(--grid)}.halo{stroke:var(--ground);stroke-width:5}"
        ".limit{stroke:var(--limit);stroke-width:2}.end{stroke:var(--text);stroke-width:2;stroke-dasharray:4 3}"
        ".line{fill:none;stroke-width:2}.point{fill:var(--text);stroke:var(--ground)}.part{stroke:var(--ground);stroke-width:1}" + parts
    )


def _variables(colours: Mapping[str, Sequence[str]]) -> str:
    named = {name: value for name, value in colours.items() if name != "part"} | {f"p{i}": value for i, value in enumerate(colours["part"])}
    return "".join(f"--{name}:{value};" for name, value in named.items())


def _document(width: int, height: int, title: str, summary: str, body: Iterable[str], alone: bool, css: str) -> str:
    """An image with its name and its description; one that stands alone brings its style and its ground."""
    title, summary = say(title), say(summary)
    said = escape(f"{title}. {summary}".strip() if summary else title)
    around = _AROUND if alone else 0
    box = f"{-around} {-around} {width + 2 * around} {height + 2 * around}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" aria-label="{said}"'
    size = f' width="{width + 2 * around}" height="{height + 2 * around}"' if alone else f' class="{css}"' if css else ""
    behind = f'<rect x="{-around}" y="{-around}" width="100%" height="100%" fill="var(--ground)"/>'
    ground = f"<style>{svg_style()}</style>{behind}" if alone else ""
    described = f"<title>{escape(title)}</title><desc>{escape(summary)}</desc>" if alone else ""
    return f"{head}{size}>{described}{ground}{''.join(body)}</svg>\n"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{css}"/>'


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the plot's own rectangle lies, and what its ends stand for."""

    left: float
    right: float
    top: float
    base: float
    x_high: float
    y_high: float

    def at(self, x: float, y: float) -> Point:
        return (
            self.left + (self.right - self.left) * min(x / self.x_high, 1),
            self.base - (self.base - self.top) * min(y / self.y_high, 1),
        )

    def path(self, points: Iterable[Point]) -> str:
        return " ".join(f"{_n(x)},{_n(y)}" for x, y in (self.at(*point) for point in points))


def chart_svg(chart: Chart, width: int = 720, alone: bool = True, css: str = "") -> str:
    """The chart as an SVG document, or with `alone` False as one for a page that has `svg_style`."""
    x_high, y_high = chart.highest
    heading = 28 if alone else 0
    top = heading + 34
    labels = [label for _, label in ticks(chart.y, y_high, 6)]
    frame = _Frame(8 + 8 * max(map(len, labels)), width - 5, top, top + (300 if width > 500 else 230), x_high, y_high)
    keys = _keys(chart)
    legend, lines = _legend(keys, frame.base + 62, width)
    title = [_text(0, 14, say(chart.title))] if alone else []
    body = [*title, *_axes(chart, frame), *_areas(chart, frame), *_drawn(chart, frame), *_marks(chart, frame), *legend]
    return _document(width, round(frame.base + 50 + _LINE * lines), chart.title, chart.summary, body, alone, css)


def _axes(chart: Chart, frame: _Frame) -> list[str]:
    body = [_text(0, frame.top - 18, say(chart.y.label), css="quiet")]
    for value, label in ticks(chart.y, frame.y_high, 6):
        y = frame.at(0, value)[1]
        body += [_rule(frame.left, y, frame.right, y, "grid"), _text(frame.left - 6, y + 4, label, "end", "quiet")]
    for value, label in ticks(chart.x, frame.x_high, max(int((frame.right - frame.left) / 64), 1)):
        x = frame.at(value, 0)[0]
        body.append(_text(min(x, frame.right - 4 * len(label)), frame.base + 18, label, "middle", "quiet"))
    return [*body, _text(frame.right, frame.base + 38, say(chart.x.label), "end", "quiet")]


def _areas(chart: Chart, frame: _Frame) -> list[str]:
    """Each area's outline: along its upper edge, and back along the one below."""
    xs = sorted({x for area in chart.areas for x, _ in area.points})
    edges = [[0.0, *above(chart.areas, x)] for x in xs]
    shapes = []
    for i, area in enumerate(chart.areas):
        if any_of(area):
            upper, lower = ([(x, edge[n]) for x, edge in zip(xs, edges, strict=True)] for n in (i + 1, i))
            shapes.append(f'<polygon points="{frame.path([*upper, *reversed(lower)])}" class="part p{i % _PARTS}"/>')
    return shapes


def _drawn(chart: Chart, frame: _Frame) -> list[str]:
    lines = [series for series in chart.series if series.kind == "line"]
    shapes = [f'<polyline points="{frame.path(series.points)}" class="line l{i % _PARTS}"/>' for i, series in enumerate(lines)]
    points = [frame.at(*point) for series in chart.series if series.kind == "points" for point in series.points]
    return shapes + [f'<circle cx="{_n(x)}" cy="{_n(y)}" r="4" class="point"/>' for x, y in points]


def _marks(chart: Chart, frame: _Frame) -> list[str]:
    rules = []
    for mark in chart.marks:
        x, y = frame.at(mark.at, mark.at)
        if mark.axis == "y" and mark.at <= frame.y_high:
            rules += [_rule(frame.left, y, frame.right, y, css) for css in ("halo", "limit")]
        elif mark.axis == "x" and mark.at <= frame.x_high:
            rules += [_rule(x, frame.top, x, frame.base, css) for css in ("halo", "end")]
    return rules


_Key = tuple[str, str]


def _keys(chart: Chart) -> list[_Key]:
    """(kind and place, words) of everything that is drawn."""
    keys = [(f"part p{i % _PARTS}", series.name) for i, series in enumerate(chart.areas) if any_of(series)]
    keys += [(f"line l{i % _PARTS}", s.name) for i, s in enumerate(s for s in chart.series if s.kind == "line")]
    keys += [("point", s.name) for s in chart.series if s.kind == "points"]
    return keys + [("limit" if mark.axis == "y" else "end", mark.label) for mark in chart.marks]


def _legend(keys: Iterable[_Key], y: float, width: int) -> tuple[list[str], int]:
    """What is drawn, as many on a line as go, and the number of lines."""
    body: list[str] = []
    x, lines = 0.0, 1
    for css, words in ((css, say(words)) for css, words in keys):
        wide = 28 + _LETTER * len(words)
        if x > 0 and x + wide > width:
            x, y, lines = 0.0, y + _LINE, lines + 1
        body += [_sample(css, x, y), _text(x + 20, y, words)]
        x += wide + 10
    return body, lines


def _sample(css: str, x: float, y: float) -> str:
    if css.startswith("part"):
        return f'<rect x="{_n(x)}" y="{_n(y - 11)}" width="13" height="13" class="{css}"/>'
    if css == "point":
        return f'<circle cx="{_n(x + 6)}" cy="{_n(y - 4)}" r="4" class="point"/>'
    return _rule(x, y - 4, x + 14, y - 4, css)


def bars_svg(bars: Bars, width: int = 720, alone: bool = True, css: str = "") -> str:
    """The bars one below the other, each under its label."""
    body = [_text(0, 14, say(bars.title))] if alone else []
    y = 46 if alone else 18
    for bar in bars.bars:
        shapes, y = _bar(bar, bars.names, y, width)
        body += shapes
    legend, lines = _legend([(f"part p{i % _PARTS}", name) for i, name in bars.keys], y + 2, width)
    return _document(width, y + _LINE * lines, bars.title, bars.summary, [*body, *legend], alone, css)


def _bar(bar: Bar, names: Sequence[str], y: int, width: int) -> tuple[list[str], int]:
    """One bar at this height, and where the next may be: what it sums to stands beside its label, or below where both are long."""
    label, text = say(bar.label), say(bar.text)
    below = _LINE if _LETTER * (len(label) + len(text) + 2) > width else 0
    shapes = [_text(0, y, label), _text(0 if below else width, y + below, text, "start" if below else "end", "quiet")]
    y += below
    shapes.append(f'<rect x="0" y="{y + 8}" width="{width}" height="22" class="free"/>')
    whole, x = (bar.scale or sum(value for _, value in bar.parts)) or 1.0, 0.0
    for name, value in bar.parts:
        wide = min(width * value / whole, width - x)
        if wide > 0:
            shapes.append(f'<rect x="{_n(x)}" y="{y + 8}" width="{_n(wide)}" height="22" class="part p{names.index(name) % _PARTS}"/>')
        x += wide
    return shapes, y + 52
