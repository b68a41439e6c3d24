"""The graph of an encoder of BERT's kind: no cache, every token sees every other of the batch, norms after each sum.

Source: llama.cpp 0c1e57098, src/models/bert.cpp, src/llama-graph.cpp (`build_attn_inp_no_cache`, `build_attn_mha`).
"""

from __future__ import annotations

from .graph import Recorder
from .layers import Layer
from .placement import HOST

__all__ = ["is_bert", "record"]


def is_bert(layers: tuple[Layer, ...]) -> bool:
    """Norms of what attention and the layer give, and projections apart: what the order below was checked with."""
    return bool(layers) and {"attn_q", "attn_output_norm", "layer_output_norm"} <= layers[0].shapes.keys()


def record(r: Recorder, layers: tuple[Layer, ...]) -> None:
    """Records all layers; of the last only the rows asked for go on."""
    width, tokens, c = r.a.hidden_size, r.tokens, r.context
    parts = tuple(_looked_up(r) for _ in ("tokens", "positions"))
    mask = r.given((2 if c.flash else 4) * tokens * tokens)
    r.chosen = r.given(4 * c.outputs)
    r.layer = layers[0]
    hidden = r.vector(r.fp32(width, r.fp32(width, *parts, over=parts)), "token_embd_norm")
    for number, layer in enumerate(layers, start=1):
        r.layer, r.rows = layer, tokens
        mixed = r.fp32(width, _attended(r, hidden, mask), *r.weight("attn_output"))
        if number == len(layers):
            r.rows = min(c.outputs, tokens)
            mixed, hidden = (r.tape.add(4 * width * r.rows, node, r.chosen) for node in (mixed, hidden))
        normed = _summed(r, "attn_output_norm", mixed, hidden)
        hidden = _summed(r, "layer_output_norm", r.dense(layer, normed, r.rows), normed)


def _looked_up(r: Recorder) -> int:
    """Rows of a table, which is in host memory."""
    row = 4 * r.a.hidden_size * r.tokens
    if r.schedule is None:
        return r.given(row)
    r.at_home(HOST)
    return r.tape.add(row, r.given(4 * r.tokens))


def _attended(r: Recorder, x: int, mask: int) -> int:
    """Q, K and V of a batch; flash attention takes K and V in fp16, else V is laid out anew."""
    width, tokens = r.a.hidden_size, r.tokens
    q, k, v = (r.vector(r.fp32(width, x, *r.weight(f"attn_{name}")), f"attn_{name}.bias") for name in "qkv")
    if r.context.flash:
        k, v = (r.tape.add(2 * width * tokens, node) for node in (k, v))
        return r.tape.add(4 * width * tokens, q, k, v, mask)
    v = r.fp32(width, v)
    scores = r.tape.add(4 * tokens * tokens * r.a.heads, k, q, mask)
    return r.fp32(width, r.fp32(width, v, scores))


def _summed(r: Recorder, norm: str, a: int, b: int) -> int:
    """A residual sum, and its layer norm."""
    size = 4 * r.a.hidden_size * r.rows
    both = r.tape.add(size, a, b, over=(a, b))
    r.at_norm(norm)
    return r.vector(r.tape.add(size, both), norm, f"{norm}.bias")
