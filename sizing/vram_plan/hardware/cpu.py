"""This machine's processor as a device: llama.cpp, Ollama and transformers run on it, and it can be calibrated where there is no GPU."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Final

from ..errors import HardwareError
from .cpus import cpu_of_system
from .device import Device
from .unified import available_memory, system_memory

__all__ = ["cpu_device", "cpu_name"]

CPUINFO: Final = Path("/proc/cpuinfo")
#: What boards without a name there say they are: Raspberry Pi 5 Model B Rev 1.0.
BOARD: Final = Path("/proc/device-tree/model")
_MOST: Final = 1 << 16
_LONGEST: Final = 100


def cpu_name() -> str:
    """The processor's name as the system has it: AMD EPYC 9554, Apple M3 Pro; its architecture where it has none."""
    named = _linux_name() or (_mac_name() if sys.platform == "darwin" else "") or platform.processor() or platform.machine()
    return " ".join(named.split())[:_LONGEST] or "CPU"


def _linux_name() -> str:
    lines = _read(CPUINFO).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or _read(BOARD).strip("\0\n ")


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)
    except OSError:
        return ""


def _mac_name() -> str:
    from .local import sysctl

    return sysctl("machdep.cpu.brand_string")


def cpu_device() -> Device:
    """The processor with this machine's memory, and what of it programs can get now. Raises HardwareError where that is not told."""
    total = system_memory()
    if not total:
        raise HardwareError("this system does not say how much memory it has", "name a size instead, for example --gpu 16GB")
    free, name = min(available_memory() or total, total), cpu_name()
    spec, taken = cpu_of_system(name, os.cpu_count() or 0)
    note = "the processor and the memory it shares with everything else on this machine" + (f"; {taken}" if taken else "")
    return Device(
        name, 0, total, total, free, used_by_others=total - free, spec=spec, vendor="CPU", unified=True, basis="measured", note=note,
    )  # fmt: skip
