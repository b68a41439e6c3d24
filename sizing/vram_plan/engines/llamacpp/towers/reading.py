"""Towers that read pages with Segment Anything's encoder: DeepSeek-OCR 2, Unlimited-OCR (see images.py).

Its attention has a number for each two patches and head, which CUDA's flash attention does not take: all of the tower's is
computed without. Source: llama.cpp 0c1e57098, tools/mtmd/models/deepseekocr.cpp, deepseekocr2.cpp.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from .graph import Mask, Value
from .images import projector
from .layers import transformer
from .tower import Tower

#: Patches of 16 along the side of a page of 1024, windows of most layers, and the layers that see the whole page.
_SIDE, _WINDOW = 64, 14
_WHOLE: Final = frozenset({2, 5, 8, 11})


def _sam(t: Tower, raw: Value) -> Value:
    """Segment Anything's layers and neck, then two strided convolutions."""
    g, width = t.graph, t.columns("v.sam.ln1")
    t.patch, g.flash = 16, False
    x = g.copy(g.convolve(raw, width, 3 * 16**2, _SIDE**2))
    for layer in range(len({a.layer for a in t.tensors if a.role == "v.sam.ln1"})):
        x = _sam_layer(t, x, _SIDE if layer in _WHOLE else _WINDOW)
    x = g.copy(x)
    for inputs, role in ((1, "v.sam.neck1"), (9, "v.sam.neck2")):
        x = _wide(t, x, inputs, t.rows(role), x.rows)
        x = g.copy(g.norm(g.copy(x)))
    for shape in (a.shape for a in t.tensors if a.role == "v.sam.down"):
        x = _wide(t, x, 9, shape[0], x.rows // 4)
    return x


def _wide(t: Tower, x: Value, kernel: int, out: int, rows: int) -> Value:
    """A convolution whose patches are laid out in 32 bits."""
    return t.graph.copy(t.graph.matmul(t.graph.new(kernel * x.width, rows, x), out))


def _sam_layer(t: Tower, x: Value, window: int) -> Value:
    """Windowed attention; how far two patches lie apart across and down is copied in twice for each layer."""
    g, width, heads = t.graph, x.width, 12
    cur, along = g.norm(x), -(-_SIDE // window)
    rows = (along * window) ** 2
    if along > 1:
        cur = g.copy(g.new(width, rows, cur))
    joined = g.matmul(cur, 3 * width)
    q, k, v = (g.copy(joined, width, rows) for _ in "qkv")
    v = g.copy(v)
    scores = g.new(window**2 * heads, rows, k, q)
    across = g.new(width // heads, window**2, g.input(window**2))
    turned = g.copy(q)
    wide = g.copy(g.new(window * heads, rows, across, g.copy(turned)))
    wide = g.new(window**2 * heads, rows, wide)
    down = g.new(width // heads, window**2, g.input(window**2))
    mask = g.turn(wide, g.new(window * heads, rows, down, turned))
    g.away(12 * width * rows + 2 * mask.width * rows)
    mixed = g.copy(g.new(width, rows, v, g.turn(scores, mask)))
    cur = g.copy(g.matmul(mixed, width))
    x = g.over(g.copy(g.copy(cur), width, _SIDE**2) if along > 1 else cur.view(), x)
    return g.over(g.feed(g.norm(x), t.columns("v.sam.ffn_down"), width), x)


@projector(lambda t: _SIDE, "unlimited_ocr")
def deepseek_ocr(t: Tower) -> Value:
    """CLIP reads what Segment Anything made; both are joined, and a new line put behind each row."""
    g = t.graph
    seen = _sam(t, g.copy(t.image()))
    side = isqrt(seen.rows)
    rows = seen.rows + 1
    x = g.new(t.width, rows, g.new(t.width, 1), g.copy(seen))
    order = g.new(rows, 1, g.new(rows, 1))
    x = transformer(t, g.over(x, g.new(t.width, rows, order)))
    x = g.matmul(g.new(t.width + seen.width, seen.rows, x, g.copy(seen)), t.out)
    x = g.copy(x)
    return g.new(t.out, side * (side + 1), x, g.new(t.out, side))


@projector(lambda t: _SIDE, "deepseek_ocr2")
def deepseek_ocr2(t: Tower) -> Value:
    """A Qwen 2 reads what Segment Anything made and as many learned queries, whose rows are the tokens."""
    g = t.graph
    x = g.copy(_sam(t, t.image()))
    queries = x.rows
    x = g.new(x.width, 2 * queries, x, g.new(x.width, queries, g.new(x.width, queries)))
    mask = Mask(g, 2 * queries, early=False)
    order = g.new(2 * queries, 1, g.new(2 * queries, 1))
    qwen = Tower(t.model, t.tensors, "v.lm", t.config.section("encoder_config") or t.config)
    qwen.graph = g
    x = transformer(qwen, x, rms=True, places=(order,), mask=mask)
    x = g.over(x._replace(own=True))
    return g.matmul(g.copy(x, x.width, queries), t.out)
