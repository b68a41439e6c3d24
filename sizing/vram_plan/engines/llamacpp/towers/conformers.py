"""Audio towers with convolutions in each layer: Gemma 4's and Granite Speech's (see audio.py).

Source: llama.cpp 0c1e57098, tools/mtmd/models/gemma4a.cpp, granite-speech.cpp. Where a product's first factor is made
of other nodes, it is computed first: V before the scores it is multiplied with.
"""

from __future__ import annotations

from typing import Final

from .audio import FRAMES, hearer
from .graph import Value
from .tower import Tower

#: Gemma 4: rows attended to at once, and how many before them each sees.
_CHUNK, _PAST = 12, 12
_SEEN: Final = _CHUNK + _PAST


@hearer("gemma4")
def gemma4(t: Tower) -> Value:
    g, bins = t.graph, 4 * t.columns("a.input_proj") // max(t.rows("a.conv2"), 1)
    x, rows, source = g.copy(g.input(FRAMES, bins), bins, FRAMES), FRAMES, 1
    for role in ("a.conv1", "a.conv2"):
        bins, rows = (bins + 1) // 2, (rows + 1) // 2
        x = g.convolve(x, t.rows(role), 9 * source, bins * rows)
        x = g.copy(g.norm(g.copy(x)))
        source = t.rows(role)
    x = g.matmul(g.copy(x, bins * source, rows), t.rows("a.input_proj"))
    width, blocks = x.width, -(-rows // _CHUNK)
    places, mask = g.input(width, _PAST + 1), g.input(_SEEN, _CHUNK * blocks)
    for _ in range(t.layers):
        x = g.over(x, _half(t, x, "a.ffn1_up", rms=True))
        x = g.over(x, _chunked(t, g.norm(x, rms=True), blocks, places, mask))
        x = g.over(x, _convolved(t, g.norm(x, rms=True), "a.conv_in", t.columns("a.conv_dw") - 1))
        x = g.over(g.over(x, _half(t, x, "a.ffn2_up", rms=True)))
    x = g.matmul(x, t.rows("a.proj"))
    return g.matmul(g.over(x), t.out)


def _half(t: Tower, x: Value, up: str, *, rms: bool) -> Value:
    return t.graph.feed(t.graph.norm(x, rms), t.rows(up), x.width)


def _chunked(t: Tower, x: Value, blocks: int, places: Value, mask: Value) -> Value:
    """Attention of each chunk to itself and the chunk before, with relative positions."""
    g, h, filled = t.graph, t.heads, _CHUNK * blocks

    def given() -> Value:
        return g.over(x) if t.clamped else x

    def windows(n: Value) -> Value:
        padded = g.new(x.width, _SEEN * blocks, n)
        return g.copy(g.copy(padded))

    v = windows(g.matmul(given(), x.width))
    k = windows(g.over(g.matmul(given(), x.width).view()))
    q = g.copy(g.new(x.width, filled, g.over(g.matmul(given(), x.width).view())))
    scores = g.new(_SEEN * h, filled, k, q)
    related = g.copy(g.matmul(places, x.width))
    related = g.new((_PAST + 1) * h, filled, related, q)
    related = g.copy(g.new((_SEEN + 1) * h, filled, related), _SEEN * h, filled)
    scores = g.turn(g.over(scores, related.view()), mask)
    mixed = g.copy(g.copy(g.new(x.width, filled, v, scores)))
    if filled != x.rows:
        mixed = g.copy(mixed, x.width, x.rows)
    return g.matmul(mixed, x.width)


def _convolved(t: Tower, x: Value, role: str, padding: int) -> Value:
    """A gated projection, a convolution over time, a projection."""
    g = t.graph
    wide = g.matmul(x, t.rows(role))
    gate = g.copy(wide.view(), wide.width // 2, x.rows)
    if role == "a.conv_up":  # Granite's gate reads every other half of a row
        g.away(6 * wide.width * x.rows)
    turned = g.copy(g.turn(gate, wide))
    mixed = g.new(turned.width, x.rows, g.new(turned.width, x.rows + padding, turned))
    return g.matmul(mixed, x.width)


@hearer("granite_speech", "granite_speech_plus")
def granite_speech(t: Tower) -> Value:
    """Block attention with distances, a CTC head fed back in its middle, and a Q-Former over windows, whose queries are begun first."""
    g, c = t.graph, t.model_number
    context = t.config.integer("context_size", default=200, high=8192)
    blocks, window = -(-FRAMES // context), c("window_size", 15)
    queries, windows = max(window // c("downsample_rate", 5), 1), -(-FRAMES // window)
    mask = g.input(context * context, blocks) if FRAMES % context else None
    distances = g.input(context * context)
    q = g.new(t.rows("mm.qf.ffn_query_down"), queries * windows, g.new(t.rows("mm.qf.ffn_query_down"), queries))
    depth = len({x.layer for x in t.tensors if x.role == "mm.qf.attn_q"})
    x: Value | None = None
    for _ in range(depth):
        heads = max(q.width // 64, 1)
        own, keys, values = (g.matmul(q, q.width).view() for _ in range(3))
        mixed = g.matmul(g.attend(own, keys, values, heads).view(), q.width).view()
        q = g.norm(g.over(q, mixed))
        asked = g.matmul(q, q.width).view()
        if x is None:
            x = _encoded(t, blocks, context, distances, mask)
            x = g.new(x.width, window * windows, x) if FRAMES % window else x
        keys, values = (g.matmul(x, q.width).view() for _ in range(2))
        mixed = g.matmul(g.attend(asked, keys, values, heads).view(), q.width).view()
        q = g.norm(g.over(q, mixed))
        q = g.norm(g.over(g.feed(q, t.rows("mm.qf.ffn_query_up"), q.width), q))
    return g.matmul(q, t.out)


def _encoded(t: Tower, blocks: int, context: int, distances: Value, mask: Value | None) -> Value:
    g, width = t.graph, t.rows("a.input")
    x = g.matmul(g.copy(g.input(FRAMES, t.columns("a.input")), t.columns("a.input"), FRAMES), width)
    for layer in range(t.layers):
        x = g.over(x, _half(t, x, "a.ffn1_up", rms=False))
        x = g.over(x, _blocked(t, g.norm(x), blocks * context, context, distances, mask))
        x = g.over(x, _convolved(t, g.norm(x), "a.conv_up", t.columns("a.conv_dw") - 1))
        x = g.norm(g.over(x, _half(t, x, "a.ffn2_up", rms=False)))
        if layer + 1 == t.layers // 2:
            x = g.over(x, g.matmul(g.matmul(x, t.rows("a.out")), width))
    return x


def _blocked(t: Tower, x: Value, rows: int, context: int, distances: Value, mask: Value | None) -> Value:
    """Attention within blocks of `context` rows, each pair's distance having a vector of its own."""
    g, width, heads = t.graph, t.rows("a.attn_q"), t.heads
    normed = x if rows == x.rows else g.new(x.width, rows, x)
    v = g.copy(g.matmul(normed, width))
    k = g.copy(g.matmul(normed, width))
    q = g.matmul(normed, width)
    scores = g.new(context * heads, rows, k, q)
    vectors = g.new(t.columns("a.rel_pos"), context * context, distances)
    related = g.copy(g.new(context * heads, rows, vectors, q))
    scores = g.over(scores, related)
    scores = g.turn(scores, mask) if mask else scores
    mixed = g.copy(g.new(width, rows, v, scores))
    return g.matmul(mixed, x.width)
