"""What would fit instead: each suggestion is a plan that was computed, with its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Final

from .engines import Work, engine_module
from .engines.weights import weights_of
from .errors import UsageError, VramPlanError
from .formats import find_format, for_engine
from .hardware import Device, common_gpus, device_of
from .inverse import NODE, fewest_gpus, headroom, least_offload, like, longest_context
from .models.model import Model
from .request import make_work
from .results import Term
from .units import format_gib

__all__ = ["offload_notes", "suggestions"]

_SMALLER: Final = {
    True: ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"),
    False: ("FP8", "AWQ"),
}
_SHORTEST: Final = 1024


def suggestions(model: Model, work: Work, devices: tuple[Device, ...], verdict: str) -> tuple[str, ...]:
    """Changes that make it fit, the mildest first; without a GPU, the common ones it fits."""
    if not devices:
        fitting = list(islice((name for name, gpu in _common() if headroom(model, work, gpu) >= 0), 6))
        where = f"fits one of: {', '.join(fitting)}" if fitting else "fits no single common GPU: name several with --gpu"
        return (where, *_other_engine(model, work, devices))
    here = [
        *_quantised_cache(model, work, devices),
        *_shorter_context(model, work, devices),
        *_smaller_format(model, work, devices),
    ]
    here = here or _smaller_and_shorter(model, work, devices)
    other = _other_engine(model, work, devices) if verdict == "does_not_fit" else []
    return (*here, *_offload(model, work, devices), *other, *_larger_gpu(model, work, devices), *_more_gpus(model, work, devices))


@lru_cache(maxsize=1)
def _common() -> tuple[tuple[str, tuple[Device, ...]], ...]:
    """Each common card alone, by its short name."""
    return tuple((_short(spec.name), (device_of(spec),)) for spec in common_gpus())


def _short(name: str) -> str:
    """A card's name without its maker, as people say it."""
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def _effect(model: Model, work: Work, devices: tuple[Device, ...]) -> str:
    """What the change makes of the plan: its size, or what it leaves of the pool where the engine fills its share."""
    found = engine_module(work.engine).allocate(model, work, devices)
    if found.headroom is not None:
        return f"{format_gib(min(found.headroom))} of the KV pool to spare"
    return format_gib(sum(term.bytes for terms in found.devices for term in terms))


def _quantised_cache(model: Model, work: Work, devices: tuple[Device, ...]) -> list[str]:
    small = "q8_0" if work.engine in ("ollama", "llama.cpp") else "fp8"
    if work.kv_k not in ("f16", "bf16", "f32"):
        return []
    changed = replace(work, kv_k=small, kv_v=small)
    try:
        fits = headroom(model, changed, devices) >= 0
    except UsageError:  # llama.cpp without flash attention keeps V in 16 bits
        return []
    if not fits:
        return []
    return [f"--kv {small}: {_effect(model, changed, devices)}, half the KV cache"]


def _shorter_context(model: Model, work: Work, devices: tuple[Device, ...], option: str = "") -> list[str]:
    longest = longest_context(model, work, devices)
    if longest is None or longest < _SHORTEST or longest >= work.context:
        return []
    tokens = longest // 1024 * 1024
    return [f"{option}--ctx {tokens // 1024}k: {_effect(model, replace(work, context=tokens), devices)}"]


def _offload(model: Model, work: Work, devices: tuple[Device, ...]) -> list[str]:
    """Layers, or a mixture's experts, kept in host memory, where the engine can; with the speed that leaves."""
    layers = least_offload(model, work, devices)
    if not layers:
        return []
    from .speed.estimate import estimate

    moved = "experts" if model.architecture.experts else f"{layers} layers"
    changed = replace(work, offload=moved)
    rate = estimate(model, changed, devices, engine_module(work.engine).allocate(model, changed, devices))
    speed = f", about {rate.decode.tokens_per_s:.0f} tokens/s" if rate else ""
    return [f"--offload {moved.removesuffix(' layers')}: {_effect(model, changed, devices)}, the rest in RAM{speed}"]


def offload_notes(model: Model, work: Work, host: Sequence[Term]) -> tuple[str, ...]:
    """Why it is this that lies in host memory, where weights were put there on request."""
    a = model.architecture
    held = sum(term.bytes for term in host if term.group == "weights")
    if work.offload in ("auto", "none") or not held:
        return ()
    if work.offload == "experts" and not a.experts:
        return ("this model has no experts: --offload experts moves nothing; a number of layers would",)
    if work.offload == "experts":
        experts = sum(weights_of(model, work.format).experts)
        read = format_gib(experts * a.experts_per_token // a.experts)
        uses = f"a token uses {a.experts_per_token} of {a.experts} experts: of the {format_gib(experts)} in RAM it reads {read}"
        return (f"{uses}, while attention and KV cache, which it needs whole, stay on the GPU",)
    better = "; --offload experts would keep attention on the GPU" if a.experts else ""
    return (f"what lies in RAM is read whole, at its speed, for every token: the fewer layers the faster{better}",)


def _smaller_formats(work: Work) -> list[Work]:
    formats = (for_engine(find_format(name), work.engine) for name in _SMALLER[work.engine in ("ollama", "llama.cpp")])
    return [replace(work, format=format) for format in formats if format.bits_per_weight < work.format.bits_per_weight]


def _smaller_format(model: Model, work: Work, devices: tuple[Device, ...]) -> list[str]:
    for changed in _smaller_formats(work):
        if headroom(model, changed, devices) >= 0:
            return [f"--quant {changed.format.name}: {_effect(model, changed, devices)}"]
    return []


def _smaller_and_shorter(model: Model, work: Work, devices: tuple[Device, ...]) -> list[str]:
    """Where no one change is enough: the widest format that leaves room for some context."""
    for changed in _smaller_formats(work):
        found = _shorter_context(model, changed, devices, f"--quant {changed.format.name} ")
        if found:
            return found
    return []


def _other_engine(model: Model, work: Work, devices: tuple[Device, ...]) -> list[str]:
    """For an engine that keeps all on the GPUs: what Ollama, or llama.cpp on several, makes of the usual 4 bits on the same GPUs."""
    name = "llama.cpp" if len(devices) > 1 else "ollama"
    if work.engine not in ("vllm", "sglang", "transformers") or (devices and devices[-1].node):
        return []
    try:
        changed = make_work(model, len(devices), context=work.context, sequences=work.sequences, engine=name, bits=4)[0]
        if not devices or headroom(model, changed, devices) >= 0:
            return [f"--engine {name} --bits 4: {_effect(model, changed, devices)}"]
        changed = make_work(model, len(devices), context=work.context, sequences=work.sequences, engine="llama.cpp", bits=4)[0]
        return [f"--engine llama.cpp --bits 4 {option}" for option in _offload(model, changed, devices)]
    except VramPlanError:  # a model that engine does not run
        return []


def _larger_gpu(model: Model, work: Work, devices: tuple[Device, ...]) -> list[str]:
    largest_now = max(device.usable for device in devices)
    for name, gpu in _common():
        if gpu[0].usable > largest_now and headroom(model, work, gpu) >= 0:
            return [f'--gpu "{name}": {_effect(model, work, gpu)}']
    return []


def _more_gpus(model: Model, work: Work, devices: tuple[Device, ...]) -> list[str]:
    """More of the same card, as few as do; unified memory is not added to."""
    spec = devices[0].spec
    count = fewest_gpus(model, work, devices) if spec else None
    if spec is None or count is None or count <= len(devices):
        return []
    machine = f"{count}x {_short(spec.name)}" if count <= NODE else f"{count // NODE} nodes x {NODE}x {_short(spec.name)}"
    kept = f" --engine {work.engine}" if work.engine == "ollama" else ""  # by itself the command takes vLLM on several
    alone = replace(work, tensor_parallel=1, pipeline_parallel=1)
    return [f'--gpu "{machine}"{kept}: {_effect(model, alone, like(devices[0], count))}']
