"""`vram-plan speed`: one line a number of sequences, a bar of the total rate, the knee marked."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text
from vram_plan import format_gib

from ..language import say
from .grids import as_csv, as_json, as_markdown
from .plan import ENGINE_NAMES, console, seconds, show

if TYPE_CHECKING:
    from vram_plan import BatchCurve, BatchLoad

__all__ = ["print_batches"]

_HEADER: Final = ("sequences", "tokens/s", "range", "each", "a token", "KV cache")
_BAR: Final = 12
_BARS_FROM: Final = 78


def print_batches(answer: BatchCurve, output: str, width: int | None = None, quiet: bool = False) -> None:
    if output == "json":
        print(as_json("vram-plan/speed/1", answer))
    elif output == "csv":
        names = [field.name for field in fields(answer.loads[0])]
        print(as_csv(names, [[getattr(load, name) for name in names] for load in answer.loads]))
    elif output == "markdown":
        print(as_markdown((*_HEADER, ""), [[*_cells(load), _mark(answer, load)] for load in answer.loads]))
    else:
        _print_screen(answer, console(width), quiet)


def _cells(load: BatchLoad) -> list[str]:
    tpot = f"{load.tpot_s * 1000:.1f} ms" if load.tpot_s < 0.1 else seconds(load.tpot_s)
    size = format_gib(load.kv_bytes)
    between = f"{_number(load.low)}–{_number(load.high)}"
    return [f"{load.sequences:,}", _number(load.tokens_per_s), between, _number(load.tokens_per_s_each), tpot, size]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _mark(answer: BatchCurve, load: BatchLoad) -> str:
    return say("knee") if load.sequences == answer.knee else ""


def _print_screen(answer: BatchCurve, out: Console, quiet: bool) -> None:
    best = max(load.tokens_per_s for load in answer.loads)
    shown = _shown(answer, out.width - len(" knee"))
    bars = shown == list(range(len(_HEADER))) and out.width >= _BARS_FROM
    grid = Grid(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for i in shown:
        grid.add_column(_HEADER[i], justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for load in answer.loads:
        bar = "█" * max(round(_BAR * load.tokens_per_s / best), 1) + " " if bars else ""
        style = "bold green" if load.sequences == answer.knee else ""
        cells = _cells(load)
        grid.add_row(*(Text(cells[i], style=style) for i in shown), Text(bar + _mark(answer, load), style=style))
    if not quiet:
        name, engine = answer.model.rsplit("/", 1)[-1], ENGINE_NAMES.get(answer.engine, answer.engine)
        title = f"{name} · {answer.format} · {answer.context:,} tokens · {engine} on {answer.machine}"
        show(out, Text(title, style="bold"), "")
    show(out, grid)
    if not quiet:
        show(out, "", *_foot(answer))


def _shown(answer: BatchCurve, width: int) -> list[int]:
    """The columns there is room for: the range goes first, then the cache, then the rate of each."""
    rows = [_HEADER, *(_cells(load) for load in answer.loads)]
    wide = [2 + max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    shown = list(range(len(_HEADER)))
    for i in (2, 5, 3):
        if sum(wide[j] for j in shown) > width:
            shown.remove(i)
    return shown


def _foot(answer: BatchCurve) -> list[str]:
    knee = next(load for load in answer.loads if load.sequences == answer.knee)
    lines = [f"knee: {answer.knee:,} sequences reach four fifths of the most; there {knee.why}"]
    last = answer.loads[-1].sequences
    if answer.max_sequences == last:
        lines.append(f"memory holds {last:,} of this length")
    elif answer.max_sequences is not None:
        lines.append(f"memory would hold {answer.max_sequences:,} of this length")
    what = f"a prompt of {answer.prompt:,} tokens"
    lines.append(f"first token after {seconds(answer.ttft_s)} for {what}, on an idle server")
    return [*lines, *answer.notes[1:], answer.basis]
