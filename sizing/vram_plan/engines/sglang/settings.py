"""What was asked of SGLang, its defaults filled in by version and GPU as its own heuristics do."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from vram_plan_data import ROOT

from ...errors import UsageError
from ...hardware.device import MIB, Device
from ...models.model import Model
from ...values import dataclass
from ..base import Work
from ..options import flag, fraction, whole
from ..vllm.settings import split

__all__ = [
    "OPTIONS", "Profile", "Settings", "attention_kind", "has_tower", "is_compressed", "profile_of", "read_settings",
    "runtime_bytes", "window_pool",
]  # fmt: skip

OPTIONS: Final[Mapping[str, str]] = {
    "gpu_memory_utilization": "SGLang's mem_fraction_static: share of the free memory for weights and pools, above 0 and up to 1 (by GPU)",
    "kv_cache_memory_bytes": "bytes of KV cache per GPU, instead of the share (an integer)",
    "max_model_len": "longest request, prompt and answer, in tokens (default: the context)",
    "max_num_seqs": "SGLang's max_running_requests (default: what the pool allows; DeepSeek-V4 256)",
    "max_num_batched_tokens": "SGLang's chunked_prefill_size (default by GPU: 2048 to 16384)",
    "block_size": "SGLang's page_size (default 1, 64 on Blackwell and for sparse attention, 256 for DeepSeek-V4)",
    "enforce_eager": "no CUDA graphs (true or false)",
    "prefix_caching": "the radix cache (true or false, default true)",
    "version": 'SGLang\'s version ("0.5.8"; default the newest described)',
    "attention_data_parallel": "SGLang's attn_dp_size (dp_size with --enable-dp-attention): groups of ranks with requests of their own (1)",
    "speculative_tokens": "tokens the model's own draft layers propose at once (0 to 64, default 0)",
}
#: A decode graph of more sequences takes half as much again where attention is data-parallel.
_MANY_SEQUENCES: Final = 300
_MAX_TOKENS: Final = 1 << 30
_DEFAULT_CHUNK, _DEFAULT_GRAPH = 4096, 160
#: Requests at once of a model with compressed attention (deepseek_v4_hook.py).
_COMPRESSED_REQUESTS: Final = 256
#: Recurrent states of a request where the next batch is not scheduled while one runs.
_FEW_SLOTS: Final = 3


@dataclass(frozen=True, eq=False, slots=True)
class Profile:
    """A row of sglang.toml, with what earlier rows say."""

    since: str
    tiers: tuple[tuple[int, int, int, int], ...]
    reserve: Mapping[str, float]
    tier_reserve: tuple[tuple[int, float, float], ...]
    floor: tuple[int, int]
    draft_mib: int
    prefill_sizes: tuple[tuple[int, int, int], ...]
    prefill_towers: tuple[str, ...]
    state_slots: int
    tower_mib: int
    windows: tuple[str, ...]
    pages: tuple[tuple[str, int, int], ...]
    mxfp4_blackwell: tuple[int, int]
    attention_groups: tuple[str, ...]
    date: str
    source: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the pools hang on beside model, format and GPUs. `fraction` is mem_fraction_static, `slots` the recurrent states
    kept for each running request."""

    profile: Profile
    fraction: float
    pool_bytes: int | None
    max_model_len: int | None
    max_requests: int | None
    chunk: int
    graph_sequences: int
    page: int
    prefix_caching: bool
    speculative: int
    element_bytes: int
    slots: int
    tp: int
    pp: int
    dp: int = 1

    @property
    def attention_tp(self) -> int:
        """Ranks that share one copy of the attention."""
        return max(self.tp // self.dp, 1)


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return tomllib.loads((ROOT / "sglang.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def profile_of(version: str | None) -> Profile:
    """The rules of a version; the newest described without one. Raises UsageError for what is no version."""
    wanted = _parts(version) if version is not None else None
    row: dict[str, Any] = {}
    for part in _table()["version"]:
        if wanted is None or _parts(part["since"]) <= wanted:
            row |= part
    pages, lists = tuple(map(tuple, row["pages"])), {name: tuple(row[name]) for name in ("mxfp4_blackwell", "attention_groups")}
    return Profile(**{**row, **lists, "pages": pages})


def _parts(version: str) -> tuple[int, ...]:
    parts = version.strip().lower().removeprefix("v").split(".")
    if not parts[0] or not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
        raise UsageError(f"version {version[:40]!r} is no version", 'write it as "0.5.23"')
    return tuple(int(part) for part in parts)


def read_settings(model: Model, work: Work, devices: tuple[Device, ...]) -> Settings:
    given = dict(work.options)
    profile = profile_of(None if given.get("version") is None else str(given["version"]))
    tp, pp = split(model, work, devices)
    dp = whole(given, "attention_data_parallel", 1, 1024) or 1
    mib = min((device.total // MIB for device in devices), default=None)
    requests = whole(given, "max_num_seqs", 1, 1 << 20) or (_COMPRESSED_REQUESTS if is_compressed(model) else None)
    caching = flag(given, "prefix_caching", True)
    speculative = whole(given, "speculative_tokens", 0, 64) or 0
    chunk, graph = _by_gpu(profile, mib, tp)
    chunk = whole(given, "max_num_batched_tokens", 1, _MAX_TOKENS) or chunk
    graph = 0 if flag(given, "enforce_eager", False) else min(graph, requests or graph)
    page = whole(given, "block_size", 1, 1 << 20) or _page(profile, model, devices)
    share = fraction(given, "gpu_memory_utilization")
    return Settings(
        profile=profile,
        fraction=share if share is not None else _fraction(profile, model, mib, chunk, graph, tp * pp, bool(speculative), dp),
        pool_bytes=whole(given, "kv_cache_memory_bytes", 0, 1 << 48),
        max_model_len=whole(given, "max_model_len", 1, _MAX_TOKENS),
        max_requests=max(requests // dp, 1) if requests else None,
        chunk=max(chunk // dp, 1),
        graph_sequences=graph,
        page=page,
        prefix_caching=caching,
        speculative=speculative,
        element_bytes=_element_bytes(work),
        slots=_slots(profile, model) if caching else 1,
        tp=tp,
        pp=pp,
        dp=dp,
    )


def _element_bytes(work: Work) -> int:
    if work.kv_k != work.kv_v:
        raise UsageError(f"SGLang keeps K and V in one type, not {work.kv_k} and {work.kv_v}", "give --kv")
    if work.kv_k not in ("bf16", "f16", "fp8"):
        raise UsageError(f"SGLang has no {work.kv_k} KV cache", "bf16, f16 (the model's own type) or fp8")
    return 1 if work.kv_k == "fp8" else 2


def _by_gpu(profile: Profile, mib: int | None, tp: int) -> tuple[int, int]:
    """Tokens of a prefill chunk and sequences of the largest decode graph."""
    if mib is None:
        return _DEFAULT_CHUNK, _DEFAULT_GRAPH
    chunk, few, many = next(tier[1:] for tier in profile.tiers if not tier[0] or mib < tier[0])
    return chunk, few if tp < 4 else many


def _fraction(profile: Profile, model: Model, mib: int | None, chunk: int, graph: int, ranks: int, drafts: bool, dp: int) -> float:
    """The default of --mem-fraction-static: what a reserve by chunk, graphs and ranks leaves of the GPU, rounded to 0.001."""
    if mib is None:
        return 0.88
    reserved = reserve_mib(profile, model, chunk, graph, ranks, dp)
    if profile.tier_reserve:
        constant, rank = next(tier[1:] for tier in profile.tier_reserve if not tier[0] or mib < tier[0])
        reserved = constant + rank * ranks
    if mib > profile.floor[0]:
        reserved = max(reserved, profile.floor[1])
    reserved += profile.draft_mib if drafts else 0
    found = round((mib - reserved) / mib, 3)
    return float(max(found * _tower_factor(model), 0.05))


def reserve_mib(profile: Profile, model: Model, chunk: int, graph: int, ranks: int, dp: int = 1) -> float:
    """MiB for activations and graphs, whatever the GPU; attention by data-parallel groups pads more (memory_hook.py)."""
    r = profile.reserve
    reserved = r["constant"] + r["token"] * max(chunk, 2048) + r["rank"] * ranks + r["sequence"] * graph
    if dp > 1 and r["sequence"]:
        reserved += graph * dp * (4.5 if graph > _MANY_SEQUENCES else 3)
    if graph and _captures_prefill(profile, model):
        latent = attention_kind(model) in ("latent", "sparse")
        reserved += r["prefill_mla"] if latent else r["prefill_size"] * _prefill_graphs(profile, chunk)
    return reserved


def _captures_prefill(profile: Profile, model: Model) -> bool:
    """Not of DeepSeek-V4, of Kimi's linear attention, nor of most models that read images (cuda_graph_hook.py)."""
    if has_tower(model):
        return any(name in profile.prefill_towers for name in _classes(model))
    kda = any(tensor.role == "ssm_f_a" for tensor in model.architecture.tensors)
    return not kda and not is_compressed(model)


def _prefill_graphs(profile: Profile, chunk: int) -> int:
    """How many prefill lengths are captured, up to the chunk."""
    return sum(size <= chunk for low, high, step in profile.prefill_sizes for size in range(low, (high or min(chunk, 1 << 20)) + 1, step))


def has_tower(model: Model) -> bool:
    """Whether the model reads images or sound as well."""
    return bool(model.parameters.vision or model.parameters.audio)


def _tower_factor(model: Model) -> float:
    """How much less a vision tower leaves: 5 %, and more or less by its size against a ViT-L."""
    config = model.config or {}
    vision = config.get("vision_config")
    if not has_tower(model) or not isinstance(vision, Mapping):
        return 1.0
    layers, width = vision.get("num_hidden_layers", 24), vision.get("hidden_size", 1024)
    if not all(isinstance(n, int) and 0 < n < 1 << 20 for n in (layers, width)):
        return 0.95
    size = float(layers * width**2) / (24 * 1024**2)
    return 0.95 * max(0.8, min(1.05, 1 - 0.1 * (size - 1)))


def _classes(model: Model) -> tuple[str, ...]:
    """Names of the model's class: the config's, else the architecture's."""
    named = (model.config or {}).get("architectures")
    found = tuple(name for name in named if isinstance(name, str)) if isinstance(named, (list, tuple)) else ()
    return found or (model.architecture.name,)


def _slots(profile: Profile, model: Model) -> int:
    several = any(name in _table()["states"]["classes"] for name in _classes(model))
    return profile.state_slots if several else min(profile.state_slots, _FEW_SLOTS)


@lru_cache(maxsize=512)
def is_compressed(model: Model) -> bool:
    """Whether layers keep one entry for several tokens, as DeepSeek-V4's do."""
    return any(layer.compress_ratio for layer in model.cache_layers)


def attention_kind(model: Model) -> str:
    """`compressed`; `sparse` with an indexer, `latent` for MLA, else `dense`."""
    if is_compressed(model):
        return "compressed"
    if not any(layer.kind == "latent" for layer in model.cache_layers):
        return "dense"
    return "sparse" if any(layer.index_dim for layer in model.cache_layers) else "latent"


def _page(profile: Profile, model: Model, devices: tuple[Device, ...]) -> int:
    found = devices[0].capability if devices else None
    kind, major = attention_kind(model), found[0] if found else 0
    return next((page for wanted, at, page in profile.pages if wanted == kind and at in (0, major)), 1)


def runtime_bytes(device: Device | None, ranks: int) -> tuple[int, str]:
    """Driver context, libraries and collectives before the weights are loaded, and why."""
    row = _table()["runtime"]
    size = int(row["context"])
    if ranks > 1:
        fast = device is not None and device.spec is not None and "NVLink" in device.spec.interconnect
        size += row["fast_link"][0 if ranks < 4 else 1 if ranks < 8 else 2] if fast else row["plain_link"]
    return size * MIB, f"driver context and libraries{', collectives of ' + str(ranks) + ' GPUs' if ranks > 1 else ''}, from start-up logs"


def window_pool(model: Model, profile: Profile) -> float | None:
    """Tokens of the sliding-window pool as a share of the full one; None where SGLang has no such pool for this class."""
    windows, classes = _table()["windows"], _classes(model)
    if is_compressed(model) or any(name in windows["small_classes"] for name in classes):
        return float(windows["small"])
    if not any(layer.window for layer in model.cache_layers):
        return None
    return float(windows["ratio"]) if any(name in profile.windows for name in classes) else None
