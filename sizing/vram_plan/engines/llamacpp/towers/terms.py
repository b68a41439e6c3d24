"""A vision or audio tower's file (mmproj) and the buffers its graphs take, reserved when llama.cpp's server starts.

One image and one recording of the size llama.cpp warms up with go through the towers; larger ones make the buffer grow. Source:
llama.cpp 0c1e57098, tools/mtmd/clip.cpp (`warmup`, `load_hparams`), tools/mtmd/models/*.cpp, conversion/__init__.py (`MMPROJ_MODEL_MAP`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from ....models.architecture import Basis
from ....models.model import Model
from ....results import Term
from ....units import MIB
from . import conformers, merging, reading  # noqa: F401  (their families join those of audio and images)
from .audio import AUDIO
from .file import file_bytes, tower_tensors
from .images import IMAGES
from .tower import Tower, section

__all__ = ["reads_towers", "tower_inputs", "tower_note", "tower_terms"]

#: Families llama.cpp has a graph for that is not laid out here.
_UNKNOWN: Final = frozenset({"dots3_note", "granite4_vision"})
#: What their buffer is taken to be: that of Qwen3.6-27B's projector, as llama.cpp logged it.
_GUESS: Final = 248 * MIB
#: Families whose DeepStack widens an image's tokens, and which hear too.
_MISMATCHED: Final = frozenset({"qwen3_omni_moe", "qwen3_omni_moe_thinker"})
#: Families whose graph is laid out from the source alone: no file of theirs was at hand to hold it to the engine.
_UNCHECKED: Final = frozenset({"qwen4_exp", "granite_speech_plus"})


#: What llama.cpp logs for MobileNetV5 300M, the tower of every Gemma 3n: 556.90 MiB.
_MOBILENET: Final = 583_953_408


class _Buffer(NamedTuple):
    bytes: int
    given: int
    tokens: int
    side: int = 0
    most: int = 0


def reads_towers(model: Model) -> bool:
    """Whether llama.cpp reads this family's images or sound at all."""
    return model.architecture.family in (*IMAGES, *AUDIO, *_UNKNOWN, "gemma3n")


def tower_note(model: Model) -> str:
    """What keeps a server from starting with this model's towers; empty where nothing does."""
    if model.architecture.family not in _MISMATCHED:
        return ""
    return (
        "llama.cpp of 2026-10 refuses a file with both towers of this model: an image's tokens are wider than sound's (tools/mtmd/mtmd.cpp)"
    )


@lru_cache(maxsize=256)
def tower_terms(model: Model, kind: str = "F16") -> tuple[Term, ...]:
    """The file of the towers and projector, its matrices as `kind` (of `file.KINDS`), and their buffers; nothing where there is none."""
    tensors = tower_tensors(model) if reads_towers(model) else ()
    if not tensors:
        return ()
    family = model.architecture.family
    what = f"vision or audio tower and projector, a file of their own in {kind}"
    file = Term("mmproj", file_bytes(model, kind), "formula", what, "weights")
    if family in _UNKNOWN:
        why = "activations of the tower, as logged for Qwen3.6-27B at 1472²"
        return file, Term("mmproj_compute", _GUESS, "fallback", why, "compute")
    if family == "gemma3n":
        why = "one image of 768 × 768 pixels through the tower, 256 tokens, the most one gets"
        return file, Term("mmproj_compute", _MOBILENET, "measured", why, "compute")
    image, sound = _image(model), _sound(model)
    size = sum(buffer.bytes for buffer in (image, sound) if buffer)
    basis: Basis = "fallback" if family in _UNCHECKED else "formula"
    return file, Term("mmproj_compute", size, basis, _why(image, sound), "compute")


def tower_inputs(model: Model) -> int:
    """Bytes of what the towers are given, in host memory: pixels, samples, positions and masks."""
    if model.architecture.family == "gemma3n":
        return 12 * 768**2
    return sum(buffer.given for buffer in (_image(model), _sound(model)) if buffer)


def _why(image: _Buffer | None, sound: _Buffer | None) -> str:
    if image is None:
        return f"30 seconds of sound through the tower, {sound.tokens if sound else 0:,} tokens; what is longer is heard in parts"
    pixels, tokens = f"{image.side} × {image.side}", f"{image.tokens:,}"
    if sound is not None:
        return f"one image of {pixels} pixels, {tokens} tokens, and 30 seconds of sound, {sound.tokens:,}, through the towers"
    if image.tokens == image.most:
        return f"one image of {pixels} pixels through the tower, {tokens} tokens, the most one gets"
    if image.most:
        return f"one image of {pixels} pixels through the tower, {tokens} tokens; a larger one, of {image.most:,} at most, takes more"
    return f"one image of {pixels} pixels through the tower, {tokens} tokens; a larger one takes more"


@lru_cache(maxsize=256)
def _image(model: Model) -> _Buffer | None:
    """The buffer of the image llama.cpp warms up with; it keeps a context for images and one for sound."""
    family, tensors = model.architecture.family, tower_tensors(model)
    if family not in IMAGES or not any(t.role.startswith(("v.patch_embd", "mm.patch", "v.sam")) for t in tensors):
        return None
    t, image = Tower(model, tensors, "v", section(model, "vision_config")), IMAGES[family]
    t.side = image.side(t)
    tokens = image.build(t).rows
    return _Buffer(t.graph.peak(), t.graph.given, tokens, t.pixels, image.most)


@lru_cache(maxsize=256)
def _sound(model: Model) -> _Buffer | None:
    family, tensors = model.architecture.family, tower_tensors(model)
    if family not in AUDIO or not any(t.role.startswith(("a.", "mm.a.")) or t.part == "audio" for t in tensors):
        return None
    t = Tower(model, tensors, "a", section(model, "encoder_config" if family.startswith("granite_speech") else "audio_config"))
    tokens = AUDIO[family](t).rows
    return _Buffer(t.graph.peak(), t.graph.given, tokens)
