"""From an inventory to what the decoder builds: each layer's matrices and norms, or a clear word that it cannot be built."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..errors import UsageError
from ..models.architecture import Architecture, CacheLayer, Tensor

__all__ = ["Block", "Layer", "Layout", "Matrix", "Norm", "layout_of"]

_HINT = "it builds decoders with grouped-query attention (also in windows), norms, gated or plain blocks and top-k experts"
#: Constant tables some inventories list; the decoder computes its own.
_TABLES = ("rope_", "buffer.")


@dataclass(frozen=True, slots=True)
class Matrix:
    """Outputs × inputs, with a bias or not; `experts` > 0: a stack of that many."""

    rows: int
    columns: int
    bias: bool = False
    experts: int = 0

    @property
    def parameters(self) -> int:
        return max(self.experts, 1) * self.rows * self.columns + (self.rows if self.bias else 0)


@dataclass(frozen=True, slots=True)
class Norm:
    width: int
    bias: bool = False

    @property
    def parameters(self) -> int:
        return self.width * (2 if self.bias else 1)


@dataclass(frozen=True, slots=True)
class Block:
    """A feed-forward block: `up` holds gate and up together when `gated`, so that one product makes both."""

    up: Matrix
    down: Matrix
    gated: bool

    @property
    def parameters(self) -> int:
        return self.up.parameters + self.down.parameters


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. A `window` of 0 means full attention. Either `dense` or `routed` is there, `shared` beside `routed`."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int
    qkv: Matrix
    out: Matrix
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    before_attention: Norm | None = None
    after_attention: Norm | None = None
    before_ffn: Norm | None = None
    after_ffn: Norm | None = None
    dense: Block | None = None
    router: Matrix | None = None
    correction: bool = False
    routed: Block | None = None
    shared: Block | None = None
    shared_gate: Matrix | None = None
    chosen: int = 0

    @property
    def parallel(self) -> bool:
        """Attention and block read the same norm's output (Cohere, Phi)."""
        return self.before_attention is not None and self.before_ffn is None and self.after_ffn is None

    @property
    def parts(self) -> tuple[Matrix | Norm | Block, ...]:
        every = (
            self.qkv, self.out, self.q_norm, self.k_norm, self.before_attention, self.after_attention, self.before_ffn, self.after_ffn,
            self.dense, self.router, self.routed, self.shared, self.shared_gate,
        )  # fmt: skip
        return tuple(part for part in every if part is not None)

    @property
    def parameters(self) -> int:
        correction = self.router.rows if self.router and self.correction else 0
        return sum(part.parameters for part in self.parts) + correction

    @property
    def matrix_parameters(self) -> float:
        """Those one token is multiplied with: of the routed experts the chosen ones."""
        always = (self.qkv, self.out, self.router, self.shared_gate, self.dense, self.shared)
        routed = self.routed.parameters * self.chosen / self.routed.up.experts if self.routed else 0.0
        return sum(part.parameters for part in always if part) + routed

    def cache_tokens(self, context: int) -> int:
        """Tokens a static cache holds: a window of W has W places, the newest token's own included."""
        return min(context, self.window) if self.window else context

    @property
    def cache_elements(self) -> int:
        """K and V elements of one token."""
        return 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Layout:
    """A whole decoder. `head` is None when the embedding is the output matrix too."""

    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    norm: Norm | None
    head: Matrix | None

    @cached_property
    def parameters(self) -> int:
        ends = self.vocab * self.hidden + sum(part.parameters for part in (self.norm, self.head) if part)
        return ends + sum(layer.parameters for layer in self.layers)

    def matrix_flops(self, layers: int | None = None) -> float:
        """Operations one token takes in the layers' matrices, the output matrix apart."""
        return 2.0 * sum(layer.matrix_parameters for layer in self.layers[:layers])

    def attention_flops(self, tokens: int, layers: int | None = None) -> float:
        """Operations of attention over a prompt of `tokens`, each attending to those before and itself, in windows to so many."""
        total = 0.0
        for layer in self.layers[:layers]:
            w = min(layer.window or tokens, tokens)
            pairs = w * (w + 1) / 2 + (tokens - w) * w
            total += 4.0 * pairs * layer.heads * layer.head_dim
        return total

    def kv_elements(self, context: int) -> int:
        """K and V elements of one sequence's static cache with room for `context` tokens."""
        return sum(layer.cache_tokens(context) * layer.cache_elements for layer in self.layers)


class _Roles:
    """One layer's tensors by role; what is left after building was not understood."""

    def __init__(self, tensors: list[Tensor], where: str) -> None:
        self.tensors = {tensor.role: tensor for tensor in tensors}
        self.where = where
        if len(self.tensors) != len(tensors):
            raise UsageError(f"{where}: its weights are listed one by one, not as this decoder needs them", _HINT)

    def norm(self, role: str) -> Norm | None:
        tensor = self.tensors.pop(role, None)
        return Norm(tensor.shape[-1], self.tensors.pop(f"{role}.bias", None) is not None) if tensor and len(tensor.shape) == 1 else None

    def matrix(self, *roles: str) -> Matrix | None:
        """The rows of these matrices together; None when none of them is there."""
        found = [self.tensors.pop(role) for role in roles if role in self.tensors]
        if not found:
            return None
        biases = [self.tensors.pop(f"{role}.bias", None) for role in roles]
        bias = [entry for entry in biases if entry]
        if len({t.shape[-1] for t in found}) > 1 or len({t.experts for t in found}) > 1 or len(bias) not in (0, len(found)):
            raise UsageError(f"{self.where}: {' and '.join(roles)} do not go together", _HINT)
        return Matrix(sum(t.shape[-2] for t in found), found[0].shape[-1], bool(bias), found[0].experts)

    def needed(self, *roles: str) -> Matrix:
        matrix = self.matrix(*roles)
        if matrix is None:
            raise UsageError(f"{self.where} has no {roles[0]}", _HINT)
        return matrix

    def block(self, suffix: str) -> Block | None:
        roles = [f"ffn_{part}{suffix}" for part in ("gate", "up")]
        up = self.matrix(*roles)
        if up is None:
            return None
        down = self.needed(f"ffn_down{suffix}")
        if up.rows not in (down.columns, 2 * down.columns) or (down.bias and down.experts):
            raise UsageError(f"{self.where}: its feed-forward block is of another kind", _HINT)
        return Block(up, down, up.rows == 2 * down.columns)


def _layer(tensors: list[Tensor], cache: CacheLayer, chosen: int, where: str) -> Layer:
    if cache.kind not in ("full", "sliding") or cache.k_dim != cache.v_dim or cache.index_dim or cache.heads % cache.kv_heads:
        raise UsageError(f"{where}: the decoder cannot build its attention ({cache.kind} cache)", _HINT)
    roles = _Roles(tensors, where)
    qkv, out = roles.matrix("attn_qkv") or roles.needed("attn_q", "attn_k", "attn_v"), roles.needed("attn_output")
    if qkv.rows != (cache.heads + 2 * cache.kv_heads) * cache.k_dim or out.columns != cache.heads * cache.k_dim or cache.k_dim % 2:
        raise UsageError(f"{where}: its projections are not those of grouped-query attention", _HINT)
    layer = Layer(
        cache.heads, cache.kv_heads, cache.k_dim, cache.window if cache.kind == "sliding" else 0, qkv, out,
        q_norm=roles.norm("attn_q_norm"), k_norm=roles.norm("attn_k_norm"),
        before_attention=roles.norm("attn_norm"), after_attention=roles.norm("post_attention_norm"),
        before_ffn=roles.norm("ffn_norm"), after_ffn=roles.norm("post_ffw_norm"),
        dense=roles.block(""), router=roles.matrix("ffn_gate_inp"), correction=roles.tensors.pop("exp_probs_b.bias", None) is not None,
        routed=roles.block("_exps"), shared=roles.block("_shexp"), shared_gate=roles.matrix("ffn_gate_inp_shexp"), chosen=chosen,
    )  # fmt: skip
    if roles.tensors:
        raise UsageError(f"{where}: the decoder does not know {', '.join(sorted(roles.tensors)[:4])}", _HINT)
    if (layer.dense is None) == (layer.routed is None) or (layer.routed is None) != (layer.router is None):
        raise UsageError(f"{where}: it needs either one feed-forward block or a router with experts", _HINT)
    return layer


@lru_cache(maxsize=64)
def layout_of(architecture: Architecture) -> Layout:
    """What the decoder builds for an architecture: its text model, without towers and draft layers.

    Raises UsageError where it cannot be built (latent attention, recurrent layers, encoders …), naming what stands against it.
    """
    if architecture.kind != "decoder":
        raise UsageError(f"{architecture.name} is no decoder: a calibration runs models that write text", _HINT)
    by_layer: dict[int | None, list[Tensor]] = defaultdict(list)
    for tensor in architecture.tensors:
        if tensor.part == "text" and not tensor.role.startswith(_TABLES):
            by_layer[tensor.layer].append(tensor)
    caches = {cache.layer: cache for cache in architecture.cache_layers}
    if len(architecture.cache_layers) != architecture.layers or set(caches) != set(range(architecture.layers)):
        raise UsageError(f"{architecture.name}: not every layer has one cache of its own", _HINT)
    ends = _Roles(by_layer[None], architecture.name)
    embedding, norm, head = ends.needed("token_embd"), ends.norm("output_norm"), ends.matrix("output")
    if ends.tensors or embedding.columns != architecture.hidden_size or (head is None and not architecture.tied_embeddings):
        strange = ", ".join(sorted(ends.tensors)[:4]) or "a model without an output matrix"
        raise UsageError(f"{architecture.name}: the decoder does not know {strange}", _HINT)
    chosen = architecture.experts_per_token
    layers = tuple(_layer(by_layer[i], caches[i], chosen, f"{architecture.name}, layer {i}") for i in range(architecture.layers))
    return Layout(architecture.hidden_size, embedding.rows, layers, norm, head)
