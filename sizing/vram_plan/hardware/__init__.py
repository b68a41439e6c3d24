"""What a model runs on: this machine's GPUs as the driver reports them, or any of the catalogue by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .device import Detection, Device, GpuSpec, Process

if TYPE_CHECKING:
    from .catalog import common_gpus
    from .local import local_devices
    from .names import find_gpu, list_gpus, match_gpu
    from .parse import parse_gpus
    from .specs import device_of
    from .topology import Topology, topology_of

__all__ = [
    "Detection",
    "Device",
    "GpuSpec",
    "Process",
    "Topology",
    "common_gpus",
    "device_of",
    "find_gpu",
    "list_gpus",
    "local_devices",
    "match_gpu",
    "parse_gpus",
    "resolve",
    "this_processor",
    "topology_of",
]


#: Names imported when they are first used: a plan without a GPU needs none of the tables of names.
_HOMES = {
    "common_gpus": "catalog", "local_devices": "local", "find_gpu": "names", "list_gpus": "names", "match_gpu": "names",
    "parse_gpus": "parse", "device_of": "specs", "Topology": "topology", "topology_of": "topology",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def this_processor() -> Detection:
    """This machine's processor with its memory and what was measured on it. Raises HardwareError where the memory is not told."""
    from .cpu import cpu_device
    from .profile_store import attach

    return Detection(*attach((cpu_device(),)), local=True)


def resolve(text: str | None = None) -> Detection:
    """The devices `--gpu` means: those it names, or this machine's (None and "local").

    None on a machine without a GPU: no devices, and the reason. Raises UsageError or UnknownNameError for a text that
    names none, HardwareError for a broken driver, or for "local" when there is no GPU.
    """
    from ..errors import HardwareError
    from . import local_devices, parse_gpus

    if text is not None and text.strip().lower() != "local":
        return parse_gpus(text)
    found = local_devices()
    if text is not None and not found.devices:
        raise HardwareError(found.reason, "name the GPU to plan for, for example --gpu 'RTX 4090'")
    return found
