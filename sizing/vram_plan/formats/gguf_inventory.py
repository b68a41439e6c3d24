"""A model's weights as llama.cpp's converter writes them into a GGUF of 16 bits.

The roles of an inventory are GGUF names already; what changes is what the converter splits, drops or keeps in fp32.
Vision and audio towers go into a file of their own (mmproj). Left out: `rope_freqs` and other rope tables, which are
1 to 4 KiB where a model has them at all. Source: llama.cpp 0c1e57098, conversion/base.py (prepare_tensors) and
conversion/deepseek.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from operator import itemgetter
from typing import Final

from ..models.architecture import Architecture, Tensor
from .mixes import GgufFacts

__all__ = ["as_gguf", "gguf_facts"]

#: Families whose draft (MTP) layers the converter keeps; it drops those of DeepSeek-V3, Kimi-K2, ERNIE and others.
_KEEP_DRAFTS: Final = frozenset({
    "bailing_moe_v2", "deepseek_v32", "exaone4_5", "exaone_moe", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa", "glm_ocr",
    "mimo_v2", "mimo_v2_flash", "nemotron_h", "qwen3_5", "qwen3_5_moe", "qwen3_next", "step3p5",
})  # fmt: skip
#: Families whose compressed attention (MLA) keeps one matrix for K and V, with as many KV heads as query heads.
_WHOLE_KV_B: Final = frozenset({"minicpm3", "plm"})
#: Families whose routers have a correction bias that checkpoints hold as a buffer, no parameter: the file lists it all the same.
_CORRECTED: Final = frozenset({
    "bailing_hybrid", "bailing_moe_v2", "deepseek_v3", "deepseek_v32", "dots1", "exaone_moe", "glm4_moe", "glm4_moe_lite", "glm4v_moe",
    "glm_moe_dsa", "hy_v3", "kimi_k2", "kimi_k25", "kimi_k3", "kimi_linear", "lfm2_moe", "mimo_v2_flash", "minimax_m2", "minimax_m3",
    "minimax_m3_vl", "nemotron_h", "solar_open", "step3p5",
})  # fmt: skip
#: Families whose file states one number of KV heads for all layers, recurrent ones too; others state 0 for those.
_ONE_HEAD_COUNT: Final = frozenset({"qwen3_next", "qwen3_5", "qwen3_5_moe"})
#: Families llama.cpp gives its type "70B", by their number of layers (src/models/llama.cpp, qwen2.cpp, deci.cpp, olmo.cpp).
_LARGE: Final = {"llama": 80, "mistral": 80, "qwen2": 80, "nemotron-nas": 80, "olmo": 80, "jais2": 68, "internvl": 80, "llava_next": 80}
#: Families whose file has K and V of layers that read another's cache too, used by nobody (src/models/gemma3n.cpp asks for them).
_UNUSED_KV: Final = frozenset({"gemma3n", "gemma3n_text"})
#: BERT's pooler, which the converter keeps only below a classification head.
_POOLER: Final = ("cls", "cls.bias")
#: BERT's head for masked words, which it never keeps.
_WORD_HEAD: Final = ("mlm_dense", "mlm_dense.bias", "mlm_norm", "mlm_norm.bias", "output.bias")
#: What transformers counts as text and the text model's file leaves out: towers, projectors, makers of images, adapters of other senses.
_BESIDE: Final = ("v.", "a.", "mm.", "vq.", "gen.", "tok.", "vision_lora.", "speech_lora.")
#: Matrices that stay in fp32, by the end of their name (conversion/base.py); all that is 1-D or a norm does too.
_FP32: Final = (
    "_norm", "ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "token_types", "ssm_conv1d", "shortconv.conv", "ssm_conv1d_q",
    "ssm_conv1d_k", "ssm_conv1d_v", "time_mix_first", "time_mix_w1", "time_mix_w2", "time_mix_decay_w1", "time_mix_decay_w2",
    "time_mix_lerp_fused", "altup_correct_coef", "altup_predict_coef", "indexer.proj", ".bias", "ssm_a", "ssm_d",
)  # fmt: skip


def as_gguf(architecture: Architecture) -> tuple[Tensor, ...]:
    """The tensors of the model's 16-bit GGUF: matrices as F16, the rest as F32."""
    parts = ("text", "mtp") if architecture.family in _KEEP_DRAFTS else ("text",)
    roles = set(map(itemgetter(0), architecture.tensors))
    split = "attn_kv_b" in roles and architecture.family not in _WHOLE_KV_B
    values = _value_widths(architecture.tensors) if split else {}
    dropped = (*(() if "cls.output" in roles else _POOLER), *(_WORD_HEAD if "mlm_dense" in roles else ()))
    kept = {role for role in roles if role not in dropped and not role.startswith(_BESIDE)}
    found: list[Tensor] = []
    for tensor in architecture.tensors:
        role, layer, shape, experts, _, part = tensor
        if part not in parts or role not in kept:
            continue
        if split and role == "attn_kv_b":
            found.extend(_split_kv_b(tensor, architecture, values.get(layer, 0)))
        else:
            found.append(Tensor(role, layer, shape, experts, _stored(role, shape), part))
    return (*found, *_corrections(architecture, found), *_unused_kv(architecture, found))


def _corrections(a: Architecture, tensors: Sequence[Tensor]) -> list[Tensor]:
    """One fp32 number an expert, for each router of a family that has them and does not list them."""
    if a.family not in _CORRECTED or any(t.role == "exp_probs_b.bias" for t in tensors):
        return []
    return [Tensor("exp_probs_b.bias", t.layer, (t.shape[0],), 0, "F32", t.part) for t in tensors if t.role == "ffn_gate_inp"]


def _unused_kv(a: Architecture, tensors: Sequence[Tensor]) -> list[Tensor]:
    """K and V of the layers that have none by the inventory."""
    if a.family not in _UNUSED_KV:
        return []
    own = [t for t in tensors if t.layer == 0 and t.role in ("attn_k", "attn_v", "attn_k_norm")]
    with_them = {t.layer for t in tensors if t.role == "attn_k"}
    return [t._replace(layer=layer) for layer in range(a.layers) if layer not in with_them for t in own]


def gguf_facts(architecture: Architecture, tensors: Sequence[Tensor], *, imatrix: bool = False) -> GgufFacts:
    """What the rules of a mix ask of the model whose GGUF holds `tensors`."""
    a = architecture
    drafts = {t.layer for t in tensors if t.part == "mtp" and t.layer is not None and t.layer >= a.layers}
    group = _first_group(a)
    return GgufFacts(
        layers=a.layers + len(drafts),
        group=group,
        experts=a.experts,
        large=_LARGE.get(a.family) == a.layers and (group != 1 or a.family == "qwen2"),
        falcon=a.family == "falcon",
        imatrix=imatrix,
    )


def _first_group(a: Architecture) -> int:
    """Query heads per KV head of the first layer, as its file states them; a latent (MLA) has one KV head."""
    for layer in a.cache_layers:
        if layer.kv_heads and (layer.layer == 0 or a.family in _ONE_HEAD_COUNT):
            return 1 if a.family in _WHOLE_KV_B else (layer.heads or a.heads) // layer.kv_heads
    return 1 if a.kind == "encoder" and a.heads else 0


def _value_widths(tensors: Sequence[Tensor]) -> dict[int | None, int]:
    """Heads × value width of each layer with compressed attention: the input of its output projection."""
    return {t.layer: t.shape[-1] for t in tensors if t.role == "attn_output"}


def _split_kv_b(tensor: Tensor, a: Architecture, values: int) -> tuple[Tensor, Tensor]:
    """MLA's up-projection as two stacks, one matrix a head: K's transposed, so that its rows are as long as a head's key."""
    rows, rank = tensor.shape
    heads = max(a.heads, 1)
    v, k = values // heads, (rows - values) // heads
    return (
        Tensor("attn_k_b", tensor.layer, (heads, rank, k), 0, "F16", tensor.part),
        Tensor("attn_v_b", tensor.layer, (heads, v, rank), 0, "F16", tensor.part),
    )


@lru_cache(maxsize=1 << 14)
def _stored(role: str, shape: tuple[int, ...]) -> str:
    return "F32" if prod(shape[:-1]) <= 1 or role.endswith(_FP32) else "F16"
