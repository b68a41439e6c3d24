"""The compute buffers: the graph laid out as ggml would, at a few lengths.

Between two of them a buffer grows as on a line: the mask and the copies of a cache are all that grows, and the
allocator's holes come and go by a few MiB. Where another node becomes the largest the line bends: lengths laid out are
so near each other that this is felt by a few per cent of the buffer at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from ...models.model import Model
from .cells import CELLS, Context
from .encoder import is_bert, record
from .graph import Recorder
from .layers import Layer, layers_of, shortened
from .placement import HOST, Placement, matrices
from .run import PIPELINE_COPIES, Run
from .schedule import Schedule
from .tape import Tape

__all__ = ["compute_bytes", "spread_bytes"]

#: Layers more than any model has are laid out quickly.
_LAYERS: Final = 200
#: Lengths laid out from one power of two to the next.
_STEPS: Final = 4


def compute_bytes(model: Model, context: Context, *, host: bool = False) -> int:
    """Bytes of the buffer where all of a model is on one GPU; with `host`, of the CPU's own where all runs there.

    Source: llama.cpp 0c1e57098, see `graph`.
    """
    return _between(context, lambda at: _peak(model, at, host))


def spread_bytes(run: Run, device: int) -> int:
    """Bytes of a device's buffer, or with HOST of that in host memory, where not everything is on one GPU.

    A quick one takes all layers' weights for as large as the largest, so that most layers need not be laid out.
    Source: see `schedule`.
    """
    weights, quick = matrices(run.model, run.work.format), run.quick or run.model.architecture.layers > _LAYERS
    return _between(run.context, lambda at: _buffers(run.model, at, run.placement, weights, run.weights.head, quick)[device])


def _between(context: Context, peak: Callable[[Context], int]) -> int:
    many = 1 << max((context.parallel - 1).bit_length() - 3, 0)  # up to 8 sequences each number of them, then 4 numbers an octave
    context = context._replace(parallel=-(-context.parallel // many) * many)
    octave = max(1 << (context.length.bit_length() - 1), CELLS)
    step = max(octave // _STEPS, CELLS)
    low = octave + (context.length - octave) // step * step
    floor = peak(context._replace(length=low))
    if low == context.length:
        return floor
    return floor + (peak(context._replace(length=low + step)) - floor) * (context.length - low) // step


@lru_cache(maxsize=8192)
def _peak(model: Model, context: Context, host: bool) -> int:
    tape = Tape()
    _record(Recorder(model.architecture, context, tape, host), layers_of(model.architecture))
    return tape.peak()


def _record(recorder: Recorder, layers: tuple[Layer, ...]) -> None:
    if is_bert(layers):
        record(recorder, layers)
    else:
        recorder.whole(shortened(layers, alone=recorder.schedule is None and not recorder.host))


@lru_cache(maxsize=2048)
def _buffers(
    model: Model, context: Context, placement: Placement, weights: tuple[tuple[tuple[str, int], ...], ...], output: int, quick: bool
) -> tuple[int, ...]:
    """Every GPU's buffer, then host memory's."""
    schedule, a = Schedule(PIPELINE_COPIES if placement.pipelined else 1), model.architecture
    if quick:
        largest: dict[str, int] = {}
        for role, size in (each for layer in weights for each in layer):
            largest[role] = max(largest.get(role, 0), size)
        weights = tuple(tuple((role, largest[role]) for role, _ in layer) for layer in weights)
    layers = _placed(model, placement, weights)
    recorder = Recorder(a, context, schedule)
    recorder.output_home, recorder.output_bytes, recorder.all_on_gpu = placement.output, output, placement.all_on_gpu
    _record(recorder, layers)
    return schedule.buffers(placement.devices)


def _placed(model: Model, placement: Placement, weights: tuple[tuple[tuple[str, int], ...], ...]) -> tuple[Layer, ...]:
    """The layers where they are, with the sizes of what is in host memory; a shared cache is where its owner is."""
    a, homes, found = model.architecture, placement.homes, []
    source = {layer.layer: layer.source for layer in a.cache_layers if layer.kind == "shared" and layer.source is not None}
    for number, layer in enumerate(layers_of(a)):
        home = homes[number] if number < len(homes) else placement.output
        experts = HOST if number < placement.expert_layers else home
        sizes = weights[number] if number < len(weights) else ()
        away = tuple((role, size) for role, size in sizes if (experts if "_exps" in role else home) == HOST)
        owner = source.get(number, number)
        cache = homes[owner] if 0 <= owner < len(homes) else home
        found.append(replace(layer, home=home, experts_home=experts, cache_home=cache, away=away))
    return tuple(found)
