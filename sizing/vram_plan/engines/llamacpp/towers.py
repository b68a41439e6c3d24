"""A vision tower's file (mmproj) and the buffer its graph takes, reserved when llama.cpp's server starts.

One image of the size llama.cpp warms up with goes through the tower; a larger one makes the buffer grow. Source: llama.cpp
0c1e57098, tools/mtmd/clip.cpp (`build_vit`, `build_attn`, `build_ffn`, `warmup`), tools/mtmd/models/*.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isqrt, prod
from typing import Final

from ...formats.storage import storage_bytes
from ...models.model import Model
from ...results import Term
from ...units import MIB
from .tape import Tape

__all__ = ["tower_terms"]

#: Patches along a side of the image towers of any size are warmed up with: tokens along it × patches merged into one
#: (`set_warmup_n_tokens`). Other towers take one size, which their position embeddings have.
_SIDES: Final = {
    **dict.fromkeys((
        "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen3_omni_moe", "glm4v", "glm4v_moe", "glm_ocr",
    ), 46 * 2),
    **dict.fromkeys(("gemma4", "gemma4_unified"), 16 * 3),
    **dict.fromkeys(("mistral3", "pixtral", "ministral3"), 16 * 2),
}  # fmt: skip
#: Families whose buffer was held to what llama.cpp reserves; others share its code for towers (`build_vit`).
_CHECKED: Final = frozenset({
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe", "gemma3", "gemma4", "llava",
    "mistral3",
})  # fmt: skip
#: CLIP's towers, projected patch by patch by two matrices (`clip_graph_llava`).
_PLAIN: Final = frozenset({"llava"})
#: Families whose towers read through windows in most layers: the mask, a number for each two patches, is an input.
_WINDOWED: Final = frozenset({"qwen2_5_vl"})
#: Where nothing is known of a tower's graph: the buffer of Qwen3.6-27B's projector, as llama.cpp logged it.
_UNKNOWN: Final = 248 * MIB


@lru_cache(maxsize=256)
def tower_terms(model: Model) -> tuple[Term, ...]:
    """The file of the towers and projector in 16 bits, and its buffer; nothing where the model has none."""
    parts = [t for t in model.architecture.tensors if t.part in ("vision", "audio", "projector")]
    size = sum(storage_bytes("F32" if len(t.shape) < 2 or t.role == "v.position_embd" else "F16", t.shape) for t in parts)
    if not size:
        return ()
    tower = _Tower(model)
    file = Term("mmproj", size, "formula", "vision or audio tower and projector, a file of their own in 16 bits", "weights")
    if not tower.side:
        why = "activations of the tower, as logged for Qwen3.6-27B at 1472²"
        return file, Term("mmproj_compute", _UNKNOWN, "fallback", why, "compute")
    why = f"one image of {tower.pixels} × {tower.pixels} pixels through the tower, {tower.patches:,} patches; a larger one takes more"
    return file, Term("mmproj_compute", tower.peak(), "formula" if tower.family in _CHECKED else "fallback", why, "compute")


def _deep_layers(model: Model, layers: int) -> tuple[int, ...]:
    """Layers whose results the language model is given too: as the config lists them, else three evenly apart."""
    vision = (model.config or {}).get("vision_config")
    listed = vision.get("deepstack_visual_indexes") if isinstance(vision, Mapping) else None
    if isinstance(listed, (list, tuple)) and len(listed) == 3 and all(isinstance(i, int) and 0 <= i < layers for i in listed):
        return tuple(listed)
    return tuple(layers * i // 4 - 1 for i in (1, 2, 3))


class _Tower:
    """A vision transformer's graph on a tape. Widths are in elements, sizes in bytes; nodes are fp32."""

    def __init__(self, model: Model) -> None:
        a = model.architecture
        self.family, self.tape = a.family, Tape()
        parts = [t for t in a.tensors if t.part in ("vision", "projector")]
        self.shapes = {t.role: t.shape for t in parts if t.layer in (None, 0)}
        self.layers = len({t.layer for t in parts if t.layer is not None})
        self.width = self.columns("v.ln1")
        table = self.shapes.get("v.position_embd", (0,))[0]
        known = self.width and self.layers and "v.ffn_up" in self.shapes and "v.patch_embd" in self.shapes
        self.side = (_SIDES.get(self.family) or isqrt(table)) if known else 0
        self.patches = self.side**2 + ("v.class_embd" in self.shapes)
        inputs = prod(self.shapes.get("v.patch_embd", (0, 0))[1:]) // 3
        self.frames = 1 if isqrt(inputs) ** 2 == inputs else 2
        self.patch = isqrt(inputs // self.frames)
        self.pixels = self.side * self.patch
        self.deep = _deep_layers(model, self.layers) if "v.deepstack.0.ln" in self.shapes else ()

    def columns(self, role: str) -> int:
        return self.shapes.get(role, (0,))[-1]

    def fp32(self, width: int, *reads: int, over: tuple[int, ...] = ()) -> int:
        return self.tape.add(4 * width * self.patches, *reads, over=over)

    def peak(self) -> int:
        """Bytes of the buffer."""
        raw = self.tape.add(12 * self.pixels**2)
        self.places = self.tape.add(16 * self.patches) if self.turns else -1
        self.mask = self.tape.add(4 * self.patches**2) if self.family in _WINDOWED else -1
        self.picks = [self.tape.add(4 * self.patches) for _ in range(2)] if self.family in _PLAIN else []
        hidden = self.embedded(raw)
        kept = []
        for layer in range(self.layers - (self.family in _PLAIN)):  # LLaVA takes what the last layer but one gives
            hidden = self.layer(hidden)
            if layer in self.deep:
                kept.append(hidden)
        self.projected(hidden, kept)
        return self.tape.peak()

    def embedded(self, raw: int) -> int:
        """Patches laid out in fp16, multiplied with the kernel, and turned token by token."""
        made = []
        for _ in range(self.frames):
            rows = self.tape.add(6 * self.patch**2 * self.patches, raw)
            made.append(self.fp32(self.width, self.fp32(self.width, rows)))
        hidden = self.fp32(self.width, *made)
        hidden = self.fp32(self.width, hidden) if self.frames > 1 else hidden
        return self.placed(hidden)

    def placed(self, hidden: int) -> int:
        """Positions learned for a table of another size are stretched to this image's first; a table that fits is a weight."""
        if self.family.startswith("gemma4"):  # a row and a column of the table each
            for _ in range(2):
                hidden = self.fp32(self.width, hidden, self.fp32(self.width), over=(hidden,))
        elif self.family in _PLAIN:  # the class in front, a position each, and a norm
            hidden = self.fp32(self.width, hidden)
            hidden = self.fp32(self.width, self.fp32(self.width, hidden, self.fp32(self.width, self.picks[0]), over=(hidden,)))
        elif self.frames > 1 and "v.position_embd" in self.shapes:
            stretched = self.fp32(self.width)
            for _ in range(3):
                stretched = self.fp32(self.width, stretched)
            hidden = self.fp32(self.width, hidden, stretched, over=(hidden,))
        return hidden

    def layer(self, hidden: int) -> int:
        normed, turned = self.fp32(self.width, hidden), self.turns
        if "v.attn_qkv" in self.shapes and self.family not in ("qwen2_vl", "qwen2_5_vl"):  # whose files have it in three
            q = k = v = self.fp32(3 * self.width, normed)
            q, k = (self.fp32(self.width, node, self.places) if turned else node for node in (q, k))
        else:
            q, k = (self.turned(self.fp32(self.width, normed), turned) for _ in "qk")
            v = self.fp32(self.width, normed)
            if "v.attn_q_norm" in self.shapes:
                q, k, v = (self.fp32(self.width, node) for node in (q, k, v))
        k, v = (self.tape.add(2 * self.width * self.patches, node) for node in (k, v))
        mixed = self.fp32(self.width, q, k, v, *((self.mask,) if self.mask >= 0 else ()))
        mixed = self.fp32(self.width, mixed)
        if self.clamped:
            mixed = self.fp32(self.width, mixed)
        hidden = self.fp32(self.width, mixed, hidden, over=(mixed, hidden))
        normed = self.fp32(self.width, hidden)
        up = self.columns("v.ffn_down")
        made = []
        for role in ("v.ffn_gate", "v.ffn_up"):
            if role in self.shapes:
                last = role == "v.ffn_up"
                entered = self.fp32(self.width, normed, over=(normed,) if last else ()) if self.clamped else normed
                made.append(self.fp32(up, entered))
        acted = self.fp32(up, *made, over=() if len(made) > 1 else tuple(made))
        out = self.fp32(self.width, acted)
        return self.fp32(self.width, hidden, out, over=(hidden, out))

    @property
    def clamped(self) -> bool:
        """Gemma 4 clamps what a projection is given."""
        return self.family.startswith("gemma4")

    @property
    def turns(self) -> bool:
        """Whether queries and keys are turned by their place."""
        return self.frames > 1 or "v.position_embd" not in self.shapes or self.family.startswith(("gemma4", "llama4"))

    def turned(self, node: int, turned: bool) -> int:
        return self.fp32(self.width, node, self.places) if turned else node

    def projected(self, hidden: int, kept: list[int]) -> None:
        """What the language model is given: patches merged and projected, and what deeper layers add beside it."""
        if self.family in _PLAIN:
            node = self.fp32(self.width, self.fp32(self.width, hidden), self.picks[1])
            for role in ("mm.0", "mm.2"):
                node = self.fp32(self.shapes.get(role, (self.width,))[0], node)
            return
        out = self.merged(self.fp32(self.width, hidden))
        beside = [self.merged(self.fp32(self.width, node)) for node in kept[:2]]
        joined = beside[0] if beside else -1
        width = self.shapes.get("mm.2", (self.width,))[0] * self.patches  # of 4 patches' merged rows
        for count, node in enumerate((*beside[1:], *(-1 for _ in kept[2:])), start=2):
            other = node if node >= 0 else self.merged(self.fp32(self.width, kept[count - 1]))
            joined = self.tape.add(count * width, joined, other)
        if kept:
            self.tape.add((len(kept) + 1) * width, out, joined)

    def merged(self, normed: int) -> int:
        inner, out = self.fp32(self.width, normed), self.shapes.get("mm.2", (self.width,))[0]
        return self.tape.add(out * self.patches, inner)
