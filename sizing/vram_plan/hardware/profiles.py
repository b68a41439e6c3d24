"""What was measured on a device: a calibration's points, the constants fitted to them, and how well they predict.

A profile is a value; `profile_store` keeps one a device. Its JSON (schema "vram-plan-profile/1") holds every raw point, so that
a later version can fit again without measuring. Sizes are bytes, times seconds, rates SI. None: not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final, Literal

from ..values import Dumped, dataclass

__all__ = [
    "SCHEMA", "EngineScale", "Figure", "Fitted", "HeldOut", "Kind", "Mode", "Point", "Profile", "ProfiledDevice", "Quantity", "Software",
    "What",
]  # fmt: skip

SCHEMA: Final = "vram-plan-profile/1"
Kind = Literal["cuda", "rocm", "mps", "cpu"]
#: How a step's kernels are launched: replayed as one graph, or one by one from Python.
Mode = Literal["graph", "eager"]
What = Literal["copy", "read", "matmul", "prefill", "decode", "memory"]
#: What a held-out figure is of: bytes held, seconds of one decode step, seconds of one prompt.
Quantity = Literal["memory", "decode", "prefill"]


@dataclass(frozen=True, slots=True)
class ProfiledDevice:
    """The device that was measured. `uuid` is None for a CPU, and in a file that came from another machine."""

    kind: Kind
    name: str
    total_bytes: int
    uuid: str | None = None
    driver: str | None = None
    power_limit_w: float | None = None
    memory_clock_mhz: float | None = None
    bus_width_bits: int | None = None


@dataclass(frozen=True, slots=True)
class Software:
    """What ran the kernels. `cuda` is the version of CUDA or HIP torch was built with, `threads` those of a CPU's kernels."""

    torch: str
    python: str
    os: str
    cuda: str | None = None
    threads: int | None = None
    allocator: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing measured: the median of `n` times with their 10th and 90th percentile.

    `shape` names the model (or the buffer); `tokens` are new ones of each of `batch` sequences after `depth` others. `bytes` are the
    weights or the buffer read, `kv_bytes` the cache read, `flops` the arithmetic of the matrices, `attention_flops` of attention;
    `expert_bytes` of a prompt are the routed experts its tokens choose.
    A `memory` point has no times: `bytes` is what was held, `expected_bytes` what the plan says, and `part` of what (weights,
    kv_cache, buffers, activations, allocator, runtime, total). Of a step or a prompt `part` says what it is for: "fit", "held-out",
    or "model" (the one that was asked for).
    """

    what: What
    shape: str
    dtype: str
    mode: Mode | None = None
    tokens: int = 0
    depth: int = 0
    batch: int = 1
    layers: int = 0
    bytes: int = 0
    kv_bytes: int = 0
    flops: float = 0.0
    attention_flops: float = 0.0
    median_s: float = 0.0
    p10_s: float = 0.0
    p90_s: float = 0.0
    n: int = 0
    part: str = ""
    expected_bytes: int | None = None
    expert_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A fitted or measured constant and its standard deviation."""

    value: float
    sd: float = 0.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """The constants, for `decode_s` and `prefill_s`, which measuring and planning share.

    `weight_bytes_per_s` is by the weights' format: "bf16", "f16", "f32", "int8", "int4". `copy_bytes_per_s` counts bytes read and bytes
    written, `read_bytes_per_s` a buffer too large for caches. `prefill_flops` is of the layers' matrices at prompt shapes,
    `attention_flops` of attention. `runtime_bytes`: the device's bytes beyond torch's own (context, libraries, kernels);
    `allocator_bytes`: reserved by torch beyond what its tensors took at their peak.
    """

    copy_bytes_per_s: Figure | None = None
    read_bytes_per_s: Figure | None = None
    weight_bytes_per_s: Mapping[str, Figure] = field(default_factory=dict)
    kv_bytes_per_s: Figure | None = None
    graph_layer_s: Figure | None = None
    eager_layer_s: Figure | None = None
    graph_token_s: Figure | None = None
    eager_token_s: Figure | None = None
    moe_layer_s: Figure | None = None
    matmul_flops: Figure | None = None
    prefill_flops: Figure | None = None
    attention_flops: Figure | None = None
    runtime_bytes: Figure | None = None
    allocator_bytes: Figure | None = None

    def decode_parts(
        self, mode: Mode, dtype: str, weight_bytes: float, kv_bytes: float, layers: int, moe_layers: int = 0
    ) -> tuple[float, float, float] | None:
        """Seconds of one step that reads these bytes: weights, cache (at the weights' rate where its own was not told apart), the rest.

        Where graphs were measured too, a step launched from Python takes the longer of what the device and what the launches need;
        elsewhere their sum. None: not measured.
        """
        rate, fixed = self.weight_bytes_per_s.get(dtype), self.fixed_s(mode, layers, moe_layers)
        if rate is None or fixed is None:
            return None
        weights, kv = weight_bytes / rate.value, kv_bytes / (self.kv_bytes_per_s or rate).value
        if mode == "eager" and (device := self.fixed_s("graph", layers, moe_layers)) is not None:
            fixed = max(fixed - weights - kv, device)
        return weights, kv, fixed

    def fixed_s(self, mode: Mode, layers: int, moe_layers: int = 0) -> float | None:
        """Seconds of a step beside its reads. None: not measured."""
        layer, token = (self.graph_layer_s, self.graph_token_s) if mode == "graph" else (self.eager_layer_s, self.eager_token_s)
        if layer is None and token is None:
            return None
        return sum(count * each.value for count, each in ((layers, layer), (moe_layers, self.moe_layer_s), (1, token)) if each)

    def decode_s(self, mode: Mode, dtype: str, weight_bytes: float, kv_bytes: float, layers: int, moe_layers: int = 0) -> float | None:
        """Seconds of one step: the sum of `decode_parts`."""
        parts = self.decode_parts(mode, dtype, weight_bytes, kv_bytes, layers, moe_layers)
        return None if parts is None else sum(parts)

    def prefill_s(self, matrix_flops: float, attention_flops: float, expert_bytes: float = 0.0, dtype: str = "") -> float | None:
        """Seconds of a prompt of some hundred tokens or more: matrices and attention, each at its rate, and reading the routed experts
        its tokens choose: each has few rows to compute, so its weights take time of their own. None: not measured."""
        if self.prefill_flops is None:
            return None
        attention, rate = self.attention_flops or self.prefill_flops, self.weight_bytes_per_s.get(dtype)
        read = expert_bytes / rate.value if rate else 0.0
        return matrix_flops / self.prefill_flops.value + attention_flops / attention.value + read



@dataclass(frozen=True, slots=True)
class HeldOut:
    """A configuration that was no part of the fit: predicted first, then measured. `error` is predicted ÷ measured − 1.

    Bytes for memory, seconds for decode and prefill.
    """

    what: str
    quantity: Quantity
    predicted: float
    measured: float
    error: float
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class EngineScale:
    """What a real engine did on this device ÷ what its plan said, from `samples` runs that `verify` measured.

    The rates are measured ÷ predicted tokens per second, as predicted with the catalogue's constants: by a plan on the device
    with `profile=None`. `runtime_bytes`: its own context, libraries and graphs on the device.
    """

    decode_scale: float | None = None
    prefill_scale: float | None = None
    runtime_bytes: int | None = None
    samples: int = 1
    version: str | None = None
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(Dumped):
    """A device's calibration. `date` is the day it was measured (ISO 8601), `vram_plan` the version that did.

    `software` is None and `points` are none where only an engine was measured (`verify --save`).
    """

    _STRICT = True

    schema: Literal["vram-plan-profile/1"] = SCHEMA
    date: str
    vram_plan: str
    device: ProfiledDevice
    software: Software | None = None
    dtype: str = "bf16"
    model: str | None = None
    points: tuple[Point, ...] = ()
    fitted: Fitted = Fitted()
    held_out: tuple[HeldOut, ...] = ()
    engines: Mapping[str, EngineScale] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    wall_s: float = 0.0

    def __hash__(self) -> int:
        """By what tells profiles apart: the mappings inside have no hash."""
        return hash((self.device, self.date, self.dtype, self.wall_s))

    def worst_error(self, quantity: Quantity, mode: Mode | None = None) -> float | None:
        """The largest held-out error of a quantity, without its sign; of `mode` where one is named. None: nothing was held out."""
        errors = [abs(row.error) for row in self.held_out if row.quantity == quantity and mode in (None, row.mode)]
        return max(errors, default=None)
