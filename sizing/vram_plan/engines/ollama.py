"""Ollama: llama.cpp's server with its own defaults for context, batch and cache.

Since its PR #16031 GGUF models run in a llama-server process, so the memory is llama.cpp's; what differs is what
Ollama passes to it. Source: ollama/ollama fb3076099 (2026-08, v0.33.0-rc2).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from vram_plan_data import ROOT

from ..hardware.device import GIB, MIB, Device
from ..models.model import Model
from . import llamacpp
from .base import Allocation, Work
from .llamacpp import MAX_SEQUENCES, Run, allocation, room_of, run_of
from .llamacpp_placement import file_weights
from .llamacpp_settings import OPTIONS as LLAMACPP_OPTIONS
from .llamacpp_settings import Settings, settings_of

__all__ = ["DEFAULT_KV", "MAX_SEQUENCES", "OPTIONS", "allocate", "completed", "default_context", "least_offload", "room", "tag_format"]

DEFAULT_KV: Final = "f16"
OPTIONS: Final[Mapping[str, str]] = {
    **LLAMACPP_OPTIONS,
    "ubatch": "tokens computed at once, 1 to 65536 (512, 1024 or 2048, by context and free memory)",
    "batch": "tokens of one batch, 1 to 1048576 (as ubatch)",
    "mmproj": "true: the tag's vision or audio tower is loaded too, as Ollama does (true)",
}
#: Context when none is given, by the total memory of the GPUs: below so many bytes, so many tokens.
_CONTEXT_TIERS: Final = ((23 * GIB, 4096), (47 * GIB, 32768))
_LARGEST_CONTEXT: Final = 262_144
#: Batch for contexts above so many tokens; the share of free memory the model may be predicted to take at most, and
#: what the larger buffers are reckoned at: both must stay within `_MOST` of it.
_BATCHES: Final = ((32768, 2048, 0.6, 2 * GIB), (4096, 1024, 0.75, 768 * MIB))
_MOST: Final = 0.8


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """What the llama-server that Ollama starts takes. Pure; see `Engine.allocate`."""
    run = _run(model, work, devices)
    found = allocation(run, devices)
    figures = {**found.figures, "ollama_ps_gb": _shown(found)}
    return Allocation(found.devices, found.host, figures, (*found.notes, *_notes(model, work, devices)), found.refusal)


def room(model: Model, work: Work, devices: tuple[Device, ...]) -> int:
    """As llama.cpp's, with Ollama's settings."""
    return room_of(_run(model, work, devices), devices)


def _run(model: Model, work: Work, devices: tuple[Device, ...]) -> Run:
    return run_of(model, work, devices, _settings(model, work, devices))


def _settings(model: Model, work: Work, devices: tuple[Device, ...]) -> Settings:
    """Ollama's own: one batch size for both, and the tag's tower. It never shares one pool between sequences."""
    ubatch = _batch(model, work, devices)
    return settings_of(work, devices, (("batch", ubatch), ("mmproj", True), ("ubatch", ubatch)))


def _batch(model: Model, work: Work, devices: tuple[Device, ...]) -> int:
    """Tokens at once: more for longer contexts, where Ollama's own prediction leaves room for the larger buffers."""
    if work.option("ubatch") is not None:
        return 512
    free, need = sum(device.available for device in devices), _predicted(model, work)
    for above, batch, share, extra in _BATCHES:
        if work.context > above and (not devices or (need <= share * free and need + extra <= _MOST * free)):
            return batch
    return 512


def _predicted(model: Model, work: Work) -> int:
    """Bytes Ollama expects before it starts the server: the file, and K and V of every layer in 16 bits, no window."""
    return file_weights(model, work.format).file + _predicted_token(model) * work.context * work.sequences


@lru_cache(maxsize=256)
def _predicted_token(model: Model) -> int:
    a = model.architecture
    heads = min((layer.kv_heads for layer in model.cache_layers if layer.kv_heads), default=0)
    return 4 * a.layers * heads * (a.hidden_size // max(a.heads, 1))


def default_context(devices: tuple[Device, ...]) -> int:
    """The context Ollama takes when none is set: by all GPUs' memory (server/sched.go; the model's own caps it)."""
    total = sum(device.total for device in devices)
    return next((tokens for limit, tokens in _CONTEXT_TIERS if total < limit), _LARGEST_CONTEXT)


def _shown(found: Allocation) -> float:
    """What `ollama ps` shows as SIZE, in decimal GB: the server's buffers, without the driver's context."""
    return round(sum(term.bytes for terms in found.devices for term in terms if term.group != "runtime") / 1e9, 1)


def _notes(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[str, ...]:
    if not devices:
        return ()
    tokens = min(default_context(devices), model.trained_context or _LARGEST_CONTEXT)
    if tokens == work.context:
        return (f"Ollama takes {tokens:,} tokens here by itself; longer prompts it cuts without saying so",)
    return (
        f"Ollama takes {tokens:,} tokens here unless it is told: set num_ctx {work.context} (or OLLAMA_CONTEXT_LENGTH); "
        "what does not fit it cuts without saying so",
    )


@lru_cache(maxsize=1)
def _tags() -> tuple[tuple[str, str], ...]:
    with (ROOT / "ollama_tags.csv").open(encoding="utf-8", newline="") as file:
        return tuple((row["name"], row["format"]) for row in csv.DictReader(file))


def tag_format(tag: str) -> str:
    """The number format of an Ollama tag: what its name says (`…-q8_0`, `…-fp16`), else what its family is built with."""
    name, _, variant = tag.lower().rpartition("/")[2].partition(":")
    for part in variant.split("-"):
        if part.startswith("iq") or (part.startswith("q") and part[1:2].isdigit()):
            return part.upper()
        if part in ("fp16", "f16", "bf16"):
            return "BF16" if part == "bf16" else "F16"
    return next((format for family, format in _tags() if name == family), "Q4_K_M")


def completed(model: Model, work: Work, devices: tuple[Device, ...], found: Allocation) -> Allocation:
    """As llama.cpp's, with Ollama's settings."""
    if not llamacpp.may_leave(work, devices, found):
        return found
    return llamacpp.completed_run(_run(model, work, devices), devices, found)


def least_offload(model: Model, work: Work, devices: tuple[Device, ...]) -> int | None:
    """As llama.cpp's, with Ollama's settings."""
    return llamacpp.least_offload_of(_run(model, work, devices), devices)
