"""The inverse questions: how much room is left, the largest context or number of sequences that still fits, the fewest GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from .engines import Allocation, Work, engine_module
from .hardware import Device
from .models.model import Model

__all__ = [
    "allocated", "at", "fewest_gpus", "headroom", "largest", "least_offload", "like", "longest_context", "most_sequences", "one_machine",
    "rooms_of",
]  # fmt: skip

Room = Callable[[Model, Work, tuple[Device, ...]], int]
#: Beyond this no context or number of sequences is looked for: memory sets no limit there.
CONTEXT_LIMIT: Final = 1 << 30
SEQUENCE_LIMIT: Final = 1 << 20
#: GPUs of a node; more of them are tried by whole nodes.
NODE: Final = 8
_COUNTS: Final = (*range(1, NODE + 1), *range(2 * NODE, 8 * NODE + 1, NODE))


def longest_context(model: Model, work: Work, devices: tuple[Device, ...]) -> int | None:
    """The longest context that fits; 0 when none does; None where memory sets no limit."""
    return _max_context(model, at(work, context=1), devices)


def most_sequences(model: Model, work: Work, devices: tuple[Device, ...]) -> int | None:
    """The most sequences of this context that fit; 0 when not one does; None where memory sets no limit."""
    return _max_sequences(model, at(work, sequences=1), devices)


def fewest_gpus(model: Model, work: Work, devices: Sequence[Device]) -> int | None:
    """How many GPUs like these it takes, split as the engine splits of its own accord: 1 to 8, then by nodes of 8 up to 64.
    None when not even those do, or these are not all alike. Unified memory is not added to,
    and a program takes one MIG slice."""
    first = devices[0]
    if any((device.name, device.total) != (first.name, first.total) for device in devices):
        return None
    alone = replace(at(work), tensor_parallel=1, pipeline_parallel=1)
    counts = (1,) if first.unified or first.is_slice else _COUNTS
    return next((count for count in counts if headroom(model, alone, like(first, count)) >= 0), None)


def least_offload(model: Model, work: Work, devices: tuple[Device, ...], fits: bool | None = None) -> int | None:
    """The fewest layers (of a mixture of experts: layers' experts) that must stay in host memory; 0 when none must.
    None where the engine keeps none there, where the request says how many, or where all would not be enough.
    `fits` is whether all fits, where that is known."""
    fewest = getattr(engine_module(work.engine), "least_offload", None)
    if fewest is None or work.offload != "auto":
        return None
    if headroom(model, work, devices) >= 0 if fits is None else fits:
        return 0
    found: int | None = fewest(model, work, devices)
    return found


@lru_cache(maxsize=1024)
def like(device: Device, count: int) -> tuple[Device, ...]:
    """So many of a GPU, with nothing else running on any; beyond 8 in nodes of 8."""
    idle = replace(device, free=device.usable, used_by_others=0, processes=(), uuid=None)
    return tuple(replace(idle, index=i, node=i // NODE) for i in range(count))


@lru_cache(maxsize=4096)
def _max_context(model: Model, work: Work, devices: tuple[Device, ...]) -> int | None:
    return largest(lambda n: headroom(model, at(work, context=n), devices), CONTEXT_LIMIT)


@lru_cache(maxsize=4096)
def _max_sequences(model: Model, work: Work, devices: tuple[Device, ...]) -> int | None:
    most = getattr(engine_module(work.engine), "MAX_SEQUENCES", None)  # more are refused
    found = largest(lambda n: headroom(model, at(work, sequences=n), devices), most or SEQUENCE_LIMIT)
    return most if found is None else found


def headroom(model: Model, work: Work, devices: tuple[Device, ...]) -> int:
    """Bytes left free on the device where least is; negative when it does not fit or the engine refuses."""
    if one_machine(work, devices):
        return -1
    module = engine_module(work.engine)
    quick: Room | None = getattr(module, "room", None)
    if quick is not None:
        return quick(model, work, devices)
    found = allocated(model, work, devices)
    room = min(rooms_of(found, devices))
    return min(room, -1) if found.refusal else room


def one_machine(work: Work, devices: Sequence[Device]) -> str | None:
    """Why the engine takes no GPUs of several machines; None where it does, or they are of one."""
    if not devices or devices[0].node == devices[-1].node or getattr(engine_module(work.engine), "SPANS_MACHINES", False):
        return None
    return f"{work.engine} is planned on one machine: vLLM and SGLang work over several"


def allocated(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """What the engine allocates, refused where it takes no GPUs of several machines."""
    found = engine_module(work.engine).allocate(model, work, devices)
    why = one_machine(work, devices)
    return replace(found, refusal=found.refusal or why) if why else found


def rooms_of(found: Allocation, devices: Sequence[Device]) -> tuple[int, ...]:
    """Bytes left free of each device: the engine's own figures where it has them."""
    if found.headroom is not None:
        return tuple(found.headroom)
    return tuple(device.available - sum(t.bytes for t in terms) for device, terms in zip(devices, found.devices, strict=True))


def at(work: Work, *, context: int | None = None, sequences: int | None = None) -> Work:
    """The work at another context or number of sequences; its prompt and answer left out, which memory does not ask for."""
    return Work(
        work.engine, work.format, work.kv_k, work.kv_v, context or work.context, sequences or work.sequences, 0, 0,
        work.tensor_parallel, work.pipeline_parallel, work.expert_parallel, work.offload, work.options,
    )  # fmt: skip


def largest(headroom: Callable[[int], int], limit: int) -> int | None:
    """The largest n in 1…limit with headroom(n) ≥ 0; 0 when not even 1 fits; None when the limit itself does.

    `headroom` must never grow. Memory is piecewise linear in what is asked, so the crossing is looked for where
    the line through the bracket's ends meets 0, by halves where that does not help.
    """
    low, low_room = 1, headroom(1)
    if low_room < 0:
        return 0
    high, high_room = limit, headroom(limit)
    if high_room >= 0:
        return None
    halve = False
    while high - low > 1:
        guess = low + (high - low) // 2 if halve else low + (high - low) * low_room // (low_room - high_room)
        guess = min(max(guess, low + 1), high - 1)
        room = headroom(guess)
        width = high - low
        if room >= 0:
            low, low_room = guess, room
            # the crossing is often just above: look there before halving
            if high - low > 1 and headroom(low + 1) < 0:
                return low
        else:
            high, high_room = guess, room
        halve = 2 * (high - low) > width and not halve
    return low
