"""Plots as files: SVG of our own, PNG with matplotlib where the `plot` extra is installed."""

from __future__ import annotations

import io
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from vram_plan import MissingExtraError, UsageError

from .chart import Chart, any_of, ticks
from .svg import COLOURS, chart_svg

__all__ = ["save_chart", "write_file"]


def save_chart(chart: Chart, path: str) -> None:
    """Write the chart as its file's name says. Raises UsageError for another ending or a place that cannot be written."""
    write_file(path, chart_svg(chart).encode() if picture_kind(path) == ".svg" else _png(chart))


def picture_kind(path: str) -> str:
    """`.svg` or `.png`. Raises UsageError for another ending."""
    kind = Path(path).suffix.lower()
    if kind not in (".svg", ".png"):
        raise UsageError(f"{path[:80]!r} is neither .svg nor .png", "name the file with one of them, for example plan.svg")
    return kind


def write_file(path: str, content: bytes) -> None:
    """The whole file or none: written beside its place and moved there. Raises UsageError."""
    try:
        place = Path(path).resolve()
        if place.exists() and not place.is_file():
            raise ValueError("it is no file")
        _moved_into(place, content)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"{path[:80]!r} could not be written: {why}", "name a file in a folder that exists and may be written") from None


def _moved_into(place: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=".vram-plan-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(place)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _png(chart: Chart) -> bytes:
    """The same chart drawn by matplotlib, on a white ground."""
    try:
        figure = import_module("matplotlib.figure").Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    except ImportError:
        raise MissingExtraError("a PNG needs matplotlib", "pip install 'vram-plan[plot]', or save it as .svg") from None
    x_high, y_high = chart.highest
    axes: Any = figure.add_subplot()
    axes.set(title=chart.title, xlabel=chart.x.label, ylabel=chart.y.label, xlim=(0, x_high), ylim=(0, y_high))
    for name, axis, high, most in (("x", chart.x, x_high, 8), ("y", chart.y, y_high, 6)):
        places = ticks(axis, high, most)
        getattr(axes, f"set_{name}ticks")([value for value, _ in places], [label for _, label in places])
    _draw(chart, axes)
    axes.legend(loc="upper left", fontsize="small")
    written = io.BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None, "Description": chart.summary})
    return written.getvalue()


def _draw(chart: Chart, axes: Any) -> None:
    light = COLOURS["light"]
    shown = [(light["part"][i % 8], area) for i, area in enumerate(chart.areas) if any_of(area)]
    if shown:
        colours, heights = [colour for colour, _ in shown], [[y for _, y in area.points] for _, area in shown]
        axes.stackplot([x for x, _ in shown[0][1].points], *heights, labels=[area.name for _, area in shown], colors=colours)
    for i, series in enumerate(series for series in chart.series if series.kind == "line"):
        axes.plot(*zip(*series.points, strict=True), color=light["part"][i % 8], label=series.name)
    for series in chart.series:
        if series.kind == "points" and series.points:
            axes.plot(*zip(*series.points, strict=True), "o", color=light["text"], label=series.name)
    for mark in chart.marks:
        if mark.axis == "y":
            axes.axhline(mark.at, label=mark.label, color=light["limit"])
        else:
            axes.axvline(mark.at, label=mark.label, color=light["text"], ls="--")
