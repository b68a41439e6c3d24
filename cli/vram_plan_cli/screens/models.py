"""`vram-plan models --gpu`: what runs well on a machine, one line a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rich.table import Table as Grid
from rich.text import Text
from vram_plan import format_count

from .grids import as_csv, as_json, as_markdown
from .plan import ENGINE_NAMES, VERDICT_STYLE, console, show
from .table import SIGNS

if TYPE_CHECKING:
    from vram_plan.questions.catalogue_fit import ModelFit, ModelsFit

__all__ = ["print_models_fit"]

_GIB: Final = 1 << 30
_HEADER: Final = ("model", "size", "active", "format", "GiB", "tokens/s", "longest")
_FIRST_TO_GO: Final = ("active", "longest", "size", "format", "tokens/s")
#: Lines of a terminal that nobody scrolls back through.
SHOWN: Final = 40


def print_models_fit(answer: ModelsFit, output: str, top: int | None = None, width: int | None = None, quiet: bool = False) -> None:
    if top:
        answer = replace(answer, models=answer.models[:top])
    if output == "json":
        print(as_json("vram-plan/models/1", answer))
    elif output == "csv":
        print(_csv(answer))
    elif output == "markdown":
        print(as_markdown(_HEADER, [_row(fit) for fit in answer.models]))
    else:
        _print_screen(answer, top, width, quiet)


def _csv(answer: ModelsFit) -> str:
    header = ("name", "id", "parameters", "active_parameters", "format", "needed_bytes", "headroom_bytes", "verdict", "max_context",
              "decode_tokens_per_s", "ttft_s", "loss")  # fmt: skip
    return as_csv(
        header,
        [
            (m.name, m.id, m.parameters, m.active_parameters, m.format, m.needed, m.headroom, m.verdict, m.max_context,
             m.decode and round(m.decode.tokens_per_s, 2), m.ttft_s and round(m.ttft_s, 3), m.loss)
            for m in answer.models
        ],
    )  # fmt: skip


def _row(fit: ModelFit) -> tuple[str, ...]:
    active = format_count(fit.active_parameters) if fit.active_parameters < 0.9 * fit.parameters else ""
    speed = f"{fit.decode.tokens_per_s:,.0f}" if fit.decode else ""
    needed = f"{fit.needed / _GIB:.1f} {SIGNS[fit.verdict]}"
    return fit.name, format_count(fit.parameters), active, fit.format, needed, speed, f"{fit.max_context:,}"


def _print_screen(answer: ModelsFit, top: int | None, width: int | None, quiet: bool) -> None:
    out = console(width)
    many = f" × {answer.sequences} sequences" if answer.sequences > 1 else ""
    engine = ENGINE_NAMES.get(answer.engine, answer.engine)
    if not quiet:
        show(out, Text(f"{answer.machine.name} · {answer.context:,} tokens{many} · {engine}", style="bold"), "")
    shown = answer.models if top or not out.is_terminal else answer.models[:SHOWN]
    grid = Grid(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    rows = [_row(fit) for fit in shown]
    gap, columns = _columns(rows, out.width)
    grid.padding = (0, gap, 0, 0)
    for i in columns:
        grid.add_column(_HEADER[i], justify="left" if i in (0, 3) else "right", no_wrap=True)
    for fit, row in zip(shown, rows, strict=True):
        grid.add_row(*(Text(row[i], style=VERDICT_STYLE[fit.verdict].removeprefix("bold ") if i == 4 else "") for i in columns))
    show(out, grid)
    if not quiet:
        show(out, "", *_foot(answer, len(shown)))


def _columns(rows: Sequence[Sequence[str]], width: int) -> tuple[int, list[int]]:
    """The columns there is room for, and the blanks between: a name is never broken."""
    wide = [max(len(row[i]) for row in (_HEADER, *rows)) for i in range(len(_HEADER))]
    for dropped in range(len(_FIRST_TO_GO) + 1):
        columns = [i for i, title in enumerate(_HEADER) if title not in _FIRST_TO_GO[:dropped] and any(row[i] for row in rows)]
        for gap in (2, 1):
            if sum(wide[i] + gap for i in columns) - gap <= width:
                return gap, columns
    return 1, columns


def _foot(answer: ModelsFit, shown: int) -> list[str]:
    rest = len(answer.models) - shown
    lines = [f"and {rest} smaller ones (--top {len(answer.models)})"] if rest else []
    lines.append(f"GiB of {answer.machine.free / _GIB:.1f}: ✓ fits, ! just fits; in the format that loses least of those that fit")
    large, slow, short = answer.too_large, answer.too_slow, answer.too_short
    said = (
        (large, f"{large} too large for any format that loses little"),
        (slow, f"{slow} too slow"),
        (short, f"{short} trained for less context"),
    )
    left = [text for count, text in said if count]
    return [*lines, *([f"left out: {', '.join(left)}"] if left else [])]
