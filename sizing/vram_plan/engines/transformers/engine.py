"""transformers: weights as loaded, a cache that grows by concatenation, and one forward pass over the whole prompt.

The prefill is planned for a prompt as long as the context: nothing is chunked. Several GPUs hold layers one after the other,
as device_map="auto" places them. Source: transformers 5.23.0 (cache_utils.py, integrations/accelerate.py, integrations/moe.py).
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from vram_plan_data import ROOT

from ...formats.storage import storage_bytes
from ...hardware.device import Device
from ...models.architecture import Basis, CacheLayer
from ...models.model import Model
from ...results import Term
from ...units import MIB
from ...values import dataclass
from ..base import Allocation, Work
from ..measured import measured_runtime
from ..need import weights_why
from ..options import choice
from ..weights import weights_of
from .forward import Forward, Habits, cat_bytes, forward_of

__all__ = ["DEFAULT_KV", "OFFLOADS", "OPTIONS", "allocate", "layer_split"]

DEFAULT_KV: Final = "bf16"
#: What may be kept in host memory on request.
OFFLOADS: Final = ("layers",)
OPTIONS: Final[Mapping[str, str]] = {
    "attention": "sdpa, eager or flash (default: sdpa; eager where the class has no sdpa)",
    "cache": "dynamic or static (default dynamic)",
    "logits": "last: of the last token, as generate() asks for; all: of the whole prompt (last)",
}
#: Of what accelerate may use on each GPU, the room it leaves: 1.25 × the largest block or matrix.
_ROOM: Final = 1.25
#: Allowance for torch's caching allocator: what small blocks leave of their segments, and half a rounding step per cache tensor.
_SMALL_BLOCKS, _ROUNDING = 32 * MIB, MIB


@dataclass(frozen=True, slots=True)
class _Asked:
    attention: str
    static: bool
    all_logits: bool
    eager_only: bool


@dataclass(frozen=True, eq=False, slots=True)
class _Loaded:
    """The weights as transformers loads them: inputs, each layer, and norm and head; `copy` is what a matrix takes unpacked."""

    before: int
    layers: tuple[int, ...]
    after: int
    largest: int
    copy: int
    basis: Basis
    why: str
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.before + sum(self.layers) + self.after


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """What one GPU has: its layers, weights, and their caches, those that are alike once with their number.

    `transit`: weights of a host layer while it runs here.
    """

    weights: int
    layers: tuple[int, ...]
    cache: tuple[tuple[CacheLayer, int], ...]
    transit: int
    last: bool


def allocate(model: Model, work: Work, devices: tuple[Device, ...]) -> Allocation:
    """Weights, cache and the forward pass's peak on each GPU. Pure; see `Engine.allocate`."""
    asked = _asked(model, work.options)
    loaded = _loaded(model, work.format)
    places, host = _places(model, loaded, max(len(devices), 1), _offloaded(work, len(loaded.layers)))
    forward = forward_of(model, 4 if work.kv_k == "f32" else 2, _habits(model))
    terms = tuple(
        (*_terms(model, work, asked, loaded, place, forward), _runtime(devices[i] if devices else None)) for i, place in enumerate(places)
    )
    on_host = (Term("weights", host, loaded.basis, f"{_offloaded(work, len(loaded.layers))} layers kept in host memory", "weights"),)
    return Allocation(
        terms,
        host=on_host if host else (),
        figures={
            "attention": asked.attention,
            "cache": "static" if asked.static else "dynamic",
            "layers_per_device": [len(place.layers) for place in places],
            "peak": forward.where,
        },
        notes=(*loaded.notes, *_notes(model, asked)),
        refusal=_refusal(work),
    )


# --- what was asked ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _facts() -> dict[str, Any]:
    return tomllib.loads((ROOT / "transformers.toml").read_text(encoding="utf-8"))


def _types(model: Model) -> set[object]:
    config = model.config or {}
    text = config.get("text_config")
    return {config.get("model_type"), text.get("model_type") if isinstance(text, Mapping) else None}


@lru_cache(maxsize=512)
def _habits(model: Model) -> Habits:
    facts, types = _facts(), _types(model)
    score = next((row[1] for row in facts["scores"]["types"] if row[0] in types), 0)
    late, wide, spare = (any(kind in types for kind in facts[name]["types"]) for name in ("late_norms", "wide_routing", "spare_mask"))
    return Habits(score, late, wide, spare)


@lru_cache(maxsize=512)
def _asked(model: Model, options: tuple[tuple[str, Any], ...]) -> _Asked:
    given = dict(options)
    eager_only = any(isinstance(kind, str) and kind in _facts()["eager_only"]["types"] for kind in _types(model))
    attention = choice(given, "attention", ("sdpa", "eager", "flash")) or ("eager" if eager_only else "sdpa")
    return _Asked(
        attention="eager" if eager_only and attention == "sdpa" else attention,
        static=choice(given, "cache", ("dynamic", "static")) == "static",
        all_logits=choice(given, "logits", ("last", "all")) == "all",
        eager_only=eager_only,
    )


def _offloaded(work: Work, layers: int) -> int:
    return min(int(work.offload.split()[0]), layers) if work.offload.endswith("layers") else 0


def _refusal(work: Work) -> str | None:
    if work.kv_k not in ("bf16", "f16", "f32") or work.kv_k != work.kv_v:
        return f"transformers keeps its cache in the model's own 16 bits, not in {work.kv_k}: leave --kv out"
    if work.tensor_parallel > 1 or work.pipeline_parallel > 1:
        return 'planned as device_map="auto", which shares layers out: leave --tp and --pp out'
    return None


# --- weights ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _loaded(model: Model, format: Any) -> _Loaded:
    """The weights as the format stores them; a GGUF is unpacked to 16 bits."""
    weights = weights_of(model, format)
    bits = format.stored_as if format.name in ("NF4", "NF4-DQ", "INT8") else ""
    unpacked = format.family == "gguf" and format.stored_as not in ("F16", "BF16", "F32")
    layers, before, after, largest, matrix = [0] * len(weights.layers), 0, 0, 0, 0
    for tensor in weights.tensors:
        if tensor.part == "mtp":
            continue
        size = storage_bytes("BF16" if unpacked else tensor.stored_as, tensor.shape)
        largest = max(largest, size)
        if bits in ("NF4", "NF4DQ") and tensor.stored_as == bits:
            matrix = max(matrix, 2 * tensor.parameters)
        if tensor.part == "text" and tensor.layer is not None:
            layers[tensor.layer] += size
        elif tensor.role in ("output", "output.bias", "output_norm", "output_norm.bias"):
            after += size
        else:
            before += size
    total = before + sum(layers) + after
    notes = []
    if unpacked:
        notes.append("transformers unpacks a GGUF to 16 bits when it loads it")
    if bits and any(tensor.experts and tensor.stored_as != bits for tensor in weights.tensors):
        notes.append("bitsandbytes packs no stacks of experts: they stay in 16 bits (transformers 5)")
    bits_each = 8 * total / max(model.parameters.total, 1)
    why = weights_why(model, weights) if total == weights.total else f"{bits_each:.2f} bits a parameter as loaded"
    return _Loaded(before, tuple(layers), after, largest, matrix, weights.basis, why, tuple(notes))


def layer_split(model: Model, work: Work, count: int) -> tuple[int, ...]:
    """Layers on each of `count` GPUs."""
    loaded = _loaded(model, work.format)
    return tuple(len(place.layers) for place in _places(model, loaded, count, _offloaded(work, len(loaded.layers)))[0])


@lru_cache(maxsize=512)
def _places(model: Model, loaded: _Loaded, count: int, away: int) -> tuple[tuple[_Place, ...], int]:
    """Inputs, layers and head in their order, each GPU up to an even share and room for one more block; the last takes the rest."""
    kept = len(loaded.layers) - away
    blocks = [loaded.before, *loaded.layers[:kept], loaded.after]
    biggest = max((loaded.largest, *loaded.layers))
    limit = sum(blocks) // count + int(_ROOM * biggest)
    homes: list[int] = []
    device = used = 0
    for block in blocks:
        room = limit - (biggest if device == 0 else 0)
        if device < count - 1 and used + block > room and homes and homes[-1] == device:
            device, used = device + 1, 0
        homes.append(device)
        used += block
    places = []
    for i in range(count):
        mine = tuple(n for n in range(kept) if homes[n + 1] == i)
        running = (*mine, *range(kept, len(loaded.layers))) if i == 0 else mine
        alike = Counter(layer.anywhere for layer in model.cache_layers if layer.layer in running)
        size = sum(block for block, home in zip(blocks, homes, strict=True) if home == i)
        transit = max(loaded.layers[kept:], default=0) if i == 0 else 0
        places.append(_Place(size, mine, tuple(alike.items()), transit, homes[-1] == i))
    return tuple(places), sum(loaded.layers[kept:])


# --- cache and forward pass -------------------------------------------------------------------------------------------


def _terms(model: Model, work: Work, asked: _Asked, loaded: _Loaded, place: _Place, forward: Forward) -> tuple[Term, ...]:
    n, basis = work.sequences, model.architecture.basis
    kv = _kv(place, work.context, asked.static, forward.element) * n
    state = sum(count * (forward.element * c.conv_elements + 4 * c.state_elements) for c, count in place.cache) * n
    peak, why = _peak(work, asked, place, forward)
    tensors = 2 * sum(count for c, count in place.cache if c.kv_heads)
    terms = [
        Term("weights", place.weights, loaded.basis, loaded.why, "weights"),
        Term("kv_cache", kv, basis, _kv_why(work, asked, place), "kv_cache"),
        Term("state", state, basis, "convolution and recurrent states of each sequence", "state"),
        Term("activations", peak, basis if forward.where != "state" else "fallback", why, "compute"),
        Term("unpacked", loaded.copy, basis, "one 4-bit matrix unpacked to be multiplied with a prompt", "compute"),
        Term("in_transit", place.transit, loaded.basis, "a layer copied from host memory while it runs", "compute"),
        Term("allocator", _SMALL_BLOCKS + tensors * _ROUNDING, "fallback", "allowance for torch's allocator: rounding and gaps", "runtime"),
    ]
    return tuple(term for term in terms if term.bytes)


def _kv(place: _Place, context: int, static: bool, element: int) -> int:
    """One sequence's cache: a dynamic window keeps W − 1 tokens, a static one W from the start."""
    if not static:
        return sum(count * layer.kv_elements(context) for layer, count in place.cache) * element
    return sum(count * _static_elements(layer, context) for layer, count in place.cache) * element


def _static_elements(layer: CacheLayer, context: int) -> int:
    windowed = layer.kind in ("sliding", "chunked") and layer.window
    return min(context, layer.window) * layer.elements_per_token if windowed else layer.kv_elements(context)


def _peak(work: Work, asked: _Asked, place: _Place, forward: Forward) -> tuple[int, str]:
    """The larger of the prefill and of one more token at the full context, beside the cache as it is at the end."""
    n, context, element = work.sequences, work.context, forward.element
    if not place.cache and not place.last:
        return 0, ""
    whole = 0 if asked.static else _beyond_windows(place, context)
    prefill = forward.prefill(context, n, asked.attention == "eager", asked.all_logits) + whole * element * n
    joined = 0 if asked.static else cat_bytes((layer for layer, _ in place.cache), context, element)
    decode = joined + forward.expand * context + forward.logits
    if decode * n > prefill:
        return decode * n, "one layer's cache as it is copied to grow, and the logits"
    why = f"prefill of {context:,} tokens" + (f" × {n}" if n > 1 else "")
    if asked.attention == "eager":
        return prefill, f"{why}: eager attention keeps {forward.scores} heads × {context:,}² scores"
    why += f", at the {forward.where}: {forward.token:,} B a token"
    return prefill, why + (", and whole prompts in windowed layers until the first answer token" if whole else "")


def _beyond_windows(place: _Place, context: int) -> int:
    """Elements of the prompt that windowed layers hold until the first answer token: what they keep is a view of the whole."""
    return sum(
        count * (context - layer.tokens_held(context)) * layer.elements_per_token
        for layer, count in place.cache
        if layer.kind in ("sliding", "chunked") and layer.window
    )


def _kv_why(work: Work, asked: _Asked, place: _Place) -> str:
    layers = sum(count for layer, count in place.cache if layer.kv_heads or layer.k_dim)
    windows = sum(count for layer, count in place.cache if layer.window)
    kind = "allocated at once" if asked.static else "grows with each token"
    kept = f", {windows} of them windows" if windows else ""
    return f"{work.context:,} tokens × {work.sequences} in {layers} layers{kept}; {kind}"


def _runtime(device: Device | None) -> Term:
    if measured := measured_runtime(device, "transformers"):
        return Term("runtime", measured[0], "measured", measured[1], "runtime")
    rows = _facts()["runtime"]
    major = device.capability[0] if device and device.capability else 0
    mib, basis = next((row[1], row[2]) for row in rows["mib"] if row[0] in (0, major))
    known: Basis = "measured" if basis == "measured" else "fallback"
    return Term("runtime", mib * MIB, known, "driver context and libraries, from start-up logs", "runtime")


def _notes(model: Model, asked: _Asked) -> tuple[str, ...]:
    notes = []
    if asked.eager_only and asked.attention == "eager":
        notes.append("this class has no SDPA attention: eager keeps all scores; --set attention=flash plans a flash kernel")
    if any(layer.kind == "recurrent" for layer in model.cache_layers):
        notes.append("planned with the kernels for state layers installed; without them the prefill takes several times as much")
    return tuple(notes)
