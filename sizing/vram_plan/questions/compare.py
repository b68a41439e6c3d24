"""Plans side by side: several models, or one over several GPUs, engines or formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Final, Literal

from ..errors import UsageError
from ..hardware import Detection, Device
from ..models.loading import load
from ..models.model import Model
from ..planner import plan
from ..results import Plan, Verdict
from ..values import dataclass
from .cells import machine_of, name_of, parts_of

__all__ = ["Comparison", "Line", "Subject", "compare"]

MOST: Final = 12
#: Figures that differ by less than this share are not worth choosing by.
MATTERS: Final = 0.05
NO_LIMIT: Final = "no limit"
_VERDICTS: Final[tuple[Verdict, ...]] = ("does_not_fit", "unknown", "tight", "fits")

Unit = Literal["bytes", "tokens", "sequences", "tokens/s", "s", "text"]
Value = int | float | str | None


@dataclass(frozen=True, slots=True)
class Subject:
    """One column: what is its own about it ("RTX 4090"), and its plan."""

    label: str
    plan: Plan


@dataclass(frozen=True, slots=True)
class Line:
    """One row. `values` in `unit`, None where unknown, "no limit" where memory sets none. `differs` where the difference
    matters (over 5 % of the largest); `best` are the columns that are best then, of those that fit; none where no value is better."""

    name: str
    unit: Unit
    values: tuple[Value, ...]
    differs: bool
    best: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`subjects` are the columns, `lines` the rows, `same` what all have in common, in words."""

    subjects: tuple[Subject, ...]
    lines: tuple[Line, ...]
    same: tuple[str, ...]


def compare(
    models: Model | str | Sequence[Model | str],
    *,
    gpus: str | Sequence[Any] | None = None,
    engines: str | Sequence[str] | None = None,
    quants: str | Sequence[str] | None = None,
    bits: int | Sequence[int] | None = None,
    offline: bool = False,
    **request: Any,
) -> Comparison:
    """Plans of every model on every GPU, engine and format named, side by side.

    `gpus` is one machine as `plan` takes it, or several, in a list or parted by ";"; `engines`, `quants`, `bits` are one, a
    list, or texts with commas. Everything else is as in `plan`, and the same for all. Sizes in bytes, rates SI, times in seconds.
    Raises UsageError where less than two or more than 12 plans are named, and what `plan` raises.
    """
    loaded = [load(m, offline=offline) if isinstance(m, str) else m for m in _listed(models)]
    formats: list[dict[str, Any]] = [{"quant": q} for q in parts_of(quants)] + [{"bits": b} for b in _listed(bits or ())]
    runners: list[str | None] = [*parts_of(engines)] or [None]
    columns = list(product(loaded, _machines(gpus), runners, formats or [{}]))
    if not 2 <= len(columns) <= MOST:
        raise UsageError(
            f"{len(columns)} plan{'s' if len(columns) > 1 else ''} would be compared, between 2 and {MOST} can be",
            "name several models, or one with several --gpu, --engine or --quant",
        )
    plans = [plan(model, gpus=machine, engine=engine, **format, **request) for model, machine, engine, format in columns]
    labels, same = _labels(plans, [machine for _, machine, _, _ in columns])
    return Comparison(
        tuple(Subject(label, p) for label, p in zip(labels, plans, strict=True)),
        tuple(line for line in (_line(plans, *row) for row in _ROWS) if any(value is not None for value in line.values)),
        same,
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _machines(gpus: str | Sequence[Any] | None) -> list[Detection]:
    """One machine or several: texts also separated by ";", devices of one machine in a list of their own."""
    if gpus is None or (not isinstance(gpus, str) and any(isinstance(gpu, Device) for gpu in gpus)):
        return [machine_of(gpus)]
    listed = [gpus] if isinstance(gpus, str) else gpus
    return [machine_of(one) for gpu in listed for one in (parts_of(gpu, ";") if isinstance(gpu, str) else [gpu])]


def _labels(plans: Sequence[Plan], machines: Sequence[Detection]) -> tuple[list[str], tuple[str, ...]]:
    """What differs names the columns; what is the same for all is told once."""
    facts = [
        (
            p.model.name.rsplit("/", 1)[-1],
            name_of(machine.devices) or "no GPU",
            p.request.engine,
            p.request.quant,
        )
        for p, machine in zip(plans, machines, strict=True)
    ]
    varies = [len({fact[i] for fact in facts}) > 1 for i in range(len(facts[0]))]
    labels = [" · ".join(text for text, differs in zip(fact, varies, strict=True) if differs) for fact in facts]
    first = plans[0].request
    tokens = f"{first.context:,} tokens" if len({p.request.context for p in plans}) == 1 else ""
    sequences = f"{first.sequences} sequences" if first.sequences > 1 else ""
    same = [text for text, differs in zip(facts[0], varies, strict=True) if not differs]
    return [label or f"{i + 1}" for i, label in enumerate(labels)], tuple(filter(None, (*same, tokens, sequences)))


_Get = Callable[[Plan], Value]


def _memory(group: str) -> _Get:
    return lambda p: getattr(p.memory, group) or None


def _speed(get: Callable[[Any], float]) -> _Get:
    return lambda p: get(p.speed) if p.speed else None


def _limit(name: str) -> _Get:
    def get(p: Plan) -> Value:
        return NO_LIMIT if getattr(p.fit, name) is None and p.fit.verdict != "unknown" else getattr(p.fit, name)

    return get


#: name, unit, which is better (1 more, -1 less, 0 neither), value. Memory is told, not judged: less of it is a smaller format.
_ROWS: Final[tuple[tuple[str, Unit, int, _Get], ...]] = (
    ("verdict", "text", 1, lambda p: p.fit.verdict),
    ("format", "text", 0, lambda p: p.request.quant),
    ("weights", "bytes", -1, _memory("weights")),
    ("KV cache", "bytes", 0, _memory("kv_cache")),
    ("state", "bytes", -1, _memory("state")),
    ("compute", "bytes", -1, _memory("compute")),
    ("runtime", "bytes", -1, _memory("runtime")),
    ("total", "bytes", 0, lambda p: p.memory.total),
    ("in RAM", "bytes", -1, lambda p: p.host.used or None),
    ("usable", "bytes", 1, lambda p: sum(d.usable or 0 for d in p.devices) or None),
    ("left over", "bytes", 1, lambda p: p.fit.headroom),
    ("context", "tokens", 0, lambda p: p.request.context),
    ("longest context", "tokens", 1, _limit("max_context")),
    ("sequences at once", "sequences", 1, _limit("max_sequences")),
    ("first token", "s", -1, _speed(lambda s: s.ttft_s)),
    ("prefill", "tokens/s", 1, _speed(lambda s: s.prefill.tokens_per_s)),
    ("decode", "tokens/s", 1, _speed(lambda s: s.decode.tokens_per_s)),
)


def _line(plans: Sequence[Plan], name: str, unit: Unit, better: int, get: _Get) -> Line:
    values = tuple(get(p) for p in plans)
    if unit == "text":
        return _text_line(name, values)
    sizes = [_size(value) for value in values]
    known = [size for size in sizes if size is not None]
    differs = bool(known) and (len(known) < len(sizes) or not _near(min(known), max(known)))
    if not (differs and better and len(known) > 1):
        return Line(name, unit, values, differs, ())
    running = [i for i, p in enumerate(plans) if p.fit.verdict != "does_not_fit" and sizes[i] is not None]
    if not running:
        return Line(name, unit, values, True, ())
    top = (max if better > 0 else min)(size for i in running if (size := sizes[i]) is not None)
    return Line(name, unit, values, True, tuple(i for i in running if (size := sizes[i]) is not None and _near(size, top)))


def _text_line(name: str, values: tuple[Value, ...]) -> Line:
    """Words: only verdicts have a best one, and only where it is that something fits."""
    differs = len(set(values)) > 1
    top = max((_VERDICTS.index(v) for v in values if v in _VERDICTS), default=0)
    best = tuple(i for i, v in enumerate(values) if v == _VERDICTS[top]) if name == "verdict" and differs and top > 1 else ()
    return Line(name, "text", values, differs, best)


def _size(value: Value) -> float | None:
    return math.inf if value == NO_LIMIT else None if value is None else float(value)


def _near(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= MATTERS * max(abs(a), abs(b))
