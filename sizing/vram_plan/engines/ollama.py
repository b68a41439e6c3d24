"""Ollama: llama.cpp's server with its own defaults for context, batch, cache and GPUs.

GGUF models run in a llama-server process, so the memory is llama.cpp's; what differs is what Ollama passes to it.
Source: ollama/ollama fb3076099 (2026-08-21, v0.33.0-rc2, llama.cpp b10488): server/sched.go (batch, placement, parallel
requests), server/routes.go (default context), llm/llama_server.go (arguments, what `ollama ps` adds up), ml/device.go.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from vram_plan_data import ROOT

from ..hardware.device import GIB, MIB, Device
from ..models.model import Model
from ..units import format_gib
from ..values import Same
from .base import Allocation, Work
from .llamacpp import engine as llamacpp
from .llamacpp.cells import kv_groups
from .llamacpp.engine import MAX_SEQUENCES, allocation, room_of, run_of
from .llamacpp.placement import file_weights
from .llamacpp.run import Run
from .llamacpp.settings import OPTIONS as LLAMACPP_OPTIONS
from .llamacpp.settings import Settings, settings_of
from .options import flag

__all__ = ["DEFAULT_KV", "MAX_SEQUENCES", "OPTIONS", "allocate", "completed", "default_context", "least_offload", "room", "tag_format"]

DEFAULT_KV: Final = "f16"
OPTIONS: Final[Mapping[str, str]] = {
    **{name: what for name, what in LLAMACPP_OPTIONS.items() if name not in ("draft", "mtp")},
    "ubatch": "tokens computed at once, 1 to 65536 (512, 1024 or 2048, by context and free memory; 256 without flash attention)",
    "batch": "tokens of one batch, 1 to 1048576 (as ubatch)",
    "flash_attn": "true or false (true; false on NVIDIA GPUs before Pascal)",
    "mmproj": "true: the tag's vision or audio tower is loaded too, as Ollama does (true)",
    "spread": "OLLAMA_SCHED_SPREAD: true: all GPUs, also where one would do (false)",
}
#: Context when none is given, by the total memory of the GPUs: below so many bytes, so many tokens (routes.go, `Serve`).
_CONTEXT_TIERS: Final = ((23 * GIB, 4096), (47 * GIB, 32768))
_LARGEST_CONTEXT: Final = 262_144
#: Batch for contexts above so many tokens; the share of free memory the model may be predicted to take at most, and
#: what the larger buffers are reckoned at: both must stay within `_MOST` of it (sched.go, `automaticGenerationBatch`).
_BATCHES: Final = ((32768, 2048, 0.6, 2 * GIB), (4096, 1024, 0.75, 768 * MIB))
_MOST: Final = 0.8
_BATCH, _EMBEDDING_BATCH = 512, 2048
#: Without flash attention on CUDA: the batch beyond so many tokens where a GPU has no more free memory than this.
_CONSTRAINED: Final = (4096, 8 * GIB, 256)
#: Architectures one request at a time is run of (sched.go, `load`), without the signs names differ by.
_SINGLE: Final = frozenset({
    "mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe", "nemotronh", "nemotronhmoe", "nemotronhomni",
})  # fmt: skip
#: GGUF files of these list the KV heads of each layer, 0 where it has none, and Ollama predicts with the least (1 for 0).
_LISTED_HEADS: Final = frozenset({"lfm2", "lfm2moe", "nemotronh", "granitemoehybrid", "jamba", "plamo2", "kimilinear"})
#: Families whose GGUF is deepseek2: too long a prompt is refused, not cut (sched.go, `supportsContextShift`).
_REFUSING: Final = frozenset({"deepseek2", "deepseekv2", "deepseekv3", "kimik2", "kimik25"})
#: What llama-server leaves free of each GPU when it chooses the layers itself (llama.cpp, common.h, `fit_params_target`).
_KEPT_FREE: Final = GIB


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """What the llama-server that Ollama starts takes. Pure; see `Engine.allocate`."""
    chosen = _chosen(model, work, devices)
    used = _those(devices, chosen)
    run = _run(model, work, used)
    found = allocation(run, used)
    terms = dict(zip(chosen, found.devices, strict=True)) if devices else dict(enumerate(found.devices))
    count = max(len(devices), 1)
    figures = {**found.figures, "ollama_ps_gb": _shown(run, found), "gpus_used": len(used)}
    notes = (*found.notes, *_notes(model, work, devices, used))
    return Allocation(tuple(terms.get(i, ()) for i in range(count)), found.host, figures, notes, found.refusal or _refusal(model, work))


def room(model: Model, work: Work, devices: tuple[Device, ...]) -> int:
    """As llama.cpp's, with Ollama's settings on the GPUs it uses."""
    chosen = _chosen(model, work, devices)
    used = _those(devices, chosen)
    others = [min(d.available, d.usable) for i, d in enumerate(devices) if i not in chosen]
    least = min([room_of(_run(model, work, used), used), *others])
    return least if _refusal(model, work) is None else min(least, -1)


def _run(model: Model, work: Work, used: tuple[Device, ...]) -> Run:
    return run_of(model, work, used, _settings(model, work, used))


def _settings(model: Model, work: Work, used: tuple[Device, ...]) -> Settings:
    """Ollama's own: one batch size for both, and the tag's tower. It never shares one pool between sequences."""
    flash = flag(dict(work.options), "flash_attn", _has_flash(used))
    ubatch = _batch(model, work, used, flash)
    defaults = (("batch", ubatch), ("build", "2026-08"), ("flash_attn", flash), ("mmproj", True), ("ubatch", ubatch))
    return settings_of(work, used, defaults)


def _family(model: Model) -> str:
    return model.architecture.family.replace("_", "").replace("-", "").lower()


def _refusal(model: Model, work: Work) -> str | None:
    if work.sequences > 1 and _embeds(model):
        return "Ollama runs one request at a time of a model that embeds"
    if work.sequences > 1 and _family(model) in _SINGLE:
        return f"Ollama runs one request at a time of this architecture ({model.architecture.family}), whatever OLLAMA_NUM_PARALLEL says"
    if work.kv_k != work.kv_v:
        return f"Ollama has one cache type for K and V (OLLAMA_KV_CACHE_TYPE), not {work.kv_k} and {work.kv_v}"
    return None


def _embeds(model: Model) -> bool:
    return model.architecture.kind == "encoder"


# --- which GPUs, how much at once -------------------------------------------------------------------------------------


def _chosen(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[int, ...]:
    """The GPUs Ollama uses: the freest one whose memory the model is predicted to fill by 80 % at most, else all of one vendor,
    of those with most memory together (sched.go, `selectLlamaServerPlacement`); a GPU of its own before one that shares memory."""
    everything = tuple(range(len(devices)))
    if len(devices) < 2 or work.option("tensor_split") is not None:
        return everything
    need = _predicted(model, work)
    if not flag(dict(work.options), "spread", False):
        single = [i for i in everything if need <= _MOST * devices[i].available]
        if single:
            return (max(single, key=lambda i: (not devices[i].unified, devices[i].available, -i)),)
    groups = [tuple(i for i in everything if devices[i].vendor == vendor) for vendor in dict.fromkeys(d.vendor for d in devices)]
    return max(groups, key=lambda group: (any(not devices[i].unified for i in group), sum(devices[i].available for i in group)))


def _those(devices: tuple[Device, ...], chosen: tuple[int, ...]) -> tuple[Device, ...]:
    """The devices chosen; all of them as the very tuple given, which caches know it by."""
    return devices if len(chosen) == len(devices) else _some(Same(devices), chosen)


@lru_cache(maxsize=256)
def _some(devices: Same, chosen: tuple[int, ...]) -> tuple[Device, ...]:
    return tuple(devices.value[i] for i in chosen)


@lru_cache(maxsize=256)
def _less_kept_free(devices: Same) -> tuple[Device, ...]:
    """The devices with what llama-server keeps free taken off."""
    return tuple(replace(device, free=device.available - _KEPT_FREE) for device in devices.value)


def _batch(model: Model, work: Work, used: tuple[Device, ...], flash: bool) -> int:
    """Tokens at once: more for longer contexts, where Ollama's own prediction leaves room for the larger buffers."""
    if work.option("ubatch") is not None:
        return _BATCH
    if _embeds(model):
        return min(_EMBEDDING_BATCH, work.context)
    tokens = _predicted_context(model, work)
    cuda = [device for device in used if device.vendor == "NVIDIA"]
    if cuda and not flash:
        above, small, batch = _CONSTRAINED
        return batch if tokens > above and any(device.available <= small for device in cuda) else _BATCH
    free, need = sum(device.available for device in used), _predicted(model, work)
    for above, batch, share, extra in _BATCHES:
        if tokens > above and (not used or (need <= share * free and need + extra <= _MOST * free)):
            return batch
    return _BATCH


def _predicted(model: Model, work: Work) -> int:
    """Bytes Ollama expects before it starts the server: the file, and K and V of every layer in 16 bits (`PredictServerVRAM`)."""
    return file_weights(model, work.format).file + _predicted_token(model) * _predicted_context(model, work)


def _predicted_context(model: Model, work: Work) -> int:
    return min(work.context, model.trained_context or work.context) * work.sequences


@lru_cache(maxsize=256)
def _predicted_token(model: Model) -> int:
    a = model.architecture
    heads = min((layer.kv_heads for layer in model.cache_layers if layer.kv_heads), default=1)
    if _family(model) in _LISTED_HEADS and any(layer.kind == "recurrent" for layer in model.cache_layers):
        heads = 1
    return 4 * a.layers * heads * (a.hidden_size // max(a.heads, 1))


def _has_flash(used: tuple[Device, ...]) -> bool:
    """Not on NVIDIA GPUs before Pascal, nor on Xavier (ml/device.go, `cudaFlashAttentionSupported`)."""
    found = [device.capability for device in used if device.vendor == "NVIDIA"]
    return not any(capability and (capability < (6, 0) or capability == (7, 2)) for capability in found)


def default_context(devices: tuple[Device, ...]) -> int:
    """The context Ollama takes when none is set: by what all GPUs may use together (the model's own caps it)."""
    total = sum(device.usable if device.unified else device.total for device in devices if device.vendor != "CPU")
    return next((tokens for limit, tokens in _CONTEXT_TIERS if total < limit), _LARGEST_CONTEXT)


# --- what is said -----------------------------------------------------------------------------------------------------


def _shown(run: Run, found: Allocation) -> float:
    """What `ollama ps` shows as SIZE with all layers on GPUs, in decimal GB: whole ones from 10.

    It adds up the buffers of llama-server's log: not the driver's context, nor a tower's weights; where windowed layers have
    a cache of their own, that one's line takes the place of the other's (`memoryParsingWriter`).
    """
    size = sum(t.bytes for terms in found.devices for t in terms if t.group != "runtime" and t.name not in ("mmproj", "kv_cache"))
    shown = (size + sum(_logged_cache(run, i) for i in range(len(found.devices)))) / 1e9
    return float(int(shown)) if shown >= 10 else round(shown, 1)


def _logged_cache(run: Run, device: int) -> int:
    c = run.context
    groups = kv_groups(run.model, run.placement.layers_on(device), (c.kv_k, c.kv_v), c.flash, run.settings.backend in ("cuda", "rocm"))
    windowed = [group for group in groups if group.window]
    return sum(group.bytes(c) for group in windowed or groups)


def _notes(model: Model, work: Work, devices: tuple[Device, ...], used: Sequence[Device]) -> tuple[str, ...]:
    if not devices:
        return ()
    tokens = min(default_context(devices), model.trained_context or _LARGEST_CONTEXT)
    cuts = "refuses" if _family(model) in _REFUSING else "cuts without saying so"
    if tokens == work.context:
        notes = [f"Ollama takes {tokens:,} tokens here by itself; longer prompts it {cuts}"]
    else:
        notes = [
            f"Ollama takes {tokens:,} tokens here unless it is told: set num_ctx {work.context} (or OLLAMA_CONTEXT_LENGTH); "
            f"what does not fit it {cuts}"
        ]
    if model.trained_context and work.context > model.trained_context:
        notes.append(f"Ollama loads no more than the {model.trained_context:,} tokens the model was trained on")
    if len(used) < len(devices):
        why = "which holds it with a fifth to spare (OLLAMA_SCHED_SPREAD=1: all of them)" if len(used) == 1 else "those of one maker"
        notes.append(f"Ollama uses {len(used)} of the {len(devices)} GPUs, {why}")
    return tuple(notes)


@lru_cache(maxsize=1)
def _tags() -> dict[str, str]:
    with (ROOT / "ollama_tags.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["format"] for row in csv.DictReader(file)}


def tag_format(tag: str) -> str:
    """The number format of an Ollama tag: what its name says (`…-q8_0`, `…-fp16`), else what this tag or its family is built with."""
    name, _, variant = tag.lower().rpartition("/")[2].partition(":")
    for part in variant.split("-"):
        if part.startswith("iq") or (part.startswith("q") and part[1:2].isdigit()):
            return part.upper()
        if part in ("fp16", "f16", "bf16"):
            return "BF16" if part == "bf16" else "F16"
    known = _tags()
    return known.get(f"{name}:{variant.split('-')[0]}") or known.get(name, "Q4_K_M")


def completed(model: Model, work: Work, devices: tuple[Device, ...], found: Allocation) -> Allocation:
    """What Ollama leaves to the CPU of itself: llama-server keeps 1 GiB of each GPU free when it chooses the layers."""
    used, run = _settled(model, work, devices)
    if not devices or work.offload != "auto" or run.settings.gpu_layers is not None:
        return found
    least = llamacpp.least_offload_of(run, _less_kept_free(Same(used)))
    if not least:
        return found
    what = f"the experts of {least} layers" if any(run.weights.experts) else f"{least} layers"
    left, figures = room_of(run, used), {**found.figures, "auto_offload": what}
    if left < 0:
        note = f"not all fits: Ollama leaves {what} or so to the CPU, and answers slower"
    else:
        note = f"{format_gib(left)} would be left: Ollama wants 1 GiB and leaves {what} or so to the CPU, unless num_gpu is set as planned"
        figures["num_gpu"] = found.figures["n_gpu_layers"]
    return replace(found, figures=figures, notes=(*found.notes, note))


def least_offload(model: Model, work: Work, devices: tuple[Device, ...]) -> int | None:
    """As llama.cpp's, with Ollama's settings."""
    used, run = _settled(model, work, devices)
    return llamacpp.least_offload_of(run, used)


def _settled(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[tuple[Device, ...], Run]:
    used = _those(devices, _chosen(model, work, devices))
    return used, _run(model, work, used)
