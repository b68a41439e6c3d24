"""Decoders with routed experts."""

from __future__ import annotations

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, attention, decoder, moe, read_shape, window_cache
from .config import Config
from .registry import family


@family("mixtral")
def mixtral(c: Config) -> Architecture:
    s = read_shape(c, layers=32, hidden=4096, heads=32, kv_heads=8, vocab=32000, ffn=14336, context=131072)
    experts = c.integer("num_local_experts", default=8, high=65536)
    window = c.optional("sliding_window") or 0

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s)
        inv.norm("ffn_norm", layer, s.hidden)
        moe(inv, layer, s.hidden, experts, s.ffn)
        return window_cache(s, layer, window)

    return decoder(
        c, s, block, family="mixtral", experts=experts, experts_per_token=c.integer("num_experts_per_tok", default=2, high=65536)
    )
