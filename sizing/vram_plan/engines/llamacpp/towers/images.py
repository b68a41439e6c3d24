"""Vision towers: each family's graph from image to what the language model is given, as tools/mtmd/models/*.cpp builds it.

Each function returns the image's tokens. Source: llama.cpp 0c1e57098; the image warmed up with from tools/mtmd/clip.cpp
(`load_hparams`: `set_warmup_n_tokens`, else the size the positions were learned for).
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt, prod
from typing import Final, NamedTuple

from .graph import Mask, Value
from .layers import transformer
from .tower import Tower

__all__ = ["IMAGES", "learned", "merging", "places", "projector"]

Build = Callable[[Tower], Value]
Side = Callable[[Tower], int]


class Image(NamedTuple):
    """How a family's image becomes tokens: the patches along a side of the one warmed up with, the graph, the most tokens an image gets
    where llama.cpp sets a limit (0: it sets none, or cuts large images into several)."""

    side: Side
    build: Build
    most: int


IMAGES: Final[dict[str, Image]] = {}


def projector(side: Side, *families: str, most: int = 0) -> Callable[[Build], Build]:
    """Mark a graph as that of these families."""

    def mark(build: Build) -> Build:
        IMAGES.update(dict.fromkeys(families, Image(side, build, most)))
        return build

    return mark


def merging(tokens: int, default: int = 2) -> Side:
    """`tokens` along a side, each of as many patches as the config merges."""
    return lambda t: tokens * t.merged(default)


def learned(t: Tower) -> int:
    """The side whose positions were learned."""
    return isqrt(prod(t.shapes.get("v.position_embd", (0,))[:-1]))


def stretched(t: Tower) -> Value | None:
    """The learned positions for this image's side; None where they are read as they are."""
    if learned(t) == t.side:
        return None
    return t.graph.copy(t.graph.new(t.width, t.patches))


def placed(t: Tower, x: Value, table: Value | None) -> Value:
    return t.graph.over(x, table) if table else x


def places(t: Tower, *rows: int) -> tuple[Value, ...]:
    return tuple(t.graph.input(count) for count in rows)


@projector(learned, "gemma3")
def gemma3(t: Tower) -> Value:
    """The projection's weight is turned first, in 16 bits."""
    g = t.graph
    factor = max(t.side // isqrt(t.model_number("mm_tokens_per_image", 256)), 1)
    x = transformer(t, t.embed(t.image()))
    turned = g.new(t.out, t.width, element=2)
    rows = t.patches // factor**2
    pooled = g.copy(g.new(t.width, rows, g.copy(x)))
    return g.new(t.out, rows, turned, g.over(pooled))


@projector(learned, "idefics3", "smolvlm")
def idefics3(t: Tower) -> Value:
    x = transformer(t, t.embed(t.image()))
    return t.graph.matmul(t.graph.merge(x, t.model_number("scale_factor", 2), t.side), t.out)


@projector(merging(16), "lfm2_vl", most=256)
def lfm2(t: Tower) -> Value:
    """256 tokens are the most an image gets, and what it is warmed up with."""
    g, raw = t.graph, t.image()
    x = transformer(t, placed(t, t.embed(raw), stretched(t)))
    x = g.merge(x, t.model_number("downsample_factor", 2), t.side)
    return g.feed(g.norm(x) if "mm.ln" in t.shapes else x, t.rows("mm.0"), t.out)


@projector(learned, "janus")
def janus(t: Tower) -> Value:
    return t.graph.feed(transformer(t, t.embed(t.image())), t.rows("mm.0"), t.rows("mm.2"))


def classed(t: Tower) -> int:
    """The side whose positions were learned beside a class token's."""
    return isqrt(max(t.rows("v.position_embd") - 1, 0))


@projector(classed, "internvl", "internvl_chat")
def internvl(t: Tower) -> Value:
    """The class token comes behind the patches and goes again; the 6 B tower has RMS norms."""
    g, x = t.graph, t.embed(t.image())
    x = g.new(t.width, t.patches + 1, x, g.new(t.width, 1))
    x = transformer(t, x, rms=t.width == 3200 and t.layers == 45)
    x = g.copy(x.view(t.width, t.patches))
    factor = isqrt(t.columns("mm.0") // t.width)
    for _ in range(2):
        x = g.copy(x, t.columns("mm.0"), t.patches // factor**2)
    return g.feed(g.norm(x), t.rows("mm.0"), t.out)


@projector(classed, "llama4")
def llama4(t: Tower) -> Value:
    """Pixel shuffle by half, two layers, a projection; patches are laid out in 32 bits."""
    g, raw = t.graph, t.image()
    x = g.matmul(g.new(3 * t.patch**2, t.patches, raw), t.width)
    x = g.new(t.width, t.patches + 1, x)
    x = transformer(t, x, places=places(t, t.patches + 1, t.patches + 1)).view(t.width, t.patches)
    width = t.columns("v.adapter.up")
    factor = isqrt(width // t.width)
    for _ in range(2):
        x = g.copy(x, width, t.patches // factor**2)
    for role in ("v.adapter.up", "v.adapter.down", "mm.0"):
        x = g.matmul(x, t.rows(role))
    return x


def _neighbours(t: Tower) -> int:
    """Patches merged along a side: 1 in the first Pixtral."""
    return t.model_number("spatial_merge_size", 2) if "mm.patch_merger" in t.shapes else 1


@projector(lambda t: 16 * _neighbours(t), "mistral3", "lighton_ocr", most=1024)
def pixtral(t: Tower) -> Value:
    """Rotary positions of row and column; a break after each row of patches."""
    g, raw = t.graph, t.image()
    x = transformer(t, t.embed(raw), rms=True, places=places(t, t.patches, t.patches))
    factor = _neighbours(t)
    rows, side = t.patches // factor**2, t.side // factor
    breaks = None if t.family == "lighton_ocr" else g.leaf(t.out, side)
    if "mm.patch_merger" in t.shapes:
        x = g.copy(g.over(x))
        g.away(8 * t.width * t.patches)
        x = g.matmul(g.new(t.columns("mm.patch_merger"), rows, x), t.width)
    x = g.feed(x, t.rows("mm.0"), t.out)
    if breaks is None:
        return x
    return g.new(t.out, rows + side, x, breaks).view(t.out, rows + side - 1)


@projector(lambda t: 16 * t.kernel, "kimi_vl", most=1024)
def kimi_vl(t: Tower) -> Value:
    return _moonvit(t)


@projector(lambda t: 128, "kimi_k25", most=4096)
def kimi_k25(t: Tower) -> Value:
    """Warmed up with the largest image: 16384 patches."""
    return _moonvit(t)


def _moonvit(t: Tower) -> Value:
    g, raw = t.graph, t.image()
    x = placed(t, t.embed(raw), stretched(t))
    x = g.merge(transformer(t, x, places=places(t, t.patches, t.patches)), t.kernel, t.side)
    return g.feed(g.norm(x), t.rows("mm.0"), t.out)


@projector(lambda t: t.model_number("image_size", 448) // t.patch, "minicpmv", "minicpmo")
def minicpmv(t: Tower) -> Value:
    """SigLIP and a resampler of learned queries, with a table of positions of sines and cosines made for each image."""
    g, raw = t.graph, t.image()
    index = g.input(t.patches)
    x = transformer(t, g.over(t.embed(raw), g.pick(None, index, t.width)))
    queries = t.rows("mm.query")
    q = g.matmul(g.new(t.out, queries), t.out)
    v = g.norm(g.matmul(x, t.out))
    omega, across, down = places(t, t.out // 4, t.patches, t.patches)
    waves = g.new(t.out // 4, t.patches, omega)
    axes = []
    for axis in (across, down):
        theta = g.turn(waves, axis)
        pair = [g.new(t.out // 4, t.patches, theta) for _ in range(2)]
        axes.append(g.new(t.out // 2, t.patches, *pair))
    table = g.new(t.out, t.patches, *axes)
    k = g.matmul(g.over(table, v), t.out)
    mixed = g.matmul(g.attend(q, k, g.matmul(v, t.out), max(t.out // 128, 1)), t.out)
    return g.matmul(g.norm(mixed), t.out)


@projector(merging(28), "paddleocr_vl")
def paddleocr(t: Tower) -> Value:
    g, raw = t.graph, t.image()
    x = placed(t, t.embed(raw), stretched(t))
    x = g.norm(transformer(t, x, places=places(t, 4 * t.patches)))
    return g.feed(g.merge(x, t.merged(), t.side), t.rows("mm.0"), t.out)


@projector(merging(32), "hunyuan_vl", most=16384)
def hunyuan(t: Tower) -> Value:
    """Two convolutions, a new line after each row of tokens, a mark at both ends; positions come from the host."""
    g, raw, table, factor = t.graph, t.image(), t.graph.input(t.width, t.side**2), t.merged()
    x = g.copy(g.over(transformer(t, g.turn(t.embed(raw), table))))
    side, rows = t.side // factor, t.patches // factor**2
    width = t.rows("mm.conv_out")
    for out, inputs in ((t.rows("mm.conv"), t.width * factor**2), (width, t.rows("mm.conv"))):
        x = g.convolve(x, out, inputs, rows)
    x = g.copy(g.new(width, rows + side, x, g.new(width, side)))
    x = g.matmul(x, t.out)
    for extra in (1, 2):
        x = g.new(t.out, rows + side + extra, x)
    return x


@projector(lambda t: t.config.integer("image_size", default=728, high=8192) // t.patch, "step3p7")
def step3(t: Tower) -> Value:
    """Two strided convolutions after the layers, whose biases are added with the numbers turned."""
    g, raw = t.graph, t.image()
    x = placed(t, t.embed(raw), stretched(t))
    x = g.copy(transformer(t, x, places=places(t, t.patches, t.patches)))
    side = t.side
    for role in ("v.downsample1", "v.downsample2"):
        side = (side + 1) // 2
        x = g.convolve(x, t.rows(role), 9 * x.width, side**2)
        x = g.copy(g.copy(x))
    return g.matmul(g.copy(x), t.out)


@projector(merging(32), "muse_glimmer", most=4096)
def muse(t: Tower) -> Value:
    """Patches are grouped by window before the layers and put back behind them; three layers of four see their window."""
    g, raw = t.graph, t.image()
    x = placed(t, t.embed(raw), stretched(t))
    mask = Mask(g, t.patches, early=False)
    across, down, order, back, shuffle = places(t, *[t.patches] * 5)
    x = transformer(t, g.pick(x, order), places=(across, down), mask=mask)
    x = g.pick(g.pick(x, back), shuffle)
    x = g.copy(x, 4 * t.width, t.patches // 4)
    for role in ("mm.0", "mm.2", "mm.4"):
        x = g.matmul(x, t.rows(role))
    return x


@projector(merging(16), "minimax_m3_vl", most=576)
def minimax(t: Tower) -> Value:
    g, raw = t.graph, t.image()
    x = g.copy(g.copy(t.embed(raw)))
    x = transformer(t, x, places=places(t, t.patches, t.patches))
    x = g.feed(x, t.rows("mm.0"), t.out)
    merged = t.merged() ** 2
    return g.feed(x.view(t.out * merged, t.patches // merged), t.rows("mm.merge.0"), t.out)


def _llava_side(t: Tower) -> int:
    """Pixtral 12B is a LLaVA to transformers: its tower has no table of positions."""
    return isqrt(t.rows("v.position_embd")) or 16


@projector(_llava_side, "llava", "llava_next")
def llava(t: Tower) -> Value:
    """CLIP up to the last layer but one, its patches picked and projected by two matrices (`clip_graph_llava`)."""
    if "v.position_embd" not in t.shapes:
        return pixtral(t)
    g, x = t.graph, t.embed(t.image())
    rows = t.patches + ("v.class_embd" in t.shapes)
    x = g.new(t.width, rows, x) if rows > t.patches else x
    x = g.over(x, g.pick(None, g.input(rows), t.width))
    t.layers -= 1
    x = g.pick(transformer(t, x), g.input(t.patches))
    return g.matmul(g.matmul(x, t.rows("mm.0")), t.out)
