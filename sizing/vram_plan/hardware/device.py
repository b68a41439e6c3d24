"""What a model can run on: a catalogue row, a device with its memory, and what was found or asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal

from ..values import dataclass

if TYPE_CHECKING:
    from ..models.architecture import Basis  # only its name: hardware is loaded without the models
    from .profiles import Profile

__all__ = ["GIB", "MIB", "Detection", "Device", "GpuSpec", "MemoryBasis", "Process", "is_processor"]

MIB: Final = 1 << 20
GIB: Final = 1 << 30

#: Where a row's usable memory comes from: a cited log, memory of one, a rule from other cards, the nominal size.
MemoryBasis = Literal["log", "recalled", "rule", "nominal"]


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One accelerator of the catalogue, as software sees it. Rates are dense and in SI units per second, None unknown.

    `memory_bytes` is the round number it is sold with, `reported_bytes` the driver's total, `usable_bytes` what an
    idle card hands out (cudaMemGetInfo's total). With unified memory `memory_bytes` is the largest configuration,
    `memory_options` all of them, and `usable_shares` the part the GPU may take: (up to this many bytes, share).
    `gpus_per_card` is 2 for an MI250, whose figures are of one half. `cores` are a processor's that llama.cpp works with.
    """

    name: str
    vendor: str
    aliases: tuple[str, ...]
    memory_bytes: int
    reported_bytes: int | None
    usable_bytes: int | None
    memory_basis: MemoryBasis
    memory_note: str
    memory_options: tuple[int, ...]
    bandwidth_bytes_per_s: float
    fp32_flops: float | None
    fp16_flops: float | None
    bf16_flops: float | None
    fp8_flops: float | None
    fp4_flops: float | None
    int8_ops: float | None
    power_w: float | None
    compute_capability: str | None
    interconnect: str
    release_year: int
    unified: bool
    usable_shares: tuple[tuple[int | None, Fraction], ...]
    gpus_per_card: int
    usual_for: tuple[str, ...]
    usual_because: str
    common: bool
    accumulate_note: str
    source: str
    notes: str
    cores: int = 0

    def slice(self, name: str, compute_share: float, memory_bytes: int) -> GpuSpec:
        """A partition of this card (MIG): memory and bandwidth by its memory, compute by its share of the processors."""
        memory_share = memory_bytes / (self.reported_bytes or self.memory_bytes)

        def part(rate: float | None) -> float | None:
            return None if rate is None else rate * compute_share

        return replace(
            self, name=name, aliases=(), memory_bytes=memory_bytes, reported_bytes=memory_bytes, usable_bytes=memory_bytes,
            bandwidth_bytes_per_s=self.bandwidth_bytes_per_s * min(1.0, memory_share), fp32_flops=part(self.fp32_flops),
            fp16_flops=part(self.fp16_flops), bf16_flops=part(self.bf16_flops), fp8_flops=part(self.fp8_flops),
            fp4_flops=part(self.fp4_flops), int8_ops=part(self.int8_ops), power_w=None, usual_for=(), common=False,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds memory of a device. `name` and `bytes` are None where the driver does not say."""

    pid: int
    name: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Device:
    """One device and its memory, in bytes.

    `total` is what the driver reports, `usable` what an engine may take of it when nothing else runs, `free` what it
    may take now (None: not known), `used_by_others` the difference. `vendor` is NVIDIA, AMD, Intel, Apple, Google, CPU (a
    processor and its memory) or "unknown". `index` counts over all nodes. `basis` is of the memory figures; `note` says where they
    come from.
    `profile` is what `calibrate` or `verify` measured on it.
    """

    name: str
    index: int
    total: int
    usable: int
    free: int | None
    used_by_others: int = 0
    spec: GpuSpec | None = None
    vendor: str = "unknown"
    unified: bool = False
    uuid: str | None = None
    compute_capability: str | None = None
    driver: str | None = None
    power_limit_w: float | None = None
    processes: tuple[Process, ...] = ()
    node: int = 0
    basis: Basis = "formula"
    note: str = ""
    profile: Profile | None = None

    @property
    def available(self) -> int:
        """What an engine can take now: what is free, where that is known, and never more than is usable."""
        return self.usable if self.free is None else min(self.free, self.usable)

    @property
    def is_slice(self) -> bool:
        """Whether it is a MIG slice of a GPU: a program takes one of them."""
        return " MIG " in self.name

    @property
    def capability(self) -> tuple[int, int] | None:
        """CUDA's compute capability as numbers, (8, 9); None where the device has none or it is not known."""
        text = self.compute_capability or (self.spec.compute_capability if self.spec else None) or ""
        major, _, minor = text.partition(".")
        return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Detection:
    """The devices found or asked for, and what to say about them. `reason` says why there are none."""

    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""
    local: bool = False


def is_processor(devices: Sequence[Device]) -> bool:
    """Whether these devices are a processor and the memory it works in."""
    return bool(devices) and devices[0].vendor == "CPU"
