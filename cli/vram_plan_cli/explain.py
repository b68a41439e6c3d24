"""The plan's arithmetic, written out with this model's own numbers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.console import Console
from vram_plan.units import format_gib

from .screen import console

if TYPE_CHECKING:
    from vram_plan import CacheLayer, Model, Plan

__all__ = ["print_explanation"]


def print_explanation(model: Model, plan: Plan, out: Console | None = None) -> None:
    out = out or console()
    for title, lines in (
        ("Parameters", parameter_lines(model)),
        (f"Weights as {plan.request.quant}", weight_lines(model, plan)),
        ("KV cache", kv_lines(model, plan)),
        ("The rest", rest_lines(plan)),
        ("Verdict", verdict_lines(plan)),
    ):
        out.print()
        out.print(title, style="bold")
        for line in lines:
            out.print(f"  {line}")


def parameter_lines(model: Model) -> list[str]:
    """Each kind of weight: rows × columns × how many there are."""
    shapes: dict[tuple[str, str, tuple[int, ...]], int] = defaultdict(int)
    for tensor in model.architecture.tensors:
        shapes[tensor.part, tensor.role, tensor.shape] += 1
    text = [(role, shape, n) for (part, role, shape), n in shapes.items() if part == "text"]
    lines = []
    for role, shape, count in text:
        size = count
        for number in shape:
            size *= number
        lines.append(f"{role:24} {' × '.join(f'{n:,}' for n in shape)}{f' × {count} layers' if count > 1 else ''} = {size:,}")
    p = model.parameters
    for name, size in (("vision tower", p.vision), ("audio tower", p.audio), ("projector", p.projector)):
        if size:
            lines.append(f"{name:24} {size:,}")
    lines.append(f"{'total':24} {p.total:,}" + (f", of which {p.active:,} are used for a token" if p.active != p.total else ""))
    return lines


def weight_lines(model: Model, plan: Plan) -> list[str]:
    total = plan.need.weights
    bits = 8 * total / max(model.parameters.total, 1)
    return [
        f"{total:,} B = {total / 1e9:.2f} GB = {format_gib(total)}: {bits:.3f} bits a parameter, block scales and unquantised weights included",
        f"by arithmetic alone, {model.parameters.total:,} × {plan.request.quant}'s nominal width would leave those out",
    ]


def kv_lines(model: Model, plan: Plan) -> list[str]:
    """Each kind of cache layer with its own count."""
    kinds: dict[CacheLayer, int] = defaultdict(int)
    for layer in model.cache_layers:
        kinds[_without_place(layer)] += 1
    r = plan.request
    lines = [line for layer, count in kinds.items() for line in _cache_lines(layer, count, r.context)]
    lines.append(f"in {r.kv_type_k}{'' if r.kv_type_k == r.kv_type_v else '/' + r.kv_type_v}, {r.sequences} × {r.context:,} tokens: {format_gib(plan.need.kv_cache)}")
    lines.append(f"one more token of context adds {plan.kv_bytes_per_token:,} B")
    return lines


def _without_place(layer: CacheLayer) -> CacheLayer:
    from dataclasses import replace

    return replace(layer, layer=0, source=None)


def _cache_lines(layer: CacheLayer, count: int, context: int) -> list[str]:
    label = f"{count} {layer.kind} layer{'s' if count > 1 else ''}"
    if layer.kind == "shared":
        return [f"{label}: read another layer's cache"]
    lines = []
    if layer.conv_elements or layer.state_elements:
        state = 2 * layer.conv_elements + 4 * layer.state_elements
        lines.append(f"{label}: a state of {layer.conv_elements:,} × 2 B + {layer.state_elements:,} × 4 B = {state:,} B each, whatever the context")
    if layer.elements_per_token:
        held = layer.tokens_held(context)
        window = f" (window {layer.window:,}, its newest token apart)" if layer.window and held < context else ""
        lines.append(f"{label}: {held:,} tokens{window} × {layer.kv_heads} heads × ({layer.k_dim} K + {layer.v_dim} V) = {held * layer.elements_per_token:,} elements each")
    return lines


def rest_lines(plan: Plan) -> list[str]:
    device = plan.devices[0]
    return [f"{term.name} {format_gib(term.bytes)} ({term.basis}): {term.why}" for term in device.terms if term.group in ("compute", "runtime")]


def verdict_lines(plan: Plan) -> list[str]:
    lines = []
    for device in plan.devices:
        if device.headroom is None or device.usable is None:
            return [f"needs {plan.memory.total:,} B = {format_gib(plan.memory.total)}; no GPU was named to hold it against"]
        free = device.headroom + device.used
        lines.append(f"{device.name}: {format_gib(free)} free − {format_gib(device.used)} = {format_gib(device.headroom)}")
    if plan.fit.max_context:
        lines.append(f"{plan.fit.max_context:,} tokens of context fit, {plan.fit.max_context + 1:,} do not")
    if plan.fit.max_sequences:
        lines.append(f"{plan.fit.max_sequences:,} sequences of {plan.request.context:,} tokens fit, {plan.fit.max_sequences + 1:,} do not")
    return lines
