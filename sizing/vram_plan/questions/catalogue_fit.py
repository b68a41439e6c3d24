"""Which models of the catalogue run well on a machine: the reverse of a plan."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

from vram_plan_data import ROOT

from ..engines import Work
from ..engines.need import kv_bytes
from ..errors import HardwareError, UnknownNameError
from ..formats import Format
from ..hardware import Detection, Device
from ..inverse import at, headroom, largest
from ..models.architecture import Architecture
from ..models.catalog import CatalogRow, list_models
from ..models.loading import load_row
from ..models.model import Model
from ..planner import engine_on
from ..request import DEFAULT_CONTEXT, make_work, own_format
from ..results import EstimatedRate, Verdict
from ..units import parse_tokens
from ..values import dataclass
from .cells import Machine, cell_and_speed, machine_of, parse_formats, said_engine, summary_of, usual_formats
from .quality import loss_of

__all__ = ["ModelFit", "ModelsFit", "models_for"]

#: Losing more than this is not running well.
WELL: Final = 0.06
#: The fewest bits a format of that quality stores a weight in, block scales included.
FEWEST_BITS: Final = 4.2
STEP: Final = 1024
LONGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFit:
    """One model in the best format that fits: bytes it needs of all GPUs, the longest context
    in steps of 1,024 as far as it was trained, the speed of all sequences together, the loss of that format."""

    name: str
    id: str
    parameters: int
    active_parameters: int
    trained_context: int | None
    format: str
    needed: int
    headroom: int
    verdict: Verdict
    max_context: int
    decode: EstimatedRate | None
    ttft_s: float | None
    loss: float


@dataclass(frozen=True, slots=True)
class ModelsFit:
    """`models` largest first. Left out: `too_large` for any format that loses little, `too_slow` for the speed asked,
    `too_short`: trained for less than this context."""

    machine: Machine
    engine: str
    context: int
    sequences: int
    models: tuple[ModelFit, ...]
    too_large: int
    too_slow: int
    too_short: int


#: Words of a name that tell only how its weights are stored.
_STORED: Final = re.compile(r"(?:mx|nv)?fp[48]|bf16|nf4|awq|gptq|int[48]|w\d+a\d+|[48]bit|mlx|bnb|quantized|static|dynamic|pertensor")
#: Decoders that answer with a vector or a mark, not with text; shown where nothing else was asked for.
_NO_WRITER: Final = re.compile(r"(?:^|-)(?:embed(?:ding)?|e5|gte|rerank(?:er)?|reward)(?:-|$)")


class _Size(NamedTuple):
    total: int
    text: int
    trained_context: int | None
    kind: str


class _Asked(NamedTuple):
    """What every model is held to; `shapes` keeps what was found for a shape."""

    about: Machine
    devices: tuple[Device, ...]
    work: Work
    wanted: Sequence[Format] | None
    min_decode: float | None
    shapes: dict[Architecture, ModelFit | None]


@lru_cache(maxsize=1)
def _sizes() -> dict[str, _Size]:
    with (ROOT / "model_sizes.csv").open(encoding="utf-8", newline="") as file:
        return {r["id"]: _Size(int(r["total"]), int(r["text"]), _number(r["trained_context"]), r["kind"]) for r in csv.DictReader(file)}


def _number(text: str) -> int | None:
    return int(text) if text else None


def models_for(
    gpus: str | Sequence[Device] | Detection | None = None,
    *,
    query: str = "",
    context: int | str | None = None,
    sequences: int = 1,
    engine: str | None = None,
    quants: str | Sequence[str] | None = None,
    kv_type: str | None = None,
    min_decode: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelsFit:
    """The catalogue's language models that run well on a machine at a context: in a format that loses little (or one of
    `quants`), at `min_decode` tokens/s of one sequence at least. `gpus` as `plan` takes it; None is this machine's.
    `progress` is told how many of the catalogue's models are done, and of how many.

    Raises HardwareError where there is no GPU, UnknownNameError for a `query` no model answers to, UsageError.
    """
    machine = machine_of(gpus)
    about = summary_of(machine.devices)
    if about is None:
        raise HardwareError(machine.reason or "no GPU was named", "name one, for example --gpu 'RTX 3060 12GB'")
    rows = list_models(query)
    if not rows:
        raise UnknownNameError(f"no model has {query[:60]!r} in its name", "see them all with: vram-plan models")
    name = said_engine(engine_on(machine.devices, engine)) or ("ollama" if about.gpus == 1 else "vllm")
    tokens = DEFAULT_CONTEXT if context is None else parse_tokens(context)
    work = _work(rows[0], name, tokens, sequences, kv_type)
    wanted = None if quants is None else parse_formats(quants, name)
    asked = _Asked(about, machine.devices, work, wanted, min_decode, {})
    counts = {"too_large": 0, "too_slow": 0, "too_short": 0}
    found = []
    groups = _twins(list(_candidates([row for row in rows if not _NO_WRITER.search(row.name)] or rows)))
    for done, twins in enumerate(groups):
        if progress:
            progress(done, len(groups))
        fit = _first(twins, asked)
        if isinstance(fit, str):
            counts[fit] += 1
        else:
            found.append(fit)
    return ModelsFit(about, name, tokens, sequences, tuple(sorted(found, key=lambda fit: (-fit.parameters, fit.name))), **counts)


def _first(twins: Iterable[tuple[CatalogRow, _Size]], asked: _Asked) -> ModelFit | str:
    """The first of a model's checkpoints that runs well; else what the last of them is."""
    lacks = "too_large"
    for row, size in twins:
        if size.trained_context and size.trained_context < asked.work.context:
            lacks = "too_short"
            continue
        fit = None if _hopeless(size, asked.about, asked.wanted) else _known(row, size, asked)
        if fit and asked.min_decode and fit.decode and fit.decode.tokens_per_s < asked.min_decode * asked.work.sequences:
            lacks = "too_slow"
        elif fit:
            return fit
    return lacks


def _work(row: CatalogRow, engine: str, context: int, sequences: int, kv_type: str | None) -> Work:
    """The work asked for, parsed as `plan` does; its format is replaced by each model's own."""
    work, _ = make_work(load_row(row), 1, context=context, engine=engine, sequences=sequences, kv_type=kv_type)
    return work


def _candidates(rows: Iterable[CatalogRow]) -> Iterator[tuple[CatalogRow, _Size]]:
    """Language models, one of each name and size: a base model and its chat are one."""
    seen = set()
    for row in rows:
        size = _sizes().get(row.id)
        if size and size.kind == "decoder" and (row.name, size.text) not in seen:
            seen.add((row.name, size.text))
            yield row, size


def _twins(candidates: Sequence[tuple[CatalogRow, _Size]]) -> list[list[tuple[CatalogRow, _Size]]]:
    """Checkpoints of one model, the plain one first: as many weights, and a name that differs only in the format they are stored in."""
    groups: dict[tuple[int, frozenset[str]], list[tuple[CatalogRow, _Size]]] = {}
    stored = []
    for row, size in candidates:
        words = frozenset(row.name.split("-"))
        bare = frozenset(word for word in words if not _STORED.fullmatch(word))
        if bare == words:
            groups[size.text, words] = [(row, size)]
        else:
            stored.append((bare, row, size))
    plain = list(groups)
    for bare, row, size in stored:
        of = [key for key in plain if key[0] == size.text and bare <= key[1]]
        groups.setdefault(min(of, key=lambda key: len(key[1]), default=(size.text, bare)), []).append((row, size))
    return list(groups.values())


def _hopeless(size: _Size, machine: Machine, wanted: Sequence[Format] | None) -> bool:
    """Larger than the GPUs in the fewest bits that will do: not worth reading its config."""
    bits = FEWEST_BITS if wanted is None else min(format.bits_per_weight for format in wanted) * 0.8
    return size.text * bits / 8 > machine.free


def _known(row: CatalogRow, size: _Size, asked: _Asked) -> ModelFit | None:
    """What was found for another model of the same shape, else anew."""
    model = load_row(row)
    key = replace(model.architecture, notes=(model.stored_format,))
    if key not in asked.shapes:
        asked.shapes[key] = _best(row, model, size, asked.work, asked.devices, asked.wanted)
    fit = asked.shapes[key]
    return replace(fit, name=row.name, id=row.id) if fit else None


def _best(
    row: CatalogRow, model: Model, size: _Size, work: Work, devices: tuple[Device, ...], wanted: Sequence[Format] | None
) -> ModelFit | None:
    """The format that loses least of those that fit."""
    own = own_format(model, work.engine)[0].name
    losses = [(0.0 if format.name == own else loss_of(format), format) for format in wanted or usual_formats(model, work.engine)]
    free = sum(device.available for device in devices)
    cache = kv_bytes(model, work) + model.state_bytes * work.sequences
    for loss, format in sorted(losses, key=lambda pair: (pair[0], pair[1].bits_per_weight)):
        if (wanted is None and loss > WELL) or size.text * _least_bits(format) / 8 + cache > free:
            continue
        done = replace(work, format=format)
        judged, speed = cell_and_speed(model, done, devices)
        if judged.verdict in ("fits", "tight"):
            return ModelFit(
                name=row.name,
                id=row.id,
                parameters=model.parameters.total,
                active_parameters=model.parameters.active,
                trained_context=model.trained_context,
                format=format.name,
                needed=judged.needed,
                headroom=judged.headroom or 0,
                verdict=judged.verdict,
                max_context=_longest(model, done, devices, judged.headroom or 0),
                decode=speed.decode if speed else None,
                ttft_s=speed.ttft_s if speed else None,
                loss=loss,
            )
    return None


def _longest(model: Model, work: Work, devices: tuple[Device, ...], room: int) -> int:
    """The longest context that fits in whole k, as far as the model was trained; the planned one does, and leaves `room`."""
    trained, first = model.trained_context or LONGEST, work.context // STEP
    if work.context >= trained:
        return trained

    def left(n: int) -> int:
        return room if n == 1 else headroom(model, at(work, context=min((first + n - 1) * STEP, trained)), devices)

    steps = largest(left, -(-trained // STEP) - first + 1)
    return trained if steps is None else max((first + steps - 1) * STEP, work.context)


def _least_bits(format: Format) -> float:
    """Bits a weight takes at least: a mix's figure is that of one model, and MXFP4's mix only uses it for experts."""
    return 4.2 if format.name.startswith("MXFP4") else 0.9 * format.bits_per_weight
