"""Decoders with grouped-query attention and routed experts in (nearly) every layer.

Sources: transformers 5.23.0, models/<family>/modeling_<family>.py; remote code where a family is not in it, as said there.
"""

from __future__ import annotations

from ..architecture import Architecture
from .blocks import Shape, read_shape
from .config import Config
from .moe_defaults import with_defaults
from .registry import family
from .routed import Style, dense_prefix, gqa_draft, layer_windows, read_experts, routed_decoder

__all__ = ["qwen_sparse"]


@family("mixtral")
def mixtral(c: Config) -> Architecture:
    c = with_defaults(c, "mixtral")
    s = read_shape(c)
    return routed_decoder(c, s, read_experts(c, s, width=s.ffn, shared=0), Style(), family="mixtral", windows=layer_windows(c, s))


def qwen_sparse(c: Config, s: Shape) -> tuple[bool, ...]:
    """Qwen's rule: every `decoder_sparse_step`-th layer routes, but none of `mlp_only_layers`."""
    step = c.integer("decoder_sparse_step", default=1, high=65536)
    dense = set(c.integers("mlp_only_layers") or ())
    return tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(s.layers))


@family("qwen2_moe")
def qwen2_moe(c: Config) -> Architecture:
    c = with_defaults(c, "qwen2_moe")
    s = read_shape(c)
    x = read_experts(c, s, sparse=qwen_sparse(c, s), shared=c.integer("shared_expert_intermediate_size", default=0, low=0))
    window = c.optional("sliding_window") if c.flag("use_sliding_window") else 0
    below = c.integer("max_window_layers", default=0, low=0)
    windows = layer_windows(c, s, lambda layer: layer % 2 == 0 and layer < below, window or 0)
    return routed_decoder(c, s, x, Style(bias=c.flag("qkv_bias"), shared_gate=True), family="qwen2_moe", windows=windows)


@family("qwen3_moe", "qwen3_vl_moe_text", "qwen3_omni_moe_text", "qwen3_omni_moe_talker_text")
def qwen3_moe(c: Config) -> Architecture:
    """Qwen3's experts; the speaking half of Qwen3-Omni has a gated shared expert besides."""
    name = c.text("model_type")
    talker = name == "qwen3_omni_moe_talker_text"
    c = with_defaults(c, name)
    s = read_shape(c, **({"head_dim": 128} if name == "qwen3_vl_moe_text" else {}))
    shared = c.integer("shared_expert_intermediate_size", default=0, low=0) if talker else 0
    x = read_experts(c, s, sparse=qwen_sparse(c, s), shared=shared)
    window = 0 if name == "qwen3_moe" and not c.flag("use_sliding_window") else None
    style = Style(qk_norm="head", shared_gate=talker).biased(c)
    return routed_decoder(c, s, x, style, family="qwen3_moe", windows=layer_windows(c, s, window=window))


@family("olmoe")
def olmoe(c: Config) -> Architecture:
    c = with_defaults(c, "olmoe")
    s = read_shape(c)
    x = read_experts(c, s, width=s.ffn, shared=0)
    return routed_decoder(c, s, x, Style(qk_norm="full").biased(c), family="olmoe", windows=layer_windows(c, s))


@family("flex_olmo")
def flex_olmo(c: Config) -> Architecture:
    c = with_defaults(c, "flex_olmo")
    s = read_shape(c)
    x = read_experts(c, s, width=s.ffn, shared=0)
    style = Style(qk_norm="full", norms=("post_attention_norm", "post_ffw_norm")).biased(c)
    return routed_decoder(c, s, x, style, family="flex_olmo", windows=layer_windows(c, s))


@family("phimoe")
def phimoe(c: Config) -> Architecture:
    c = with_defaults(c, "phimoe")
    s = read_shape(c)
    x = read_experts(c, s, width=s.ffn, shared=0)
    style = Style(norm_bias=True, head_bias=c.flag("lm_head_bias")).biased(c)
    return routed_decoder(c, s, x, style, family="phimoe", windows=layer_windows(c, s))


@family("granitemoe", "granitemoeshared", "granitemoe_swa")
def granitemoe(c: Config) -> Architecture:
    name = c.text("model_type")
    c = with_defaults(c, name)
    s = read_shape(c)
    shared = 0 if name == "granitemoe" else c.integer("shared_intermediate_size", default=0, low=0)
    swa = name == "granitemoe_swa"
    windows = layer_windows(c, s, (lambda layer: layer % 4 != 0) if swa else None)
    x = read_experts(c, s, width=s.ffn, shared=shared)
    return routed_decoder(c, s, x, Style(sinks=swa).biased(c), family=name, windows=windows)


@family("gpt_oss", "openai_privacy_filter")
def gpt_oss(c: Config) -> Architecture:
    """Windows in every second layer, a learned sink per head, biases on everything, the router's included."""
    name = c.text("model_type")
    c = with_defaults(c, name)
    s = read_shape(c)
    x = read_experts(c, s, width=s.ffn, shared=0)
    style = Style(sinks=True, expert_bias=True, router_bias=True).biased(c)
    windows = layer_windows(c, s, lambda layer: layer % 2 == 0)
    return routed_decoder(c, s, x, style, family=name, windows=windows)


@family("minimax_m2")
def minimax_m2(c: Config) -> Architecture:
    c = with_defaults(c, "minimax_m2")
    s = read_shape(c)
    x = read_experts(c, s, width=s.ffn, shared=0)
    return routed_decoder(c, s, x, Style(qk_norm="full"), family="minimax_m2", windows=layer_windows(c, s))


@family("ernie4_5_moe")
def ernie4_5_moe(c: Config) -> Architecture:
    c = with_defaults(c, "ernie4_5_moe")
    s = read_shape(c)
    first, step = c.integer("moe_layer_start_index", low=0), c.integer("moe_layer_interval", default=1, high=65536)
    last = c.integer("moe_layer_end_index", default=-1, low=-1)
    last = s.layers - 1 if last == -1 else last
    x = read_experts(c, s, sparse=[first <= layer <= last and (layer + 1) % step == 0 for layer in range(s.layers)])
    bias = c.flag("use_bias")
    style = Style(bias=bias, out_bias=bias, ffn_bias=bias, head_bias=bias, correction=True)
    return routed_decoder(c, s, x, style, family="ernie4_5_moe", windows=layer_windows(c, s))


@family("hunyuan_v1_moe")
def hunyuan_moe(c: Config) -> Architecture:
    """Experts as wide as `intermediate_size`, and one shared one of that width; some configs list `moe_topk` once a layer."""
    c = with_defaults(c, "hunyuan_v1_moe")
    s = read_shape(c)
    x = read_experts(c, s, width=s.ffn, shared=s.ffn, sparse=[True] * s.layers)
    return routed_decoder(c, s, x, Style(qk_norm="head").biased(c), family="hunyuan_v1_moe", windows=layer_windows(c, s))


@family("hy_v3")
def hy_v3(c: Config) -> Architecture:
    c = with_defaults(c, "hy_v3")
    s = read_shape(c)
    x = read_experts(c, s, sparse=dense_prefix(c, s.layers, 1))
    style = Style(qk_norm="head", ffn_bias=c.flag("mlp_bias")).biased(c)
    draft = gqa_draft(c, s, x, style, "none")
    return routed_decoder(c, s, x, style, family="hy_v3", windows=layer_windows(c, s), draft=draft)


@family("dots1")
def dots1(c: Config) -> Architecture:
    """Its class has no default number of experts: without `n_routed_experts` all layers are dense."""
    c = with_defaults(c, "dots1")
    s = read_shape(c)
    above = c.integer("max_window_layers", default=s.layers, low=0)
    windows = layer_windows(c, s, lambda layer: layer >= above)
    return routed_decoder(c, s, read_experts(c, s), Style(qk_norm="head").biased(c), family="dots1", windows=windows)


@family("glm4_moe", "glm4v_moe_text")
def glm4_moe(c: Config) -> Architecture:
    name = c.text("model_type")
    c = with_defaults(c, name)
    s = read_shape(c)
    x = read_experts(c, s)
    style = Style(qk_norm="head" if name == "glm4_moe" and c.flag("use_qk_norm") else "").biased(c, out=False)
    return routed_decoder(c, s, x, style, family=name, windows=layer_windows(c, s), draft=gqa_draft(c, s, x, style))


@family("solar_open")
def solar_open(c: Config) -> Architecture:
    c = with_defaults(c, "solar_open")
    s = read_shape(c)
    x = read_experts(c, s, sparse=[True] * s.layers)
    return routed_decoder(c, s, x, Style().biased(c, out=False), family="solar_open", windows=layer_windows(c, s))
