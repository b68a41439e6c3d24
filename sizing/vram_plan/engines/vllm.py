"""vLLM: it takes a share of the GPU, and what weights and the profile run leave of it is one pool of KV blocks.

The pool fills the share, so a plan fits when the requests asked for do: blocks of one request × sequences, and the null
block, are no more than the pool has. Source: vLLM 0.32.0, v1/core/kv_cache_utils.py; see vllm_budget and vllm_cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from ..errors import UsageError
from ..hardware.device import GIB, Device
from ..models.architecture import Basis
from ..models.model import Model
from ..results import Term
from ..units import format_gib
from .base import Allocation, Work
from .vllm_budget import (
    Profile,
    activation_bytes,
    batch_defaults,
    capability,
    context_bytes,
    graph_bytes,
    non_torch_bytes,
    profile_of,
)
from .vllm_cache import Layout, cache_layout, largest_length
from .vllm_specs import CacheSetup, checkpoint_cache
from .vllm_weights import rank_weights, refusal, stage_layers

__all__ = ["DEFAULT_KV", "OPTIONS", "allocate", "split"]

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
    "speculative_tokens": "tokens the model's own draft layers propose at once (0 to 64, default 0)",
}
DEFAULT_KV: Final = "bf16"
_MAX_TOKENS: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class _Settings:
    """The options with defaults filled in: all that the pool's size hangs on beside model, format and GPUs."""

    profile: Profile
    utilization: float
    pool_bytes: int | None
    tokens: int
    sequences: int
    block_size: int | None
    eager: bool
    prefix_caching: bool
    speculative: int
    fp8: bool
    tp: int
    pp: int


@dataclass(frozen=True, eq=False, slots=True)
class _Rank:
    """One GPU's share before the pool: its fixed terms, what is available for the cache, and bytes of one block there."""

    terms: tuple[Term, ...]
    available: int
    block_bytes: int


@dataclass(frozen=True, eq=False, slots=True)
class _Prepared:
    """All that neither context nor the number of sequences changes."""

    ranks: tuple[_Rank, ...]
    devices: tuple[tuple[Term, ...], ...]
    layout: Layout | None
    blocks: int
    figures: Mapping[str, Any]
    notes: tuple[str, ...]
    refusal: str | None


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """Weights, buffers, activation, runtime and the pool of KV blocks on each GPU; with no GPU, the blocks asked for."""
    length = max(work.option("max_model_len") or work.context, 1)
    settings = _settings(model, work, devices, length)
    prepared = _prepare(model, replace(work, context=1, sequences=1, prompt=0, output=0), settings, devices)
    layout = prepared.layout
    in_flight = settings.tokens * _batches(settings)
    per_request = layout.blocks_per_request(work.context, in_flight) if layout else 0
    at_length = layout.blocks_per_request(length, in_flight) if layout and length != work.context else per_request
    if not devices:
        return _without_gpu(prepared, settings, per_request * work.sequences, at_length)
    left = prepared.blocks - 1 - per_request * work.sequences
    refused = prepared.refusal or _refused(work, settings, prepared, length, at_length, in_flight)
    return Allocation(
        prepared.devices,
        figures={**prepared.figures, **_figures(prepared, settings, length, at_length)},
        notes=(*prepared.notes, *_waiting_note(work, prepared, per_request, left, refused)),
        refusal=refused,
        headroom=tuple(left * rank.block_bytes if rank.block_bytes else rank.available for rank in prepared.ranks)
        + tuple(device.available for device in devices[len(prepared.ranks) :]),
    )


def split(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[int, int]:
    """Tensor and pipeline parallelism: as asked, or over all GPUs, tensor parallel inside a machine as far as heads divide."""
    tp, pp = work.tensor_parallel, work.pipeline_parallel
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


# --- what was asked ---------------------------------------------------------------------------------------------------


def _settings(model: Model, work: Work, devices: tuple[Device, ...], length: int) -> _Settings:
    base = _base_settings(model, work.kv_k, work.kv_v, work.options, devices, *split_of(model, work, devices))
    if work.sequences > base.sequences and work.option("max_num_seqs") is None:
        base = replace(base, sequences=work.sequences)
    if base.profile.whole_prompts and work.option("max_num_batched_tokens") is None:
        base = replace(base, tokens=max(2048, length))
    return base


def split_of(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[int, int]:
    if work.tensor_parallel * work.pipeline_parallel > 1 or len(devices) < 2:
        return work.tensor_parallel, work.pipeline_parallel
    return _split(model, replace(work, context=1, sequences=1, prompt=0, output=0), devices)


@lru_cache(maxsize=1024)
def _split(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[int, int]:
    return split(model, work, devices)


@lru_cache(maxsize=1024)
def _base_settings(
    model: Model, kv_k: str, kv_v: str, options: tuple[tuple[str, Any], ...], devices: tuple[Device, ...], tp: int, pp: int
) -> _Settings:
    given = dict(options)
    tokens, sequences = batch_defaults(devices[0] if devices else None)
    profile = profile_of(_version(given.get("version")))
    return _Settings(
        profile=profile,
        utilization=_share(given.get("gpu_memory_utilization"), profile.gpu_memory_utilization),
        pool_bytes=_integer(given, "kv_cache_memory_bytes", 0, 1 << 48),
        tokens=_integer(given, "max_num_batched_tokens", 1, _MAX_TOKENS) or tokens,
        sequences=_integer(given, "max_num_seqs", 1, 1 << 20) or sequences,
        block_size=_integer(given, "block_size", 1, 1 << 20),
        eager=_flag(given, "enforce_eager", False),
        prefix_caching=_flag(given, "prefix_caching", True),
        speculative=_integer(given, "speculative_tokens", 0, 64) or 0,
        fp8=_cache_is_fp8(model, kv_k, kv_v),
        tp=tp,
        pp=pp,
    )  # fmt: skip


def _version(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"version is {value!r}", 'write it as text: "0.19"')


def _share(value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise UsageError(f"gpu_memory_utilization is {value!r}", "a number above 0 and up to 1 belongs there")
    return float(value)


def _integer(given: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = given.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
        raise UsageError(f"{name} is {str(value)[:40]!r}", f"a whole number from {low} to {high:,} belongs there")
    return value


def _flag(given: Mapping[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {str(value)[:40]!r}", "true or false belongs there")
    return value


def _cache_is_fp8(model: Model, kv_k: str, kv_v: str) -> bool:
    if kv_k != kv_v:
        raise UsageError(f"vLLM keeps K and V in one type, not {kv_k} and {kv_v}", "give --kv")
    if kv_k not in ("bf16", "f16", "fp8"):
        raise UsageError(f"vLLM has no {kv_k} KV cache", "bf16, f16 (the model's own type) or fp8")
    return kv_k == "fp8" or checkpoint_cache(model) == "fp8"


def _batches(settings: _Settings) -> int:
    """Batches scheduled before the first is settled: the pipeline's stages, and one more with asynchronous scheduling."""
    return settings.pp + settings.profile.batches_in_flight - 1


# --- the ranks and the pool -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _prepare(model: Model, work: Work, s: _Settings, devices: tuple[Device, ...]) -> _Prepared:
    work = replace(work, options=tuple(sorted({**dict(work.options), "max_num_batched_tokens": s.tokens}.items())))
    problem = refusal(model, work, s.tp, s.pp) or _too_few(s, devices) or _unknown_cache(model, s)
    if problem and devices and len(devices) < s.tp * s.pp:
        return _Prepared((), tuple(() for _ in devices), None, 0, {}, (), problem)
    first = devices[0] if devices else None
    setup = CacheSetup(s.fp8, s.tp, s.block_size, s.prefix_caching, s.speculative, capability(first))
    layout = cache_layout(model, setup)
    stages = stage_layers(model.architecture.layers, s.pp)
    ranks = tuple(
        _rank(model, work, s, devices[stage * s.tp + i] if devices else None, layout, stages, stage, i)
        for stage in range(s.pp)
        for i in range(s.tp)
    )
    blocks = min((rank.available // rank.block_bytes for rank in ranks if rank.block_bytes), default=0)
    pooled = tuple((*rank.terms, _pool_term(blocks, rank, layout)) for rank in ranks) if layout else tuple(rank.terms for rank in ranks)
    idle = tuple(() for _ in devices[len(ranks) :])
    notes = [f"{len(idle)} of the GPUs stay idle: tensor × pipeline parallelism is {s.tp * s.pp}"] if idle else []
    if len(devices) > 1 and not idle and s.tp * s.pp != work.tensor_parallel * work.pipeline_parallel:
        notes.append(f"over all GPUs: --tensor-parallel-size {s.tp} --pipeline-parallel-size {s.pp}")
    if s.fp8 and work.kv_k != "fp8":
        notes.append("the checkpoint asks for an fp8 KV cache, and vLLM obeys")
    problem = problem or _no_room(s, ranks, devices)
    return _Prepared(ranks, (*pooled, *idle), layout, blocks, _fixed_figures(ranks, s, layout), tuple(notes), problem)


def _rank(
    model: Model, work: Work, s: _Settings, device: Device | None, layout: Layout | None, stages: tuple[int, ...], stage: int, index: int
) -> _Rank:
    """The terms of one GPU but the pool, and what is left for it."""
    first, last = sum(stages[:stage]), stage == s.pp - 1
    weights = rank_weights(model, work, s.tp, s.pp, index, stage)
    marlin = not (work.format.name.startswith("MXFP4") and capability(device) == 9)
    activation, why = activation_bytes(
        model, s.profile, device, tokens=s.tokens, sequences=s.sequences, tp=s.tp, samples=last, marlin=marlin
    )
    non_torch = non_torch_bytes(model, s.profile, device, s.tp)
    graphs = graph_bytes(model, device, sequences=s.sequences, layers=stages[stage], tokens=s.tokens, eager=s.eager)
    basis: Basis = "fallback" if model.basis == "fallback" else "formula"
    terms = (
        Term("weights", weights.parameter_bytes, model.basis if s.tp * s.pp == 1 else basis, weights.why, "weights"),
        Term("buffers", weights.buffer_bytes, basis, weights.buffer_why or "rope tables", "weights"),
        Term("activation", activation, basis, why, "compute"),
        Term("non_torch", non_torch, "measured", f"driver, libraries{' and all-reduce' if s.tp > 1 else ''} in vLLM's own logs", "runtime"),
        Term("cuda_graphs", graphs, "measured", "graphs captured for decoding, scaled from logs by layers and sizes", "runtime"),
        Term("context", context_bytes(device, s.tp * s.pp), "measured", "held before vLLM measures: outside its share", "runtime"),
    )
    fixed = weights.parameter_bytes + weights.buffer_bytes + activation + non_torch + (graphs if s.profile.graphs_in_budget else 0)
    asked = int(device.usable * s.utilization) if device else 0
    layers = range(first, first + stages[stage]) if s.pp > 1 else None
    block = (layout.stage_bytes(layers) if layers else layout.bytes_per_block) if layout else 0
    return _Rank(tuple(t for t in terms if t.bytes), s.pool_bytes if s.pool_bytes is not None else asked - fixed, block)


def _pool_term(blocks: int, rank: _Rank, layout: Layout | None) -> Term:
    size = max(blocks, 0) * rank.block_bytes
    tokens = layout.block_size if layout else 0
    return Term("kv_cache", size, "formula", f"the pool: {max(blocks, 0):,} blocks × {rank.block_bytes:,} B ({tokens} tokens)", "kv_cache")


def _fixed_figures(ranks: tuple[_Rank, ...], s: _Settings, layout: Layout | None) -> dict[str, Any]:
    by_name = {term.name: term.bytes for term in min(ranks, key=lambda rank: rank.available).terms}
    return {
        "gpu_memory_utilization": s.utilization,
        "block_size": layout.block_size if layout else None,
        "bytes_per_block": layout.bytes_per_block if layout else None,
        "max_num_seqs": s.sequences,
        "max_num_batched_tokens": s.tokens,
        "tensor_parallel": s.tp,
        "pipeline_parallel": s.pp,
        "activation": by_name.get("activation", 0),
        "non_torch": by_name.get("non_torch", 0),
        "cuda_graphs": by_name.get("cuda_graphs", 0),
        "version": s.profile.name,
    }


def _figures(prepared: _Prepared, s: _Settings, length: int, at_length: int) -> dict[str, Any]:
    """The figures of the start-up log."""
    blocks, layout = max(prepared.blocks, 0), prepared.layout
    concurrency = blocks / at_length if at_length else None
    if layout is None or concurrency is None:
        tokens = None
    elif s.profile.tokens_by_requests:
        tokens = int(concurrency * length)
    else:
        tokens = blocks // len(layout.groups) * layout.block_size
    return {
        "available_kv": min((rank.available for rank in prepared.ranks), default=None),
        "num_blocks": blocks,
        "kv_tokens": tokens,
        "blocks_per_request": at_length,
        "max_concurrency": concurrency,
        "max_model_len": length,
    }


def _without_gpu(prepared: _Prepared, s: _Settings, blocks: int, at_length: int) -> Allocation:
    """What the requests need, and the null block; no pool, for there is no GPU to fill."""

    def cache(rank: _Rank) -> tuple[Term, ...]:
        why = f"{blocks:,} blocks × {rank.block_bytes:,} B, and the null block"
        return (Term("kv_cache", (blocks + 1) * rank.block_bytes, "formula", why, "kv_cache"),) if rank.block_bytes else ()

    terms = tuple((*rank.terms, *cache(rank)) for rank in prepared.ranks)
    figures = {**prepared.figures, "blocks_per_request": at_length, "available_kv": None, "num_blocks": None}
    return Allocation(terms, figures=figures, notes=prepared.notes, refusal=prepared.refusal)


# --- refusals ---------------------------------------------------------------------------------------------------------


def _too_few(s: _Settings, devices: tuple[Device, ...]) -> str | None:
    if devices and len(devices) < s.tp * s.pp:
        return f"tensor parallelism {s.tp} × pipeline parallelism {s.pp} needs {s.tp * s.pp} GPUs; there are {len(devices)}"
    return None


def _unknown_cache(model: Model, s: _Settings) -> str | None:
    if s.fp8 and model.architecture.family == "bloom":
        return "vLLM's attention with ALiBi keeps no fp8 KV cache: leave --kv out"
    return None


def _no_room(s: _Settings, ranks: tuple[_Rank, ...], devices: tuple[Device, ...]) -> str | None:
    """vLLM's own checks before any request: enough memory free now, and something left for blocks."""
    for device, rank in zip(devices, ranks, strict=False):
        context = sum(term.bytes for term in rank.terms if term.name == "context")
        free, asked = device.available - context, int(device.usable * s.utilization)
        if s.pool_bytes is None and free < asked:
            return (
                f"vLLM asks for {s.utilization:.0%} of {device.name} ({format_gib(asked)}) but {format_gib(max(free, 0))} are free: "
                f"lower gpu_memory_utilization to {max(free / device.usable, 0) * 100 // 1 / 100:.2f}"
            )
        used = sum(term.bytes for term in rank.terms)
        if s.pool_bytes is not None and used + s.pool_bytes > device.available:
            return f"{format_gib(s.pool_bytes)} of KV cache and {format_gib(used)} of the rest are more than {device.name} has free"
        if rank.available <= 0:
            taken = format_gib(asked - rank.available)
            return f"no memory is left for the KV cache: weights and activation take {taken} of {format_gib(asked)}"
    return None


def _refused(work: Work, s: _Settings, prepared: _Prepared, length: int, at_length: int, in_flight: int) -> str | None:
    if length < work.context:
        return f"max_model_len is {length:,}, below the {work.context:,} tokens of context asked for"
    if work.sequences > s.sequences:
        return f"max_num_seqs is {s.sequences:,}: {work.sequences:,} sequences would never run at once"
    layout, usable = prepared.layout, prepared.blocks - 1
    if layout is None or at_length <= usable:
        return None
    longest = largest_length(lambda n: layout.blocks_per_request(n, in_flight), length, usable)
    smallest = min(prepared.ranks, key=lambda rank: rank.available // max(rank.block_bytes, 1))
    need, have = at_length * smallest.block_bytes, smallest.available - smallest.block_bytes
    return (
        f"To serve at least one request with the model's max seq len ({length}), {need / GIB:.2f} GiB KV cache is needed, "
        f"which is larger than the available KV cache memory ({have / GIB:.2f} GiB). "
        + (f"The largest --max-model-len is {longest}." if longest else "Not even one token fits.")
    )


def _waiting_note(work: Work, prepared: _Prepared, per_request: int, left: int, refused: str | None) -> tuple[str, ...]:
    if refused or left >= 0 or not per_request:
        return ()
    held = (prepared.blocks - 1) // per_request
    return (f"vLLM starts, but holds {held:,} of the {work.sequences:,} requests of {work.context:,} tokens at once; the others wait",)
