"""A tower as its graph needs it: the shapes of its weights, its numbers, and the image it is warmed up with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import isqrt, prod
from typing import Any, Final

from ....models.architecture import Tensor
from ....models.dialects.config import Config
from ....models.model import Model
from .graph import Graph, Value

__all__ = ["Tower", "section"]

#: Families whose converter cuts a fused query, key and value into three (conversion/qwenvl.py, internvl.py, kimivl.py).
SPLIT: Final = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen2_5_omni_thinker", "internvl_chat", "kimi_vl"})
#: Families with three in this inventory whose checkpoint and file have one.
JOINED: Final = frozenset({"kimi_k25", "unlimited_ocr"})


def section(model: Model, key: str) -> Config:
    """A tower's part of the config, `key` as `vision_config`; empty where there is none."""
    raw: Any = model.config or {}
    inner = raw.get("thinker_config") if isinstance(raw, Mapping) else None
    found = (inner if isinstance(inner, Mapping) else raw).get(key)
    return Config(found if isinstance(found, Mapping) else {}, key)


class Tower:
    """One vision or audio tower. `width` is of its layers, `side` the patches along a side of the warm-up image."""

    def __init__(self, model: Model, tensors: tuple[Tensor, ...], prefix: str, config: Config) -> None:
        self.model, self.family, self.prefix, self.config = model, model.architecture.family, prefix, config
        self.tensors = tensors
        self.shapes = {t.role: t.shape for t in reversed(tensors) if t.layer in (None, 0)}
        self.layers = len({t.layer for t in tensors if t.layer is not None and t.role in (f"{prefix}.ln1", f"{prefix}.attn_q")})
        self.width = self.columns(f"{prefix}.ln1") or self.rows(f"{prefix}.patch_embd") or self.rows(f"{prefix}.conv1") or 1
        self.side = 0
        self.graph = Graph(self.head)

    def columns(self, role: str) -> int:
        """The length of a row of a weight, 0 where there is none."""
        return self.shapes.get(role, (0,))[-1]

    def rows(self, role: str) -> int:
        return self.shapes.get(role, (0,))[0]

    def has(self, role: str) -> bool:
        return f"{self.prefix}.{role}" in self.shapes

    @cached_property
    def heads(self) -> int:
        """As the config says, else heads of 64."""
        default = max(self.width // 64, 1)
        keys = ("num_attention_heads", "num_heads", "vt_num_attention_heads", "heads", "encoder_attention_heads", "vt_num_heads")
        return self.config.integer(*keys, default=default, high=65536)

    @property
    def attended(self) -> int:
        """The width of a query."""
        return self.columns(f"{self.prefix}.attn_out") or self.width

    @property
    def head(self) -> int:
        return self.attended // self.heads

    @property
    def kept(self) -> int:
        """The width of a key."""
        return self.rows(f"{self.prefix}.attn_k") or (self.rows(f"{self.prefix}.attn_qkv") - self.attended) // 2

    @property
    def fused(self) -> bool:
        """Whether query, key and value are one matrix in the file."""
        return self.family in JOINED or (self.has("attn_qkv") and self.family not in SPLIT)

    @cached_property
    def clamped(self) -> bool:
        """Gemma 4 may clamp what a projection is given."""
        return self.config.flag("use_clipped_linears")

    @property
    def norms_values(self) -> bool:
        return self.family == "gemma4"

    @cached_property
    def _whole(self) -> frozenset[int] | None:
        """The layers that see the whole image, where the others see a window; None where all do."""
        listed = self.config.integers("fullatt_block_indexes")
        return None if listed is None else frozenset(listed)

    def windowed(self, layer: int) -> bool:
        if self.prefix == "v.lm":
            return True
        if self.family.startswith("muse_"):
            return layer % 4 != 3 and layer != self.layers - 1
        return self._whole is not None and layer not in self._whole

    @property
    def patches(self) -> int:
        return self.side**2

    @cached_property
    def frames(self) -> int:
        """Frames a patch spans: 2 where the kernel reads a pair."""
        return 1 if isqrt(self.patch_inputs) ** 2 == self.patch_inputs else 2

    @cached_property
    def patch_inputs(self) -> int:
        """Pixels of a patch, of all its frames."""
        return prod(self.shapes.get("v.patch_embd", self.shapes.get("mm.patch", (0, 0)))[1:]) // 3

    @cached_property
    def patch(self) -> int:
        return max(isqrt(self.patch_inputs // self.frames), 1)

    @property
    def pixels(self) -> int:
        """The image's side: as the config has it where that is this many whole patches and a rest."""
        asked = self.config.integers("image_size") or [self.config.integer("image_size", default=0, low=0)]
        return asked[0] if asked[0] // self.patch == self.side else self.side * self.patch

    def merged(self, default: int = 2) -> int:
        """Patches merged along a side."""
        return self.config.integer("spatial_merge_size", default=default, high=64)

    def model_number(self, key: str, default: int) -> int:
        """A number of the outer config."""
        return Config(self.model.config or {}).integer(key, default=default, high=1 << 20)

    @property
    def kernel(self) -> int:
        """Patches merged along a side by Kimi's tower."""
        return (self.config.integers("merge_kernel_size", low=1, high=64) or [2])[0]

    @property
    def pool(self) -> int:
        return self.config.integer("pooling_kernel_size", default=3, high=64)

    @cached_property
    def deep(self) -> frozenset[int]:
        """Layers whose results the language model is given too: as the config lists them, else three evenly apart."""
        if "v.deepstack.0.ln" not in self.shapes:
            return frozenset()
        listed = self.config.integers("deepstack_visual_indexes") or [self.layers * i // 4 - 1 for i in (1, 2, 3)]
        return frozenset(i for i in listed if i < self.layers)

    @property
    def out(self) -> int:
        """The language model's width."""
        return self.model.architecture.hidden_size

    def image(self) -> Value:
        return self.graph.input(3 * self.pixels, self.pixels)

    def embed(self, raw: Value) -> Value:
        """`build_inp`: patches through the kernel, token by token."""
        g, inputs = self.graph, 3 * self.patch**2
        made = [g.convolve(raw, self.width, inputs, self.patches) for _ in range(self.frames)]
        return g.copy(made[0]) if len(made) == 1 else g.over(*made)
