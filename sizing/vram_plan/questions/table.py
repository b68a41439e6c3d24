"""Which formats fit at which contexts: one model, one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..engines import Work
from ..engines.weights import weights_of
from ..formats import Format
from ..hardware import Detection, Device
from ..inverse import longest_context
from ..models.loading import load
from ..models.model import Model
from ..planner import engine_on
from ..request import make_work
from ..values import dataclass
from .cells import (
    Cell,
    Machine,
    cell,
    machine_of,
    parse_contexts,
    parse_formats,
    said_engine,
    summary_of,
    texts_of,
    usual_contexts,
    usual_formats,
)  # fmt: skip
from .quality import Quality, quality_of

__all__ = ["Table", "TableRow", "table"]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One format. `weights` in bytes; `max_context` in tokens as `Fit.max_context` has it: None without a GPU, or where
    memory sets no limit; `quality` is what was published of the format's loss, or None."""

    format: str
    bits_per_weight: float
    weights: int
    cells: tuple[Cell, ...]
    max_context: int | None
    quality: Quality | None


@dataclass(frozen=True, slots=True)
class Table:
    """Formats × contexts, each row's cells in the order of `contexts` (tokens of one sequence). `machine` is None without a GPU."""

    model: str
    trained_context: int | None
    engine: str
    machine: Machine | None
    kv_type_k: str
    kv_type_v: str
    sequences: int
    contexts: tuple[int, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]


def table(
    model: Model | str,
    *,
    quants: str | Sequence[str] | None = None,
    contexts: str | int | Sequence[str | int] | None = None,
    gpus: str | Sequence[Device] | Detection | None = None,
    engine: str | None = None,
    sequences: int = 1,
    kv_type: str | None = None,
    kv_type_k: str | None = None,
    kv_type_v: str | None = None,
    tensor_parallel: int | None = None,
    pipeline_parallel: int | None = None,
    expert_parallel: bool = False,
    offload: str = "auto",
    options: Mapping[str, Any] | None = None,
    offline: bool = False,
) -> Table:
    """Every format at every context: how much it needs, and whether it fits.

    `quants` and `contexts` are lists, or texts with commas; by default the engine's usual formats and 2k to 128k up to
    the trained context. `gpus` as `plan` takes it; None is this machine's. Bytes and tokens. Raises what `plan` raises.
    """
    machine = machine_of(gpus)
    loaded = load(model, offline=offline) if isinstance(model, str) else model
    spans = usual_contexts(loaded) if contexts is None else parse_contexts(contexts)
    name = said_engine(engine_on(machine.devices, engine))
    first = _telling_format(quants, name, len(machine.devices))
    work, notes = make_work(
        loaded, len(machine.devices), context=spans[-1], bits=None, quant=first, engine=name, sequences=sequences, kv_type=kv_type,
        kv_type_k=kv_type_k, kv_type_v=kv_type_v, tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel,
        expert_parallel=expert_parallel, offload=offload, prompt=None, output=None, options=options,
    )  # fmt: skip
    chosen = usual_formats(loaded, work.engine) if quants is None else parse_formats(quants, work.engine)
    rows = [_row(loaded, replace(work, format=format), machine.devices, spans) for format in chosen]
    said = (*machine.notes, *(text for text in texts_of(notes) if not text.startswith("format not given")))
    return Table(
        model=loaded.name,
        trained_context=loaded.trained_context,
        engine=work.engine,
        machine=summary_of(machine.devices),
        kv_type_k=work.kv_k,
        kv_type_v=work.kv_v,
        sequences=work.sequences,
        contexts=spans,
        rows=tuple(rows if quants is not None else sorted(rows, key=lambda row: -row.weights)),
        notes=(*said, *((machine.reason,) if machine.reason and not machine.devices else ())),
    )


def _telling_format(quants: str | Sequence[str] | None, engine: str | None, device_count: int) -> str | None:
    """The format that chooses the engine where none is named: a GGUF one if any is asked for, or on one GPU at most."""
    if quants is None:
        return None if engine or device_count > 1 else "Q4_K_M"
    given = parse_formats(quants, engine or "vllm")
    return next((format.name for format in given if format.family == "gguf"), given[0].name)


def _row(model: Model, work: Work, devices: tuple[Device, ...], contexts: tuple[int, ...]) -> TableRow:
    format: Format = work.format
    return TableRow(
        format=format.name,
        bits_per_weight=format.bits_per_weight,
        weights=weights_of(model, format).total,
        cells=tuple(cell(model, replace(work, context=context, prompt=context), devices) for context in contexts),
        max_context=longest_context(model, work, devices) if devices else None,
        quality=quality_of(format.name),
    )
