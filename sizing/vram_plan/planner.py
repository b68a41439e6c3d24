"""The whole walk: model and request → engine's allocation → devices → verdict and inverse questions → Plan."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from .engines import Allocation, Work, engine_module, engine_name
from .engines.need import kv_bytes
from .engines.weights import weights_of
from .errors import UsageError
from .hardware import Detection, Device, resolve, this_processor
from .hardware.device import is_processor
from .inverse import allocated, at, fewest_gpus, least_offload, longest_context, most_sequences
from .launching import launch
from .models.loading import load
from .models.model import Model
from .request import default_engine, make_work
from .results import (
    DevicePlan,
    Fit,
    HostPlan,
    Memory,
    ModelSummary,
    Need,
    Note,
    Plan,
    RequestSummary,
    SpeedEstimate,
    Verdict,
)  # fmt: skip
from .suggest import offload_notes, suggestions
from .units import MIB, format_gib

__all__ = ["engine_on", "max_context", "max_sequences", "named_machine", "plan"]

#: Less than this share of the usable memory left over is called tight: a desktop or a second program takes as much.
TIGHT_SHARE: Final = 0.04
#: A range of prefill whose ends are this many times apart says little.
WIDE: Final = 5
#: Less than this held by others goes without a note: the driver's own share.
NOTICEABLE: Final = 100 * MIB


def plan(
    model: Model | str,
    *,
    context: int | str | None = None,
    bits: int | None = None,
    quant: str | None = None,
    engine: str | None = None,
    gpus: str | Sequence[Device] | Detection | None = None,
    sequences: int = 1,
    kv_type: str | None = None,
    kv_type_k: str | None = None,
    kv_type_v: str | None = None,
    tensor_parallel: int | None = None,
    pipeline_parallel: int | None = None,
    expert_parallel: bool = False,
    offload: str = "auto",
    prompt: int | str | None = None,
    output: int | str | None = None,
    options: Mapping[str, Any] | None = None,
    offline: bool = False,
) -> Plan:
    """Plan a model's memory: every byte with its reason, the verdict, and how far it could go.

    `model` is a loaded Model or the text `load` takes. `context` (tokens of one sequence, "16k" too) defaults to 8k
    or the trained context if that is shorter. `bits` or `quant` choose the number format, the checkpoint's own by
    default. `gpus` is a text ("2x RTX 3090", "8GB"), devices, what `local_devices` found, "local" for this machine's,
    "cpu" for its processor (or one by name: "Ryzen 9 7950X 64GB"), or None for no verdict.
    On a loaded model and anything but "local" and "cpu" nothing is read or asked: pure, deterministic, thread-safe.

    Raises UsageError for values that cannot be meant, ModelError where the model cannot be had, HubError,
    FormatError, HardwareError.
    """
    machine = named_machine(gpus)
    loaded = load(model, offline=offline) if isinstance(model, str) else model
    taken = engine_on(machine.devices, engine, loaded, bits, quant)
    work, notes = make_work(
        loaded, len(machine.devices), context=context, bits=bits, quant=quant, engine=taken, sequences=sequences, kv_type=kv_type,
        kv_type_k=kv_type_k, kv_type_v=kv_type_v, tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel,
        expert_parallel=expert_parallel, offload=offload, prompt=prompt, output=output, options=options,
    )  # fmt: skip
    if taken != engine:
        notes = (Note("info", f"engine not given: {work.engine.replace('ollama', 'Ollama')} (vLLM does not run here)"), *notes)
    return evaluate(loaded, _with_draft(work, offline), machine, notes)


def _with_draft(work: Work, offline: bool) -> Work:
    """The draft model an option names, loaded as the model is: with or without the network."""
    name = work.option("draft")
    if not isinstance(name, str):
        return work
    return replace(work, options=tuple((key, load(name, offline=offline) if key == "draft" else value) for key, value in work.options))


def evaluate(model: Model, work: Work, machine: Detection, notes: tuple[Note, ...] = ()) -> Plan:
    """The plan of parsed work on resolved devices."""
    devices = machine.devices
    module = engine_module(work.engine)
    found = allocated(model, work, devices)
    if hasattr(module, "completed"):
        found = module.completed(model, work, devices, found)
    placed = _place(found, devices)
    fit = _fit(model, work, devices, found, placed)
    speed = _speed(model, work, devices, found)
    return Plan(
        model=summary(model),
        request=_request_summary(work),
        need=Need(weights_of(model, work.format).total, kv_bytes(model, work), model.state_bytes * work.sequences),
        kv_bytes_per_token=_kv_per_token(model, work),
        devices=placed,
        host=HostPlan(found.host, sum(term.bytes for term in found.host)),
        memory=_memory(placed),
        fit=fit,
        engine=dict(found.figures),
        speed=speed,
        launch=launch(model, work, devices, found),
        notes=(
            *(Note("info", text) for text in model.notes),
            *notes,
            *((Note("warning", f"the engine would not start: {found.refusal}"),) if found.refusal else ()),
            *(Note("info", text) for text in machine.notes),
            *_device_notes(devices),
            *_speed_note(work, devices, speed),
            *_spill_note(machine, fit.verdict),
            *((Note("info", machine.reason),) if machine.reason and not devices else ()),
            *(Note("info", text) for text in (*found.notes, *offload_notes(model, work, found.host))),
        ),
    )


def _speed(model: Model, work: Work, devices: tuple[Device, ...], found: Allocation) -> SpeedEstimate | None:
    if not devices:
        return None
    from .speed.estimate import estimate

    return estimate(model, work, devices, found)


def _speed_note(work: Work, devices: tuple[Device, ...], speed: SpeedEstimate | None) -> tuple[Note, ...]:
    """Why a device that was calibrated has no speed all the same, and what is hardly more than a guess."""
    if speed is not None and speed.prefill.high > WIDE * speed.prefill.low:
        text = "prompts were measured on too few GPUs of this kind to say more of the first token: vram-plan calibrate measures your own"
        return (Note("info", text),)
    if speed is not None or not any(device.profile for device in devices):
        return ()
    from .speed.measured import why_no_speed

    why = why_no_speed(work, devices)
    return (Note("info", f"no speed: the calibration of {devices[0].name} is not used: {why}"),) if why else ()


def max_context(model: Model | str, **request: Any) -> int | None:
    """The longest context that fits, exact to the token; 0 when none does; None without a GPU or where memory sets
    no limit. Takes what `plan` takes."""
    return plan(model, **request).fit.max_context


def max_sequences(model: Model | str, **request: Any) -> int | None:
    """The most sequences of this context that fit at once; else as `max_context`."""
    return plan(model, **request).fit.max_sequences


def named_machine(gpus: str | Sequence[Device] | Detection | None) -> Detection:
    """What `plan` takes for GPUs, as devices."""
    if gpus is None:
        return Detection()
    if isinstance(gpus, Detection):
        return gpus
    if not isinstance(gpus, str):
        return Detection(tuple(gpus))
    named = gpus.strip().lower()
    return this_processor() if named == "cpu" else resolve(gpus) if named == "local" else _named(gpus)


def engine_on(
    devices: Sequence[Device], engine: str | None, model: Model | None = None, bits: int | None = None, quant: str | None = None
) -> str | None:
    """The engine asked for, or where none was and vLLM would be taken but does not run: Ollama on a GPU (Apple's, or before Volta),
    transformers on a processor (Ollama where GGUF formats are asked about). Raises UsageError for one that does not run on a processor."""
    if not is_processor(devices):
        served = engine or not devices or (model is not None and default_engine(model, len(devices), bits, quant) != "vllm")
        return engine if served or all(map(_serves, devices)) else "ollama"
    if engine is None:
        return "ollama" if model is None or default_engine(model, 1, bits, quant) == "ollama" else "transformers"
    if engine_name(engine) not in ("llama.cpp", "ollama", "transformers"):
        raise UsageError(f"{engine} is not planned on a processor", "take --engine llama.cpp, ollama or transformers")
    return engine


def _serves(device: Device) -> bool:
    """Whether vLLM runs on a GPU (its installation pages)."""
    return device.vendor != "Apple" and (device.capability is None or device.capability >= (7, 0))


@lru_cache(maxsize=256)
def _named(gpus: str) -> Detection:
    return resolve(gpus)


def _place(found: Allocation, devices: tuple[Device, ...]) -> tuple[DevicePlan, ...]:
    if not devices:
        return tuple(
            DevicePlan("any GPU", i, None, None, None, terms, sum(t.bytes for t in terms), None) for i, terms in enumerate(found.devices)
        )
    placed = []
    for i, (device, terms) in enumerate(zip(devices, found.devices, strict=True)):
        used = sum(term.bytes for term in terms)
        room = device.available - used if found.headroom is None else found.headroom[i]
        placed.append(DevicePlan(device.name, device.index, device.total, device.usable, device.free, terms, used, room))
    return tuple(placed)


def _fit(model: Model, work: Work, devices: tuple[Device, ...], found: Allocation, placed: tuple[DevicePlan, ...]) -> Fit:
    if not devices:
        return Fit("unknown", None, None, None, None, suggestions(model, work, devices, "unknown"), refusal=found.refusal)
    rooms = [device.headroom or 0 for device in placed]
    room = min(rooms)
    verdict, fits = verdict_of(rooms, devices, found), room >= 0 and not found.refusal
    alone = fits and len(devices) == work.tensor_parallel == work.pipeline_parallel == 1
    return Fit(
        verdict,
        room,
        placed[rooms.index(room)].index,
        longest_context(model, work, devices),
        most_sequences(model, work, devices),
        () if verdict == "fits" else suggestions(model, work, devices, verdict),
        1 if alone else fewest_gpus(model, work, devices),
        least_offload(model, work, devices, fits),
        found.refusal,
    )


def verdict_of(rooms: Sequence[int], devices: Sequence[Device], found: Allocation) -> Verdict:
    """The verdict on devices with this many bytes left over each."""
    room = min(rooms)
    if room < 0 or found.refusal:
        return "does_not_fit"
    return "tight" if room < TIGHT_SHARE * devices[rooms.index(room)].usable else "fits"


def _device_notes(devices: tuple[Device, ...]) -> tuple[Note, ...]:
    """What else holds memory of a device now, and what there is to know of unified memory."""
    notes = []
    for device in devices:
        if device.processes or device.used_by_others > NOTICEABLE:
            holders = ", ".join(f"{p.name or 'process'} ({p.pid}) {format_gib(p.bytes)}" for p in device.processes[:4] if p.bytes)
            where = "the memory" if device.vendor == "CPU" else f"GPU {device.index}"
            held = f"{format_gib(device.used_by_others)} of {where} is held by other programs"
            notes.append(Note("info", f"{held}: {holders}" if holders else held))
        if device.unified and device.note:
            notes.append(Note("info", device.note))
    return tuple(dict.fromkeys(notes))


def _spill_note(machine: Detection, verdict: Verdict) -> tuple[Note, ...]:
    """What Windows does where memory runs out on this machine's GPUs (WDDM; NVIDIA's drivers from 536.40)."""
    if sys.platform != "win32" or not machine.local or verdict not in ("tight", "does_not_fit"):
        return ()
    text = "Windows moves what a full GPU cannot hold into shared memory (at most half of RAM) rather than fail: many times slower"
    nvidia = any(device.vendor == "NVIDIA" for device in machine.devices)
    off = "; NVIDIA's control panel turns it off: CUDA - Sysmem Fallback Policy, Prefer No Sysmem Fallback" if nvidia else ""
    return (Note("warning", text + off),)


def _memory(placed: tuple[DevicePlan, ...]) -> Memory:
    sums = {"weights": 0, "kv_cache": 0, "state": 0, "compute": 0, "runtime": 0}
    total = 0
    for device in placed:
        for term in device.terms:
            sums[term.group] += term.bytes
            total += term.bytes
    return Memory(**sums, total=total)


@lru_cache(maxsize=256)
def _compression(model: Model) -> int:
    return max((layer.compress_ratio for layer in model.cache_layers), default=0)


def _kv_per_token(model: Model, work: Work) -> int:
    """What one more token of this context adds for one sequence; once windows are full they add nothing."""
    ahead = 1 + _compression(model)
    one = at(work, sequences=1)
    return (kv_bytes(model, at(one, context=work.context + ahead)) - kv_bytes(model, one)) // ahead


@lru_cache(maxsize=256)
def summary(model: Model) -> ModelSummary:
    """The model without its lists."""
    a = model.architecture
    return ModelSummary(
        model.name, model.source, model.revision, a.name, a.trained_context, a.tied_embeddings, model.parameters, a.layers, a.hidden_size,
        a.vocab_size, a.state_bytes, model.stored_format, model.stored_bytes, model.basis,
    )  # fmt: skip


def _request_summary(work: Work) -> RequestSummary:
    return RequestSummary(
        work.engine, None, work.format.name, work.kv_k, work.kv_v, work.context, work.sequences, work.prompt, work.output,
        work.tensor_parallel, work.pipeline_parallel, work.expert_parallel, work.offload,
        {name: value.name if isinstance(value, Model) else value for name, value in work.options},
    )  # fmt: skip
