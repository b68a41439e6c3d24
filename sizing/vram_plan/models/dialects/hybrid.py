"""Attention mixed with Mamba: Jamba, Bamba, Falcon-H1, Zamba, Zamba 2, Granite 4 hybrid, PLaMo 2."""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, moe, read_shape, window_cache
from .config import MAX_LAYERS, Config
from .registry import family
from .ssm_blocks import Mamba2, factored, layer_kinds, mamba1, mamba2, mamba_rank


def _mamba2_sizes(c: Config, hidden: int, inner: int, *, norm: bool = True, out_bias: bool | None = None) -> Mamba2:
    """A Mamba-2 mixer by Bamba's keys; a head size of "auto" is `inner` ÷ heads, and the other way round."""
    if c.get("mamba_n_heads") == "auto":
        head_dim = c.integer("mamba_d_head", default=64, high=65536)
        heads = max(inner // head_dim, 1)
    else:
        heads = c.integer("mamba_n_heads", default=128, high=1 << 20)
        head_dim = max(inner // heads, 1) if c.get("mamba_d_head") in ("auto", None) else c.integer("mamba_d_head", high=1 << 20)
    return Mamba2(
        hidden,
        heads,
        head_dim,
        groups=c.integer("mamba_n_groups", default=1, high=65536),
        state=c.integer("mamba_d_state", default=256),
        kernel=c.integer("mamba_d_conv", default=4, high=1024),
        bias=c.flag("mamba_proj_bias"),
        out_bias=out_bias,
        conv_bias=c.flag("mamba_conv_bias", default=True),
        norm=norm,
    )


@family("jamba")
def jamba(c: Config) -> Architecture:
    s = read_shape(c, layers=32, hidden=4096, heads=32, kv_heads=8, vocab=65536, ffn=14336, context=262144)
    inner = int(factored(c, s.hidden, "mamba_expand", default=2))
    state, kernel = c.integer("mamba_d_state", default=16), c.integer("mamba_d_conv", default=4, high=1024)
    rank = mamba_rank(c, s.hidden, "mamba_dt_rank")
    bias, conv_bias = c.flag("mamba_proj_bias"), c.flag("mamba_conv_bias", default=True)
    period, offset = c.integer("attn_layer_period", default=8), c.integer("attn_layer_offset", default=4, low=0)
    moe_period, moe_offset = c.integer("expert_layer_period", default=2), c.integer("expert_layer_offset", default=1, low=0)
    experts = c.integer("num_experts", "num_local_experts", default=16, high=65536)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        if layer % period == offset:
            attention(inv, layer, s)
            cache = window_cache(s, layer)
        else:
            cache = mamba1(inv, layer, s.hidden, inner, state, kernel, rank, bias=bias, conv_bias=conv_bias, norms=True)
        inv.norm("ffn_norm", layer, s.hidden)
        if experts > 1 and layer % moe_period == moe_offset:
            moe(inv, layer, s.hidden, experts, s.ffn)
        else:
            mlp(inv, layer, s.hidden, s.ffn)
        return cache

    routed = experts if experts > 1 else 0
    per_token = c.integer("num_experts_per_tok", default=2, high=65536) if routed else 0
    return decoder(c, s, block, family="jamba", experts=routed, experts_per_token=per_token)


@family("bamba")
def bamba(c: Config) -> Architecture:
    s = read_shape(c, layers=32, hidden=4096, heads=32, vocab=128000, ffn=14336, context=262144, **_kv_default(c, 8))
    m = _mamba2_sizes(c, s.hidden, int(factored(c, s.hidden, "mamba_expand", default=2)))
    with_attention = frozenset(c.integers("attn_layer_indices") or ())
    bias, mlp_bias = c.flag("attention_bias"), c.flag("mlp_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        if layer in with_attention:
            attention(inv, layer, s, bias=bias, out_bias=bias)
            cache = window_cache(s, layer)
        else:
            cache = mamba2(inv, layer, m)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn, bias=mlp_bias)
        return cache

    return decoder(c, s, block, family="bamba")


@family("falcon_h1")
def falcon_h1(c: Config) -> Architecture:
    """Every layer has attention and a Mamba-2 mixer side by side."""
    s = read_shape(c, layers=32, hidden=4096, heads=32, vocab=128000, ffn=14336, context=8192, **_kv_default(c, 8))
    expanded = int(factored(c, s.hidden, "mamba_expand", default=2))
    inner = c.integer("mamba_d_ssm", default=expanded if "mamba_d_ssm" in c.raw else 1024)
    m = _mamba2_sizes(c, s.hidden, inner, norm=c.flag("mamba_rms_norm"), out_bias=c.flag("projectors_bias"))
    bias, mlp_bias = c.flag("attention_bias"), c.flag("mlp_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        inv.cache.append(mamba2(inv, layer, m))
        attention(inv, layer, s, bias=bias, out_bias=bias)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn, bias=mlp_bias)
        return window_cache(s, layer)

    return decoder(c, s, block, family="falcon_h1")


@family("granitemoehybrid")
def granite_hybrid(c: Config) -> Architecture:
    """Granite 4: Mamba-2 or attention, then a dense block with or without routed experts beside it."""
    s = read_shape(c, layers=32, hidden=4096, heads=32, vocab=32000, ffn=11008, context=2048)
    m = _mamba2_sizes(c, s.hidden, int(factored(c, s.hidden, "mamba_expand", default=2)))
    kinds = layer_kinds(c, s.layers) or ["linear_attention"] * s.layers
    experts = c.integer("num_local_experts", default=8, low=0, high=65536)
    shared, bias = c.integer("shared_intermediate_size", default=1024), c.flag("attention_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        if kinds[layer] == "linear_attention":
            cache = mamba2(inv, layer, m)
        else:
            attention(inv, layer, s, bias=bias, out_bias=bias)
            cache = window_cache(s, layer)
        inv.norm("ffn_norm", layer, s.hidden)
        if experts:
            moe(inv, layer, s.hidden, experts, s.ffn, shared=shared)
        else:
            mlp(inv, layer, s.hidden, shared)
        return cache

    per_token = c.integer("num_experts_per_tok", default=2, low=0, high=65536) if experts else 0
    return decoder(c, s, block, family="granitemoehybrid", experts=experts, experts_per_token=per_token)


def _kv_default(c: Config, kv_heads: int) -> dict[str, int]:
    """The class default of KV heads, which an explicit null takes back: then there are as many as query heads."""
    return {} if "num_key_value_heads" in c.raw else {"kv_heads": kv_heads}


def _zamba_shape(c: Config, layers: int, hidden: int, heads: int, ffn: int, kv_heads: int | None) -> Shape:
    """Zamba's attention reads the layer's and the embedding's states side by side, so it is twice as wide."""
    hidden = c.integer("hidden_size", default=hidden)
    heads = c.integer("num_attention_heads", default=heads, high=65536)
    return Shape(
        hidden,
        layers,
        heads,
        c.integer("num_key_value_heads", default=kv_heads or heads, high=65536),
        c.integer("attention_head_dim", "head_dim", default=max(2 * hidden // heads, 1), high=65536),
        c.integer("intermediate_size", default=ffn or 4 * hidden),
        c.integer("vocab_size", default=32000),
        c.optional("max_position_embeddings", low=1, high=1 << 40) or 4096,
    )


def _zamba_attention(inv: Inventory, layer: int, s: Shape, width: int) -> None:
    inv.norm("attn_norm", layer, width)
    inv.linear("attn_q", layer, s.q_width, width)
    inv.linear("attn_k", layer, s.kv_width, width)
    inv.linear("attn_v", layer, s.kv_width, width)
    inv.linear("attn_output", layer, s.hidden, s.q_width)
    inv.norm("ffn_norm", layer, s.hidden)


def _named_kinds(c: Config) -> list[str] | None:
    named = c.items("layers_block_type") or c.items("layer_types")
    return layer_kinds(c, min(len(named), MAX_LAYERS)) if named else None


@family("zamba")
def zamba(c: Config) -> Architecture:
    """Mamba layers, some with one attention block before them, whose weights all of these share."""
    count = c.integer("num_hidden_layers", default=76, high=MAX_LAYERS)
    period, offset = c.integer("attn_layer_period", default=6), c.integer("attn_layer_offset", default=4, low=0)
    later = ["hybrid" if i % period == offset else "linear_attention" for i in range(max(count - 3, 0))]
    kinds = _named_kinds(c) or ["linear_attention", "linear_attention", "hybrid", *later]
    s = _zamba_shape(c, len(kinds), 3712, 16, 14848, 16)
    width = c.integer("attention_hidden_size", default=2 * s.hidden)
    inner = int(factored(c, s.hidden, "mamba_expand", default=2))
    state, kernel = c.integer("mamba_d_state", default=16), c.integer("mamba_d_conv", default=4, high=1024)
    # each of the n_mamba_heads has its own B, C and time-step projection, of its share of the width: the same total
    rank = mamba_rank(c, s.hidden, "mamba_dt_rank")
    bias, conv_bias = c.flag("mamba_proj_bias"), c.flag("mamba_conv_bias", default=True)
    first = kinds.index("hybrid") if "hybrid" in kinds else -1

    def block(inv: Inventory, layer: int) -> CacheLayer:
        if layer == first:
            _zamba_attention(inv, layer, s, width)
            mlp(inv, layer, s.hidden, s.ffn)
        if kinds[layer] == "hybrid":
            inv.linear("hybrid_proj", layer, s.hidden, s.hidden)
            inv.cache.append(window_cache(s, layer))
        inv.norm("ssm_input_norm", layer, s.hidden)
        return mamba1(inv, layer, s.hidden, inner, state, kernel, rank, bias=bias, conv_bias=conv_bias)

    return decoder(c, s, block, family="zamba", tied=True)


@family("zamba2")
def zamba2(c: Config) -> Architecture:
    """As Zamba with Mamba-2, `num_mem_blocks` shared blocks in turn, and a low-rank adapter of each use of one."""
    default = ["linear_attention", *(["linear_attention"] * 5 + ["hybrid"]) * 7, *["linear_attention"] * 4, "hybrid"]
    kinds = _named_kinds(c) or [*default, *["linear_attention"] * 3, "hybrid", *["linear_attention"] * 2]
    s = _zamba_shape(c, len(kinds), 2560, 32, 0, None)
    width, bias = 2 * s.hidden, c.flag("add_bias_linear")
    inner, heads = int(factored(c, s.hidden, "mamba_expand", default=2)), c.integer("n_mamba_heads", default=8, high=1 << 20)
    m = Mamba2(
        s.hidden,
        heads,
        max(inner // heads, 1),
        groups=c.integer("mamba_ngroups", default=1, high=65536),
        state=c.integer("mamba_d_state", default=64),
        kernel=c.integer("mamba_d_conv", default=4, high=1024),
        bias=bias,
    )
    hybrid_layers = [layer for layer, kind in enumerate(kinds) if kind == "hybrid"]
    owners = frozenset(hybrid_layers[: c.integer("num_mem_blocks", default=1, high=MAX_LAYERS)])
    rank, attention_adapter = c.integer("adapter_rank", default=128), c.flag("use_shared_attention_adapter")

    def adapters(inv: Inventory, layer: int) -> None:
        pairs = [("ffn_gate_up_adapter", s.hidden, 2 * s.ffn)]
        if attention_adapter:
            pairs += [(f"attn_{part}_adapter", width, width) for part in "qkv"]
        for role, inputs, outputs in pairs:
            inv.linear(f"{role}_a", layer, rank, inputs)
            inv.linear(f"{role}_b", layer, outputs, rank)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        if layer in owners:
            _zamba_attention(inv, layer, s, width)
            mlp(inv, layer, s.hidden, s.ffn, bias=bias)
        if kinds[layer] == "hybrid":
            adapters(inv, layer)
            inv.linear("hybrid_proj", layer, s.hidden, s.hidden)
            inv.cache.append(window_cache(s, layer))
        inv.norm("ssm_input_norm", layer, s.hidden)
        return mamba2(inv, layer, m)

    return decoder(c, s, block, family="zamba2", tied=True)


@family("plamo2")
def plamo2(c: Config) -> Architecture:
    """PLaMo 2 (remote code): shapes as llama.cpp loads them (`src/models/plamo2.cpp`, `conversion/plamo.py`)."""
    s = read_shape(c, layers=32, hidden=4096, heads=32, kv_heads=4, vocab=32000, ffn=13312, context=2048)
    s = replace(s, head_dim=c.integer("hidden_size_per_head", default=128, high=65536))
    heads = c.integer("mamba_num_heads", default=64, high=65536)
    inner, state = heads * s.head_dim, c.integer("mamba_d_state", default=64)
    kernel, rank = c.integer("mamba_d_conv", default=4, high=1024), max(64, s.hidden // 16)
    step, enabled = c.integer("mamba_step", default=2), c.flag("mamba_enabled", default=True)

    def mixes(layer: int) -> bool:
        if s.layers <= step // 2:
            return enabled and layer != s.layers - 1
        return enabled and layer % step != step // 2

    def mamba(inv: Inventory, layer: int) -> CacheLayer:
        inv.linear("ssm_in", layer, 2 * inner, s.hidden)
        inv.add("ssm_conv1d", layer, inner, kernel)
        inv.linear("ssm_x", layer, rank + 2 * state, inner)
        inv.linear("ssm_dt", layer, heads, rank, bias=True)
        inv.add("ssm_a", layer, heads)
        inv.add("ssm_d", layer, heads)
        for role, width in (("ssm_dt_norm", rank), ("ssm_b_norm", state), ("ssm_c_norm", state)):
            inv.norm(role, layer, width)
        inv.linear("ssm_out", layer, s.hidden, inner)
        return CacheLayer(layer, "recurrent", conv_elements=inner * kernel, state_elements=inner * state)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        if mixes(layer):
            cache = mamba(inv, layer)
        else:
            attention(inv, layer, s, fused=True)
            inv.norm("attn_q_norm", layer, s.q_width)
            inv.norm("attn_k_norm", layer, s.kv_width)
            cache = window_cache(s, layer)
        inv.norm("attn_post_norm", layer, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        inv.linear("ffn_up", layer, 2 * s.ffn, s.hidden)
        inv.linear("ffn_down", layer, s.hidden, s.ffn)
        inv.norm("ffn_post_norm", layer, s.hidden)
        return cache

    note = "attention layers are counted over the whole context, as llama.cpp keeps them"
    return decoder(c, s, block, family="plamo2", tied=True, notes=(note,))
