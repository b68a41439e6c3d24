"""How a set of devices is joined."""

from __future__ import annotations

import pytest
from vram_plan.hardware import Topology, parse_gpus, topology_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 nodes x 8xH100", Topology(2, 8, True, "NVLink", 450e9)),
        ("2x3090", Topology(1, 2, True, "NVLink", 56.25e9)),
        ("4090 + 3090", Topology(1, 2, False, "PCIe", 1.969e9 * 16)),
        ("2x 4060", Topology(1, 2, True, "PCIe", 1.969e9 * 8)),
        ("3090 + 24GB", Topology(1, 2, False, "", None)),
        ("8xMI300X", Topology(1, 8, True, "", None)),
    ],
)
def test_topology(text, expected):
    assert topology_of(parse_gpus(text).devices) == expected


def test_no_devices():
    assert topology_of(()) == Topology(0, 0, True, "", None)
