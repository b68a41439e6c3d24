"""This machine's processor as a device: transformers runs on it, and it can be calibrated where there is no GPU."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Final

from ..errors import HardwareError
from .device import Device
from .unified import available_memory, system_memory

__all__ = ["cpu_device", "cpu_name"]

CPUINFO: Final = Path("/proc/cpuinfo")
_MOST: Final = 1 << 16
_LONGEST: Final = 100


def cpu_name() -> str:
    """The processor's name as the system has it: AMD EPYC 9554, Apple M3 Pro; its architecture where it has none."""
    named = _linux_name() or (_mac_name() if sys.platform == "darwin" else "") or platform.processor() or platform.machine()
    return " ".join(named.split())[:_LONGEST] or "CPU"


def _linux_name() -> str:
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_MOST).splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _mac_name() -> str:
    from .local import sysctl

    return sysctl("machdep.cpu.brand_string")


def cpu_device() -> Device:
    """The processor with this machine's memory, and what of it programs can get now. Raises HardwareError where that is not told."""
    total = system_memory()
    if not total:
        raise HardwareError("this system does not say how much memory it has", "name a size instead, for example --gpu 16GB")
    free = min(available_memory() or total, total)
    note = "the processor and the memory it shares with everything else on this machine"
    return Device(
        cpu_name(), 0, total, total, free, used_by_others=total - free, vendor="CPU", unified=True, basis="measured", note=note,
    )  # fmt: skip
