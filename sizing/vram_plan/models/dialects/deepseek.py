"""Decoders with multi-head latent attention: DeepSeek V2 to V3.2, what follows them, and DeepSeek's first MoE.

Only the latent and the rotary part of the key are cached. With sparse attention (DSA) a layer that has an indexer also
keeps its key. Sources: transformers 5.23.0, models/<family>; the tensors' names are llama.cpp's (src/llama-arch.cpp).
"""

from __future__ import annotations

from collections.abc import Callable

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, decoder, latent_attention, mlp, read_shape
from .config import Config
from .moe_defaults import with_defaults
from .registry import family
from .routed import (
    Copies,
    Style,
    dense_prefix,
    feed_forward,
    gqa_draft,
    layer_kinds,
    layer_windows,
    next_n,
    read_experts,
    routed_decoder,
    with_draft,
)

__all__ = ["add_indexer"]


def add_indexer(inv: Inventory, layer: int, c: Config, s: Shape, query_rank: int) -> int:
    """DeepSeek sparse attention's indexer; returns the elements of its key that one token adds to the cache."""
    width, heads = c.integer("index_head_dim"), c.integer("index_n_heads")
    inv.linear("indexer.attn_q_b", layer, heads * width, query_rank)
    inv.linear("indexer.attn_k", layer, width, s.hidden)
    inv.norm("indexer.k_norm", layer, width, bias=True)
    inv.linear("indexer.proj", layer, heads, s.hidden)
    return width


def indexed_layers(c: Config, layers: int) -> list[bool]:
    """Which layers have an indexer of their own: by `indexer_types`, a pattern of F and S, or every n-th after the first ones."""
    kinds = layer_kinds(c, "indexer_types", layers)
    if kinds:
        return [kind == "full" for kind in kinds]
    pattern = c.text("index_topk_pattern")
    if len(pattern) >= layers:
        return [letter == "F" for letter in pattern[:layers]]
    every, offset = max(c.integer("index_topk_freq", default=1, low=0), 1), c.integer("index_skip_topk_offset", default=2, low=0)
    return [max(layer - offset + 1, 0) % every == 0 for layer in range(layers)]


def latent_decoder(
    c: Config,
    *,
    family: str,
    first_dense: int = 0,
    indexed: Callable[[Config, int], list[bool]] | None = None,
    norms: tuple[str, ...] = (),
    copies: Copies = "both",
    ffn_bias: bool = False,
) -> Architecture:
    """Latent attention, then experts or a dense block. `norms`: those of a routed layer beside the usual two."""
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, first_dense))
    style = Style(ffn_bias=ffn_bias)
    own = indexed(c, s.layers) if indexed else [False] * s.layers
    windows = layer_windows(c, s)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        drafted = layer >= s.layers
        sparse = drafted or x.sparse[layer]
        inv.norm("attn_norm", layer, s.hidden)
        cache = latent_attention(inv, layer, c, s, bias=c.flag("attention_bias"))
        if indexed and (drafted or own[layer]):
            cache = cache._replace(index_dim=add_indexer(inv, layer, c, s, c.integer("q_lora_rank")))
        inv.norm("ffn_norm", layer, s.hidden)
        for name in norms if sparse else ():
            inv.norm(name, layer, s.hidden)
        feed_forward(inv, layer, s.hidden, x, style, sparse)
        return cache._replace(window=windows[layer], kind="sliding") if not drafted and windows[layer] else cache

    return decoder(
        c, s, with_draft(block, s.layers, next_n(c, s, block, copies=copies)), family=family, experts=x.count, experts_per_token=x.per_token
    )


@family("deepseek_v2")
def deepseek_v2(c: Config) -> Architecture:
    """DeepSeek V2; with `use_mla: false` (the small DeepSeek-VL2) V2's experts after plain attention."""
    if not c.flag("use_mla", default=True):
        return deepseek(c)
    return latent_decoder(with_defaults(c, "deepseek_v2"), family="deepseek_v2", ffn_bias=c.flag("mlp_bias"))


@family("deepseek_v3", "kimi_k2")
def deepseek_v3(c: Config) -> Architecture:
    """DeepSeek V3 and R1; Kimi K2 is the same with other numbers."""
    return latent_decoder(with_defaults(c, "deepseek_v3"), family=c.text("model_type"))


@family("deepseek_v32")
def deepseek_v32(c: Config) -> Architecture:
    return latent_decoder(with_defaults(c, "deepseek_v32"), family="deepseek_v32", indexed=lambda _, layers: [True] * layers)


@family("glm_moe_dsa")
def glm_moe_dsa(c: Config) -> Architecture:
    """GLM-5: V3.2's attention; from 5.2 on some layers reuse the choice of one before them and have no indexer."""
    return latent_decoder(with_defaults(c, "glm_moe_dsa"), family="glm_moe_dsa", indexed=indexed_layers, copies="none")


@family("glm4_moe_lite")
def glm4_moe_lite(c: Config) -> Architecture:
    return latent_decoder(with_defaults(c, "glm4_moe_lite"), family="glm4_moe_lite", first_dense=1)


@family("mistral4")
def mistral4(c: Config) -> Architecture:
    return latent_decoder(with_defaults(c, "mistral4"), family="mistral4")


@family("axk1")
def axk1(c: Config) -> Architecture:
    return latent_decoder(with_defaults(c, "axk1"), family="axk1", first_dense=1, norms=("post_ffw_norm",))


@family("minicpm3", "youtu")
def dense_latent(c: Config) -> Architecture:
    """Latent attention before an ordinary feed-forward block."""
    name = c.text("model_type")
    c = with_defaults(c, name)
    s = read_shape(c)
    bias, ffn_bias = c.flag("attention_bias"), name == "minicpm3" and c.flag("mlp_bias")
    # minicpm3's class derives `v_head_dim` where a config leaves it out.
    v_dim = c if c.has("v_head_dim") else Config({**c.raw, "v_head_dim": s.hidden // s.heads}, c.where)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        cache = latent_attention(inv, layer, v_dim, s, bias=bias)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn, bias=ffn_bias)
        return cache

    return decoder(c, s, block, family=name)


@family("deepseek", "deepseek_ocr2_text", "unlimited_ocr_text")
def deepseek(c: Config) -> Architecture:
    """DeepSeek-MoE: plain multi-head attention with V2's experts. Source: deepseek-moe-16b's modeling_deepseek.py."""
    name = c.text("model_type")
    if name in ("deepseek_ocr2_text", "unlimited_ocr_text"):
        c = with_defaults(c, name)
    s = read_shape(c, layers=30, hidden=4096, heads=32, vocab=102400, ffn=11008, context=2048)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 1 if name == "unlimited_ocr_text" else 0))
    bias = c.flag("attention_bias")
    style = Style(bias=bias, out_bias=bias, ffn_bias=name.endswith("_text") and c.flag("mlp_bias"))
    return routed_decoder(c, s, x, style, family=name, windows=layer_windows(c, s), draft=gqa_draft(c, s, x, style))
