"""Decoders with routed experts whose layers alternate between full attention and windows or chunks.

Source: transformers 5.23.0, models/<family>/{configuration,modeling}_<family>.py.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, decoder, read_shape, window_cache
from .config import Config
from .moe import qwen_sparse
from .moe_defaults import with_defaults
from .registry import family
from .routed import (
    Style,
    dense_prefix,
    feed_forward,
    layer_kinds,
    layer_windows,
    next_n,
    read_experts,
    routed_decoder,
    routed_layer,
    with_draft,
)

#: The norms of a layer that norms what its blocks put out as well as what they read.
_SANDWICH = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")


@family("llama4_text")
def llama4_text(c: Config) -> Architecture:
    """Llama 4: chunked attention but in every fourth layer; experts in every layer (Scout) or every second (Maverick)."""
    c = with_defaults(c, "llama4_text")
    s = read_shape(c)
    step = c.integer("interleave_moe_layer_step", high=65536)
    listed = c.integers("moe_layers")
    routes = set(listed if listed is not None else range(step - 1, s.layers, step))
    x = read_experts(
        c, s, sparse=[layer in routes for layer in range(s.layers)], width=s.ffn, shared=s.ffn, dense=c.integer("intermediate_size_mlp")
    )
    chunk = c.integer("attention_chunk_size", default=0, low=0, high=1 << 40)
    kinds = layer_kinds(c, "layer_types", s.layers)
    roped = layer_kinds(c, "no_rope_layers", s.layers)
    every = c.integer("no_rope_layer_interval", high=65536)
    style = Style().biased(c)

    def chunked(layer: int) -> bool:
        if kinds:
            return bool(kinds[layer] == "chunked_attention")
        return bool(roped[layer]) if roped else (layer + 1) % every != 0

    def block(inv: Inventory, layer: int) -> CacheLayer:
        routed_layer(inv, layer, s, x, style, x.sparse[layer])
        return window_cache(s, layer, chunk if chunked(layer) else 0, "chunked")

    return decoder(c, s, block, family="llama4_text", experts=x.count, experts_per_token=x.per_token)


@family("afmoe")
def afmoe(c: Config) -> Architecture:
    """Arcee Trinity: gated attention, four norms, windows but in every n-th layer."""
    c = with_defaults(c, "afmoe")
    s = read_shape(c)
    every = c.integer("global_attn_every_n_layers", high=65536)
    windows = layer_windows(c, s, lambda layer: (layer + 1) % every != 0)
    style = Style(qk_norm="head", gate="full", norms=_SANDWICH, correction=True).biased(c)
    return routed_decoder(c, s, read_experts(c, s), style, family="afmoe", windows=windows)


@family("exaone_moe")
def exaone_moe(c: Config) -> Architecture:
    """K-EXAONE; its MTP layer has a dense block and shares embedding and head."""
    c = with_defaults(c, "exaone_moe")
    s = read_shape(c)
    x = read_experts(c, s)
    every = c.get("sliding_window_pattern")
    every = len(every) if isinstance(every, str) and every else c.integer("sliding_window_pattern", default=0, low=0, high=65536)
    windows = layer_windows(c, s, lambda layer: every == 0 or (layer + 1) % every != 0)
    style = Style(qk_norm="head")
    draft = next_n(c, s, lambda inv, layer: routed_layer(inv, layer, s, x, style, False), copies="none")
    return routed_decoder(c, s, x, style, family="exaone_moe", windows=windows, draft=draft)


@family("beam")
def beam(c: Config) -> Architecture:
    c = with_defaults(c, "beam")
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 3))
    windows = layer_windows(c, s, lambda layer: (layer + 1) % 6 != 0 and layer != s.layers - 1)
    style = Style(qk_norm="head", gate="full", gate_bias=True, norms=_SANDWICH).biased(c)
    return routed_decoder(c, s, x, style, family="beam", windows=windows)


@family("flint")
def flint(c: Config) -> Architecture:
    c = with_defaults(c, "flint")
    s = read_shape(c)
    sparse = qwen_sparse(c, s)
    if c.get("mlp_only_layers") is None:
        sparse = (False, False, *sparse[2:])[: s.layers]
    x = read_experts(c, s, sparse=sparse, shared=c.integer("shared_expert_intermediate_size", default=0, low=0))
    windows = layer_windows(c, s, lambda layer: layer > 1 and layer % 4 != 1 and layer != s.layers - 1)
    return routed_decoder(c, s, x, Style(qk_norm="head", sinks=True).biased(c), family="flint", windows=windows)


@family("kolibri1")
def kolibri1(c: Config) -> Architecture:
    c = with_defaults(c, "kolibri1")
    s = read_shape(c)
    x = read_experts(c, s, sparse=[True] * s.layers, shared=c.integer("shared_expert_intermediate_size", default=0, low=0))
    windows = layer_windows(c, s, lambda layer: (layer + 1) % 5 != 0)
    return routed_decoder(c, s, x, Style(qk_norm="head", norms=_SANDWICH), family="kolibri1", windows=windows)


@family("laguna")
def laguna(c: Config) -> Architecture:
    """Query heads differ by layer; a gate a head (`gating` true or "per-head") or over the full width."""
    c = with_defaults(c, "laguna")
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 1), shared=c.integer("shared_expert_intermediate_size", default=0, low=0))
    per_head = c.get("gating") is True or c.get("gating") in (1, "per-head")
    style = Style(qk_norm="head", gate="head" if per_head else "full", correction=True).biased(c)
    windows = layer_windows(c, s, lambda layer: False)
    heads = c.integers("num_attention_heads_per_layer", low=1, high=65536) if _listed(c, s, "num_attention_heads_per_layer") else ()
    return routed_decoder(c, s, x, style, family="laguna", windows=windows, heads=heads or ())


def _listed(c: Config, s: Shape, key: str) -> bool:
    """True when a list speaks of every layer; FormatError when it is too short."""
    return layer_kinds(c, key, s.layers) is not None


@family("mellum")
def mellum(c: Config) -> Architecture:
    c = with_defaults(c, "mellum")
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 0))
    windows = layer_windows(c, s, lambda layer: False)
    return routed_decoder(c, s, x, Style(qk_norm="head").biased(c), family="mellum", windows=windows)


@family("cohere2_moe")
def cohere2_moe(c: Config) -> Architecture:
    """Command's parallel blocks under one norm; a dense prefix with a window rhythm of its own."""
    c = with_defaults(c, "cohere2_moe")
    s = read_shape(c)
    first = c.integer("first_k_dense_replace", default=0, low=0)
    before = c.integer("prefix_dense_sliding_window_pattern", default=1, high=65536)
    after = c.integer("sliding_window_pattern", default=4, high=65536)
    windows = layer_windows(c, s, lambda layer: (layer + 1) % before != 0 if layer < first else (layer - first + 1) % after != 0)
    x = read_experts(
        c, s, width=s.ffn, shared=s.ffn * c.integer("num_shared_experts", default=0, low=0, high=65536),
        dense=c.integer("prefix_dense_intermediate_size", default=s.ffn),
    )  # fmt: skip
    return routed_decoder(c, s, x, Style(norms=("attn_norm",)).biased(c), family="cohere2_moe", windows=windows)


@family("mimo_v2_flash")
def mimo_v2_flash(c: Config) -> Architecture:
    """MiMo-V2-Flash: values narrower than keys; window layers have twice the key-value heads (or their own) and sinks.

    A published `sliding_window_size` counts the tokens before the current one, transformers' `sliding_window` that one too.
    """
    c = with_defaults(c, "mimo_v2_flash")
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 1))
    before = c.optional("sliding_window_size")
    rhythm = layer_kinds(c, "hybrid_layer_pattern", s.layers)
    windows = layer_windows(
        c, s, lambda layer: bool(rhythm[layer]) if rhythm else layer != 0 and (layer + 1) % 6 != 0, before + 1 if before else None
    )
    v_dim = c.integer("v_head_dim", high=65536)
    near = replace(
        s,
        heads=c.integer("swa_num_attention_heads", default=s.heads, high=65536),
        kv_heads=c.integer("swa_num_key_value_heads", default=2 * s.kv_heads, high=65536),
        head_dim=c.integer("swa_head_dim", default=s.head_dim, high=65536),
    )
    near_v = c.integer("swa_v_head_dim", default=v_dim, high=65536)
    bias = c.flag("attention_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        at, value = (near, near_v) if windows[layer] else (s, v_dim)
        inv.linear("attn_q", layer, at.q_width, s.hidden, bias)
        inv.linear("attn_k", layer, at.kv_width, s.hidden, bias)
        inv.linear("attn_v", layer, at.kv_heads * value, s.hidden, bias)
        inv.linear("attn_output", layer, s.hidden, at.heads * value)
        if windows[layer]:
            inv.add("attn_sinks", layer, at.heads)
        inv.norm("attn_norm", layer, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        feed_forward(inv, layer, s.hidden, x, Style(), x.sparse[layer])
        return window_cache(at, layer, windows[layer])._replace(v_dim=value)

    return decoder(c, s, block, family="mimo_v2_flash", experts=x.count, experts_per_token=x.per_token)


@family("step3p5")
def step3p5(c: Config) -> Architecture:
    """Step 3.5 and 3.7: a gate per head, more query heads in window layers, dense MTP layers with a head of their own."""
    c = with_defaults(c, "step3p5")
    s = replace(read_shape(c), kv_heads=c.integer("num_attention_groups", "num_key_value_heads", high=65536))
    routes = _enumerated(c)
    sparse = None if c.has("mlp_layer_types") else [layer in routes if routes else layer > 2 for layer in range(s.layers)]
    x = read_experts(c, s, sparse=sparse, shared=c.integer("share_expert_dim", "share_expert_dims", default=0, low=0))
    style = Style(qk_norm="head", gate="head", ffn_bias=c.flag("mlp_bias")).biased(c)
    windows = layer_windows(c, s, lambda layer: False)
    other = c.section("attention_other_setting")
    near = c.integer("num_sliding_attention_heads", default=other.integer("num_attention_heads", default=s.heads) if other else s.heads)
    heads = [near if window else s.heads for window in windows]
    draft = next_n(c, s, lambda inv, layer: routed_layer(inv, layer, replace(s, heads=near), x, style, False), copies="head")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        at = replace(s, heads=heads[layer])
        routed_layer(inv, layer, at, x, style, x.sparse[layer])
        return window_cache(at, layer, windows[layer])

    return decoder(c, s, with_draft(block, s.layers, draft), family="step3p5", experts=x.count, experts_per_token=x.per_token)


def _enumerated(c: Config) -> set[int]:
    """`moe_layers_enum`: the routed layers as a list, or as text with commas."""
    text = c.text("moe_layers_enum")
    if text:
        return {int(part) for part in text.split(",") if part.strip().isdecimal()}
    return set(c.integers("moe_layers_enum") or ())
