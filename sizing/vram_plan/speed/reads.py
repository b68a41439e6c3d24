"""What one step of the model must read and compute, from the same two lists as the memory plan.

Store-bytes and read-bytes are kept apart: the input table is held but only one row of it is read (unless it is also the
output matrix), vision towers rest while text is written, and of the routed experts only the chosen ones are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from ..engines.weights import weights_of
from ..formats import Format
from ..formats.storage import storage_bytes
from ..models.architecture import CacheLayer
from ..models.model import Model

__all__ = ["Reads", "reads_of"]


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """`count` equal layers: elements read for each token held (K and V apart), and what limits the tokens held."""

    count: int
    window: int
    k_elements: int
    v_elements: int
    index_elements: int
    chosen: int
    compress_ratio: int
    compressed_elements: int
    heads: int

    def tokens(self, history: float) -> float:
        """Tokens one new token attends to after `history` others."""
        seen = min(history, self.window) if self.window else history
        return min(seen, self.chosen) if self.chosen else seen

    def read(self, history: float, k_bytes: float, v_bytes: float) -> float:
        """Bytes of cache one new token reads in one of these layers."""
        size = self.tokens(history) * (self.k_elements * k_bytes + self.v_elements * v_bytes)
        if self.compress_ratio:
            return size + history / self.compress_ratio * (self.compressed_elements + self.index_elements) * k_bytes
        return size + history * self.index_elements * k_bytes

    def flops(self, history: float) -> float:
        """Multiply-adds ×2 of one new token's scores and mix in one of these layers."""
        width = max(self.heads, 1) * self.head_width
        seen = self.tokens(history) + (history / self.compress_ratio if self.compress_ratio else 0.0)
        return 2.0 * seen * width

    @property
    def head_width(self) -> float:
        """K and V width of one head."""
        return float(self.k_elements + self.v_elements)


@dataclass(frozen=True, slots=True)
class Reads:
    """One model in one format. Bytes and parameters; `shared_*` are used for every token, `expert_*` are all routed experts.

    `head_*` is the output matrix, used once a prompt but at every generated token. `state_bytes` is one sequence's
    recurrent state, read and written at every token.
    """

    shared_bytes: int
    expert_bytes: int
    head_bytes: int
    shared_parameters: int
    expert_parameters: int
    head_parameters: int
    experts: int
    experts_per_token: int
    layers: int
    hidden_size: int
    state_bytes: int
    cache: tuple[CacheGroup, ...]
    weight_family: str

    def touched(self, tokens: float) -> float:
        """Share of the routed experts that `tokens` tokens of one step choose, each on its own: 1 − (1 − k/E)^n."""
        if not self.experts:
            return 1.0
        return float(1.0 - (1.0 - min(self.experts_per_token / self.experts, 1.0)) ** tokens)

    def weight_bytes(self, tokens: float) -> float:
        """Bytes of weights a decode step over `tokens` sequences reads."""
        return self.shared_bytes + self.head_bytes + self.expert_bytes * self.touched(tokens)

    def weight_parameters(self, tokens: float) -> float:
        return self.shared_parameters + self.head_parameters + self.expert_parameters * self.touched(tokens)

    @property
    def active_parameters(self) -> float:
        """Parameters one token is multiplied with, the output matrix apart."""
        return self.shared_parameters + self.expert_parameters * self.touched(1)

    def kv_bytes(self, history: float, k_bytes: float, v_bytes: float) -> float:
        """Bytes of KV cache one new token reads after `history` others; windows capped."""
        return sum(group.count * group.read(history, k_bytes, v_bytes) for group in self.cache)

    def attention_flops(self, history: float) -> float:
        """Floating-point operations of one new token's attention after `history` others."""
        return sum(group.count * group.flops(history) for group in self.cache)


#: Vectors (norms, biases) are added or scaled with: no part of the arithmetic.
_MATRIX_DIMENSIONS = 2


@lru_cache(maxsize=256)
def reads_of(model: Model, format: Format) -> Reads:
    """The sums for a format."""
    weights = weights_of(model, format)
    bytes_of: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    tied = model.architecture.tied_embeddings and not weights.head
    for tensor in weights.tensors:
        if tensor.part != "text" or (tensor.role == "token_embd" and not tied):
            continue
        size = storage_bytes(tensor.stored_as, tensor.shape)
        kind = "expert" if tensor.experts else "head" if tensor.role in ("output", "output.bias", "token_embd") else "shared"
        bytes_of[kind] += size
        parameters[kind] += tensor.parameters if len(tensor.shape) >= _MATRIX_DIMENSIONS else 0
        stored[tensor.stored_as] += size
    a = model.architecture
    return Reads(
        bytes_of["shared"], bytes_of["expert"], bytes_of["head"], parameters["shared"], parameters["expert"], parameters["head"],
        a.experts, a.experts_per_token, a.layers, a.hidden_size, model.state_bytes, _cache_groups(model),
        _family(stored.most_common(1)[0][0] if stored else "BF16"),
    )  # fmt: skip


def _cache_groups(model: Model) -> tuple[CacheGroup, ...]:
    layers = {layer.layer: layer for layer in model.cache_layers if layer.kind not in ("recurrent", "shared")}
    chosen = (model.config or {}).get("index_topk")
    top = chosen if isinstance(chosen, int) and chosen > 0 else 0
    groups: Counter[CacheGroup] = Counter()
    for layer in model.cache_layers:
        source = layers.get(layer.source if layer.source is not None else -1, layer) if layer.kind == "shared" else layer
        if source.kind != "recurrent" and source.kv_heads:
            groups[_group(source, top)] += 1
    return tuple(_counted(group, count) for group, count in groups.items())


def _group(layer: CacheLayer, chosen: int) -> CacheGroup:
    window = layer.window if layer.kind in ("sliding", "chunked", "compressed") else 0
    return CacheGroup(
        1, window, layer.kv_heads * layer.k_dim, layer.kv_heads * layer.v_dim, layer.index_dim, chosen if layer.index_dim else 0,
        layer.compress_ratio, layer.compressed_dim, max(1, layer.heads) // max(1, layer.kv_heads),
    )  # fmt: skip


def _counted(group: CacheGroup, count: int) -> CacheGroup:
    return CacheGroup(
        count, group.window, group.k_elements, group.v_elements, group.index_elements, group.chosen, group.compress_ratio,
        group.compressed_elements, group.heads,
    )  # fmt: skip


def _family(stored_as: str) -> str:
    """The kind of kernel most of the weights need: plain, simple (one scale a block), k (two levels), mxfp4."""
    if stored_as in ("F32", "F16", "BF16"):
        return "plain"
    if "MXFP4" in stored_as or "NVFP4" in stored_as or "FP4" in stored_as:
        return "fp4"
    return "k" if stored_as.endswith("_K") or stored_as.startswith("IQ") else "simple"

