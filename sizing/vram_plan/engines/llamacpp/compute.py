"""The compute buffer of one device: the graph laid out as ggml would, at lengths that are powers of two.

Between two of them the buffer grows as on a line: the mask and the copies of a cache are all that grows, and the
allocator's holes come and go by a few MiB.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ...models.model import Model
from .cells import CELLS, Context
from .encoder import is_bert, record
from .graph import Recorder
from .layers import layers_of, shortened
from .tape import Tape

__all__ = ["compute_bytes"]


def compute_bytes(
    model: Model,
    context: Context,
    layers: tuple[int, int],
    *,
    last: bool,
    copies: int = 1,
    visiting: tuple[tuple[str, int], ...] = (),
    away: tuple[int, int] = (0, 0),
    host: bool = False,
) -> int:
    """Bytes of the buffer for layers `layers[0]` to `layers[1]` (excluded) of a model; with `last` the logits as well.

    `copies` is 4 where llama.cpp runs several GPUs as a pipeline; `visiting` are weights copied in (role, bytes),
    `away` for how many of the first layers, and 1 or, with their caches, 2;
    `host` is the CPU's own buffer where all runs there.
    Source: llama.cpp 0c1e57098, see `graph`.
    """
    context = context._replace(parallel=1 << (context.parallel - 1).bit_length())
    low = max(1 << (context.length.bit_length() - 1), CELLS)
    floor = _peak(model, context._replace(length=low), layers, last, copies, visiting, away, host)
    if low == context.length:
        return floor
    ceiling = _peak(model, context._replace(length=2 * low), layers, last, copies, visiting, away, host)
    return floor + (ceiling - floor) * (context.length - low) // low


@lru_cache(maxsize=8192)
def _peak(
    model: Model, context: Context, layers: tuple[int, int], last: bool, copies: int, visiting: tuple[tuple[str, int], ...],
    away: tuple[int, int], host: bool,
) -> int:  # fmt: skip
    tape, (first, kind) = Tape(), away
    placed = tuple(replace(layer, away=kind) if i < first else layer for i, layer in enumerate(layers_of(model.architecture)))
    chosen = shortened(placed[layers[0] : layers[1]])
    recorder = Recorder(model.architecture, context, tape, copies, dict(visiting), host)
    if is_bert(chosen):
        record(recorder, chosen)
    else:
        recorder.whole(chosen, first=not layers[0], last=last)
    return tape.peak()
