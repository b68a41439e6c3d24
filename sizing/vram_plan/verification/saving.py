"""What a running engine measured, kept in the profile of the device it ran on: later plans there start from it."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UsageError
from ..hardware import Detection, Device, local_devices
from ..hardware.profile_store import record_engine
from ..hardware.profiles import EngineScale
from ..units import format_gib
from .values import Line, Observation, Reconciliation

__all__ = ["plain_devices", "saved"]


def plain_devices(machine: Detection) -> Detection:
    """The machine as the catalogue alone has it: what was saved before must not scale what is saved now."""
    return replace(machine, devices=tuple(replace(device, profile=None) for device in machine.devices))


def saved(found: Reconciliation, seen: Observation, machine: Detection) -> str:
    """Record the rates and the runtime share. Raises UsageError where nothing of that kind was measured, or not on this machine."""
    here = local_devices().devices
    if not machine.devices or [d.name for d in here[: len(machine.devices)]] != [d.name for d in machine.devices]:
        raise UsageError("only what ran on a GPU of this machine can be saved", "run it there, without --gpu")
    device = here[0]
    runtime = _runtime(found, device)
    scale = EngineScale(_scale(found.lines, "decode"), _scale(found.lines, "prefill"), runtime, 1, seen.version)
    if scale.decode_scale is None and scale.prefill_scale is None and runtime is None:
        raise UsageError("nothing was measured that could be saved", "add --measure, or take --against nvml for the runtime's share")
    path = record_engine(device, seen.engine, scale)
    return f"{_words(scale)} in {path.name}"


def _scale(lines: tuple[Line, ...], name: str) -> float | None:
    line = next((line for line in lines if line.name == name and line.actual and line.predicted), None)
    return line.actual / line.predicted if line and line.actual and line.predicted else None


def _runtime(found: Reconciliation, device: Device) -> int | None:
    """What the process holds beyond what the plan has for the rest. (A log's last lines tell what nobody accounts for, but that is
    other programs' too.)"""
    held = next((line.actual for line in found.lines if line.name == "held" and line.place == 0 and line.actual), None)
    if held is None:
        return None
    size = held - sum(term.bytes for term in found.plan.devices[0].terms if term.group != "runtime")
    return int(size) if 0 < size < device.total / 4 else None


def _words(scale: EngineScale) -> str:
    scales = (("decode", scale.decode_scale), ("prefill", scale.prefill_scale))
    parts = [f"{name} × {value:.2f}" for name, value in scales if value]
    parts += [f"runtime {format_gib(scale.runtime_bytes)}"] if scale.runtime_bytes else []
    return ", ".join(parts)
