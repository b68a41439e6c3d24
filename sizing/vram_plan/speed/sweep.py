"""How a server behaves as more sequences run at once: total rate, time per token, KV held, and where more stops paying."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ..engines.base import Work
from ..engines.need import kv_bytes
from ..hardware import Device
from ..models.model import Model
from .estimate import step_of

__all__ = ["Load", "Sweep", "sweep"]

#: The knee: the fewest sequences that reach this share of the best total rate.
KNEE_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Load:
    """`sequences` at once: tokens per second of all, seconds per token of each, bytes of KV they hold."""

    sequences: int
    tokens_per_s: float
    tpot_s: float
    kv_bytes: int
    bound: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """`knee` is the number of sequences beyond which the total grows little; `note` says what the figures leave out."""

    loads: tuple[Load, ...]
    knee: int
    note: str


def sweep(model: Model, work: Work, devices: tuple[Device, ...], most: int = 256) -> Sweep | None:
    """1, 2, 4 … `most` sequences at the planned context; None where no speed can be told. `most` is what memory holds."""
    loads = []
    for sequences in _counts(most):
        step = step_of(model, work, devices, sequences)
        if step is None:
            return None
        held = kv_bytes(model, replace(work, sequences=sequences))
        loads.append(Load(sequences, sequences / step.total_s, step.total_s, held, step.bound))
    best = max(load.tokens_per_s for load in loads)
    knee = next(load.sequences for load in loads if load.tokens_per_s >= KNEE_SHARE * best)
    note = "decode alone: prompts computed in between and waiting in a queue come on top"
    if work.engine in ("llama.cpp", "ollama"):
        note += "; llama.cpp's own rate with several sequences was measured at half to 1.4 times such sums"
    return Sweep(tuple(loads), knee, note)


def _counts(most: int) -> list[int]:
    counts = [1 << i for i in range(max(most, 1).bit_length()) if 1 << i <= most]
    return counts if counts and counts[-1] == most else [*counts, max(most, 1)]
