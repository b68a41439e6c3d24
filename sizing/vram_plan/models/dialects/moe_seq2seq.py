"""Encoder-decoders with routed experts: Switch Transformers and NLLB-MoE.

Source: transformers 5.23.0, models/switch_transformers, models/nllb_moe. Decoder layers cache their own keys and values.
"""

from __future__ import annotations

from ...values import dataclass
from ..architecture import Architecture, CacheKind, CacheLayer
from .blocks import Inventory, architecture_name, dtype_of, mlp, moe
from .config import MAX_LAYERS, Config
from .registry import family


def _attention(inv: Inventory, role: str, layer: int, hidden: int, width: int, bias: bool) -> None:
    for part in ("q", "k", "v"):
        inv.linear(f"{role}_{part}", layer, width, hidden, bias)
    inv.linear(f"{role}_output", layer, hidden, width, bias)


def _feed_forward(inv: Inventory, side: str, layer: int, hidden: int, width: int, experts: int, bias: bool, router_bias: bool) -> None:
    """Two matrices without a gate; `experts` is 0 in a dense layer."""
    here = Inventory(inv.dtype)
    if experts:
        moe(here, layer, hidden, experts, width, gated=False, bias=bias)
        if router_bias:
            here.add("ffn_gate_inp.bias", layer, experts)
    else:
        mlp(here, layer, hidden, width, gated=False, bias=bias)
    for tensor in here.tensors:
        inv.add(f"{side}.{tensor.role}", layer, *tensor.shape[1 if tensor.experts else 0 :], experts=tensor.experts)


@dataclass(frozen=True)
class _Sizes:
    """What both families give alike: `layers` and `heads` are the decoder's."""

    hidden: int
    heads: int
    head_dim: int
    layers: int
    vocab: int
    experts: int
    per_token: int


def _finish(c: Config, inv: Inventory, name: str, z: _Sizes) -> Architecture:
    tied = c.flag("tie_word_embeddings", default=True)
    if not tied:
        inv.add("output", None, z.vocab, z.hidden)
    kinds: tuple[CacheKind, ...] = ("full", "cross")
    return Architecture(
        name=architecture_name(c),
        family=name,
        kind="encoder-decoder",
        hidden_size=z.hidden,
        layers=z.layers,
        vocab_size=z.vocab,
        heads=z.heads,
        trained_context=c.optional("max_position_embeddings", "n_positions", low=1),
        tied_embeddings=tied,
        tensors=tuple(inv.tensors),
        cache_layers=tuple(CacheLayer(i, kind, z.heads, z.heads, z.head_dim, z.head_dim) for i in range(z.layers) for kind in kinds),
        experts=z.experts,
        experts_per_token=z.per_token,
        dtype=inv.dtype,
    )


@family("switch_transformers")
def switch_transformers(c: Config) -> Architecture:
    """T5 with one expert chosen a token in every n-th layer, n being the layers for each sparse one."""
    hidden, vocab = c.integer("d_model", default=768), c.integer("vocab_size", default=32128)
    heads, head_dim = c.integer("num_heads", default=12, high=65536), c.integer("d_kv", default=64, high=65536)
    width, experts = c.integer("d_ff", default=2048), c.integer("num_experts", default=8, high=65536)
    layers = c.integer("num_layers", default=12, high=MAX_LAYERS)
    depths = {"enc": layers, "dec": c.integer("num_decoder_layers", default=layers, high=MAX_LAYERS)}
    buckets = c.integer("relative_attention_num_buckets", default=32)
    inv = Inventory(dtype_of(c))
    inv.add("token_embd", None, vocab, hidden)
    for side, depth in depths.items():
        routed = c.integer(f"num_sparse_{side}oder_layers", default=3, low=0)
        step = depth // routed if routed else depth
        for layer in range(depth):
            _attention(inv, f"{side}.attn", layer, hidden, heads * head_dim, False)
            if layer == 0:
                inv.add(f"{side}.attn_rel_b", layer, buckets, heads)
            inv.norm(f"{side}.attn_norm", layer, hidden)
            if side == "dec":
                _attention(inv, "dec.cross_attn", layer, hidden, heads * head_dim, False)
                inv.norm("dec.cross_attn_norm", layer, hidden)
            here = experts if step > 0 and (step == 1 or layer % step == 1) else 0
            _feed_forward(inv, side, layer, hidden, width, here, False, c.flag("router_bias"))
            inv.norm(f"{side}.ffn_norm", layer, hidden)
        inv.norm(f"{side}.output_norm", None, hidden)
    return _finish(c, inv, "switch_transformers", _Sizes(hidden, heads, head_dim, depths["dec"], vocab, experts, 1))


@family("nllb-moe")
def nllb_moe(c: Config) -> Architecture:
    """NLLB-MoE 54B: two experts chosen a token in every fourth layer of either side; positions are computed, not learned."""
    hidden, vocab = c.integer("d_model", default=1024), c.integer("vocab_size", default=128112)
    experts = c.integer("num_experts", default=128, high=65536)
    heads = {side: c.integer(f"{side}oder_attention_heads", default=16, high=65536) for side in ("enc", "dec")}
    inv = Inventory(dtype_of(c))
    inv.add("token_embd", None, vocab, hidden)
    for side in ("enc", "dec"):
        width, step = c.integer(f"{side}oder_ffn_dim", default=4096), c.integer(f"{side}oder_sparse_step", default=4, low=0)
        for layer in range(c.integer(f"{side}oder_layers", default=12, high=MAX_LAYERS)):
            _attention(inv, f"{side}.attn", layer, hidden, hidden, True)
            inv.norm(f"{side}.attn_norm", layer, hidden, bias=True)
            if side == "dec":
                _attention(inv, "dec.cross_attn", layer, hidden, hidden, True)
                inv.norm("dec.cross_attn_norm", layer, hidden, bias=True)
            here = experts if step and (layer + 1) % step == 0 else 0
            _feed_forward(inv, side, layer, hidden, width, here, True, c.flag("router_bias"))
            inv.norm(f"{side}.ffn_norm", layer, hidden, bias=True)
        inv.norm(f"{side}.output_norm", None, hidden, bias=True)
    layers = c.integer("decoder_layers", default=12, high=MAX_LAYERS)
    return _finish(c, inv, "nllb_moe", _Sizes(hidden, heads["dec"], max(hidden // heads["dec"], 1), layers, vocab, experts, 2))
