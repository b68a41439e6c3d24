"""What every engine is asked and what it answers. An engine is one module with the names in `Engine`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from ..formats import Format
from ..hardware.device import Device
from ..models.model import Model
from ..results import LaunchCommand, Term
from ..values import dataclass

__all__ = ["Allocation", "Engine", "LaunchCommand", "Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work for an engine, parsed and with the planner's defaults filled in. Hashable.

    `context` is the length of one sequence, prompt and answer together; `sequences` run at once. `kv_k`, `kv_v`
    are canonical cache types. `options` holds the engine options that were given, sorted.
    """

    engine: str
    format: Format
    kv_k: str
    kv_v: str
    context: int
    sequences: int = 1
    prompt: int = 0
    output: int = 0
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: bool = False
    offload: str = "auto"
    options: tuple[tuple[str, Any], ...] = ()

    def option(self, name: str, default: Any = None) -> Any:
        for key, value in self.options:
            if key == name:
                return value
        return default


@dataclass(frozen=True, slots=True)
class Allocation:
    """What an engine takes: the terms of each device (in the order given), the host's, and its own figures.

    `refusal` is the engine's own reason not to start although memory might do (an illegal split, a context too
    long for its pool); it makes the verdict `does_not_fit`. `headroom` is what each device has left over, in bytes, where
    that is not simply free − used: an engine that fills its share with a pool counts what the requests leave of the pool.
    """

    devices: tuple[tuple[Term, ...], ...]
    host: tuple[Term, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    headroom: tuple[int, ...] | None = None


class Engine(Protocol):
    """The names of an engine's module."""

    #: Option name → what it is, for the error that lists them.
    OPTIONS: Mapping[str, str]
    #: The cache type taken when none is asked for.
    DEFAULT_KV: str

    def allocate(self, model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
        """The memory this work takes on these devices; with no device, on one large enough. Pure and quick:
        it is called some tens of times for the inverse questions. Never shrinks as context or sequences grow.

        A module may also have `room` (of the same arguments): the bytes left free where least is, as an int and without the words,
        and `MAX_SEQUENCES`, beyond which it refuses; `OFFLOADS`, what it keeps in host memory when told (`experts`, `layers`: both
        without it); `SPANS_MACHINES`, that it takes GPUs of several; and `completed`, what is worth finding out once a plan.
        """
        ...
