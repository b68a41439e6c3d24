"""Vision towers that merge neighbouring patches themselves: Qwen-VL and its kin, GLM-V, Gemma 4, MiniCPM-V 4.6 (see images.py)."""

from __future__ import annotations

from .graph import Mask, Value
from .images import learned, merging, places, projector
from .layers import block, transformer
from .tower import Tower

_QWEN2 = ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen2_5_omni_thinker")
_QWEN3 = ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen3_omni_moe", "qwen3_omni_moe_thinker", "qwen4_exp")


def _paired(t: Tower) -> Value:
    """Two frames' patches added and laid out window by window of 2 × 2."""
    return t.graph.copy(t.graph.copy(t.embed(t.image())))


def _windows(t: Tower) -> tuple[Mask | None, Value | None, Value | None]:
    if not any(t.windowed(layer) for layer in range(t.layers)):
        return None, None, None
    g = t.graph
    return Mask(g, t.patches, early=True), g.input(t.patches // 4), g.input(t.patches // 4)


@projector(merging(46), *_QWEN2, most=4096)
@projector(merging(46), "exaone4_5")
def qwen2_vl(t: Tower) -> Value:
    g, x = t.graph, _paired(t)
    mask, inward, outward = _windows(t)
    if inward:
        x = g.pick(x.view(4 * t.width, t.patches // 4), inward).view(t.width, t.patches)
    rms = t.family != "qwen2_vl"
    x = transformer(t, x, rms=rms, places=places(t, 4 * t.patches), mask=mask)
    x = g.norm(x._replace(own=True), rms)
    x = g.feed(x.view(4 * t.width, t.patches // 4), t.rows("mm.0"), t.out)
    return g.pick(x, outward) if outward else x


@projector(merging(46), *_QWEN3, most=4096)
def qwen3_vl(t: Tower) -> Value:
    """With DeepStack what some layers give is merged too, once the last layer is done, and put beside it."""
    g, x = t.graph, _paired(t)
    x = _stretched_twice(t, x)
    deep, kept = t.deep, dict[int, Value]()
    x = transformer(t, x, places=places(t, 4 * t.patches), seen=lambda layer, v: kept.update({layer: v}) if layer in deep else None)
    rows, width = t.patches // 4, t.rows("mm.2")
    x = g.feed(g.norm(x).view(4 * t.width, rows), t.rows("mm.0"), width)
    beside: Value | None = None
    for layer in sorted(kept):
        made = g.feed(g.norm(kept[layer]).view(4 * t.width, rows), t.rows("v.deepstack.0.0"), width)
        beside = g.new(beside.width + width, rows, beside, made) if beside else made
    return g.new(beside.width + width, rows, x, beside) if beside else x


def _stretched_twice(t: Tower, x: Value) -> Value:
    """The learned positions, stretched for this image, then laid out window by window."""
    g = t.graph
    table = g.new(t.width, t.patches)
    if learned(t) != t.side:
        table = g.copy(g.copy(table))
    return g.over(x, g.copy(table))


@projector(merging(46), "glm4v", "glm4v_moe", "glm_ocr", most=4096)
@projector(merging(46), "glm5_next")
def glm4v(t: Tower) -> Value:
    """A strided convolution and a gated merger behind the layers."""
    g, x = t.graph, _paired(t)
    if "v.position_embd" in t.shapes:
        x = _stretched_twice(t, x)
    x = transformer(t, x, rms=True, places=places(t, 4 * t.patches))
    out, rows = t.rows("mm.patch_merger"), t.patches // t.merged() ** 2
    x = g.convolve(g.copy(x), out, t.columns("mm.patch_merger"), rows)
    x = g.norm(g.matmul(g.over(x.view()), out))
    return g.feed(x, t.rows("mm.up"), out, gated=True)


@projector(lambda t: 16 * t.pool, "gemma4", most=1120)
def gemma4(t: Tower) -> Value:
    """Positions are a row and a column of a table; the layers' patches are pooled 3 × 3."""
    g, raw = t.graph, t.image()
    x = t.embed(g.over(raw))
    index = places(t, t.patches, t.patches)
    for axis in index:
        x = g.over(x, g.pick(None, axis, t.width))
    x = transformer(t, x, rms=True, places=index)
    rows = t.patches // t.pool**2
    x = g.copy(g.new(t.width, rows, g.copy(x)))
    return g.matmul(g.over(x), t.out)


@projector(lambda t: 16, "gemma4_unified", most=1120)
def gemma4_unified(t: Tower) -> Value:
    """No layers: large patches normed, projected and normed."""
    g, raw = t.graph, t.image()
    width, kernel = t.rows("mm.patch"), g.leaf(t.columns("mm.patch"))
    x = g.norm(g.new(t.columns("mm.patch"), t.patches, raw, kernel))
    x = g.norm(g.matmul(x, width))
    for axis in places(t, t.patches, t.patches):
        x = g.over(x, g.pick(None, axis, width))
    return g.matmul(g.over(g.norm(x)), t.out)


@projector(lambda t: min(learned(t), 448 // t.patch), "minicpmv4_6")
def minicpmv(t: Tower) -> Value:
    """A merger among the layers, with attention in windows of 2 × 2, and another behind them."""
    g, raw, n = t.graph, t.image(), t.patches
    index, inward, outward, *corners = places(t, n, n, n, *[(t.side // 2) ** 2] * 4, *[(t.side // 4) ** 2] * 4)
    mask = Mask(g, n, early=True)
    x = g.over(t.embed(raw), g.pick(None, index, t.width))
    begun = min(t.model_number("insert_layer_id", 6), t.layers - 1) + 1
    for _ in range(begun):
        x = block(t, x)
    windows = g.pick(g.norm(x), inward)
    q, k, v = (g.matmul(windows, t.width).view() for _ in "qkv")
    mixed = g.matmul(g.attend(q, k, v, t.heads, mask).view(), t.width)
    x = g.over(g.pick(mixed, outward), x)
    picked, joined = _corners(t, x, corners[:4])
    fed = g.feed(g.norm(joined), t.rows("v.merger.ffn_up"), t.width)
    mean = picked[0]
    for other in picked[1:]:
        mean = g.over(mean, other)
    x = g.over(fed, mean)
    for _ in range(t.layers - begun):
        x = block(t, x)
    joined = _corners(t, g.norm(x) if t.has("post_ln") else x, corners[4:])[1]
    return g.feed(g.norm(joined), t.rows("mm.0.0"), t.rows("mm.0.2"))


def _corners(t: Tower, x: Value, corners: list[Value]) -> tuple[list[Value], Value]:
    """Every fourth row, four times, and the four side by side."""
    g = t.graph
    picked = [g.pick(x, corners[0])]
    joined = picked[0]
    for corner in corners[1:]:
        picked.append(g.pick(x, corner))
        joined = g.new(joined.width + x.width, corner.width, joined, picked[-1])
    return picked, joined
