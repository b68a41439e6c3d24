"""What one model takes in a process that runs nothing else: weights, cache, a prompt's peak, and what no tensor accounts for."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..hardware.profiles import Point
from .decoder import Decoder, activation_bytes
from .driver import Watch
from .kernels import fill, load_torch
from .layout import layout_of
from .place import dtype_named
from .shapes import ladder_shape
from .work import DTYPE_BYTES, Job

if TYPE_CHECKING:
    from torch import device

__all__ = ["memory_points"]

_SMAPS, _STATUS, _CLEAR = (Path(f"/proc/self/{name}") for name in ("smaps_rollup", "status", "clear_refs"))


def _line(path: Path, key: str) -> int | None:
    """A `key: 123 kB` line of /proc, in bytes; None where the system has no such file or line."""
    try:
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


class _Meter:
    """Bytes this process holds on the device. On a CPU its anonymous memory; on a GPU what torch's allocator handed out."""

    def __init__(self, place: device, watch: Watch) -> None:
        self.torch, self.place, self.watch = load_torch(), place, watch

    def held(self) -> int:
        if self.place.type == "cuda":
            return int(self.torch.cuda.memory_allocated(self.place))
        if self.place.type == "mps":
            return int(self.torch.mps.current_allocated_memory())
        return _line(_SMAPS, "Anonymous:") or _resident()

    def start_peak(self) -> None:
        if self.place.type == "cuda":
            self.torch.cuda.reset_peak_memory_stats(self.place)
        elif self.place.type == "cpu":
            with contextlib.suppress(OSError):
                _CLEAR.write_text("5", encoding="ascii")  # the high-water mark starts anew (proc(5))

    def peak_above(self, held: int, resident: int) -> int | None:
        """The most taken since `start_peak` beyond what was held then; None where the device does not say."""
        if self.place.type == "cuda":
            return max(int(self.torch.cuda.max_memory_allocated(self.place)) - held, 0)
        if self.place.type == "cpu":
            high = _line(_STATUS, "VmHWM:")
            return None if high is None else max(high - resident, 0)
        return None

    def reserved(self, tensors: int) -> int:
        """What torch's allocator has taken from the device; only CUDA says it."""
        return int(self.torch.cuda.memory_reserved(self.place)) if self.place.type == "cuda" else tensors

    def whole(self, used_before: int | None) -> int | None:
        """All this process holds on the device: as the driver lists it, else by how much the device's used bytes grew."""
        if self.place.type == "mps":
            self.torch.mps.empty_cache()  # a prompt's buffers are kept, and nothing says how large they were
            return int(self.torch.mps.driver_allocated_memory())
        if self.place.type != "cuda":
            return None
        seen = self.watch.look()
        if seen.own_bytes:
            return seen.own_bytes
        if used_before is None:
            return None
        free, total = self.torch.cuda.mem_get_info(self.place)
        return (seen.used_bytes if seen.used_bytes is not None else int(total - free)) - used_before


def _resident() -> int:
    """Resident bytes: from /proc, else as psutil knows them on other systems."""
    found = _line(_STATUS, "VmRSS:")
    if found is not None:
        return found
    import psutil  # type: ignore[import-untyped,unused-ignore]

    return int(psutil.Process().memory_info().rss)


def memory_points(job: Job, place: device, dtype: str, used_before: int | None, uuid: str | None) -> Iterator[Point]:
    """The parts and their sum, each with what the plan expects where it expects something.

    `used_before`: the device's used bytes before this process touched it. The runtime is what the process holds beside what torch has
    reserved for the model; on a CPU what Python and torch take before there is one. The allocator's share is what it has reserved
    beyond the tensors; on a CPU what the C library keeps of memory that was freed.
    """
    layout, meter = layout_of(job.architecture), _Meter(place, Watch(uuid))
    _touch(place, dtype)
    gc.collect()
    _trim()
    base = meter.held()
    decoder = Decoder(layout, dtype_named(dtype), place, capacity=job.capacity)
    gc.collect()
    kept = meter.held()
    _trim()
    resident = meter.held()
    expected = int(layout.parameters * DTYPE_BYTES[dtype])
    cache = int(layout.kv_elements(job.capacity) * DTYPE_BYTES[dtype])
    tables = decoder.table_bytes

    def point(part: str, size: int, should: int | None = None) -> Point:
        return Point(
            "memory", job.name, dtype, tokens=job.prompt, depth=job.capacity, layers=len(layout.layers), bytes=size, part=part,
            expected_bytes=should,
        )  # fmt: skip

    peak = _peak(decoder, job, meter, resident)
    yield point("weights", resident - base - decoder.kv_bytes - tables, expected)
    yield point("kv_cache", decoder.kv_bytes, cache)
    yield point("buffers", tables, tables)
    if peak is not None:
        yield point("activations", peak, activation_bytes(layout, job.prompt, int(DTYPE_BYTES[dtype])))
    tensors = resident + (peak or 0)
    cpu = tensors + kept - resident if place.type == "cpu" else None
    reserved, total = cpu or meter.reserved(tensors), cpu or meter.whole(used_before)
    if total is not None:
        for part, size in split_rest(base, tensors, reserved, total).items():
            yield point(part, size)


def _peak(decoder: Decoder, job: Job, meter: _Meter, resident: int) -> int | None:
    """The most a prompt and a few tokens take beside what was held before; None where the device does not say."""
    torch = load_torch()
    with torch.inference_mode():
        meter.start_peak()
        before = _resident() if decoder.place.type == "cpu" else 0
        decoder.prefill(torch.randint(0, decoder.layout.vocab, (job.prompt,), device=decoder.place))
        for depth in range(job.prompt, min(job.prompt + 3, job.capacity)):
            decoder.step(depth)
        return meter.peak_above(resident, before)


def split_rest(base: int, tensors: int, reserved: int, total: int) -> dict[str, int]:
    """What is no tensor of the model: `base` is what the process held before there was one, `tensors` at the peak (with `base`),
    `reserved` what the allocator took for them, `total` all the process holds.

    Weights, cache, tables and activations with allocator and runtime make up the total.
    """
    return {"allocator": reserved - tensors, "runtime": total - reserved + base, "total": total}


def _trim() -> None:
    """Let the C library give back what it keeps of freed memory, where it can (glibc)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _touch(place: device, dtype: str) -> None:
    """A small decoder built and run, so that what the libraries load and keep is there before anything is counted."""
    torch = load_torch()
    fill(torch.empty(8 << 20, dtype=torch.uint8, device=place))
    with torch.inference_mode():
        small = Decoder(layout_of(ladder_shape(256, 1, 256)), dtype_named(dtype), place, capacity=64)
        small.prefill(torch.zeros(48, dtype=torch.long, device=place))
        small.step(49)
    if place.type == "cuda":
        torch.cuda.synchronize(place)
        torch.cuda.empty_cache()
