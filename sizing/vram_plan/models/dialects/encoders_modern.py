"""Encoders of the rotary years: Nomic Embed, EuroBERT, ModernBERT and its decoder.

Facts: transformers 5.23, models/{nomic_bert,eurobert,modernbert,modernbert_decoder}/modeling_*.py.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, dtype_of, mlp, read_shape
from .config import Config
from .encoders import BASE, Encoder, finished, head_of, labels, read_encoder, token_head
from .registry import family
from .windows import Windows, layer_kinds


@family("nomic_bert")
def nomic_bert(c: Config) -> Architecture:
    """Nomic Embed: rotary positions and SwiGLU; the published files use GPT-2's key names.

    The second version has biases, GELU, and experts in every `moe_every_n_layers`-th layer (its own modelling code).
    """
    defaults = {**BASE, "vocab": 30528, "context": 2048}
    gated = "glu" in c.text("activation_function", default="swiglu")
    bias = c.flag("qkv_proj_bias")
    e = Encoder(defaults, positions=False, bias=bias, mlp_bias="mlp_fc1_bias", gated=gated, pooler=False, pools_classes=True)
    found = read_encoder(c, e, "nomic_bert")
    every = c.integer("moe_every_n_layers", default=0, low=0, high=4096)
    if not every or not c.has("num_experts"):
        return found
    return _with_experts(c, found, every)


def _with_experts(c: Config, found: Architecture, every: int) -> Architecture:
    """Every `every`-th layer's feed-forward block turned into routed experts that share one output bias."""
    experts = c.integer("num_experts", high=65536)
    inv = Inventory(found.dtype)
    for tensor in found.tensors:
        if tensor.layer is None or tensor.layer % every != 1 or not tensor.role.startswith("ffn_"):
            inv.tensors.append(tensor)
        elif tensor.role == "ffn_up":
            inv.add("ffn_gate_inp", tensor.layer, experts, found.hidden_size)
            inv.add("ffn_up_exps", tensor.layer, *tensor.shape, experts=experts)
        elif tensor.role == "ffn_down":
            inv.add("ffn_down_exps", tensor.layer, *tensor.shape, experts=experts)
        elif tensor.role == "ffn_down.bias":
            inv.tensors.append(tensor)
    per_token = c.integer("moe_top_k", default=2, high=65536)
    return replace(found, tensors=tuple(inv.tensors), experts=experts, experts_per_token=per_token)


@family("eurobert")
def eurobert(c: Config) -> Architecture:
    """EuroBERT: Llama's layers reading both ways."""
    s = read_shape(c, layers=12, hidden=768, heads=12, vocab=128256, ffn=3072, context=8192)
    inv = Inventory(dtype_of(c))
    bias, mlp_bias = c.flag("attention_bias"), c.flag("mlp_bias")
    inv.add("token_embd", None, s.vocab, s.hidden)
    for layer in range(s.layers):
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s, bias=bias, out_bias=bias)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn, bias=mlp_bias)
    inv.norm("output_norm", None, s.hidden)
    head = head_of(c, "Model")
    if head == "ForMaskedLM":
        if not c.flag("tie_word_embeddings"):
            inv.add("output", None, s.vocab, s.hidden)
        if mlp_bias:
            inv.add("output.bias", None, s.vocab)
    elif head == "ForSequenceClassification":
        inv.linear("cls", None, s.hidden, s.hidden, bias=True)
        inv.linear("cls.output", None, labels(c), s.hidden, bias=True)
    return finished(c, s, inv, "eurobert", [])


@family("modernbert", "modernbert-decoder")
def modernbert(c: Config) -> Architecture:
    """ModernBERT: no norm before the first attention, gate and up in one matrix; its decoder caches half of `local_attention`."""
    decoder = c.text("model_type") == "modernbert-decoder"
    s = read_shape(c, layers=22, hidden=768, heads=12, vocab=50368, ffn=1152, context=8192)
    bias, mlp_bias, norm_bias = c.flag("attention_bias"), c.flag("mlp_bias"), c.flag("norm_bias")
    inv = Inventory(dtype_of(c))
    inv.add("token_embd", None, s.vocab, s.hidden)
    inv.norm("token_embd_norm", None, s.hidden, norm_bias)
    for layer in range(s.layers):
        if layer:
            inv.norm("attn_norm", layer, s.hidden, norm_bias)
        attention(inv, layer, s, bias=bias, out_bias=bias, fused=not decoder)
        inv.norm("ffn_norm", layer, s.hidden, norm_bias)
        inv.linear("ffn_up", layer, 2 * s.ffn, s.hidden, mlp_bias)
        inv.linear("ffn_down", layer, s.hidden, s.ffn, mlp_bias)
    inv.norm("output_norm", None, s.hidden, norm_bias)
    _modern_head(inv, c, s, head_of(c, "ForCausalLM" if decoder else "Model"), norm_bias)
    return finished(c, s, inv, "modernbert", _modern_cache(c, s) if decoder else [])


def _modern_head(inv: Inventory, c: Config, s: Shape, head: str, norm_bias: bool) -> None:
    if head == "Model":
        return
    dense_bias = c.flag("classifier_bias")
    if head in ("ForMaskedLM", "ForCausalLM"):
        token_head(inv, c, s, s.hidden, bias=dense_bias, norm_bias=norm_bias, head_bias=c.flag("decoder_bias", default=True))
        return
    inv.linear("cls", None, s.hidden, s.hidden, dense_bias)
    inv.norm("cls_norm", None, s.hidden, norm_bias)
    inv.linear("cls.output", None, labels(c), s.hidden, bias=True)


def _modern_cache(c: Config, s: Shape) -> list[CacheLayer]:
    every = c.integer("global_attn_every_n_layers", default=3, high=4096)
    window = c.integer("local_attention", default=128, low=0) // 2
    kinds = layer_kinds(c, s.layers, Windows(window, full_every=every, full_first=True))
    cache = []
    for layer, kind in enumerate(kinds):
        size = window if kind == "sliding_attention" else 0
        cache.append(CacheLayer(layer, "sliding" if size else "full", s.heads, s.kv_heads, s.head_dim, s.head_dim, size))
    return cache
