"""One load of a model by llama.cpp, settled, and the words its terms are explained with."""

from __future__ import annotations

from typing import Final

from ...models.model import Model
from ...units import format_gib
from ...values import dataclass
from ..base import Work
from .cells import CELLS, Context, cache_layers, state_widths
from .placement import HOST, FileWeights, Placement, matrices
from .schedule import OFFLOADED_BATCH
from .settings import Settings

__all__ = ["PIPELINE_COPIES", "Run", "compute_why", "host_why", "is_spread", "kv_why", "state_why", "weights_why"]

#: Copies of every input where GPUs work as a pipeline (ggml-backend.cpp, GGML_SCHED_MAX_COPIES).
PIPELINE_COPIES: Final = 4


@dataclass(frozen=True, slots=True)
class Run:
    """One load of a model, settled: what was asked, the context it makes, and where the layers go."""

    model: Model
    work: Work
    settings: Settings
    context: Context
    placement: Placement
    weights: FileWeights
    draft: Run | None = None
    #: Buffers of a graph over several devices are only needed to some percent.
    quick: bool = False


def is_spread(run: Run) -> bool:
    """Whether GPUs work on it, and not one alone with all of it."""
    p = run.placement
    return run.settings.backend != "cpu" and not (p.all_on_gpu and not p.expert_layers and p.devices == 1)


def weights_why(format: str, w: FileWeights, p: Placement, layers: tuple[int, ...], last: bool) -> str:
    text = f"{len(layers)} of {len(w.layers)} layers of the {format} file"
    if last:
        text += ", the embedding a second time as the output matrix" if w.tied else " and the output matrix"
    if p.expert_layers:
        text += f", experts of {p.expert_layers} layers left in host memory"
    return text if w.tied else f"{text}; the embedding ({format_gib(w.inputs)}) stays in host memory"


def kv_why(run: Run) -> str:
    c = run.context
    kinds = "/".join(dict.fromkeys((c.kv_k, c.kv_v)))
    text = f"{c.length:,} cells (context in steps of {CELLS})"
    text += f" × {c.streams} caches" if c.streams > 1 else f" shared by {c.parallel} sequences" if c.parallel > 1 else ""
    for window in sorted({layer.window for layer in cache_layers(run.model.architecture) if layer.window and layer.kv_heads}):
        text += f"; {c.ring(window):,} where a layer sees {window:,} (and a batch of {c.ubatch})"
    if any(layer.latent_rank for layer in cache_layers(run.model.architecture)):
        text += "; the latent only, no V"
    return f"{text}, in {kinds}"


def state_why(run: Run) -> str:
    layers, n = len(state_widths(run.model)), run.context.parallel
    return f"fp32 states of {layers} recurrent layers × {n} sequence{'s' if n > 1 else ''}, whatever the context"


def compute_why(run: Run, device: int = 0) -> str:
    c = run.context
    rows = "every token" if c.outputs >= c.tokens > c.parallel else f"{c.outputs} token{'s' if c.outputs > 1 else ''}"
    text = f"one batch of {c.tokens} tokens through the widest layer, its mask over {c.length:,} cells, logits of {rows}"
    if run.placement.pipelined:
        text += f", inputs {PIPELINE_COPIES} times for the pipeline"
    largest = _largest_copied(run) if device == 0 and is_spread(run) and c.tokens >= OFFLOADED_BATCH else 0
    return f"{text}; weights in host memory are copied in, up to {format_gib(largest)} at once" if largest else text


def _largest_copied(run: Run) -> int:
    """The largest weight in host memory."""
    p, sizes = run.placement, [0]
    for i, layer in enumerate(matrices(run.model, run.work.format)):
        away = p.homes[i : i + 1] == (HOST,)
        sizes += [size for role, size in layer if away or (i < p.expert_layers and "_exps" in role)]
    return max(sizes)


def host_why(run: Run) -> str:
    away = len(run.placement.layers_on(HOST))
    text = "embedding table, looked up on the CPU"
    return f"{text}, and {away} layers" if away else f"{text}, and experts" if run.placement.expert_layers else text
