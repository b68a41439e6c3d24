"""The machines a recommendation chooses from, and how work can be split over each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from ..errors import UsageError
from ..hardware import Device, GpuSpec, common_gpus, device_of, resolve
from ..hardware.parse import parse_gpus
from .cells import parts_of

__all__ = ["machines_to_try", "splits"]

_COUNTS: Final = (1, 2, 4, 8)
#: Cards for a desk: more than four of them have no board to go into.
_DESK: Final = ("NVIDIA GeForce", "AMD Radeon RX", "Intel Arc")
MOST: Final = 400
_ONE: Final = re.compile(r"\s*1\s*[x×*]")


def machines_to_try(gpus: str | Sequence[str] | None) -> tuple[tuple[Device, ...], ...]:
    """`RTX 4090; 2x RTX 3090; H100` or a list: a card without a count is tried 1, 2, 4 and 8 times; None: the common cards.

    Raises UsageError, UnknownNameError, and HardwareError for "local" where there is no GPU.
    """
    if gpus is None:
        return tuple(_times(device_of(spec), count) for spec in common_gpus() for count in _counts(spec))
    texts = parts_of(gpus, ";")
    if not texts:
        raise UsageError("no GPU was named", "separate machines by ';', as in 'RTX 4090; 2x RTX 3090; H100'")
    found = tuple(dict.fromkeys(machine for text in texts for machine in _machines(text)))
    if len(found) > MOST:
        raise UsageError(f"{len(found)} machines were named", f"at most {MOST} are tried")
    return found


def _machines(text: str) -> list[tuple[Device, ...]]:
    if text.strip().lower() == "local":
        return [resolve("local").devices]
    devices = parse_gpus(text).devices
    spec = devices[0].spec
    if len(devices) > 1 or spec is None or devices[0].is_slice or _ONE.match(text):
        return [devices]
    return [_times(devices[0], count) for count in _counts(spec)]


def _counts(spec: GpuSpec) -> tuple[int, ...]:
    if spec.unified:
        return (1,)
    return _COUNTS[:3] if spec.name.startswith(_DESK) else _COUNTS


@lru_cache(maxsize=1024)
def _times(device: Device, count: int) -> tuple[Device, ...]:
    return tuple(replace(device, index=i) for i in range(count * (device.spec.gpus_per_card if device.spec else 1)))


def splits(engine: str, count: int) -> Iterator[tuple[int, int]]:
    """(tensor, pipeline) parallelism over `count` GPUs. Engines that split by layers of their own accord have one way."""
    if engine not in ("vllm", "sglang"):
        yield 1, 1
        return
    tensor = count
    while tensor >= 1:
        if count % tensor == 0:
            yield tensor, count // tensor
        tensor //= 2
