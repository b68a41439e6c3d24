"""SGLang: a fixed share of the free memory for weights and pools of tokens; activations live in what it leaves.

Nothing is profiled: the pool is (free before loading × mem_fraction_static − weights) / bytes of a token. As it fills its
share, a plan fits when the pool holds the requests asked for. Source: sglang 0.5.23, srt/mem_cache/kv_cache_configurator.py
and srt/model_executor/pool_configurator.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from ...hardware.device import MIB, Device
from ...models.architecture import Basis
from ...models.model import Model
from ...results import Term
from ...units import format_gib
from ...values import Same, dataclass
from ..base import Allocation, Work
from ..measured import measured_runtime
from ..vllm.weights import refusal, stage_layers
from .cells import Cells, cells_of
from .settings import OPTIONS, Settings, attention_kind, has_tower, read_settings, reserve_mib, runtime_bytes, window_pool
from .weights import weight_terms

__all__ = ["DEFAULT_KV", "OFFLOADS", "OPTIONS", "SPANS_MACHINES", "allocate"]

DEFAULT_KV: Final = "bf16"
#: What is planned in host memory: nothing (--cpu-offload-gb is not described).
OFFLOADS: Final[tuple[str, ...]] = ()
#: Its GPUs may be of several machines.
SPANS_MACHINES: Final = True
#: Share of the pools' memory recurrent states get (--mamba-full-memory-ratio 0.9: states ÷ KV cache).
_STATE_SHARE: Final = 0.9 / 1.9
#: Requests that run at once, whatever the pool (resolve_max_num_reqs).
_LEAST_LIMIT, _MOST_LIMIT = 2048, 4096


@dataclass(frozen=True, slots=True)
class _Pools:
    """Sizes of the pools, the smallest rank's: tokens of the full layers, of the windowed ones, and request states."""

    tokens: int
    window_tokens: int
    states: int


@dataclass(frozen=True, eq=False, slots=True)
class _Rank:
    device: Device | None
    cells: Cells
    runtime: Term
    weights: tuple[Term, ...]
    before: int
    loaded: int


@dataclass(frozen=True, eq=False, slots=True)
class _Prepared:
    settings: Settings
    ranks: tuple[_Rank, ...]
    window: int
    pools: _Pools
    budget: int
    terms: tuple[tuple[Term, ...], ...]
    notes: tuple[str, ...]
    refusal: str | None


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """Weights, pools, reserve and runtime on each GPU; with no GPU, pools for the requests asked for. See `Engine.allocate`."""
    p = _prepare(
        model, Same(work.format), work.kv_k, work.kv_v, work.tensor_parallel, work.pipeline_parallel, work.expert_parallel,
        work.options, Same(devices),
    )  # fmt: skip
    need = _need(p, work.context, -(-work.sequences // p.settings.dp))
    if not devices:
        return Allocation(_without_gpu(p, need), figures=_figures(p, work), notes=p.notes, refusal=p.refusal)
    refused = p.refusal or _refused(p, work)
    left = tuple(_left(p, rank.cells, need) for rank in p.ranks)
    headroom = (*left, *(device.available for device in devices[len(p.ranks) :])) if p.ranks else tuple(-1 for _ in devices)
    notes = (*p.notes, *_waiting(p, work)) if min(headroom) < 0 and not refused else p.notes
    return Allocation(p.terms, figures=_figures(p, work), notes=notes, refusal=refused, headroom=headroom)


@lru_cache(maxsize=4096)
def _prepare(
    model: Model, format: Same, kv_k: str, kv_v: str, tp: int, pp: int, ep: bool, options: tuple[tuple[str, Any], ...], devices: Same
) -> _Prepared:
    """All that neither context nor the number of sequences changes."""
    work = Work("sglang", format.value, kv_k, kv_v, 1, tensor_parallel=tp, pipeline_parallel=pp, expert_parallel=ep, options=options)
    gpus: tuple[Device, ...] = devices.value
    s = read_settings(model, work, gpus)
    window = max((layer.window for layer in model.cache_layers if layer.window), default=0)
    few = gpus and len(gpus) < s.tp * s.pp
    if few or s.tp % s.dp:
        problem = f"attention_data_parallel {s.dp} does not divide tensor parallelism {s.tp}"
        if few:
            problem = f"tensor parallelism {s.tp} × pipeline parallelism {s.pp} needs {s.tp * s.pp} GPUs; there are {len(gpus)}"
        return _Prepared(s, (), window, _Pools(0, 0, 0), -1, tuple(() for _ in gpus), (), problem)
    ranks = _ranks(model, work, s, gpus)
    budget = _budget(model, s, ranks) if gpus else 0
    pools = _pools(model, s, ranks, budget)
    terms = tuple((*rank.weights, *_pool_terms(model, s, pools, rank), *_reserve(model, s, rank, pools), rank.runtime) for rank in ranks)
    return _Prepared(
        s, ranks, window, pools, budget, (*terms, *(() for _ in gpus[len(ranks) :])), _notes(model, work, s, gpus),
        refusal(model, work, s.attention_tp, s.pp) or _no_room(s, ranks, budget, pools, gpus),
    )  # fmt: skip


# --- what one rank holds ----------------------------------------------------------------------------------------------


def _ranks(model: Model, work: Work, s: Settings, devices: tuple[Device, ...]) -> tuple[_Rank, ...]:
    stages = stage_layers(model.architecture.layers, s.pp)
    found = []
    for i in range(s.tp * s.pp):
        stage, rank = divmod(i, s.tp)
        first = sum(stages[:stage])
        device = devices[i] if devices else None
        layers = [layer for layer in model.cache_layers if s.pp == 1 or first <= layer.layer < first + stages[stage]]
        size, why = measured_runtime(device, "sglang") or runtime_bytes(device, s.tp * s.pp)
        weights = weight_terms(model, work, s, s.tp - 1 if rank == s.tp - 1 else 0, stage, device)
        before = device.available - size if device else 0
        loaded = before - sum(term.bytes for term in weights)
        found.append(_Rank(device, cells_of(model, s, layers), Term("runtime", size, "measured", why, "runtime"), weights, before, loaded))
    return tuple(found)


# --- pools ------------------------------------------------------------------------------------------------------------


def _budget(model: Model, s: Settings, ranks: tuple[_Rank, ...]) -> int:
    """Bytes for all pools of the poorest rank: what the weights leave, less the share kept free of what was free before."""
    if s.pool_bytes is not None:
        return s.pool_bytes
    left = min(rank.loaded for rank in ranks)
    free = int(min(rank.before for rank in ranks) * (1 - s.fraction))
    return left - free - (s.profile.tower_mib * MIB if has_tower(model) else 0)


def _pools(model: Model, s: Settings, ranks: tuple[_Rank, ...], budget: int) -> _Pools:
    tokens, windows, states = [], [], []
    ratio = window_pool(model, s.profile) or 0
    for cells in dict.fromkeys(rank.cells for rank in ranks):
        rest = max(budget - cells.fixed, 0)
        if cells.state:
            held = max(int((rest * _STATE_SHARE - cells.state) // cells.state), 0)
            rest = max(rest - (held + 1) * cells.state, 0)
            states.append(held)
        cell = cells.full + cells.windowed * ratio if cells.full else cells.windowed
        if cell:
            found = int(rest // cell) * s.page
            tokens.append(found)
            if cells.windowed:
                windows.append(found if not cells.full else int(found * ratio) // s.page * s.page)
    return _Pools(min(tokens, default=0), min(windows, default=0), min(states, default=0))


def _need(p: _Prepared, context: int, sequences: int) -> _Pools:
    """What the requests take of each pool. A window keeps its tokens, two pages at its ends and one prefill chunk in flight."""
    page = p.settings.page
    whole = -(-context // page) * page
    held = min(whole, p.window + 2 * page + 1)
    return _Pools(whole * sequences, held * sequences + min(context, p.settings.chunk), p.settings.slots * sequences)


def _left(p: _Prepared, cells: Cells, need: _Pools) -> int:
    """Bytes the requests leave of the pool that is scarcest; negative by what is missing."""
    if p.budget <= cells.fixed:
        return p.budget - cells.fixed - 1
    rooms, page = [], p.settings.page
    if cells.full:
        rooms.append((p.pools.tokens - need.tokens) // page * cells.full)
    if cells.windowed:
        rooms.append((p.pools.window_tokens - (need.window_tokens if cells.full else need.tokens)) // page * cells.windowed)
    if cells.state:
        rooms.append((p.pools.states - need.states) * cells.state)
    return min(rooms, default=p.budget)


def _pool_terms(model: Model, s: Settings, pools: _Pools, rank: _Rank) -> tuple[Term, ...]:
    c, basis = rank.cells, model.architecture.basis
    size, why = _cache(s, pools, c)
    terms = [Term("kv_cache", size, basis, f"the pool: {why}", "kv_cache")] if c.full or c.windowed else []
    return (*terms, *_state_terms(c, pools.states, basis))


def _cache(s: Settings, pools: _Pools, c: Cells) -> tuple[int, str]:
    """Bytes of the pools of tokens, and what they are made of."""
    why = f"{pools.tokens:,} tokens × {c.full / s.page:,.0f} B" if c.full else ""
    windows = pools.window_tokens if c.full else pools.tokens
    if c.windowed:
        why += f"{', ' if why else ''}windows {windows:,} × {c.windowed / s.page:,.0f} B"
    return pools.tokens // s.page * c.full + -(-windows // s.page) * c.windowed, why


def _state_terms(c: Cells, states: int, basis: Basis) -> tuple[Term, ...]:
    terms = []
    if c.state:
        terms.append(Term("state", (states + 1) * c.state, basis, f"{states:,} states × {c.state:,} B, and a spare", "state"))
    if c.fixed:
        terms.append(Term("state", c.fixed, basis, "unfinished entries of compressed layers, for every request that may run", "state"))
    return tuple(terms)


def _reserve(model: Model, s: Settings, rank: _Rank, pools: _Pools) -> tuple[Term, ...]:
    """What the share leaves free: activations, logits and CUDA graphs, which SGLang does not measure."""
    if rank.device is None:
        why = f"activations of {s.chunk:,} tokens and graphs, by SGLang's rule"
        size = int(reserve_mib(s.profile, model, s.chunk * s.dp, s.graph_sequences, s.tp * s.pp, s.dp) * MIB)
        return (Term("reserve", size, "formula", why, "compute"),)
    taken = _cache(s, pools, rank.cells)[0] + sum(term.bytes for term in _state_terms(rank.cells, pools.states, "formula"))
    free = int(rank.before * (1 - s.fraction))
    size = max(min(free, rank.loaded - taken), 0)
    why = f"activations and graphs: {1 - s.fraction:.1%} of {format_gib(rank.before)} kept free (mem_fraction_static {s.fraction:.3f})"
    return (Term("reserve", size, "formula", why, "compute"),)


def _without_gpu(p: _Prepared, need: _Pools) -> tuple[tuple[Term, ...], ...]:
    found = []
    for rank, terms in zip(p.ranks, p.terms, strict=True):
        size, why = _cache(p.settings, need, rank.cells)
        others = tuple(term for term in terms if term.group not in ("kv_cache", "state"))
        cache = (Term("kv_cache", size, "formula", why, "kv_cache"),) if size else ()
        found.append((*others, *cache, *_state_terms(rank.cells, need.states, "formula")))
    return tuple(found)


# --- what is said -----------------------------------------------------------------------------------------------------


def _figures(p: _Prepared, work: Work) -> dict[str, Any]:
    s, length = p.settings, p.settings.max_model_len or work.context
    cells = max((rank.cells for rank in p.ranks), key=lambda c: c.full + c.windowed, default=Cells(0, 0, 0))
    known = bool(p.ranks and p.ranks[0].device)
    held = _concurrency(p, length)
    runtime = max((rank.runtime.bytes for rank in p.ranks), default=0)
    return {
        "mem_fraction_static": s.fraction,
        "gpu_memory_utilization": s.fraction,
        "available_kv": p.budget if known else None,
        "block_size": s.page,
        "bytes_per_block": cells.full or cells.windowed,
        "num_blocks": p.pools.tokens // s.page if known else None,
        "kv_tokens": p.pools.tokens if known else None,
        "window_tokens": p.pools.window_tokens if known and cells.windowed else None,
        "max_states": p.pools.states if known and cells.state else None,
        "blocks_per_request": -(-length // s.page),
        "max_concurrency": held if known else None,
        "max_num_seqs": _running(p, length) if known else s.max_requests,
        "max_num_batched_tokens": s.chunk,
        "max_model_len": length,
        "cuda_graph_max_bs": s.graph_sequences,
        "activation": next((t.bytes for terms in p.terms for t in terms if t.name == "reserve"), 0),
        "non_torch": runtime,
        "cuda_graphs": None,
        "tensor_parallel": s.tp,
        "pipeline_parallel": s.pp,
        "attention_data_parallel": s.dp,
        "version": s.profile.since,
    }


def _concurrency(p: _Prepared, length: int) -> float | None:
    """Requests of the longest length the pools hold at once."""
    need = _need(p, length, 1)
    shares = [p.pools.tokens / need.tokens] if p.pools.tokens else []
    if p.pools.states:
        shares.append(p.pools.states // p.settings.slots)
    return min(shares, default=None)


def _running(p: _Prepared, length: int) -> int:
    """SGLang's max_running_requests: as asked, else by the pool, and never more than half its tokens or its states allow."""
    tokens, s = p.pools.tokens, p.settings
    limit = max(min(int(tokens / length * 512), _MOST_LIMIT), _LEAST_LIMIT)
    found = min(s.max_requests or limit, tokens // 2) if tokens else s.max_requests or limit
    return min(found, p.pools.states // s.slots) if p.ranks and p.ranks[0].cells.state else found


def _notes(model: Model, work: Work, s: Settings, devices: tuple[Device, ...]) -> tuple[str, ...]:
    notes = []
    if len(devices) > s.tp * s.pp:
        notes.append(f"{len(devices) - s.tp * s.pp} of the GPUs stay idle: tensor × pipeline parallelism is {s.tp * s.pp}")
    if s.dp > 1:
        notes.append(f"{s.dp} groups of ranks: each has its own pool and takes a share of the sequences; the log's figures are of one")
    if s.tp * s.pp != work.tensor_parallel * work.pipeline_parallel:
        notes.append(f"over all GPUs: --tensor-parallel-size {s.tp} --pipeline-parallel-size {s.pp}")
    if (
        window_pool(model, s.profile) is None
        and attention_kind(model) == "dense"
        and any(layer.kind == "sliding" for layer in model.cache_layers)
    ):
        notes.append("SGLang keeps every token in this model's sliding-window layers too")
    return tuple(notes)


def _no_room(s: Settings, ranks: tuple[_Rank, ...], budget: int, pools: _Pools, devices: tuple[Device, ...]) -> str | None:
    if not devices:
        return None
    poorest = min(ranks, key=lambda rank: rank.loaded)
    if budget <= 0 and s.pool_bytes is None:
        least = 1 - poorest.loaded / poorest.before if poorest.before > 0 else 1.0
        hint = f"raise it above {least:.3f}" if 0 < least < 1 else "the weights are larger than the GPU"
        return f"Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static={s.fraction:.3f}: {hint}"
    if s.pool_bytes is not None and s.pool_bytes > poorest.loaded:
        return f"{format_gib(s.pool_bytes)} of KV cache are more than the weights leave ({format_gib(max(poorest.loaded, 0))})"
    if any(rank.cells.state for rank in ranks) and pools.states < s.slots:
        return f"the state cache holds {pools.states} states; one request needs {s.slots}: raise gpu_memory_utilization"
    return None


def _refused(p: _Prepared, work: Work) -> str | None:
    s = p.settings
    if s.max_model_len and s.max_model_len < work.context:
        return f"max_model_len is {s.max_model_len:,}, below the {work.context:,} tokens of context asked for"
    if s.max_requests and work.sequences > s.max_requests * s.dp:
        return f"max_num_seqs is {s.max_requests * s.dp:,}: {work.sequences:,} sequences would never run at once"
    windowed = any(rank.cells.windowed and rank.cells.full for rank in p.ranks)
    if windowed and p.window + s.page >= p.pools.window_tokens:
        return f"the pool for sliding windows ({p.pools.window_tokens:,} tokens) cannot hold one window of {p.window:,}"
    return None


def _waiting(p: _Prepared, work: Work) -> tuple[str, ...]:
    held = int(_concurrency(p, work.context) or 0) * p.settings.dp
    if held:
        return (f"SGLang starts, but holds {held:,} of the {work.sequences:,} requests of {work.context:,} tokens at once",)
    return (f"SGLang starts, but its pool of {p.pools.tokens:,} tokens rejects requests of {work.context:,}",)
