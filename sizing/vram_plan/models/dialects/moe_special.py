"""Routed experts in layers unlike Mixtral's: index keys beside K and V, experts of attention, residual dense blocks, latent experts.

Sources: transformers 5.23.0, models/<family>; for what is not in it llama.cpp, src/models/<family>.cpp, or the remote code named.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, attention, decoder, mlp, moe, read_shape, window_cache
from .config import Config
from .moe_defaults import with_defaults
from .registry import family
from .routed import (
    Style,
    dense_prefix,
    feed_forward,
    first_number,
    gqa_draft,
    layer_kinds,
    layer_windows,
    read_experts,
    routed_decoder,
    routed_layer,
)


@family("minimax_m3_vl_text", "minimax_m3")
def minimax_m3(c: Config) -> Architecture:
    """MiniMax M3: sparse layers choose blocks of tokens by an index key, which they cache beside K and V."""
    c = with_defaults(c, "minimax_m3_vl_text")
    s = read_shape(c)
    x = read_experts(
        c, s, sparse=dense_prefix(c, s.layers), width=s.ffn, shared=c.integer("shared_intermediate_size", low=0),
        dense=c.integer("dense_intermediate_size"),
    )  # fmt: skip
    legacy = c.section("sparse_attention_config") or Config({}, c.where)
    heads = legacy.integer("sparse_num_index_heads", default=c.integer("index_n_heads"))
    width = legacy.integer("sparse_index_dim", default=c.integer("index_head_dim"))
    kinds = layer_kinds(c, "layer_types", s.layers) or layer_kinds(legacy, "sparse_attention_freq", s.layers) or [0] * s.layers
    chooses = [kind == "minimax_m3_sparse" if isinstance(kind, str) else bool(kind) for kind in kinds]

    def block(inv: Inventory, layer: int) -> CacheLayer:
        routed_layer(inv, layer, s, x, Style(qk_norm="head"), x.sparse[layer])
        if not chooses[layer]:
            return window_cache(s, layer)
        inv.linear("indexer.q_proj", layer, heads * width, s.hidden)
        inv.linear("indexer.k_proj", layer, width, s.hidden)
        inv.norm("indexer.q_norm", layer, width)
        inv.norm("indexer.k_norm", layer, width)
        return window_cache(s, layer)._replace(index_dim=width)

    return decoder(c, s, block, family="minimax_m3", experts=x.count, experts_per_token=x.per_token)


@family("dbrx")
def dbrx(c: Config) -> Architecture:
    """DBRX: its sizes stand in `attn_config` and `ffn_config`; fused query, key and value; norms without bias."""
    c = with_defaults(c, "dbrx")
    attn, ffn = (c.section(key) or Config({}, c.where) for key in ("attn_config", "ffn_config"))
    s = replace(read_shape(c), kv_heads=attn.integer("kv_n_heads", default=1, high=65536), ffn=ffn.integer("ffn_hidden_size", default=3584))
    experts = ffn.integer("moe_num_experts", default=4, high=65536)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s, fused=True)
        inv.norm("attn_output_norm", layer, s.hidden)
        moe(inv, layer, s.hidden, experts, s.ffn)
        return window_cache(s, layer)

    return decoder(c, s, block, family="dbrx", experts=experts, experts_per_token=ffn.integer("moe_top_k", default=1, high=65536))


@family("jetmoe")
def jetmoe(c: Config) -> Architecture:
    """JetMoE: the query and output projections are routed too; each chosen expert attends with all key-value heads."""
    c = with_defaults(c, "jetmoe")
    x_top = c.integer("num_experts_per_tok", default=2, high=65536)
    groups, width = c.integer("num_key_value_heads", default=16, high=65536), c.integer("kv_channels", high=65536)
    s = read_shape(Config({**c.raw, "num_attention_heads": groups * x_top}, c.where), head_dim=width)
    experts = c.integer("num_local_experts", default=8, high=65536)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        inv.linear("attn_gate_inp", layer, experts, s.hidden)
        inv.add("attn_q_exps", layer, s.kv_width, s.hidden, experts=experts)
        inv.add("attn_output_exps", layer, s.hidden, s.kv_width, experts=experts)
        inv.add("attn_output.bias", layer, s.hidden)
        inv.linear("attn_kv", layer, 2 * s.kv_width, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        moe(inv, layer, s.hidden, experts, s.ffn)
        inv.add("ffn_down.bias", layer, s.hidden)
        return window_cache(s, layer)

    return decoder(c, s, block, family="jetmoe", experts=experts, experts_per_token=x_top)


@family("muse_spark_text")
def muse_spark_text(c: Config) -> Architecture:
    """Experts in a narrower space than the hidden one, gated attention, learned residual gates."""
    c = with_defaults(c, "muse_spark_text")
    s = read_shape(c)
    x = read_experts(c, s, sparse=[kind == "sparse" for kind in layer_kinds(c, "mlp_layer_types", s.layers) or ["sparse"] * s.layers])
    inner = c.integer("moe_hidden_size")
    windows = layer_windows(c, s, lambda layer: (s.layers - 1 - layer) % 4 != 0)
    style = Style().biased(c)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        attention(inv, layer, s, bias=style.bias, out_bias=style.out_bias)
        inv.linear("attn_gate", layer, s.q_width, s.hidden)
        for role in ("attn_norm", "ffn_norm", "post_ffw_norm", "attn_residual", "ffn_residual"):
            inv.norm(role, layer, s.hidden)
        if not x.sparse[layer]:
            mlp(inv, layer, s.hidden, s.ffn)
            return window_cache(s, layer, windows[layer])
        inv.linear("ffn_gate_inp", layer, x.count, s.hidden)
        inv.linear("ffn_latent_down", layer, inner, s.hidden)
        inv.norm("ffn_norm_exps", layer, inner)
        for role, rows, columns in (("gate", x.width, inner), ("up", x.width, inner), ("down", inner, x.width)):
            inv.add(f"ffn_{role}_exps", layer, rows, columns, experts=x.count)
        inv.norm("ffn_routed_norm", layer, inner)
        inv.linear("ffn_latent_up", layer, s.hidden, inner)
        return window_cache(s, layer, windows[layer])

    return decoder(c, s, block, family="muse_spark_text", experts=x.count, experts_per_token=x.per_token)


@family("arctic")
def arctic(c: Config) -> Architecture:
    """Snowflake Arctic: a dense block as wide as the model beside the experts. Sources: llama.cpp; remote code modeling_arctic.py."""
    s = read_shape(c, layers=32, hidden=4096, heads=32, vocab=32000, ffn=14336, context=4096)
    count = c.integer("num_local_experts", default=8, high=65536)
    every = c.integer("moe_layer_frequency", default=2, high=65536)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        routes = (layer + 1) % every == 0
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s)
        inv.norm("ffn_norm", layer, s.hidden)
        if not routes or c.flag("use_residual", "parallel_attn_mlp_res", default=True):
            mlp(inv, layer, s.hidden, s.hidden if routes else s.ffn)
        if routes:
            inv.norm("ffn_norm_exps", layer, s.hidden)
            moe(inv, layer, s.hidden, count, s.ffn)
        return window_cache(s, layer)

    per_token = c.integer("num_experts_per_tok", default=1, high=65536)
    return decoder(c, s, block, family="arctic", experts=count, experts_per_token=per_token)


@family("grok-1", "grok", "git")
def grok(c: Config) -> Architecture:
    """Grok 1 (314 B) and 2 (270 B, a dense block beside the experts). Source: llama.cpp, src/models/grok.cpp.

    Grok 2's config says `git`, which is also an old captioning model; that one gets the standard reading.
    """
    if c.text("model_type") == "git" and not c.has("num_local_experts"):
        from .standard import standard

        return standard(c)
    s = read_shape(c, hidden=6144, layers=64, heads=48, kv_heads=8, vocab=131072, ffn=32768)
    count = c.integer("num_local_experts", "num_experts", default=8, high=65536)
    width = c.integer("moe_intermediate_size", default=s.ffn)
    residual = c.flag("residual_moe", default=c.has("moe_intermediate_size"))

    def block(inv: Inventory, layer: int) -> CacheLayer:
        attention(inv, layer, s)
        for role in ("attn_norm", "attn_output_norm", "ffn_norm", "post_ffw_norm"):
            inv.norm(role, layer, s.hidden)
        if residual:
            mlp(inv, layer, s.hidden, s.ffn)
        moe(inv, layer, s.hidden, count, width)
        return window_cache(s, layer)

    per_token = c.integer("num_experts_per_tok", "num_selected_experts", default=2, high=65536)
    tied = not c.has("moe_intermediate_size")
    return decoder(c, s, block, family="grok", tied=tied, experts=count, experts_per_token=per_token)


@family("bailing_moe", "bailing_moe_v2", "sarvam_moe")
def bailing_moe(c: Config) -> Architecture:
    """Ling and Ring 1 and 2. Sources: llama.cpp, src/models/bailingmoe{,2}.cpp; remote code modeling_bailing_moe{,_v2}.py."""
    later = c.text("model_type") != "bailing_moe"
    s = read_shape(c)
    x = read_experts(c, s)
    shared = c.optional("moe_shared_expert_intermediate_size")
    if shared:
        x = replace(x, shared=shared * first_number(c, "num_shared_experts", default=1))
    bias = c.flag("use_qkv_bias")
    style = Style(qk_norm="head" if c.flag("use_qk_norm", default=later) else "", bias=bias, out_bias=c.flag("use_bias"))
    return routed_decoder(c, s, x, style, family="bailing_moe", windows=layer_windows(c, s), draft=gqa_draft(c, s, x, style))


@family("hunyuan")
def hunyuan_large(c: Config) -> Architecture:
    """Hunyuan-Large and the first files of A13B: with `use_cla` every n-th layer's K and V serve the layers after it.

    Source: remote code modeling_hunyuan.py. Large is 389 B.
    """
    s = read_shape(c)
    shared = s.ffn * first_number(c, "num_shared_expert", default=1) if c.flag("use_mixed_mlp_moe", default=True) else 0
    width = first_number(c, "moe_intermediate_size", default=s.ffn, high=1 << 27)
    x = read_experts(c, s, width=width, shared=shared, sparse=[True] * s.layers)
    style = Style(qk_norm="head" if c.flag("use_qk_norm") else "").biased(c)
    share = c.integer("cla_share_factor", default=1, high=4096) if c.flag("use_cla") else 1

    def block(inv: Inventory, layer: int) -> CacheLayer:
        owner = layer - layer % share
        if owner == layer:
            routed_layer(inv, layer, s, x, style, True)
            return window_cache(s, layer)
        inv.linear("attn_q", layer, s.q_width, s.hidden, style.bias)
        inv.linear("attn_output", layer, s.hidden, s.q_width, style.out_bias)
        if style.qk_norm:
            inv.norm("attn_q_norm", layer, s.head_dim)
        for name in style.norms:
            inv.norm(name, layer, s.hidden)
        feed_forward(inv, layer, s.hidden, x, style, True)
        return CacheLayer(layer, "shared", s.heads, s.kv_heads, s.head_dim, s.head_dim, source=owner)

    return decoder(c, s, block, family="hunyuan", experts=x.count, experts_per_token=x.per_token)
