"""Short convolutions instead of most attention (LFM2, LFM2-MoE, LFM3), or inside it (ZAYA1)."""

from __future__ import annotations

from ..architecture import Architecture, Basis, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, moe, read_shape, window_cache
from .config import Config
from .registry import family
from .ssm_blocks import factored, layer_kinds, short_conv


def _tied(c: Config) -> bool:
    """LFM2's older key for the tied embedding is the one that counts where it is there."""
    return c.flag("tie_embedding", "tie_word_embeddings", default=True)


def _with_tie(c: Config) -> Config:
    view = Config({**c.raw, "tie_word_embeddings": _tied(c)}, c.where)
    view.asked = c.asked
    return view


def _lfm2_kinds(c: Config, layers: int) -> list[str] | None:
    named, listed = layer_kinds(c, layers), c.integers("full_attn_idxs")
    if named or listed is None:
        return named
    listed_layers = frozenset(listed)
    return ["full_attention" if layer in listed_layers else "conv" for layer in range(layers)]


def _lfm2_mixer(inv: Inventory, layer: int, c: Config, s: Shape, kind: str) -> CacheLayer:
    inv.norm("attn_norm", layer, s.hidden)
    if kind == "conv":
        return short_conv(inv, layer, s.hidden, c.integer("conv_L_cache", default=3, high=1024), bias=c.flag("conv_bias"))
    attention(inv, layer, s, qk_norm="head")
    return window_cache(s, layer)


@family("lfm2")
def lfm2(c: Config) -> Architecture:
    c = _with_tie(c)
    s = read_shape(c, layers=32, hidden=2560, heads=32, kv_heads=8, vocab=65536, context=128000)
    width = c.integer("block_ff_dim", "intermediate_size", default=12288)
    if c.flag("block_auto_adjust_ff_dim", default=True):
        width = 2 * width // 3
        if c.has("block_ffn_dim_multiplier") or "block_ffn_dim_multiplier" not in c.raw:
            multiple = c.integer("block_multiple_of", default=256)
            width = -(-int(factored(c, width, "block_ffn_dim_multiplier", default=1.0)) // multiple) * multiple
    kinds = _lfm2_kinds(c, s.layers) or ["full_attention"] * s.layers

    def block(inv: Inventory, layer: int) -> CacheLayer:
        cache = _lfm2_mixer(inv, layer, c, s, kinds[layer])
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, width)
        return cache

    return decoder(c, s, block, family="lfm2", tied=True)


@family("lfm2_moe")
def lfm2_moe(c: Config) -> Architecture:
    c = _with_tie(c)
    s = read_shape(c, layers=32, hidden=2048, heads=32, kv_heads=8, vocab=65536, ffn=7168, context=128000)
    known = _lfm2_kinds(c, s.layers)
    kinds = known or ["full_attention"] * s.layers
    dense = c.integer("num_dense_layers", default=2, low=0)
    experts = c.integer("num_experts", default=32, high=65536)
    width = c.integer("moe_intermediate_size", default=1792)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        cache = _lfm2_mixer(inv, layer, c, s, kinds[layer])
        inv.norm("ffn_norm", layer, s.hidden)
        if layer < dense:
            mlp(inv, layer, s.hidden, s.ffn)
        else:
            moe(inv, layer, s.hidden, experts, width)
        return cache

    per_token = c.integer("num_experts_per_tok", default=4, high=65536)
    notes = () if known else ("the config does not say which layers are convolutions: all are counted as attention",)
    basis: Basis = "formula" if known else "fallback"
    return decoder(c, s, block, family="lfm2_moe", tied=True, experts=experts, experts_per_token=per_token, basis=basis, notes=notes)


@family("lfm3")
def lfm3(c: Config) -> Architecture:
    """Convolutions, full attention and a short sliding window in turn; norms on both sides of each part."""
    s = read_shape(c, layers=24, hidden=2048, heads=16, kv_heads=4, head_dim=128, vocab=128000, ffn=7680, context=128000)
    rule = ["full_attention" if i % 4 == 2 else "sliding_attention" if i and i % 4 == 0 else "conv" for i in range(s.layers)]
    kinds = layer_kinds(c, s.layers) or rule
    kernel, conv_bias = c.integer("conv_L_cache", default=7, high=1024), c.flag("conv_bias")
    window, bias = c.integer("sliding_window", default=256, low=0), c.flag("attention_bias")
    sandwich, gate = c.flag("use_sandwich_norm", default=True), c.flag("use_attention_gate", default=True)

    def mixer(inv: Inventory, layer: int) -> CacheLayer:
        if kinds[layer] == "conv":
            return short_conv(inv, layer, s.hidden, kernel, bias=conv_bias)
        attention(inv, layer, s, bias=bias, out_bias=bias, qk_norm="head")
        if gate:
            inv.linear("attn_gate", layer, s.heads, s.hidden)
        return window_cache(s, layer, window if kinds[layer] == "sliding_attention" else 0)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        for role in ("attn_norm", "ffn_norm") + (("attn_post_norm", "ffn_post_norm") if sandwich else ()):
            inv.norm(role, layer, s.hidden)
        cache = mixer(inv, layer)
        mlp(inv, layer, s.hidden, s.ffn)
        return cache

    return decoder(c, s, block, family="lfm3", tied=True)


@family("zaya")
def zaya(c: Config) -> Architecture:
    """ZAYA1: queries and keys pass two short convolutions, half of each value comes from the token before."""
    s = read_shape(c, layers=40, hidden=2048, heads=8, kv_heads=2, head_dim=128, vocab=262272, context=131072)
    kinds = layer_kinds(c, s.layers) or ["hybrid"] * s.layers
    first, second = c.integer("cca_time0", default=2, high=1024), c.integer("cca_time1", default=2, high=1024)
    window, bias = c.integer("sliding_window", default=0, low=0), c.flag("attention_bias")
    experts = c.integer("num_experts", default=16, high=65536)
    width, router = c.integer("moe_intermediate_size", default=2048), c.integer("router_hidden_size", default=256)
    mixed = s.q_width + s.kv_width

    def cca(inv: Inventory, layer: int) -> CacheLayer:
        inv.linear("attn_q", layer, s.q_width, s.hidden, bias)
        inv.linear("attn_k", layer, s.kv_width, s.hidden, bias)
        inv.linear("attn_v", layer, s.kv_width // 2, s.hidden, bias)
        inv.linear("attn_v_delayed", layer, s.kv_width // 2, s.hidden, bias)
        inv.add("ssm_conv1d", layer, mixed, first)
        inv.add("ssm_conv1d.bias", layer, mixed)
        inv.add("ssm_conv1d_grouped", layer, mixed, s.head_dim, second)
        inv.add("ssm_conv1d_grouped.bias", layer, mixed)
        inv.linear("attn_output", layer, s.hidden, s.q_width, bias)
        inv.add("attn_qk_temperature", layer, s.kv_heads)
        # the delayed half of the values is kept in the model's dtype too (modeling_zaya.py: ZayaCCAProjection)
        return CacheLayer(layer, "recurrent", conv_elements=mixed * (first + second - 2) + s.kv_width // 2)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        inv.cache.append(cca(inv, layer))
        inv.norm("ffn_norm", layer, s.hidden)
        _zaya_router(inv, layer, s.hidden, router, experts)
        for role, rows, columns in (("gate", width, s.hidden), ("up", width, s.hidden), ("down", s.hidden, width)):
            inv.add(f"ffn_{role}_exps", layer, rows, columns, experts=experts)
        for after in ("attn", "ffn"):
            for role in ("scale", "bias", "residual_scale", "residual_bias"):
                inv.add(f"{after}_res_{role}", layer, s.hidden)
        return window_cache(s, layer, window if kinds[layer] == "hybrid_sliding" else 0)

    def before(inv: Inventory) -> None:
        inv.add("token_embd_scale", None, s.hidden)
        inv.add("token_embd_bias", None, s.hidden)

    per_token = c.integer("num_experts_per_tok", default=1, high=65536)
    head_bias = c.flag("lm_head_bias")
    return decoder(
        c, s, block, family="zaya", tied=True, head_bias=head_bias, before=before, experts=experts, experts_per_token=per_token
    )


def _zaya_router(inv: Inventory, layer: int, hidden: int, width: int, experts: int) -> None:
    """A router of three layers that also reads the states of the router before; one class more than experts means none."""
    inv.linear("ffn_gate_inp_down", layer, width, hidden, bias=True)
    if layer:
        inv.add("ffn_gate_inp_scale", layer, width)
    inv.norm("ffn_gate_inp_norm", layer, width)
    inv.linear("ffn_gate_inp_fc1", layer, width, width, bias=True)
    inv.linear("ffn_gate_inp_fc2", layer, width, width, bias=True)
    inv.linear("ffn_gate_inp", layer, experts + 1, width)
