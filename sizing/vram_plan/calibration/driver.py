"""What NVIDIA's driver says of the device while it is measured: memory beyond torch's, other processes, clocks, throttling."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..hardware.device import MIB

__all__ = ["Snapshot", "Watch", "busy", "disturbances"]

#: nvml.h, nvmlClocksThrottleReasons: power cap, hardware slowdown, thermal (software and hardware), power brake.
_THROTTLE: Final = {0x4: "its power limit", 0x8: "a hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "its power supply"}
_MEMORY_CLOCK: Final = 2  # NVML_CLOCK_MEM
_MOVED: Final = 200 * MIB
_BUSY: Final = 5.0  # per cent


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look. None: the driver does not say. `others` holds (process id, bytes) of processes that are not this one's; none where
    this one is not listed either: in a container the driver's process ids are not those seen inside."""

    used_bytes: int | None = None
    own_bytes: int | None = None
    others: tuple[tuple[int, int | None], ...] = ()
    memory_clock_mhz: float | None = None
    memory_clock_max_mhz: float | None = None
    utilisation: float | None = None
    throttled: tuple[str, ...] = ()


class Watch:
    """The driver's answers about one GPU, by its UUID; none at all where there is no NVIDIA driver."""

    def __init__(self, uuid: str | None) -> None:
        self.library: Any = None
        self.handle: Any = None
        if not uuid:
            return
        try:
            import pynvml  # type: ignore[import-untyped,unused-ignore]

            pynvml.nvmlInit()
            self.library, self.handle = pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except Exception:  # an absent or broken driver only means that these figures are not known
            self.library = self.handle = None

    def ask(self, function: str, *arguments: Any) -> Any:
        """One answer, None where the driver, the binding or the device has none."""
        if self.handle is None:
            return None
        try:
            return getattr(self.library, function)(self.handle, *arguments)
        except Exception:
            return None

    def look(self) -> Snapshot:
        memory, rates = self.ask("nvmlDeviceGetMemoryInfo"), self.ask("nvmlDeviceGetUtilizationRates")
        held = {int(p.pid): p.usedGpuMemory for p in self.ask("nvmlDeviceGetComputeRunningProcesses") or ()}
        reasons = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        return Snapshot(
            used_bytes=int(memory.used) if memory else None,
            own_bytes=held.get(os.getpid()),
            others=tuple((pid, size) for pid, size in held.items() if pid != os.getpid()) if os.getpid() in held else (),
            memory_clock_mhz=self.ask("nvmlDeviceGetClockInfo", _MEMORY_CLOCK),
            memory_clock_max_mhz=self.ask("nvmlDeviceGetMaxClockInfo", _MEMORY_CLOCK),
            utilisation=float(rates.gpu) if rates else None,
            throttled=tuple(dict.fromkeys(words for bit, words in _THROTTLE.items() if reasons & bit)),
        )

    @property
    def driver(self) -> str | None:
        try:
            return str(self.library.nvmlSystemGetDriverVersion()) if self.library else None
        except Exception:
            return None

    @property
    def power_limit_w(self) -> float | None:
        limit = self.ask("nvmlDeviceGetEnforcedPowerLimit")
        return limit / 1000 if limit else None


def busy(look: Snapshot) -> list[str]:
    """What else the device does before anything of this runs on it."""
    used = look.utilisation
    return [f"the device was {used:.0f} % busy before anything was measured"] if used is not None and used > _BUSY else []


def disturbances(looks: Sequence[Snapshot]) -> list[str]:
    """What may have falsified a measurement: throttling or a memory clock that did not rise while the device worked (all looks but the
    first and the last), others' memory."""
    flags, before, after, working = [], looks[0], looks[-1], looks[1:-1]
    if throttled := dict.fromkeys(words for look in working for words in look.throttled):
        flags.append(f"the clocks were held back by {' and '.join(throttled)}")
    clock = max((look.memory_clock_mhz or 0.0 for look in working), default=0.0)
    most = max((look.memory_clock_max_mhz or 0.0 for look in working), default=0.0)
    if 0 < clock < 0.9 * most:
        flags.append(f"the memory clock was {clock:.0f} MHz, {most:.0f} at most")
    moved = abs(sum(size or 0 for _, size in after.others) - sum(size or 0 for _, size in before.others))
    if moved > _MOVED or {pid for pid, _ in before.others} != {pid for pid, _ in after.others}:
        flags.append("other processes took or gave back memory of the device meanwhile")
    elif before.others:
        flags.append(f"{len(before.others)} other processes hold memory of the device")
    return flags
