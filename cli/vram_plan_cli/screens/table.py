"""`vram-plan table`: formats down, contexts across, a sign and a colour in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from .grids import as_csv, as_json, as_markdown
from .plan import ENGINE_NAMES, VERDICT_STYLE, console, show

if TYPE_CHECKING:
    from vram_plan.questions.cells import Cell
    from vram_plan.questions.table import Table, TableRow

__all__ = ["SIGNS", "longest_text", "print_table", "tokens"]

SIGNS: Final = {"fits": "✓", "tight": "!", "does_not_fit": "✗", "unknown": " "}
_LONGEST_WORDS: Final = {None: "no limit", 0: "none"}
_GIB: Final = 1 << 30


def print_table(answer: Table, output: str, width: int | None = None, quiet: bool = False) -> None:
    if output == "json":
        print(as_json("vram-plan/table/1", answer))
    elif output == "csv":
        print(_csv(answer))
    elif output == "markdown":
        header = ["format", *(tokens(context) for context in answer.contexts), *_last(answer)]
        print(as_markdown(header, [[row.format, *(_text(c) for c in row.cells), *_last_cell(answer, row)] for row in answer.rows]))
    else:
        _print_screen(answer, width, quiet)


def _csv(answer: Table) -> str:
    """One line a cell, plain numbers: for programs."""
    header = ("format", "bits_per_weight", "weights_bytes", "context", "needed_bytes", "headroom_bytes", "verdict", "max_context",
              "published_loss")  # fmt: skip
    rows = [
        (row.format, row.bits_per_weight, row.weights, c.context, c.needed, c.headroom, c.verdict, row.max_context,
         row.quality and row.quality.loss)
        for row in answer.rows
        for c in row.cells
    ]
    return as_csv(header, rows)


def tokens(count: int) -> str:
    """`16k`, `40k`, `1M`; other numbers with commas."""
    if count >= 1 << 20 and count % (1 << 20) == 0:
        return f"{count >> 20}M"
    return f"{count >> 10}k" if count >= 1024 and count % 1024 == 0 else f"{count:,}"


def _text(c: Cell) -> str:
    size = c.needed / _GIB
    return f"{size:.1f} {SIGNS[c.verdict]}".rstrip() if size < 1000 else f"{size:,.0f} {SIGNS[c.verdict]}".rstrip()


def _last(answer: Table) -> list[str]:
    return ["longest"] if answer.machine else []


def _last_cell(answer: Table, row: TableRow) -> list[str]:
    if not answer.machine:
        return []
    return [longest_text(row.max_context)]


def longest_text(context: int | None) -> str:
    """A longest context in words; None: memory sets no limit."""
    return _LONGEST_WORDS[context] if not context else f"{context:,}"


def _print_screen(answer: Table, width: int | None, quiet: bool) -> None:
    out = console(width)
    shown = _shown_contexts(answer, out.width)
    grid = Grid(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column("format", no_wrap=True)
    for i in shown:
        grid.add_column(tokens(answer.contexts[i]), justify="right", no_wrap=True)
    for title in _last(answer):
        grid.add_column(title, justify="right", no_wrap=True)
    for row in answer.rows:
        cells = [Text(_text(row.cells[i]), style=VERDICT_STYLE[row.cells[i].verdict].removeprefix("bold ")) for i in shown]
        grid.add_row(row.format, *cells, *_last_cell(answer, row))
    if not quiet:
        show(out, Text(_title(answer), style="bold"), "")
    show(out, grid)
    if not quiet:
        _print_foot(answer, len(shown), out)


def _shown_contexts(answer: Table, width: int) -> list[int]:
    """The columns there is room for: every one, or evenly fewer, the longest always."""
    names = max(len(row.format) for row in answer.rows)
    column = 2 + max(len(_text(c)) for row in answer.rows for c in row.cells)
    last = 2 + max((len(text) for row in answer.rows for text in _last_cell(answer, row)), default=-2)
    room = max((width - names - max(last, 9)) // column, 1)
    count = len(answer.contexts)
    step = -(-count // room)
    return sorted(range(count - 1, -1, -step))


def _title(answer: Table) -> str:
    name = answer.model.rsplit("/", 1)[-1]
    many = f" · {answer.sequences} sequences" if answer.sequences > 1 else ""
    kv = answer.kv_type_k if answer.kv_type_k == answer.kv_type_v else f"{answer.kv_type_k}/{answer.kv_type_v}"
    engine = ENGINE_NAMES.get(answer.engine, answer.engine)
    where = f" on {answer.machine.name}" if answer.machine else ", no GPU named"
    return f"{name} · KV {kv}{many} · {engine}{where}"


def _print_foot(answer: Table, shown: int, out: Console) -> None:
    lines = []
    if answer.machine:
        lines.append(f"GiB needed of {answer.machine.free / _GIB:.1f} free: ✓ fits, ! tight, ✗ does not fit; longest: tokens of context")
    else:
        lines.append("GiB needed; name a --gpu for the verdicts")
    if shown < len(answer.contexts):
        lines.append(f"{len(answer.contexts) - shown} contexts left out for want of width (--width, or a pipe, shows all)")
    show(out, "", *lines, *answer.notes)
