"""What the model itself needs, whichever engine runs it: no padding, no buffers."""

from __future__ import annotations

from ..formats.cache_types import CACHE_TYPES
from ..models.model import Model
from .base import Work
from .weights import Weights

__all__ = ["kv_bytes", "weights_why"]


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


def weights_why(model: Model, weights: Weights) -> str:
    bits = 8 * weights.total / max(model.parameters.total, 1)
    return f"{model.parameters.total:,} parameters at {bits:.2f} bits ({weights.format.name})"
