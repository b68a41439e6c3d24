"""Models whose tower merges its patches itself (Qwen-VL and its kin), Kimi, MiniMax, Gemma 4 and others of one box."""

from __future__ import annotations

from ..architecture import Architecture
from .blocks import Inventory
from .config import Config
from .multimodal import merged_projector, two_layers
from .nested import Tie, join, read_text, section, tower_inventory
from .registry import family
from .vision import sam_neck, vision
from .vit import lone_norm


def _tower_only(c: Config, t: Architecture, kind: str) -> Architecture:
    inv = tower_inventory(t)
    vision(inv, c, kind, fixed=True)
    return join(c, t, inv)


def _simple(kind: str, text: str, tower: str, *, tie: Tie = "outer", fixed: bool = True) -> None:
    """A family that is its language model and its tower and nothing else."""

    @family(kind)
    def read(c: Config) -> Architecture:
        return _tower_only(c, read_text(c, text, tie=tie, fixed=fixed), tower)


_simple("qwen2_vl", "qwen2_vl_text", "qwen2_vl_vision", tie="either")
_simple("qwen2_5_vl", "qwen2_5_vl_text", "qwen2_5_vl_vision", tie="either")
_simple("qwen3_vl", "qwen3_vl_text", "qwen3_vl_vision")
_simple("qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_vl_moe_vision")
_simple("qwen3_5", "qwen3_5_text", "qwen3_5_vision")
_simple("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_moe_vision")
_simple("cosmos3_omni", "qwen3_vl_text", "qwen3_vl_vision")
_simple("glm4v", "glm4v_text", "glm4v_vision", tie="either")
_simple("glm46v", "glm4v_text", "glm4v_vision", fixed=False)
_simple("glmga", "glm4v_text", "glm4v_vision", fixed=False)
_simple("glm4v_moe", "glm4v_moe_text", "glm4v_moe_vision", tie="either")
_simple("glm_ocr", "glm_ocr_text", "glm_ocr_vision", tie="either")
_simple("glm5_next", "glm5_next_text", "glm5_next_vision")
_simple("exaone4_5", "exaone4", "exaone4_5_vision", fixed=False)


@family("kimi_k25")
def kimi_k25(c: Config) -> Architecture:
    t = read_text(c, "deepseek_v3", tied=True)
    return _kimi(c, t)


@family("kimi_vl", "kimi_k3")
def kimi_vl(c: Config) -> Architecture:
    """Published only as remote code. Kimi-VL-A3B: this reading gives 16.4 B, its model card says 16 B."""
    return _kimi(c, read_text(c, "deepseek_v3"))


def _kimi(c: Config, t: Architecture) -> Architecture:
    """MoonViT and a patch merger: a norm on the patches, two layers of the merged width."""
    inv = tower_inventory(t)
    s = vision(inv, c, "kimi_k25_vision", fixed=True)
    kernel = section(c, "vision_config").integers("merge_kernel_size", low=1, high=64) or [2, 2]
    inv.part = "projector"
    lone_norm(inv, "mm.ln", c.integer("projection_hidden_size", default=s.hidden))
    width = s.hidden * kernel[0] * kernel[-1]
    two_layers(inv, width, width, t.hidden_size)
    return join(c, t, inv)


@family("minimax_m3_vl")
def minimax_m3_vl(c: Config) -> Architecture:
    """Two layers on each patch, two more on the merged ones."""
    t = read_text(c, "minimax_m3_vl_text", fixed=True, tie="either")
    inv = tower_inventory(t)
    s = vision(inv, c, "minimax_m3_vl_vision", fixed=True)
    middle = c.integer("projector_hidden_size", default=6144)
    two_layers(inv, s.hidden, middle, t.hidden_size)
    merge = section(c, "vision_config").integer("spatial_merge_size", default=2, high=64) ** 2
    two_layers(inv, t.hidden_size * merge, middle, t.hidden_size, name="mm.merge")
    return join(c, t, inv)


@family("gemma4", "diffusion_gemma")
def gemma4(c: Config) -> Architecture:
    """Vision and audio are there when their configs are."""
    t = read_text(c, "gemma4_text", tied=True)
    inv = tower_inventory(t)
    if c.section("vision_config") is not None:
        s = vision(inv, c, "gemma4_vision")
        inv.part = "projector"
        inv.add("mm.input_projection", None, t.hidden_size, s.hidden)
    if c.section("audio_config") is not None:
        from .audio import audio

        width = audio(inv, c, "gemma4_audio")
        inv.part = "projector"
        inv.add("mm.a.input_projection", None, t.hidden_size, width)
    return join(c, t, inv)


@family("gemma4_unified")
def gemma4_unified(c: Config) -> Architecture:
    """No towers: merged patches and audio frames are projected straight into the language model."""
    t = read_text(c, "gemma4_unified_text", tied=True)
    inv = tower_inventory(t)
    inv.part = "projector"
    v, a = c.section("vision_config"), c.section("audio_config")
    if v is not None:
        width = v.integer("mm_embed_dim", default=3840)
        side = v.integer("patch_size", default=16, high=65536) * v.integer("pooling_kernel_size", default=3, high=64)
        inv.add("mm.position_embd", None, v.integer("mm_posemb_size", default=1120), 2, width)
        lone_norm(inv, "mm.patch_ln1", 3 * side**2)
        inv.linear("mm.patch", None, width, 3 * side**2, True)
        lone_norm(inv, "mm.patch_ln2", width)
        lone_norm(inv, "mm.position_ln", width)
        inv.add("mm.input_projection", None, t.hidden_size, v.integer("output_proj_dims", default=width))
    if a is not None:
        inv.add("mm.a.input_projection", None, t.hidden_size, a.integer("audio_embed_dim", default=640))
    return join(c, t, inv)


@family("ernie4_5_vl_moe")
def ernie4_5_vl_moe(c: Config) -> Architecture:
    """The resampler (text, in transformers' split): merges patches, then frames."""
    t = read_text(c, "ernie4_5_vl_moe_text", fixed=True, tied=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "ernie4_5_vl_moe_vision", fixed=True)
    v = section(c, "vision_config")
    width = s.hidden * v.integer("spatial_merge_size", default=2, high=64) ** 2
    frames = v.integer("temporal_merge_size", default=2, high=64)
    inv.part = "text"
    for name, inputs in (("spatial", width), ("temporal", width * frames)):
        two_layers(inv, inputs, width, width, part="text", name=f"mm.{name}")
        lone_norm(inv, f"mm.{name}_ln", width)
    inv.linear("mm.fc", None, t.hidden_size, width, True)
    lone_norm(inv, "mm.post_norm", t.hidden_size, False)
    return join(c, t, inv)


@family("step3p7")
def step3p7(c: Config) -> Architecture:
    t = read_text(c, "step3p5")
    inv = tower_inventory(t)
    s = vision(inv, c, "step3p5_vision", fixed=True)
    inv.part = "projector"
    inv.linear("mm.0", None, t.hidden_size, 4 * s.hidden, c.flag("projector_bias"))
    return join(c, t, inv)


@family("paddleocr_vl")
def paddleocr_vl(c: Config) -> Architecture:
    t = read_text(c, "paddleocr_vl_text", fixed=True, tied=True, tie="either")
    inv = tower_inventory(t)
    s = vision(inv, c, "paddleocr_vl_vision", fixed=True)
    merged_projector(inv, s, section(c, "vision_config").integer("spatial_merge_size", default=2, high=64), t.hidden_size, "text")
    return join(c, t, inv)


@family("cosmos3_edge")
def cosmos3_edge(c: Config) -> Architecture:
    t = read_text(c, "cosmos3_edge_text", fixed=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "cosmos3_edge_vision", fixed=True)
    inv.part = "text"
    lone_norm(inv, "mm.ln", s.hidden)
    factor = section(c, "vision_config").integer("spatial_merge_size", default=2, high=64)
    two_layers(inv, s.hidden * factor**2, c.integer("projector_hidden_size", default=11520), t.hidden_size, part="text")
    return join(c, t, inv)


@family("hyperclovax_vision_v2")
def hyperclovax_vision(c: Config) -> Architecture:
    t = read_text(c, "hyperclovax", tied=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "qwen2_5_vl_vision")
    inv.part = "text"
    inv.linear("mm.0", None, t.hidden_size, s.hidden, True)
    return join(c, t, inv)


@family("video_llama_3")
def video_llama_3(c: Config) -> Architecture:
    t = read_text(c, "qwen2", tie="either")
    inv = tower_inventory(t)
    s = vision(inv, c, "video_llama_3_vision", fixed=True)
    two_layers(inv, s.hidden, t.hidden_size, t.hidden_size, part="text")
    return join(c, t, inv)


@family("ovis2")
def ovis2(c: Config) -> Architecture:
    """Visual words are looked up in a table as wide as the language model (`hidden_size` of the outer config)."""
    t = read_text(c, "qwen2", tied=True)
    inv = tower_inventory(t)
    vision(inv, c, "ovis2_vision", fixed=True)
    inv.part = "text"
    inv.add(
        "mm.visual_embd", None, section(c, "vision_config").integer("vocab_size", default=16384), c.integer("hidden_size", default=1536)
    )
    return join(c, t, inv)


@family("molmo2")
def molmo2(c: Config) -> Architecture:
    """The adapter pools features of two tower layers by attention, then a gated layer."""
    t = read_text(c, "molmo2_text", fixed=True, tie="never")
    inv = tower_inventory(t)
    vision(inv, c, "molmo2_vision", fixed=True)
    a = section(c, "adapter_config")
    width = a.integer("hidden_size", default=1152)
    dim = a.integer("head_dim", default=72, high=65536)
    q, kv = dim * a.integer("num_attention_heads", default=16, high=65536), dim * a.integer("num_key_value_heads", default=16, high=65536)
    source = width * len(a.items("vision_feature_layer") or (24, 18))
    bias, mlp_bias = a.flag("attention_bias", default=True), a.flag("mlp_bias")
    inv.part = "projector"
    for role, rows, columns in (("q", q, source), ("k", kv, source), ("v", kv, source), ("out", width, q)):
        inv.linear(f"mm.attn_{role}", None, rows, columns, bias)
    middle, out = a.integer("intermediate_size", default=18944), a.integer("text_hidden_size", default=3584)
    for role, rows, columns in (("gate", middle, width), ("up", middle, width), ("down", out, middle)):
        inv.linear(f"mm.ffn_{role}", None, rows, columns, mlp_bias and role != "down")
    return join(c, t, inv)


def _sam_projector(inv: Inventory, out: int) -> None:
    """GOT-OCR's: two strided convolutions from SAM's 256 channels, one layer (modeling_got_ocr2.py)."""
    inv.part = "projector"
    inv.add("mm.conv1", None, 512, 256 * 9)
    inv.add("mm.conv2", None, out, 512 * 9)
    inv.linear("mm.0", None, out, out, True)


@family("got_ocr2", "pp_chart2table")
def got_ocr2(c: Config) -> Architecture:
    absent = {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 151860,
    }
    t = read_text(c, "qwen2", tied=True, absent=absent)
    inv = tower_inventory(t)
    vision(inv, c, "got_ocr2_vision", fixed=True)
    _sam_projector(inv, t.hidden_size)
    return join(c, t, inv)


@family("deepseek_vl")
def deepseek_vl(c: Config) -> Architecture:
    t = read_text(c, "llama", tied=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "siglip_vision_model")
    two_layers(inv, s.hidden, t.hidden_size, t.hidden_size, part="text", name="mm.aligner")
    return join(c, t, inv)


@family("deepseek_vl_hybrid")
def deepseek_vl_hybrid(c: Config) -> Architecture:
    """SigLIP for the small image, SAM for the large one."""
    t = read_text(c, "llama", tied=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "siglip_vision_model")
    high = vision(inv, c, "sam_vision_model", keys=("high_res_vision_config",))
    inv.part = "text"
    inv.add("mm.alpha", None, 1)
    sam_neck(inv, section(c, "high_res_vision_config").integer("hidden_size", default=768), high.hidden)
    inv.add("mm.conv1", None, 2 * high.hidden, high.hidden * 9)
    inv.add("mm.conv2", None, 4 * high.hidden, 2 * high.hidden * 9)
    inv.linear("mm.low", None, t.hidden_size // 2, s.hidden, True)
    inv.linear("mm.high", None, t.hidden_size // 2, 4 * high.hidden, True)
    inv.linear("mm.aligner", None, t.hidden_size, t.hidden_size, True)
    return join(c, t, inv)


def _minicpm(kind: str, tower: str, tied: bool) -> None:
    @family(kind)
    def read(c: Config) -> Architecture:
        """After the tower's own merger, `merger_times` more merges (text, in transformers' split)."""
        t = read_text(c, "qwen3_5_text", tied=tied)
        inv = tower_inventory(t)
        s = vision(inv, c, tower, fixed=True)
        kernel = c.integers("merge_kernel_size", low=1, high=64) or [2, 2]
        width, times = s.hidden * kernel[0] * kernel[-1], c.integer("merger_times", default=1, low=0, high=64)
        inv.part = "text"
        for i in range(times):
            lone_norm(inv, f"mm.{i}.ln", width)
            two_layers(inv, width, width, t.hidden_size if i == times - 1 else s.hidden, part="text", name=f"mm.{i}")
        return join(c, t, inv)


_minicpm("minicpm_ocr", "minicpm_ocr_vision", True)
_minicpm("minicpmv4_6", "minicpmv4_6_vision", False)
_minicpm("minicpmv4_7", "minicpmv4_7_vision", False)
