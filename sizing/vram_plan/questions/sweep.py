"""Verdicts by the million: every model in every format at every context on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..engines import Work
from ..hardware import Detection, Device
from ..inverse import allocated, rooms_of
from ..models.loading import load
from ..models.model import Model
from ..planner import verdict_of
from ..request import make_work
from ..results import Verdict
from ..values import dataclass
from .cells import machine_of, name_of, parse_contexts, parse_formats, said_engine

__all__ = ["SweepRow", "sweep"]


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One model in one format on one machine: a verdict for each context, in the order of `contexts` (ascending)."""

    model: str
    format: str
    machine: str
    contexts: tuple[int, ...]
    verdicts: tuple[Verdict, ...]


def sweep(
    models: Iterable[Model | str],
    *,
    quants: str | Sequence[str],
    contexts: str | int | Sequence[str | int],
    gpus: Iterable[str | Sequence[Device] | Detection],
    engine: str = "llama.cpp",
    sequences: int = 1,
    kv_type: str | None = None,
) -> Iterator[SweepRow]:
    """A row for each model, format and machine, as they are worked out.

    Memory never falls as the context grows, so only the contexts around a change of verdict are computed: a row of
    many contexts costs little more than one. Raises what `plan` raises.
    """
    name = said_engine(engine) or engine
    chosen, spans = parse_formats(quants, name), parse_contexts(contexts)
    machines = [machine_of(gpu).devices for gpu in gpus]
    names = [name_of(devices) for devices in machines]
    for text in models:
        model = load(text) if isinstance(text, str) else text
        work = _work(model, name, sequences, kv_type)
        for format in chosen:
            done = replace(work, format=format)
            for devices, machine in zip(machines, names, strict=True):
                yield SweepRow(model.name, format.name, machine, spans, _verdicts(model, done, devices, spans))


def _work(model: Model, engine: str, sequences: int, kv_type: str | None) -> Work:
    given: dict[str, Any] = dict.fromkeys(
        ("context", "bits", "quant", "kv_type_k", "kv_type_v", "tensor_parallel", "pipeline_parallel", "prompt", "output", "options")
    )
    work, _ = make_work(model, 1, engine=engine, sequences=sequences, kv_type=kv_type, expert_parallel=False, offload="auto", **given)
    return work


def _verdicts(model: Model, work: Work, devices: tuple[Device, ...], contexts: tuple[int, ...]) -> tuple[Verdict, ...]:
    """Between two contexts of one verdict all are of it; else the middle is asked."""

    def ask(i: int) -> Verdict:
        found = allocated(model, replace(work, context=contexts[i]), devices)
        return verdict_of(rooms_of(found, devices), devices, found) if devices else "unknown"

    last = len(contexts) - 1
    known: dict[int, Verdict] = {0: ask(0), last: ask(last)}
    spans = [(0, last)]
    while spans:
        low, high = spans.pop()
        if known[low] == known[high]:
            known.update(dict.fromkeys(range(low, high), known[low]))
        elif high - low > 1:
            middle = (low + high) // 2
            known[middle] = ask(middle)
            spans += [(low, middle), (middle, high)]
    return tuple(known[i] for i in range(last + 1))
