"""vLLM's and SGLang's step on tensor-parallel GPUs: rates of their number formats and links."""

from __future__ import annotations

from functools import lru_cache

from ..formats import Format
from ..hardware import Device, topology_of
from .hardware import Rates

__all__ = ["far_apart", "link_rate", "peak_flops", "quantises_activations"]

#: Between nodes: one 400 Gbit/s port a GPU (NVIDIA DGX H100 user guide), 50 GB/s one direction.
_NETWORK = 50e9


@lru_cache(maxsize=256)
def _width(name: str) -> str:
    upper = name.upper()
    if "W4A16" in upper or "AWQ" in upper or "GPTQ" in upper or "NF4" in upper:
        return "bf16"  # 4-bit weights, 16-bit arithmetic
    if "FP4" in upper:
        return "fp4"
    return "fp8" if "FP8" in upper or "W8A8" in upper or "INT8" in upper else "bf16"


def peak_flops(rates: Rates, format: Format) -> float:
    """The matrix rate of the arithmetic a format is computed in; a GPU without FP4 or FP8 units computes in 16 bits."""
    return {"fp4": rates.fp4_flops, "fp8": rates.fp8_flops, "bf16": rates.bf16_flops}[_width(format.name)]


def quantises_activations(format: Format) -> bool:
    """FP8 weights are multiplied with activations that are quantised before every matrix: kernels more a layer."""
    return _width(format.name) == "fp8"


def far_apart(devices: tuple[Device, ...]) -> bool:
    """Whether sums go over PCIe or a network."""
    link = topology_of(devices)
    return link.nodes > 1 or link.link == "PCIe"


def link_rate(devices: tuple[Device, ...]) -> float | None:
    """Bytes per second one GPU sends to the others; a network port where nodes are crossed."""
    link = topology_of(devices)
    return _NETWORK if link.nodes > 1 else link.link_bytes_per_s
