"""Linear attention between layers of attention: Kimi Linear and Kimi-K3's text, MiniMax-Text-01 and M1."""

from __future__ import annotations

from collections.abc import Callable

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, latent_attention, mlp, moe, read_shape, window_cache
from .config import Config
from .registry import family
from .ssm_blocks import MLA_DEFAULTS, kimi_delta, layer_kinds, sparse_layers, with_defaults


def _kimi_kinds(c: Config, linear: Config, layers: int) -> list[str]:
    """`layer_types`, or `linear_attn_config`'s lists, which count from 1; else attention in every fourth layer but the first."""
    named = layer_kinds(c, layers)
    if named:
        return named
    listed = linear.integers("full_attn_layers")
    if listed is not None:
        full = frozenset(listed)
        return ["full_attention" if layer + 1 in full else "linear_attention" for layer in range(layers)]
    return ["full_attention" if layer and layer % 4 == 0 else "linear_attention" for layer in range(layers)]


@family("kimi_linear")
def kimi_linear(c: Config) -> Architecture:
    """Kimi delta attention and multi-head latent attention.

    Kimi-K3's text adds keys of its own, read as llama.cpp loads them (`src/models/kimi-k3.cpp`): a full gate matrix,
    an output gate on the latent attention, attention over earlier residuals, experts in a narrower width.
    """
    c = with_defaults(c, **MLA_DEFAULTS)
    context = c.integer("model_max_length", default=1048576, high=1 << 40)
    s = read_shape(c, layers=27, hidden=2304, heads=32, vocab=163840, ffn=9216, context=context)
    linear = c.section("linear_attn_config") or Config({}, c.where)
    heads = linear.integer("num_heads", default=c.integer("linear_num_heads", default=32), high=65536)
    dim = linear.integer("head_dim", default=c.integer("linear_head_dim", default=128), high=65536)
    kernel = linear.integer("short_conv_kernel_size", default=c.integer("linear_conv_kernel_dim", default=4), high=1024)
    full_gate = "ssm_g" if linear.flag("use_full_rank_gate") else ""
    kinds, sparse = _kimi_kinds(c, linear, s.layers), sparse_layers(c, s.layers, 1)
    experts = c.integer("num_experts", "num_local_experts", "n_routed_experts", default=256, high=65536)
    residuals, bias = c.integer("attn_res_block_size", default=0, low=0) > 0, c.flag("attention_bias")
    feed = _kimi_experts(c, s, experts)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        if residuals:
            _residual_scores(inv, layer, s.hidden, "attn_res", "ffn_res")
        if kinds[layer] == "linear_attention":
            cache = kimi_delta(inv, layer, s.hidden, heads, dim, kernel, full_gate=full_gate)
        else:
            cache = latent_attention(inv, layer, c, s, bias=bias)
            if c.flag("mla_use_output_gate"):
                inv.linear("attn_gate", layer, s.heads * c.integer("v_head_dim"), s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        if sparse[layer]:
            feed(inv, layer)
        else:
            mlp(inv, layer, s.hidden, s.ffn)
        if residuals and layer == s.layers - 1:
            _residual_scores(inv, None, s.hidden, "output_res")
        return cache

    per_token = c.integer("num_experts_per_token", "num_experts_per_tok", default=8, high=65536)
    return decoder(c, s, block, family="kimi_linear", experts=experts, experts_per_token=per_token)


def _kimi_experts(c: Config, s: Shape, experts: int) -> Callable[[Inventory, int], None]:
    """Routed experts, in `routed_expert_hidden_size` where given, and shared ones at full width."""
    width = c.integer("moe_intermediate_size", default=1024)
    shared = width * c.integer("num_shared_experts", "n_shared_experts", default=1, low=0, high=65536)
    latent = c.optional("routed_expert_hidden_size", low=1)

    def feed(inv: Inventory, layer: int) -> None:
        if latent is None:
            moe(inv, layer, s.hidden, experts, width, shared=shared)
            return
        inv.linear("ffn_gate_inp", layer, experts, s.hidden)
        inv.linear("ffn_routed_down", layer, latent, s.hidden)
        inv.linear("ffn_routed_up", layer, s.hidden, latent)
        if c.flag("latent_moe_use_norm"):
            inv.norm("ffn_routed_norm", layer, latent)
        inv.add("ffn_gate_exps", layer, width, latent, experts=experts)
        inv.add("ffn_up_exps", layer, width, latent, experts=experts)
        inv.add("ffn_down_exps", layer, latent, width, experts=experts)
        if shared:
            mlp(inv, layer, s.hidden, shared, suffix="_shexp")

    return feed


def _residual_scores(inv: Inventory, layer: int | None, hidden: int, *roles: str) -> None:
    """Kimi-K3's attention over earlier residuals: a norm and a projection to one score (a GGUF keeps their product)."""
    for role in roles:
        inv.norm(f"{role}_norm", layer, hidden)
        inv.add(f"{role}_proj", layer, 1, hidden)


@family("minimax", "minimax_text_01", "minimax_m1")
def minimax(c: Config) -> Architecture:
    """MiniMax-Text-01 and M1: lightning attention, whose state is one head_dim × head_dim matrix a head."""
    s = read_shape(c, layers=32, hidden=4096, heads=32, kv_heads=8, vocab=32000, ffn=14336, context=131072)
    listed = c.integers("attn_type_list")  # of the original layout: 0 is lightning attention
    if listed is not None and len(listed) >= s.layers and not c.has("layer_types"):
        kinds = ["full_attention" if kind else "linear_attention" for kind in listed]
    else:
        kinds = layer_kinds(c, s.layers) or ["linear_attention" if i % 2 else "full_attention" for i in range(s.layers)]
    experts = c.integer("num_local_experts", "num_experts", default=8, high=65536)

    def lightning(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm_2", layer, s.q_width)
        inv.linear("attn_qkv", layer, 3 * s.q_width, s.hidden)
        inv.linear("attn_gate", layer, s.q_width, s.hidden)
        inv.linear("attn_output", layer, s.hidden, s.q_width)
        # kept in the model's dtype (modeling_minimax.py: MiniMaxLightningAttention)
        return CacheLayer(layer, "recurrent", conv_elements=s.heads * s.head_dim * s.head_dim)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        if kinds[layer] == "linear_attention":
            cache = lightning(inv, layer)
        else:
            attention(inv, layer, s)
            cache = window_cache(s, layer)
        inv.norm("ffn_norm", layer, s.hidden)
        moe(inv, layer, s.hidden, experts, s.ffn)
        return cache

    per_token = c.integer("num_experts_per_tok", default=2, high=65536)
    return decoder(c, s, block, family="minimax", experts=experts, experts_per_token=per_token)
