"""The plan on one screen: the answer in a sentence, where the memory goes, each term with its reason, what to do."""

from __future__ import annotations

import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text
from vram_plan import format_count, format_gib

from ..language import say
from .start import copyable, starts

if TYPE_CHECKING:
    from vram_plan import Model, Plan, Term
    from vram_plan.results import DevicePlan

__all__ = [
    "ENGINE_NAMES", "GROUPS", "VERDICT_STYLE", "console", "device_name", "hanging", "label_of", "note_lines", "plan_title",
    "print_explanation", "print_plan", "print_verdict", "put", "seconds", "show", "speed_lines", "verdict_sentence",
]  # fmt: skip

GROUPS: Final = (("weights", "█", "cyan", "weights"), ("kv_cache", "▓", "magenta", "KV cache"), ("state", "▒", "blue", "state"),
                  ("compute", "░", "yellow", "compute"), ("runtime", "▞", "green", "runtime"))  # fmt: skip
VERDICT_STYLE: Final = {"fits": "bold green", "tight": "bold yellow", "does_not_fit": "bold red", "unknown": "bold"}
ENGINE_NAMES: Final = {"ollama": "Ollama", "vllm": "vLLM", "sglang": "SGLang"}
_NOTE_WORDS: Final = {"info": "note", "warning": "warning"}
#: Below this width the reasons go; a pipe gets lines long enough for them.
NARROW: Final = 60
PIPED_WIDTH: Final = 160


def console(width: int | None = None) -> Console:
    """A console that colours on a terminal only, and never with NO_COLOR; a pipe gets wide plain lines."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an ASCII locale gets question marks, not a failure
    if width is None and not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        width = PIPED_WIDTH
    return _Console(highlight=False, soft_wrap=False, width=width, emoji=False, markup=False)


class _Console(Console):
    """Says every text of a table in the chosen language."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(say(text), **options)


def show(out: Console, *parts: Table | Text | str, style: str = "") -> None:
    """Print, in the chosen language, without the blanks a table pads its lines with."""
    with out.capture() as captured:
        for part in parts:
            spoken = Text(say(part.plain), style=part.style) if isinstance(part, Text) and not part.spans else part
            out.print(spoken, style=style or None)
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def put(out: Console, lines: Iterable[str]) -> None:
    """Lines as they are: neither wrapped nor translated, so that what is copied is what was meant."""
    for line in lines:
        out.print(Text(line), soft_wrap=True)


def print_explanation(model: Model, plan: Plan, out: Console | None = None) -> None:
    """`--explain`: the plan's arithmetic, section by section; what continues a line stands further in than its start."""
    import vram_plan as vp

    out = out or console()
    for section in vp.explain(model, plan):
        show(out, "", Text(section.title, style="bold"))
        for line in section.lines:
            put(out, hanging(say(line), out.width, "  "))


def hanging(text: str, width: int, indent: str) -> list[str]:
    """A text in lines, what continues the first further in."""
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent[2:]}      ", break_on_hyphens=False)


def print_verdict(plan: Plan, out: Console) -> None:
    """`--quiet`: the answer in a sentence."""
    show(out, Text(verdict_sentence(plan), style=VERDICT_STYLE[plan.fit.verdict]))


def print_plan(plan: Plan, out: Console | None = None) -> None:
    out = out or console()
    show(out, Text(plan_title(plan), style="bold"))
    show(out, "", Text(verdict_sentence(plan), style=VERDICT_STYLE[plan.fit.verdict]), "")
    if plan.fit.verdict == "does_not_fit" and plan.fit.suggestions:
        show(out, "What would fit:", *_changes(plan.fit.suggestions, out.width), "")
    if plan.fit.verdict == "unknown" and plan.fit.suggestions[1:]:
        show(out, "What would need less:", *_changes(plan.fit.suggestions[1:], out.width), "")
    shown = _shown_device(plan)
    if out.is_terminal and shown.usable:
        show(out, *(_bar(device, min(out.width, 80)) for device in plan.devices[:8]), _legend(shown), "")
    show(out, _terms(plan, shown, out.width))
    _print_advice(plan, out)


def plan_title(plan: Plan) -> str:
    r = plan.request
    tokens = f"{r.context:,} tokens" + (f" × {r.sequences} sequences" if r.sequences > 1 else "")
    where = f" on {_machine(plan.devices)}" if plan.devices[0].usable else ", no GPU named"
    engine = ENGINE_NAMES.get(r.engine, r.engine)
    return f"{plan.model.name.rsplit('/', 1)[-1]} · {r.quant} · {tokens} · {engine}{where}"


def _machine(devices: tuple[DevicePlan, ...]) -> str:
    names: dict[str, int] = {}
    for device in devices:
        name = device_name(device.name)
        names[name] = names.get(name, 0) + 1
    return " + ".join(f"{count} × {name}" if count > 1 else name for name, count in names.items())


def device_name(name: str) -> str:
    """As people say it: without its maker."""
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def seconds(value: float) -> str:
    """`26 ms`, `9.1 s`, `84 s`."""
    return f"{_short_number(1000 * value)} ms" if value < 1 else f"{_short_number(value)} s"


def verdict_sentence(plan: Plan) -> str:
    """The answer, and how far it could go."""
    fit = plan.fit
    if fit.verdict == "unknown":
        return f"Needs {format_gib(plan.memory.total)}. {_first_upper(fit.suggestions[0]) if fit.suggestions else ''}".rstrip() + "."
    room = format_gib(abs(fit.headroom or 0))
    short = fit.headroom is not None and fit.headroom < 0
    if fit.verdict == "does_not_fit":
        if not short:
            return f"Would not start: {fit.refusal}."
        return f"Does not fit: {room} short." + (f" {_largest(plan)}" if fit.max_context else " Not even one token of context would.")
    spare = f"{room} of the KV pool" if pooled(plan) else room
    start = f"Fits, with {spare} to spare." if fit.verdict == "fits" else f"Just fits, with only {spare} to spare."
    return f"{start} {_runs_out(plan)}"


def _runs_out(plan: Plan) -> str:
    if plan.fit.max_context is None:
        return "More context would not fill it."
    return f"It would run out after {plan.fit.max_context:,} tokens."


def _largest(plan: Plan) -> str:
    return f"The longest context that fits is {plan.fit.max_context:,} tokens."


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shown_device(plan: Plan) -> DevicePlan:
    if plan.fit.limiting_device is None:
        return plan.devices[0]
    return next((d for d in plan.devices if d.index == plan.fit.limiting_device), plan.devices[0])


def pooled(plan: Plan) -> bool:
    """True for an engine that fills its budget with a KV pool: its headroom is what of the pool stays empty."""
    return any(device.headroom is not None and device.headroom != device.available - device.used for device in plan.devices)


def _shares(device: DevicePlan) -> dict[str, int]:
    shares: dict[str, int] = {}
    for term in device.terms:
        shares[term.group] = shares.get(term.group, 0) + term.bytes
    return shares


def _bar(device: DevicePlan, width: int) -> Text:
    """Where the memory goes, to scale of what is usable; what other programs hold is shown as taken."""
    usable = device.usable or 1
    free = device.available
    figures = f"  {device.used / 2**30:.1f} of {free / 2**30:.1f} GiB"
    cells = max(width - len(figures) - 1, 10)
    taken = usable - free
    scale = max(usable, device.used + max(taken, 0))
    bar, shares = Text(), _shares(device)
    done = 0
    start = 0
    parts = [("taken", "╳", "dim", taken)] if taken > 0 else []
    parts += [(group, mark, style, shares.get(group, 0)) for group, mark, style, _ in GROUPS]
    for _, mark, style, size in parts:
        done += size
        end = round(cells * done / scale)
        bar.append(mark * (end - start), style=style)
        start = end
    bar.append("·" * max(cells - start, 0), style="dim")
    return bar.append(figures)


def _legend(device: DevicePlan) -> Text:
    shares, legend = _shares(device), Text()
    for group, mark, style, name in GROUPS:
        if shares.get(group):
            legend.append(f"{mark} ", style=style).append(f"{name}   ")
    return legend.append("· free", style="dim")


def _terms(plan: Plan, device: DevicePlan, width: int) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    if width >= NARROW:
        table.add_column(overflow="fold")
    for term in device.terms:
        _add_term(table, term)
    if plan.host.used:
        names = ", ".join(dict.fromkeys(term.name.replace("_", " ") for term in plan.host.terms))
        _add_row(table, "in RAM", format_gib(plan.host.used), "", names)
    count = len(plan.devices)
    label = "total" if count == 1 else f"total, fullest of {count} GPUs"
    rest = ""
    if device.usable is not None:
        over = device.used - device.available
        rest = f"{format_gib(over)} more than is free" if over > 0 else f"of {format_gib(device.available)} free"
    _add_row(
        table, label, format_gib(device.used), "", rest or (f"{format_gib(-device.headroom)} more than is free" if device.headroom else "")
    )
    return table


def _add_term(table: Table, term: Term) -> None:
    """A term with the first clause of its reason; `--explain` gives the whole."""
    why = say(term.why).split("; ")[0]
    _add_row(table, label_of(term), format_gib(term.bytes), term.basis, why)


def label_of(term: Term) -> str:
    """A term's name in words."""
    return term.name.replace("kv_cache", "KV cache").replace("_", " ")


def _add_row(table: Table, *cells: str) -> None:
    table.add_row(*cells[: len(table.columns)])


def _print_advice(plan: Plan, out: Console) -> None:
    """What the model is, what was assumed, what limits it, what to change, how to start it."""
    p = plan.model.parameters
    active = f", {format_count(p.active)} active a token" if p.experts else ""
    lines = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("model", f"{format_count(p.total)} parameters{active}; {plan.kv_bytes_per_token / 1024:,.0f} KiB of KV cache a token")
    lines.add_row("limit", _limit(plan))
    for label, text in speed_lines(plan):
        lines.add_row(label, text)
    for label, text in note_lines(plan, say):
        lines.add_row(Text(say(label), style="yellow" if label == "warning" else ""), text)
    show(out, "", lines)
    if plan.fit.suggestions and plan.fit.verdict == "tight":
        show(out, "", "What would leave more room:", *_changes(plan.fit.suggestions, out.width))
    if plan.launch and starts(plan):
        show(out, "", "Starts all the same:" if plan.fit.verdict == "does_not_fit" else "Start it with:")
        put(out, (f"  {line}" for line in copyable(plan, out.width)))


def speed_lines(plan: Plan) -> list[tuple[str, str]]:
    """How fast, as ranges, and what binds it; of a plan that does not fit, how fast it would be if it did."""
    speed = plan.speed
    if speed is None:
        nameless = plan.devices[0].usable and plan.devices[0].name.startswith("GPU ")
        return [("speed", "not known of a GPU without a name: give one, as in --gpu 'RTX 4060'")] if nameless else []
    unless = "if it fitted: " if plan.fit.verdict == "does_not_fit" else ""
    decode, prefill, many = speed.decode, speed.prefill, plan.request.sequences
    each = f"{_short_number(decode.low / many)}–{_short_number(decode.high / many)} each"
    together = f" for all sequences together, {each}" if many > 1 else ""
    quickest, slowest = (f"{_short_number(plan.request.prompt / rate)}" for rate in (prefill.high, prefill.low))
    rows = [
        ("speed", f"{unless}{_short_number(decode.low)}–{_short_number(decode.high)} tokens/s{together}, {decode.why}"),
        ("first token", f"{unless}after {quickest}–{slowest} s for a prompt of {plan.request.prompt:,} tokens, {prefill.bound}-bound"),
    ]
    if speed.total_s is not None:
        token = f"{seconds(speed.tpot_s)} a token on average"
        rows.append(("answer", f"of {plan.request.output:,} tokens complete after {seconds(speed.total_s)}, {token}"))
    if speed.joules_per_token_at_most and not unless:
        joules = _short_number(speed.joules_per_token_at_most)
        rows.append(("energy", f"at most {joules} J a token, the GPUs' power limits drawn throughout"))
    return rows + [(label, text) for label, text in (_measured(speed.basis),) if text]


def _measured(basis: str) -> tuple[str, str]:
    """What of the speed was measured on this device, or why its calibration is left aside; nothing for the fitted constants alone."""
    if basis.startswith("measured: "):
        return "measured", basis.removeprefix("measured: ")
    aside = basis.partition("; the calibration")[2]
    return "note", f"the calibration{aside}" if aside else ""


def _short_number(value: float) -> str:
    """Two figures where there are no more than two before the point."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _limit(plan: Plan) -> str:
    """The two largest shares, and how many sequences would fit."""
    shares = {name: getattr(plan.memory, group) for group, _, _, name in GROUPS}
    largest = sorted(shares.items(), key=lambda item: -item[1])[:2]
    text = ", ".join(f"{name} {100 * size / max(plan.memory.total, 1):.0f} %" for name, size in largest)
    most = plan.fit.max_sequences
    if most and plan.fit.verdict != "does_not_fit":
        text += f"; room for {most:,} sequences of this length at once" if most > 1 else "; room for 1 sequence of this length"
    return text


def note_lines(plan: Plan, spoken: Callable[[str], str] = str) -> list[tuple[str, str]]:
    """Notes with their labels; what was filled in for want of an option is one line."""
    assumed = [note.text for note in plan.notes if "not given: " in note.text]
    rows = [("assumed", "; ".join(spoken(text).split(": ", 1)[-1] for text in assumed))] if assumed else []
    said = verdict_sentence(plan).removeprefix("Would not start: ").rstrip(".")
    notes = [note for note in plan.notes if note.text not in assumed and not note.text.endswith(f": {said}")]
    return rows + [(_NOTE_WORDS[note.level], note.text) for note in notes]


def _changes(suggestions: Sequence[str], width: int) -> list[Table | str]:
    """Each change with what it makes of the plan; where both have no room beside each other, below it."""
    rows = [text.partition(": ") for text in suggestions]
    if max(len(option) for option, _, _ in rows) > width - 34:
        return [line for option, _, effect in rows for line in (f"  {option}", *hanging(say(effect), width, "      "))]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for option, _, effect in rows:
        table.add_row(f"  {option}", effect)
    return [table]
