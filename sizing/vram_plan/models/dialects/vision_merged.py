"""Vision towers that merge neighbouring patches themselves (Qwen-VL, GLM-V and their kin), and Gemma 4's.

The merger is part of the tower here, as in the checkpoints (`visual.merger`). Keys and class defaults:
transformers 5.23, models/*/configuration_*.py.
"""

from __future__ import annotations

from dataclasses import replace

from .blocks import Inventory
from .config import Config
from .vision import tower
from .vit import Vit, blocks, clip_like, lone_norm, read_vit, scaled

__all__ = ["qwen_merger"]


def _frames(v: Config) -> int:
    return v.integer("temporal_patch_size", default=2, high=1024)


def _merged(v: Config, width: int) -> int:
    """Width of a merged patch."""
    return width * v.integer("spatial_merge_size", default=2, high=64) ** 2


def qwen_merger(inv: Inventory, name: str, norm: int, norm_bias: bool, width: int, out: int) -> None:
    """A norm and two biased layers on `width` numbers, ending in `out`."""
    lone_norm(inv, f"{name}.ln", norm, norm_bias)
    inv.linear(f"{name}.0", None, width, width, True)
    inv.linear(f"{name}.2", None, out, width, True)


@tower("qwen2_vl_vision")
def qwen2_vl_vision(inv: Inventory, v: Config) -> Vit:
    """`embed_dim` is the tower's width here, `hidden_size` what the merger puts out."""
    out = v.integer("hidden_size", default=3584)
    s = read_vit(Config({k: x for k, x in v.raw.items() if k != "hidden_size"}, v.where), hidden=1280, layers=32, heads=16, patch=14)
    s = replace(s, ffn=scaled(v, "mlp_ratio", 4, s.hidden))
    inv.add("v.patch_embd", None, s.hidden, s.patch_width * _frames(v))
    blocks(inv, s, fused=True)
    qwen_merger(inv, "mm", s.hidden, True, _merged(v, s.hidden), out)
    return replace(s, hidden=out)


@tower("qwen2_5_vl_vision", "qwen2_5_vl", "qwen2_5_omni_vision_encoder")
def qwen2_5_vl_vision(inv: Inventory, v: Config) -> Vit:
    """RMS norms and a gated feed-forward block with biases."""
    s = read_vit(v, hidden=3584, layers=32, heads=16, ffn=3420, patch=14)
    return _qwen2_5(inv, v, s, s.hidden)


@tower("exaone4_5_vision")
def exaone_vision(inv: Inventory, v: Config) -> Vit:
    """Qwen2.5-VL's tower with grouped-query attention."""
    s = read_vit(v, hidden=3584, layers=32, heads=16, ffn=3420, patch=14)
    return _qwen2_5(inv, v, s, s.hidden // s.heads * v.integer("num_key_value_heads", default=8, high=65536))


def _qwen2_5(inv: Inventory, v: Config, s: Vit, kv_width: int) -> Vit:
    inv.add("v.patch_embd", None, s.hidden, s.patch_width * _frames(v))
    blocks(inv, s, fused=True, gated=True, norm_bias=False, kv_width=kv_width)
    out = v.integer("out_hidden_size", default=3584)
    qwen_merger(inv, "mm", s.hidden, False, _merged(v, s.hidden), out)
    return replace(s, hidden=out)


@tower("qwen3_vl_vision", "qwen3_vl_moe_vision", "qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe_vision_encoder")
def qwen3_vl_vision(inv: Inventory, v: Config) -> Vit:
    """With DeepStack: a merger more for each block whose output is fed to the language model."""
    taps = v.items("deepstack_visual_indexes") if v.has("deepstack_visual_indexes") else [8, 16, 24]
    return _qwen3(inv, v, len(taps or ()))


@tower("qwen3_5_vision", "qwen3_5_moe_vision")
def qwen3_5_vision(inv: Inventory, v: Config) -> Vit:
    return _qwen3(inv, v, 0)


def _qwen3(inv: Inventory, v: Config, deepstack: int) -> Vit:
    s = read_vit(v, hidden=1152, layers=27, heads=16, ffn=4304)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width * _frames(v), True)
    inv.add("v.position_embd", None, v.integer("num_position_embeddings", default=2304), s.hidden)
    blocks(inv, s, fused=True)
    width, out = _merged(v, s.hidden), v.integer("out_hidden_size", default=3584)
    qwen_merger(inv, "mm", s.hidden, True, width, out)
    for i in range(deepstack):
        qwen_merger(inv, f"v.deepstack.{i}", width, True, width, out)
    return replace(s, hidden=out)


@tower("glm4v_vision", "glm4v_moe_vision", "glm4v", "glm4v_moe")
def glm4v_vision(inv: Inventory, v: Config) -> Vit:
    """`intermediate_size` is the merger's width; the blocks' own feed-forward width is `out_hidden_size` (modeling_glm4v.py)."""
    s = read_vit(v, hidden=1536, layers=24, heads=12, ffn=13696, image=336, patch=14)
    out = v.integer("out_hidden_size", default=4096)
    inv.add("v.position_embd", None, s.positions, s.hidden)
    lone_norm(inv, "v.post_conv_ln", s.hidden, False)
    bias = v.flag("attention_bias")
    _glm(inv, v, replace(s, ffn=out), merger=s.ffn, bias=bias, out_bias=False, mlp_bias=False, qk_norm=0)
    return replace(s, hidden=out)


@tower("glm_ocr_vision")
def glm_ocr_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1024, layers=24, heads=16, ffn=4096, image=336, patch=14)
    out, bias = v.integer("out_hidden_size", default=1536), v.flag("attention_bias", default=True)
    merger = out * v.integer("in_channels", default=3, high=1024)
    _glm(inv, v, s, merger=merger, bias=bias, out_bias=bias, mlp_bias=bias, qk_norm=s.hidden // s.heads)
    return replace(s, hidden=out)


@tower("glm5_next_vision")
def glm5_next_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1024, layers=24, heads=16, ffn=4096, image=336, patch=14)
    bias = v.flag("attention_bias", default=True)
    merger = v.integer("projection_intermediate_size", default=10240)
    _glm(inv, v, s, merger=merger, bias=bias, out_bias=bias, mlp_bias=bias, qk_norm=s.hidden // s.heads)
    return replace(s, hidden=v.integer("out_hidden_size", default=1536))


def _glm(inv: Inventory, v: Config, s: Vit, *, merger: int, bias: bool, out_bias: bool, mlp_bias: bool, qk_norm: int) -> None:
    """Patches of two frames, gated blocks, a strided convolution and the gated merger behind it."""
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width * _frames(v), True)
    blocks(inv, s, fused=True, gated=True, bias=bias, out_bias=out_bias, mlp_bias=mlp_bias, norm_bias=False, qk_norm=qk_norm)
    lone_norm(inv, "v.post_ln", s.hidden, False)
    out = v.integer("out_hidden_size", default=1536 if qk_norm else 4096)
    inv.linear("mm.patch_merger", None, out, _merged(v, s.hidden), True)
    inv.add("mm.model.fc", None, out, out)
    lone_norm(inv, "mm.post_ln", out)
    for role, rows, columns in (("gate", merger, out), ("up", merger, out), ("down", out, merger)):
        inv.add(f"mm.{role}", None, rows, columns)


@tower("ernie4_5_vl_moe_vision")
def ernie_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1280, layers=32, heads=16, ffn=5120, patch=14)
    inv.add("v.patch_embd", None, s.hidden, s.patch_width)
    blocks(inv, s, fused=True)
    lone_norm(inv, "v.post_ln", s.hidden)
    return s


@tower("gemma4_vision")
def gemma4_vision(inv: Inventory, v: Config) -> Vit:
    """A table of positions for each axis; four RMS norms a block; head norms on query and key."""
    s = read_vit(v, layers=16)
    dim = v.integer("head_dim", default=64, high=65536)
    kv = v.integer("num_key_value_heads", default=12, high=65536) * dim
    inv.add("v.position_embd", None, 2, v.integer("position_embedding_size", default=10240), s.hidden)
    inv.add("v.patch_embd", None, s.hidden, 3 * s.patch**2)
    blocks(inv, s, bias=False, gated=True, mlp_bias=False, norm_bias=False, qk_norm=dim, q_width=s.heads * dim, kv_width=kv, scales=2)
    return s


@tower("minicpm_ocr_vision", "minicpmv4_6_vision", "minicpmv4_7_vision")
def minicpm_vision(inv: Inventory, v: Config) -> Vit:
    """SigLIP with a merger between two of its blocks: window attention, then a window's patches into one."""
    s = read_vit(v)
    clip_like(inv, s)
    kernel = v.integers("window_kernel_size", low=1, high=64) or [2, 2]
    width = s.hidden * kernel[0] * kernel[-1]
    for role in ("q", "k", "v", "out"):
        inv.linear(f"v.merger.attn_{role}", None, s.hidden, s.hidden, True)
    lone_norm(inv, "v.merger.ln1", s.hidden)
    lone_norm(inv, "v.merger.ln2", width)
    inv.linear("v.merger.ffn_up", None, s.ffn * kernel[0] * kernel[-1], width, True)
    inv.linear("v.merger.ffn_down", None, s.hidden, s.ffn * kernel[0] * kernel[-1], True)
    return s


@tower("lfm3_vl_vision")
def lfm3_vision(inv: Inventory, v: Config) -> Vit:
    """Gated short convolutions over the image, with grouped-query attention in some blocks."""
    s = read_vit(v, hidden=1024, layers=14, heads=16, ffn=2560)
    dim = s.hidden // s.heads
    kv = dim * v.integer("num_key_value_heads", default=8, high=65536)
    kinds = v.items("layer_types") or ["conv" if i < 2 or i % 2 else "full_attention" for i in range(s.layers)]
    inv.add("v.patch_embd", None, s.hidden, s.patch_width * _frames(v))
    lone_norm(inv, "v.pre_ln", s.hidden, False)
    one = replace(s, layers=1)
    for kind in kinds[: s.layers]:
        if kind == "conv":
            inv.add("v.conv_in", None, 3 * s.hidden, s.hidden)
            inv.add("v.conv", None, s.hidden, v.integer("conv_kernel_size", default=3, high=1024) ** 2)
            inv.add("v.conv_out", None, s.hidden, s.hidden)
            for role, rows, columns in (("gate", s.ffn, s.hidden), ("up", s.ffn, s.hidden), ("down", s.hidden, s.ffn)):
                inv.add(f"v.ffn_{role}", None, rows, columns)
            inv.add("v.ln1", None, s.hidden)
            inv.add("v.ln2", None, s.hidden)
        else:
            blocks(inv, one, bias=False, gated=True, mlp_bias=False, norm_bias=False, kv_width=kv, qk_norm=dim)
    return s
