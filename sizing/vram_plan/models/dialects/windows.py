"""Which layers see a window only, told from a config as transformers tells it (cache_utils.py, each family's configuration)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ...errors import FormatError
from ...values import dataclass
from ..architecture import CacheLayer
from .blocks import Shape
from .config import Config

__all__ = ["NO_WINDOWS", "Windows", "grouped_cache", "layer_kinds", "sliding_window"]

#: Of a config without `layer_types`: whether layer i slides.
Rule = Callable[[Config, int], bool]


def _every_layer(c: Config, layer: int) -> bool:
    return True


def _after_full_ones(c: Config, layer: int) -> bool:
    """Qwen: the first `max_window_layers` see everything, and a window is off until `use_sliding_window` says so."""
    return c.flag("use_sliding_window") and layer >= c.integer("max_window_layers", default=28, low=0)


def _without_rope(c: Config, layer: int) -> bool:
    """SmolLM3: the layers without rotary positions slide, where `use_sliding_window` says so."""
    ropes = c.items("no_rope_layers")
    rope = ropes[layer] if ropes and layer < len(ropes) else (layer + 1) % c.integer("no_rope_layer_interval", default=4) != 0
    return c.flag("use_sliding_window") and not rope


@dataclass(frozen=True)
class Windows:
    """A family's rule: the class default of `sliding_window`, and which layers slide when no `layer_types` says it.

    `full_every` n > 0: every n-th layer is full (counted from the first when `full_first`), unless the family is
    `named` and `sliding_window_pattern` names another n or spells the order as in `LLLG`.
    """

    size: int = 0
    full_every: int = 0
    full_first: bool = False
    named: bool = False
    rule: Literal["all", "late", "nope"] = "all"

    def window(self, c: Config) -> int:
        """The size of the window, 0 where there is none or the config turns it off."""
        if self.rule == "late" and not c.flag("use_sliding_window"):
            return 0
        return sliding_window(c, self.size)

    def slides(self, c: Config, layer: int) -> bool:
        pattern = c.get("sliding_window_pattern") if self.named else None
        if isinstance(pattern, str) and pattern:
            return pattern[layer % len(pattern)].upper() == "L"
        if self.full_every:
            every = c.integer("sliding_window_pattern", default=self.full_every) if self.named else self.full_every
            return layer % every != 0 if self.full_first else (layer + 1) % every != 0
        return _RULES[self.rule](c, layer)


#: No window unless the config names one.
NO_WINDOWS = Windows()
_RULES: dict[str, Rule] = {"all": _every_layer, "late": _after_full_ones, "nope": _without_rope}


def sliding_window(c: Config, default: int = 0, key: str = "sliding_window") -> int:
    """The window's size; 0 for none. An absent key means the class default, an explicit null means no window."""
    if key not in c.raw:
        c.get(key)
        return default
    return c.integer(key, default=0, low=0, high=1 << 40)


def layer_kinds(c: Config, layers: int, windows: Windows) -> list[str]:
    """Each layer's kind as `layer_types` names it (`full_attention`, `sliding_attention` …)."""
    listed = c.items("layer_types")
    if listed:
        if len(listed) < layers or not all(isinstance(kind, str) for kind in listed):
            raise FormatError(f"{c.where}: layer_types lists {len(listed)} kinds for {layers} layers")
        return listed[:layers]
    window = windows.window(c)
    return ["sliding_attention" if window and windows.slides(c, i) else "full_attention" for i in range(layers)]


def grouped_cache(c: Config, s: Shape, windows: Windows) -> list[CacheLayer]:
    """Grouped-query attention's cache for every layer."""
    window, chunk = windows.window(c), c.optional("attention_chunk_size") or 0
    found = []
    for layer, kind in enumerate(layer_kinds(c, s.layers, windows)):
        size = {"sliding_attention": window, "chunked_attention": chunk}.get(kind, 0)
        name: Literal["full", "sliding", "chunked"] = "full" if not size else "chunked" if kind.startswith("chunked") else "sliding"
        found.append(CacheLayer(layer, name, s.heads, s.kv_heads, s.head_dim, s.head_dim, size))
    return found
