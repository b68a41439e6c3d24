"""Encoder-decoders: T5's and BART's kinds, Whisper, T5Gemma. The decoder caches its own tokens, and K and V of the encoder's.

Facts: transformers 5.23, models/*/configuration_*.py and modeling_*.py; role names: llama.cpp, src/llama-arch.cpp (t5).
"""

from __future__ import annotations

from typing import Literal

from ...values import dataclass
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, architecture_name, dtype_of
from .config import MAX_LAYERS, Config
from .encoders import head_of, labels
from .plain import defaulted, llama_shape
from .registry import family
from .windows import Windows, layer_kinds

Side = Literal["enc", "dec"]


@dataclass(frozen=True)
class Stack:
    """One side of the model: its sizes."""

    side: Side
    layers: int
    hidden: int
    heads: int
    head_dim: int
    ffn: int
    kv_heads: int = 0

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


def _attention(
    inv: Inventory, layer: int, s: Stack, kind: str = "attn", *, bias: bool = True, key_bias: bool = True, source: int = 0
) -> None:
    """Q, K, V and output projections; those of cross-attention read K and V from a state `source` wide."""
    kv = (s.kv_heads or s.heads) * s.head_dim
    inv.linear(f"{s.side}.{kind}_q", layer, s.width, s.hidden, bias)
    inv.linear(f"{s.side}.{kind}_k", layer, kv, source or s.hidden, bias and key_bias)
    inv.linear(f"{s.side}.{kind}_v", layer, kv, source or s.hidden, bias)
    inv.linear(f"{s.side}.{kind}_output", layer, s.hidden, s.width, bias)


def _ffn(inv: Inventory, layer: int, s: Stack, *, gated: bool = False, bias: bool = True) -> None:
    if gated:
        inv.linear(f"{s.side}.ffn_gate", layer, s.ffn, s.hidden, bias)
    inv.linear(f"{s.side}.ffn_up", layer, s.ffn, s.hidden, bias)
    inv.linear(f"{s.side}.ffn_down", layer, s.hidden, s.ffn, bias)


def _caches(s: Stack) -> list[CacheLayer]:
    """A decoder layer's own cache, and that of the encoder's tokens."""
    kv = s.kv_heads or s.heads
    found = []
    for layer in range(s.layers):
        found.append(CacheLayer(layer, "full", s.heads, kv, s.head_dim, s.head_dim))
        found.append(CacheLayer(layer, "cross", s.heads, kv, s.head_dim, s.head_dim))
    return found


def _finish(c: Config, inv: Inventory, decoder: Stack, name: str, *, vocab: int, context: int | None, tied: bool) -> Architecture:
    return Architecture(
        name=architecture_name(c),
        family=name,
        kind="encoder-decoder" if inv.cache else "encoder",
        hidden_size=decoder.hidden,
        layers=decoder.layers,
        vocab_size=vocab,
        heads=decoder.heads,
        trained_context=context,
        tied_embeddings=tied,
        tensors=tuple(inv.tensors),
        cache_layers=tuple(inv.cache),
        dtype=inv.dtype,
    )


def _classes(inv: Inventory, c: Config, hidden: int) -> None:
    inv.linear("cls", None, hidden, hidden, bias=True)
    inv.linear("cls.output", None, labels(c), hidden, bias=True)


@dataclass(frozen=True)
class Bart:
    """What sets a family of BART's kind apart. `offset` are extra rows of the position table; None: positions are no weights."""

    offset: int | None = 2
    embedding_norm: bool = True
    final_norm: bool = False
    bias: bool | str = True
    vocab: int = 50265
    hidden: int = 1024
    layers: tuple[int, int] = (12, 12)
    heads: int = 16
    ffn: int = 4096
    context: int = 1024
    global_norm: bool = False
    longformer: bool = False


_BARTS = {
    "bart": Bart(),
    "mvp": Bart(vocab=50267),
    "mbart": Bart(final_norm=True),
    "plbart": Bart(vocab=50005, hidden=768, layers=(6, 6), heads=12, ffn=3072),
    "blenderbot": Bart(0, embedding_norm=False, final_norm=True, vocab=8008, hidden=2560, layers=(2, 24), heads=32, ffn=10240, context=128),
    "blenderbot-small": Bart(0, hidden=512, layers=(8, 8), ffn=2048, context=512),
    "pegasus": Bart(0, embedding_norm=False, final_norm=True),
    "pegasus_x": Bart(
        None, embedding_norm=False, final_norm=True, bias=False, vocab=96103, layers=(16, 16), context=16384, global_norm=True
    ),
    "bigbird_pegasus": Bart(0, bias="use_bias", vocab=96103, layers=(16, 16), context=4096),
    "led": Bart(0, longformer=True),
    "marian": Bart(0, embedding_norm=False, vocab=58101),
    "m2m_100": Bart(None, embedding_norm=False, final_norm=True, vocab=128112),
}


_PLACES = {"enc": "max_encoder_position_embeddings", "dec": "max_decoder_position_embeddings"}


def _stack(c: Config, side: Side, hidden: int, layers: int, heads: int, ffn: int) -> Stack:
    word = "encoder" if side == "enc" else "decoder"
    heads = c.integer(f"{word}_attention_heads", default=heads, high=65536)
    return Stack(
        side,
        c.integer(f"{word}_layers", default=layers, low=0, high=MAX_LAYERS),
        hidden,
        heads,
        max(hidden // heads, 1),
        c.integer(f"{word}_ffn_dim", default=ffn),
    )


def _bart_layers(inv: Inventory, s: Stack, *, bias: bool, key_bias: bool = True) -> None:
    for layer in range(s.layers):
        _attention(inv, layer, s, bias=bias, key_bias=key_bias)
        inv.norm(f"{s.side}.attn_norm", layer, s.hidden, bias=True)
        if s.side == "dec":
            _attention(inv, layer, s, "cross_attn", bias=bias, key_bias=key_bias)
            inv.norm("dec.cross_attn_norm", layer, s.hidden, bias=True)
        _ffn(inv, layer, s)
        inv.norm(f"{s.side}.ffn_norm", layer, s.hidden, bias=True)


def _bart(c: Config, b: Bart, name: str) -> Architecture:
    """A shared embedding, learned positions a side, encoder and decoder layers, and the embedding again as the head."""
    hidden = c.integer("d_model", default=b.hidden)
    vocab = c.integer("vocab_size", default=b.vocab)
    context = c.integer("max_position_embeddings", default=b.context, high=1 << 24)
    bias = c.flag(b.bias) if isinstance(b.bias, str) else b.bias
    head = head_of(c, "ForConditionalGeneration")
    sides: tuple[tuple[Side, int], ...] = (("enc", b.layers[0]), ("dec", b.layers[1]))
    inv = Inventory(dtype_of(c))
    inv.add("token_embd", None, vocab, hidden)
    for side, layers in sides[1:] if head == "ForCausalLM" else sides:
        s = _stack(c, side, hidden, layers, b.heads, b.ffn)
        if b.offset is not None:
            rows = c.integer(_PLACES[side], default=context, high=1 << 24) + b.offset
            inv.add(f"{side}.position_embd", None, rows, hidden)
        if b.embedding_norm:
            inv.norm(f"{side}.token_embd_norm", None, hidden, bias=True)
        _bart_layers(inv, s, bias=bias)
        if b.global_norm and side == "enc":
            _global_tokens(inv, c, s)
        if b.longformer and side == "enc":
            _global_projections(inv, s)
        if b.final_norm:
            inv.norm(f"{side}.output_norm", None, hidden, bias=True)
    inv.cache = _caches(s)
    tied = c.flag("tie_word_embeddings", default=True)
    if head == "ForSequenceClassification":
        _classes(inv, c, hidden)
    elif not tied:
        inv.add("output", None, vocab, hidden)
    return _finish(c, inv, s, name, vocab=vocab, context=context, tied=tied)


def _global_tokens(inv: Inventory, c: Config, s: Stack) -> None:
    """PEGASUS-X: tokens that see everything, and a norm for them in every encoder layer."""
    inv.add("enc.global_embd", None, c.integer("num_global_tokens", default=32, high=65536), s.hidden)
    for layer in range(s.layers):
        inv.norm("enc.global_attn_norm", layer, s.hidden, bias=True)


def _global_projections(inv: Inventory, s: Stack) -> None:
    """LED: a second set of projections for the tokens that see everything."""
    for layer in range(s.layers):
        for role in ("q", "k", "v"):
            inv.linear(f"enc.attn_{role}_global", layer, s.hidden, s.hidden, bias=True)


def _enter(name: str, b: Bart) -> None:
    family(name)(lambda c: _bart(c, b, name))


for _name, _family in _BARTS.items():
    _enter(_name, _family)


@family("whisper")
def whisper(c: Config) -> Architecture:
    """Whisper: two convolutions over the spectrogram, a BART-like pair with no bias on the keys, the embedding as the head."""
    hidden = c.integer("d_model", default=384)
    vocab = c.integer("vocab_size", default=51865)
    mels = c.integer("num_mel_bins", default=80, high=65536)
    frames = c.integer("max_source_positions", default=1500, high=1 << 24)
    context = c.integer("max_target_positions", default=448, high=1 << 24)
    encoder, decoder = (_stack(c, side, hidden, 4, 6, 1536) for side in ("enc", "dec"))
    inv = Inventory(dtype_of(c))
    inv.add("token_embd", None, vocab, hidden)
    inv.add("dec.position_embd", None, context, hidden)
    inv.add("enc.position_embd", None, frames, hidden)
    for role, channels in (("enc.conv1", mels), ("enc.conv2", hidden)):
        inv.add(role, None, hidden, channels, 3)
        inv.add(f"{role}.bias", None, hidden)
    for s in (encoder, decoder):
        _bart_layers(inv, s, bias=True, key_bias=False)
        inv.norm(f"{s.side}.output_norm", None, hidden, bias=True)
    inv.cache = _caches(decoder)
    return _finish(c, inv, decoder, "whisper", vocab=vocab, context=context, tied=True)


def _t5_layers(inv: Inventory, c: Config, s: Stack, *, gated: bool, every_bias: bool, global_norm: bool) -> None:
    buckets = c.integer("relative_attention_num_buckets", default=32, high=1 << 20)
    for layer in range(s.layers):
        inv.norm(f"{s.side}.attn_norm", layer, s.hidden)
        _attention(inv, layer, s, bias=False)
        if every_bias or layer == 0:
            inv.add(f"{s.side}.attn_rel_b", layer, buckets, s.heads)
        if global_norm:
            inv.norm(f"{s.side}.global_attn_norm", layer, s.hidden)
            if layer == 0:
                inv.add(f"{s.side}.global_attn_rel_b", layer, buckets, s.heads)
        if s.side == "dec":
            inv.norm("dec.cross_attn_norm", layer, s.hidden)
            _attention(inv, layer, s, "cross_attn", bias=False)
        inv.norm(f"{s.side}.ffn_norm", layer, s.hidden)
        _ffn(inv, layer, s, gated=gated, bias=False)
    inv.norm(f"{s.side}.output_norm", None, s.hidden)


@family("t5", "mt5", "umt5", "longt5")
def t5(c: Config) -> Architecture:
    """T5: heads of a size of their own (`d_kv`), relative positions in the first layer only (UMT5: in every layer).

    T5 1.1, Flan-T5 and mT5 say `tie_word_embeddings: false`, and their checkpoints hold a head of their own.
    transformers 5 builds the class tied all the same, but unties on loading when both are there with other values.
    """
    kind = c.text("model_type")
    small = kind in ("mt5", "umt5")
    default = (8, 6, 1024, 250112, "gated-gelu") if small else (6, 8, 2048, 32128, "relu")
    hidden = c.integer("d_model", default=512)
    layers = c.integer("num_layers", default=default[0], high=MAX_LAYERS)
    heads = c.integer("num_heads", default=default[1], high=65536)
    head_dim, ffn = c.integer("d_kv", default=64, high=65536), c.integer("d_ff", default=default[2])
    vocab = c.integer("vocab_size", default=default[3])
    gated = c.text("feed_forward_proj", default=default[4]).startswith("gated")
    only_encoder = architecture_name(c).endswith("EncoderModel")
    depths: tuple[tuple[Side, int], ...] = (("enc", layers), ("dec", c.integer("num_decoder_layers", default=layers, high=MAX_LAYERS)))
    inv = Inventory(dtype_of(c))
    inv.add("token_embd", None, vocab, hidden)
    for side, depth in depths[:1] if only_encoder else depths:
        s = Stack(side, depth, hidden, heads, head_dim, ffn)
        global_norm = side == "enc" and c.text("encoder_attention_type") == "transient-global"
        _t5_layers(inv, c, s, gated=gated, every_bias=kind == "umt5", global_norm=global_norm)
    tied = c.flag("tie_word_embeddings", default=True)
    if not only_encoder:
        inv.cache = _caches(s)
        if head_of(c, "ForConditionalGeneration") == "ForSequenceClassification":
            _classes(inv, c, hidden)
        elif not tied and not architecture_name(c).endswith("T5Model"):
            inv.add("output", None, vocab, hidden)
    return _finish(c, inv, s, kind, vocab=vocab, context=c.optional("n_positions", low=1, high=1 << 40), tied=tied)


_T5GEMMA = {"layers": 26, "hidden": 2304, "heads": 8, "kv_heads": 4, "head_dim": 256, "vocab": 256000, "ffn": 9216, "context": 8192}


@family("t5gemma")
def t5gemma(c: Config) -> Architecture:
    """T5Gemma: Gemma 2 as encoder and as decoder with cross-attention, an embedding each; the decoder's is the head too."""
    inv = Inventory(dtype_of(c))
    source = 0
    untied = not c.flag("tie_word_embeddings", default=True)
    sides: tuple[tuple[Side, str], ...] = (("enc", "encoder"), ("dec", "decoder"))
    for side, key in sides:
        part = c.section(key) or Config({}, f"{c.where}: {key}")
        shape = llama_shape(defaulted(part), _T5GEMMA)
        s = Stack(side, shape.layers, shape.hidden, shape.heads, shape.head_dim, shape.ffn, shape.kv_heads)
        bias = part.flag("attention_bias")
        inv.add("token_embd" if side == "enc" else "dec.token_embd" if untied else "output", None, shape.vocab, shape.hidden)
        for layer in range(s.layers):
            _t5gemma_layer(inv, layer, s, source, bias)
        inv.norm(f"{side}.output_norm", None, s.hidden)
        source = source or s.hidden
    if untied:
        inv.add("output", None, shape.vocab, shape.hidden)
    window = Windows(4096, full_every=2)
    kinds = layer_kinds(part, s.layers, window)
    for layer, cache in enumerate(_caches(s)[::2]):
        size = window.window(part) if kinds[layer] == "sliding_attention" else 0
        inv.cache.append(CacheLayer(layer, "sliding" if size else "full", s.heads, s.kv_heads, s.head_dim, s.head_dim, size))
        inv.cache.append(CacheLayer(cache.layer, "cross", s.heads, s.kv_heads, s.head_dim, s.head_dim))
    return _finish(c, inv, s, "t5gemma", vocab=shape.vocab, context=shape.trained_context, tied=not untied)


def _t5gemma_layer(inv: Inventory, layer: int, s: Stack, source: int, bias: bool) -> None:
    for role in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
        inv.norm(f"{s.side}.{role}", layer, s.hidden)
    _attention(inv, layer, s, bias=bias)
    if s.side == "dec":
        inv.norm("dec.cross_attn_norm", layer, s.hidden)
        inv.norm("dec.post_cross_attn_norm", layer, s.hidden)
        _attention(inv, layer, s, "cross_attn", bias=bias, source=source)
    _ffn(inv, layer, s, gated=True, bias=False)
