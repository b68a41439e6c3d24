"""How a server behaves as more sequences run at once: total rate, time per token, cache held, and where more stops paying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from ..engines import Allocation, Work
from ..engines.need import kv_bytes
from ..errors import HardwareError, UsageError
from ..hardware import Detection, Device
from ..inverse import allocated, most_sequences
from ..models.loading import load
from ..models.model import Model
from ..request import make_work
from ..results import SpeedEstimate
from ..speed.estimate import answer_step, estimate
from ..values import dataclass
from .cells import machine_of, name_of

__all__ = ["BatchCurve", "BatchLoad", "batch_curve"]

#: The knee: the fewest sequences that reach this share of the best total rate.
KNEE_SHARE: Final = 0.8
#: As far as a curve goes where memory and the engine would take more.
MOST: Final = 1024


@dataclass(frozen=True, slots=True)
class BatchLoad:
    """`sequences` at once: tokens per second of all with the range, and of each; seconds a token takes; bytes of cache they hold at
    the full context; what binds, in words."""

    sequences: int
    tokens_per_s: float
    low: float
    high: float
    tokens_per_s_each: float
    tpot_s: float
    kv_bytes: int
    bound: str
    why: str


@dataclass(frozen=True, slots=True)
class BatchCurve:
    """`loads` from 1 to `max_sequences`, as many as memory holds (None: more than were looked at). `knee` is the number beyond which
    the total grows little. `ttft_s` is the time to the first token on an idle server: under load requests also wait, which is not
    predicted. `notes` say what else the figures leave out."""

    model: str
    engine: str
    format: str
    machine: str
    context: int
    prompt: int
    output: int
    max_sequences: int | None
    knee: int
    ttft_s: float
    loads: tuple[BatchLoad, ...]
    basis: str
    notes: tuple[str, ...]


def batch_curve(
    model: Model | str,
    *,
    most: int | None = None,
    gpus: str | Sequence[Device] | Detection | None = None,
    offline: bool = False,
    **request: Any,
) -> BatchCurve:
    """1, 2, 4 … as many sequences as memory holds, or `most`. Else as `plan`, but that no `gpus` are this machine's.

    With `output` the figures are means over the answer's tokens, with the other sequences' prompts computed in between; without,
    of one token at the full context. Tokens per second, seconds, bytes. Raises HardwareError without a GPU or its bandwidth,
    UsageError where not one sequence fits.
    """
    if most is not None and not (isinstance(most, int) and 1 <= most <= 1 << 20):
        raise UsageError(f"{str(most)[:40]!r} is no number of sequences to go up to", "1 to 1048576")
    machine = machine_of(gpus)
    loaded = load(model, offline=offline) if isinstance(model, str) else model
    work, _ = make_work(loaded, len(machine.devices), **request)
    idle = _estimate(loaded, work, machine.devices)
    room = most_sequences(loaded, work, machine.devices)
    if room == 0:
        raise UsageError(
            f"not one sequence of {work.context:,} tokens fits on {name_of(machine.devices)}", "a plan says what would: vram-plan MODEL"
        )
    last = min(most or MOST, room or MOST)
    loads = tuple(_load(loaded, work, machine.devices, count) for count in _counts(last))
    best = max(load.tokens_per_s for load in loads)
    return BatchCurve(
        model=loaded.name,
        engine=work.engine,
        format=work.format.name,
        machine=name_of(machine.devices),
        context=work.context,
        prompt=work.prompt,
        output=work.output,
        max_sequences=room,
        knee=next(load.sequences for load in loads if load.tokens_per_s >= KNEE_SHARE * best),
        ttft_s=idle.ttft_s,
        loads=loads,
        basis=idle.basis,
        notes=tuple(_notes(work)),
    )


def _allocated(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    return allocated(model, work, devices)


def _estimate(model: Model, work: Work, devices: tuple[Device, ...]) -> SpeedEstimate:
    """One sequence alone. Raises HardwareError where nothing can be told."""
    if not devices:
        raise HardwareError("there is no GPU to tell a speed of", "name one with --gpu")
    alone = replace(work, sequences=1)
    found = estimate(model, alone, devices, _allocated(model, alone, devices))
    if found is None and model.architecture.kind != "decoder":
        raise UsageError(f"{model.name} does not write token by token", "speeds are of models that do")
    if found is None:
        raise HardwareError(f"the bandwidth of {name_of(devices)} is not known", "name a GPU of the catalogue: vram-plan gpus")
    return found


def _load(model: Model, work: Work, devices: tuple[Device, ...], sequences: int) -> BatchLoad:
    many = replace(work, sequences=sequences)
    step = answer_step(model, many, devices, _allocated(model, many, devices))
    assert step is not None  # noqa: S101  one sequence had one
    rate = step.rate(sequences)
    return BatchLoad(
        sequences, rate.tokens_per_s, rate.low, rate.high, 1 / step.total_s, step.total_s, kv_bytes(model, many), step.bound, step.words
    )


def _counts(most: int) -> list[int]:
    return sorted({*(1 << i for i in range(most.bit_length())), most})


def _notes(work: Work) -> list[str]:
    llama = work.engine in ("llama.cpp", "ollama")
    notes = ["the time to the first token is an idle server's; waiting in a queue is not predicted"]
    if not work.output or llama:
        more = "" if llama else ": give --output to count the prompts"
        notes.append(f"decode alone: prompts computed in between come on top{more}")
    if llama:
        notes.append("llama.cpp's own rate with several sequences was measured at half to 1.4 times such sums")
    if work.engine == "transformers":
        notes.append("transformers runs one batch at a time, all of one length")
    return notes
