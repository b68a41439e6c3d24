"""Models published with code of their own, and towers that are timm models.

Each says which published total its reading was checked against.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ..architecture import Architecture
from .audio import gemma3n_audio, phi4_audio
from .blocks import Inventory
from .config import Config
from .multimodal import two_layers
from .multimodal_bridged import page_reader
from .nested import join, read_text, section, tower_inventory
from .registry import family, known_reader
from .resamplers import image_tokenizer, perceiver_resampler
from .vision import vision
from .vit import clip_like, lone_norm, pooling_head, read_vit, scaled

#: Parameters of timm models used as towers (timm 1.0.24, as transformers builds them: no classifier, FastViT merged for inference).
TIMM_PARAMETERS: Final = {
    "mobilenetv5_300m_enc": 294_126_912,
    "fastvit_mci3": 122_714_208,
}
_SO400M: Final = {
    "hidden_size": 1152,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "intermediate_size": 4304,
    "patch_size": 14,
    "image_size": 384,
}


def _timm(inv: Inventory, v: Config, default: str) -> tuple[str, ...]:
    """A timm tower as one lump of its known size; one that is not known is named in a note."""
    name = v.text("architecture", default=default)
    size = TIMM_PARAMETERS.get(name)
    if size is None:
        return (f"its vision tower, timm's {name[:60]!r}, is not counted: its size is not known here",)
    inv.part = "vision"
    inv.add("v.timm", None, size)
    return ()


@family("gemma3n")
def gemma3n(c: Config) -> Architecture:
    """Text, MobileNetV5 and a Conformer. A config that names no class is read as the text model.

    Gemma-3n-E4B: 7,818,517,072; its files hold 7,849,978,192, with K and V projections of the layers that share
    another's cache, which are not used.
    """
    t = read_text(c, "gemma3n_text", tied=True)
    inv = tower_inventory(t)
    names = c.items("architectures")
    if not names or names[0] != "Gemma3nForConditionalGeneration":
        return join(c, t, inv, "text only: the towers belong to Gemma3nForConditionalGeneration, which this config does not name")
    v, a = section(c, "vision_config"), section(c, "audio_config")
    notes = _timm(inv, v, "mobilenetv5_300m_enc")
    audio_width = gemma3n_audio(inv, a)
    inv.part = "projector"
    for name, width, words in (("mm", v.integer("hidden_size", default=2048), v), ("mm.a", audio_width, a)):
        inv.add(f"{name}.embd", None, words.integer("vocab_size", default=128), width)
        inv.add(f"{name}.hard_norm", None, width)
        inv.add(f"{name}.soft_norm", None, width)
        inv.add(f"{name}.input_projection", None, t.hidden_size, width)
    return join(c, t, inv, *notes)


@family("fast_vlm")
def fast_vlm(c: Config) -> Architecture:
    absent = {
        "hidden_size": 3584, "vocab_size": 152128, "intermediate_size": 18944, "num_attention_heads": 28,
        "num_key_value_heads": 4, "num_hidden_layers": 28,
    }  # fmt: skip
    t = read_text(c, "qwen2", tie="either", absent=absent)
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    notes = _timm(inv, v, "fastvit_mci3")
    two_layers(inv, v.integer("hidden_size", default=3072), t.hidden_size, t.hidden_size, c.flag("multimodal_projector_bias", default=True))
    return join(c, t, inv, *notes)


@family("perception_lm")
def perception_lm(c: Config) -> Architecture:
    t = read_text(c, "llama", tie="either")
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    notes = _timm(inv, v, "vit_pe_core_large_patch14_336")
    arguments = v.section("model_args")
    width = arguments.integer("embed_dim", default=1024) if arguments else 1024
    two_layers(inv, width, t.hidden_size, t.hidden_size)
    return join(c, t, inv, *notes)


@family("phi3_v")
def phi3_v(c: Config) -> Architecture:
    """Phi-3 with CLIP-L/336: four patches become one token. Checked: 4,146,621,440 parameters, as published."""
    t = known_reader("phi3")(c)
    inv = tower_inventory(t)
    clip = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "image_size": 336,
        "patch_size": 14,
    }
    s = read_vit(Config(clip))
    clip_like(inv, s, cls=1, patch_bias=False, pre_norm=True)
    inv.part = "projector"
    width = 4 * section(c, "img_processor").integer("image_dim_out", default=s.hidden)
    inv.add("mm.separators", None, 2, width)
    two_layers(inv, width, t.hidden_size, t.hidden_size)
    return join(c, t, inv)


@family("phi4_multimodal")
def phi4_multimodal(c: Config) -> Architecture:
    """Phi-4-mini with SigLIP and a Conformer (which transformers' split counts as text). Its LoRA adapters are apart."""
    absent = {"num_key_value_heads": 8, "vocab_size": 200064, "max_position_embeddings": 131072}
    return _phi4(c, Config({**absent, **c.raw}, c.where), section(c, "vision_config"), section(c, "audio_config"))


def _phi4(c: Config, text: Config, v: Config, a: Config) -> Architecture:
    t = known_reader("phi3")(text)
    inv = tower_inventory(t)
    s = vision(inv, Config({"vision_config": v.raw}, v.where), "phi4_multimodal_vision", fixed=True)
    inv.part = "text"
    inv.add("mm.separators", None, 2, s.hidden)
    two_layers(inv, s.hidden, t.hidden_size, t.hidden_size, part="text")
    width = phi4_audio(inv, a)
    for name in ("mm.a", "mm.a_with_image"):
        two_layers(inv, width * a.integer("downsample_rate", default=1, high=1024), t.hidden_size, t.hidden_size, part="text", name=name)
    return join(c, t, inv)


@family("phi4mm")
def phi4mm(c: Config) -> Architecture:
    """Phi-4-multimodal as published: the same, its audio statistics, two LoRA adapters over every projection.

    Checked: 5,574,460,384 parameters, as published.
    """
    found = _phi4(c, c, section(c, "vision_config"), section(c, "audio_config", absent={"bias_max_distance": 500}))
    inv = Inventory(found.dtype, "text")
    inv.add("a.statistics", None, 2, 80)
    s = (c.integer("num_attention_heads", default=24, high=65536), c.integer("num_key_value_heads", default=8, high=65536))
    head = found.hidden_size // s[0]
    qkv, ffn = head * (s[0] + 2 * s[1]), c.integer("intermediate_size", default=8192)
    for key, rank in (("vision_lora", 256), ("speech_lora", 320)):
        r = section(c, key).integer("r", default=rank, high=65536)
        for layer in range(found.layers):
            for role, out, inputs in (("qkv", qkv, found.hidden_size), ("out", found.hidden_size, s[0] * head)):
                inv.add(f"{key}.{role}", layer, r, out + inputs)
            for role, out, inputs in (("up", 2 * ffn, found.hidden_size), ("down", found.hidden_size, ffn)):
                inv.add(f"{key}.{role}", layer, r, out + inputs)
    return join(c, found, inv)


@family("minicpmv", "minicpmo")
def minicpmv(c: Config) -> Architecture:
    """MiniCPM-V 1 to 4.5: SigLIP so400m, a resampler of `query_num` queries, and a language model its version decides.

    Checked: MiniCPM-V and V-2.0 3.43 B, Llama3-V-2.5 8.54 B, V-2.6 8.10 B, as published. MiniCPM-o's speech parts are not counted.
    """
    t = known_reader(_minicpm_language(c))(Config({**c.raw, "architectures": None}, c.where))
    inv = tower_inventory(t)
    v = c.section("vision_config")
    s = read_vit(Config({**_SO400M, **(v.raw if v else {})}, c.where))
    if c.flag("drop_vision_last_layer"):
        s = replace(s, layers=s.layers - 1)
    clip_like(inv, s)
    inv.part = "projector"
    queries, width = c.integer("query_num", default=64, high=65536), t.hidden_size
    perceiver_resampler(inv, queries, width, s.hidden)
    for role in ("ln_q", "ln_kv", "ln_post"):
        lone_norm(inv, f"mm.{role}", width)
    inv.add("mm.proj", None, width, width)
    if v is None:  # the first ones store their table of positions
        inv.add("mm.position_embd", None, queries, width)
    speech = ("its speech encoder and decoder are not counted",) if c.text("model_type") == "minicpmo" else ()
    return join(c, t, inv, *speech)


def _minicpm_language(c: Config) -> str:
    version = str(c.get("version") or "")
    if version.startswith("4.5"):
        return "qwen3"
    if version.startswith("2.6") or (c.text("model_type") == "minicpmo" and not version):
        return "qwen2"
    return "minicpm" if c.has("scale_emb") else "llama"


@family("deepseek_vl_v2")
def deepseek_vl_v2(c: Config) -> Architecture:
    """DeepSeek-VL2: SigLIP so400m with its pooling head, a projector on 2 × 2 patches. Checked: tiny 3.37 B, as published.

    DeepSeek-OCR has this type too: 3,336,106,240 by this reading, 3 B says its page.
    """
    inner = section(c, "language_config")
    plain = inner.raw.get("use_mla") is False or (inner.raw.get("kv_lora_rank", 1) is None)
    t = read_text(c, "deepseek" if plain else "deepseek_v2", fixed=True, keys=("language_config", "text_config"))
    if (widths := section(c, "vision_config").section("width")) is not None:
        return replace(page_reader(c, t, _published_pages(widths), patches=True), family="unlimited_ocr")
    inv = tower_inventory(t)
    s = _timm_siglip(inv, section(c, "vision_config"), 27, 1152, 3.7362, 14)
    inv.part = "projector"
    p = section(c, "projector_config")
    width = p.integer("n_embed", default=t.hidden_size)
    factor = p.integer("downsample_ratio", default=2, high=64)
    two_layers(inv, s * factor**2, width * p.integer("mlp_ratio", default=1, high=64), width)
    inv.add("mm.marks", None, 2, width)
    return join(c, t, inv)


def _published_pages(widths: Config) -> Config:
    """DeepSeek-OCR's two encoders, whose numbers lie under their names, as Unlimited-OCR's config has them."""
    sam, clip = section(widths, "sam_vit_b"), section(widths, "clip-l-14-224")
    names = {"hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
    pages, features = ({key: part.raw[name] for key, name in names.items() if name in part.raw} for part in (sam, clip))
    pages |= {key: sam.raw[key] for key in ("downsample_channels", "global_attn_indexes") if key in sam.raw}
    features |= {key: clip.raw[key] for key in ("image_size", "patch_size") if key in clip.raw}
    return Config({"sam_config": pages, "encoder_config": features}, widths.where)


def _timm_siglip(inv: Inventory, v: Config, layers: int, width: int, ratio: float, patch: int) -> int:
    """SigLIP as DeepSeek's code builds it, the unused pooling head included. Returns its width."""
    hidden = v.integer("width", default=width, high=1 << 20)
    numbers: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": v.integer("layers", default=layers, high=4096),
        "intermediate_size": scaled(v, "mlp_ratio", ratio, hidden),
        "patch_size": v.integer("patch_size", default=patch, high=4096),
        "image_size": v.integer("image_size", default=384, high=65536),
    }
    s = read_vit(Config(numbers, v.where))
    clip_like(inv, s)
    pooling_head(inv, s)
    return s.hidden


@family("multi_modality")
def multi_modality(c: Config) -> Architecture:
    """Janus and Janus-Pro as published: SigLIP-L/384, a VQGAN both ways. Checked: 1.3B 2.09 B, Pro-7B 7.42 B."""

    def parameters(key: str) -> Config:
        return section(section(c, key), "params")

    t = read_text(c, "llama", fixed=True, keys=("language_config",))
    inv = tower_inventory(t)
    s = _timm_siglip(inv, Config({}), 24, 1024, 4.0, 16)
    inv.part = "projector"
    a = parameters("aligner_config")
    width = a.integer("n_embed", default=t.hidden_size)
    two_layers(inv, a.integer("input_dim", default=s), width, width)
    inv.part = "text"
    g, q, h = parameters("gen_aligner_config"), parameters("gen_vision_config"), parameters("gen_head_config")
    codes, dim = q.integer("image_token_size", default=16384), q.integer("n_embed", default=8)
    image_tokenizer(inv, Config({"embed_dim": dim, "num_embeddings": codes}), embed=8, decoder=True)
    inv.add("gen.embd", None, codes, dim)
    width = g.integer("n_embed", default=t.hidden_size)
    two_layers(inv, g.integer("input_dim", default=dim), width, width, part="text", name="gen.aligner")
    two_layers(
        inv,
        h.integer("n_embed", default=t.hidden_size),
        h.integer("image_token_embed", default=t.hidden_size),
        codes,
        part="text",
        name="gen.head",
    )
    return join(c, t, inv)


@family("internvl_chat")
def internvl_chat(c: Config) -> Architecture:
    """InternVL 1.5 to 3.5 as published, with `llm_config`. Checked: InternVL2.5-8B 8,075,365,376, InternVL3-78B 78.4 B."""
    t = read_text(c, "qwen2", keys=("llm_config",), tie="own")
    inv = tower_inventory(t)
    raw = dict(section(c, "vision_config").raw)
    raw["attention_bias"] = raw.get("qkv_bias", False)
    raw["use_qk_norm"] = raw.get("qk_normalization", True)
    raw.setdefault("norm_type", "rms_norm")
    for key, value in (
        ("hidden_size", 3200),
        ("num_hidden_layers", 48),
        ("num_attention_heads", 25),
        ("intermediate_size", 12800),
        ("image_size", 224),
    ):
        raw.setdefault(key, value)
    s = vision(inv, Config({"vision_config": raw}, c.where), "internvl_vision", fixed=True)
    ratio = c.number("downsample_ratio", default=0.5)
    width = s.hidden * (int(1 / ratio) ** 2 if 0.01 <= ratio <= 1 else 4)
    inv.part = "projector"
    lone_norm(inv, "mm.ln", width)
    two_layers(inv, width, t.hidden_size, t.hidden_size)
    return join(c, t, inv)
