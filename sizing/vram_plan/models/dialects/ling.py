"""The Ling and Ring hybrids: Ring-linear 2.0, Ling and Ring 2.5, Ling 3.

Ling 3's shapes are transformers' (`modeling_bailing_hybrid.py`); the older ones live in remote code, their shapes are
vLLM's (`bailing_moe_linear.py`, `bailing_linear_attn.py`). Ling 2.5 and 3 share a `model_type`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, architecture_name, attention, decoder, latent_attention, mlp, moe, read_shape, window_cache
from .config import Config
from .registry import family
from .ssm_blocks import MLA_DEFAULTS, add_mtp, kimi_delta, layer_kinds, sparse_layers, with_defaults

#: Adds one layer's attention and returns what it keeps.
Mixer = Callable[[Inventory, int], CacheLayer]


@family("bailing_hybrid")
def bailing_hybrid(c: Config) -> Architecture:
    """Latent attention in every `layer_group_size`-th layer; between them Kimi delta attention, or lightning attention in 2.5."""
    if architecture_name(c).startswith("BailingMoeV2_5"):
        return _ling_2_5(c)
    dim = c.integer("head_dim", default=128, high=65536)
    c = with_defaults(c, **MLA_DEFAULTS)
    context = c.integer("model_max_length", default=262144, high=1 << 40)
    s = read_shape(c, layers=42, hidden=2560, heads=32, vocab=157184, ffn=6144, context=context)
    kernel, bias = c.integer("short_conv_kernel_size", default=4, high=1024), c.flag("attention_bias")

    def full(inv: Inventory, layer: int) -> CacheLayer:
        cache = latent_attention(inv, layer, c, s, bias=bias)
        inv.linear("attn_gate", layer, s.heads, s.hidden)
        return cache

    def linear(inv: Inventory, layer: int) -> CacheLayer:
        return kimi_delta(inv, layer, s.hidden, s.heads, dim, kernel, full_decay="ssm_f_a", full_gate="ssm_g_a")

    return _ling(c, s, "bailing_hybrid", full, linear, group=6, first_dense=2, experts=512, width=768, draft=1)


def _ling_2_5(c: Config) -> Architecture:
    c = with_defaults(c, **MLA_DEFAULTS)
    s = read_shape(c)
    return _ling(c, s, "bailing_moe_v2.5", lambda inv, layer: latent_attention(inv, layer, c, s), _lightning(c, s), whole_groups=False)


@family("bailing_moe_linear")
def ring_linear(c: Config) -> Architecture:
    """Grouped-query attention in every `layer_group_size`-th layer, lightning attention in the others."""
    s = read_shape(c)
    bias, out_bias = c.flag("use_bias") or c.flag("use_qkv_bias"), c.flag("use_bias")
    norm = c.flag("use_qk_norm", default=True)

    def full(inv: Inventory, layer: int) -> CacheLayer:
        attention(inv, layer, s, fused=True, bias=bias, out_bias=out_bias, qk_norm="head" if norm else "")
        return window_cache(s, layer)

    return _ling(c, s, "bailing_moe_linear", full, _lightning(c, s), whole_groups=False)


def _lightning(c: Config, s: Shape) -> Mixer:
    """Lightning attention with as many KV heads as query heads, a gate and a norm over groups of its output."""
    bias, out_bias = c.flag("use_bias") or c.flag("use_qkv_bias"), c.flag("use_bias")
    norm = c.flag("use_qk_norm", default=True)

    def mixer(inv: Inventory, layer: int) -> CacheLayer:
        inv.linear("attn_qkv", layer, 3 * s.q_width, s.hidden, bias)
        if norm:
            inv.norm("attn_q_norm", layer, s.head_dim)
            inv.norm("attn_k_norm", layer, s.head_dim)
        inv.linear("attn_gate", layer, s.q_width, s.hidden)
        inv.norm("attn_norm_2", layer, s.q_width)
        inv.linear("attn_output", layer, s.hidden, s.q_width, out_bias)
        return CacheLayer(layer, "recurrent", state_elements=s.heads * s.head_dim * s.head_dim)

    return mixer


def _ling(
    c: Config,
    s: Shape,
    name: str,
    full: Mixer,
    linear: Mixer,
    *,
    group: int = 1,
    first_dense: int = 0,
    experts: int = 1,
    width: int = 1,
    draft: int = 0,
    whole_groups: bool = True,
) -> Architecture:
    """What the Lings share: the order of the layers, experts after the first dense ones, draft layers like the last."""
    group = c.integer("layer_group_size", default=group)
    rest = s.layers if whole_groups else s.layers // group * group  # a last, shorter group has attention only
    kinds = layer_kinds(c, s.layers) or ["linear_attention" if (i + 1) % group and i < rest else "full_attention" for i in range(s.layers)]
    sparse = sparse_layers(c, s.layers, first_dense)
    experts = c.integer("num_experts", "num_local_experts", default=experts, high=65536)
    width = c.integer("moe_intermediate_size", default=width)
    shared_width = c.integer("moe_shared_expert_intermediate_size", default=width)
    shared = shared_width * c.integer("num_shared_experts", "n_shared_experts", default=1, low=0, high=65536)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        linear_layer = layer < s.layers and kinds[layer] == "linear_attention"
        cache = linear(inv, layer) if linear_layer else full(inv, layer)
        inv.norm("ffn_norm", layer, s.hidden)
        if layer >= s.layers or sparse[layer]:
            moe(inv, layer, s.hidden, experts, width, shared=shared)
        else:
            mlp(inv, layer, s.hidden, s.ffn)
        return cache

    per_token = c.integer("num_experts_per_tok", "num_experts_per_token", default=8, high=65536)
    found = decoder(c, s, block, family=name, experts=experts, experts_per_token=per_token)
    draft_layers = Inventory(found.dtype, part="mtp")
    for layer in range(s.layers, s.layers + c.integer("num_nextn_predict_layers", "num_mtp_layers", default=draft, low=0, high=64)):
        block(draft_layers, layer)
        draft_layers.linear("nextn.eh_proj", layer, s.hidden, 2 * s.hidden)
        for role in ("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"):
            draft_layers.norm(role, layer, s.hidden)
    return add_mtp(found, draft_layers)
