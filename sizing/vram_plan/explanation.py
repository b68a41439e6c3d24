"""A plan's arithmetic, written out with its model's own numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby

from .engines.weights import weights_of
from .formats import find_format, for_engine
from .formats.storage import storage_bytes
from .models.architecture import CacheLayer
from .models.model import Model
from .results import DevicePlan, Plan, SpeedEstimate
from .units import format_gib

__all__ = ["Section", "explain"]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the walk: a title, and lines that can be read on their own."""

    title: str
    lines: tuple[str, ...]


def explain(model: Model, plan: Plan) -> tuple[Section, ...]:
    """Every formula of a plan with its numbers: parameters, weights, KV cache, the engine's terms, the verdict, the speed."""
    return (
        Section("Parameters", tuple(parameter_lines(model))),
        Section(f"Weights as {plan.request.quant}", tuple(weight_lines(model, plan))),
        Section("KV cache and state", tuple(kv_lines(model, plan))),
        Section("What the engine takes", tuple(term_lines(plan))),
        Section("Verdict", tuple(verdict_lines(plan))),
        *((Section("Speed", tuple(speed_lines(plan.speed))),) if plan.speed else ()),
    )


def parameter_lines(model: Model) -> list[str]:
    """Each kind of weight: rows × columns × how many there are."""
    shapes: dict[tuple[str, str, tuple[int, ...]], int] = defaultdict(int)
    for tensor in model.architecture.tensors:
        shapes[tensor.part, tensor.role, tensor.shape] += 1
    lines = [
        f"{role:24} {' × '.join(f'{n:,}' for n in shape)}{f' × {count} layers' if count > 1 else ''} = {count * math.prod(shape):,}"
        for (part, role, shape), count in shapes.items()
        if part == "text"
    ]
    p = model.parameters
    for name, size in (("vision tower", p.vision), ("audio tower", p.audio), ("projector", p.projector)):
        if size:
            lines.append(f"{name:24} {size:,}")
    lines.append(f"{'total':24} {p.total:,}" + (f", of which {p.active:,} are used for a token" if p.active != p.total else ""))
    return lines


def weight_lines(model: Model, plan: Plan) -> list[str]:
    """The weights by the number format each is stored in, and what plain arithmetic would have said."""
    weights = weights_of(model, for_engine(find_format(plan.request.quant), plan.request.engine))
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for tensor in weights.tensors:
        if tensor.part != "mtp":
            numbers, size = counts[tensor.stored_as]
            counts[tensor.stored_as] = numbers + tensor.parameters, size + storage_bytes(tensor.stored_as, tensor.shape)
    lines = [
        f"{stored_as:12} {numbers:,} numbers × {8 * size / numbers:.4g} bits = {size:,} B"
        for stored_as, (numbers, size) in sorted(counts.items(), key=lambda item: -item[1][1])
        if numbers
    ]
    total, bits = plan.need.weights, int(weights.format.bits_per_weight)
    bare = model.parameters.total * bits // 8
    lines.append(f"{'total':12} {total:,} B = {total / 1e9:.2f} GB = {format_gib(total)}")
    lines.append(
        f"plain arithmetic, {model.parameters.total:,} × {bits} bits, says {format_gib(bare)}: scales and wider tensors are the rest"
    )
    return lines


def kv_lines(model: Model, plan: Plan) -> list[str]:
    """Each kind of cache layer with its own count."""
    r = plan.request
    lines = [line for layer, count in model.architecture.cache_kinds for line in _cache_lines(layer, count, r.context)]
    types = r.kv_type_k if r.kv_type_k == r.kv_type_v else f"{r.kv_type_k}/{r.kv_type_v}"
    lines.append(f"in {types}, {r.sequences} × {r.context:,} tokens: {format_gib(plan.need.kv_cache)}")
    lines.append(f"one more token of context adds {plan.kv_bytes_per_token:,} B")
    return lines


def _cache_lines(layer: CacheLayer, count: int, context: int) -> list[str]:
    label = f"{count} {layer.kind} layer{'s' if count > 1 else ''}"
    if layer.kind == "shared":
        return [f"{label}: read another layer's cache"]
    lines = []
    if layer.conv_elements or layer.state_elements:
        state = 2 * layer.conv_elements + 4 * layer.state_elements
        lines.append(
            f"{label}: a state of {layer.conv_elements:,} × 2 B + {layer.state_elements:,} × 4 B = {state:,} B each, whatever the context"
        )
    if layer.elements_per_token:
        held = layer.tokens_held(context)
        window = f" (window {layer.window:,}, its newest token apart)" if layer.window and held < context else ""
        heads = f"{layer.kv_heads} heads × ({layer.k_dim} K + {layer.v_dim} V)"
        lines.append(f"{label}: {held:,} tokens{window} × {heads} = {held * layer.elements_per_token:,} elements each")
    return lines


def term_lines(plan: Plan) -> list[str]:
    """The terms of each device; devices that hold the same are told once."""
    lines: list[str] = []
    for (name, terms), group in groupby(plan.devices, key=lambda device: (device.name, device.terms)):
        count = len(list(group))
        if len(plan.devices) > 1:
            lines.append(f"on each of {count} × {name}:" if count > 1 else f"on {name}:")
        lines += [f"{_spoken(term.name)}: {term.bytes:,} B = {format_gib(term.bytes)} ({term.basis}): {term.why}" for term in terms]
    return lines


def _spoken(name: str) -> str:
    return name.replace("kv_cache", "KV cache").replace("_", " ")


def verdict_lines(plan: Plan) -> list[str]:
    if plan.devices[0].usable is None:
        return [f"needs {plan.memory.total:,} B = {format_gib(plan.memory.total)}; no GPU was named to hold it against"]
    said = [_verdict_of(device) for device in plan.devices]
    names = [f"{device.name}: " if len(plan.devices) > 1 else "" for device in plan.devices]
    lines = list(dict.fromkeys(f"{name}{text}" for name, text in zip(names, said, strict=True)))
    if plan.fit.max_context:
        lines.append(f"{plan.fit.max_context:,} tokens of context fit, {plan.fit.max_context + 1:,} do not")
    if plan.fit.max_sequences:
        most, each = plan.fit.max_sequences, f"of {plan.request.context:,} tokens"
        lines.append(f"{most:,} sequences {each} fit, {most + 1:,} do not" if most > 1 else f"1 sequence {each} fits, 2 do not")
    return lines


def _verdict_of(device: DevicePlan) -> str:
    room = device.headroom or 0
    pool = " of the KV pool" if device.available - device.used != room else ""
    left = f"{format_gib(room)}{pool} left" if room >= 0 else f"{format_gib(-room)} short"
    return f"{format_gib(device.used)} of {format_gib(device.available)} free; {left}"


def speed_lines(speed: SpeedEstimate) -> list[str]:
    """Both rates with their ranges, what they go to, and what they were told from."""
    rates = (("writing", speed.decode), ("reading the prompt", speed.prefill))
    told = [f"{what}: {r.tokens_per_s:,.4g} tokens/s, {r.low:,.4g} to {r.high:,.4g}, {r.why}" for what, r in rates]
    return [*told, f"from {speed.basis}"]
