"""Dense decoders that fit no table: a shape for every layer, or keys of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import FormatError
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, moe, read_shape, window_cache
from .config import Config
from .dense import BARE
from .plain import Plain, defaulted, llama_shape, read_plain
from .registry import family


@family("minicpm")
def minicpm(c: Config) -> Architecture:
    """MiniCPM: Llama's tensors, tied by default; with `num_experts` every feed-forward block is routed."""
    experts = c.optional("num_experts", high=65536)
    if not experts:
        return read_plain(c, replace(BARE, tied=True), "minicpm")
    s = read_shape(c)
    count = experts

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s)
        inv.norm("ffn_norm", layer, s.hidden)
        moe(inv, layer, s.hidden, count, s.ffn)
        return window_cache(s, layer)

    per_token = c.integer("num_experts_per_tok", default=2, high=65536)
    return decoder(c, s, block, family="minicpm", tied=True, experts=count, experts_per_token=per_token)


def _layer_config(raw: Any, c: Config, layer: int, key: str) -> Config:
    part = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(part, dict):
        raise FormatError(f"{c.where}: block_configs[{layer}] has no {key}")
    return Config(part, f"{c.where}: block_configs[{layer}].{key}")


def _nas_attention(inv: Inventory, layer: int, s: Shape, a: Config) -> CacheLayer | None:
    """Grouped attention with this layer's group size; or one matrix in its place; or nothing."""
    if a.flag("no_op"):
        return None
    inv.norm("attn_norm", layer, s.hidden)
    if a.flag("replace_with_linear"):
        inv.linear("attn_output", layer, s.hidden, s.hidden)
        return None
    here = replace(s, kv_heads=max(s.heads // a.integer("n_heads_in_group", high=65536), 1))
    attention(inv, layer, here)
    return window_cache(here, layer)


def _nas_width(ffn: Config, hidden: int) -> int:
    """The width `ffn_mult` asks for: two thirds of it, rounded up to 256."""
    exact = ffn.optional("intermediate_size", low=1)
    return exact or max(-(-int(2 * ffn.number("ffn_mult", default=4) * hidden / 3) // 256) * 256, 256)


def _nas_ffn(inv: Inventory, layer: int, s: Shape, ffn: Config) -> None:
    if ffn.flag("no_op"):
        return
    inv.norm("ffn_norm", layer, s.hidden)
    if ffn.flag("replace_with_linear"):
        inv.linear("ffn_down", layer, s.hidden, s.hidden)
    else:
        mlp(inv, layer, s.hidden, _nas_width(ffn, s.hidden))


@family("nemotron-nas", "deci")
def nemotron_nas(c: Config) -> Architecture:
    """Nemotron-NAS (Super 49B, Ultra 253B, 51B): every layer has KV heads and a width of its own, or goes without.

    DeciLM-7B lists only its KV heads (`num_key_value_heads_per_layer`).
    """
    blocks = c.items("block_configs")
    listed = c.integers("num_key_value_heads_per_layer", low=1, high=65536)
    base = defaulted(c, intermediate_size=1 if blocks else None)
    s = read_shape(base)
    if (blocks is not None and len(blocks) < s.layers) or (listed is not None and len(listed) < s.layers):
        raise FormatError(f"{c.where}: fewer layers are listed than the {s.layers} it has")

    def block(inv: Inventory, layer: int) -> CacheLayer | None:
        if blocks is not None:
            cache = _nas_attention(inv, layer, s, _layer_config(blocks[layer], c, layer, "attention"))
            _nas_ffn(inv, layer, s, _layer_config(blocks[layer], c, layer, "ffn"))
            return cache
        here = replace(s, kv_heads=listed[layer]) if listed else s
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, here)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn)
        return window_cache(here, layer)

    return decoder(c, s, block, family="nemotron-nas")


def _rounded(value: float, to: int) -> int:
    """OpenELM's rounding: to the nearest multiple, and up where that would lose a tenth."""
    near = max(to, int(value + to / 2) // to * to)
    return near + to if near < 0.9 * value else near


@family("openelm")
def openelm(c: Config) -> Architecture:
    """OpenELM (its own modelling code): heads and width differ from layer to layer."""
    hidden, layers = c.integer("model_dim"), c.integer("num_transformer_layers", high=4096)
    queries, keys = c.integers("num_query_heads", low=1, high=65536), c.integers("num_kv_heads", low=1, high=65536)
    widths = c.items("ffn_multipliers")
    if not queries or not keys or not widths or min(len(queries), len(keys), len(widths)) < layers:
        raise FormatError(f"{c.where}: num_query_heads, num_kv_heads and ffn_multipliers must list {layers} layers each")
    dim, divisor = c.integer("head_dim", high=65536), c.integer("ffn_dim_divisor", default=256)
    s = Shape(hidden, layers, max(queries), max(keys), dim, hidden, c.integer("vocab_size"), c.optional("max_context_length", low=1))
    gated, normed = c.flag("ffn_with_glu", default=True), c.flag("normalize_qk_projections")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        here = replace(s, heads=queries[layer], kv_heads=keys[layer])
        inv.norm("attn_norm", layer, hidden)
        attention(inv, layer, here, fused=True, qk_norm="head" if normed else "")
        inv.norm("ffn_norm", layer, hidden)
        factor = Config({"f": widths[layer]}, f"{c.where}: ffn_multipliers").number("f", default=4)
        mlp(inv, layer, hidden, _rounded(min(abs(factor), 64) * hidden, divisor), gated=gated)
        return window_cache(here, layer)

    return decoder(c, s, block, family="openelm", tied=c.flag("share_input_output_layers", default=True))


@family("llada")
def llada(c: Config) -> Architecture:
    """LLaDA (its own modelling code): Llama's tensors under OLMo's first key names; it denoises, and keeps no cache."""
    named = defaulted(c, intermediate_size=c.optional("mlp_hidden_size", low=1), vocab_size=c.optional("embedding_size", low=1))
    named = Config({**named.raw, "vocab_size": c.get("embedding_size") or c.get("vocab_size")}, c.where)
    s = read_shape(defaulted(named, num_key_value_heads=c.optional("n_kv_heads", low=1, high=65536)))
    bias = c.flag("include_qkv_bias")
    plain = Plain(bias=bias, out_bias=c.flag("include_bias"), mlp_bias=c.flag("include_bias"), tied=c.flag("weight_tying"))
    return replace(read_plain(named, plain, "llada", s), cache_layers=())


@family("hrm_text")
def hrm_text(c: Config) -> Architecture:
    """HRM: two stacks of norm-free layers run over and over, with a cache for every pass."""
    s = llama_shape(c, {"layers": 16, "hidden": 1536, "heads": 12, "head_dim": 128, "vocab": 151808, "ffn": 4096, "context": 2048})
    stack = c.integer("num_layers_per_stack", default=s.layers, high=4096)
    passes = c.integer("H_cycles", default=2, high=1024) * (c.integer("L_cycles", default=3, high=1024) + 1)
    bias, mlp_bias = c.flag("attention_bias"), c.flag("mlp_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer | None:
        attention(inv, layer, s, bias=bias, out_bias=bias)
        inv.linear("attn_gate", layer, s.q_width, s.hidden, bias)
        mlp(inv, layer, s.hidden, s.ffn, bias=mlp_bias)
        return None

    def before(inv: Inventory) -> None:
        inv.add("state_init", None, s.hidden)

    found = decoder(c, replace(s, layers=2 * stack), block, family="hrm_text", final_norm=False, before=before)
    cache = tuple(window_cache(s, layer) for layer in range(min(stack * passes, 65536)))
    return replace(found, cache_layers=cache)


@family("cpmant")
def cpmant(c: Config) -> Architecture:
    """CPM-Ant: prompt rows in the embedding (so the head is not it), and relative position biases shared by all layers."""
    named = defaulted(c, head_dim=c.integer("dim_head", default=128, high=65536), intermediate_size=c.integer("dim_ff", default=10240))
    s = llama_shape(named, {"layers": 48, "hidden": 4096, "heads": 32, "vocab": 30720, "context": 2048})
    segments = c.integer("segment_types", default=32, high=65536)
    prompts = c.integer("prompt_types", default=32, high=65536) * c.integer("prompt_length", default=32, high=65536)
    buckets = c.integer("position_bias_num_buckets", default=512, high=1 << 20)

    def before(inv: Inventory, c: Config, s: Shape) -> None:
        inv.add("output", None, s.vocab - prompts, s.hidden)
        inv.add("token_types", None, segments, s.hidden)
        inv.add("attn_rel_b", None, segments * segments + buckets, s.heads)

    plain = Plain(bias=False, out_bias=False, tied=True, before=before)
    return read_plain(named, plain, "cpmant", replace(s, vocab=s.vocab + prompts))
