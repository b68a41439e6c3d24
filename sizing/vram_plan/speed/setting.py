"""What of a request does not change with context, sequences and prompt: looked up once, so that an estimate is arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..engines.base import Work
from ..formats.cache_types import CACHE_TYPES
from ..hardware import Device
from ..models.model import Model
from ..values import dataclass
from .constants import (
    DecodeConstants,
    Evidence,
    PrefillConstants,
    ServerConstants,
    decode_constants,
    prefill_constants,
    server_constants,
    table,
)
from .hardware import Rates, backend_of, rates_of
from .measured import Measured, described, measured_of, rates_measured
from .reads import Reads, reads_of
from .roofline import UBATCH, Ranks
from .server import far_apart, link_rate, peak_flops, quantises_activations
from .words import age_of, flag, version_age

__all__ = ["LLAMA", "Gpu", "Setting", "setting_of"]

LLAMA: Final = ("llama.cpp", "ollama")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a layer split: its share of the layers, its rates and constants."""

    share: float
    rates: Rates
    decode: DecodeConstants
    prefill: PrefillConstants


@dataclass(frozen=True, slots=True)
class Setting:
    """A model in a format on an engine and devices. `gpus` for llama.cpp's layer split, `server` for tensor-parallel ranks."""

    reads: Reads
    element_bytes: tuple[float, float]
    ubatch: int
    evidence: Evidence
    basis: str
    watts: float | None
    gpus: tuple[Gpu, ...] = ()
    server: ServerConstants | None = None
    ranks: Ranks | None = None
    layer_factor: float = 1.0
    measured: Measured | None = None


_Key = tuple[object, ...]
#: By identity of model and devices: hashing a device takes longer than an estimate. Values keep what the ids are of.
_FOUND: Final[dict[_Key, tuple[Model, tuple[Device, ...], Setting | None]]] = {}
_MOST_FOUND: Final = 1024


def setting_of(model: Model, work: Work, devices: tuple[Device, ...], layers: tuple[int, ...] = ()) -> Setting | None:
    """The setting; None where a device's rates are not known. `layers` of each device, where they are shared out one by one."""
    asked = (work.tensor_parallel, work.pipeline_parallel, layers)
    key = (id(model), work.engine, work.format.name, work.kv_k, work.kv_v, *asked, work.options, *map(id, devices))
    found = _FOUND.get(key)
    if found is None:
        if len(_FOUND) >= _MOST_FOUND:
            _FOUND.clear()
        found = _FOUND[key] = (model, devices, _with_measured(_setting(model, work, devices, layers), work, devices))
    return found[2]


def _with_measured(setting: Setting | None, work: Work, devices: tuple[Device, ...]) -> Setting | None:
    """In place of the fitted constants what was measured on these devices, if anything. A device of no catalogue row has no others."""
    ranks = setting.ranks.count if setting and setting.ranks else 1
    measured = measured_of(work, devices, ranks, setting.basis) if setting else None
    if not all(described(device, work.engine) for device in devices) and not (measured and measured.whole):
        return None
    return replace(setting, measured=measured, basis=measured.basis) if setting and measured else setting


def _setting(model: Model, work: Work, devices: tuple[Device, ...], layers: tuple[int, ...]) -> Setting | None:
    named = str(work.option("backend") or "").lower()
    fitted = table()["llama.cpp"]
    backend = named if named in (*fitted, "cpu") else backend_of(devices[0].vendor)
    known = [rates_of(device, backend) if described(device, work.engine) else rates_measured(device) for device in devices]
    rates = [found for found in known if found]
    if len(rates) < len(devices) or (work.engine in LLAMA and not (backend in fitted and all(device.spec for device in devices))):
        return None
    reads = reads_of(model, work.format)
    elements = (float(CACHE_TYPES[work.kv_k]), float(CACHE_TYPES[work.kv_v]))
    if work.engine not in LLAMA:
        return _served(model, work, devices, reads, elements, rates)
    gpus = _split(reads, work, backend, rates, devices, layers)
    evidence = min((gpu.decode.evidence for gpu in gpus), key=lambda one: (one.own_architecture, one.rows))
    return Setting(reads, elements, _ubatch(work), evidence, _basis(evidence), _watts(devices), gpus)


def _served(
    model: Model, work: Work, devices: tuple[Device, ...], reads: Reads, elements: tuple[float, float], rates: list[Rates]
) -> Setting:
    """Of vLLM, SGLang and transformers, whose GPUs work on the same layers together."""
    from ..engines.vllm.settings import copies, split  # a llama.cpp plan needs nothing of vLLM's
    from ..engines.vllm.specs import checkpoint_cache

    slowest = min(rates, key=lambda one: one.bandwidth)
    engine = work.engine if work.engine in table()["servers"] else "vllm"
    age = version_age(work.option("version")) if engine == "vllm" else 0.0
    server = server_constants(engine, slowest.architecture, bool(reads.experts), quantises_activations(work.format), age)
    eager = work.engine == "transformers"  # its layers are shared out one after the other: the GPUs work in turn
    count, stages = (1, 1) if eager else split(model, work, devices)
    data = copies(work) if work.engine == "vllm" else 1
    together = devices[: count * (data if reads.experts else 1)]  # of a pipeline's stages each sums within itself
    ranks = Ranks(count, slowest, peak_flops(slowest, work.format), link_rate(together), data, stages)
    if far_apart(together):
        server = replace(server, reduce_s=max(server.reduce_s, float(table()["assumed"]["far_reduce_s"]["value"])))
    if work.engine == "vllm" and checkpoint_cache(model) == "fp8":
        elements = (float(CACHE_TYPES["fp8"]), float(CACHE_TYPES["fp8"]))
    return Setting(
        reads, elements, UBATCH, server.evidence, _basis(server.evidence) + ("; eager kernels assumed" if eager else ""), _watts(devices),
        server=server, ranks=ranks, layer_factor=float(table()["assumed"]["transformers_layer"]["value"]) if eager else 1.0,
    )  # fmt: skip


def _split(
    reads: Reads, work: Work, backend: str, rates: list[Rates], devices: tuple[Device, ...], layers: tuple[int, ...]
) -> tuple[Gpu, ...]:
    """Each GPU's share of the layers: as they were counted, else by its memory, as llama.cpp splits."""
    flash, age = flag(work.option("flash_attn"), True), age_of(work.option("build", ""))
    moe, family = bool(reads.experts), reads.weight_family
    parts = layers if len(layers) == len(devices) and any(layers) else tuple(device.usable for device in devices)
    total = sum(parts)
    return tuple(
        Gpu(
            part / total if total else 1 / len(devices),
            one,
            decode_constants(backend, one.architecture, family, moe, flash, age, one.dies),
            prefill_constants(backend, one.architecture, family, moe, flash, age),
        )
        for part, one in zip(parts, rates, strict=True)
        if part or not total
    )


def _ubatch(work: Work) -> int:
    value = str(work.option("ubatch", UBATCH))
    return int(value) if value.isdigit() and len(value) < 8 and int(value) else UBATCH


def _basis(evidence: Evidence) -> str:
    kind = "processor" if evidence.label.startswith("cpu") else "GPU"
    gpus = f"{evidence.gpus} {kind}s" if evidence.gpus != 1 else f"one {kind}"
    return f"fitted constants ({evidence.label}; {evidence.rows} measurements on {gpus})"


def _watts(devices: tuple[Device, ...]) -> float | None:
    """The power limit of all GPUs together; None where one is not known."""
    limits = [device.power_limit_w or (device.spec.power_w if device.spec else None) for device in devices]
    return sum(limit for limit in limits if limit) if all(limits) else None
