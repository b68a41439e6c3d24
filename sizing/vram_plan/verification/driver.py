"""What the driver says a process holds of each GPU (NVML): buffers and the driver's share together."""

from __future__ import annotations

import re
from typing import Final

from ..errors import HardwareError, UsageError
from ..hardware import Device, Process, local_devices
from ..units import MIB, format_gib
from .values import Figure, Observation

__all__ = ["observe_driver"]

#: A part of a process's name → the engine it is of; Python is whatever engine was asked for.
_ENGINES: Final = {
    "llama-server": "llama.cpp", "llama-cli": "llama.cpp", "ollama": "ollama", "vllm": "vllm", "sglang": "sglang",
}  # fmt: skip


def observe_driver(asked: str, engine: str | None) -> Observation:
    """The process that holds the model: those named (`nvml:123,456`), else on each GPU the engine's, else the largest.

    Raises HardwareError where the driver tells of no such process.
    """
    pids = _pids(asked)
    found = local_devices()
    if not found.devices:
        raise HardwareError(found.reason, "give the engine's log or its server's address instead")
    held = [(device, process) for device in found.devices for process in _of(device, pids, engine)]
    if not held:
        who = f"process {asked.partition(':')[2]}" if pids else "process of an engine"
        raise HardwareError(f"the driver shows no {who} that holds memory of a GPU", _listed(found.devices))
    if all(process.bytes is None for _, process in held):
        raise HardwareError("the driver does not say how much each process holds (Windows and WSL)", "give the engine's log instead")
    figures = tuple(_figure(device, process) for device, process in held if process.bytes is not None)
    names = ", ".join(dict.fromkeys(f"{process.name or 'process'} ({process.pid})" for _, process in held))
    kind = engine or next((name for _, process in held if (name := _engine_of(process))), None)
    if kind is None:
        raise UsageError(f"which engine {names} is cannot be told", "name it with --engine")
    return Observation(kind, f"the driver: {names}", None, figures, notes=("read while it runs: nothing of its settings is known",))


def _pids(asked: str) -> frozenset[int]:
    text = asked.partition(":")[2].strip()
    if not text:
        return frozenset()
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,9}", part) for part in parts):
        raise UsageError(f"{text[:40]!a} is no process number", "write it as nvml:1234")
    return frozenset(map(int, parts))


def _engine_of(process: Process) -> str | None:
    name = (process.name or "").lower()
    return next((engine for part, engine in _ENGINES.items() if part in name), None)


def _of(device: Device, pids: frozenset[int], engine: str | None) -> list[Process]:
    if pids:
        return [process for process in device.processes if process.pid in pids]
    known = [process for process in device.processes if _engine_of(process)]
    if engine is not None and not known:
        known = [process for process in device.processes if "python" in (process.name or "").lower()]
    return sorted(known, key=lambda process: -(process.bytes or 0))[:1]


def _figure(device: Device, process: Process) -> Figure:
    size = process.bytes or 0
    line = f"{process.name or 'process'} ({process.pid}) {format_gib(size)}"
    return Figure("held", float(size), "bytes", device.index, 0.5 * MIB, line)


def _listed(devices: tuple[Device, ...]) -> str:
    names = [f"{p.pid} {p.name or '?'}" for device in devices for p in device.processes][:8]
    return f"name one with nvml:PID: {', '.join(names)}" if names else "is it running, on a GPU this user may look at?"
