"""A model's layers as llama.cpp's graph sees them, and what its model code does differently from family to family.

Which operations a layer has is read off its weights and cache, as they are what llama.cpp's model code branches on;
where the order of operations differs by family, the families are listed here. Source: llama.cpp 0c1e57098, src/models/*.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Final

from ...models.architecture import Architecture, CacheLayer
from ...values import dataclass
from . import families
from .cells import cache_layers

__all__ = ["Layer", "global_shapes", "layers_of", "rotation", "shortened"]

#: Layers (or periods) of a kind that are laid out, if there are more of them.
_RUN: Final = 4


@dataclass(frozen=True)
class Layer:
    """One layer as the graph sees it: role → shape of its weights, and what it caches."""

    weights: tuple[tuple[str, tuple[int, ...]], ...]
    cache: CacheLayer | None
    state: CacheLayer | None
    experts_per_token: int = 0
    turned: bool = True
    deep: bool = False
    parallel: bool = False
    #: The device its weights are on, that of its routed experts, and that of the cache it reads; -1 is host memory.
    home: int = 0
    experts_home: int = 0
    cache_home: int = 0
    #: Of its weights in host memory, bytes of each on a GPU.
    away: tuple[tuple[str, int], ...] = ()

    @cached_property
    def visiting(self) -> Mapping[str, int]:
        return dict(self.away)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return dict(self.weights)

    def rows(self, *roles: str) -> int:
        """Output width of the first of these weights the layer has; 0 if none."""
        return next((self.shapes[role][-2] for role in roles if len(self.shapes.get(role, ())) > 1), 0)

    @property
    def has_feed_forward(self) -> bool:
        return "ffn_down" in self.shapes or "ffn_down_exps" in self.shapes

    @property
    def norms_input(self) -> bool:
        """OLMo 2's kind norms what a mixer gives, not what it gets."""
        return "attn_norm" in self.shapes or "post_ffw_norm" not in self.shapes

    @property
    def norms_feed_forward(self) -> bool:
        return "ffn_norm" in self.shapes or "post_ffw_norm" not in self.shapes

    @cached_property
    def is_parallel(self) -> bool:
        """Attention and feed-forward read the same input (GPT-NeoX), mostly of one norm (Command R, Falcon, Phi-2)."""
        norms = ("ffn_norm", "post_ffw_norm", "post_attention_norm", "attn_post_norm")
        only = "attn_norm" in self.shapes and not any(role in self.shapes for role in norms)
        return self.cache is not None and self.has_feed_forward and (only or self.parallel)

    @cached_property
    def is_double(self) -> bool:
        """Attention and Mamba of one input, added up (Falcon-H1)."""
        return self.cache is not None and "ssm_in" in self.shapes

    @cached_property
    def is_delta_net(self) -> bool:
        return self.state is not None and "attn_qkv" in self.shapes and "ssm_a" in self.shapes

    @cached_property
    def reshapes_result(self) -> bool:
        """A view of the mixer's result goes on; a view is never computed over."""
        return self.is_delta_net or "shortconv.conv" in self.shapes or "ssm_x" in self.shapes

    @cached_property
    def gathers_first(self) -> bool:
        """The inputs Mamba and LFM2 kept are gathered before the norm is computed."""
        return ("ssm_in" in self.shapes or "shortconv.conv" in self.shapes) and self.cache is None

    @property
    def kernel(self) -> int:
        """Width of the layer's causal convolution."""
        return max((shape[-1] for _, shape in self.convolutions), default=1)

    @property
    def channels(self) -> int:
        return sum(shape[0] for _, shape in self.convolutions)

    @cached_property
    def convolutions(self) -> list[tuple[str, tuple[int, ...]]]:
        return [item for item in self.weights if ("conv1d" in item[0] or item[0] == "shortconv.conv") and len(item[1]) > 1]

    def columns(self, *roles: str) -> int:
        return next((self.shapes[role][-1] for role in roles if role in self.shapes), 0)


@lru_cache(maxsize=256)
def layers_of(a: Architecture) -> tuple[Layer, ...]:
    """The text model's layers, each a value equal to that of any other layer of the same shapes (mostly the same object)."""
    weights: dict[int, dict[str, tuple[int, ...]]] = {i: {} for i in range(a.layers)}
    for tensor in a.tensors:
        if tensor.part == "text" and tensor.layer is not None and tensor.layer < a.layers:
            weights[tensor.layer][tensor.role] = tensor.shape
    caches = {layer.layer: layer.anywhere for layer in cache_layers(a) if layer.kv_heads and layer.kind != "cross"}
    for layer in a.cache_layers:
        if layer.kind == "shared" and layer.source in caches:
            caches[layer.layer] = caches[layer.source]._replace(kind="shared")
    states = {layer.layer: layer.anywhere for layer in a.cache_layers if layer.conv_elements or layer.state_elements}
    deep = families.DEEPSTACK.get(a.family, 0)
    made: dict[tuple[object, ...], Layer] = {}

    def at(i: int) -> Layer:
        shapes, cache, state, turned = tuple(weights[i].items()), caches.get(i), states.get(i), is_rotary(a, i, caches.get(i), states)
        key = shapes, cache, state, turned, i < deep
        if key not in made:
            made[key] = Layer(tuple(sorted(shapes)), cache, state, a.experts_per_token, turned, i < deep, a.parallel_residual)
        return made[key]

    return tuple(map(at, range(a.layers)))


@lru_cache(maxsize=256)
def global_shapes(a: Architecture) -> Mapping[str, tuple[int, ...]]:
    """Role → shape of the text model's weights outside its layers."""
    return {t.role: t.shape for t in a.tensors if t.part == "text" and t.layer is None}


def shortened(layers: tuple[Layer, ...], *, alone: bool = False) -> tuple[Layer, ...]:
    """A model with the same peak and fewer layers: of runs of equal ones some are left out, an even number, because nodes
    swap places from one layer to the next. Left whole are models with an index, with a cache elsewhere, or of states only.
    `alone`: all on one GPU, where two layers (or periods) show what more would, but of mixtures without states."""
    kinds = {id(layer): layer for layer in layers}.values()
    if any("indexer.attn_k" in layer.shapes or layer.cache_home not in (-1, layer.home) for layer in kinds):
        return layers
    if not alone and not any(layer.cache for layer in kinds):
        return layers
    routed = any("ffn_down_exps" in layer.shapes for layer in kinds)
    few = 2 if alone and (not routed or any(layer.state for layer in kinds)) else _RUN
    kept: list[Layer] = []
    for layer, run in groupby(layers):
        count = len(list(run))
        kept += [layer] * (count if count <= few else few + (count - few) % 2)
    period = _period(tuple(kept))
    if period and len(kept) > few * period:
        extra = (len(kept) - few * period) // (2 * period) * 2 * period
        del kept[:extra]
    return tuple(kept)


def _period(layers: tuple[Layer, ...]) -> int:
    """After how many layers the pattern repeats (Gemma 3: 6); 0 where it does not."""
    return next((n for n in range(2, min(len(layers) // 2, 16)) if layers[n:] == layers[:-n]), 0)


def rotation(width: int, kind: str) -> int:
    """Rows of the matrix K or V of this head width is turned by before it is quantised (`build_input_k_rot`); 0 if none."""
    if kind in ("f32", "f16", "bf16") or not width or width % 64:
        return 0
    return width & -width


def is_rotary(a: Architecture, layer: int, cache: CacheLayer | None, states: Mapping[int, CacheLayer]) -> bool:
    """Whether a layer's queries and keys are turned by their position before they are used."""
    if a.family == "baichuan" and a.layers == 40:  # the 13B: ALiBi
        return False
    if a.family in families.NO_ROTARY or (a.family in families.NO_ROTARY_HYBRIDS and states):
        return False
    if a.family in families.ROTARY_IN_WINDOWS and any(other.window for other in cache_layers(a)):
        return cache is not None and cache.window > 0
    return not (a.family in families.ROTARY_BUT_FOURTH and layer % 4 == 3)
