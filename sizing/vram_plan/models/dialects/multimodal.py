"""Vision-language models whose image features pass a projector into an ordinary decoder.

One small function a `model_type`: read the language model, add the tower, add the projector. What transformers
keeps outside its tower and projector modules (a newline embedding, an aligner, a resampler) counts as text, as
there.
"""

from __future__ import annotations

from typing import Any, Final

from ..architecture import Architecture
from .blocks import Inventory
from .config import Config
from .nested import Tie, join, read_text, section, tower_inventory
from .registry import family
from .vision import vision
from .vit import Vit, lone_norm

__all__ = ["QWEN3_SMALL", "merged_projector", "two_layers"]

#: What the LLaVA classes fill in where a config has no vision section at all.
_CLIP_L_336: Final[dict[str, Any]] = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14,
}  # fmt: skip
_SO400M_384: Final[dict[str, Any]] = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
_PALIGEMMA: Final[dict[str, Any]] = {**_SO400M_384, "intermediate_size": 4096, "num_hidden_layers": 27, "image_size": 224}
_PALIGEMMA_TEXT: Final = {
    "hidden_size": 2048, "num_hidden_layers": 18, "intermediate_size": 16384, "num_attention_heads": 8, "num_key_value_heads": 1,
    "vocab_size": 257152,
}  # fmt: skip
_COHERE_VISION: Final[dict[str, Any]] = {
    **_SO400M_384, "intermediate_size": 3072, "num_hidden_layers": 27, "image_size": 512, "patch_size": 16, "vision_use_head": True,
}  # fmt: skip
_PIXTRAL: Final[dict[str, Any]] = {
    "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "patch_size": 14,
}  # fmt: skip
_MISTRAL3_TEXT: Final = {
    "hidden_size": 5120, "head_dim": 128, "intermediate_size": 32768, "num_attention_heads": 32, "num_hidden_layers": 40,
    "num_key_value_heads": 8, "vocab_size": 131072, "max_position_embeddings": 131072,
}  # fmt: skip
#: Qwen3-0.6B, the text model some small families fill in.
QWEN3_SMALL: Final = {
    "hidden_size": 1024, "head_dim": 128, "intermediate_size": 3072, "num_attention_heads": 16, "num_hidden_layers": 28,
    "num_key_value_heads": 8, "vocab_size": 151936,
}  # fmt: skip


def two_layers(
    inv: Inventory,
    inputs: int,
    middle: int,
    outputs: int,
    bias: bool = True,
    *,
    part: Any = "projector",
    name: str = "mm",
    middle_in: int = 0,
) -> None:
    """The usual projector: two linear layers with an activation between (`middle_in` narrower than `middle` when gated)."""
    inv.part = part
    inv.linear(f"{name}.0", None, middle, inputs, bias)
    inv.linear(f"{name}.2", None, outputs, middle_in or middle, bias)


def _feature_layers(c: Config, default: int = 1) -> int:
    layers = c.items("vision_feature_layer")
    return len(layers) if layers else default


def _llava(c: Config, text: str, tie: Tie, absent: dict[str, Any], newline: bool) -> Architecture:
    t = read_text(c, text, tie=tie)
    inv = tower_inventory(t)
    s = vision(inv, c, str(absent["model_type"]), absent=absent)
    two_layers(inv, s.hidden * _feature_layers(c), t.hidden_size, t.hidden_size, c.flag("multimodal_projector_bias", default=True))
    if newline:
        inv.part = "text"
        inv.add("mm.image_newline", None, t.hidden_size)
    return join(c, t, inv)


@family("llava")
def llava(c: Config) -> Architecture:
    """LLaVA 1.5 and Pixtral-12B in transformers' layout; the authors' flat layout names its tower (`mm_vision_tower`)."""
    return _llava(c, "llama", "either", _CLIP_L_336, False)


@family("llava_next")
def llava_next(c: Config) -> Architecture:
    return _llava(c, "llama", "outer", _CLIP_L_336, True)


@family("llava_next_video")
def llava_next_video(c: Config) -> Architecture:
    return _llava(c, "llama", "either", _CLIP_L_336, True)


@family("llava_onevision")
def llava_onevision(c: Config) -> Architecture:
    return _llava(c, "qwen2", "either", _SO400M_384, True)


@family("vipllava")
def vipllava(c: Config) -> Architecture:
    t = read_text(c, "llama")
    inv = tower_inventory(t)
    s = vision(inv, c, "clip_vision_model", absent=_CLIP_L_336)
    width = s.hidden * _feature_layers(c, 1 if c.has("vision_feature_layer") else 5)
    inv.part = "projector"
    lone_norm(inv, "mm.ln", width)
    two_layers(inv, width, t.hidden_size, t.hidden_size)
    return join(c, t, inv)


@family("video_llava")
def video_llava(c: Config) -> Architecture:
    """Two CLIP towers, one for images and one for video."""
    t = read_text(c, "llama")
    inv = tower_inventory(t)
    for _ in range(2):
        s = vision(inv, c, "clip_vision_model", absent={**_CLIP_L_336, "image_size": 224})
    two_layers(inv, s.hidden, t.hidden_size, t.hidden_size, c.flag("multimodal_projector_bias", default=True))
    return join(c, t, inv)


@family("aya_vision")
def aya_vision(c: Config) -> Architecture:
    t = read_text(c, "cohere2", tied=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "siglip_vision_model", absent=_SO400M_384)
    width = s.hidden * c.integer("downsample_factor", default=2, high=64) ** 2
    inv.part = "projector"
    lone_norm(inv, "mm.ln", width)
    middle = c.integer("alignment_intermediate_size", default=t.hidden_size)
    two_layers(inv, width, middle, t.hidden_size, middle_in=middle // 2)
    return join(c, t, inv)


@family("cohere2_vision")
def cohere2_vision(c: Config) -> Architecture:
    t = read_text(c, "cohere2", tied=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "siglip_vision_model", absent=_COHERE_VISION)
    width = s.hidden * c.integer("downsample_factor", default=2, high=64) ** 2
    middle = c.integer("alignment_intermediate_size", default=36864)
    two_layers(inv, width, middle, t.hidden_size, middle_in=middle // 2)
    return join(c, t, inv)


@family("gemma3", "shieldgemma2")
def gemma3(c: Config) -> Architecture:
    t = read_text(c, "gemma3_text", tied=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "siglip_vision_model", fixed=True)
    inv.part = "projector"
    inv.add("mm.input_projection", None, s.hidden, t.hidden_size)
    inv.add("mm.soft_emb_norm", None, s.hidden)
    return join(c, t, inv)


@family("paligemma", "colpali")
def paligemma(c: Config) -> Architecture:
    """The projector ends in `projection_dim`, which the outer config sets (2048 by default)."""
    t = read_text(c, "gemma", tied=True, absent=_PALIGEMMA_TEXT)
    inv = tower_inventory(t)
    s = vision(inv, c, "siglip_vision_model", absent=_PALIGEMMA)
    inv.part = "projector"
    inv.linear("mm.0", None, c.integer("projection_dim", default=2048), s.hidden, True)
    return join(c, t, inv)


def _pixel_shuffle(c: Config, kind: str) -> Architecture:
    t = read_text(c, "llama")
    inv = tower_inventory(t)
    s = vision(inv, c, kind, fixed=True)
    inv.part = "projector"
    inv.add("mm.0", None, t.hidden_size, s.hidden * c.integer("scale_factor", default=2, high=64) ** 2)
    return join(c, t, inv)


@family("idefics3")
def idefics3(c: Config) -> Architecture:
    return _pixel_shuffle(c, "idefics3_vision")


@family("smolvlm")
def smolvlm(c: Config) -> Architecture:
    return _pixel_shuffle(c, "smolvlm_vision")


@family("idefics2")
def idefics2(c: Config) -> Architecture:
    """The connector: a gated projection, then a perceiver of `resampler_depth` layers over learned latents."""
    t = read_text(c, "mistral")
    inv = tower_inventory(t)
    s = vision(inv, c, "idefics2_vision", fixed=True)
    p = section(c, "perceiver_config")
    inv.part = "projector"
    for role, rows, columns in (("gate", t_ffn(c), s.hidden), ("up", t_ffn(c), s.hidden), ("down", t.hidden_size, t_ffn(c))):
        inv.add(f"mm.{role}", None, rows, columns)
    hidden, dim = t.hidden_size, p.integer("resampler_head_dim", default=96, high=65536)
    q, kv = dim * p.integer("resampler_n_heads", default=16, high=65536), dim * p.integer("num_key_value_heads", default=4, high=65536)
    inv.add("mm.latents", None, p.integer("resampler_n_latents", default=64), hidden)
    lone_norm(inv, "mm.post_norm", hidden, False)
    for layer in range(p.integer("resampler_depth", default=3, high=4096)):
        for role in ("latents_norm", "context_norm", "post_norm"):
            inv.norm(f"mm.{role}", layer, hidden)
        for role, rows, columns in (("q", q, hidden), ("k", kv, hidden), ("v", kv, hidden), ("out", hidden, q)):
            inv.add(f"mm.attn_{role}", layer, rows, columns)
        for role, rows, columns in (("gate", 4 * hidden, hidden), ("up", 4 * hidden, hidden), ("down", hidden, 4 * hidden)):
            inv.add(f"mm.ffn_{role}", layer, rows, columns)
    return join(c, t, inv)


def t_ffn(c: Config) -> int:
    """The language model's feed-forward width, which the connector shares (Mistral's default)."""
    return section(c, "text_config").integer("intermediate_size", default=14336)


@family("mistral3")
def mistral3(c: Config) -> Architecture:
    """Where the outer config says nothing of ties, the text model's own flag holds, not transformers' default of tied.

    Mistral-Small-3.1's checkpoint has a head of its own, and vLLM's logs show it (44.76 GiB; llm-d-planner PR 205, 0.19).
    """
    silent = c.section("text_config") is not None and not c.has("tie_word_embeddings")
    t = read_text(c, "mistral", tied=True, tie="own" if silent else "outer", absent=_MISTRAL3_TEXT)
    return _pixtral_merger(c, t, _PIXTRAL)


@family("mistral_large4")
def mistral_large4(c: Config) -> Architecture:
    tower = {**_PIXTRAL, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 30}
    return _pixtral_merger(c, read_text(c, "mistral_large4_text"), tower)


def _pixtral_merger(c: Config, t: Architecture, absent: dict[str, Any]) -> Architecture:
    """A norm, a merge of neighbouring patches, two layers."""
    inv = tower_inventory(t)
    s = vision(inv, c, "pixtral", absent=absent)
    inv.part = "projector"
    lone_norm(inv, "mm.input_norm", s.hidden, False)
    inv.add("mm.patch_merger", None, s.hidden, s.hidden * c.integer("spatial_merge_size", default=2, high=64) ** 2)
    two_layers(inv, s.hidden * _feature_layers(c), t.hidden_size, t.hidden_size, c.flag("multimodal_projector_bias"))
    return join(c, t, inv)


@family("lighton_ocr")
def lighton_ocr(c: Config) -> Architecture:
    t = read_text(c, "qwen3", tied=True, absent=QWEN3_SMALL)
    inv = tower_inventory(t)
    s = vision(inv, c, "pixtral", absent=_PIXTRAL)
    inv.part = "projector"
    inv.add("mm.patch_merger", None, s.hidden, s.hidden * c.integer("spatial_merge_size", default=2, high=64) ** 2)
    inv.part = "text"
    lone_norm(inv, "mm.input_norm", s.hidden, False)
    two_layers(inv, s.hidden, t.hidden_size, t.hidden_size, False, part="text")
    return join(c, t, inv)


def _internvl(c: Config, kind: str, text: str, tied: bool) -> Architecture:
    t = read_text(c, text, tied=tied)
    inv = tower_inventory(t)
    s = vision(inv, c, kind, fixed=True)
    width = s.hidden * _shrink(c) ** 2
    inv.part = "projector"
    lone_norm(inv, "mm.ln", width)
    two_layers(inv, width, t.hidden_size, t.hidden_size)
    return join(c, t, inv)


def _shrink(c: Config) -> int:
    """Patches merged along a side: 1 ÷ `downsample_ratio`."""
    ratio = c.number("downsample_ratio", default=0.5)
    return int(1 / ratio) if 0.01 <= ratio <= 1 else 2


@family("internvl")
def internvl(c: Config) -> Architecture:
    return _internvl(c, "internvl_vision", "qwen2", True)


@family("qianfan_ocr")
def qianfan_ocr(c: Config) -> Architecture:
    return _internvl(c, "qianfan_ocr_vision", "qwen3", False)


@family("lfm2_vl")
def lfm2_vl(c: Config) -> Architecture:
    t = read_text(c, "lfm2", tied=True)
    return _lfm(c, t, "siglip2_vision_model", c.flag("projector_use_layernorm", default=True), 2560)


@family("lfm3_vl")
def lfm3_vl(c: Config) -> Architecture:
    return _lfm(c, read_text(c, "lfm3", tied=True), "lfm3_vl_vision", True, 4096)


def _lfm(c: Config, t: Architecture, kind: str, norm: bool, middle: int) -> Architecture:
    inv = tower_inventory(t)
    s = vision(inv, c, kind)
    merged = kind == "lfm3_vl_vision"  # its norm comes before the merge
    where, key = (section(c, "vision_config"), "spatial_merge_size") if merged else (c, "downsample_factor")
    factor = where.integer(key, default=2, high=64)
    width = s.hidden * factor**2
    inv.part = "projector"
    if norm:
        lone_norm(inv, "mm.ln", s.hidden if merged else width)
    two_layers(inv, width, c.integer("projector_hidden_size", default=middle), t.hidden_size, c.flag("projector_bias", default=True))
    return join(c, t, inv)


@family("llama4")
def llama4(c: Config) -> Architecture:
    t = read_text(c, "llama4_text", fixed=True, tie="own")
    inv = tower_inventory(t)
    vision(inv, c, "llama4_vision_model", fixed=True)
    inv.part = "projector"
    inv.add("mm.0", None, t.hidden_size, section(c, "vision_config").integer("vision_output_dim", default=7680))
    return join(c, t, inv)


@family("mllama")
def mllama(c: Config) -> Architecture:
    t = read_text(c, "mllama_text_model", fixed=True)
    inv = tower_inventory(t)
    vision(inv, c, "mllama_vision_model", fixed=True)
    inv.part = "projector"
    inv.linear("mm.0", None, t.hidden_size, section(c, "vision_config").integer("vision_output_dim", default=7680), True)
    return join(c, t, inv)


def merged_projector(inv: Inventory, s: Vit, factor: int, out: int, part: Any) -> None:
    """A norm on the patches, a merge of `factor`², two layers of the merged width."""
    inv.part = part
    lone_norm(inv, "mm.ln", s.hidden)
    two_layers(inv, s.hidden * factor**2, s.hidden * factor**2, out, part=part)
