"""Latent attention in less regular layers: LongCat's double layers, gates, sinks, hyper-connections, shared latents.

Source: transformers 5.23.0, models/<family>/{configuration,modeling}_<family>.py.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, decoder, latent_attention, mlp, read_shape
from .config import Config
from .deepseek import add_indexer, indexed_layers
from .deepseek_v4 import hyper_connection, hyper_head
from .moe_defaults import with_defaults
from .registry import family
from .routed import Style, dense_prefix, feed_forward, first_number, layer_kinds, next_n, read_experts, with_draft


@family("longcat_flash")
def longcat_flash(c: Config) -> Architecture:
    """Two attentions and two dense blocks a layer beside the experts; `zero_expert_num` of the routed choices have no weights.

    transformers 5.23 allocates gate and up matrices for those too; the checkpoint has none (561,862,880,256 with its MTP layer).
    """
    c = with_defaults(c, "longcat_flash")
    s = read_shape(c)
    width = c.integer("moe_intermediate_size", "expert_ffn_hidden_size")
    x = read_experts(c, s, sparse=[True] * s.layers, width=width, shared=0)
    choices = x.count + c.integer("zero_expert_num", default=0, low=0, high=65536)

    def half(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        cache = latent_attention(inv, layer, c, s, bias=c.flag("attention_bias"))
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn)
        return cache

    def block(inv: Inventory, layer: int) -> None:
        for which in (0, 1):
            inv.cache.append(half(inv, layer)._replace(layer=2 * layer + which))
        inv.linear("ffn_gate_inp", layer, choices, s.hidden, c.flag("router_bias"))
        for role, rows, columns in (("gate", width, s.hidden), ("up", width, s.hidden), ("down", s.hidden, width)):
            inv.add(f"ffn_{role}_exps", layer, rows, columns, experts=x.count)

    layers = with_draft(block, s.layers, next_n(c, s, half, copies="embedding"))
    return decoder(c, s, layers, family="longcat_flash", experts=x.count, experts_per_token=x.per_token)


@family("hy_v4")
def hy_v4(c: Config) -> Architecture:
    """Hunyuan 4: DSA with a full gate, sinks and hyper-connections; every fourth layer from the second has the indexer."""
    c = with_defaults(c, "hy_v4")
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 1))
    kinds = layer_kinds(c, "indexer_types", s.layers)
    streams, v_dim = c.integer("hc_mult", high=64), c.integer("v_head_dim")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        cache = latent_attention(inv, layer, c, s, bias=c.flag("attention_bias"))
        inv.add("attn_sinks", layer, s.heads)
        inv.linear("attn_gate", layer, s.heads * v_dim, s.hidden)
        if kinds[layer] == "full" if kinds else layer == 0 or (layer - 1) % 4 == 0:
            cache = cache._replace(index_dim=add_indexer(inv, layer, c, s, c.integer("q_lora_rank")))
        inv.norm("attn_norm", layer, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        for place in ("attn", "ffn"):
            hyper_connection(inv, layer, place, s.hidden, streams, rows=2 * streams, scales=2)
        feed_forward(inv, layer, s.hidden, x, Style(), x.sparse[layer])
        if layer == s.layers - 1:
            hyper_head(inv, s.hidden, streams)
        return cache

    return decoder(c, s, block, family="hy_v4", experts=x.count, experts_per_token=x.per_token)


@family("axk2")
def axk2(c: Config) -> Architecture:
    """Query and gate from one projection of twice the rank; norms with a small gate, before the blocks of routed layers."""
    c = with_defaults(c, "axk2")
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 1))
    rank, nope, rope = c.integer("q_lora_rank"), c.integer("qk_nope_head_dim"), c.integer("qk_rope_head_dim")
    latent, v_dim, gated = c.integer("kv_lora_rank"), c.integer("v_head_dim"), c.integer("gated_norm_rank")
    bias = c.flag("attention_bias")

    def norm(inv: Inventory, role: str, layer: int, with_gate: bool) -> None:
        inv.norm(role, layer, s.hidden)
        if with_gate:
            inv.linear(f"{role}_gate_down", layer, gated, s.hidden)
            inv.linear(f"{role}_gate_up", layer, s.hidden, gated)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        norm(inv, "attn_norm", layer, True)
        inv.linear("attn_q_a", layer, rank, s.hidden, bias)
        inv.norm("attn_q_a_norm", layer, rank)
        inv.linear("attn_q_b", layer, s.heads * (nope + rope + v_dim), 2 * rank)
        inv.linear("attn_kv_a_mqa", layer, latent + rope, s.hidden, bias)
        inv.norm("attn_kv_a_norm", layer, latent)
        inv.linear("attn_kv_b", layer, s.heads * (nope + v_dim), latent)
        inv.linear("attn_output", layer, s.hidden, s.heads * v_dim, bias)
        index = add_indexer(inv, layer, c, s, rank)
        norm(inv, "ffn_norm", layer, x.sparse[layer])
        feed_forward(inv, layer, s.hidden, x, Style(), x.sparse[layer])
        return CacheLayer(layer, "latent", s.heads, 1, latent + rope, 0, latent_rank=latent, index_dim=index)

    return decoder(c, s, block, family="axk2", experts=x.count, experts_per_token=x.per_token)


@family("mistral_large4_text")
def mistral_large4(c: Config) -> Architecture:
    """Latents that later layers may share (`kv_source_layers`); layers without rotary positions cache the latent alone."""
    c = with_defaults(c, "mistral_large4_text")
    s = read_shape(c)
    x = read_experts(c, s)
    own = indexed_layers(c, s.layers)
    every = c.integer("no_rope_layer_interval", default=4, high=65536)
    roped = layer_kinds(c, "no_rope_layers", s.layers) or [(layer + 1) % every != 0 for layer in range(s.layers)]
    sources = c.integers("kv_source_layers", high=s.layers - 1) if layer_kinds(c, "kv_source_layers", s.layers) else None
    latent, v_dim = c.integer("kv_lora_rank"), c.integer("v_head_dim")
    bias = c.flag("attention_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        source = sources[layer] if sources else layer
        key = c.integer("qk_nope_head_dim") + c.integer("qk_rope_head_dim")
        rope = c.integer("qk_rope_head_dim") if roped[layer] else 0
        inv.norm("attn_norm", layer, s.hidden)
        inv.linear("attn_q", layer, s.heads * key, s.hidden)
        inv.add("attn_scale", layer, s.heads)
        inv.add("attn_scale.bias", layer, s.heads)
        if source == layer:
            inv.linear("attn_kv_a_mqa", layer, latent + rope, s.hidden, bias)
            inv.norm("attn_kv_a_norm", layer, latent)
        inv.linear("attn_kv_b", layer, s.heads * (key - rope + v_dim), latent)
        inv.linear("attn_output", layer, s.hidden, s.heads * v_dim, bias)
        index = _normed_indexer(inv, layer, c, s) if own[layer] else 0
        inv.norm("ffn_norm", layer, s.hidden)
        feed_forward(inv, layer, s.hidden, x, Style(), x.sparse[layer])
        if source != layer and not index:
            return CacheLayer(layer, "shared", s.heads, source=source)
        held = latent + rope if source == layer else 0
        return CacheLayer(layer, "latent", s.heads, 1, held, 0, latent_rank=latent, index_dim=index, source=None if held else source)

    return decoder(c, s, block, family="mistral_large4", experts=x.count, experts_per_token=x.per_token)


def _normed_indexer(inv: Inventory, layer: int, c: Config, s: Shape) -> int:
    heads = c.integer("index_n_heads")
    inv.norm("indexer.q_norm", layer, s.hidden, bias=True)
    inv.add("indexer.scale", layer, heads)
    inv.add("indexer.scale.bias", layer, heads)
    return add_indexer(inv, layer, c, s, s.hidden)


#: What dots.note's window layers have instead of the model's numbers; a config says so with `swa_` before the key.
_NEAR = {
    "num_attention_heads": 64, "q_lora_rank": 1024, "kv_lora_rank": 1024, "head_dim": 256, "qk_nope_head_dim": 192, "v_head_dim": 128,
}  # fmt: skip


@family("dots3_note_text")
def dots3_note(c: Config) -> Architecture:
    """DSA layers and, three of four, windows over a wider latent with fewer heads; a gate a head."""
    c = with_defaults(c, "dots3_note_text")
    s = read_shape(c)
    shared = c.integer("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size", default=1536, low=0)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 1), shared=shared * first_number(c, "n_shared_experts", default=1))
    near = {key: c.integer(f"swa_{key}", default=value) for key, value in _NEAR.items()}
    near["qk_rope_head_dim"] = c.integer("swa_qk_rope_head_dim", default=max(near["head_dim"] - near["qk_nope_head_dim"], 1))
    window = c.integer("sliding_window", "sliding_window_size", default=512)
    kinds = layer_kinds(c, "layer_types", s.layers)
    slide = c.flag("use_sliding_window", default=True)
    sparse_attention = c.flag("use_dsa", default=True)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        slides = kinds[layer] == "sliding_attention" if kinds else slide and layer > 1 and layer % 4 != 1
        view = Config({**c.raw, **near}, c.where) if slides else c
        at = replace(s, heads=near["num_attention_heads"]) if slides else s
        inv.norm("attn_norm", layer, s.hidden)
        cache = latent_attention(inv, layer, view, at, bias=c.flag("attention_bias"))
        inv.norm("attn_k_norm", layer, view.integer("qk_rope_head_dim"))
        inv.linear("attn_gate", layer, at.heads, s.hidden)
        if slides:
            cache = cache._replace(kind="sliding", window=window)
        elif sparse_attention:
            cache = cache._replace(index_dim=add_indexer(inv, layer, c, s, c.integer("q_lora_rank")))
        inv.norm("ffn_norm", layer, s.hidden)
        feed_forward(inv, layer, s.hidden, x, Style(), x.sparse[layer])
        return cache

    return decoder(c, s, block, family="dots3_note", experts=x.count, experts_per_token=x.per_token)
