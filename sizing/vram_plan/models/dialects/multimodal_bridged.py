"""Models with a bridge of their own between tower and language model, or with none: Q-Former, cross-attention, image tokens."""

from __future__ import annotations

from ..architecture import Architecture, CacheLayer
from .audio import audio
from .blocks import Inventory, attention, decoder, mlp, window_cache
from .config import Config
from .dense import LLAMA
from .multimodal import two_layers
from .nested import join, read_text, section, tower_inventory
from .plain import llama_shape
from .registry import family, known_reader
from .resamplers import image_tokenizer, qformer
from .vision import sam, vision
from .vit import blocks, clip_like, lone_norm, read_vit


@family("aria")
def aria(c: Config) -> Architecture:
    """Learned queries attend to the patches, then a feed-forward block; as many queries as the largest image needs."""
    t = read_text(c, "aria_text", fixed=True)
    inv = tower_inventory(t)
    s = vision(inv, c, "idefics3_vision")
    counts = section(c, "projector_patch_to_query_dict").raw.values()
    most = max((n for n in counts if isinstance(n, int) and 0 < n < 1 << 20), default=256)
    queries = c.integer("max_value_projector_patch_to_query_dict", default=most, high=1 << 20)
    h = s.hidden
    inv.part = "projector"
    inv.add("mm.query", None, queries, h)
    for role in ("q", "k", "v"):
        inv.add(f"mm.{role}", None, h, h)
    inv.linear("mm.attn_qkv", None, 3 * h, h, True)
    inv.linear("mm.attn_out", None, h, h, True)
    inv.linear("mm.linear", None, h, h, True)
    for role in ("ln_q", "ln_kv", "ln_post"):
        lone_norm(inv, f"mm.{role}", h)
    two_layers(inv, h, t.hidden_size, t.hidden_size, False)
    return join(c, t, inv)


@family("blip-2", "instructblip", "instructblipvideo")
def blip2(c: Config) -> Architecture:
    t = read_text(c, "opt", tie="own")
    inv = tower_inventory(t)
    s = vision(inv, c, "blip_2_vision_model", fixed=True)
    inv.part = "text"
    q = section(c, "qformer_config")
    instruct = c.text("model_type") != "blip-2"
    width = q.integer("hidden_size", default=768)
    inv.add("mm.query", None, c.integer("num_query_tokens", default=32), width)
    qformer(inv, q, words=instruct, text_block=instruct or q.flag("use_qformer_text_input"), source=s.hidden)
    inv.linear("mm.0", None, t.hidden_size, width, True)
    return join(c, t, inv)


@family("granite_speech", "granite_speech_plus")
def granite_speech(c: Config) -> Architecture:
    """A Conformer and a Q-Former over windows of its frames; the LoRA that is on while audio is heard is not counted."""
    t = read_text(c, "granite", tied=True)
    inv = tower_inventory(t)
    e = section(c, "encoder_config")
    audio(inv, Config({"audio_config": {**e.raw, "model_type": "granite_speech_encoder"}}, c.where), "granite_speech_encoder")
    for i, tensor in enumerate(inv.tensors):
        inv.tensors[i] = tensor._replace(part="text")  # transformers' split: its encoder is not called an audio tower
    inv.part = "text"
    q = section(c, "projector_config")
    width = q.integer("hidden_size", default=768)
    window, rate = c.integer("window_size", default=15, high=65536), c.integer("downsample_rate", default=5, high=65536)
    inv.add("mm.query", None, max(window // rate, 1), width)
    qformer(inv, q, text_block=q.flag("use_qformer_text_input"))
    inv.linear("mm.0", None, t.hidden_size, width, True)
    return join(c, t, inv, "the LoRA adapter used while audio is heard is not counted")


@family("fuyu")
def fuyu(c: Config) -> Architecture:
    """No tower: patches are projected straight into the decoder (Persimmon)."""
    t = read_text(c, "persimmon")
    inv = tower_inventory(t)
    pixels = c.integer("num_channels", default=3, high=1024) * c.integer("patch_size", default=30, high=65536) ** 2
    inv.linear("v.patch_embd", None, t.hidden_size, pixels, True)
    return join(c, t, inv)


@family("idefics")
def idefics(c: Config) -> Architecture:
    """Llama with gated cross-attention blocks before every `cross_layer_interval`-th layer; they keep image K and V only."""
    s = llama_shape(c, {**LLAMA.defaults})
    v = section(c, "vision_config")
    image = v.integer("embed_dim", "hidden_size", default=768)
    every = c.integer("cross_layer_interval", default=1, high=4096)
    extra = c.integer("additional_vocab_size", default=0, low=0)
    norms = c.flag("qk_layer_norms")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s)
        inv.norm("ffn_norm", layer, s.hidden)
        mlp(inv, layer, s.hidden, s.ffn)
        if layer % every == 0:
            for role, rows, columns in (
                ("q", s.q_width, s.hidden),
                ("k", s.q_width, image),
                ("v", s.q_width, image),
                ("output", s.hidden, s.q_width),
            ):
                inv.add(f"cross_attn_{role}", layer, rows, columns)
            for role in ("q", "k") if norms else ():
                inv.norm(f"cross_attn_{role}_norm", layer, s.head_dim)
            mlp(inv, layer, s.hidden, s.ffn, suffix="_cross")
            for role in ("cross_attn_norm", "cross_ffn_norm"):
                inv.norm(role, layer, s.hidden)
            for role in ("alpha_attn", "alpha_ffn"):
                inv.add(role, layer, s.hidden if c.text("alpha_type") == "vector" else 1)
        return window_cache(s, layer)

    def before(inv: Inventory) -> None:
        if extra:
            inv.add("token_embd.extra", None, extra, s.hidden)
            inv.add("output.extra", None, extra, s.hidden)

    t = decoder(c, s, block, family="idefics", before=before)
    inv = tower_inventory(t)
    vision(inv, c, "idefics_vision", fixed=True)
    if c.flag("use_resampler"):
        inv.part = "text"
        _idefics_perceiver(inv, section(c, "perceiver_config"), image)
    return join(c, t, inv)


def _idefics_perceiver(inv: Inventory, p: Config, image: int) -> None:
    heads, dim = p.integer("resampler_n_heads", default=16, high=65536), p.integer("resampler_head_dim", default=96, high=65536)
    inv.add("mm.latents", None, p.integer("resampler_n_latents", default=64), image)
    lone_norm(inv, "mm.post_norm", image)
    for layer in range(p.integer("resampler_depth", default=6, high=4096)):
        for role in ("context_norm", "latents_norm", "ffn_norm"):
            inv.norm(f"mm.{role}", layer, image, True)
        for role in ("q", "k") if p.flag("qk_layer_norms_perceiver") else ():
            inv.norm(f"mm.{role}_norm", layer, dim, True)
        for role in ("q", "k", "v"):
            inv.add(f"mm.attn_{role}", layer, heads * dim, image)
        inv.add("mm.attn_out", layer, image, heads * dim)
        inv.add("mm.ffn_up", layer, 4 * image, image)
        inv.add("mm.ffn_down", layer, image, 4 * image)


@family("granite_docling")
def granite_docling(c: Config) -> Architecture:
    """Coarse and fine routes from the tower, each with a merger per DeepStack layer."""
    t = read_text(c, "granite_docling_text", fixed=True, tied=True)
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    s = read_vit(v, image=512)
    clip_like(inv, s)
    out = v.integer("out_hidden_size", default=1024)
    scale = v.integer("scale_factor", default=4, high=64)
    deep = v.items("deepstack_visual_indexes")
    inv.part = "projector"
    lone_norm(inv, "mm.ln_in", s.hidden)
    for factor in (scale, scale // 2) if v.flag("use_fine_route", default=True) else (scale,):
        width = s.hidden * factor**2
        inv.add("mm.0", None, out, width)
        for _ in deep if deep is not None else (3, 7, 10):
            lone_norm(inv, "mm.deep_ln", width)
            two_layers(inv, width, out, out, name="mm.deep")
    lone_norm(inv, "mm.ln_mid", out)
    inv.add("mm.2", None, out, out)
    lone_norm(inv, "mm.ln_out", out)
    return join(c, t, inv)


@family("hunyuan_vl")
def hunyuan_vl(c: Config) -> Architecture:
    t = read_text(c, "hunyuan_vl_text", fixed=True, tied=True, tie="either")
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    s = read_vit(v, hidden=1152, layers=27, heads=16, ffn=4304)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, True)
    largest = v.integer("max_image_size", default=2048, high=1 << 20)
    inv.add("v.position_embd", None, (largest // s.patch) ** 2 + 1, s.hidden)
    kv = s.hidden // s.heads * v.integer("num_key_value_heads", default=16, high=65536)
    blocks(inv, s, kv_width=kv)
    merge, out = v.integer("spatial_merge_size", default=2, high=64), v.integer("out_hidden_size", default=4096)
    inv.part = "projector"
    inv.add("mm.newline", None, 4 * s.hidden)
    inv.add("mm.marks", None, 3, out)
    inv.linear("mm.conv", None, 2 * s.hidden, s.hidden * merge**2, True)
    inv.linear("mm.conv_out", None, 4 * s.hidden, 2 * s.hidden, True)
    inv.linear("mm.0", None, out, 4 * s.hidden, True)
    lone_norm(inv, "mm.before", s.hidden, False)
    lone_norm(inv, "mm.after", out, False)
    return join(c, t, inv)


def _sam_and(inv: Inventory, v: Config, last: int) -> int:
    """SAM with two more strided convolutions; returns the channels it ends in."""
    c = section(v, "sam_config")
    channels = c.integers("downsample_channels", low=1, high=1 << 20) or [512, last]
    source = sam(inv, c).hidden
    for out in channels:
        inv.add("v.sam.down", None, out, 9 * source)
        source = out
    return source


@family("deepseek_ocr2")
def deepseek_ocr2(c: Config) -> Architecture:
    """SAM, then a Qwen2 without vocabulary as the second encoder, with queries for two resolutions."""
    t = read_text(c, "deepseek_ocr2_text", fixed=True)
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    _sam_and(inv, v, 896)
    e = section(v, "encoder_config")
    s = read_vit(e, hidden=4096, layers=32, heads=32, ffn=22016)
    kv = s.hidden // s.heads * e.integer("num_key_value_heads", default=32, high=65536)
    blocks(inv, s, name="v.lm", out_bias=False, gated=True, mlp_bias=False, norm_bias=False, kv_width=kv)
    lone_norm(inv, "v.post_ln", s.hidden, False)
    inv.add("v.query_768", None, 144, s.hidden)
    inv.add("v.query_1024", None, 256, s.hidden)
    inv.part = "projector"
    inv.linear("mm.0", None, t.hidden_size, s.hidden, True)
    inv.part = "text"
    inv.add("mm.view_separator", None, t.hidden_size)
    return join(c, t, inv)


@family("unlimited_ocr")
def unlimited_ocr(c: Config) -> Architecture:
    return page_reader(c, read_text(c, "unlimited_ocr_text", fixed=True), section(c, "vision_config"))


def page_reader(c: Config, t: Architecture, v: Config, *, patches: bool = False) -> Architecture:
    """SAM beside a CLIP that reads SAM's features (no last norm, and a patch embedding, which nothing reads, in the first only)."""
    inv = tower_inventory(t)
    channels = _sam_and(inv, v, 1024)
    s = read_vit(section(v, "encoder_config"), hidden=1024, layers=24, heads=16, ffn=4096, patch=14)
    inv.add("v.class_embd", None, s.hidden)
    if patches:
        inv.add("v.patch_embd_unread", None, s.hidden, s.patch_width)
    inv.add("v.position_embd", None, s.positions + 1, s.hidden)
    lone_norm(inv, "v.pre_ln", s.hidden)
    blocks(inv, s)
    inv.part = "projector"
    inv.linear("mm.0", None, t.hidden_size, channels + s.hidden, True)
    inv.part = "text"
    inv.add("mm.marks", None, 2, t.hidden_size)
    return join(c, t, inv)


@family("nemotron_h_omni")
def nemotron_h_omni(c: Config) -> Architecture:
    t = read_text(c, "nemotron_h", tie="own")
    inv = tower_inventory(t)
    vision(inv, c, "radio", fixed=True, absent={"video_temporal_patch_size": 2})
    source = c.integer("vision_hidden_size", default=1280)
    ratio = c.number("downsample_ratio", default=0.5)
    width = source * int(1 / ratio) ** 2 if 0.01 <= ratio <= 1 else 4 * source
    middle = c.integer("projector_hidden_size", default=4096)
    inv.part = "projector"
    lone_norm(inv, "mm.ln", width, False)
    two_layers(inv, width, middle, t.hidden_size, False)
    a = c.section("audio_config")
    if a is not None:
        ears = Config({"audio_config": {"attention_bias": False, **a.raw}}, c.where)
        heard, hidden = audio(inv, ears, "parakeet_encoder"), a.integer("projection_hidden_size", default=middle)
        inv.part = "projector"
        lone_norm(inv, "mm.a.ln", heard, False)
        two_layers(inv, heard, hidden, t.hidden_size, a.flag("projection_bias"), name="mm.a")
    return join(c, t, inv)


@family("janus")
def janus(c: Config) -> Architecture:
    """Reads images through SigLIP, makes them through a VQGAN's tokens; the latter is text in transformers' split."""
    t = read_text(c, "llama", tied=True)
    inv = tower_inventory(t)
    v, q = section(c, "vision_config"), section(c, "vq_config")
    s = vision(inv, c, "janus_vision_model", fixed=True)
    inv.part = "text"
    out = v.integer("projection_dim", default=2048)
    inv.linear("mm.0", None, out, s.hidden, True)
    for _ in range(1, v.integer("depth", default=2, high=4096)):
        inv.linear("mm.2", None, out, out, True)
    image_tokenizer(inv, q, embed=8, decoder=True)
    codes, dim, width = (
        q.integer("num_embeddings", default=16384),
        q.integer("embed_dim", default=8),
        q.integer("projection_dim", default=2048),
    )
    inv.add("gen.embd", None, codes, dim)
    inv.linear("gen.aligner", None, width, dim, True)
    for _ in range(1, q.integer("num_hidden_layers", default=2, high=4096)):
        inv.linear("gen.aligner2", None, width, width, True)
    head = q.integer("image_token_embed_dim", default=2048)
    inv.linear("gen.head", None, width, head, True)
    inv.linear("gen.output", None, codes, width, True)
    return join(c, t, inv)


@family("chameleon")
def chameleon(c: Config) -> Architecture:
    """Images are tokens of the vocabulary; the VQGAN's encoder makes them."""
    raw = {**c.raw, "model_type": "chameleon_text"}
    t = known_reader("chameleon_text")(Config(raw, c.where))
    inv = tower_inventory(t)
    inv.part = "text"
    q = section(c, "vq_config")
    image_tokenizer(inv, q, embed=256, decoder=False, last_attention=False, codes=8192)
    return join(c, t, inv)


@family("kosmos-2")
def kosmos2(c: Config) -> Architecture:
    t = _kosmos_text(c, {"vocab_size": 65037, "embed_dim": 2048, "layers": 24, "ffn_dim": 8192, "attention_heads": 32}, inner_norm=True)
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    s = read_vit(v, hidden=1024, layers=24, heads=16, ffn=4096, patch=14)
    clip_like(inv, s, cls=1, patch_bias=False, pre_norm=True)
    return _kosmos_bridge(c, t, inv, s.hidden, 64)


@family("kosmos-2.5")
def kosmos2_5(c: Config) -> Architecture:
    """Pix2Struct's tower: flattened patches with embeddings of row and column, gated feed-forward blocks."""
    t = _kosmos_text(c, {"vocab_size": 108481, "embed_dim": 1536, "layers": 24, "ffn_dim": 6144, "attention_heads": 16}, inner_norm=False)
    inv = tower_inventory(t)
    v = section(c, "vision_config")
    s = read_vit(v, hidden=1536, layers=18, heads=24, ffn=3968)
    inv.linear("v.patch_embd", None, s.hidden, v.integer("patch_embed_hidden_size", default=768), True)
    inv.add("v.position_embd", None, 2, v.integer("max_num_patches", default=4096), s.hidden)
    width = s.heads * v.integer("head_dim", default=64, high=65536)
    blocks(inv, s, bias=False, gated=True, mlp_bias=False, norm_bias=False, q_width=width)
    lone_norm(inv, "v.post_ln", s.hidden, False)
    inv.part = "text"
    inv.add("segment_embd", None, 2, t.hidden_size)
    return _kosmos_bridge(c, t, inv, s.hidden, 2048)


def _kosmos_bridge(c: Config, t: Architecture, inv: Inventory, source: int, queries: int) -> Architecture:
    """Learned queries attend to the projected patches (text, in transformers' split)."""
    inv.part = "text"
    inv.add("mm.query", None, c.integer("latent_query_num", default=queries), t.hidden_size)
    inv.linear("mm.0", None, t.hidden_size, source, True)
    for role in ("q", "k", "v", "out"):
        inv.linear(f"mm.attn_{role}", None, t.hidden_size, t.hidden_size, True)
    return join(c, t, inv)


def _kosmos_text(c: Config, defaults: dict[str, int], *, inner_norm: bool) -> Architecture:
    """Magneto: a second norm inside attention and feed-forward, biases everywhere, fixed positions."""
    x = Config({**defaults, **{k: n for k, n in section(c, "text_config").raw.items() if n is not None}}, c.where)
    usual = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    names = zip(usual, ("embed_dim", "layers", "attention_heads", "ffn_dim"), strict=True)
    view = Config({**x.raw, **{new: x.raw[old] for new, old in names}, "architectures": c.raw.get("architectures")}, c.where)
    s = llama_shape(view, {})

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden, True)
        attention(inv, layer, s, bias=True, out_bias=True)
        if inner_norm:
            inv.norm("attn_sub_norm", layer, s.hidden, True)
        inv.norm("ffn_norm", layer, s.hidden, True)
        mlp(inv, layer, s.hidden, s.ffn, gated=False, bias=True)
        inv.norm("ffn_sub_norm", layer, s.ffn, True)
        return window_cache(s, layer)

    flag = (c if inner_norm else x).flag("tie_word_embeddings", default=True)  # Kosmos-2.5 goes by the nested one
    tied = Config({**view.raw, "tie_word_embeddings": flag}, c.where)
    return decoder(tied, s, block, family="kosmos", norm_bias=True)
