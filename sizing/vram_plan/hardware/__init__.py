"""What a model runs on: this machine's GPUs as the driver reports them, or any of the catalogue by name."""

from __future__ import annotations

from ..errors import HardwareError
from .catalog import common_gpus
from .device import Detection, Device, GpuSpec, Process
from .local import local_devices
from .names import find_gpu, list_gpus, match_gpu
from .parse import device_of, parse_gpus
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
    "topology_of",
]


def resolve(text: str | None = None) -> Detection:
    """The devices `--gpu` means: those it names, or this machine's (None and "local").

    None on a machine without a GPU: no devices, and the reason. Raises UsageError or UnknownNameError for a text that
    names none, HardwareError for a broken driver, or for "local" when there is no GPU.
    """
    if text is not None and text.strip().lower() != "local":
        return parse_gpus(text)
    found = local_devices()
    if text is not None and not found.devices:
        raise HardwareError(found.reason, "name the GPU to plan for, for example --gpu 'RTX 4090'")
    return found
