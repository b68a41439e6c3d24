"""Slices of a GPU (MIG): `H100 MIG 3g.40gb`, `A100-80GB:2g.20gb`. The shipped table has those the driver offers, with their memory.

A slice has its own processors, memory and bandwidth, so its speed is the card's by its share. One program takes one slice.
Source: NVIDIA MIG User Guide, Supported MIG Profiles; memory and processors as `nvidia-smi mig -lgip` lists them.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from vram_plan_data import ROOT

from ..errors import UsageError
from .device import GIB, Device, GpuSpec
from .names import list_gpus, match_gpu
from .specs import device_of

__all__ = ["Slice", "slice_named", "slices_of"]

_NAMED: Final = re.compile(r"(?P<card>.*?)[\s:,/-]*(?:\bmig[\s:_-]*)?\b(?P<profile>\dg[.-]\d{1,3}gb)", re.I | re.S)
_MEMORY: Final = re.compile(r"\.(\d+)gb")

#: The same chip and memory on another board.
_AS: Final = {
    "NVIDIA A100-PCIE-40GB": "NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe": "NVIDIA A100-SXM4-80GB",
    "NVIDIA A800 80GB PCIe": "NVIDIA A100-SXM4-80GB", "NVIDIA H200 NVL": "NVIDIA H200",
}  # fmt: skip


class Slice(NamedTuple):
    """`memory_bytes` is what the driver gives it (None: not known, so the card's by the name's share), `processors` its share of them."""

    memory_bytes: int | None
    processors: Fraction


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Slice]]:
    found: dict[str, dict[str, Slice]] = {}
    with (ROOT / "mig.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            memory = round(float(row["memory_gib"]) * GIB) if row["memory_gib"] else None
            found.setdefault(row["gpu"], {})[row["profile"]] = Slice(memory, Fraction(row["processors"]))
    return found


def slices_of(spec: GpuSpec) -> dict[str, Slice]:
    """The slices a card can be cut into, by name (`3g.40gb`); none where it cannot. A PCIe A100 has those of the SXM board."""
    return _table().get(spec.name) or _table().get(_AS.get(spec.name, ""), {})


def slice_named(text: str) -> tuple[Device, str] | None:
    """The slice a text names, with what to say of it; None where it names none.

    Raises UsageError for a slice the card does not have, and what `match_gpu` raises for the card.
    """
    named = _NAMED.fullmatch(text.strip())
    if named is None:
        return None
    card, profile = named["card"], named["profile"].lower().replace("-", ".")
    asked = match_gpu(card).spec
    others = sorted(list_gpus(card), key=lambda spec: spec.name in _AS)
    spec = next((spec for spec in (asked, *others) if profile in slices_of(spec)), asked)
    if profile not in slices_of(spec):
        legal = ", ".join(slices_of(spec))
        hint = f"its slices are {legal}" if legal else f"these can: {', '.join(_table())}"
        raise UsageError(f"{spec.name} {'has no' if legal else 'cannot be cut into slices such as'} MIG {profile}", hint)
    return _device(spec, profile)


def _device(spec: GpuSpec, profile: str) -> tuple[Device, str]:
    one, whole = slices_of(spec)[profile], device_of(spec)
    memory = one.memory_bytes or round(whole.usable * _share_in_name(spec, profile))
    known = "the slice's memory as the driver lists it" if one.memory_bytes else "the slice's memory by its share of the card's"
    device = replace(
        device_of(spec.slice(f"{spec.name} MIG {profile}", float(one.processors), memory)),
        basis="measured" if one.memory_bytes else "formula", note=known,
    )  # fmt: skip
    share, bandwidth = float(one.processors), min(1.0, memory / whole.total)
    return device, (
        f"{device.name}: {share:.0%} of the card's processors and {bandwidth:.0%} of its bandwidth, its speed by these shares; "
        "a program takes one slice (CUDA_VISIBLE_DEVICES=MIG-…)"
    )


def _share_in_name(spec: GpuSpec, profile: str) -> Fraction:
    """Halves and the whole are told by the name: `3g.90gb` of 180 GB."""
    size = _MEMORY.search(profile)
    return Fraction(1, 2) if size and int(size[1]) < 0.75 * spec.memory_bytes / GIB else Fraction(1)
