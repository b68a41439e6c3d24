"""Multimodal models newer than most: Muse, Dots, Inkling, Qwen 4, and two that turn speech into text."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from ..architecture import Architecture
from .audio import read_audio
from .blocks import Inventory
from .config import Config
from .multimodal import QWEN3_SMALL, two_layers
from .nested import join, read_text, section, tower_inventory
from .registry import family
from .resamplers import qformer
from .vision import vision
from .vit import Vit, blocks, lone_norm, read_vit, scaled


def _muse_vision(inv: Inventory, c: Config, t: Architecture) -> None:
    """A large ViT on patches of two frames, then an adapter and a projection (text, in transformers' split)."""
    v = section(c, "vision_config")
    s = read_vit(v, hidden=1536, layers=50, heads=16, ffn=8960, patch=14)
    inv.part = "vision"
    inv.add("v.patch_embd", None, s.hidden, s.patch_width * v.integer("patch_temporal", default=2, high=1024))
    rows, columns = v.integer("pos_emb_height", default=32, high=65536), v.integer("pos_emb_width", default=32, high=65536)
    inv.add("v.position_embd", None, rows * columns, s.hidden)
    lone_norm(inv, "v.pre_ln", s.hidden)
    blocks(inv, s)
    lone_norm(inv, "v.post_ln", s.hidden)
    inv.part = "text"
    middle = c.integer("projector_hidden_size", default=4096)
    two_layers(inv, c.integer("out_hidden_size", default=6144), middle, middle, False, part="text")
    inv.add("mm.4", None, t.hidden_size, middle)


@family("muse_glimmer")
def muse_glimmer(c: Config) -> Architecture:
    t = read_text(c, "muse_glimmer_text", fixed=True)
    inv = tower_inventory(t)
    _muse_vision(inv, c, t)
    return join(c, t, inv)


@family("muse_spark")
def muse_spark(c: Config) -> Architecture:
    t = read_text(c, "muse_spark_text", fixed=True)
    inv = tower_inventory(t)
    _muse_vision(inv, c, t)
    a = section(c, "audio_config")
    inv.part = "audio"
    widths = a.integers("hidden_sizes", low=1) or [256, 512, 1024, 2048]
    patches = a.integers("patch_sizes", low=1, high=65536) or [16, 6, 5, 4]
    depths = a.integers("depths", high=4096) or [2] * len(widths)
    kernel = a.integer("conv_kernel_size", default=7, high=1024)
    source = 1
    for stage, (width, patch, depth) in enumerate(zip(widths, patches, depths, strict=False)):
        inv.linear("a.patch", stage, width, source * patch, True)
        inv.add("a.patch_norm", stage, width)
        for _ in range(depth):
            inv.linear("a.conv", stage, width, kernel, True)
            inv.add("a.norm", stage, width)
            two_layers(inv, width, scaled(a, "mlp_ratio", 4.0, width), width, part="audio", name="a.ffn")
        source = width
    out = a.integer("out_hidden_size", default=t.hidden_size)
    inv.add("a.post_norm", None, source)
    inv.linear("a.proj", None, out, source, True)
    inv.add("a.proj_norm", None, out)
    return join(c, t, inv)


@family("dots3_note")
def dots3_note(c: Config) -> Architecture:
    t = read_text(c, "dots3_note_text", fixed=True)
    inv = tower_inventory(t)
    _dots_vision(inv, section(c, "vision_config"))
    _dots_audio(inv, section(c, "audio_config"))
    return join(c, t, inv)


def _dots_vision(inv: Inventory, v: Config) -> None:
    """Gated blocks, of which the later ones route among experts, more of them the deeper."""
    s = read_vit(v, hidden=1536, layers=42, heads=24, ffn=4224, patch=14)
    bias, mlp_bias, dim = v.flag("attention_bias"), v.flag("mlp_bias"), s.hidden // s.heads
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    lone_norm(inv, "v.patch_norm", s.hidden, False)
    kinds, counts = v.items("mlp_layer_types"), section(v, "per_layer_config")
    width = v.integer("moe_intermediate_size", default=2112)
    for layer in range(s.layers):
        sparse = kinds[layer] == "sparse" if kinds and layer < len(kinds) else layer >= 25
        one = replace(s, layers=1, ffn=s.ffn)
        if not sparse:
            blocks(inv, one, fused=True, gated=True, bias=bias, mlp_bias=mlp_bias, norm_bias=False, qk_norm=dim)
            continue
        most = v.integer("num_local_experts", default=64, high=65536)
        if not v.has("per_layer_config"):
            most = min(most, 4 * (layer - 24))
        experts = section(counts, str(layer)).integer("num_local_experts", default=max(most, 1), high=65536)
        inv.norm("v.ln1", layer, s.hidden)
        inv.linear("v.attn_qkv", layer, 3 * s.hidden, s.hidden, bias)
        inv.linear("v.attn_out", layer, s.hidden, s.hidden, bias)
        inv.add("v.attn_qk_norm", layer, 2, dim)
        inv.norm("v.ln2", layer, s.hidden)
        inv.add("v.ffn_gate_up_exps", layer, 2 * width, s.hidden, experts=experts)
        inv.add("v.ffn_down_exps", layer, s.hidden, width, experts=experts)
        inv.add("v.ffn_gate_inp", layer, experts, s.hidden)
    source = v.integer("adapter_in_dim", default=1536)
    merged = source * v.integer("adapter_merge_size", default=2, high=64) ** 2
    lone_norm(inv, "mm.ln", source)
    two_layers(inv, merged, merged, v.integer("adapter_out_dim", default=5120), part="vision")
    lone_norm(inv, "v.post_ln", s.hidden, False)


def _dots_audio(inv: Inventory, a: Config) -> None:
    s = read_audio(a)
    inv.part = "audio"
    width = a.integer("downsample_hidden_size", default=480)
    inv.linear("a.conv1", None, width, 9, True)
    for name in ("a.conv2", "a.conv3"):
        inv.linear(name, None, width, 9 * width, True)
    inv.add("a.conv_out", None, s.hidden, a.integer("conv_output_size", default=7680))
    bias, dim = a.flag("attention_bias", default=True), a.integer("head_dim", default=64, high=65536)
    kv = dim * a.integer("num_key_value_heads", default=20, high=65536)
    blocks(inv, s, name="a", bias=bias, k_bias=False, gated=True, norm_bias=False, q_width=s.heads * dim, kv_width=kv)
    lone_norm(inv, "a.post_ln", s.hidden, False)
    source, out = a.integer("adapter_input_size", default=1280), a.integer("adapter_out_dim", default=5120)
    lone_norm(inv, "mm.a.ln", source)
    two_layers(inv, source, out, out, part="audio", name="mm.a")


@family("inkling2")
def inkling2(c: Config) -> Architecture:
    t = read_text(c, "inkling2_text", fixed=True)
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    s = read_vit(v, hidden=1024, layers=23, heads=16, ffn=4096, patch=20)
    grid = v.integer("posemb_grid_size", default=32, high=65536)
    inv.add("v.class_embd", None, 2, s.hidden)  # the token and its position
    inv.add("v.patch_embd", None, s.hidden, s.patch_width)
    inv.add("v.position_embd", None, grid**2, s.hidden)
    lone_norm(inv, "v.pre_ln", s.hidden)
    blocks(inv, s, scales=2)
    merged, middle = s.hidden * v.integer("spatial_merge_size", default=2, high=64) ** 2, v.integer("projection_hidden_dim", default=4096)
    bias = v.flag("projector_bias")
    two_layers(inv, merged, middle, v.integer("text_hidden_size", default=4608), bias, part="vision")
    return join(c, t, inv)


@family("inkling_mm_model")
def inkling(c: Config) -> Architecture:
    """Patches are folded step by step into wider vectors, with no attention; audio is tokens of mel bins."""
    t = read_text(c, "inkling_text", fixed=True)
    inv = tower_inventory(t)
    v, a = section(c, "vision_config"), section(c, "audio_config")
    inv.part = "audio"
    out = a.integer("text_hidden_size", default=6144)
    inv.add("a.embd", None, a.integer("n_mel_bins", default=80, high=65536) * a.integer("mel_vocab_size", default=256, high=65536), out)
    inv.add("a.norm", None, out)
    inv.part = "vision"
    text, layers = v.integer("text_hidden_size", default=6144), v.integer("num_hidden_layers", "n_layers", default=24, high=4096)
    scales = _fold_plan(
        v.integer("temporal_patch_size", default=2, high=1024),
        v.integer("patch_size", default=40, high=4096),
        layers,
        v.integer("num_channels", default=3, high=64),
    )
    for layer, (start, end) in enumerate(pairwise(scales)):
        last = layer == layers - 1
        width = text if last else end[2]
        inv.add("v.fold", layer, width, start[2] * (end[0] // start[0]) * (end[1] // start[1]) ** 2)
        if not last:
            inv.add("v.fold_norm", layer, width)
    inv.add("v.post_norm", None, text)
    return join(c, t, inv)


def _fold_plan(frames: int, patch: int, layers: int, channels: int) -> list[tuple[int, int, int]]:
    """(frames, side, channels) before and after each layer: the factors of side and frames, spread evenly over the layers.

    Source: `plan_out_scales` of transformers' modeling_inkling.py, for at least as many layers as there are factors.
    """
    scales = [(1, 1, channels)]
    side = 1
    for factor in reversed(_prime_factors(patch)):
        side *= factor
        scales.append((1, side, math.ceil(side**2 * channels / 64) * 64))
    deep = 1
    for factor in reversed(_prime_factors(frames)):
        deep *= factor
        scales.append((deep, side, side**2 * channels * deep * 64))  # not divided by 64 there, unlike the sides' channels
    whole = math.log(max(patch * patch * frames * channels, 1))
    sizes = [math.log(s[0] * s[1] ** 2) for s in scales]
    plan = [scales[min(range(len(scales)), key=lambda i: abs(whole * step / layers - sizes[i]))] for step in range(layers + 1)]
    return [scales[0], *plan[1:-1], scales[-1]]


def _prime_factors(number: int) -> list[int]:
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found


@family("fun_asr_nano")
def fun_asr_nano(c: Config) -> Architecture:
    """SenseVoice's encoder: attention with a memory convolution on the values; an adaptor of two small blocks."""
    t = read_text(c, "qwen3", tied=True, absent=QWEN3_SMALL)
    inv = tower_inventory(t)
    a, p = section(c, "audio_config"), section(c, "adaptor_config")
    s = read_audio(Config({"num_mel_bins": 80, **a.raw}, a.where), hidden=512, layers=70, heads=4, ffn=2048)
    inv.part = "audio"
    kernel = a.integer("fsmn_kernel_size", default=11, high=1024)
    for layer in range(s.layers):
        inputs = s.channels * a.integer("num_stacked_frames", default=7, high=1024) if layer == 0 else s.hidden
        inv.norm("a.ln1", layer, inputs, True)
        for role in ("q", "k", "v"):
            inv.linear(f"a.attn_{role}", layer, s.hidden, inputs, True)
        inv.linear("a.attn_out", layer, s.hidden, s.hidden, True)
        inv.add("a.memory", layer, s.hidden, kernel)
        inv.norm("a.ln2", layer, s.hidden, True)
        inv.linear("a.ffn_up", layer, s.ffn, s.hidden, True)
        inv.linear("a.ffn_down", layer, s.hidden, s.ffn, True)
    for role in ("a.ln_mid", "a.post_ln"):
        lone_norm(inv, role, s.hidden)
    width = p.integer("hidden_size", default=1024)
    two_layers(inv, s.hidden, p.integer("projector_hidden_size", default=2048), width)
    small = Vit(width, p.integer("num_hidden_layers", default=2, low=0, high=4096), 8, p.integer("intermediate_size", default=256), 0, 0, 0)
    blocks(inv, small, name="mm.blk")
    return join(c, t, inv)


@family("vibevoice_asr")
def vibevoice_asr(c: Config) -> Architecture:
    """Two convolutional tokenizers, of sound and of meaning (text, in transformers' split), each with its projector."""
    t = read_text(c, "qwen2")
    inv = tower_inventory(t)
    for name, default in (("acoustic", 64), ("semantic", 128)):
        v = section(c, f"{name}_tokenizer_encoder_config")
        inv.part = "text"
        width = _vibevoice_tokenizer(inv, v, default)
        two_layers(inv, width, t.hidden_size, t.hidden_size, name=f"mm.{name}")
        inv.add(f"mm.{name}_norm", None, t.hidden_size)
    return join(c, t, inv)


def _vibevoice_tokenizer(inv: Inventory, v: Config, default: int) -> int:
    out, base, kernel = (
        v.integer("hidden_size", default=default),
        v.integer("num_filters", default=32),
        v.integer("kernel_size", default=7, high=1024),
    )
    ratios, depths = (
        v.integers("downsampling_ratios", low=1, high=4096) or [2, 2, 4, 5, 5, 8],
        v.integers("depths", high=4096) or [3, 3, 3, 3, 3, 3, 8],
    )
    ratio, source = v.integer("ffn_expansion", default=4, high=1024), v.integer("channels", default=1, high=1024)
    for stage, depth in enumerate(depths):
        width = base << min(stage, 20)
        inv.linear("tok.conv", stage, width, source * (kernel if stage == 0 else 2 * ratios[min(stage, len(ratios)) - 1]), True)
        for _ in range(depth):
            inv.add("tok.norms", stage, 4, width)
            two_layers(inv, width, ratio * width, width, part="text", name="tok.ffn")
            inv.linear("tok.mixer", stage, width, kernel, True)
        source = width
    inv.linear("tok.head", None, out, source * kernel, True)
    return out


@family("qwen4_exp")
def qwen4_exp(c: Config) -> Architecture:
    t = read_text(c, "qwen4_exp_text", fixed=True)
    inv = tower_inventory(t)
    vision(inv, c, "qwen3_5_vision", fixed=True)
    return join(c, t, inv)


@family("cohere_compass")
def cohere_compass(c: Config) -> Architecture:
    t = read_text(c, "cohere_compass_text", fixed=True)
    inv = tower_inventory(t)
    vision(inv, c, "qwen3_vl_vision", fixed=True)
    return join(c, t, inv)


@family("granite4_vision")
def granite4_vision(c: Config) -> Architecture:
    """A windowed Q-Former for each tower layer fed to the language model and each spatial target (text, in transformers' split)."""
    t = read_text(c, "granite4_vision_text")
    inv = tower_inventory(t)
    s = vision(inv, c, "clip_vision_model")
    queries, _, window = c.text("downsample_rate", default="4/8").partition("/")
    sides = [int(x) if x.isdecimal() and len(x) < 5 else default for x, default in ((queries, 4), (window, 8))]
    targets = c.items("spatial_target_layers")
    count = len(c.items("deepstack_layer_map") or ()) + len(targets if targets is not None else (12, 15, 18, 21))
    given = section(c, "qformer_config").raw
    q = Config(
        {"num_hidden_layers": 1, "intermediate_size": 3072, "cross_attention_frequency": 1, **given, "hidden_size": s.hidden}, c.where
    )
    inv.part = "text"
    inv.add("mm.image_newline", None, t.hidden_size)
    for _ in range(count):
        inv.add("mm.query", None, sides[0] ** 2, s.hidden)
        inv.add("mm.window_position_embd", None, sides[1] ** 2, s.hidden)
        qformer(inv, q, text_block=q.flag("use_qformer_text_input"), source=s.hidden)
        lone_norm(inv, "mm.ln", s.hidden)
        inv.linear("mm.0", None, t.hidden_size, s.hidden, True)
    return join(c, t, inv)
