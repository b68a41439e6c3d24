"""A plan's terms beside the engine's figures: predicted, actual, difference, and what may make it.

Sums are compared where both sides have them: a figure of one side alone is shown without a difference and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..results import Plan, Term
from .reasons import reason
from .values import HOST, Figure, Line, Observation, Place, Unit

__all__ = ["aligned", "compared"]

#: A term counts by itself from this share of all that is compared on its device.
_LARGE: Final = 0.1
#: Terms in the order they are shown.
_ORDER: Final = ("weights", "mmproj", "kv_cache", "state", "context", "compute", "mmproj_compute", "runtime", "held")
#: The figures of an engine with a pool, in their order, and whether one that is off means that the plan was.
_POOL: Final = (("available_kv", True), ("kv_tokens", True), ("num_blocks", False), ("max_concurrency", False))
_UNITS: Final[Mapping[str, Unit]] = {"kv_tokens": "tokens", "num_blocks": "blocks", "max_concurrency": "requests"}


def compared(
    name: str, place: Place, unit: Unit, predicted: float | None, figure: Figure | None, counts: bool, why: str = "", step: float = 0.0
) -> Line:
    """One line of the comparison. What agrees to the last digit printed says so; a difference below that is none."""
    actual, seen = (_whole(figure.value, unit), figure.line) if figure else (None, "")
    predicted = None if predicted is None else _whole(predicted, unit)
    if predicted is None or actual is None:
        return Line(name, place, unit, predicted, actual, None, None, False, why, seen)
    difference = actual - predicted
    agrees = abs(difference) <= max(figure.step if figure else 0.0, step) + 0.5 * (unit == "bytes")
    error = 0.0 if agrees else difference / abs(actual) if actual else 1.0
    return Line(name, place, unit, predicted, actual, difference, error, counts, "" if agrees else why, seen)


def _whole(value: float, unit: Unit) -> float:
    return value if unit in ("requests", "tokens/s") else round(value)


def aligned(plan: Plan, seen: Observation) -> tuple[Line, ...]:
    """Every term of the plan and every figure of the engine, side by side."""
    if seen.engine in ("vllm", "sglang") and not any(figure.name == "held" for figure in seen.figures):
        return tuple(_pool_lines(plan, seen))
    return (*_buffer_lines(plan, seen), *_file_lines(plan, seen))


# --- llama.cpp and Ollama: buffers by device ------------------------------------------------------------------------------


def _buffer_lines(plan: Plan, seen: Observation) -> Iterable[Line]:
    figures = _joined(plan, seen)
    places: list[Place] = [i for i in range(len(plan.devices)) if plan.devices[i].terms or any(f.place == i for f in figures)]
    on_gpu = any(isinstance(figure.place, int) for figure in figures)
    if not on_gpu:
        places = []  # nothing of it is on a GPU: the host decides
    told = {figure.name for figure in figures}
    for place in places:
        yield from _place_lines(plan, seen, figures, place, _terms_at(plan, place, told), counts=True)
    if any(figure.place == HOST for figure in figures):
        yield from _place_lines(plan, seen, figures, HOST, _terms_at(plan, HOST, told), counts=not on_gpu)
    whole = [figure for figure in figures if figure.place is None and figure.name != "file_bytes"]
    for figure in whole:
        predicted = _summed(plan, figure.name)
        yield compared(figure.name, None, "bytes", predicted, figure, True, reason(plan, seen, figure.name, predicted, figure.value))


def _joined(plan: Plan, seen: Observation) -> list[Figure]:
    """The figures in bytes; on the host, states are counted with the cache as the plan does."""
    found: dict[tuple[str, Place], Figure] = {}
    for f in seen.figures:
        if f.unit != "bytes":
            continue
        name = "kv_cache" if f.place == HOST and f.name == "state" else f.name
        old = found.get((name, f.place))
        found[name, f.place] = Figure(name, f.value + old.value, "bytes", f.place, f.step + old.step, old.line) if old else f
    return list(found.values())


def _terms_at(plan: Plan, place: Place, told: Iterable[str] = ()) -> dict[str, int]:
    """The terms of a place by name, joined as the engine tells them: a context is cache and states, prediction layers are in
    the model's buffer, what is held is everything."""
    terms: tuple[Term, ...] = plan.host.terms if place == HOST else plan.devices[place].terms if isinstance(place, int) else ()
    sums: dict[str, int] = {}
    for term in terms:
        name = _told_as(term.name, told)
        sums[name] = sums.get(name, 0) + term.bytes
    return sums


def _told_as(term: str, told: Iterable[str]) -> str:
    if "held" in told:
        return "held"
    if "context" in told and term in ("kv_cache", "state"):
        return "context"
    return "weights" if term == "mtp_weights" else term


def _summed(plan: Plan, name: str) -> float | None:
    """A term over all GPUs and the host; `total` all GPUs hold."""
    if name == "total":
        return float(sum(term.bytes for device in plan.devices for term in device.terms))
    if name in ("buffers", "buffers_and_ram"):
        held = sum(term.bytes for device in plan.devices for term in device.terms if term.group != "runtime")
        return float(held + (plan.host.used if name == "buffers_and_ram" else 0))
    found = [terms[name] for place in (*range(len(plan.devices)), HOST) if name in (terms := _terms_at(plan, place))]
    return float(sum(found)) if found else None


def _place_lines(
    plan: Plan, seen: Observation, figures: list[Figure], place: Place, terms: Mapping[str, int], counts: bool
) -> Iterable[Line]:
    here = {figure.name: figure for figure in figures if figure.place == place}
    names = [*[n for n in _ORDER if n in terms or n in here], *sorted(n for n in {*terms, *here} if n not in _ORDER and n != "output")]
    both = [name for name in names if name in terms and name in here and name != "runtime"]
    total = sum(here[name].value for name in both)
    for name in names:
        predicted, figure = (float(terms[name]) if name in terms else None), here.get(name)
        large = counts and name in both and figure is not None and figure.value >= _LARGE * total
        actual = figure.value if figure else None
        yield compared(name, place, "bytes", predicted, figure, large, reason(plan, seen, name, predicted, actual))
    if len(both) > 1:
        whole = Figure("total", total, "bytes", place, sum(here[name].step for name in both), "")
        yield compared("total", place, "bytes", float(sum(terms[name] for name in both)), whole, counts)


def _file_lines(plan: Plan, seen: Observation) -> Iterable[Line]:
    """What identifies the file; it counts where nothing of the memory is told."""
    alone = not any(figure.unit == "bytes" and figure.name != "file_bytes" for figure in seen.figures)
    for name, predicted in (("file_bytes", plan.engine.get("file_bytes")), ("parameters", plan.model.parameters.total)):
        if figure := seen.figure(name):
            yield compared(name, None, figure.unit, predicted, figure, alone, reason(plan, seen, name, predicted, figure.value))


# --- vLLM and SGLang: ranks and the pool ----------------------------------------------------------------------------------


def _ranked(term: Term) -> str:
    """The figure of a start-up log that a term is part of."""
    if term.group == "weights":
        return "draft_weights" if term.name == "draft" else "weights"
    return term.name


def _pool_lines(plan: Plan, seen: Observation) -> Iterable[Line]:
    for place in sorted({f.place for f in seen.figures if isinstance(f.place, int) and f.place < len(plan.devices)}):
        for name in ("weights", "draft_weights", "activation", "non_torch", "cuda_graphs", "kv_cache", "state", "reserve"):
            figure = seen.figure(name, place)
            held = [term.bytes for term in plan.devices[place].terms if _ranked(term) == name]
            if figure is None or (seen.engine == "vllm" and name == "kv_cache"):
                continue
            predicted = float(sum(held)) if held else None
            counts = name in ("weights", "kv_cache", "state")
            yield compared(name, place, "bytes", predicted, figure, counts, reason(plan, seen, name, predicted, figure.value))
    if memory := seen.figure("gpu_memory", 0):
        usable = plan.devices[0].usable
        why = "another card than the plan's, or another part of one (--gpu)"
        why = why if usable else reason(plan, seen, "gpu_memory", None, memory.value)
        yield compared("gpu_memory", 0, "bytes", float(usable) if usable else None, memory, False, why, step=0.01 * memory.value)
    yield from _engine_lines(plan, seen)


def _engine_lines(plan: Plan, seen: Observation) -> Iterable[Line]:
    for name, counts in _POOL:
        figure = min((f for f in seen.figures if f.name == name), key=lambda f: f.value, default=None)
        if figure is None:
            continue
        value: Any = plan.engine.get(name) if plan.devices[0].usable else None
        predicted = float(value) if value is not None else None
        why = reason(plan, seen, name, predicted, figure.value)
        alone = name == "num_blocks" and seen.figure("kv_tokens") is None
        yield compared(name, None, _UNITS.get(name, "bytes"), predicted, figure, counts or alone, why)
