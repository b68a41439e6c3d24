"""DeepSeek V4: one shared key-value head, compressed far context, hyper-connections, and experts in every layer.

Sources: transformers 5.23.0, models/deepseek_v4 (what it caches), llama.cpp, src/models/deepseek4.cpp (names, MTP layer).
The frozen routing tables of the hash layers (token to expert, int32) are buffers and not counted.
"""

from __future__ import annotations

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, decoder, read_shape
from .config import Config
from .moe_defaults import with_defaults
from .registry import family
from .routed import Style, feed_forward, layer_kinds, next_n, read_experts, with_draft

_SPARSE_KIND, _HEAVY_KIND = "compressed_sparse_attention", "heavily_compressed_attention"
#: What `compress_ratios` calls the two kinds.
_SPARSE, _HEAVY = 4, 128


def compression(c: Config, layers: int) -> list[tuple[int, bool]]:
    """By layer: how many tokens share one compressed entry (0: only the window is kept), and whether an indexer chooses among them."""
    rates = c.section("compress_rates")
    sparse = rates.integer(_SPARSE_KIND, default=_SPARSE) if rates else c.integer("compress_rate_csa", default=_SPARSE)
    heavy = rates.integer(_HEAVY_KIND, default=_HEAVY) if rates else c.integer("compress_rate_hca", default=_HEAVY)
    meaning = {_SPARSE_KIND: (sparse, True), _SPARSE: (sparse, True), _HEAVY_KIND: (heavy, False), _HEAVY: (heavy, False)}
    kinds = layer_kinds(c, "layer_types", layers) or layer_kinds(c, "compress_ratios", layers)
    if kinds:
        return [meaning.get(kind, (0, False)) if isinstance(kind, (str, int)) else (0, False) for kind in kinds]
    return [(sparse, True) if layer > 1 and layer % 2 else (heavy, False) for layer in range(layers)]


@family("deepseek_v4", "deepseek_ref")
def deepseek_v4(c: Config) -> Architecture:
    """V4 Flash and Pro, with always one shared expert; `deepseek_ref` is the name the SGLang project's copies carry."""
    c = with_defaults(c, "deepseek_v4")
    s = read_shape(c)
    width = c.integer("moe_intermediate_size")
    x = read_experts(c, s, sparse=[True] * s.layers, width=width, shared=width)
    compressed = compression(c, s.layers)
    streams, style = c.integer("hc_mult", high=64), Style(ffn_bias=c.flag("mlp_bias"))

    def block(inv: Inventory, layer: int) -> CacheLayer:
        ratio, indexed = compressed[layer] if layer < s.layers else (0, False)
        _attention(inv, layer, c, s)
        if ratio:
            _compressor(inv, layer, c, s, ratio, indexed)
        inv.norm("attn_norm", layer, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        for place in ("attn", "ffn"):
            hyper_connection(inv, layer, place, s.hidden, streams, rows=streams * (streams + 2), scales=3)
        feed_forward(inv, layer, s.hidden, x, style, True)
        return _cache(c, s, layer, ratio, indexed)

    def whole(inv: Inventory, layer: int) -> CacheLayer | None:
        cache = block(inv, layer)
        if layer >= s.layers - 1:  # the last layer, and each MTP layer after it
            hyper_head(inv, s.hidden, streams, None if layer < s.layers else layer)
        return cache

    draft = next_n(c, s, whole, copies="none")
    return decoder(c, s, with_draft(whole, s.layers, draft), family="deepseek_v4", experts=x.count, experts_per_token=x.per_token)


def _attention(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    rank, groups, out_rank = c.integer("q_lora_rank"), c.integer("o_groups"), c.integer("o_lora_rank")
    inv.add("attn_sinks", layer, s.heads)
    inv.linear("attn_q_a", layer, rank, s.hidden)
    inv.norm("attn_q_a_norm", layer, rank)
    inv.linear("attn_q_b", layer, s.q_width, rank)
    inv.linear("attn_kv", layer, s.head_dim, s.hidden)
    inv.norm("attn_kv_a_norm", layer, s.head_dim)
    inv.linear("attn_output_a", layer, groups * out_rank, s.q_width // groups)
    inv.linear("attn_output_b", layer, s.hidden, groups * out_rank)


def _compressor(inv: Inventory, layer: int, c: Config, s: Shape, ratio: int, indexed: bool) -> None:
    """Pools `ratio` tokens into one entry. The sparse kind overlaps two series, so its projections are twice as wide."""

    def pool(name: str, width: int) -> None:
        rows = 2 * width if indexed else width
        inv.add(f"{name}_ape", layer, ratio, rows)
        inv.linear(f"{name}_kv", layer, rows, s.hidden)
        inv.linear(f"{name}_gate", layer, rows, s.hidden)
        inv.norm(f"{name}_norm", layer, width)

    pool("attn_compressor", s.head_dim)
    if indexed:
        width, heads = c.integer("index_head_dim"), c.integer("index_n_heads")
        pool("indexer_compressor", width)
        inv.linear("indexer.attn_q_b", layer, heads * width, c.integer("q_lora_rank"))
        inv.linear("indexer.proj", layer, heads, s.hidden)


def hyper_connection(inv: Inventory, layer: int, place: str, hidden: int, streams: int, *, rows: int, scales: int) -> None:
    """The mixing of `streams` residual streams before and after one block (manifold-constrained hyper-connections)."""
    inv.linear(f"hc_{place}_fn", layer, rows, streams * hidden)
    inv.add(f"hc_{place}_base", layer, rows)
    inv.add(f"hc_{place}_scale", layer, scales)


def hyper_head(inv: Inventory, hidden: int, streams: int, layer: int | None = None) -> None:
    """The residual streams joined before the final norm."""
    inv.linear("output_hc_fn", layer, streams, streams * hidden)
    inv.add("output_hc_base", layer, streams)
    inv.add("output_hc_scale", layer, 1)


def _cache(c: Config, s: Shape, layer: int, ratio: int, indexed: bool) -> CacheLayer:
    """Without compression transformers keeps the shared head twice, as K and as V; with it once, and the pooled entries.

    A sparse layer also carries the last block and the overlap of both its pools, value and gate, from step to step.
    """
    window = c.integer("sliding_window")
    if not ratio:
        return CacheLayer(layer, "sliding", s.heads, 1, s.head_dim, s.head_dim, window)
    index = c.integer("index_head_dim") if indexed else 0
    carried = 2 * ratio * (s.head_dim + index) if indexed else 0
    return CacheLayer(
        layer, "compressed", s.heads, 1, s.head_dim, 0, window,
        index_dim=index, compress_ratio=ratio, compressed_dim=s.head_dim, conv_elements=carried,
    )  # fmt: skip
