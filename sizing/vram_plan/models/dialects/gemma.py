"""Gemma: sandwich norms, alternating windows, and from 3n on embeddings a layer and caches shared between layers.

Facts: transformers 5.23, models/gemma*/configuration_*.py and modeling_*.py; role names: llama.cpp, src/llama-arch.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...errors import FormatError
from ...values import dataclass
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, decoder, mlp
from .config import MAX_LAYERS, Config
from .plain import NORMS, SANDWICH, Plain, defaulted, llama_shape, read_plain, register
from .registry import family
from .windows import Windows, layer_kinds

_SMALL = {"layers": 26, "hidden": 2304, "heads": 8, "kv_heads": 4, "head_dim": 256, "ffn": 9216, "context": 8192}
GEMMA2 = Plain({**_SMALL, "vocab": 256000}, norms=SANDWICH, tied=True, windows=Windows(4096, full_every=2))

register(
    {
        "gemma": Plain(
            {**_SMALL, "layers": 28, "hidden": 3072, "heads": 16, "kv_heads": 16, "vocab": 256000, "ffn": 24576}, tied=True
        ),
        "gemma2": GEMMA2,
        "vaultgemma": replace(GEMMA2, norms=NORMS),
    }
)


@family("gemma3_text")
def gemma3_text(c: Config) -> Architecture:
    """Gemma 3: five windowed layers to a full one; the embedding model's two-sided window is kept halved."""
    size = 4096
    if c.flag("use_bidirectional_attention"):
        c = Config({**c.raw, "sliding_window": c.integer("sliding_window", default=size, high=1 << 40) // 2 + 1}, c.where)
    defaults = {**_SMALL, "vocab": 262208, "context": 131072}
    plain = Plain(defaults, norms=SANDWICH, qk_norm="head", tied=True, windows=Windows(size, full_every=6, named=True))
    return read_plain(c, plain, "gemma3_text")


@dataclass(frozen=True)
class _Layer:
    """One layer's attention: its kind, sizes, and the layer whose cache it reads (None: its own)."""

    kind: str
    kv_heads: int
    head_dim: int
    source: int | None


def _sources(c: Config, kinds: list[str]) -> list[int | None]:
    """The last `num_kv_shared_layers` layers read the cache of the last earlier layer of their kind."""
    shared = c.integer("num_kv_shared_layers", default=0, low=0, high=MAX_LAYERS)
    own = len(kinds) - shared
    if shared and (own <= 0 or set(kinds[:own]) != set(kinds)):
        raise FormatError(f"{c.where}: num_kv_shared_layers is {shared}; no earlier layer has a cache of each kind to share")
    last = {kind: layer for layer, kind in enumerate(kinds[:own])}
    return [None if layer < own else last[kind] for layer, kind in enumerate(kinds)]


def _attention(inv: Inventory, layer: int, s: Shape, a: _Layer, window: int, *, bias: bool, k_is_v: bool) -> CacheLayer:
    """Attention with a norm on Q and K; a layer that reads another's cache has no K and V of its own."""
    inv.linear("attn_q", layer, s.heads * a.head_dim, s.hidden, bias)
    inv.norm("attn_q_norm", layer, a.head_dim)
    if a.source is None:
        inv.linear("attn_k", layer, a.kv_heads * a.head_dim, s.hidden, bias)
        inv.norm("attn_k_norm", layer, a.head_dim)
        if not k_is_v:
            inv.linear("attn_v", layer, a.kv_heads * a.head_dim, s.hidden, bias)
    inv.linear("attn_output", layer, s.hidden, s.heads * a.head_dim, bias)
    sizes = (s.heads, a.kv_heads, a.head_dim, a.head_dim)
    if a.source is not None:
        return CacheLayer(layer, "shared", *sizes, source=a.source)
    return CacheLayer(layer, "sliding" if window else "full", *sizes, window)


def _layer_embeddings(inv: Inventory, c: Config, s: Shape, width: int) -> None:
    """The table of per-layer embeddings with its projection from the hidden state."""
    vocab = c.integer("vocab_size_per_layer_input", default=262144)
    inv.add("per_layer_token_embd", None, vocab, s.layers * width)
    inv.add("per_layer_model_proj", None, s.layers * width, s.hidden)
    inv.norm("per_layer_proj_norm", None, width)


def _layer_input(inv: Inventory, layer: int, s: Shape, width: int) -> None:
    inv.linear("inp_gate", layer, width, s.hidden)
    inv.linear("proj", layer, s.hidden, width)
    inv.norm("post_norm", layer, s.hidden)


@family("gemma3n_text")
def gemma3n_text(c: Config) -> Architecture:
    """Gemma 3n: four parallel streams (AltUp), low-rank shortcuts (Laurel), embeddings a layer, shared caches."""
    widths = c.integers("intermediate_size", low=1)
    flat = Config({**c.raw, "intermediate_size": widths[0] if widths else c.get("intermediate_size")}, c.where)
    s = llama_shape(flat, {**_SMALL, "layers": 35, "hidden": 2048, "kv_heads": 2, "vocab": 262400, "ffn": 16384, "context": 32768})
    if widths and len(widths) < s.layers:
        raise FormatError(f"{c.where}: intermediate_size lists {len(widths)} widths for {s.layers} layers")
    kinds = layer_kinds(c, s.layers, Windows(512, full_every=5))
    sources = _sources(defaulted(c, num_kv_shared_layers=15), kinds)
    window = Windows(512).window(c)
    streams, rank = c.integer("altup_num_inputs", default=4, high=64), c.integer("laurel_rank", default=64)
    width = c.integer("hidden_size_per_layer_input", default=256)
    bias = c.flag("attention_bias")

    def before(inv: Inventory) -> None:
        _layer_embeddings(inv, c, s, width)
        for role in ("altup_proj", "altup_unembd_proj"):
            inv.add(role, None, streams - 1, s.hidden, s.hidden)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        for role in SANDWICH:
            inv.norm(role, layer, s.hidden)
        a = _Layer(kinds[layer], s.kv_heads, s.head_dim, sources[layer])
        cache = _attention(inv, layer, s, a, window if a.kind == "sliding_attention" else 0, bias=bias, k_is_v=False)
        mlp(inv, layer, s.hidden, widths[layer] if widths else s.ffn)
        inv.add("altup_correct_scale", layer, s.hidden)
        inv.add("altup_correct_coef", layer, streams, streams)
        inv.add("altup_predict_coef", layer, streams * streams, streams)
        inv.add("altup_router", layer, streams, s.hidden)
        inv.norm("altup_router_norm", layer, s.hidden)
        inv.linear("laurel_l", layer, rank, s.hidden)
        inv.linear("laurel_r", layer, s.hidden, rank)
        inv.norm("laurel_post_norm", layer, s.hidden)
        _layer_input(inv, layer, s, width)
        return cache

    return decoder(c, s, block, family="gemma3n_text", tied=True, before=before)


def _gemma4_layers(c: Config, s: Shape, k_is_v: bool) -> list[_Layer]:
    kinds = layer_kinds(c, s.layers, Windows(512, full_every=6))
    kinds[-1] = "full_attention"
    full = (c.optional("num_global_key_value_heads", low=1, high=65536) if k_is_v else None) or s.kv_heads
    head_dim = c.integer("global_head_dim", default=512, high=65536)
    overrides = _overrides(c)
    found = []
    for layer, (kind, source) in enumerate(zip(kinds, _sources(c, kinds), strict=True)):
        sizes = (s.kv_heads, s.head_dim) if kind == "sliding_attention" or overrides is not None else (full, head_dim)
        own = (overrides or {}).get(layer)
        if own:
            kv_heads = own.integer("num_key_value_heads", default=sizes[0], high=65536)
            sizes = (kv_heads, own.integer("head_dim", default=sizes[1], high=65536))
        found.append(_Layer(kind, *sizes, source))
    return found


def _overrides(c: Config) -> Mapping[int, Config] | None:
    """`per_layer_config`, which newer files list in place of the global sizes: {"05": {"head_dim": 512}, …}."""
    listed = c.section("per_layer_config")
    if listed is None:
        return None
    return {int(k): v for k in listed.raw if isinstance(k, str) and k.isascii() and k.isdigit() and len(k) < 6 and (v := listed.section(k))}


def _gemma4_experts(inv: Inventory, layer: int, c: Config, s: Shape, experts: int) -> None:
    """Routed experts beside the dense block, with three norms and the router's scales."""
    width = c.integer("moe_intermediate_size")
    inv.linear("ffn_gate_inp", layer, experts, s.hidden)
    inv.add("ffn_gate_inp.scale", layer, s.hidden)
    inv.add("ffn_down_exps.scale", layer, experts)
    inv.add("ffn_gate_up_exps", layer, 2 * width, s.hidden, experts=experts)
    inv.add("ffn_down_exps", layer, s.hidden, width, experts=experts)
    for role in ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"):
        inv.norm(role, layer, s.hidden)


@family("gemma4_text", "gemma4_unified_text")
def gemma4_text(c: Config) -> Architecture:
    """Gemma 4: full layers with heads of their own size, K doubling as V, experts beside the dense block, shared caches.

    The small models' readers of another layer's cache may have a feed-forward block twice as wide.
    """
    unified = c.text("model_type") == "gemma4_unified_text"
    s = llama_shape(c, {**_SMALL, "layers": 30, "vocab": 262144, "context": 262144 if unified else 131072})
    k_is_v, wide, bias = c.flag("attention_k_eq_v"), c.flag("use_double_wide_mlp"), c.flag("attention_bias")
    layers = _gemma4_layers(c, s, k_is_v)
    window = Windows(1024 if unified else 512).window(c)
    if c.text("use_bidirectional_attention") == "all":
        window = window // 2 + 1
    width = 0 if unified else c.integer("hidden_size_per_layer_input", default=256, low=0)
    experts = c.integer("num_experts", high=65536) if c.flag("enable_moe_block") else 0

    def block(inv: Inventory, layer: int) -> CacheLayer:
        a = layers[layer]
        sliding = a.kind == "sliding_attention"
        for role in SANDWICH:
            inv.norm(role, layer, s.hidden)
        cache = _attention(inv, layer, s, a, window if sliding else 0, bias=bias, k_is_v=k_is_v and not sliding)
        mlp(inv, layer, s.hidden, s.ffn * (2 if wide and a.source is not None else 1))
        if width:
            _layer_input(inv, layer, s, width)
        if experts:
            _gemma4_experts(inv, layer, c, s, experts)
        return cache

    return decoder(
        c,
        s,
        block,
        family="gemma4_text",
        tied=True,
        before=(lambda inv: _layer_embeddings(inv, c, s, width)) if width else None,
        experts=experts,
        experts_per_token=c.integer("top_k_experts", default=1, high=65536) if experts else 0,
    )
