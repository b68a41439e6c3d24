"""vLLM: it takes a share of the GPU, and what weights and the profile run leave of it is one pool of KV blocks.

The pool fills the share, so a plan fits when the requests asked for do: blocks of one request × sequences, and the null
block, are no more than the pool has. Source: vLLM 0.32.0, v1/core/kv_cache_utils.py; see `budget` and `cache`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any, Final

from ...errors import UsageError
from ...hardware.device import GIB, Device
from ...models.architecture import Basis
from ...models.model import Model
from ...results import Term
from ...units import format_gib
from ...values import Same, dataclass
from ..base import Allocation, Work
from ..measured import measured_runtime
from .budget import (
    activation_bytes,
    capability,
    context_bytes,
    graph_bytes,
    linked,
    non_torch_bytes,
)
from .cache import Layout, cache_layout, largest_length
from .settings import OPTIONS, Settings, read_settings, split
from .specs import CacheSetup
from .weights import RankWeights, rank_weights, refusal, stage_layers

__all__ = ["DEFAULT_KV", "OFFLOADS", "OPTIONS", "SPANS_MACHINES", "allocate", "split"]

DEFAULT_KV: Final = "bf16"
#: What is planned in host memory: nothing (--cpu-offload-gb is not described).
OFFLOADS: Final[tuple[str, ...]] = ()
#: Its GPUs may be of several machines.
SPANS_MACHINES: Final = True
#: Families whose layers vLLM caches by rules of their own that are not described here: counted as ordinary layers.
_UNDESCRIBED: Final = frozenset({"dots3_note", "glm5_next", "inkling", "inkling2", "inkling_mm_model", "qwen4_exp"})
#: Volta (docs/getting_started/installation/gpu.md).
_LEAST_CAPABILITY: Final = 7


@dataclass(frozen=True, eq=False, slots=True)
class _Rank:
    """One GPU's share before the pool: its fixed terms, what is available for the cache, and bytes of one block there."""

    terms: tuple[Term, ...]
    available: int
    block_bytes: int


@dataclass(frozen=True, eq=False, slots=True)
class _Prepared:
    """All that neither context nor the number of sequences changes. `rooms`: each GPU's bytes of a block, and what a pool would have."""

    settings: Settings
    in_flight: int
    ranks: tuple[_Rank, ...]
    rooms: tuple[tuple[int, int], ...]
    devices: tuple[tuple[Term, ...], ...]
    layout: Layout | None
    blocks: int
    figures: Mapping[str, Any]
    notes: tuple[str, ...]
    refusal: str | None


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """Weights, buffers, activation, runtime and the pool of KV blocks on each GPU; with no GPU, the blocks asked for."""
    prepared = _prepared_for(model, work, devices)
    settings, layout = prepared.settings, prepared.layout
    length = settings.max_model_len or work.context
    per_request = layout.blocks_per_request(work.context, prepared.in_flight) if layout else 0
    at_length = layout.blocks_per_request(length, prepared.in_flight) if layout and length != work.context else per_request
    needed = per_request * -(-work.sequences // settings.dp)
    if not devices:
        return _without_gpu(prepared, needed, at_length)
    left = prepared.blocks - 1 - needed
    refused = prepared.refusal or _refused(work, prepared, length, at_length)
    return Allocation(
        prepared.devices,
        figures={**prepared.figures, **_figures(prepared, length, at_length)},
        notes=(*(() if refused else _waiting_note(work, prepared, per_request, left)), *prepared.notes),
        refusal=refused,
        headroom=tuple([left * size if layout else room for size, room in prepared.rooms]),
    )


# --- what was asked ---------------------------------------------------------------------------------------------------


def _prepared_for(model: Model, work: Work, devices: tuple[Device, ...]) -> _Prepared:
    """What was prepared for this work, with the defaults that hang on it.

    More sequences than the default raise it, up to a batch's tokens; a batch is no longer than all sequences together,
    and in versions that prefill a prompt at once no shorter than one. Source: engine/arg_utils.py.
    """
    for name, value in work.options:
        if value is not None and not isinstance(value, (str, int, float)):
            raise UsageError(f"{name} is {str(value)[:40]!r}", "a number, a word or true or false belongs there")
    key = (
        model, Same(work.format), work.kv_k, work.kv_v, work.tensor_parallel, work.pipeline_parallel, work.expert_parallel,
        work.options, Same(devices),
    )  # fmt: skip
    prepared = _lookup(*key)
    s = prepared.settings
    sequences, tokens, length = s.sequences, s.tokens, s.max_model_len or work.context
    share = -(-work.sequences // s.dp)
    if share > sequences and work.option("max_num_seqs") is None:
        sequences = max(sequences, min(share, tokens))
    if work.option("max_num_batched_tokens") is None:
        tokens = min(max(2048, length) if s.profile.whole_prompts else tokens, sequences * length)
    return prepared if (sequences, tokens) == (s.sequences, s.tokens) else _lookup(*key, sequences, tokens)


@lru_cache(maxsize=4096)
def _lookup(
    model: Model, format: Same, kv_k: str, kv_v: str, tp: int, pp: int, ep: bool, options: tuple[tuple[str, Any], ...], devices: Same,
    sequences: int | None = None, tokens: int | None = None,
) -> _Prepared:  # fmt: skip
    work = Work("vllm", format.value, kv_k, kv_v, 1, tensor_parallel=tp, pipeline_parallel=pp, expert_parallel=ep, options=options)
    return _prepare(model, work, devices.value, sequences, tokens)


# --- the ranks and the pool -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _prepare(model: Model, work: Work, devices: tuple[Device, ...], sequences: int | None, tokens: int | None) -> _Prepared:
    s = read_settings(model, work, devices)
    s = replace(s, sequences=sequences or s.sequences, tokens=tokens or s.tokens)
    # batches scheduled before the first is settled: the pipeline's stages, and one more with asynchronous scheduling
    in_flight = s.tokens * (s.pp + s.profile.batches_in_flight - 1)
    if devices and len(devices) < s.gpus:
        more = f" × data parallelism {s.dp}" if s.dp > 1 else ""
        problem = f"tensor parallelism {s.tp} × pipeline parallelism {s.pp}{more} needs {s.gpus} GPUs; there are {len(devices)}"
        rooms = tuple((0, -1) for _ in devices)
        return _Prepared(s, in_flight, (), rooms, tuple(() for _ in devices), None, 0, {}, (), problem)
    setup = CacheSetup(s.fp8, s.tp, s.block_size, s.prefix_caching, s.speculative, capability(devices[0] if devices else None), s.tokens)
    layout = cache_layout(model, setup)
    ranks = _ranks(model, work, s, devices, layout)
    blocks = min((rank.available // rank.block_bytes for rank in ranks if rank.block_bytes), default=0)
    idle = devices[len(ranks) :]
    basis: Basis = "fallback" if model.basis == "fallback" or model.architecture.family in _UNDESCRIBED else "formula"
    terms = (*((*rank.terms, *_pool_term(blocks, rank, layout, basis)) for rank in ranks), *(() for _ in idle))
    rooms = (*((rank.block_bytes, rank.available) for rank in ranks), *((0, device.available) for device in idle))
    return _Prepared(
        settings=s,
        in_flight=in_flight,
        ranks=ranks,
        rooms=rooms,
        devices=terms,
        layout=layout,
        blocks=blocks,
        figures=_fixed_figures(ranks, s, layout),
        notes=_notes(model, work, s, devices),
        refusal=_illegal(model, work, s.tp, s.pp) or _not_served(model, s, devices) or _no_room(s, ranks, devices),
    )


def _ranks(model: Model, work: Work, s: Settings, devices: tuple[Device, ...], layout: Layout | None) -> tuple[_Rank, ...]:
    """Every GPU's share, stage by stage; between the first and the last tensor-parallel rank all weigh the same."""
    # only newer versions keep buffers for a whole batch
    tokens = 2048 if s.profile.whole_prompts else s.tokens
    work = replace(work, options=tuple(sorted({**dict(work.options), "max_num_batched_tokens": tokens}.items())))
    stages = stage_layers(model.architecture.layers, s.pp)
    found = []
    for copy, stage, i in product(range(s.dp if devices else 1), range(s.pp), range(s.tp)):
        device = devices[(copy * s.pp + stage) * s.tp + i] if devices else None
        rank = copy * s.tp + (s.tp - 1 if i == s.tp - 1 else 0)
        weights = _weights(model, work, s.tp, s.pp, rank, stage, capability(device))
        found.append(_rank(model, work, s, device, layout, stages, stage, weights))
    return tuple(found)


@lru_cache(maxsize=1024)
def _weights(model: Model, work: Work, tp: int, pp: int, rank: int, stage: int, major: int) -> RankWeights:
    return rank_weights(model, work, tp, pp, rank, stage, capability=(major, 0))


@lru_cache(maxsize=1024)
def _illegal(model: Model, work: Work, tp: int, pp: int) -> str | None:
    return refusal(model, work, tp, pp)


def _notes(model: Model, work: Work, s: Settings, devices: tuple[Device, ...]) -> tuple[str, ...]:
    notes = []
    if len(devices) > s.gpus:
        notes.append(f"{len(devices) - s.gpus} of the GPUs stay idle: tensor × pipeline {'× data ' * (s.dp > 1)}parallelism is {s.gpus}")
    if s.dp > 1 and devices:
        notes.append(f"{s.dp} copies: each has its own pool and takes a share of the sequences; the log's figures are of one")
    if s.tp * s.pp != work.tensor_parallel * work.pipeline_parallel:
        notes.append(f"over all GPUs: --tensor-parallel-size {s.tp} --pipeline-parallel-size {s.pp}")
    if s.fp8 and work.kv_k != "fp8":
        notes.append("the checkpoint asks for an fp8 KV cache, and vLLM obeys")
    if model.architecture.family in _UNDESCRIBED:
        notes.append(f"vLLM's own cache rules for {model.architecture.family} are not described: its blocks are an estimate")
    return tuple(notes)


def _rank(
    model: Model,
    work: Work,
    s: Settings,
    device: Device | None,
    layout: Layout | None,
    stages: tuple[int, ...],
    stage: int,
    weights: RankWeights,
) -> _Rank:
    """The terms of one GPU but the pool, and what is left for it."""
    first, last = sum(stages[:stage]), stage == s.pp - 1
    marlin = not (work.format.name.startswith("MXFP4") and capability(device) == 9) or work.option("moe_backend") == "marlin"
    cut = 1 if work.expert_parallel else s.tp * s.dp
    joined = s.tp * s.dp if model.architecture.experts else s.tp  # copies of a model without experts have nothing to say to each other
    activation, why = activation_bytes(model, s, device, samples=last, marlin=marlin, experts_cut=cut)
    measured = measured_runtime(device, "vllm")
    non_torch = measured[0] if measured else non_torch_bytes(model, s.profile, device, joined)
    graphs = graph_bytes(model, device, sequences=s.sequences, layers=stages[stage], tokens=s.tokens, eager=s.eager)
    basis: Basis = "fallback" if model.basis == "fallback" else "formula"
    libraries = f"driver, libraries{' and all-reduce' if s.tp > 1 else ''} in vLLM's own logs"
    logged: Basis = "measured" if joined == 1 or linked(device) else "fallback"  # no log of several cards without NVLink
    terms = (
        Term("weights", weights.parameter_bytes - weights.freed_bytes, model.basis if s.tp * s.pp == 1 else basis, weights.why, "weights"),
        Term("buffers", weights.buffer_bytes, basis, weights.buffer_why or "rope tables", "weights"),
        Term("allocator", weights.extra_bytes, basis, weights.extra_why, "weights"),
        Term("activation", activation, basis, why, "compute"),
        Term("non_torch", non_torch, "measured" if measured else logged, measured[1] if measured else libraries, "runtime"),
        Term("cuda_graphs", graphs, "fallback", "graphs captured for decoding, scaled from logs by layers and sizes", "runtime"),
        Term("context", context_bytes(device, s.gpus), "fallback", "typical: held before vLLM measures, outside its share", "runtime"),
    )
    fixed = weights.total + activation + non_torch + (graphs if s.profile.graphs_in_budget else 0)
    asked = int(device.usable * s.utilization) if device else 0
    layers = range(first, first + stages[stage]) if s.pp > 1 else None
    block = (layout.stage_bytes(layers) if layers else layout.bytes_per_block) if layout else 0
    return _Rank(tuple(t for t in terms if t.bytes), s.pool_bytes if s.pool_bytes is not None else asked - fixed, block)


def _pool_term(blocks: int, rank: _Rank, layout: Layout | None, basis: Basis) -> tuple[Term, ...]:
    if layout is None:
        return ()
    why = f"the pool: {max(blocks, 0):,} blocks × {rank.block_bytes:,} B ({layout.block_size} tokens)"
    return (Term("kv_cache", max(blocks, 0) * rank.block_bytes, basis, why, "kv_cache"),)


def _fixed_figures(ranks: tuple[_Rank, ...], s: Settings, layout: Layout | None) -> dict[str, Any]:
    smallest = min(ranks, key=lambda rank: rank.available // max(rank.block_bytes, 1))
    by_name = {term.name: term.bytes for term in smallest.terms}
    return {
        "gpu_memory_utilization": s.utilization,
        "block_size": layout.block_size if layout else None,
        "bytes_per_block": smallest.block_bytes if layout else None,
        "max_num_seqs": s.sequences,
        "max_num_batched_tokens": s.tokens,
        "tensor_parallel": s.tp,
        "pipeline_parallel": s.pp,
        "data_parallel": s.dp,
        "activation": by_name.get("activation", 0),
        "non_torch": by_name.get("non_torch", 0),
        "cuda_graphs": by_name.get("cuda_graphs", 0),
        "version": s.profile.name,
    }


def _figures(prepared: _Prepared, length: int, at_length: int) -> dict[str, Any]:
    """The figures of the start-up log."""
    blocks, layout = max(prepared.blocks, 0), prepared.layout
    concurrency = blocks / at_length if at_length else None
    if layout is None or concurrency is None:
        tokens = None
    elif prepared.settings.profile.tokens_by_requests:
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


def _without_gpu(prepared: _Prepared, blocks: int, at_length: int) -> Allocation:
    """What the requests need, and the null block; no pool, for there is no GPU to fill."""

    def cache(rank: _Rank) -> tuple[Term, ...]:
        why = f"{blocks:,} blocks × {rank.block_bytes:,} B, and the null block"
        return (Term("kv_cache", (blocks + 1) * rank.block_bytes, "formula", why, "kv_cache"),) if rank.block_bytes else ()

    terms = tuple((*rank.terms, *cache(rank)) for rank in prepared.ranks)
    figures = {**prepared.figures, "blocks_per_request": at_length, "available_kv": None, "num_blocks": None}
    return Allocation(terms, figures=figures, notes=prepared.notes, refusal=prepared.refusal)


# --- refusals ---------------------------------------------------------------------------------------------------------


def _not_served(model: Model, s: Settings, devices: tuple[Device, ...]) -> str | None:
    """Models and GPUs vLLM has nothing for. Source: vLLM 0.32.0, model_executor/models/registry.py, its installation pages."""
    family = model.architecture.family
    for device in devices:
        major = capability(device)
        if device.vendor == "Apple":
            return f"vLLM does not run on {device.name}: llama.cpp and Ollama do"
        if device.compute_capability and major < _LEAST_CAPABILITY:
            return f"{device.name} has compute capability {device.compute_capability}; vLLM needs {_LEAST_CAPABILITY}.0 or above"
    if family != "whisper" and any(layer.kind == "cross" for layer in model.cache_layers):
        return f"vLLM runs no {family} encoder-decoder (BART has a plugin of its own)"
    if s.fp8 and family == "bloom":
        return "vLLM's attention with ALiBi keeps no fp8 KV cache: leave --kv out"
    return None


def _no_room(s: Settings, ranks: tuple[_Rank, ...], devices: tuple[Device, ...]) -> str | None:
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


def _refused(work: Work, prepared: _Prepared, length: int, at_length: int) -> str | None:
    if length < work.context:
        return f"max_model_len is {length:,}, below the {work.context:,} tokens of context asked for"
    s = prepared.settings
    if s.tokens < s.sequences:
        return f"max_num_batched_tokens ({s.tokens:,}) must be greater than or equal to max_num_seqs ({s.sequences:,})"
    if work.sequences > s.sequences * s.dp:
        return f"max_num_seqs is {s.sequences:,}: {work.sequences:,} sequences would never run at once"
    layout, usable = prepared.layout, prepared.blocks - 1
    if layout is None or at_length <= usable:
        return None
    longest = largest_length(lambda n: layout.blocks_per_request(n, prepared.in_flight), length, usable)
    smallest = min(prepared.ranks, key=lambda rank: rank.available // max(rank.block_bytes, 1))
    need, have = at_length * smallest.block_bytes, smallest.available - smallest.block_bytes
    return (
        f"To serve at least one request with the model's max seq len ({length}), {need / GIB:.2f} GiB KV cache is needed, "
        f"which is larger than the available KV cache memory ({have / GIB:.2f} GiB). "
        + (f"The largest --max-model-len is {longest}." if longest else "Not even one token fits.")
    )


def _waiting_note(work: Work, prepared: _Prepared, per_request: int, left: int) -> tuple[str, ...]:
    if left >= 0 or not per_request:
        return ()
    held = max(prepared.blocks - 1, 0) // per_request * prepared.settings.dp
    return (f"vLLM starts, but holds {held:,} of the {work.sequences:,} requests of {work.context:,} tokens at once; the others wait",)
