"""`vram-plan compare`: one column a plan, one line a figure; what differs and what is best marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text
from vram_plan import format_gib

from ..language import say
from .grids import as_csv, as_json, as_markdown
from .plan import ENGINE_NAMES, VERDICT_STYLE, console, put, show
from .start import copyable, starts
from .table import SIGNS

if TYPE_CHECKING:
    from vram_plan.questions.compare import Comparison, Line

__all__ = ["print_comparison", "value_text"]

_VERDICT_WORDS: Final = {"fits": "fits", "tight": "just fits", "does_not_fit": "does not fit", "unknown": "no GPU"}


def print_comparison(answer: Comparison, output: str, width: int | None = None, quiet: bool = False) -> None:
    header = ["", *(_label(subject.label) for subject in answer.subjects)]
    if output == "json":
        print(as_json("vram-plan/compare/1", answer))
    elif output == "csv":
        print(as_csv(["figure", "unit", *header[1:], "differs"], [(n.name, n.unit, *n.values, n.differs) for n in answer.lines]))
    elif output == "markdown":
        print(as_markdown(header, [[line.name, *(_marked(line, i) for i in range(len(line.values)))] for line in answer.lines]))
    else:
        _print_screen(answer, console(width), quiet)


def _label(text: str) -> str:
    """Engines as their makers write them."""
    return " · ".join(ENGINE_NAMES.get(part, part) for part in text.split(" · "))


def _shown(answer: Comparison) -> list[Line]:
    """The lines a screen shows: what is the same for all and stands in the title is not repeated."""
    return [line for line in answer.lines if line.differs or line.name not in ("format", "context")]


def value_text(line: Line, i: int) -> str:
    """A figure in words, with its unit."""
    value: Any = line.values[i]
    if value is None:
        return "–"
    if isinstance(value, str):
        return f"{SIGNS[value]} {_VERDICT_WORDS[value]}".strip() if line.name == "verdict" else value
    if line.unit == "bytes":
        return format_gib(value)
    return f"{value:.2g} s" if line.unit == "s" and value < 10 else f"{value:,.0f}{' s' if line.unit == 's' else ''}"


def _marked(line: Line, i: int) -> str:
    return value_text(line, i) + (" *" if i in line.best else "")


def _print_screen(answer: Comparison, out: Console, quiet: bool) -> None:
    """As many columns side by side as the width holds, the rest below."""
    if not quiet and answer.same:
        show(out, Text(_label(" · ".join(answer.same)), style="bold"), "")
    names = max(len(_name(line)) for line in answer.lines) + 2
    column = 2 + max(max(len(_marked(line, i)) for line in answer.lines for i in range(len(answer.subjects))), 12)
    per_block = max((out.width - names) // column, 1)
    for start in range(0, len(answer.subjects), per_block):
        show(out, *([""] if start else []), _block(answer, range(start, min(start + per_block, len(answer.subjects)))))
    if quiet:
        return
    if any(line.differs for line in answer.lines):
        show(out, "", "≠ differs by more than 5 %, * best")
    _print_starts(answer, out)


def _block(answer: Comparison, columns: range) -> Grid:
    grid = Grid(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column("", no_wrap=True)
    for i in columns:
        grid.add_column(_label(answer.subjects[i].label), justify="right", overflow="fold")
    for line in _shown(answer):
        grid.add_row(Text(_name(line), style="" if line.differs else "dim"), *(_cell(line, i) for i in columns))
    return grid


def _name(line: Line) -> str:
    unit = ", tokens/s" if line.unit == "tokens/s" else ""
    return f"{'≠' if line.differs else ' '} {say(line.name)}{unit}"


def _cell(line: Line, i: int) -> Text:
    if line.name == "verdict":
        verdict = str(line.values[i])
        return Text(f"{SIGNS[verdict]} {say(_VERDICT_WORDS[verdict])}".strip(), style=VERDICT_STYLE[verdict])
    best = i in line.best
    return Text(_marked(line, i), style="bold green" if best else "" if line.differs else "dim")


def _print_starts(answer: Comparison, out: Console) -> None:
    """The commands of those that start, each under its name."""
    for subject in answer.subjects:
        if subject.plan.launch and starts(subject.plan):
            show(out, "", f"Start {_label(subject.label)} with:")
            put(out, (f"  {line}" for line in copyable(subject.plan, out.width)))
