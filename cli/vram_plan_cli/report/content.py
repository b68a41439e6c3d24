"""`vram-plan report`: a plan as one page, from answers of the library alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import vram_plan as vp
from vram_plan import format_count, format_gib

from ..language import say
from ..plots.chart import Bar, Bars, Chart
from ..plots.files import write_file
from ..plots.plan import context_chart, time_bars
from ..plots.svg import bars_svg, chart_svg
from ..screens.compare import value_text
from ..screens.plan import ENGINE_NAMES, GROUPS, device_name, label_of, note_lines, plan_title, speed_lines, verdict_sentence
from ..screens.start import remarks, start_lines, starts
from ..screens.table import SIGNS, longest_text, tokens
from .page import GENERATOR, Cell, Html, el, page, table

if TYPE_CHECKING:
    from vram_plan import Comparison, ContextCurve, Model, Plan, Table, Term
    from vram_plan.questions.compare import Line

__all__ = ["report_page", "write_report"]

_GIB: Final = 1 << 30
_BASES: Final = {
    "exact": "read from a file, or an identity of whole numbers",
    "formula": "from the model's or the engine's own rules",
    "measured": "measured on this machine, or from a cited log",
    "fallback": "an allowance or a labelled guess",
}
#: Other GPUs shown beside the plan's own.
OTHERS: Final = 3
_COMPARED: Final = ("verdict", "total", "usable", "left over", "longest context", "sequences at once", "first token", "prefill", "decode")
_CONTEXTS: Final = 9
_TERM_HEADER: Final = ("what", "size", "why")
_CONTEXT_HEADER: Final = ("tokens of context", "needed", "KV cache", "left over")


def write_report(path: str, html: str, force: bool) -> None:
    """The page as a file, whole or not at all. Raises UsageError where something else is there already."""
    if not force and _is_anothers(path):
        raise vp.UsageError(f"{path[:80]!r} is there already and is no report", "name another file, or write over it with --force")
    write_file(path, html.encode())


def _is_anothers(path: str) -> bool:
    """True for a file that is there and is no report of ours."""
    try:
        place = Path(path)
        if not place.is_file():
            return False
        with place.open("rb") as file:
            return f'<meta name="generator" content="{GENERATOR}">'.encode() not in file.read(1000)
    except (OSError, ValueError):  # what cannot be looked at cannot be written either
        return False


def report_page(model: Model, request: Mapping[str, Any]) -> str:
    """The whole page. `request` is what `plan` takes, its GPUs named or none. Raises what `plan` raises."""
    plan, curve = vp.plan(model, **request), vp.context_curve(model, **request)
    name = plan.model.name.rsplit("/", 1)[-1]
    parts = (
        _head(plan),
        _memory(plan),
        _context(curve),
        _speed(plan, curve),
        _formats(_table(model, plan, request), plan),
        _gpus(_comparison(model, plan, request)),
        _start(plan),
        _notes(plan),
        _arithmetic(vp.explain(model, plan)),
        _foot(),
    )
    return page(f"{name}: memory and speed", [part for part in parts if part])


def _head(plan: Plan) -> Html:
    p = plan.model.parameters
    active = f", {format_count(p.active)} active a token" if p.experts else ""
    facts = f"{format_count(p.total)} parameters{active}; {plan.kv_bytes_per_token / 1024:,.0f} KiB of KV cache a token"
    return el(
        "header",
        el("h1", plan_title(plan)),
        el("p", verdict_sentence(plan), class_=f"verdict {plan.fit.verdict}"),
        *([_changes(plan, "What would fit")] if plan.fit.verdict == "does_not_fit" and plan.fit.suggestions else []),
        el("p", facts, class_="quiet"),
    )


def _changes(plan: Plan, title: str) -> Html:
    return Html(el("h3", title) + el("ul", *(el("li", *_change(text)) for text in plan.fit.suggestions)))


def _change(text: str) -> list[str]:
    """An option to type, and what it makes of the plan."""
    option, _, effect = text.partition(": ")
    return [el("code", option), ": ", effect] if option.startswith("-") else [text]


def _section(title: str, *children: Html) -> Html:
    return el("section", el("h2", title), *children)


def _both(drawn: Chart | Bars) -> list[Html]:
    """A drawing twice, for a wide and for a narrow screen: letters keep their size."""
    sizes = ((720, "wide-only"), (330, "narrow-only"))
    return [Html(chart_svg(drawn, w, False, css) if isinstance(drawn, Chart) else bars_svg(drawn, w, False, css)) for w, css in sizes]


def _memory(plan: Plan) -> Html:
    bars = tuple(_device_bar(plan, i) for i in range(min(len(plan.devices), 8)))
    words = "; ".join(f"{bar.label}: {', '.join(f'{name} {size:.2f} GiB' for name, size in bar.parts if size)}" for bar in bars)
    parts = [*_both(Bars("Where the memory goes", bars, words))]
    limiting = [i for i, d in enumerate(plan.devices) if d.index == plan.fit.limiting_device] or [0]
    for i in dict.fromkeys([*limiting, *range(len(plan.devices))][: 1 if _alike(plan) else 8]):
        parts.append(_terms(plan, i))
    if plan.host.terms:
        parts.append(table("In the computer's own RAM", _TERM_HEADER, [_term(t) for t in plan.host.terms], text=(2,)))
    used = {t.basis for d in plan.devices for t in d.terms}
    return _section("Where the memory goes", *parts, el("ul", *(el("li", f"{k}: {v}") for k, v in _BASES.items() if k in used)))


def _alike(plan: Plan) -> bool:
    """True where every GPU holds the same."""
    return len({tuple((t.name, t.bytes) for t in d.terms) for d in plan.devices}) == 1


def _device_bar(plan: Plan, i: int) -> Bar:
    device = plan.devices[i]
    sizes = {group: 0.0 for group, *_ in GROUPS}
    for term in device.terms:
        sizes[term.group] += term.bytes / _GIB
    over = device.used - device.available
    rest = f": {format_gib(over)} more than is free" if over > 0 else f" of {format_gib(device.available)} free"
    label = f"GPU {device.index}: {device_name(device.name)}" if len(plan.devices) > 1 else device_name(device.name) or "GPU"
    scale = max(device.available, device.used) / _GIB
    parts = tuple((name, sizes[group]) for group, _, _, name in GROUPS)
    return Bar(label, parts, format_gib(device.used) + (rest if device.usable else ""), scale)


def _terms(plan: Plan, i: int) -> Html:
    device, count = plan.devices[i], len(plan.devices)
    whose = f"GPU {device.index}, {device_name(device.name)}" if count > 1 else device_name(device.name) or "GPU memory"
    caption = f"{whose}, as each of {count} GPUs" if count > 1 and _alike(plan) else whose
    rows: list[Sequence[Cell]] = [_term(t) for t in device.terms]
    rest = f"{format_gib(device.headroom)} left over" if device.headroom and device.headroom > 0 else ""
    short = f"{format_gib(-device.headroom)} short" if device.headroom and device.headroom < 0 else ""
    rows.append((("total", "chosen"), (format_gib(device.used), "chosen"), (rest or short, "chosen")))
    return table(caption, _TERM_HEADER, rows, text=(2,))


def _term(term: Term) -> Sequence[Cell]:
    return label_of(term), format_gib(term.bytes), f"{term.basis}: {term.why}"


def _context(curve: ContextCurve) -> Html:
    chart = context_chart(curve)
    step = max(len(curve.points) // (_CONTEXTS - 1), 1)
    points = list(curve.points[::step])
    rows = [
        (
            f"{p.context:,}",
            format_gib(p.needed),
            format_gib(p.kv_cache + p.state),
            ("" if p.headroom is None else format_gib(p.headroom), "does_not_fit" if (p.headroom or 0) < 0 else ""),
        )
        for p in points
    ]
    details = el("details", el("summary", "The curve as a table"), table("Memory at some contexts", _CONTEXT_HEADER, rows))
    return _section("How long the context may get", el("p", chart.summary), *_both(chart), details)


def _speed(plan: Plan, curve: ContextCurve) -> Html | None:
    lines = [el("p", say(label).capitalize(), ": ", text, ".") for label, text in speed_lines(plan)]
    bars = time_bars(curve)
    return _section("How fast it runs", *lines, *(_both(bars) if bars else [])) if lines else None


def _table(model: Model, plan: Plan, request: Mapping[str, Any]) -> Table:
    given = {key: value for key, value in request.items() if key not in ("context", "bits", "quant", "engine", "prompt", "output")}
    return vp.table(model, engine=plan.request.engine, **given)


def _formats(answer: Table, plan: Plan) -> Html:
    contexts = range(len(answer.contexts))
    every = [i + 1 for i in contexts if len(contexts) > 4 and (len(contexts) - 1 - i) % 3]
    header = ("format", *(tokens(c) for c in answer.contexts), *(["longest"] if answer.machine else []))
    rows: list[Sequence[Cell]] = [
        (
            (row.format, "chosen" if row.format == plan.request.quant else ""),
            *((f"{c.needed / _GIB:.1f} {SIGNS[c.verdict]}".rstrip(), c.verdict) for c in row.cells),
            *([longest_text(row.max_context)] if answer.machine else []),
        )
        for row in answer.rows
    ]
    free = f" of {answer.machine.free / _GIB:.1f} free: ✓ fits, ! just fits, ✗ does not fit" if answer.machine else ""
    return _section("Formats and contexts", table(f"GiB needed{free}", header, rows, wide=every))


def _comparison(model: Model, plan: Plan, request: Mapping[str, Any]) -> Comparison | None:
    """The same work on the plan's own GPUs and on the smallest common ones it fits."""
    own = [request["gpus"]] if plan.devices[0].usable else []
    count, here = max(len(plan.devices), 1), {d.name for d in plan.devices}
    r = plan.request
    asked = {k: v for k, v in request.items() if k not in ("bits", "quant", "engine", "gpus")} | {"context": r.context}
    one = asked | {"engine": r.engine, "quant": r.quant}
    common = sorted((spec for spec in vp.list_gpus() if spec.common and spec.name not in here), key=lambda spec: spec.memory_bytes)
    others: list[str] = []
    for spec in common:
        name = f"{count}x {spec.name}" if count > 1 else spec.name
        if len(others) < OTHERS + (not own) and vp.plan(model, gpus=name, **one).fit.verdict in ("fits", "tight"):
            others.append(name)
    chosen = [*own, *others]
    return vp.compare(model, gpus=chosen, engines=r.engine, quants=r.quant, **asked) if len(chosen) > 1 else None


def _gpus(answer: Comparison | None) -> Html | None:
    if answer is None:
        return None
    lines = [line for line in answer.lines if line.name in _COMPARED]
    rows: list[Sequence[Cell]] = [(_line_name(n), *((value_text(n, i), _value_class(n, i)) for i in range(len(n.values)))) for n in lines]
    header = ("", *(subject.label for subject in answer.subjects))
    caption = "The same work on other GPUs: the smallest common ones it fits"
    return _section("On other GPUs", table(caption, header, rows, wide=range(4, len(header))))


def _line_name(line: Line) -> str:
    return f"{line.name}, {line.unit}" if line.unit == "tokens/s" else line.name


def _value_class(line: Line, i: int) -> str:
    return str(line.values[i]) if line.name == "verdict" else "chosen" if i in line.best else ""


def _start(plan: Plan) -> Html | None:
    if not starts(plan):
        return None
    parts: list[Html] = []
    for command, line in zip(plan.launch, start_lines(plan), strict=True):
        typed, told = remarks(command)
        parts += [el("pre", el("code", "\n".join((line, *typed)))), *(el("p", f"{text}.") for text in told)]
    engine = ENGINE_NAMES.get(plan.request.engine, plan.request.engine)
    return _section(f"How to start it with {engine}", *parts) if parts else None


def _notes(plan: Plan) -> Html | None:
    labels = {"warning": el("strong", "Warning: ", class_="tight"), "assumed": el("span", "Assumed: ")}
    items = [el("li", labels.get(label, ""), text) for label, text in note_lines(plan, say)]
    parts = [el("ul", *items)] if items else []
    if plan.fit.suggestions and plan.fit.verdict == "tight":
        parts.append(_changes(plan, "What would leave more room"))
    return _section("What to know", *parts) if parts else None


def _arithmetic(sections: Iterable[vp.Section]) -> Html:
    parts = [el("details", el("summary", s.title), el("pre", "\n".join(s.lines))) for s in sections]
    return _section("The arithmetic, with this model's numbers", *parts)


def _foot() -> Html:
    words = "1 GiB = 2^30 bytes. Speeds are estimates; each term of the memory says how it is known."
    return el("footer", el("p", f"Written by vram-plan {vp.__version__}. {words}"))
