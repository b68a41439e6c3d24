"""Vision towers by the `model_type` of their config. Each adds its weights and returns its numbers.

Keys and class defaults: transformers 5.23, models/*/configuration_*.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from .blocks import Inventory
from .config import Config
from .nested import section
from .vit import Vit, blocks, clip_like, lone_norm, pooling_head, read_vit, scaled, side

__all__ = ["TOWERS", "Tower", "sam", "sam_neck", "tower", "vision"]

Tower = Callable[[Inventory, Config], Vit]
TOWERS: Final[dict[str, Tower]] = {}


def tower(*kinds: str) -> Callable[[Tower], Tower]:
    """Mark a function as the reader of these vision `model_type`s."""

    def mark(read: Tower) -> Tower:
        TOWERS.update(dict.fromkeys(kinds, read))
        return read

    return mark


@lru_cache(maxsize=1)
def _towers() -> Mapping[str, Tower]:
    """Every tower, the modules that describe them imported."""
    for module in ("vision_merged",):
        import_module(f".{module}", __package__)
    return TOWERS


def vision(
    inv: Inventory,
    c: Config,
    kind: str,
    *,
    fixed: bool = False,
    absent: Mapping[str, Any] | None = None,
    keys: tuple[str, ...] = ("vision_config",),
) -> Vit:
    """The tower under `vision_config`; `kind` where its type is not named or not known, or always when `fixed`."""
    v = section(c, *keys, absent=absent)
    inv.part = "vision"
    named = v.text("model_type")
    towers = _towers()
    return towers[named if named in towers and not fixed else kind](inv, v)


@tower("clip_vision_model", "chinese_clip_vision_model", "git_vision_model", "kosmos_2_vision_model")
def clip(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, patch=32)
    clip_like(inv, s, cls=1, patch_bias=False, pre_norm=True)
    return s


@tower("siglip_vision_model")
def siglip(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v)
    clip_like(inv, s)
    if v.flag("vision_use_head", default=True):
        pooling_head(inv, s)
    return s


@tower("siglip2_vision_model")
def siglip2(inv: Inventory, v: Config) -> Vit:
    """SigLIP 2 NaFlex: a fixed table of positions, resized to each image."""
    s = read_vit(v)
    clip_like(inv, s, positions=v.integer("num_patches", default=256))
    if v.flag("vision_use_head", default=True):
        pooling_head(inv, s)
    return s


@tower("idefics2_vision", "idefics2")
def idefics2_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, patch=32)
    clip_like(inv, s)
    return s


@tower("idefics3_vision", "smolvlm_vision", "idefics3")
def idefics3_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1152, heads=16, patch=32)
    clip_like(inv, s)
    return s


@tower("idefics_vision")
def idefics_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, layers=32, heads=16, ffn=5120, patch=14)
    clip_like(inv, s, cls=1, patch_bias=False, pre_norm=True)
    return s


@tower("paddleocr_vl_vision")
def paddleocr_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1152, layers=27, heads=16, ffn=4304, image=384, patch=14)
    clip_like(inv, s)
    return s


@tower("video_llama_3_vision")
def video_llama_vision(inv: Inventory, v: Config) -> Vit:
    """Rotary positions: no table."""
    s = read_vit(v)
    clip_like(inv, s, positions=0)
    return s


@tower("cosmos3_edge_vision")
def cosmos_edge_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1152, layers=27, heads=16, ffn=4304)
    clip_like(inv, s, positions=v.integer("num_patches", default=256))
    return s


@tower("molmo2_vision")
def molmo_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1152, layers=25, heads=16, ffn=4304, image=378, patch=14)
    inv.add("v.position_embd", None, v.integer("num_position_embeddings", default=729), s.hidden)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    dim = v.integer("head_dim", default=72, high=65536)
    kv = v.integer("num_key_value_heads", default=16, high=65536)
    bias = v.flag("attention_bias", default=True)
    blocks(inv, s, q_width=s.heads * dim, kv_width=kv * dim, bias=bias, out_bias=bias)
    return s


@tower("phi4_multimodal_vision")
def phi4_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1152, layers=27, heads=16, ffn=4304, image=448, patch=14)
    clip_like(inv, s)
    pooling_head(inv, s)
    return s


@tower("janus_vision_model")
def janus_vision(inv: Inventory, v: Config) -> Vit:
    s = read_vit(v, hidden=1024, layers=24, heads=16, image=384)
    s = replace(s, ffn=scaled(v, "mlp_ratio", 4.0, s.hidden))
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    inv.add("v.position_embd", None, s.positions, s.hidden)
    norm = s.hidden if v.flag("use_qk_norm") else 0
    blocks(inv, s, bias=v.flag("attention_bias", default=True), out_bias=True, qk_norm=norm, qk_norm_bias=True)
    lone_norm(inv, "v.post_ln", s.hidden)
    return s


@tower("blip_vision_model")
def blip_vision(inv: Inventory, v: Config) -> Vit:
    return _blip(inv, read_vit(v, image=384), True)


@tower("blip_2_vision_model", "instructblip_vision_model", "instructblipvideo_vision_model")
def blip2_vision(inv: Inventory, v: Config) -> Vit:
    """EVA-CLIP g/14, the query, key and value in one matrix with one bias."""
    s = read_vit(v, hidden=1408, layers=39, heads=16, ffn=6144, patch=14)
    return _blip(inv, s, v.flag("qkv_bias", default=True))


def _blip(inv: Inventory, s: Vit, bias: bool) -> Vit:
    inv.add("v.class_embd", None, 1, s.hidden)
    inv.add("v.position_embd", None, s.positions + 1, s.hidden)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    blocks(inv, s, fused=True, bias=bias, out_bias=True)
    lone_norm(inv, "v.post_ln", s.hidden)
    return s


@tower("pixtral")
def pixtral(inv: Inventory, v: Config) -> Vit:
    """Rotary positions, gated feed-forward, RMS norms, no bias anywhere."""
    s = read_vit(v, hidden=1024, layers=24, heads=16, ffn=4096, image=1024)
    inv.add("v.patch_embd", None, s.hidden, s.patch_width)
    lone_norm(inv, "v.pre_ln", s.hidden, False)
    blocks(inv, s, bias=False, gated=True, mlp_bias=False, norm_bias=False)
    return s


@tower("internvl_vision")
def internvl_vision(inv: Inventory, v: Config) -> Vit:
    return _internvl(inv, v, bias=False)


@tower("qianfan_ocr_vision")
def qianfan_vision(inv: Inventory, v: Config) -> Vit:
    return _internvl(inv, v, bias=True)


def _internvl(inv: Inventory, v: Config, bias: bool) -> Vit:
    """InternViT: a class token, layer scale, an optional query and key norm over the full width."""
    s = read_vit(v, hidden=1024, layers=24, heads=16, ffn=4096, image=448, patch=14)
    inv.add("v.class_embd", None, 1, s.hidden)
    if v.flag("use_mask_token"):
        inv.add("v.mask_token", None, 1, s.hidden)
    if v.flag("use_absolute_position_embeddings", default=True):
        inv.add("v.position_embd", None, s.positions + 1, s.hidden)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    norm_bias = v.text("norm_type", default="layer_norm") == "layer_norm"
    bias = v.flag("attention_bias", default=bias)
    blocks(inv, s, bias=bias, out_bias=True, norm_bias=norm_bias, qk_norm=s.hidden if v.flag("use_qk_norm") else 0, scales=2)
    if not v.flag("use_mean_pooling", default=True):
        lone_norm(inv, "v.post_ln", s.hidden)
    return s


@tower("llama4_vision_model")
def llama4_vision(inv: Inventory, v: Config) -> Vit:
    """Ends in a pixel shuffle and its adapter, which takes `intermediate_size` numbers a patch (modeling_llama4.py)."""
    s = read_vit(v, layers=34, heads=16, ffn=5632, image=448, patch=14)
    inv.add("v.class_embd", None, s.hidden)
    inv.add("v.position_embd", None, s.positions + 1, s.hidden)
    inv.add("v.patch_embd", None, s.hidden, s.patch_width)
    lone_norm(inv, "v.pre_ln", s.hidden)
    blocks(inv, s)
    lone_norm(inv, "v.post_ln", s.hidden)
    width = v.integer("projector_input_dim", default=4096)
    inv.add("v.adapter.up", None, width, s.ffn)
    out = v.integer("projector_output_dim", default=4096)
    inv.add("v.adapter.down", None, out, out)
    return s


@tower("mllama_vision_model")
def mllama_vision(inv: Inventory, v: Config) -> Vit:
    """A local and a gated global encoder; positions per tile, gated, for each tile arrangement (modeling_mllama.py)."""
    s = read_vit(v, hidden=1280, layers=32, heads=16, ffn=5120, image=448, patch=14)
    tiles = v.integer("max_num_tiles", default=4, high=4096)
    arrangements = len(v.items("supported_aspect_ratios") or range(8)) + 1
    inv.add("v.class_embd", None, s.hidden)
    inv.add("v.patch_embd", None, s.hidden, s.patch_width)
    inv.add("v.position_embd", None, s.positions + 1, s.hidden)
    inv.add("v.position_gate", None, 1)
    inv.add("v.tile_position_embd", None, arrangements, tiles * (s.positions + 1) * s.hidden)
    for role in ("pre", "post"):
        inv.add(f"v.{role}_tile_embd", None, arrangements, tiles * s.hidden)
        inv.add(f"v.{role}_tile_gate", None, 1)
        lone_norm(inv, f"v.{role}_ln", s.hidden)
    blocks(inv, s, bias=False)
    deep = replace(s, layers=v.integer("num_global_layers", default=8, low=0, high=4096))
    blocks(inv, deep, name="v.global", bias=False, scales=2, scale_width=1)
    return s


@tower("kimi_k25_vision", "moonvit")
def moonvit(inv: Inventory, v: Config) -> Vit:
    """MoonViT: a learned grid of positions; its own names begin with `vt_`, as in the published configs."""
    s = Vit(
        hidden=v.integer("hidden_size", "vt_hidden_size", default=1152),
        layers=v.integer("num_hidden_layers", "vt_num_hidden_layers", default=27, high=4096),
        heads=v.integer("num_attention_heads", "vt_num_attention_heads", default=16, high=65536),
        ffn=v.integer("intermediate_size", "vt_intermediate_size", default=4304),
        image=0,
        patch=side(v, "patch_size", 14),
        channels=3,
    )
    bias = v.flag("patch_embed_proj_bias", default=True)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, bias)
    rows = v.integer("pos_emb_height", "init_pos_emb_height", default=64, high=65536)
    inv.add("v.position_embd", None, rows, v.integer("pos_emb_width", "init_pos_emb_width", default=64, high=65536), s.hidden)
    norm_bias = v.text("norm_type") != "rmsnorm"
    blocks(
        inv,
        s,
        bias=v.flag("attn_bias", default=True),
        mlp_bias=v.flag("linear_bias", default=True),
        norm_bias=norm_bias,
        q_width=v.optional("qkv_hidden_size") or 0,
    )
    lone_norm(inv, "v.post_ln", s.hidden, norm_bias)
    return s


@tower("minimax_m3_vl_vision")
def minimax_vision(inv: Inventory, v: Config) -> Vit:
    """CLIP's blocks with rotary positions, patches of two frames."""
    s = read_vit(v, hidden=1280, layers=32, heads=16, ffn=5120, image=2016, patch=14)
    inv.add("v.patch_embd", None, s.hidden, s.patch_width * v.integer("temporal_patch_size", default=2, high=1024))
    lone_norm(inv, "v.pre_ln", s.hidden)
    blocks(inv, s)
    return s


@tower("step3p5_vision")
def step_vision(inv: Inventory, v: Config) -> Vit:
    """Two strided convolutions after the blocks, each doubling the width."""
    s = read_vit(v, hidden=1536, layers=47, heads=16, ffn=8960, image=728, patch=14)
    s = replace(s, ffn=scaled(v, "mlp_ratio", 8960 / 1536, s.hidden))
    inv.add("v.patch_embd", None, s.hidden, s.patch_width)
    inv.add("v.position_embd", None, s.positions, s.hidden)
    lone_norm(inv, "v.pre_ln", s.hidden)
    blocks(inv, s, scales=2)
    inv.linear("v.downsample1", None, 2 * s.hidden, 9 * s.hidden, True)
    inv.linear("v.downsample2", None, 4 * s.hidden, 18 * s.hidden, True)
    return s


@tower("ovis2_vision")
def ovis_vision(inv: Inventory, v: Config) -> Vit:
    """AIMv2 with a head that picks words of a visual vocabulary."""
    s = read_vit(v, hidden=1024, layers=24, heads=8, ffn=2816, patch=14)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    inv.add("v.position_embd", None, s.positions, s.hidden)
    for role in ("v.pre_ln", "v.post_ln"):
        lone_norm(inv, role, s.hidden, False)
    blocks(inv, s, bias=v.flag("qkv_bias"), gated=True, mlp_bias=v.flag("mlp_bias"), norm_bias=False)
    words = max(v.integer("vocab_size", default=16384) - v.integer("num_visual_indicator_tokens", default=5, low=0), 1)
    stride = v.integer("hidden_stride", default=1, high=1024)
    inv.linear("v.head", None, words, s.hidden * stride**2)
    lone_norm(inv, "v.head.ln", words)
    return s


@tower("radio")
def radio(inv: Inventory, v: Config) -> Vit:
    """C-RADIO: class and register tokens, a table of positions for the largest image, patches of two frames for video."""
    s = read_vit(v, hidden=1280, layers=32, heads=16)
    s = replace(s, ffn=scaled(v, "mlp_ratio", 4.0, s.hidden))
    grid = side(v, "max_img_size", 2048) // s.patch
    inv.add("v.position_embd", None, grid**2, s.hidden)
    inv.add("v.class_embd", None, v.integer("num_cls_tokens", default=3, low=0) + v.integer("num_registers", default=7, low=0), s.hidden)
    inv.add("v.patch_embd", None, s.hidden, s.patch_width)
    frames = v.optional("video_temporal_patch_size") or 0
    if frames:
        inv.add("v.video_patch_embd", None, s.hidden, s.patch_width * frames)
    blocks(inv, s, bias=v.flag("qkv_bias", default=True), out_bias=True, scales=2)
    return s


@tower("sam_vision_model", "got_ocr2_vision", "pp_chart2table_vision")
def sam(inv: Inventory, v: Config) -> Vit:
    """Segment Anything's ViT-Det: windowed attention with relative positions per axis, a convolutional neck."""
    s = read_vit(v, image=1024)
    mlp = v.integer("mlp_dim", default=scaled(v, "mlp_ratio", 4.0, s.hidden))
    grid, dim = s.image // s.patch, s.hidden // s.heads
    whole = set(v.integers("global_attn_indexes") or [2, 5, 8, 11])
    window = v.integer("window_size", default=14, low=0)
    if v.flag("use_abs_pos", default=True):
        inv.add("v.position_embd", None, grid**2, s.hidden)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    blocks(inv, replace(s, ffn=mlp), name="v.sam", fused=True, bias=v.flag("qkv_bias", default=True), out_bias=True)
    if v.flag("use_rel_pos", default=True):
        for layer in range(s.layers):
            reach = 2 * (grid if layer in whole or not window else window) - 1
            inv.add("v.sam.rel_pos_h", layer, reach, dim)
            inv.add("v.sam.rel_pos_w", layer, reach, dim)
    out = v.integer("output_channels", default=256)
    sam_neck(inv, s.hidden, out)
    return replace(s, hidden=out, ffn=mlp)


def sam_neck(inv: Inventory, hidden: int, out: int) -> None:
    inv.add("v.sam.neck1", None, out, hidden)
    lone_norm(inv, "v.sam.neck1_ln", out)
    inv.add("v.sam.neck2", None, out, 9 * out)
    lone_norm(inv, "v.sam.neck2_ln", out)
