"""What one step of the model must read and compute, from the same two lists as the memory plan.

Store-bytes and read-bytes are kept apart: the input table is held but only one row of it is read (unless it is also the
output matrix), vision towers rest while text is written, and of the routed experts only the chosen ones are read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter

from ..engines.weights import weights_of
from ..formats import Format
from ..formats.storage import storage_bytes
from ..models.architecture import LOOKED_UP, CacheLayer, Tensor
from ..models.model import Model
from ..values import dataclass

__all__ = ["Reads", "reads_of"]


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """`count` equal layers: elements read for each token attended to (K and V apart), and how many tokens are at most.

    `limit` is a window or an indexer's choice, 0 for none. `whole_elements` are read for every token of the history whatever
    the limit: index keys, and the compressed entries of tokens before a window. `head_elements` is K and V of all query heads.
    """

    count: int
    limit: int
    k_elements: int
    v_elements: int
    whole_elements: float
    head_elements: int

    def tokens(self, history: float) -> float:
        """Tokens one new token attends to after `history` others."""
        return min(history, self.limit) if self.limit else history

    def mean_tokens(self, first: float, last: float) -> float:
        """The mean of `tokens` over histories from `first` to `last`."""
        if not self.limit or last <= self.limit:
            return (first + last) / 2
        if first >= self.limit:
            return self.limit
        below = self.limit - first
        return (below * (first + self.limit) / 2 + (last - self.limit) * self.limit) / (last - first)


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

    @property
    def repeat(self) -> float:
        """Query heads for each KV head, averaged over the cache's elements; 1 without a cache."""
        kept = sum(g.count * (g.k_elements + g.v_elements) for g in self.cache)
        return max(1.0, sum(g.count * g.head_elements for g in self.cache) / kept) if kept else 1.0

    def touched(self, tokens: float) -> float:
        """Share of the routed experts that `tokens` tokens of one step choose, each on its own: 1 − (1 − k/E)^n."""
        if not self.experts:
            return 1.0
        return float(1.0 - (1.0 - min(self.experts_per_token / self.experts, 1.0)) ** tokens)

    def weight_bytes(self, tokens: float) -> float:
        """Bytes of weights a decode step over `tokens` sequences reads."""
        return self.shared_bytes + self.head_bytes + self.expert_bytes * self.touched(tokens)

    @property
    def active_parameters(self) -> float:
        """Parameters one token is multiplied with, the output matrix apart."""
        return self.shared_parameters + self.expert_parameters * self.touched(1)

    def kv_bytes(self, history: float, k_bytes: float, v_bytes: float) -> float:
        """Bytes of KV cache one new token reads after `history` others; windows capped."""
        total = 0.0
        for g in self.cache:
            seen = history if not g.limit or history < g.limit else g.limit
            total += g.count * (seen * (g.k_elements * k_bytes + g.v_elements * v_bytes) + history * g.whole_elements * k_bytes)
        return total

    def attention_flops(self, history: float) -> float:
        """Floating-point operations of one new token's attention after `history` others."""
        return sum(2.0 * g.count * g.tokens(history) * g.head_elements for g in self.cache)

    def mean_attention_flops(self, tokens: int, depth: int) -> float:
        """Attention operations of a token, averaged over `tokens` new ones after `depth` others."""
        return sum(2.0 * g.count * g.mean_tokens(depth, depth + tokens) * g.head_elements for g in self.cache)


#: Vectors (norms, biases) are added or scaled with: no part of the arithmetic.
_MATRIX_DIMENSIONS = 2
#: Everything of a tensor but its layer.
_ALIKE = itemgetter(0, 2, 3, 4, 5)


@lru_cache(maxsize=256)
def reads_of(model: Model, format: Format) -> Reads:
    """The sums for a format."""
    weights = weights_of(model, format)
    bytes_of: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    tied = model.architecture.tied_embeddings and not weights.head
    for alike, count in Counter(map(_ALIKE, weights.tensors)).items():
        tensor = Tensor(alike[0], None, *alike[1:])
        if tensor.part != "text" or (tensor.role in LOOKED_UP and not (tied and tensor.role == "token_embd")):
            continue
        size = count * storage_bytes(tensor.stored_as, tensor.shape)
        kind = "expert" if tensor.experts else "head" if tensor.role in ("output", "output.bias", "token_embd") else "shared"
        bytes_of[kind] += size
        parameters[kind] += count * tensor.parameters if len(tensor.shape) >= _MATRIX_DIMENSIONS else 0
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
    kinds: Counter[CacheLayer] = Counter()
    for layer in model.cache_layers:
        source = layers.get(layer.source if layer.source is not None else -1, layer) if layer.kind == "shared" else layer
        if source.kind != "recurrent" and source.kv_heads:
            kinds[source.anywhere] += 1
    groups: Counter[CacheGroup] = Counter()
    for kind, count in kinds.items():
        groups[_group(kind, top)] += count
    return tuple(replace(group, count=count) for group, count in groups.items())


def _group(layer: CacheLayer, chosen: int) -> CacheGroup:
    limit = layer.window if layer.kind in ("sliding", "chunked", "compressed") else chosen if layer.index_dim else 0
    whole = float(layer.index_dim)
    if layer.compress_ratio:
        whole = (layer.compressed_dim + layer.index_dim) / layer.compress_ratio
    values = layer.latent_rank if layer.kind == "latent" and not layer.v_dim else layer.v_dim
    heads = max(layer.heads, layer.kv_heads, 1)
    return CacheGroup(1, limit, layer.kv_heads * layer.k_dim, layer.kv_heads * layer.v_dim, whole, heads * (layer.k_dim + values))


def _family(stored_as: str) -> str:
    """The kind of kernel most of the weights need: plain, simple (one scale a block), k (two levels), grid (looked up in one), fp4."""
    if stored_as in ("F32", "F16", "BF16"):
        return "plain"
    if "MXFP4" in stored_as or "NVFP4" in stored_as or "FP4" in stored_as:
        return "fp4"
    if stored_as.startswith(("IQ1", "IQ2", "IQ3")):
        return "grid"
    return "k" if stored_as.endswith("_K") or stored_as.startswith("IQ") else "simple"

