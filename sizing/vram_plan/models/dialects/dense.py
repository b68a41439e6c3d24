"""Dense decoders: every layer is attention and one feed-forward block."""

from __future__ import annotations

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, attention, decoder, mlp, read_shape, window_cache
from .config import Config
from .registry import family


@family("llama")
def llama(c: Config) -> Architecture:
    s = read_shape(c, layers=32, hidden=4096, heads=32, vocab=32000, ffn=11008, context=2048)
    bias, mlp_bias = c.flag("attention_bias"), c.flag("mlp_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s, bias=bias, out_bias=bias)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn, bias=mlp_bias)
        return window_cache(s, layer)

    return decoder(c, s, block, family="llama")
