"""How much of a memory shared with the CPU the GPU may take: Apple silicon, GB10, Jetson, AMD's APUs.

Apple: Metal's recommendedMaxWorkingSetSize is 2/3 of the memory up to 32 GB and 3/4 above (llama.cpp logs of 8, 16, 32,
48, 64 and 192 GB Macs); `sysctl iogpu.wired_limit_mb` moves it. AMD APUs: what the BIOS set aside and what Linux lets
the GPU map (GTT, half of the memory unless raised). GB10 and Jetson: all that the system sees as its memory.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from .device import GIB, GpuSpec

__all__ = ["available_memory", "gpu_share", "system_memory", "usable_of"]

MEMINFO = Path("/proc/meminfo")


def gpu_share(spec: GpuSpec, memory_bytes: int) -> Fraction | None:
    """The share of its memory such a GPU may take by default; None: the catalogue has no rule."""
    for limit, share in spec.usable_shares:
        if limit is None or memory_bytes <= limit:
            return share
    return None


def usable_of(spec: GpuSpec, memory_bytes: int) -> tuple[int, str]:
    """Bytes the GPU may take of a unified memory of this size, and why."""
    if share := gpu_share(spec, memory_bytes):
        how = "raise it with: sudo sysctl iogpu.wired_limit_mb=…" if spec.vendor == "Apple" else "the BIOS and the GTT limit move it"
        return int(memory_bytes * share), f"the GPU may take {share} of the {memory_bytes / GIB:g} GiB it shares with the CPU; {how}"
    usable = spec.usable_bytes or spec.memory_bytes
    why = "shared with the CPU: the system's own programs take from it too"
    return memory_bytes * usable // spec.memory_bytes, why


def system_memory() -> int | None:
    """All memory of this machine, in bytes; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def available_memory() -> int | None:
    """Memory programs can still get without swapping, in bytes (MemAvailable); None where the system does not say."""
    try:
        with MEMINFO.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
