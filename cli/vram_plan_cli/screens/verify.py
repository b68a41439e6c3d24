"""`vram-plan verify`: the verdict in a sentence, the lines side by side, what is different about the settings, the corrected command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text
from vram_plan import format_gib

from .grids import as_json
from .plan import ENGINE_NAMES, console, show

if TYPE_CHECKING:
    from vram_plan.verification.values import Line, Reconciliation

__all__ = ["print_reconciliation"]

_NAMES: Final = {
    "kv_cache": "KV cache", "kv_tokens": "KV tokens", "available_kv": "left for KV", "kv_tokens_of_that_memory": "KV tokens of that",
    "max_context_of_that_memory": "longest context of that", "max_concurrency": "requests at once", "num_blocks": "KV blocks",
    "non_torch": "non-torch", "cuda_graphs": "CUDA graphs", "file_bytes": "model file", "gpu_memory": "memory",
    "context": "cache and states", "held": "process holds", "mmproj": "vision/audio tower", "mmproj_compute": "tower compute",
    "draft_kv_cache": "draft KV cache", "draft_compute": "draft compute", "mtp_kv_cache": "MTP KV cache", "mtp_compute": "MTP compute",
    "buffers": "buffers", "buffers_and_ram": "buffers, RAM too",
}  # fmt: skip
#: Below this width the reasons go under the table.
_WIDE: Final = 110
_NARROW: Final = 64
_CLOSE: Final = 0.005


def print_reconciliation(answer: Reconciliation, tolerance: float, output: str, width: int | None = None, quiet: bool = False) -> None:
    if output == "json":
        print(as_json("vram-plan/verify/1", answer))
        return
    out = console(width)
    if not quiet:
        show(out, Text(_title(answer), style="bold"), "")
    show(out, Text(_verdict(answer, tolerance), style="bold green" if answer.within(tolerance) else "bold yellow"))
    if quiet:
        return
    show(out, "", _table(answer, out))
    _print_reasons(answer, out)
    _print_rest(answer, out)


def _title(answer: Reconciliation) -> str:
    engine = ENGINE_NAMES.get(answer.engine, answer.engine)
    version = f" {answer.engine_version}" if answer.engine_version else ""
    return f"{answer.model.rsplit('/', 1)[-1]} · {answer.plan.request.quant} · {engine}{version} · {answer.source}"


def _verdict(answer: Reconciliation, tolerance: float) -> str:
    worst = answer.worst
    if worst is None:
        return "Nothing could be compared: see the lines below."
    error = abs(worst.error or 0)
    compared = sum(1 for line in answer.lines if line.counts and line.error is not None)
    if error <= _CLOSE / 10:
        return f"The plan is what the engine did: {compared} lines that count agree."
    word = "within" if error <= tolerance else "off by more than"
    return f"The plan is {word} {100 * tolerance:g} %: at most {100 * error:.1f} %, in {_label(worst)}."


def _label(line: Line) -> str:
    name = _NAMES.get(line.name, line.name.replace("_", " "))
    where = f" on GPU {line.place}" if isinstance(line.place, int) else " in RAM" if line.place == "host" else ""
    return name + where


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "bytes":
        return format_gib(int(value))
    return f"{value:,.2f}" if unit == "requests" or (unit == "tokens/s" and value < 100) else f"{value:,.0f}"


def _difference(line: Line) -> str:
    if line.difference is None:
        return ""
    if line.error == 0:
        return "="
    sign = "+" if line.difference > 0 else "−"
    return f"{sign}{_amount(abs(line.difference), line.unit)}"


def _share(line: Line) -> str:
    return "" if line.error is None or line.error == 0 else f"{100 * line.error:+.1f} %".replace("-", "−")


def _table(answer: Reconciliation, out: Console) -> Grid:
    """Where there is little width the difference is left out, where there is much the reason stands beside it."""
    narrow, wide = out.width < _NARROW, out.width >= _WIDE
    grid = Grid(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column("", overflow="fold")
    for title in ("predicted", "actual", *(() if narrow else ("difference",)), ""):
        grid.add_column(title, justify="right", no_wrap=True)
    if wide:
        grid.add_column("", overflow="fold", style="dim")
    for line in answer.lines:
        style = "bold" if line.name == "total" else "" if line.error is not None else "dim"
        colour = "yellow" if line.counts and abs(line.error or 0) > _CLOSE else ""
        share = "=" if narrow and line.error == 0 else _share(line)
        cells = [Text(_label(line), style=style), *(Text(_amount(v, line.unit), style=style) for v in (line.predicted, line.actual))]
        cells += [Text(text, style=colour) for text in ((share,) if narrow else (_difference(line), share))]
        grid.add_row(*cells, *([line.why if _told(line) else ""] if wide else []))
    return grid


def _told(line: Line) -> bool:
    """Whether a line's reason is worth saying: it is off, or one side is silent."""
    return bool(line.why) and (line.error is None or abs(line.error) > _CLOSE)


def _print_reasons(answer: Reconciliation, out: Console) -> None:
    if out.width >= _WIDE:
        return
    reasons: dict[str, list[str]] = {}
    for line in answer.lines:
        if _told(line):
            reasons.setdefault(line.why, []).append(_label(line))
    grid = _pairs()
    for why, names in reasons.items():
        grid.add_row(", ".join(names), why)
    if reasons:
        show(out, "", grid)


def _pairs() -> Grid:
    grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(overflow="fold", ratio=1)
    grid.add_column(overflow="fold", ratio=3)
    return grid


def _print_rest(answer: Reconciliation, out: Console) -> None:
    grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for note in answer.notes:
        grid.add_row("note", note)
    taken = [s for s in answer.settings if s.taken and s.asked is None]
    if taken:
        grid.add_row("taken over", ", ".join(f"{s.name} {_word(s.engine)}" for s in taken))
    if answer.saved:
        grid.add_row("saved", answer.saved)
    if answer.command:
        grid.add_row("plan it so", answer.command)
    if grid.rows:
        show(out, "", grid)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else str(value)
