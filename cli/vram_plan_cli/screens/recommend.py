"""`vram-plan recommend`: the best few, each with what it gives, why it stands there and what is traded for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text
from vram_plan import format_gib

from ..language import say
from .grids import as_csv, as_json, as_markdown
from .plan import ENGINE_NAMES, VERDICT_STYLE, console, hanging, put, show
from .start import copyable
from .table import SIGNS

if TYPE_CHECKING:
    from vram_plan.questions.recommend import Miss, Option, Recommendation

__all__ = ["print_recommendation"]

_CSV: Final = (
    "rank", "machine", "gpus", "engine", "format", "tensor_parallel", "pipeline_parallel", "offload", "verdict", "used_bytes",
    "headroom_bytes", "max_context", "max_sequences", "decode_tokens_per_s", "ttft_s", "loss", "power_w", "price", "reason", "traded",
)  # fmt: skip


def print_recommendation(answer: Recommendation, output: str, width: int | None = None, quiet: bool = False) -> None:
    if output == "json":
        print(as_json("vram-plan/recommend/1", answer))
    elif output == "csv":
        print(as_csv(_CSV, [_csv_row(i, option) for i, option in enumerate(answer.options, 1)]))
    elif output == "markdown":
        header = ("", "machine", "run it as", "what it gives", "why")
        print(as_markdown(header, [_markdown_row(i, option) for i, option in enumerate(answer.options, 1)], len(header)))
    else:
        _print_screen(answer, console(width), quiet)


def _csv_row(rank: int, o: Option) -> tuple[object, ...]:
    fit, speed = o.plan.fit, o.plan.speed
    return (
        rank, o.machine.name, o.machine.gpus, o.engine, o.format, o.tensor_parallel, o.pipeline_parallel, o.offload, fit.verdict,
        o.plan.memory.total, fit.headroom, fit.max_context, fit.max_sequences, speed and round(speed.decode.tokens_per_s, 2),
        speed and round(speed.ttft_s, 3), o.loss, o.power_w, o.price and o.price.amount, o.reason, "; ".join(o.traded),
    )  # fmt: skip


def _markdown_row(rank: int, option: Option) -> tuple[str, ...]:
    why = option.reason + (f"; for {', '.join(option.traded)}" if option.traded else "")
    return str(rank), option.machine.name, _way(option), "; ".join(_gives(option)), why


def _way(option: Option) -> str:
    """Engine, format, split: `vLLM · FP8 · TP 2`."""
    parts = [ENGINE_NAMES.get(option.engine, option.engine), option.format]
    parts += [f"{name} {size}" for name, size in (("TP", option.tensor_parallel), ("PP", option.pipeline_parallel)) if size > 1]
    return " · ".join([*parts, *(["experts in RAM"] if option.offload == "experts" else [])])


def _gives(option: Option) -> list[str]:
    plan = option.plan
    facts = [f"{SIGNS[plan.fit.verdict]} {format_gib(option.needed)} of {format_gib(option.machine.free)}"]
    if plan.host.used >= 2**30:
        facts.append(f"{format_gib(plan.host.used)} of RAM")
    if speed := plan.speed:
        each = f", {speed.decode.tokens_per_s / plan.request.sequences:,.0f} a sequence" if plan.request.sequences > 1 else ""
        facts.append(f"{speed.decode.tokens_per_s:,.0f} tokens/s ({speed.decode.low:,.0f}–{speed.decode.high:,.0f}){each}")
        facts.append(f"first token {speed.ttft_s:,.1f} s")
    if plan.fit.max_context:
        facts.append(f"up to {plan.fit.max_context:,} tokens")
    if option.loss:
        facts.append(f"loses {100 * option.loss:.2g} %")
    if option.power_w:
        facts.append(f"{option.power_w:,.0f} W")
    if option.price:
        million = f", {option.price.currency}{option.price_per_million:,.2f} a million tokens" if option.price_per_million else ""
        facts.append(f"{option.price}{million}")
    return facts


def _asked(answer: Recommendation) -> str:
    parts = [answer.model.rsplit("/", 1)[-1], f"{answer.context:,} tokens"]
    if answer.sequences > 1:
        parts.append(f"{answer.sequences} sequences")
    if answer.min_decode:
        parts.append(f"at least {answer.min_decode:g} tokens/s each")
    if answer.max_ttft_s:
        parts.append(f"first token within {answer.max_ttft_s:g} s")
    return " · ".join(parts)


def _print_screen(answer: Recommendation, out: Console, quiet: bool) -> None:
    show(out, Text(_asked(answer), style="bold"), "")
    if not answer.options:
        show(out, Text(f"None of {answer.tried:,} combinations does that. The nearest:", style=VERDICT_STYLE["does_not_fit"]), "")
    for rank, option in enumerate(answer.options, 1):
        _print_option(option, out, quiet, f"{rank}  ")
        if not quiet:
            show(out, "")
    for miss in answer.misses:
        _print_miss(miss, out)
    if quiet:
        return
    if answer.options and answer.options[0].plan.launch:
        show(out, "Start the first with:")
        put(out, (f"  {line}" for line in copyable(answer.options[0].plan, out.width)))
        show(out, "")
    notes = (f"{answer.tried:,} combinations of machine, engine, format and split looked at", *answer.notes)
    show(out, *(Text(note, style="dim") for note in notes))


def _print_option(option: Option, out: Console, quiet: bool, rank: str = "") -> None:
    style = VERDICT_STYLE[option.plan.fit.verdict]
    show(out, Text(rank).append(option.machine.name, style=style).append(f" · {say(_way(option))}"))
    if quiet:
        return
    grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("   gives", " · ".join(_gives(option)))
    if option.reason:
        grid.add_row("   why", option.reason)
    if option.traded:
        grid.add_row("   for", ", ".join(option.traded))
    show(out, grid)


def _print_miss(miss: Miss, out: Console) -> None:
    show(out, Text(miss.option.machine.name, style="bold").append(f" · {say(_way(miss.option))}: {say('; '.join(miss.lacks))}"))
    for option, colon, effect in (change.partition(": ") for change in miss.changes):
        put(out, hanging(f"{option}{colon}{say(effect)}", out.width, "   "))
    show(out, "")
