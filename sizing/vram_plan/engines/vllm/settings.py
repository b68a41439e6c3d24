"""What was asked of vLLM, options parsed and defaults filled in by version and GPU, and how it is split over GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...errors import UsageError
from ...hardware.device import Device
from ...models.model import Model
from ...values import dataclass
from ..base import Work
from ..options import flag, fraction, whole
from .specs import checkpoint_cache
from .versions import Profile, batch_defaults, profile_of
from .weights import refusal

__all__ = ["OPTIONS", "Settings", "copies", "read_settings", "split"]

OPTIONS: Final[Mapping[str, str]] = {
    "gpu_memory_utilization": "share of the GPU's memory to take, above 0 and up to 1 (default 0.92, 0.9 before 0.21)",
    "kv_cache_memory_bytes": "bytes of KV cache per GPU, instead of the share (an integer)",
    "max_model_len": "longest request, prompt and answer, in tokens (default: the context)",
    "max_num_seqs": "sequences at once (default by GPU: 1024 from 70 GiB on, else 256)",
    "max_num_batched_tokens": "tokens of one batch (default by GPU: 16384, 8192 or 2048)",
    "block_size": "tokens of a KV block (default by attention back end, mostly 16)",
    "enforce_eager": "no CUDA graphs (true or false)",
    "prefix_caching": "keep blocks of finished requests for reuse (true or false, default true)",
    "version": 'vLLM\'s version ("0.19"; default the newest described)',
    "data_parallel": "copies of all but the routed experts, each with its own requests and pool; experts are cut over all GPUs (default 1)",
    "moe_backend": 'kernels of MXFP4 experts: "auto" (on Hopper Triton\'s) or "marlin" (Hopper without triton_kernels, as 0.11 from pip)',
    "speculative_tokens": "tokens the model's own draft layers propose at once (0 to 64, default 0)",
}
_MAX_TOKENS: Final = 1 << 30
_MOE_BACKENDS: Final = ("auto", "marlin")


@dataclass(frozen=True, slots=True)
class Settings:
    """The options with defaults filled in: all that the pool's size hangs on beside model, format and GPUs."""

    profile: Profile
    utilization: float
    pool_bytes: int | None
    max_model_len: int | None
    tokens: int
    sequences: int
    block_size: int | None
    eager: bool
    prefix_caching: bool
    speculative: int
    fp8: bool
    tp: int
    pp: int
    dp: int

    @property
    def gpus(self) -> int:
        """GPUs of all copies."""
        return self.tp * self.pp * self.dp


def read_settings(model: Model, work: Work, devices: tuple[Device, ...]) -> Settings:
    given = dict(work.options)
    version = _version(given.get("version"))
    profile = profile_of(version)
    tokens, sequences = batch_defaults(devices[0] if devices else None, version)
    tokens = whole(given, "max_num_batched_tokens", 1, _MAX_TOKENS) or tokens
    tp, pp = split(model, work, devices)
    if given.get("moe_backend") not in (None, *_MOE_BACKENDS):
        raise UsageError(f"moe_backend is {str(given['moe_backend'])[:40]!r}", f"one of {', '.join(_MOE_BACKENDS)} belongs there")
    return Settings(
        profile=profile,
        utilization=fraction(given, "gpu_memory_utilization") or profile.gpu_memory_utilization,
        pool_bytes=whole(given, "kv_cache_memory_bytes", 0, 1 << 48),
        max_model_len=whole(given, "max_model_len", 1, _MAX_TOKENS),
        tokens=tokens,
        sequences=whole(given, "max_num_seqs", 1, 1 << 20) or min(sequences, tokens),
        block_size=whole(given, "block_size", 1, 1 << 20),
        eager=flag(given, "enforce_eager", False),
        prefix_caching=flag(given, "prefix_caching", True),
        speculative=whole(given, "speculative_tokens", 0, 64) or 0,
        fp8=_cache_is_fp8(model, work.kv_k, work.kv_v),
        tp=tp,
        pp=pp,
        dp=copies(work),
    )


def _version(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"version is {value!r}", 'write it as text: "0.19"')


def _cache_is_fp8(model: Model, kv_k: str, kv_v: str) -> bool:
    if kv_k != kv_v:
        raise UsageError(f"vLLM keeps K and V in one type, not {kv_k} and {kv_v}", "give --kv")
    if kv_k not in ("bf16", "f16", "fp8"):
        raise UsageError(f"vLLM has no {kv_k} KV cache", "bf16, f16 (the model's own type) or fp8")
    return kv_k == "fp8" or checkpoint_cache(model) == "fp8"


def copies(work: Work) -> int:
    """Data parallelism: how many copies of the attention run side by side."""
    return whole(dict(work.options), "data_parallel", 1, 1024) or 1


def split(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[int, int]:
    """Tensor and pipeline parallelism of a copy: as asked, or over all its GPUs, tensor parallel inside a machine as far as vLLM allows."""
    tp, pp = work.tensor_parallel, work.pipeline_parallel
    devices = devices[: len(devices) // copies(work)]
    if tp * pp > 1 or len(devices) < 2:
        return tp, pp
    machines: dict[int, int] = {}
    for device in devices:
        machines[device.node] = machines.get(device.node, 0) + 1
    inside = min(machines.values())
    for size in range(inside, 1, -1):
        if inside % size == 0 and refusal(model, work, size, len(devices) // size) is None:
            return size, len(devices) // size
    return 1, len(devices)
