"""What decoders with routed experts share: which layers route, what a layer caches, and the layer most of them are.

A router's correction bias is listed only where the checkpoint counts it as a parameter; DeepSeek-V3 and most that follow it
keep it in a buffer (256 numbers a layer).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from ...errors import FormatError
from ...values import dataclass
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, moe, window_cache
from .config import Config

__all__ = [
    "Copies",
    "Experts",
    "Style",
    "dense_prefix",
    "feed_forward",
    "first_number",
    "gqa_draft",
    "layer_kinds",
    "layer_windows",
    "next_n",
    "read_experts",
    "routed_decoder",
    "routed_layer",
    "with_draft",
]

_COUNT = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "moe_topk", "moe_top_k")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
#: Words `mlp_layer_types` uses for a layer with experts.
_SPARSE = ("sparse", "moe", "hash_moe")


#: What of the embedding and the head an MTP layer's part of the files repeats.
Copies = Literal["both", "embedding", "head", "none"]


@dataclass(frozen=True)
class Experts:
    """The routed experts of a model: `sparse` says for each layer whether it has them or a dense block of width `dense`.

    `shared` is the width of the experts every token uses, taken together.
    """

    count: int
    per_token: int
    width: int
    shared: int
    dense: int
    sparse: tuple[bool, ...]


@dataclass(frozen=True)
class Style:
    """How a family's layers differ from Mixtral's. `norms` stand in the order of the layer's weights."""

    qk_norm: Literal["", "head", "full"] = ""
    bias: bool = False
    out_bias: bool = False
    gate: Literal["", "head", "full"] = ""
    gate_bias: bool = False
    sinks: bool = False
    norms: tuple[str, ...] = ("attn_norm", "ffn_norm")
    norm_bias: bool = False
    ffn_bias: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    correction: bool = False
    shared_gate: bool = False
    head_bias: bool = False

    def biased(self, c: Config, *, out: bool = True) -> Style:
        """With `attention_bias` as most families mean it: on query, key and value, and with `out` on the output too."""
        bias = c.flag("attention_bias")
        return replace(self, bias=bias, out_bias=bias and out)


def first_number(c: Config, *keys: str, default: int | None = None, low: int = 0, high: int = 65536) -> int:
    """The first of `keys` that is there; where it is a list with one number a layer, its first."""
    for key in keys:
        found = c.integers(key, low=low, high=high)
        if found:
            return found[0]
    return c.integer(*keys, default=default, low=low, high=high) if default is not None else c.integer(*keys, low=low, high=high)


def layer_kinds(c: Config, key: str, layers: int) -> list[Any] | None:
    """A list that says something of every layer, or None; entries past the last layer (MTP) are cut.

    Raises FormatError when it is shorter than the model.
    """
    found = c.items(key)
    if not found:
        return None
    if len(found) < layers:
        raise FormatError(f"{c.where}: {key} speaks of {len(found)} layers, num_hidden_layers of {layers}")
    return found[:layers]


def dense_prefix(c: Config, layers: int, default: int = 0) -> tuple[bool, ...]:
    """Which layers route, by `mlp_layer_types`, a list `moe_layer_freq`, or `first_k_dense_replace` and every n-th of the rest."""
    kinds = layer_kinds(c, "mlp_layer_types", layers)
    if kinds:
        return tuple(kind in _SPARSE for kind in kinds)
    listed = layer_kinds(c, "moe_layer_freq", layers)
    if listed:
        return tuple(bool(entry) for entry in listed)
    first = c.integer("first_k_dense_replace", "num_dense_layers", default=default, low=0)
    every = c.integer("moe_layer_freq", default=1, high=4096)
    return tuple(layer >= first and layer % every == 0 for layer in range(layers))


def read_experts(
    c: Config,
    s: Shape,
    *,
    sparse: Sequence[bool] | None = None,
    width: int | None = None,
    shared: int | None = None,
    dense: int | None = None,
) -> Experts:
    """The experts under their usual keys. By default a shared expert is as wide as a routed one."""
    each = width if width is not None else first_number(c, "moe_intermediate_size", default=s.ffn, low=1, high=1 << 27)
    count = first_number(c, *_COUNT, default=0)
    return Experts(
        count=count,
        per_token=first_number(c, *_TOP_K, default=min(2, count)),
        width=each,
        shared=shared if shared is not None else each * first_number(c, *_SHARED, default=0),
        dense=s.ffn if dense is None else dense,
        sparse=tuple(sparse) if sparse is not None else dense_prefix(c, s.layers),
    )


def feed_forward(inv: Inventory, layer: int, hidden: int, x: Experts, style: Style, sparse: bool) -> None:
    """One layer's feed-forward part: dense, or router, experts and shared experts."""
    if not sparse or not x.count:
        mlp(inv, layer, hidden, x.dense, bias=style.ffn_bias)
        return
    moe(inv, layer, hidden, x.count, x.width, bias=style.expert_bias, router_bias=style.correction)
    if style.router_bias:
        inv.add("ffn_gate_inp.bias", layer, x.count)
    if x.shared:
        mlp(inv, layer, hidden, x.shared, bias=style.ffn_bias, suffix="_shexp")
        if style.shared_gate:
            inv.add("ffn_gate_inp_shexp", layer, 1, hidden)


def layer_windows(c: Config, s: Shape, slides: Callable[[int], bool] | None = None, window: int | None = None) -> list[int]:
    """Each layer's window, 0 for full attention.

    By `layer_types`, else by the family's rule `slides`, else the window holds for all layers, as transformers' cache does.
    """
    size = c.integer("sliding_window", "sliding_window_size", default=0, low=0, high=1 << 40) if window is None else window
    kinds = layer_kinds(c, "layer_types", s.layers)
    if kinds:
        return [size if isinstance(kind, str) and "sliding" in kind else 0 for kind in kinds]
    return [size if slides is None or slides(layer) else 0 for layer in range(s.layers)]


def routed_decoder(
    c: Config,
    s: Shape,
    x: Experts,
    style: Style,
    *,
    family: str,
    windows: Sequence[int] = (),
    heads: Sequence[int] = (),
    draft: Callable[[Inventory], None] | None = None,
) -> Architecture:
    """Grouped-query attention, then experts or a dense block, in every layer. `heads`: query heads where layers differ.

    `draft` adds the MTP layers.
    """

    def block(inv: Inventory, layer: int) -> CacheLayer:
        at = replace(s, heads=heads[layer]) if heads else s
        routed_layer(inv, layer, at, x, style, x.sparse[layer])
        return window_cache(at, layer, windows[layer] if windows else 0)

    return decoder(
        c, s, with_draft(block, s.layers, draft), family=family, norm_bias=style.norm_bias, head_bias=style.head_bias,
        experts=x.count, experts_per_token=x.per_token,
    )  # fmt: skip


def routed_layer(inv: Inventory, layer: int, s: Shape, x: Experts, style: Style, sparse: bool) -> None:
    """The weights of one layer of `routed_decoder`."""
    attention(inv, layer, s, bias=style.bias, out_bias=style.out_bias, qk_norm=style.qk_norm)
    if style.gate:
        inv.linear("attn_gate", layer, s.heads if style.gate == "head" else s.q_width, s.hidden)
    if style.gate_bias:
        inv.add("attn_gate.bias", layer, s.heads)
    if style.sinks:
        inv.add("attn_sinks", layer, s.heads)
    for name in style.norms:
        inv.norm(name, layer, s.hidden, style.norm_bias)
    feed_forward(inv, layer, s.hidden, x, style, sparse)


def with_draft(
    block: Callable[[Inventory, int], CacheLayer | None], layers: int, draft: Callable[[Inventory], None] | None
) -> Callable[[Inventory, int], CacheLayer | None]:
    """`block`, with the draft layers' weights added after the last layer's and marked as MTP; they add no cache here."""
    if draft is None:
        return block

    def wrapped(inv: Inventory, layer: int) -> CacheLayer | None:
        cache = block(inv, layer)
        if layer == layers - 1:
            part, inv.part = inv.part, "mtp"
            draft(inv)
            inv.part = part
        return cache

    return wrapped


def gqa_draft(c: Config, s: Shape, x: Experts, style: Style, copies: Copies = "both") -> Callable[[Inventory], None] | None:
    """Next-n layers that are one more layer of `routed_decoder` with experts (GLM-4.5)."""
    return next_n(c, s, lambda inv, layer: routed_layer(inv, layer, s, x, style, True), copies=copies)


def next_n(
    c: Config, s: Shape, layer_weights: Callable[[Inventory, int], object], *, copies: Copies = "both"
) -> Callable[[Inventory], None] | None:
    """DeepSeek's next-n layers: three norms, a projection, one whole layer, and `copies` of the embedding and the head.

    Source: DeepSeek-V3's weight layout, README_WEIGHTS; llama.cpp, src/models/glm4-moe.cpp.
    """
    count = c.integer("num_nextn_predict_layers", "num_mtp_layers", default=0, low=0, high=64)
    if not count:
        return None

    def draft(inv: Inventory) -> None:
        for layer in range(s.layers, s.layers + count):
            inv.linear("nextn.eh_proj", layer, s.hidden, 2 * s.hidden)
            inv.norm("nextn.enorm", layer, s.hidden)
            inv.norm("nextn.hnorm", layer, s.hidden)
            inv.norm("nextn.shared_head_norm", layer, s.hidden)
            if copies in ("both", "embedding"):
                inv.add("nextn.embed_tokens", layer, s.vocab, s.hidden)
            if copies in ("both", "head"):
                inv.linear("nextn.shared_head_head", layer, s.vocab, s.hidden)
            layer_weights(inv, layer)

    return draft
