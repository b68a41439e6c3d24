"""Processors by name, as `--gpu "Ryzen 9 7950X 64GB"`: the catalogue's rows, each one socket with every memory channel filled.

The memory is as fast as the processor supports unless the name says otherwise (`DDR5-4800`, `2 channels`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from vram_plan_data import ROOT

from ..errors import UsageError
from ..values import dataclass
from .device import GIB, Device, GpuSpec

__all__ = ["CpuRow", "cpu_catalogue", "cpu_named", "cpu_of_system", "cpu_spec"]

#: A channel of DDR: 64 bits (DDR5 splits it in two, LPDDR in four; their widths are summed in the catalogue).
_CHANNEL_BITS: Final = 64
_SPEED: Final = re.compile(r"\b((?:lp)?ddr\d?[a-z]?)[- ]?(\d{3,5})\b")
_CHANNELS: Final = re.compile(r"\b(\d{1,2}) ?(?:ch|channels?)\b")
_MEMORY: Final = re.compile(r"\b(\d{1,5}(?:\.\d{1,2})?) ?(gi?b|ti?b)\b")
_NOISE: Final = frozenset({"amd", "intel", "qualcomm", "cpu", "processor", "with", "w", "r", "tm", "ryzen", "core", "rockchip", "aws"})
_MOST_MTS: Final = 20_000


@dataclass(frozen=True, slots=True)
class CpuRow:
    """One processor. `cores` are those llama.cpp works with by default: of hybrid ones the performance cores. Operations a clock are
    a core's, a multiply-add counted as two; clocks in GHz."""

    name: str
    aliases: tuple[str, ...]
    cores: int
    threads: int
    base_ghz: float
    boost_ghz: float
    fp32_per_clock: int
    int8_per_clock: int
    memory: str
    bus_bits: int
    memory_mts: int
    release_year: int
    source: str
    notes: str


class _Memory(NamedTuple):
    """What a name said of memory; 0 where nothing."""

    bytes: int
    mts: int
    channels: int
    kind: str


def _row(row: Mapping[str, str]) -> CpuRow:
    boost = float(row["boost_ghz"])
    return CpuRow(
        row["name"], tuple(filter(None, row["aliases"].split(";"))), int(row["cores"]), int(row["threads"]),
        float(row["base_ghz"] or boost), boost, int(row["fp32_per_clock"]), int(row["int8_per_clock"]), row["memory"], int(row["bus_bits"]),
        int(row["memory_mts"]), int(row["release_year"]), row["source"], row["notes"],
    )  # fmt: skip


@lru_cache(maxsize=1)
def cpu_catalogue() -> tuple[CpuRow, ...]:
    """Every row of `vram_plan_data/cpus.csv`, in its order."""
    with (ROOT / "cpus.csv").open(encoding="utf-8", newline="") as file:
        return tuple(map(_row, csv.DictReader(file)))


@lru_cache(maxsize=256)
def cpu_spec(row: CpuRow, mts: int = 0, channels: int = 0, memory: str = "") -> GpuSpec:
    """A row in the form of an accelerator's: bandwidth bus × transfers, arithmetic cores × mean clock × operations a clock. `unified`
    where the memory is LPDDR as wide as a GPU beside the cores wants it."""
    bits = channels * _CHANNEL_BITS or row.bus_bits
    wide = (memory or row.memory).startswith("LP") and bits >= 2 * _CHANNEL_BITS
    clocks = row.cores * (row.base_ghz + row.boost_ghz) / 2 * 1e9
    return GpuSpec(
        name=row.name, vendor="CPU", aliases=row.aliases, memory_bytes=0, reported_bytes=None, usable_bytes=None, memory_basis="nominal",
        memory_note="", memory_options=(), bandwidth_bytes_per_s=bits / 8 * (mts or row.memory_mts) * 1e6,
        fp32_flops=clocks * row.fp32_per_clock, fp16_flops=None, bf16_flops=None, fp8_flops=None, fp4_flops=None,
        int8_ops=clocks * row.int8_per_clock, power_w=None, compute_capability=None, interconnect="", release_year=row.release_year,
        unified=wide, usable_shares=((None, Fraction(1)),), gpus_per_card=1, usual_for=(), usual_because="", common=False,
        accumulate_note="", source=row.source, notes=row.notes, cores=row.cores,
    )  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", re.sub(r"@.*|\(r\)|\(tm\)", " ", text.lower()))) - _NOISE


@lru_cache(maxsize=1)
def _names() -> tuple[tuple[CpuRow, tuple[frozenset[str], ...]], ...]:
    return tuple((row, tuple(map(_words, (row.name, *row.aliases)))) for row in cpu_catalogue())


def _memory(text: str) -> tuple[str, _Memory]:
    """The name without what was said of memory, and that."""
    size, speed, channels = (pattern.search(text) for pattern in (_MEMORY, _SPEED, _CHANNELS))
    for pattern in (_SPEED, _MEMORY, _CHANNELS):
        text = pattern.sub(" ", text)
    bytes_ = round(float(size[1]) * (GIB << 10 if size[2][0] == "t" else GIB)) if size else 0
    return text, _Memory(bytes_, int(speed[2]) if speed else 0, int(channels[1]) if channels else 0, speed[1].upper() if speed else "")


def cpu_named(text: str) -> tuple[Device, str] | None:
    """The processor a text names, with the memory it says, and a note on what was taken of it; None where it names none.

    Raises UsageError where it could be several, where no memory is said, or one that no machine has.
    """
    plain, memory = _memory(" ".join(text.lower().split()))
    asked = _words(plain)
    found = {row.name: row for row, names in _names() if asked and any(asked <= name for name in names)}
    exact = [row for row, names in _names() if any(asked == name for name in names)]
    if not found:
        return None
    if len(found) > 1 and len(exact) != 1:
        raise UsageError(f"{text[:60]!r} could be {', '.join(list(found)[:6])}", "name one of them")
    row = exact[0] if exact else next(iter(found.values()))
    if not memory.bytes:
        raise UsageError(f"how much memory the {row.name} has was not said", f"for example: '{row.name} 64GB'")
    if memory.mts > _MOST_MTS or memory.channels > 2 * row.bus_bits // _CHANNEL_BITS or not GIB // 4 <= memory.bytes <= 64 << 40:
        example = f"for example: '{row.name} 64GB {row.memory}-{row.memory_mts}'"
        raise UsageError(f"{text[:60]!r} says memory that no {row.name} has", example)
    spec = cpu_spec(row, memory.mts, memory.channels, memory.kind)
    return _device(row, spec, memory), _taken(row, memory)


def _device(row: CpuRow, spec: GpuSpec, memory: _Memory) -> Device:
    size = memory.bytes
    note = "the memory is shared with the system's own programs"
    return Device(f"{row.name}, {size / GIB:g} GB", 0, size, size, size, spec=spec, vendor="CPU", basis="formula", unified=True, note=note)


def _taken(row: CpuRow, memory: _Memory) -> str:
    """What was taken of memory's speed where it was not said."""
    if memory.mts:
        return ""
    rate = cpu_spec(row, channels=memory.channels).bandwidth_bytes_per_s / 1e9
    fastest = f"{row.memory}-{row.memory_mts}"
    return f"{row.name}: memory taken as {fastest}, the fastest it supports, {rate:.0f} GB/s; say another as: 64GB {fastest}"


def cpu_of_system(name: str, threads: int) -> tuple[GpuSpec | None, str]:
    """The row of a processor as a system names it, and a note on its memory; None where it is not listed, or where the system sees
    another number of threads than one whole processor has (a share of one, or several)."""
    said = _words(name)
    fitting = [(max(len(one) for one in names if one <= said), row) for row, names in _names() if any(one <= said for one in names)]
    row = max(fitting, key=lambda pair: pair[0])[1] if fitting else None
    if row is None:
        return None, ""
    if not row.cores <= threads <= row.threads:
        return None, f"no speed: {threads} threads are seen, one {row.name} has {row.threads}: the share of its memory's speed is not known"
    return cpu_spec(row), _taken(row, _Memory(0, 0, 0, ""))
