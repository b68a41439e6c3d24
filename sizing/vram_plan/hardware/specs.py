"""A catalogue row as a device with nothing else running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .device import GIB, Device, GpuSpec
from .unified import usable_of

if TYPE_CHECKING:
    from ..models.architecture import Basis

__all__ = ["device_of"]

_BASIS: Final[dict[str, Basis]] = {"log": "measured", "recalled": "formula", "rule": "formula", "nominal": "fallback"}


def device_of(spec: GpuSpec, memory_bytes: int | None = None) -> Device:
    """A catalogue row as a device with nothing else running. `memory_bytes`: the configuration of a unified memory."""
    total, usable, note = _unified(spec, memory_bytes) if spec.unified else _discrete(spec)
    name = f"{spec.name}, {total / GIB:g} GB" if spec.unified else spec.name
    return Device(
        name, 0, total, usable, usable, spec=spec, vendor=spec.vendor, unified=spec.unified,
        compute_capability=spec.compute_capability, power_limit_w=spec.power_w, basis=_BASIS[spec.memory_basis], note=note,
    )  # fmt: skip


def _discrete(spec: GpuSpec) -> tuple[int, int, str]:
    total = spec.reported_bytes or spec.memory_bytes
    usable = spec.usable_bytes or total
    if usable == spec.memory_bytes:
        return total, usable, "memory as sold: no log of this device was seen"
    where = {"log": "as logged", "recalled": "as recalled, no log at hand"}.get(spec.memory_basis, "by rule")
    return total, usable, f"an idle card hands out {usable / GIB:.2f} of {total / GIB:.2f} GiB ({where}: {spec.memory_note})"


def _unified(spec: GpuSpec, memory_bytes: int | None) -> tuple[int, int, str]:
    total = memory_bytes or spec.memory_bytes
    return total, *usable_of(spec, total)
