"""Gated delta nets between layers of attention: Qwen3-Next, Qwen3.5, OLMo hybrid."""

from __future__ import annotations

from collections.abc import Callable

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, moe, read_shape, window_cache
from .config import Config
from .registry import family
from .ssm_blocks import DeltaNet, add_mtp, gated_delta_net, layer_kinds

#: Adds one layer's feed-forward part.
FeedForward = Callable[[Inventory, int], None]


def _every_nth(c: Config, layers: int) -> list[str]:
    """The kinds the config lists, else full attention in every `full_attention_interval`-th layer."""
    interval = c.integer("full_attention_interval", default=4)
    return layer_kinds(c, layers) or ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)]


def _qwen(c: Config, s: Shape, feed: FeedForward, name: str, experts: int, per_token: int, *, fused_ba: bool = False) -> Architecture:
    """A Qwen with gated delta nets; its attention gates its own output, so the query is twice as wide."""
    d, bias = DeltaNet.read(c), c.flag("attention_bias")
    kinds = _every_nth(c, s.layers)

    def full(inv: Inventory, layer: int) -> CacheLayer:
        attention(inv, layer, s, bias=bias, out_bias=bias, qk_norm="head", gate=True)
        return window_cache(s, layer)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        linear = kinds[layer] == "linear_attention"
        cache = gated_delta_net(inv, layer, s.hidden, d, fused_ba=fused_ba) if linear else full(inv, layer)
        inv.norm("attn_post_norm", layer, s.hidden)
        feed(inv, layer)
        return cache

    found = decoder(c, s, block, family=name, experts=experts, experts_per_token=per_token)
    draft = Inventory(found.dtype, part="mtp")
    steps = c.integer("mtp_num_hidden_layers", "num_nextn_predict_layers", default=0, low=0, high=64)
    for layer in range(s.layers, s.layers + steps):
        draft.norm("attn_norm", layer, s.hidden)
        full(draft, layer)
        draft.norm("attn_post_norm", layer, s.hidden)
        feed(draft, layer)
    if steps:
        draft.linear("nextn.eh_proj", s.layers, s.hidden, 2 * s.hidden)
        for role in ("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"):
            draft.norm(role, s.layers, s.hidden)
    return add_mtp(found, draft)


def _routed(c: Config, s: Shape, experts: int) -> FeedForward:
    width = c.integer("moe_intermediate_size", default=512)
    shared = c.integer("shared_expert_intermediate_size", default=512)

    def feed(inv: Inventory, layer: int) -> None:
        moe(inv, layer, s.hidden, experts, width, shared=shared)
        inv.linear("ffn_gate_inp_shexp", layer, 1, s.hidden)

    return feed


@family("qwen3_next")
def qwen3_next(c: Config) -> Architecture:
    s = read_shape(c, layers=48, hidden=2048, heads=16, kv_heads=2, head_dim=256, vocab=151936, ffn=5632, context=32768)
    experts = c.integer("num_experts", "num_local_experts", default=512, low=0, high=65536)
    step, dense = c.integer("decoder_sparse_step", default=1), frozenset(c.integers("mlp_only_layers") or ())
    routed = _routed(c, s, experts)

    def feed(inv: Inventory, layer: int) -> None:
        if experts and layer not in dense and (layer + 1) % step == 0:
            routed(inv, layer)
        else:
            mlp(inv, layer, s.hidden, s.ffn)

    per_token = c.integer("num_experts_per_tok", default=10, low=0, high=65536)
    return _qwen(c, s, feed, "qwen3_next", experts, per_token, fused_ba=True)


@family("qwen3_5_text")
def qwen3_5(c: Config) -> Architecture:
    s = read_shape(c, layers=32, hidden=4096, heads=16, kv_heads=4, head_dim=256, vocab=248320, ffn=12288, context=32768)
    return _qwen(c, s, lambda inv, layer: mlp(inv, layer, s.hidden, s.ffn), "qwen3_5", 0, 0)


@family("qwen3_5_moe_text")
def qwen3_5_moe(c: Config) -> Architecture:
    s = read_shape(c, layers=40, hidden=2048, heads=16, kv_heads=2, head_dim=256, vocab=248320, context=32768)
    experts = c.integer("num_experts", "num_local_experts", default=256, high=65536)
    per_token = c.integer("num_experts_per_tok", default=8, high=65536)
    return _qwen(c, s, _routed(c, s, experts), "qwen3_5_moe", experts, per_token)


@family("olmo_hybrid")
def olmo_hybrid(c: Config) -> Architecture:
    """Norms stand before the delta nets and after the attention layers; each layer has two either way."""
    s = read_shape(c, layers=32, hidden=3840, heads=30, vocab=100352, ffn=11008, context=65536)
    k_heads = c.integer("linear_num_key_heads", default=s.heads, high=65536)
    k_dim = c.integer("linear_key_head_dim", default=int(0.75 * s.hidden / k_heads), high=65536)
    d = DeltaNet.read(c, k_heads, s.heads, k_dim, 2 * k_dim)
    kinds = layer_kinds(c, s.layers) or ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(s.layers)]
    if "full_attention" not in kinds:
        kinds[-1] = "full_attention"
    bias = c.flag("attention_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        if kinds[layer] == "linear_attention":
            inv.norm("attn_norm", layer, s.hidden)
            cache = gated_delta_net(inv, layer, s.hidden, d)
            inv.norm("ffn_norm", layer, s.hidden)
        else:
            attention(inv, layer, s, bias=bias, out_bias=bias, qk_norm="full")
            inv.norm("attn_post_norm", layer, s.hidden)
            inv.norm("ffn_post_norm", layer, s.hidden)
            cache = window_cache(s, layer)
        mlp(inv, layer, s.hidden, s.ffn)
        return cache

    return decoder(c, s, block, family="olmo_hybrid")
