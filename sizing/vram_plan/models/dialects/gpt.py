"""Decoders of the GPT-2 to Falcon years: learned or no positions, LayerNorms, plain feed-forward blocks, fused projections.

Facts: transformers 5.23, models/*/configuration_*.py and modeling_*.py.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture
from .blocks import Inventory, Shape, read_shape
from .config import Config
from .plain import NORMS, Plain, defaulted, llama_shape, read_plain, register, sizes
from .registry import family

#: LayerNorms, a bias on every projection, no gate.
GPT = Plain(bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True)
_ONE_NORM = ("attn_norm",)


def _positions(inv: Inventory, c: Config, s: Shape) -> None:
    inv.add("position_embd", None, c.integer("n_positions", default=s.trained_context or 1024, high=1 << 24), s.hidden)


def _padded_positions(inv: Inventory, c: Config, s: Shape) -> None:
    """OPT's and BioGPT's tables have two rows for padding."""
    inv.add("position_embd", None, (s.trained_context or 2048) + 2, s.hidden)


def _embedding_norm(inv: Inventory, c: Config, s: Shape) -> None:
    inv.norm("token_embd_norm", None, s.hidden, bias=True)


def _last_bias(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Japanese GPT-NeoX: only the last layer's attention has an output bias."""
    if layer == s.layers - 1:
        inv.add("attn_output.bias", layer, s.hidden)


GPT2 = replace(GPT, defaults=sizes(12, 768, 12, 50257, 1024), fused=True, tied=True, before=_positions)
GPTJ = replace(
    GPT, defaults=sizes(28, 4096, 16, 50400, 2048), bias=False, out_bias=False, norms=_ONE_NORM, head_bias=True
)
NEOX = replace(
    GPT, defaults=sizes(44, 6144, 64, 50432, 2048, ffn=24576), bias="attention_bias=true", out_bias="attention_bias=true", fused=True
)

register(
    {
        "gpt2 gpt-sw3": GPT2,
        "openai-gpt": replace(GPT2, defaults=sizes(12, 768, 12, 40478, 512), final_norm=False),
        "gptj": GPTJ,
        "codegen": replace(GPTJ, fused=True),
        "phi": replace(
            GPT,
            defaults=sizes(24, 2048, 32, 51200, 2048, ffn=8192),
            norms=_ONE_NORM,
            head_bias=True,
            qk_norm="head",
            qk_norm_bias=True,
            qk_norm_if="qk_layernorm",
        ),
        "phi-msft mixformer-sequential": replace(
            GPT, defaults=sizes(24, 2048, 32, 51200, 2048), norms=_ONE_NORM, fused=True, head_bias=True
        ),
        "persimmon": replace(
            GPT,
            defaults=sizes(36, 4096, 64, 262144, 16384, ffn=16384),
            fused=True,
            qk_norm="head",
            qk_norm_bias=True,
            qk_norm_if="qk_layernorm=true",
        ),
        "biogpt": replace(GPT, defaults=sizes(24, 1024, 16, 42384, 1024, ffn=4096), tied=True, before=_padded_positions),
    }
)


@family("gpt_neox")
def gpt_neox(c: Config) -> Architecture:
    """GPT-NeoX and Pythia: attention and feed-forward part side by side, each with a norm (RedPajama: one after the other)."""
    return replace(read_plain(c, NEOX, "gpt_neox"), parallel_residual=c.flag("use_parallel_residual", default=True))


@family("gpt_bigcode")
def gpt_bigcode(c: Config) -> Architecture:
    """StarCoder: GPT-2 with one KV head for all, unless `multi_query` is false."""
    s = read_shape(c, **GPT2.defaults)
    s = replace(s, kv_heads=1 if c.flag("multi_query", default=True) else s.heads)
    return read_plain(c, GPT2, "gpt_bigcode", s)


@family("jais")
def jais(c: Config) -> Architecture:
    """Jais (its own modelling code): GPT-2 with SwiGLU, and ALiBi in place of learned positions."""
    alibi = c.text("position_embedding_type") == "alibi"
    gated = c.text("activation_function") == "swiglu"
    return read_plain(c, replace(GPT2, gated=gated, before=None if alibi else _positions), "jais")


@family("gpt_neo")
def gpt_neo(c: Config) -> Architecture:
    """GPT-Neo: no bias on Q, K and V; its local layers still cache every token (transformers keeps no window here)."""
    s = read_shape(c, **sizes(24, 2048, 16, 50257, 2048))
    plain = replace(GPT, bias=False, tied=True, before=_positions)
    return read_plain(c, plain, "gpt_neo", s)


@family("gpt_neox_japanese")
def gpt_neox_japanese(c: Config) -> Architecture:
    s = read_shape(c, **sizes(32, 2560, 32, 32000, 2048))
    s = replace(s, ffn=s.hidden * c.integer("intermediate_multiple_size", default=4, high=4096))
    plain = replace(GPT, bias=False, out_bias=False, mlp_bias=False, fused=True, tied=True, layer_extra=_last_bias)
    return read_plain(c, plain, "gpt_neox_japanese", s)


@family("ctrl")
def ctrl(c: Config) -> Architecture:
    s = replace(read_shape(c, **sizes(48, 1280, 16, 246534, 256)), ffn=c.integer("dff", default=8192))
    return read_plain(c, replace(GPT, tied=True, head_bias=True), "ctrl", s)


@family("xglm")
def xglm(c: Config) -> Architecture:
    """XGLM: sinusoidal positions, which are no weights."""
    named = defaulted(c, num_attention_heads=c.integer("attention_heads", default=16, high=65536))
    return read_plain(c, replace(GPT, tied=True), "xglm", read_shape(named, **sizes(24, 1024, 16, 256008, 2048, ffn=4096)))


@family("opt")
def opt(c: Config) -> Architecture:
    """OPT; the 350M has embeddings of half the width with projections in and out, and no final norm."""
    s = read_shape(c, **sizes(12, 768, 12, 50272, 2048, ffn=3072))
    bias, affine = c.flag("enable_bias", default=True), c.flag("layer_norm_elementwise_affine", default=True)
    narrow = c.integer("word_embed_proj_dim", default=768 if "hidden_size" not in c.raw else s.hidden)
    final = c.flag("do_layer_norm_before", default=True) and not c.flag("_remove_final_layer_norm") and affine

    def before(inv: Inventory, c: Config, s: Shape) -> None:
        _padded_positions(inv, c, s)
        if narrow != s.hidden:
            inv.add("token_embd_in", None, s.hidden, narrow)
            inv.add("token_embd_out", None, narrow, s.hidden)

    plain = replace(
        GPT, bias=bias, out_bias=bias, mlp_bias=bias, norms=NORMS if affine else (), final_norm=final, tied=True, before=before
    )
    return read_plain(c, replace(plain, embedding_width=narrow), "opt", s)


@family("bloom")
def bloom(c: Config) -> Architecture:
    """BLOOM: ALiBi, and a norm after the embedding; the 176B calls its width `n_embed`, which wins."""
    s = read_shape(c, **sizes(2, 64, 8, 250880, 2048))
    hidden = c.integer("n_embed", default=s.hidden)
    s = replace(s, hidden=hidden, head_dim=max(hidden // s.heads, 1), ffn=4 * hidden)
    return read_plain(c, replace(GPT, fused=True, tied=True, before=_embedding_norm), "bloom", s)


@family("mpt")
def mpt(c: Config) -> Architecture:
    """MPT: ALiBi, no bias anywhere (transformers builds none even where `no_bias` is false)."""
    s = read_shape(c, **sizes(24, 2048, 16, 50368, 2048))
    s = replace(s, ffn=max(int(s.hidden * c.number("expansion_ratio", default=4)), 1))
    attn = c.section("attn_config")
    if attn and attn.text("attn_type") in ("grouped_query_attention", "multiquery_attention"):
        s = replace(s, kv_heads=attn.integer("kv_n_heads", default=1, high=65536))
    plain = replace(GPT, bias=False, out_bias=False, mlp_bias=False, norm_bias=False, fused=True, tied=True)
    return read_plain(c, plain, "mpt", s)


@family("falcon", "RefinedWeb", "RefinedWebModel")
def falcon(c: Config) -> Architecture:
    """Falcon: one KV head (7B), or groups and two norms (`new_decoder_architecture`: 40B, 180B), or one norm again (11B).

    `RefinedWeb` is what the 40B's first config calls the new architecture.
    """
    s = llama_shape(c, sizes(32, 4544, 71, 65024, 2048))
    new = c.flag("new_decoder_architecture", default=c.text("model_type") == "RefinedWeb")
    parallel = c.flag("parallel_attn", default=True)
    multi_query = c.flag("multi_query", default=True)
    kv_heads = s.kv_heads if new else 1 if multi_query else s.heads
    two = not parallel or (c.optional("num_ln_in_parallel_attn") or (2 if new else 1)) == 2
    bias = c.flag("bias")
    plain = replace(
        GPT, bias=bias, out_bias=bias, mlp_bias=bias, norms=("attn_norm", "attn_norm_2") if two else _ONE_NORM, fused=True, tied=True
    )
    return read_plain(c, plain, "falcon", replace(s, kv_heads=kv_heads))
