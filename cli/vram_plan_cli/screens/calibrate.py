"""A calibration on the screen: what it predicted and what was then measured, its constants, its points as a plot, the list of all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import vram_plan as vp
from rich.console import Console
from rich.table import Table
from rich.text import Text
from vram_plan import format_gib

from ..language import say
from .plan import device_name, seconds, show

if TYPE_CHECKING:
    from vram_plan import Profile, StoredProfile
    from vram_plan.hardware.profiles import Figure, HeldOut, Mode, Point

    from ..plots.chart import Chart

__all__ = ["decode_chart", "is_used", "measuring", "print_points", "print_profile", "print_profiles", "title_of"]

_WIDTH: Final = 24
_CLEAR: Final = "\r\x1b[K"
#: As many models as a plot shows.
_MOST_SHAPES: Final = 3


# --- while it measures ------------------------------------------------------------------------------------------------


@contextmanager
def measuring() -> Iterator[Callable[[str, float], None]]:
    """Gives a `progress(what, seconds_left)` that draws a bar on stderr; silent where that is no terminal."""
    started, drawn = time.monotonic(), False

    def progress(what: str, seconds_left: float) -> None:
        nonlocal drawn
        if not sys.stderr.isatty():
            return
        drawn = True
        gone, left = time.monotonic() - started, max(seconds_left, 0.0)
        filled = round(_WIDTH * gone / (gone + left)) if gone + left else 0
        bar = "█" * filled + "·" * (_WIDTH - filled)
        print(f"{_CLEAR}{bar} {say(f'{left:3.0f} s left')}  {say(what)[:60]}", end="", file=sys.stderr, flush=True)

    try:
        yield progress
    finally:
        if drawn:
            print(_CLEAR, end="", file=sys.stderr, flush=True)


# --- a profile --------------------------------------------------------------------------------------------------------


def title_of(profile: Profile) -> str:
    """`RTX 4090 · cuda · 2026-11-22 · torch 2.13.0 · bf16 · 48 s`."""
    parts = [device_name(profile.device.name), profile.device.kind, profile.date[:10]]
    if profile.software:
        parts += [f"torch {profile.software.torch}", profile.dtype, f"{profile.wall_s:.0f} s"]
    return " · ".join(parts)


def print_profile(profile: Profile, out: Console, quiet: bool = False) -> None:
    """What it predicted against what was measured, then the constants and what to know of them. `quiet`: the verdict alone."""
    if not quiet:
        show(out, Text(title_of(profile), style="bold"), "")
        if profile.held_out:
            show(out, "Predicted for what was no part of the fit, then measured:", _held_out(profile.held_out), "")
    show(out, Text(_verdict(profile), style="bold"))
    if quiet:
        return
    if rows := _constants(profile):
        show(out, "", _pairs(rows))
    if profile.engines:
        show(out, "", _pairs([(name, _engine_words(name, profile)) for name in sorted(profile.engines)]))
    if profile.flags:
        show(out, "", _pairs([("note", flag) for flag in profile.flags]))


def _grid(titles: Sequence[str], left: int = 1) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i < left else "right", overflow="fold", no_wrap=i >= left)
    return table


def _pairs(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _held_out(rows: Sequence[HeldOut]) -> Table:
    table = _grid(("", "predicted", "measured", "error"))
    for row in rows:
        in_words: Callable[[float], str] = _gib if row.quantity == "memory" else _exact_seconds
        mode = f", {row.mode}" if row.mode else ""
        table.add_row(f"{row.what}{mode}", in_words(row.predicted), in_words(row.measured), f"{100 * row.error:+.1f} %")
    return table


def _gib(value: float) -> str:
    return f"{value / 2**30:.3f} GiB"


def _exact_seconds(value: float) -> str:
    return f"{1000 * value:.4g} ms" if value < 1 else f"{value:.4g} s"


def is_used(profile: Profile) -> bool:
    """Whether later plans take its constants."""
    return bool(profile.points) and any(error <= _most(profile) for error in _step_errors(profile).values())


def _step_errors(profile: Profile) -> dict[Mode, float]:
    """The worst held-out error of steps launched one way or the other: each is used, or not, by itself."""
    modes: tuple[Mode, ...] = ("graph", "eager")
    return {mode: error for mode in modes if (error := profile.worst_error("decode", mode)) is not None}


def _most(profile: Profile) -> float:
    """As in the library's speed model: a calibration further off is not used, or never where there are no other constants."""
    return 0.9 if profile.device.kind == "cpu" else 0.2


def _verdict(profile: Profile) -> str:
    """What later plans make of it."""
    errors, prompt, most = _step_errors(profile), profile.worst_error("prefill"), _most(profile)
    if not profile.points:
        return "No calibration: only what engines were measured to do here."
    if not errors:
        return "Nothing was measured that the fit had not seen: later plans do not use it."
    used = [error for error in errors.values() if error <= most]
    token = max(used or errors.values())
    off = f"Off by at most {100 * token:.1f} % for a token" + ("" if prompt is None else f" and {100 * prompt:.1f} % for a prompt")
    if not used:
        return f"{off}: over {100 * most:.0f} %, so later plans do not use it."
    if len(used) < len(errors):
        other = max(errors, key=lambda mode: errors[mode])
        off += f" ({other} steps, off by {100 * errors[other]:.1f} %, are not used)"
    if prompt is not None and prompt > most:
        return f"{off}: later plans on this device use it for tokens, not for prompts."
    return f"{off}: later plans on this device use it, with at least that as their range."


def _constants(profile: Profile) -> list[tuple[str, ...]]:
    """Each constant with its deviation, and what the catalogue has of it."""
    f = profile.fitted
    rates = [("copy", f.copy_bytes_per_s), ("read", f.read_bytes_per_s)]
    rates += [(f"{name} weights", figure) for name, figure in sorted(f.weight_bytes_per_s.items())] + [("KV cache", f.kv_bytes_per_s)]
    times = [
        ("layer, graph", f.graph_layer_s), ("layer, eager", f.eager_layer_s), ("token, graph", f.graph_token_s),
        ("token, eager", f.eager_token_s), ("mixture layer", f.moe_layer_s),
    ]  # fmt: skip
    flops = [("matrix product", f.matmul_flops), ("prompt", f.prefill_flops), ("prompt's attention", f.attention_flops)]
    held = [("runtime", f.runtime_bytes), ("allocator", f.allocator_bytes)]
    bandwidth, peak = _catalogue(profile)
    rows: list[tuple[str, ...]] = [(name, f"{v.value / 1e9:,.4g} GB/s", _sd(v), _share(v, bandwidth)) for name, v in rates if v]
    rows += [(name, f"{v.value * 1e6:,.4g} µs", _sd(v), "") for name, v in times if v]
    rows += [(name, _flops(v.value), _sd(v), _share(v, peak)) for name, v in flops if v]
    return rows + [(name, format_gib(round(v.value)), _sd(v), "") for name, v in held if v]


def _flops(value: float) -> str:
    return f"{value / 1e12:,.3g} TFLOPS" if value >= 1e12 else f"{value / 1e9:,.3g} GFLOPS"


def _sd(figure: Figure) -> str:
    return f"± {100 * figure.sd / figure.value:.1f} %" if figure.value and figure.sd else ""


def _share(figure: Figure, of: float | None) -> str:
    return f"{100 * figure.value / of:.0f} % of the catalogue's" if of else ""


def _catalogue(profile: Profile) -> tuple[float | None, float | None]:
    """Bandwidth and 16-bit matrix rate of the device's row; None where it has none."""
    name = profile.device.name
    rows = vp.list_gpus(name) if profile.device.kind != "cpu" else ()
    exact = [spec for spec in rows if spec.name == name] or rows
    return (exact[0].bandwidth_bytes_per_s or None, exact[0].bf16_flops or exact[0].fp16_flops) if len(exact) == 1 else (None, None)


def _engine_words(name: str, profile: Profile) -> str:
    scale = profile.engines[name]
    rates = (("decode", scale.decode_scale), ("prefill", scale.prefill_scale))
    parts = [f"{what} × {value:.2f} of the plan" for what, value in rates if value]
    parts += [f"{format_gib(scale.runtime_bytes)} of context and libraries"] if scale.runtime_bytes is not None else []
    runs = f"{scale.samples} runs" if scale.samples > 1 else "one run"
    return f"{', '.join(parts) or 'nothing kept'} ({runs}{f' of {scale.version}' if scale.version else ''}, {scale.date[:10]})"


def print_points(profile: Profile, out: Console) -> None:
    """Every point measured."""
    table = _grid(("what", "model", "dtype", "mode", "tokens", "depth", "batch", "median", "p10, p90", "n"), 4)
    for p in profile.points:
        if p.what == "memory":
            expected = f"plan {_gib(p.expected_bytes)}" if p.expected_bytes is not None else ""
            table.add_row(p.what, p.shape, p.dtype, p.part, "", "", "", _gib(p.bytes), expected, "")
        else:
            counts = (f"{p.tokens:,}", f"{p.depth:,}", f"{p.batch:,}")
            table.add_row(p.what, p.shape, p.dtype, p.mode or "", *counts, _exact_seconds(p.median_s), _spread(p), str(p.n))
    show(out, table)


def _spread(p: Point) -> str:
    """The 10th and 90th percentile beside the median: `-2, +3 %`."""
    return f"{100 * (p.p10_s / p.median_s - 1):+.0f}, {100 * (p.p90_s / p.median_s - 1):+.0f} %" if p.median_s else ""


# --- the plot ---------------------------------------------------------------------------------------------------------


def decode_chart(profile: Profile) -> Chart:
    """Time of a decode step against the context: what was measured, and the fitted line. Raises UsageError where there is none."""
    from ..plots.chart import Axis, Chart, Series

    mode: Mode = "graph" if any(p.what == "decode" and p.mode == "graph" for p in profile.points) else "eager"
    shapes = _shapes(profile, mode)
    if not shapes:
        raise vp.UsageError("this profile has no model decoded at two contexts", "measure what is to be drawn with: vram-plan calibrate")
    points = tuple(sorted((float(p.depth), 1e3 * p.median_s) for shape in shapes for p in shape))
    lines = tuple(Series(f"{shape[0].shape}, {shape[0].layers} layers, as fitted", _line(profile, shape, mode)) for shape in shapes)
    title = f"Decode on {device_name(profile.device.name)}, {profile.dtype}, {mode}"
    ends = [f"{seconds(p.median_s)} after {p.depth:,} tokens" for shape in shapes for p in (shape[0], shape[-1])]
    return Chart(
        title,
        Axis("tokens of context", binary=True),
        Axis("ms a token"),
        (*lines, Series("measured", points, "points")),
        summary=f"A step takes {', '.join(ends)}; shortest and longest context of each model.",
    )


def _shapes(profile: Profile, mode: Mode) -> list[list[Point]]:
    """Single-sequence decode points of each model at two contexts or more, by context; the largest models."""
    found: dict[tuple[str, int], list[Point]] = {}
    for p in profile.points:
        if p.what == "decode" and p.mode == mode and p.batch == 1 and p.dtype == profile.dtype:
            found.setdefault((p.shape, p.layers), []).append(p)
    shapes = [sorted(points, key=lambda p: p.depth) for points in found.values() if len({p.depth for p in points}) > 1]
    return sorted(shapes, key=lambda points: -points[0].bytes)[:_MOST_SHAPES]


def _line(profile: Profile, shape: Sequence[Point], mode: Mode) -> tuple[tuple[float, float], ...]:
    times = ((p.depth, profile.fitted.decode_s(mode, p.dtype, p.bytes, p.kv_bytes, p.layers)) for p in shape)
    return tuple((float(depth), 1e3 * time) for depth, time in times if time is not None)


# --- the list ---------------------------------------------------------------------------------------------------------


def print_profiles(stored: Sequence[StoredProfile], out: Console) -> None:
    """One line a profile; files that hold none say why."""
    if not stored:
        show(out, "No profile yet. Measure this machine with: vram-plan calibrate")
        return
    table = _grid(("name", "device", "date", "torch", "dtype", "off by", "engines"), 7)
    for one in stored:
        if one.profile is None:
            table.add_row(one.name, f"not used: {one.problem}", *[""] * 5)
            continue
        p = one.profile
        error = p.worst_error("decode")
        off = "" if error is None else f"{100 * error:.1f} %"
        torch = p.software.torch if p.software else ""
        table.add_row(one.name, device_name(p.device.name), p.date[:10], torch, p.dtype if torch else "", off, ", ".join(sorted(p.engines)))
    show(out, table)
