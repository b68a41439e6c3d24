"""The layers of a tower: `build_vit`, which most are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .graph import Mask, Value
from .tower import Tower

__all__ = ["block", "transformer"]

Seen = Callable[[int, Value], None]
#: Of layers all alike these few show what more would; an even number fewer, because nodes swap places from one to the next.
_SHOWN: Final = 4


def transformer(
    t: Tower,
    x: Value,
    *,
    rms: bool = False,
    places: tuple[Value, ...] = (),
    mask: Mask | None = None,
    seen: Seen | None = None,
    post_norm: bool = True,
) -> Value:
    """`build_vit`: a norm where the file has one, the layers, and a norm. `mask` is read by the layers `t.windowed` names."""
    if t.has("pre_ln"):
        x = t.graph.norm(x.view(), rms)
    alike = seen is None and mask is None
    for layer in range(min(t.layers, _SHOWN + t.layers % 2) if alike else t.layers):
        x = block(t, x, rms=rms, places=places, mask=mask if t.windowed(layer) else None)
        if seen:
            seen(layer, x)
    return (t.graph.norm(x, rms) if t.has("post_ln") and post_norm else x).view()


def block(t: Tower, x: Value, *, rms: bool = False, places: tuple[Value, ...] = (), mask: Mask | None = None) -> Value:
    """One layer: norm, attention, norm, feed-forward. What is multiplied on (layer scales) or normed after stays in its place."""
    g = t.graph
    x = g.over(_attention(t, g.norm(x, rms), rms, places, mask), x)
    fed = g.feed(g.norm(x, rms), t.columns(f"{t.prefix}.ffn_down"), t.width, gated=t.has("ffn_gate"), clamped=t.clamped)
    return g.over(x, fed)


def _attention(t: Tower, x: Value, rms: bool, places: tuple[Value, ...], mask: Mask | None) -> Value:
    g = t.graph
    if t.fused:
        joined = g.matmul(x, t.attended + 2 * t.kept)
        q, k, v = (joined.view(width) for width in (t.attended, t.kept, t.kept))
        q, k = (g.turn(g.norm(n, rms) if t.has("attn_q_norm") else n, *places) for n in (q, k))
    else:
        q, k = (g.turn(_normed(t, g.matmul(_given(t, x), width), rms), *places) for width in (t.attended, t.kept))
        v = g.matmul(_given(t, x), t.kept).view()
        v = g.norm(v, rms) if t.norms_values else v
    mixed = g.attend(q, k, v, t.heads, mask).view()
    return g.matmul(_given(t, mixed), t.width)


def _given(t: Tower, x: Value) -> Value:
    """What a projection reads: clamped where the tower clamps."""
    return t.graph.over(x) if t.clamped else x


def _normed(t: Tower, x: Value, rms: bool) -> Value:
    """A query or key of all heads: normed as a whole before it is cut into heads, or each head after."""
    width = t.columns(f"{t.prefix}.attn_q_norm")
    if width > t.head:
        return t.graph.norm(x, rms).view()
    return t.graph.norm(x.view(), rms) if width else x.view()
