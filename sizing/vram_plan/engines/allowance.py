"""The allocation of an engine whose own rules are not described yet: the model's need, and labelled allowances.

Weights, KV cache and state are what the model itself needs. Compute buffers and runtime are allowances, of basis
`fallback`: engines differ by hundreds of MiB here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from ..formats.cache_types import CACHE_TYPES
from ..hardware.device import Device
from ..models.model import Model
from ..results import Term
from ..units import MIB
from .base import Allocation, Work
from .weights import Weights, weights_of

__all__ = ["DEFAULT_KV", "OPTIONS", "allocate"]

OPTIONS: Final[Mapping[str, str]] = {}
DEFAULT_KV: Final = "bf16"

#: Prompt tokens an engine works on at once, and the driver context with the libraries' own memory.
BATCH_TOKENS: Final = 512
RUNTIME_BYTES: Final = 450 * MIB


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """The need shared out evenly by layers over the devices, and the two allowances on each."""
    count = max(len(devices), 1)
    weights = weights_of(model, work.format)
    kv = kv_bytes(model, work)
    state = model.state_bytes * work.sequences
    compute, why = _compute_allowance(model)
    shares = tuple(
        (
            Term("weights", share(weights.total, count, i), weights.basis, weights_why(model, weights), "weights"),
            Term("kv_cache", share(kv, count, i), model.architecture.basis, _kv_why(model, work), "kv_cache"),
            *((Term("state", share(state, count, i), model.architecture.basis, _state_why(work), "state"),) if state else ()),
            Term("compute", compute, "fallback", why, "compute"),
            Term("runtime", RUNTIME_BYTES, "fallback", "allowance for the driver's context and libraries", "runtime"),
        )
        for i in range(count)
    )
    return Allocation(shares)


def share(total: int, count: int, index: int) -> int:
    """Part `index` of a total cut into `count` whole parts, the first ones a byte larger where it does not divide."""
    return total // count + (index < total % count)


def kv_bytes(model: Model, work: Work) -> int:
    """K and V of all sequences in the cache types asked for; an index key is stored as K is."""
    k, v = CACHE_TYPES[work.kv_k], CACHE_TYPES[work.kv_v]
    if k is v or k == v:
        elements = model.architecture.kv_bytes(work.context, 1)
        return -(-elements * k.numerator * work.sequences // k.denominator)
    total = sum(
        layer.tokens_held(work.context) * layer.kv_heads * (layer.k_dim * k + layer.v_dim * v)
        + (layer.kv_elements(work.context) - layer.tokens_held(work.context) * layer.elements_per_token) * k
        for layer in model.cache_layers
    )
    return -(-total.numerator * work.sequences // total.denominator) if total else 0


@lru_cache(maxsize=256)
def _compute_allowance(model: Model) -> tuple[int, str]:
    """Logits of one token and one layer's activations for a batch, in fp32: what no engine can do without."""
    a = model.architecture
    widest = max((t.shape[-2] for t in a.tensors if t.part == "text" and t.layer is not None and len(t.shape) >= 2), default=a.hidden_size)
    size = 4 * a.vocab_size + 4 * BATCH_TOKENS * (2 * a.hidden_size + 2 * widest)
    return size, f"allowance: {BATCH_TOKENS} tokens × (2 × {a.hidden_size:,} + 2 × {widest:,}) × 4 B, and the logits"


def weights_why(model: Model, weights: Weights) -> str:
    bits = 8 * weights.total / max(model.parameters.total, 1)
    return f"{model.parameters.total:,} parameters at {bits:.2f} bits ({weights.format.name})"


def _kv_why(model: Model, work: Work) -> str:
    kinds = [layer for layer in model.cache_layers if layer.kv_heads and layer.kind not in ("shared", "cross")]
    per_sequence = f"{work.context:,} tokens" + (f" × {work.sequences} sequences" if work.sequences > 1 else "")
    if not kinds:
        return f"{per_sequence}: no layer keeps K and V"
    layer, types = kinds[0], work.kv_k if work.kv_k == work.kv_v else f"{work.kv_k}/{work.kv_v}"
    if all((k.kind, k.kv_heads, k.k_dim, k.v_dim) == ("full", layer.kv_heads, layer.k_dim, layer.v_dim) for k in kinds):
        return f"{per_sequence} × {len(kinds)} layers × {layer.kv_heads} heads × ({layer.k_dim} K + {layer.v_dim} V) in {types}"
    by_kind = ", ".join(f"{sum(k.kind == kind for k in kinds)} {kind}" for kind in dict.fromkeys(k.kind for k in kinds))
    return f"{per_sequence}; layers: {by_kind}; in {types}"


def _state_why(work: Work) -> str:
    return f"convolution and recurrent states of {work.sequences} sequence{'s' if work.sequences > 1 else ''}, whatever the context"
