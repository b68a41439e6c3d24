"""Which GPUs CUDA would show: `CUDA_VISIBLE_DEVICES`, as the CUDA Programming Guide (environment variables) says.

A list of numbers, of UUIDs (the first letters are enough) or of MIG UUIDs. The first entry that names no device ends
the list; an empty value shows none; an entry given twice shows none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .device import Device

__all__ = ["Gpu", "visible_devices"]


class Gpu(NamedTuple):
    """A physical GPU in the driver's order: its UUID, its device (None: lost, or cut in slices), its MIG slices."""

    uuid: str | None
    device: Device | None
    slices: tuple[Device, ...] = ()
    name: str = ""


def _by_uuid(entry: str, devices: Sequence[tuple[str | None, Device | None]]) -> Device | None:
    found = [device for uuid, device in devices if uuid and uuid.lower().startswith(entry.lower())]
    return found[0] if len(found) == 1 else None


def _first(gpu: Gpu) -> Device | None:
    """What a whole GPU's number or UUID stands for: itself, or the first of its slices (CUDA takes no other)."""
    return gpu.slices[0] if gpu.slices else gpu.device


def _named(entry: str, gpus: Sequence[Gpu]) -> Device | None:
    if entry.isascii() and entry.isdigit() and len(entry) < 6:
        return _first(gpus[int(entry)]) if int(entry) < len(gpus) else None
    if entry.upper().startswith("MIG-"):
        return _by_uuid(entry, [(piece.uuid, piece) for gpu in gpus for piece in gpu.slices])
    if entry.upper().startswith("GPU-"):
        return _by_uuid(entry, [(gpu.uuid, _first(gpu)) for gpu in gpus])
    return None


def _order_note(entries: Sequence[str], gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[str]:
    mixed = len({gpu.name for gpu in gpus}) > 1
    if mixed and environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and any(entry.isdigit() for entry in entries):
        order = "CUDA counts the fastest first unless CUDA_DEVICE_ORDER=PCI_BUS_ID"
        return [f"the numbers in CUDA_VISIBLE_DEVICES are read in PCI order; {order}"]
    return []


def visible_devices(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[list[Device], list[str]]:
    """The devices CUDA would show a program, in its order, and notes."""
    setting = environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        every = [device for gpu in gpus for device in (gpu.slices or (gpu.device,)) if device]
        several = any(len(gpu.slices) > 1 for gpu in gpus)
        return every, ["CUDA gives one program one MIG slice: choose it with CUDA_VISIBLE_DEVICES"] if several else []
    entries = [entry.strip() for entry in setting[:4096].split(",")]
    chosen: list[Device] = []
    for entry in entries:
        device = _named(entry, gpus)
        if device is None:
            shown = f"CUDA_VISIBLE_DEVICES={setting[:60]}"
            if entry in ("", "-1"):
                return chosen, [f"{shown} hides {'the other' if chosen else 'all'} GPUs"]
            return chosen, [f"{shown}: {entry[:40]!r} names no GPU here; CUDA passes over it and all that follow"]
        if device in chosen:
            return [], [f"CUDA_VISIBLE_DEVICES={setting[:60]} names a GPU twice: CUDA then shows none"]
        chosen.append(device)
    return chosen, _order_note(entries, gpus, environ)
