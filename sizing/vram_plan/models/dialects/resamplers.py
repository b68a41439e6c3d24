"""Bridges between a tower and a language model that are models themselves: Q-Former, perceiver, image tokenizer."""

from __future__ import annotations

from .blocks import Inventory
from .config import Config
from .vit import lone_norm

__all__ = ["image_tokenizer", "perceiver_resampler", "qformer"]


def qformer(inv: Inventory, q: Config, *, words: bool = False, text_block: bool = False, source: int = 0) -> int:
    """BLIP-2's Q-Former: BERT layers over learned queries, every so many with cross-attention to features `source` wide.

    `words` adds embeddings for text, `text_block` a second feed-forward block for it. Returns its width.
    """
    h, ffn = q.integer("hidden_size", default=768), q.integer("intermediate_size", default=3072)
    every = q.integer("cross_attention_frequency", default=2, high=4096)
    source = source or q.integer("encoder_hidden_size", default=1408)
    if words:
        inv.add("mm.qf.token_embd", None, q.integer("vocab_size", default=30522), h)
        inv.add("mm.qf.position_embd", None, q.integer("max_position_embeddings", default=512), h)
    lone_norm(inv, "mm.qf.ln", h)
    for layer in range(q.integer("num_hidden_layers", default=12, high=4096)):
        _bert_attention(inv, "mm.qf.attn", layer, h, h)
        if layer % every == 0:
            _bert_attention(inv, "mm.qf.cross", layer, h, source)
        for name in ("ffn_query", "ffn") if text_block else ("ffn_query",):
            inv.linear(f"mm.qf.{name}_up", layer, ffn, h, True)
            inv.linear(f"mm.qf.{name}_down", layer, h, ffn, True)
            inv.norm(f"mm.qf.{name}_ln", layer, h, True)
    return h


def _bert_attention(inv: Inventory, name: str, layer: int, h: int, source: int) -> None:
    inv.linear(f"{name}_q", layer, h, h, True)
    inv.linear(f"{name}_k", layer, h, source, True)
    inv.linear(f"{name}_v", layer, h, source, True)
    inv.linear(f"{name}_out", layer, h, h, True)
    inv.norm(f"{name}_ln", layer, h, True)


def perceiver_resampler(inv: Inventory, queries: int, width: int, inputs: int) -> None:
    """MiniCPM-V's and Qwen-VL's resampler: one cross-attention of learned queries, as wide as the language model."""
    inv.add("mm.query", None, queries, width)
    if inputs != width:
        inv.add("mm.kv", None, width, inputs)
    inv.linear("mm.attn_qkv", None, 3 * width, width, True)
    inv.linear("mm.attn_out", None, width, width, True)


def image_tokenizer(inv: Inventory, v: Config, *, embed: int, decoder: bool, last_attention: bool = True, codes: int = 16384) -> None:
    """VQGAN's encoder, codebook and (where images are made) decoder, as Janus and Chameleon have it."""
    base, latent = v.integer("base_channels", default=128, high=65536), v.integer("latent_channels", default=256)
    multiples = v.integers("channel_multiplier", low=1, high=1024) or [1, 1, 2, 2, 4]
    deep = v.integer("num_res_blocks", default=2, high=256)
    channels = v.integer("in_channels", default=3, high=1024)
    width = v.integer("embed_dim", default=embed)
    widths = [base * m for m in multiples]
    _convolution(inv, base, channels)
    current = base
    for level, out in enumerate(widths):
        for _ in range(deep):
            _residual(inv, current, out)
            current = out
            if level == len(widths) - 1 and last_attention:
                _pixel_attention(inv, out)
        if level < len(widths) - 1:
            _convolution(inv, out, out)
    _middle(inv, current)
    lone_norm(inv, "vq.norm_out", current)
    _convolution(inv, latent * (2 if v.flag("double_latent") else 1), current)
    inv.add("vq.codebook", None, v.integer("num_embeddings", default=codes), width)
    inv.linear("vq.quant", None, width, latent, True)
    inv.linear("vq.post_quant", None, latent, width, True)
    if not decoder:
        return
    current = widths[-1]
    _convolution(inv, current, latent)
    _middle(inv, current)
    for level, out in reversed(list(enumerate(widths))):
        for _ in range(deep + 1):
            _residual(inv, current, out)
            current = out
            if level == len(widths) - 1:
                _pixel_attention(inv, out)
        if level:
            _convolution(inv, out, out)
    lone_norm(inv, "vq.decoder_norm_out", current)
    _convolution(inv, v.integer("out_channels", default=3, high=1024), current)


def _convolution(inv: Inventory, out: int, inputs: int, kernel: int = 3) -> None:
    inv.linear("vq.conv", None, out, inputs * kernel**2, True)


def _residual(inv: Inventory, inputs: int, out: int) -> None:
    lone_norm(inv, "vq.norm1", inputs)
    _convolution(inv, out, inputs)
    lone_norm(inv, "vq.norm2", out)
    _convolution(inv, out, out)
    if inputs != out:
        _convolution(inv, out, inputs, 1)


def _pixel_attention(inv: Inventory, width: int) -> None:
    lone_norm(inv, "vq.attn_norm", width)
    for role in ("q", "k", "v", "out"):
        inv.linear(f"vq.attn_{role}", None, width, width, True)


def _middle(inv: Inventory, width: int) -> None:
    _residual(inv, width, width)
    _pixel_attention(inv, width)
    _residual(inv, width, width)
