"""What of a GPU's catalogue row the speed model uses, and which fitted class it belongs to."""

from __future__ import annotations

from typing import Final

from ..hardware.device import Device, GpuSpec
from ..values import dataclass
from .constants import architecture_key

__all__ = ["Rates", "backend_of", "rates_of"]

_BACKENDS: Final = {"NVIDIA": "cuda", "Apple": "metal", "AMD": "rocm", "Intel": "vulkan", "CPU": "cpu"}
#: fp32 operations of one multiprocessor in one clock: 64 lanes × 2 up to GA100 (Pascal P100, Volta, Turing, A100), then 128 × 2
#: (NVIDIA's architecture whitepapers).
_OPS_64_LANES: Final = 128
_OPS_128_LANES: Final = 256
_64_LANES: Final = ("6.0", "7.0", "7.5", "8.0")
#: Multiply-adds are counted in units of 1,024 a clock, so that the rate is of the size of a tensor rate.
_OPS_UNIT: Final = 1024
#: Of so many cores a processor's fixed time a layer is told.
_CORES: Final = 16
#: Capabilities whose int8 rate is dp4a's on the ordinary lanes, slower than their own 16-bit route.
_NO_INT8_TENSORS: Final = ("6.0", "7.0")


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes and operations per second of one GPU. `tensor_flops` is the matrix rate of 16-bit or int8 prefill,
    `issue_flops` multiprocessors × clock (in 1,024 operations), which quantised kernels follow; of a processor its fp32 rate.
    `dies` is 2 of a chip of two, and of a processor whose memory is a GPU's too: more than its cores alone can draw on.
    `layer_scale` is a processor's cores by sixteens: after each operation all of them wait for each other."""

    bandwidth: float
    fp32_flops: float
    tensor_flops: float
    issue_flops: float
    bf16_flops: float
    fp8_flops: float
    fp4_flops: float
    architecture: str
    dies: int = 1
    layer_scale: float = 1.0


def backend_of(vendor: str) -> str:
    """The backend llama.cpp is usually built with for a maker's GPUs."""
    return _BACKENDS.get(vendor, "vulkan")


def rates_of(device: Device, backend: str) -> Rates | None:
    """The rates of a device; None where its bandwidth or its arithmetic is not known, or the backend is not its own."""
    spec = device.spec
    if (backend == "cpu") != (device.vendor == "CPU"):
        return None
    if spec is None:
        return None
    return _rates(spec, backend)


def _rates(spec: GpuSpec, backend: str) -> Rates | None:
    fp32, bf16 = spec.fp32_flops, spec.bf16_flops or spec.fp16_flops
    if not spec.bandwidth_bytes_per_s or not (fp32 or bf16):
        return None
    fp32 = fp32 or (bf16 or 0.0) / 8
    bf16 = bf16 or fp32
    lanes = _OPS_64_LANES if spec.vendor != "NVIDIA" or spec.compute_capability in _64_LANES else _OPS_128_LANES
    fp8 = spec.fp8_flops or bf16
    return Rates(
        bandwidth=spec.bandwidth_bytes_per_s,
        fp32_flops=fp32,
        tensor_flops=_tensor_flops(spec, backend, fp32),
        issue_flops=fp32 if spec.cores else fp32 / lanes * _OPS_UNIT,
        bf16_flops=bf16,
        fp8_flops=fp8,
        fp4_flops=spec.fp4_flops or bf16,
        architecture=architecture_key(spec.vendor, spec.name, spec.compute_capability),
        dies=2 if (spec.vendor == "Apple" and "Ultra" in spec.name) or (spec.cores and spec.unified) else 1,
        layer_scale=spec.cores / _CORES if spec.cores else 1.0,
    )


def _tensor_flops(spec: GpuSpec, backend: str, fp32: float) -> float:
    """Of NVIDIA half the int8 rate: on GeForce cards that is the 16-bit rate with 16-bit sums, which llama.cpp's kernels reach.
    Of Intel the lanes' packed 16-bit rate: llama.cpp's Vulkan kernels leave most of its matrix units idle ("matrix cores: none").
    On a processor the int8 rate, which quantised weights are multiplied at."""
    if backend == "cpu":
        return spec.int8_ops or fp32
    half = spec.fp16_flops or spec.bf16_flops or fp32
    if spec.vendor == "Intel":
        return min(half, 2 * fp32)
    if spec.vendor == "NVIDIA" and spec.int8_ops and spec.compute_capability not in _NO_INT8_TENSORS:
        return max(half, spec.int8_ops / 2)
    return half
