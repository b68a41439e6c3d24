"""Inkling: attention between short convolutions, with relative positions instead of rotary ones, and experts.

Source: transformers 5.23.0, models/inkling, models/inkling2. The four convolutions of a layer keep their last inputs,
in fp32 as transformers computes them.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, moe, read_shape, window_cache
from .config import Config
from .moe_defaults import with_defaults
from .registry import family
from .routed import dense_prefix, first_number, layer_kinds, read_experts


def _near(c: Config, s: Shape) -> Shape:
    """The shape of a layer with a window."""
    return replace(
        s,
        heads=c.integer("swa_num_attention_heads", high=65536),
        kv_heads=c.integer("swa_num_key_value_heads", high=65536),
        head_dim=c.integer("swa_head_dim", high=65536),
    )


def _sliding(c: Config, layers: int) -> list[bool]:
    kinds = layer_kinds(c, "layer_types", layers)
    if kinds:
        return [kind == "hybrid_sliding" for kind in kinds]
    local = c.integers("local_layer_ids")
    return [layer in local if local is not None else (layer + 1) % 6 != 0 for layer in range(layers)]


def _relative(inv: Inventory, layer: int, c: Config, at: Shape, slides: bool) -> None:
    width = c.integer("d_rel")
    inv.linear("attn_rel", layer, at.heads * width, at.hidden)
    inv.add("attn_rel_b", layer, width, c.integer("sliding_window_size", "sliding_window") if slides else c.integer("rel_extent"))


def _cache(c: Config, layer: int, at: Shape, slides: bool) -> CacheLayer:
    kernel = c.integer("conv_kernel_size", "sconv_kernel_size", high=4096)
    window = c.integer("sliding_window_size", "sliding_window") if slides else 0
    return window_cache(at, layer, window)._replace(state_elements=2 * (at.kv_width + at.hidden) * kernel)


@family("inkling_text")
def inkling(c: Config) -> Architecture:
    """Dense widths: `dense_intermediate_size` where given, and `intermediate_size` is then the experts'."""
    c = with_defaults(c, "inkling_text")
    s = read_shape(c)
    both = c.has("dense_intermediate_size")
    dense = c.integer("dense_intermediate_size", default=s.ffn)
    prefix = c.integer("dense_mlp_idx", default=0, low=0)
    sparse = dense_prefix(c, s.layers, 0) if c.has("mlp_layer_types") else [layer >= prefix for layer in range(s.layers)]
    x = read_experts(c, s, sparse=sparse, width=s.ffn if both else None)
    shared = first_number(c, "n_shared_experts", default=0)
    near, slides = _near(c, s), _sliding(c, s.layers)
    kernel = c.integer("conv_kernel_size", "sconv_kernel_size", high=4096)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        at = near if slides[layer] else s
        attention(inv, layer, at, qk_norm="head")
        _relative(inv, layer, c, at, slides[layer])
        for role, width in (("attn_k_conv", at.kv_width), ("attn_v_conv", at.kv_width), ("attn_conv", s.hidden), ("ffn_conv", s.hidden)):
            inv.add(role, layer, width, 1, kernel)
        inv.norm("attn_norm", layer, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        inv.add("ffn_scale", layer, 1)
        if x.sparse[layer]:
            moe(inv, layer, s.hidden, x.count, x.width, shared=x.shared)
            inv.linear("ffn_gate_inp_shexp", layer, shared, s.hidden)
        else:
            mlp(inv, layer, s.hidden, dense)
        return _cache(c, layer, at, slides[layer])

    return decoder(
        c, s, block, family="inkling", before=lambda inv: inv.norm("token_embd_norm", None, s.hidden),
        experts=x.count, experts_per_token=x.per_token,
    )  # fmt: skip


@family("inkling2_text")
def inkling2(c: Config) -> Architecture:
    """Every layer routes; full layers norm query, key and value apart and convolve them by taps projected from the input."""
    c = with_defaults(c, "inkling2_text")
    s = read_shape(c)
    x = read_experts(c, s, sparse=[True] * s.layers)
    near, slides = _near(c, s), _sliding(c, s.layers)
    kernel = c.integer("conv_kernel_size", "sconv_kernel_size", high=4096)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        near_here = slides[layer]
        at = near if near_here else s
        if layer:
            inv.add("attn_res_score", layer, *((s.hidden,) if near_here else (3, s.hidden)))
        inv.add("ffn_res_score", layer, s.hidden)
        attention(inv, layer, at)
        _relative(inv, layer, c, at, near_here)
        inv.linear("attn_gate", layer, at.q_width, s.hidden)
        inv.linear("attn_sinks", layer, at.heads, s.hidden)
        inv.add("attn_q_norm", layer, at.heads, at.head_dim)
        inv.add("attn_rel_norm", layer, at.heads, c.integer("d_rel"))
        for name in ("k", "v"):
            inv.add(f"attn_{name}_conv", layer, at.kv_width, 1, kernel)
            if not near_here:
                inv.linear(f"attn_{name}_conv_proj", layer, at.kv_heads * kernel, s.hidden)
        inv.add("attn_conv", layer, s.hidden, 1, kernel)
        inv.add("ffn_conv", layer, s.hidden, 1, kernel)
        for role in ("attn_norm",) if near_here else ("attn_q_in_norm", "attn_k_in_norm", "attn_v_in_norm"):
            inv.norm(role, layer, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        moe(inv, layer, s.hidden, x.count, x.width)
        return _cache(c, layer, at, near_here)

    def before(inv: Inventory) -> None:
        inv.norm("token_embd_norm", None, s.hidden)
        inv.add("output_res_score", None, s.hidden)

    return decoder(c, s, block, family="inkling2", before=before, experts=x.count, experts_per_token=x.per_token)
