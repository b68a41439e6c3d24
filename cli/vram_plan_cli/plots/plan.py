"""A plan's two pictures: memory against context, and where the time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console

from ..screens.plan import ENGINE_NAMES, GROUPS, device_name, seconds, show
from .chart import Axis, Bar, Bars, Chart, Mark, Series
from .terminal import print_bars, print_chart

if TYPE_CHECKING:
    from vram_plan import ContextCurve

__all__ = ["context_chart", "print_curve", "time_bars"]

_GIB: Final = 1 << 30
#: What time goes to, each at the place (and in the colour) of the memory it has to do with.
_TIMES: Final = ("weights", "KV", "", "compute", "per-layer overhead", "link", "weights in host memory", "others' prompts")


def print_curve(curve: ContextCurve, out: Console) -> None:
    """`--plot`."""
    show(out, "")
    print_chart(context_chart(curve), out)
    bars = time_bars(curve)
    if bars:
        show(out, "")
        print_bars(bars, out)


def context_chart(curve: ContextCurve) -> Chart:
    """Each group of terms over the contexts, the limit, where it ends, and the context asked for."""
    series = tuple(
        Series(name, tuple((float(p.context), getattr(p, group) / _GIB) for p in curve.points), "area") for group, _, _, name in GROUPS
    )
    marks = [Mark("y", curve.limit / _GIB, _limit(curve, curve.limit))] if curve.limit else []
    if curve.max_context and curve.max_context <= curve.points[-1].context:
        marks.append(Mark("x", float(curve.max_context), f"full after {curve.max_context:,} tokens"))
    asked = next((p for p in curve.points if p.context == curve.planned), None)
    point = [Series(f"asked for: {curve.planned:,} tokens", ((float(curve.planned), asked.needed / _GIB),), "points")] if asked else []
    return Chart(_title(curve), Axis("tokens of context", binary=True), Axis("GiB"), (*series, *point), tuple(marks), _summary(curve))


def _title(curve: ContextCurve) -> str:
    where = f" on {device_name(curve.device)}" if curve.device else ""
    first = f" (the first of {curve.gpus} GPUs to be full)" if curve.gpus > 1 else ""
    return f"Memory against context{where}{first}"


def _limit(curve: ContextCurve, limit: int) -> str:
    return f"{ENGINE_NAMES.get(curve.engine, curve.engine)}'s share of {_gib(limit)}" if curve.pool else f"{_gib(limit)} free"


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"


def _summary(curve: ContextCurve) -> str:
    """The picture in two sentences."""
    first, last = curve.points[0], curve.points[-1]
    grows = f"From {_gib(first.needed)} for a first token to {_gib(last.needed)} at {last.context:,} tokens"
    if curve.limit is None:
        return f"{grows}; no GPU was named."
    if curve.max_context is None:
        return f"{grows}, within {_gib(curve.limit)}: memory sets no limit."
    end = f"full after {curve.max_context:,} tokens" if curve.max_context else "not even one token fits"
    return f"{grows}. In {_limit(curve, curve.limit)}: {end}."


def time_bars(curve: ContextCurve) -> Bars | None:
    """The shares of one token's time and of the first token's."""
    if curve.times is None:
        return None
    rows = (
        (f"a token at {curve.planned:,}", curve.times.token),
        (f"a prompt of {curve.prompt:,}", curve.times.prompt),
    )
    bars, words = [], []
    for label, parts in rows:
        total = sum(s for _, s in parts)
        bars.append(Bar(label, tuple((name, dict(parts).get(name, 0.0)) for name in _TIMES), seconds(total)))
        words.append(f"{label}: {', '.join(f'{100 * s / total:.0f} % {name}' for name, s in parts)}")
    return Bars("Where the time goes (estimate)", tuple(bars), "; ".join(words))
