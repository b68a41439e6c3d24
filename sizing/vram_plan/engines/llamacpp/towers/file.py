"""What a model's mmproj file holds, tensor by tensor, in the formats convert_hf_to_gguf.py writes: F16, BF16, F32 and Q8_0.

Vectors and tables of positions stay in fp32 in all of them; a convolution's kernel follows rules of its own, by family. Source:
llama.cpp 0c1e57098, conversion/base.py (`MmprojModel.tensor_force_quant`, `prepare_tensors`) and the families' own converters.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Final

from ....formats.storage import storage_bytes
from ....models.architecture import Tensor
from ....models.dialects.config import Config
from ....models.model import Model
from .tower import section

__all__ = ["KINDS", "file_bytes", "stored_as", "tower_tensors"]

KINDS: Final = ("F16", "BF16", "F32", "Q8_0")
#: Roles written without `.weight`, which stay in fp32 whatever their shape.
_BARE: Final = (
    "v.class_embd", "v.position_embd", "a.position_embd", "mm.position_embd", "mm.query", "mm.marks", "a.rel_pos", "a.ffn1_ln", "a.ffn2_ln",
    "a.ln", "v.patch_embd_unread",
)  # fmt: skip
#: Kernels in 16 bits in an F16 file and in 32 in any other.
_KERNELS: Final = ("v.patch_embd", "mm.patch", "mm.patch_merger", "mm.conv", "mm.conv_out", "v.downsample1", "v.downsample2")
#: Families whose patch kernel stays in fp32.
_FP32_PATCHES: Final = frozenset({"gemma3", "idefics3", "smolvlm"})
#: Families whose audio convolutions stay in fp32; other families' are in 16 bits in every file.
_FP32_SOUND: Final = ("audioflamingo3", "granite_speech")
#: Families whose file has the vector of the token that ends a row of patches.
_BREAKS: Final = frozenset({"llava", "mistral3"})
#: Linear layers of Gemma 4's audio tower with limits for what goes in and out of them.
_GEMMA_LIMITED: Final = ("a.ffn", "a.attn_q", "a.attn_k", "a.attn_v", "a.attn_out", "a.conv_in", "a.conv_out")
#: LLaVA, whose files a script of its own writes: CLIP without its last layer and norm, positions in 16 bits.
_CLIPPED: Final = frozenset({"llava", "llava_next"})
#: Numbers of MobileNetV5's norms and gains, which stay in fp32; its convolutions are in 16 bits where another format is asked for too.
_VECTORS: Final = 287_168
#: Roles no file has.
_DROPPED: Final = ("a.bos_eos", "v.mask_token", "v.head.probe")


@lru_cache(maxsize=64)
def tower_tensors(model: Model) -> tuple[Tensor, ...]:
    """The weights of the towers and projectors, under whichever part transformers counts them; of LLaVA's CLIP all but the last layer."""
    found = tuple(t for t in model.architecture.tensors if t.role.startswith(("v.", "a.", "mm.")) and t.role not in _DROPPED)
    if model.architecture.family == "gemma3n":  # whose sound llama.cpp does not read
        return tuple(t for t in found if t.role == "v.timm" or (t.role.startswith("mm.") and not t.role.startswith("mm.a.")))
    if model.architecture.family not in _CLIPPED or all(t.role != "v.position_embd" for t in found):
        return found
    last = max((t.layer for t in found if t.layer is not None), default=-1)
    return tuple(t for t in found if t.layer != last and not t.role.startswith("v.post_ln"))


def file_bytes(model: Model, kind: str) -> int:
    """Bytes of the file's tensors."""
    return sum(storage_bytes(stored, shape) for _, shape, stored in stored_as(model, kind))


def stored_as(model: Model, kind: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Role, shape and number format of each tensor of a file written as `kind`, one of `KINDS`."""
    family = model.architecture.family
    for t in tower_tensors(model):
        if t.role == "v.timm":
            yield t.role, (max(t.shape[0] - _VECTORS, 0),), "F32" if kind == "F32" else "F16"
            yield t.role, (_VECTORS,), "F32"
        else:
            yield t.role, _written(t, family), _stored(t, family, kind)
    for role, shape in _added(model, family):
        yield role, shape, "F32"


def _written(t: Tensor, family: str) -> tuple[int, ...]:
    """Muse's two frames of a patch are summed; Hunyuan's table of positions loses the class token's."""
    if t.role == "v.patch_embd" and family.startswith("muse_"):
        return (*t.shape[:-1], t.shape[-1] // 2)
    return (t.shape[0] - 1, *t.shape[1:]) if t.role == "v.position_embd" and family == "hunyuan_vl" else t.shape


def _stored(t: Tensor, family: str, kind: str) -> str:
    if family in _CLIPPED and t.role == "v.position_embd":
        return "F16"
    if prod(t.shape) == max(t.shape) or t.role in _BARE or t.role.endswith((".bias", "_norm")):
        return "F32"
    if t.role.startswith("v.sam."):
        return _sam(t.role, kind)
    if t.role == "mm.input_projection" and family == "gemma3":
        return "F16"
    if t.role in _KERNELS:
        return "F32" if kind != "F16" or (t.role == "v.patch_embd" and family in _FP32_PATCHES) else "F16"
    if family == "gemma4" and t.role in ("a.conv1", "a.conv2", "a.conv_dw", "a.input_proj"):
        return "F32"
    if t.role.startswith("a.conv") and family != "gemma4":
        return "F32" if family.startswith(_FP32_SOUND) else "F16"
    return "F16" if kind == "Q8_0" and t.shape[-1] % 32 else kind


def _sam(role: str, kind: str) -> str:
    return kind if role.startswith(("v.sam.attn", "v.sam.ffn")) else "F32"


def _added(model: Model, family: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What the converter adds: positions it computes, limits of clamped layers, a token's vector."""
    vision, sound, width = section(model, "vision_config"), section(model, "audio_config"), model.architecture.hidden_size
    tensors = tower_tensors(model)
    if family in _BREAKS and vision.text("model_type") == "pixtral":
        yield "v.token_embd.img_break", (width,)
    if family == "glmasr":
        yield from (("a.position_embd", (1500, 1280)), ("mm.a.norm_pre", (2, 1280)), ("mm.a.marks", (2, width)))
    if family in ("qwen2_5_omni", "qwen2_5_omni_thinker", "qwen3_omni_moe", "qwen3_omni_moe_thinker", "qwen3_asr"):
        yield "a.position_embd", (1500, next((t.shape[-1] for t in tensors if t.role == "a.ln1"), 0))
    if family.startswith("minicpm") and family != "minicpmv4_6":
        yield "mm.position_embd_k", (70 * 70, width)
    if family == "gemma4":
        yield from _limits(tensors, vision, sound)
    if vision.flag("standardize"):
        yield from ((role, next(t.shape[-1:] for t in tensors if t.role == "v.ln1")) for role in ("v.std_bias", "v.std_scale"))


def _limits(tensors: tuple[Tensor, ...], vision: Config, sound: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Gemma 4's clamped layers: the least and most that goes in and comes out."""
    limited = (("v.attn", "v.ffn") if vision.flag("use_clipped_linears") else ()) + (
        _GEMMA_LIMITED if sound.flag("use_clipped_linears", default=True) else ()
    )
    for t in tensors:
        if t.layer is not None and len(t.shape) > 1 and t.role.startswith(limited) and not t.role.endswith(("_norm", "_ln")):
            yield f"{t.role}.limits", (4,)
