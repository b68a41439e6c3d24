"""The language models that exist only inside a multimodal config.

Facts: transformers 5.23, the Text configs and decoder layers of models/*/.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, moe, window_cache
from .config import Config
from .dense import GLM, LLAMA, QWEN2
from .plain import SANDWICH, Plain, llama_shape, register
from .registry import family
from .windows import Windows

_QWEN2_VL = replace(
    QWEN2, defaults={"layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "vocab": 152064, "ffn": 29568, "context": 32768}
)


def _ada_norm(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Voxtral Realtime: a norm conditioned on the delay, through a narrow pair of layers (32 wide)."""
    inv.add("ada_norm_down", layer, 32, s.hidden)
    inv.add("ada_norm_up", layer, s.hidden, 32)


def _head_gate(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    inv.add("attn_gate", layer, s.q_width, s.hidden)


def _qk_table(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Chameleon: a layer norm for every query and every key head, with biases."""
    for role, heads in (("attn_q_norm", s.heads), ("attn_k_norm", s.kv_heads)):
        inv.norm(role, layer, heads * s.head_dim, True)


register(
    {
        "qwen2_vl_text qwen2_5_vl_text": _QWEN2_VL,
        "qwen2_5_omni_text": replace(
            QWEN2, defaults={"layers": 28, "hidden": 3584, "heads": 28, "kv_heads": 4, "vocab": 152064, "ffn": 18944, "context": 32768}
        ),
        "qwen3_vl_text": replace(
            QWEN2,
            defaults={
                "layers": 32,
                "hidden": 4096,
                "heads": 32,
                "kv_heads": 32,
                "head_dim": 128,
                "vocab": 151936,
                "ffn": 22016,
                "context": 128000,
            },
            bias="attention_bias",
            out_bias="attention_bias",
            qk_norm="head",
            windows=Windows(),
        ),
        "glm4v_text": replace(GLM, defaults={k: v for k, v in GLM.defaults.items() if k != "head_dim"}, norms=SANDWICH, bias=True),
        "glm_ocr_text": replace(
            GLM,
            defaults={"layers": 16, "hidden": 1024, "heads": 16, "kv_heads": 8, "vocab": 59392, "ffn": 4096, "context": 131072},
            norms=SANDWICH,
            bias=False,
        ),
        "paddleocr_vl_text": Plain(
            {"layers": 18, "hidden": 1024, "heads": 16, "kv_heads": 2, "head_dim": 128, "vocab": 103424, "ffn": 3072, "context": 131072},
            bias="use_bias",
            out_bias="use_bias",
            mlp_bias="use_bias",
            tied=True,
        ),
        "hunyuan_vl_text": replace(LLAMA, defaults={**LLAMA.defaults, "vocab": 290943}, mlp_bias=False, qk_norm="head", tied=True),
        "granite_docling_text": replace(
            LLAMA,
            defaults={"layers": 28, "hidden": 1024, "heads": 16, "kv_heads": 4, "vocab": 133800, "ffn": 2048, "context": 32768},
            tied=True,
        ),
        "granite4_vision_text": LLAMA,
        "cosmos3_edge_text": replace(
            LLAMA,
            defaults={
                "layers": 28,
                "hidden": 2048,
                "heads": 16,
                "kv_heads": 8,
                "head_dim": 128,
                "vocab": 131072,
                "ffn": 9216,
                "context": 131072,
            },
            gated=False,
        ),
        "voxtral_realtime_text": Plain(
            {"layers": 26, "hidden": 3072, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocab": 131072, "ffn": 9216, "context": 131072},
            bias=False,
            out_bias=False,
            tied=True,
            windows=Windows(8192),
            layer_extra=_ada_norm,
        ),
        "emu3_text_model": replace(
            LLAMA, defaults={"layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8, "vocab": 184622, "ffn": 14336, "context": 9216}
        ),
        "chameleon_text": replace(LLAMA, defaults={**LLAMA.defaults, "vocab": 65536, "context": 4096}, layer_extra=_qk_table),
        "muse_glimmer_text": Plain(
            {"layers": 52, "hidden": 6656, "heads": 32, "kv_heads": 2, "head_dim": 128, "vocab": 202048, "ffn": 19968, "context": 131072},
            norms=SANDWICH,
            windows=Windows(2048, full_every=4),
            layer_extra=_head_gate,
        ),
    }
)


@family("molmo2_text")
def molmo2_text(c: Config) -> Architecture:
    """Qwen3's or Llama's layer; the embedding has rows for its special tokens that the head has not."""
    from .plain import read_plain

    defaults = {"layers": 36, "hidden": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocab": 151936, "ffn": 12288, "context": 36864}
    extra = c.integer("additional_vocab_size", default=128, low=0)
    plain = replace(
        QWEN2,
        defaults=defaults,
        bias="attention_bias",
        out_bias=False,
        qk_norm="head" if c.text("qk_norm_type", default="qwen3") == "qwen3" else "full",
        windows=Windows(),
        before=lambda inv, c, s: inv.add("token_embd", None, extra, s.hidden),
    )
    return read_plain(c, plain, "molmo2")


@family("mllama_text_model")
def mllama_text(c: Config) -> Architecture:
    """Llama 3.2 Vision: some layers attend to the image only. They keep image K and V, nothing per text token.

    The embedding has eight rows more than the head, for the image token (modeling_mllama.py).
    """
    s = llama_shape(c, {"layers": 40, "hidden": 4096, "heads": 32, "kv_heads": 8, "vocab": 128256, "ffn": 14336, "context": 131072})
    cross = c.integers("cross_attention_layers")
    crossing = set([3, 8, 13, 18, 23, 28, 33, 38] if cross is None else cross)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn)
        if layer not in crossing:
            attention(inv, layer, s)
            return window_cache(s, layer)
        attention(inv, layer, s, qk_norm="head")
        inv.add("cross_attn_attn_gate", layer, 1)
        inv.add("cross_attn_mlp_gate", layer, 1)
        return CacheLayer(layer, "cross", s.heads, s.kv_heads, s.head_dim, s.head_dim)

    untied = Config({**c.raw, "tie_word_embeddings": False}, c.where)  # the sizes differ, so the flag ties nothing
    return decoder(untied, s, block, family="mllama", before=lambda inv: inv.add("token_embd", None, 8, s.hidden))


@family("aria_text")
def aria_text(c: Config) -> Architecture:
    s = llama_shape(c, {**LLAMA.defaults, "ffn": 4096})
    experts = c.integer("moe_num_experts", default=8, high=65536)
    shared = s.ffn * c.integer("moe_num_shared_experts", default=2, low=0, high=4096)
    bias, mlp_bias = c.flag("attention_bias"), c.flag("mlp_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s, bias=bias, out_bias=bias)
        inv.norm("ffn_norm", layer, s.hidden)
        moe(inv, layer, s.hidden, experts, s.ffn)
        mlp(inv, layer, s.hidden, shared, bias=mlp_bias, suffix="_shexp")
        return window_cache(s, layer)

    top = c.integer("moe_topk", default=2, high=65536)
    return decoder(c, s, block, family="aria", experts=experts, experts_per_token=top)


@family("ernie4_5_vl_moe_text")
def ernie_vl_text(c: Config) -> Architecture:
    """Two sets of routed experts a layer: one for text tokens, a narrower one for image tokens; a shared expert."""
    s = llama_shape(c, {"layers": 28, "hidden": 2560, "heads": 20, "kv_heads": 4, "vocab": 103424, "ffn": 12288, "context": 131072})
    counts = c.integers("moe_num_experts", low=1, high=65536) or [c.integer("moe_num_experts", default=64, high=65536)]
    widths = c.integers("moe_intermediate_size", low=1) or [1536, 512]
    shared = widths[0] * c.integer("moe_num_shared_experts", default=2, low=0, high=4096)
    kinds, bias = c.items("mlp_layer_types"), c.flag("use_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s, bias=bias, out_bias=bias)
        inv.norm("ffn_norm", layer, s.hidden)
        sparse = kinds[layer] == "sparse" if kinds and layer < len(kinds) else layer > 0
        if not sparse:
            mlp(inv, layer, s.hidden, s.ffn, bias=bias)
            return window_cache(s, layer)
        for i, width in enumerate(widths[:2]):
            moe(inv, layer, s.hidden, counts[min(i, len(counts) - 1)], width, router_bias=True)
        if shared:
            mlp(inv, layer, s.hidden, shared, bias=bias, suffix="_shexp")
        return window_cache(s, layer)

    top = c.integer("moe_k", default=6, high=65536)
    return decoder(c, s, block, family="ernie4_5_vl_moe", tied=True, experts=counts[0], experts_per_token=top)
