"""Memory against context: what grows, where the GPU is full, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from ..engines import Allocation, Work
from ..hardware import Detection, Device
from ..inverse import allocated, longest_context, rooms_of
from ..models.loading import load
from ..models.model import Model
from ..planner import engine_on
from ..request import make_work
from ..values import dataclass
from .cells import machine_of, parse_contexts

__all__ = ["ContextCurve", "CurvePoint", "Times", "context_curve"]

#: How far beyond its end a curve is drawn; an end further away than this many times what was asked for is left outside.
BEYOND: Final = 1.15
FAR: Final = 16
POINTS: Final = 49
GROUPS: Final = ("weights", "kv_cache", "state", "compute", "runtime")


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What each sequence of `context` tokens makes of one GPU: bytes by what they are for. Of a pool that an engine fills
    with cache only what the sequences need. `headroom` is what is left of the limit (negative: short), None without a GPU."""

    context: int
    weights: int
    kv_cache: int
    state: int
    compute: int
    runtime: int
    headroom: int | None

    @property
    def needed(self) -> int:
        return self.weights + self.kv_cache + self.state + self.compute + self.runtime


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds at the planned context by what they go to, from half a percent on: of one token of all sequences, of one prompt."""

    token: tuple[tuple[str, float], ...]
    prompt: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ContextCurve:
    """The GPU that is full first (`device`, its place `index`), in ascending contexts. `limit` is what the engine may take of
    it in bytes, `max_context` the longest context that fits, exact to the token: both as in `Plan`, None where there is none.
    `pool` says that the engine fills it with cache, whatever is asked.
    `planned` and `prompt` are the tokens asked for, `trained` the longest the model knows. `times` is None where the speed is not known."""

    model: str
    engine: str
    format: str
    sequences: int
    device: str
    index: int
    gpus: int
    limit: int | None
    pool: bool
    max_context: int | None
    planned: int
    prompt: int
    trained: int | None
    points: tuple[CurvePoint, ...]
    times: Times | None


def context_curve(
    model: Model | str,
    *,
    contexts: str | int | Sequence[str | int] | None = None,
    gpus: str | Sequence[Device] | Detection | None = None,
    offline: bool = False,
    **request: Any,
) -> ContextCurve:
    """The memory of one plan at many contexts (`contexts`; default: evenly from 1 to a little beyond the end), and
    where the time goes at the planned one. Else as `plan`, but that no `gpus` are this machine's."""
    machine = machine_of(gpus)
    loaded = load(model, offline=offline) if isinstance(model, str) else model
    request["engine"] = engine_on(machine.devices, request.get("engine"), loaded, request.get("bits"), request.get("quant"))
    work, _ = make_work(loaded, len(machine.devices), **request)
    devices = machine.devices
    longest = longest_context(loaded, work, devices) if devices else None
    chosen = parse_contexts(contexts) if contexts is not None else _even(work.context, loaded.trained_context, longest)
    allocations = {context: _allocation(loaded, work, context, devices) for context in chosen}
    index = _fullest(loaded, work, devices, longest if longest is not None else chosen[-1])
    limit = _limit(allocations[chosen[0]], devices, index)
    points = tuple(_point(context, found, devices, index, limit) for context, found in allocations.items())
    return ContextCurve(
        model=loaded.name,
        engine=work.engine,
        format=work.format.name,
        sequences=work.sequences,
        device=devices[index].name if devices else "",
        index=index,
        gpus=len(devices),
        limit=limit,
        pool=allocations[chosen[0]].headroom is not None,
        max_context=longest,
        planned=work.context,
        prompt=work.prompt,
        trained=loaded.trained_context,
        points=points,
        times=_times(loaded, work, devices),
    )


def _even(planned: int, trained: int | None, longest: int | None) -> tuple[int, ...]:
    """To a little beyond the longest context that fits, unless that is far beyond what anyone asks for."""
    end, exact = max(planned, trained or 0), {planned}
    if longest is not None and longest <= FAR * end:
        end, exact = max(int(BEYOND * longest), planned), {planned, max(longest, 1)}
    return tuple(sorted(exact.union(max(end * i // (POINTS - 1), 1) for i in range(POINTS))))


def _allocation(model: Model, work: Work, context: int, devices: tuple[Device, ...]) -> Allocation:
    return allocated(model, replace(work, context=context, prompt=min(work.prompt, context)), devices)


def _fullest(model: Model, work: Work, devices: tuple[Device, ...], longest: int) -> int:
    """The GPU on which one token more than the longest context finds no room."""
    if not devices:
        return 0
    rooms = rooms_of(_allocation(model, work, longest + 1, devices), devices)
    return rooms.index(min(rooms))


def _limit(found: Allocation, devices: tuple[Device, ...], index: int) -> int | None:
    """What there is to take of the GPU; of a pool's budget what it fills, or would fill were it not too small for the weights."""
    if not devices or found.headroom is None:
        return devices[index].available if devices else None
    pool = any(term.group == "kv_cache" and term.bytes for term in found.devices[index])
    return sum(term.bytes for term in found.devices[index]) + (0 if pool else min(found.headroom[index], 0))


def _point(context: int, found: Allocation, devices: tuple[Device, ...], index: int, limit: int | None) -> CurvePoint:
    sizes = dict.fromkeys(GROUPS, 0)
    for term in found.devices[index]:
        sizes[term.group] += term.bytes
    room = rooms_of(found, devices)[index] if devices else None
    if found.headroom is not None and room is not None and limit is not None:  # a pool: what of it these sequences use, or want
        sizes["kv_cache"] = max(limit - room - sum(sizes.values()) + sizes["kv_cache"], 0)
    return CurvePoint(context, **sizes, headroom=room)


def _times(model: Model, work: Work, devices: tuple[Device, ...]) -> Times | None:
    from ..speed.estimate import prompt_step, step_of

    if not devices or model.architecture.kind != "decoder":
        return None
    found = allocated(model, work, devices)
    token, prompt = step_of(model, work, devices, work.sequences, found), prompt_step(model, work, devices, found)
    if token is None or prompt is None:
        return None
    return Times(*(tuple(share for share in step.shares if share[1] > step.total_s / 200) for step in (token, prompt)))
