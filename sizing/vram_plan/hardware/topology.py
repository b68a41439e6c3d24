"""How the devices of a set are joined: nodes, and the fastest link any two of a node share by the catalogue."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ..values import dataclass
from .device import Device

__all__ = ["Topology", "link_of", "topology_of"]

#: Bytes per second of one lane, one direction (PCI Express base specifications, after encoding).
_PCIE_LANE: Final = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
_NVLINK: Final = re.compile(r"NVLink\d?\s+(\d+(?:\.\d+)?) GB/s")
_PCIE: Final = re.compile(r"PCIe (\d)\.0 x(\d+)")


@dataclass(frozen=True, slots=True)
class Topology:
    """Facts about a set of devices. `link_bytes_per_s` is one device's, one direction; None where it is not known."""

    nodes: int
    devices_per_node: int
    identical: bool
    link: str
    link_bytes_per_s: float | None


def link_of(device: Device) -> tuple[str, float | None]:
    """The fastest link of one device, by the catalogue: makers give NVLink's two directions together, halved here."""
    text = device.spec.interconnect if device.spec else ""
    if found := _NVLINK.search(text):
        return "NVLink", float(found[1]) * 1e9 / 2
    if found := _PCIE.search(text):
        return "PCIe", _PCIE_LANE[int(found[1])] * int(found[2])
    return text, None


def topology_of(devices: Sequence[Device]) -> Topology:
    """Nodes, devices in the largest of them, and the slowest device's link."""
    nodes = {device.node for device in devices}
    largest = max((sum(device.node == node for device in devices) for node in nodes), default=0)
    links = [link_of(device) for device in devices]
    unknown = any(rate is None for _, rate in links)
    link, rate = ("", None) if unknown or not links else min(links, key=lambda pair: pair[1] or 0.0)
    return Topology(len(nodes), largest, len({device.name for device in devices}) <= 1, link, rate)
