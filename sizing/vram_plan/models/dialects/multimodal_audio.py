"""Audio-language models and the omni models that hear and see."""

from __future__ import annotations

from typing import Any, Final

from ..architecture import Architecture
from .audio import audio
from .config import Config
from .multimodal import QWEN3_SMALL, two_layers
from .nested import join, read_text, section, tower_inventory
from .registry import family, known_reader
from .vision import vision
from .vit import lone_norm

_VOXTRAL_TEXT: Final[dict[str, Any]] = {
    "vocab_size": 131072, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 30, "num_key_value_heads": 8,
    "head_dim": 128,
}  # fmt: skip
_GLMASR_TEXT: Final[dict[str, Any]] = {
    "vocab_size": 59264, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 4,
}  # fmt: skip
_QWEN3_ASR_TEXT: Final[dict[str, Any]] = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip


@family("qwen2_audio")
def qwen2_audio(c: Config) -> Architecture:
    t = read_text(c, "qwen2", tie="never")
    inv = tower_inventory(t)
    width = audio(inv, c, "qwen2_audio_encoder")
    inv.part = "projector"
    inv.linear("mm.a.0", None, t.hidden_size, width, True)
    return join(c, t, inv)


@family("audioflamingo3", "musicflamingo")
def audioflamingo(c: Config) -> Architecture:
    t = read_text(c, "qwen2", tie="never")
    inv = tower_inventory(t)
    width = audio(inv, c, "audioflamingo3_encoder")
    two_layers(inv, width, t.hidden_size, t.hidden_size, c.flag("projector_bias", default=True))
    return join(c, t, inv)


@family("voxtral")
def voxtral(c: Config) -> Architecture:
    """Four frames of the encoder go into one token: the projector takes its feed-forward width."""
    t = read_text(c, "llama", tie="never", fill=_VOXTRAL_TEXT)
    inv = tower_inventory(t)
    audio(inv, c, "voxtral_encoder")
    two_layers(inv, section(c, "audio_config").integer("intermediate_size", default=5120), t.hidden_size, t.hidden_size, False)
    return join(c, t, inv)


@family("voxtral_realtime")
def voxtral_realtime(c: Config) -> Architecture:
    t = read_text(c, "voxtral_realtime_text", tied=True)
    inv = tower_inventory(t)
    width = audio(inv, c, "voxtral_realtime_encoder")
    two_layers(inv, width * c.integer("downsample_factor", default=4, high=1024), t.hidden_size, t.hidden_size, False)
    return join(c, t, inv)


@family("glmasr")
def glmasr(c: Config) -> Architecture:
    t = read_text(c, "llama", tied=True, fill=_GLMASR_TEXT)
    inv = tower_inventory(t)
    audio(inv, c, "glmasr_encoder")
    two_layers(inv, section(c, "audio_config").integer("intermediate_size", default=5120), 2 * t.hidden_size, t.hidden_size)
    return join(c, t, inv)


@family("moss_transcribe_diarize")
def moss(c: Config) -> Architecture:
    t = read_text(c, "qwen3", tied=True, absent=QWEN3_SMALL)
    inv = tower_inventory(t)
    width = audio(inv, c, "moss_transcribe_diarize_audio")
    two_layers(
        inv,
        width * c.integer("audio_merge_size", default=4, high=1024),
        t.hidden_size,
        t.hidden_size,
        c.flag("projector_bias", default=True),
    )
    lone_norm(inv, "mm.ln", t.hidden_size)
    return join(c, t, inv)


@family("qwen3_asr")
def qwen3_asr(c: Config) -> Architecture:
    t = read_text(c, "qwen3", tied=True, absent=_QWEN3_ASR_TEXT)
    inv = tower_inventory(t)
    width = audio(inv, c, "qwen3_asr_encoder")
    two_layers(inv, width, width, section(c, "audio_config").integer("output_dim", default=3584))
    return join(c, t, inv)


@family("qwen2_5_omni_thinker")
def qwen2_5_omni_thinker(c: Config) -> Architecture:
    t = read_text(c, "qwen2_5_omni_text", fixed=True)
    inv = tower_inventory(t)
    audio(inv, c, "qwen2_5_omni_audio_encoder")
    vision(inv, c, "qwen2_5_omni_vision_encoder", fixed=True)
    return join(c, t, inv)


@family("qwen3_omni_moe_thinker")
def qwen3_omni_thinker(c: Config) -> Architecture:
    t = read_text(c, "qwen3_omni_moe_text", fixed=True)
    inv = tower_inventory(t)
    audio(inv, c, "qwen3_omni_moe_audio_encoder")
    vision(inv, c, "qwen3_omni_moe_vision_encoder", fixed=True)
    return join(c, t, inv)


#: What the one published size of each has where a shortened config leaves keys out (the classes' defaults are no model's).
_QWEN3_OMNI_TEXT: Final[dict[str, Any]] = {
    "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "vocab_size": 152064, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "max_position_embeddings": 65536,
}  # fmt: skip
_SPOKEN: Final = "speech output (talker and vocoder) is not counted: an engine that answers in text loads the thinker alone"


@family("qwen3_omni_moe")
def qwen3_omni_moe(c: Config) -> Architecture:
    """The thinker: language model, ears and eyes. Absent keys are filled as Qwen3-Omni-30B-A3B's config has them."""
    thinker = dict(section(c, "thinker_config").raw)
    filled = (("text_config", _QWEN3_OMNI_TEXT), ("audio_config", {"output_dim": 2048}), ("vision_config", {"out_hidden_size": 2048}))
    for key, values in filled:
        thinker[key] = {**values, **section(Config(thinker, c.where), key).raw}
    return _thinker(c, thinker, "qwen3_omni_moe_thinker")


@family("qwen2_5_omni")
def qwen2_5_omni(c: Config) -> Architecture:
    return _thinker(c, dict(section(c, "thinker_config").raw), "qwen2_5_omni_thinker")


def _thinker(c: Config, thinker: dict[str, Any], kind: str) -> Architecture:
    for key in ("dtype", "torch_dtype"):
        thinker.setdefault(key, c.raw.get(key))
    found = known_reader(kind)(Config({**thinker, "model_type": kind}, f"{c.where}: thinker_config"))
    return join(c, found, tower_inventory(found), *(() if c.flag("enable_audio_output", default=True) is False else (_SPOKEN,)))
