"""Audio towers by the `model_type` of their config. Each adds its weights and returns the width it puts out.

Keys and class defaults: transformers 5.23, models/*/configuration_*.py. A published config of another version names
the same numbers `d_model`, `encoder_layers`, `encoder_ffn_dim` (Whisper) or `hidden_size`, `num_hidden_layers`, …
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .blocks import Inventory
from .config import MAX_LAYERS, Config
from .nested import section
from .vit import Vit, blocks, lone_norm

__all__ = ["AUDIO", "audio", "gemma3n_audio", "phi4_audio", "read_audio", "whisper_like"]

AudioTower = Callable[[Inventory, Config], int]
AUDIO: Final[dict[str, AudioTower]] = {}


def tower(*kinds: str) -> Callable[[AudioTower], AudioTower]:
    """Mark a function as the reader of these audio `model_type`s."""

    def mark(read: AudioTower) -> AudioTower:
        AUDIO.update(dict.fromkeys(kinds, read))
        return read

    return mark


def audio(inv: Inventory, c: Config, kind: str, *, absent: Mapping[str, Any] | None = None) -> int:
    """The tower under `audio_config`; `kind` where its type is not named or not known. Returns its output width."""
    a = section(c, "audio_config", absent=absent)
    inv.part = "audio"
    named = a.text("model_type")
    return AUDIO[named if named in AUDIO else kind](inv, a)


def read_audio(a: Config, *, hidden: int = 1280, layers: int = 32, heads: int = 20, ffn: int = 5120) -> Vit:
    """A tower's numbers under either set of names; `channels` is the number of mel bins."""
    return Vit(
        hidden=a.integer("d_model", "hidden_size", default=hidden, high=1 << 20),
        layers=a.integer("encoder_layers", "num_hidden_layers", default=layers, low=0, high=MAX_LAYERS),
        heads=a.integer("encoder_attention_heads", "num_attention_heads", default=heads, high=65536),
        ffn=a.integer("encoder_ffn_dim", "intermediate_size", default=ffn, high=1 << 24),
        image=0,
        patch=0,
        channels=a.integer("num_mel_bins", default=128, high=65536),
    )


def whisper_like(inv: Inventory, s: Vit, *, positions: int, kv_width: int = 0) -> None:
    """Whisper's encoder: two convolutions of width 3, positions, blocks whose key has no bias, a norm."""
    inv.linear("a.conv1", None, s.hidden, 3 * s.channels, True)
    inv.linear("a.conv2", None, s.hidden, 3 * s.hidden, True)
    if positions:
        inv.add("a.position_embd", None, positions, s.hidden)
    blocks(inv, s, name="a", k_bias=False, kv_width=kv_width)
    lone_norm(inv, "a.post_ln", s.hidden)


@tower("qwen2_audio_encoder", "voxtral_encoder", "audioflamingo3_encoder", "musicflamingo_encoder", "whisper")
def whisper(inv: Inventory, a: Config) -> int:
    s = read_audio(a)
    whisper_like(inv, s, positions=a.integer("max_source_positions", default=1500))
    return s.hidden


@tower("moss_transcribe_diarize_audio")
def moss_audio(inv: Inventory, a: Config) -> int:
    a = Config({"num_mel_bins": 80, **a.raw}, a.where)
    s = read_audio(a, hidden=1024, layers=24, heads=16, ffn=4096)
    whisper_like(inv, s, positions=a.integer("max_source_positions", default=1500))
    return s.hidden


@tower("glmasr_encoder")
def glmasr(inv: Inventory, a: Config) -> int:
    """Whisper with rotary positions."""
    s = read_audio(a)
    whisper_like(inv, s, positions=0, kv_width=s.hidden // s.heads * a.integer("num_key_value_heads", default=20, high=65536))
    return s.hidden


@tower("qwen2_5_omni_audio_encoder")
def qwen2_5_omni_audio(inv: Inventory, a: Config) -> int:
    """Whisper with fixed positions, begin and end vectors, and its own projection."""
    s = read_audio(a)
    out = a.integer("output_dim", default=3584)
    whisper_like(inv, s, positions=0)
    inv.add("a.bos_eos", None, 2, out)
    inv.linear("a.proj", None, out, s.hidden, True)
    return out


@tower("qwen3_omni_moe_audio_encoder")
def qwen3_omni_audio(inv: Inventory, a: Config) -> int:
    s = _three_convolutions(inv, a, read_audio(a))
    out = a.integer("output_dim", default=3584)
    inv.linear("a.proj1", None, s.hidden, s.hidden, True)
    inv.linear("a.proj2", None, out, s.hidden, True)
    return out


@tower("qwen3_asr_encoder")
def qwen3_asr_audio(inv: Inventory, a: Config) -> int:
    s = _three_convolutions(inv, a, read_audio(a, hidden=1024, layers=24, heads=16, ffn=4096))
    return s.hidden


def _three_convolutions(inv: Inventory, a: Config, s: Vit) -> Vit:
    """Three strided convolutions over time and mel bins, one layer, blocks with all biases, a norm."""
    width = a.integer("downsample_hidden_size", default=480)
    inv.linear("a.conv1", None, width, 9, True)
    for name in ("a.conv2", "a.conv3"):
        inv.linear(name, None, width, 9 * width, True)
    bins = s.channels
    for _ in range(3):
        bins = (bins + 1) // 2
    inv.add("a.conv_out", None, s.hidden, width * bins)
    blocks(inv, s, name="a")
    lone_norm(inv, "a.post_ln", s.hidden)
    return s


@tower("voxtral_realtime_encoder")
def voxtral_realtime(inv: Inventory, a: Config) -> int:
    """Causal, rotary, with a gated feed-forward block of which only the last layer has a bias."""
    s = read_audio(a, heads=32)
    dim = a.integer("head_dim", default=64, high=65536)
    inv.linear("a.conv1", None, s.hidden, 3 * s.channels, True)
    inv.linear("a.conv2", None, s.hidden, 3 * s.hidden, True)
    kv = a.integer("num_key_value_heads", default=s.heads, high=65536) * dim
    blocks(inv, s, name="a", k_bias=False, gated=True, mlp_bias=False, norm_bias=False, q_width=s.heads * dim, kv_width=kv)
    for layer in range(s.layers):
        inv.add("a.ffn_down.bias", layer, s.hidden)
    lone_norm(inv, "a.post_ln", s.hidden, False)
    return s.hidden


@tower("gemma4_audio")
def gemma4_audio(inv: Inventory, a: Config) -> int:
    """A Conformer: two feed-forward halves, chunked attention with relative positions, a light convolution."""
    h = a.integer("hidden_size", default=1024)
    layers, heads = a.integer("num_hidden_layers", default=12, high=4096), a.integer("num_attention_heads", default=8, high=65536)
    first, second = a.integers("subsampling_conv_channels", low=1) or [128, 32]
    inv.add("a.conv1", None, first, 9)
    inv.add("a.conv1_ln", None, first)
    inv.add("a.conv2", None, second, 9 * first)
    inv.add("a.conv2_ln", None, second)
    inv.add("a.input_proj", None, h, first // 4 * second)
    for layer in range(layers):
        _gemma_conformer(inv, layer, h, heads, a.integer("conv_kernel_size", default=5, high=1024))
    out = a.integer("output_proj_dims", default=1536)
    inv.linear("a.proj", None, out, h, True)
    return out


@tower("granite_speech_encoder", "granite_speech_plus_encoder")
def granite_speech(inv: Inventory, a: Config) -> int:
    """A Conformer with block attention and a CTC head fed back in its middle (modeling_granite_speech.py)."""
    h = a.integer("hidden_dim", default=1024)
    heads, dim = a.integer("num_heads", default=8, high=65536), a.integer("dim_head", default=128, high=65536)
    middle, out = h * a.integer("feedforward_mult", default=4, high=1024), a.integer("output_dim", default=42)
    inner = h * a.integer("conv_expansion_factor", default=2, high=1024)
    inv.linear("a.input", None, h, a.integer("input_dim", default=160), True)
    for layer in range(a.integer("num_layers", default=10, high=4096)):
        for half in ("ffn1", "ffn2"):
            inv.norm(f"a.{half}_ln", layer, h, True)
            inv.linear(f"a.{half}_up", layer, middle, h, True)
            inv.linear(f"a.{half}_down", layer, h, middle, True)
        inv.norm("a.attn_ln", layer, h, True)
        inv.add("a.attn_q", layer, heads * dim, h)
        inv.add("a.attn_kv", layer, 2 * heads * dim, h)
        inv.linear("a.attn_out", layer, h, heads * dim, True)
        inv.add("a.rel_pos", layer, 2 * a.integer("max_pos_emb", default=512) + 1, dim)
        inv.norm("a.conv_ln", layer, h, True)
        inv.linear("a.conv_up", layer, 2 * inner, h, True)
        inv.add("a.conv_dw", layer, inner, a.integer("conv_kernel_size", default=15, high=1024))
        inv.norm("a.conv_bn", layer, inner, True)
        inv.linear("a.conv_down", layer, h, inner, True)
        inv.norm("a.post_ln", layer, h, True)
    inv.linear("a.out", None, out, h, True)
    inv.linear("a.out_mid", None, h, out, True)
    return h


@tower("parakeet_encoder")
def parakeet(inv: Inventory, a: Config) -> int:
    """A FastConformer: strided convolutions down to an eighth of the frames, then Conformer blocks."""
    s = read_audio(Config({"num_mel_bins": 80, **a.raw}, a.where), hidden=1024, layers=24, heads=8, ffn=4096)
    bias, conv_bias = a.flag("attention_bias", default=True), a.flag("convolution_bias", default=True)
    width, kernel = a.integer("subsampling_conv_channels", default=256), a.integer("subsampling_conv_kernel_size", default=3, high=64)
    factor = a.integer("subsampling_factor", default=8, high=1024)
    stages = max(factor.bit_length() - 1, 1)
    inv.linear("a.subsample.0", None, width, kernel**2, True)
    for i in range(1, stages):
        inv.linear(f"a.subsample.{i}.dw", None, width, kernel**2, True)
        inv.linear(f"a.subsample.{i}.pw", None, width, width, True)
    inv.linear("a.subsample.out", None, s.hidden, width * (s.channels // factor), True)
    for layer in range(s.layers):
        _conformer_block(inv, layer, s, bias, conv_bias, a.integer("conv_kernel_size", default=9, high=1024))
    return s.hidden


def _conformer_block(inv: Inventory, layer: int, s: Vit, bias: bool, conv_bias: bool, kernel: int) -> None:
    h = s.hidden
    for half in ("ffn1", "ffn2"):
        inv.linear(f"a.{half}_up", layer, s.ffn, h, bias)
        inv.linear(f"a.{half}_down", layer, h, s.ffn, bias)
    inv.add("a.attn_pos_bias", layer, 2, h)
    for role in ("q", "k", "v", "out"):
        inv.linear(f"a.attn_{role}", layer, h, h, bias)
    inv.add("a.attn_relative_k", layer, h, h)
    inv.linear("a.conv_pw1", layer, 2 * h, h, conv_bias)
    inv.linear("a.conv_dw", layer, h, kernel, conv_bias)
    inv.norm("a.conv_bn", layer, h, True)
    inv.linear("a.conv_pw2", layer, h, h, conv_bias)
    for role in ("ffn1", "attn", "conv", "ffn2", "out"):
        inv.norm(f"a.{role}_ln", layer, h, True)


def gemma3n_audio(inv: Inventory, a: Config) -> int:
    """Gemma 3n's Conformer (Universal Speech Model): as Gemma 4's, with other names and no projection of its own."""
    h, layers = a.integer("hidden_size", default=1536), a.integer("conf_num_hidden_layers", default=12, high=4096)
    heads = a.integer("conf_num_attention_heads", default=8, high=65536)
    first, second = a.integers("sscp_conv_channel_size", low=1) or [128, 32]
    bins = a.integer("input_feat_size", default=128, high=65536) // 4
    inv.part = "audio"
    inv.add("a.conv1", None, first, 9)
    inv.add("a.conv1_ln", None, first)
    inv.add("a.conv2", None, second, 9 * first)
    inv.add("a.conv2_ln", None, second)
    inv.add("a.input_proj", None, h, bins * second)
    for layer in range(layers):
        _gemma_conformer(inv, layer, h, heads, a.integer("conf_conv_kernel_size", default=5, high=1024))
    return h


def _gemma_conformer(inv: Inventory, layer: int, h: int, heads: int, kernel: int) -> None:
    """Two feed-forward halves, attention with relative positions, a light convolution, nine norms."""
    for half in ("ffn1", "ffn2"):
        inv.add(f"a.{half}_up", layer, 4 * h, h)
        inv.add(f"a.{half}_down", layer, h, 4 * h)
        inv.add(f"a.{half}_ln", layer, 2, h)
    for role in ("q", "k", "v", "out", "relative_k"):
        inv.add(f"a.attn_{role}", layer, h, h)
    inv.add("a.per_dim_scale", layer, h // heads)
    inv.add("a.conv_in", layer, 2 * h, h)
    inv.add("a.conv_dw", layer, h, kernel)
    inv.add("a.conv_out", layer, h, h)
    inv.add("a.ln", layer, 5, h)


def phi4_audio(inv: Inventory, a: Config) -> int:
    """Phi-4-multimodal's Conformer: gated feed-forward halves, biases everywhere, a table of relative positions."""
    h, ffn = a.integer("hidden_size", default=1024), a.integer("intermediate_size", default=1536)
    heads = a.integer("num_attention_heads", default=16, high=65536)
    width, reduction = a.integer("nemo_conv_channels", default=1024), a.integer("time_reduction", default=8, high=1024)
    bins = a.integer("input_size", default=80, high=65536)
    stages = max(reduction.bit_length() - 1, 1)
    inv.linear("a.conv.0", None, width, 9, True)
    for i in range(stages):
        bins = (bins - 1) // 2 + 1
        if i:
            inv.linear(f"a.conv.{i}.dw", None, width, 9, True)
            inv.linear(f"a.conv.{i}.pw", None, width, width, True)
    inv.linear("a.input_proj", None, h, width * a.integer("nemo_final_size", default=bins), True)
    distances = a.integer("bias_max_distance", default=1000, high=1 << 20)
    inv.add("a.relative_bias", None, distances * (1 if a.flag("bias_symmetric") else 2), heads)
    for layer in range(a.integer("num_blocks", default=24, high=4096)):
        _phi_conformer(inv, layer, a, h, ffn)
    return h


def _phi_conformer(inv: Inventory, layer: int, a: Config, h: int, ffn: int) -> None:
    outer, middle = a.integer("ext_pw_out_channel", default=1024), a.integer("depthwise_separable_out_channel", default=1024)
    kernel, deep = a.integer("kernel_size", default=3, high=1024), h * a.integer("depthwise_multiplier", default=1, high=1024)
    for half in ("ffn1", "ffn2"):
        inv.norm(f"a.{half}_ln", layer, h, True)
        inv.linear(f"a.{half}_up", layer, 2 * ffn, h, True)
        inv.linear(f"a.{half}_down", layer, h, ffn, True)
    for role in ("q", "k", "v", "out"):
        inv.linear(f"a.attn_{role}", layer, h, h, True)
    inv.linear("a.conv_glu", layer, 2 * outer, h, True)
    inv.add("a.conv_glu_gain", layer, 2, outer)
    inv.linear("a.conv_dw", layer, deep, kernel, True)
    inv.linear("a.conv_pw", layer, middle, deep, True)
    inv.linear("a.conv_out", layer, outer, h, True)
    for role in ("conv_ln", "attn_ln", "post_ln"):
        inv.norm(f"a.{role}", layer, h, True)
