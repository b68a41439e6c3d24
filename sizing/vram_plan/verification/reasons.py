"""Why a line of the comparison may be off: what the two sides are known to differ in."""

from __future__ import annotations

from typing import Final

from ..results import Plan
from ..units import format_gib
from .values import Observation

__all__ = ["reason"]

_MIXES: Final = "files named alike differ: makers give some tensors other types; plan the file itself (org/name:QUANT, or its path)"
#: What is compared → what is known to move it, where no rule below says more.
_KNOWN: Final = {
    "kv_cache": "the number of cells: context, sequences, --ubatch of a sliding window, the cache's types",
    "state": "the number of sequences, and states kept for speculative decoding",
    "compute": "builds reserve other graphs: rows of logits, flash attention, masks (--set build=YEAR-MONTH, ubatch, logits)",
    "activation": "measured by the engine's own profile run: version, batched tokens, sequences, and kernels",
    "non_torch": "driver, NCCL and library workspaces, by GPU, driver and version: taken from other machines' logs",
    "cuda_graphs": "captured graphs by sizes, kernels and driver: scaled from other machines' logs",
    "kv_tokens": "follows from the memory left for it: see the lines above",
    "num_blocks": "follows from the memory left for it",
    "max_concurrency": "follows from the memory left for it",
    "reserve": "what the pools leave free: SGLang sets a share aside and measures nothing",
    "file_bytes": "another file: its mix of types, or its vocabulary",
    "parameters": "another model, or extra layers in the file",
    "total": "the engine's own expectation before it loaded",
    "buffers": "the server's buffers as it adds them up",
    "held": "buffers and the driver's share of this process; libraries and kernels loaded later add to it",
}


def reason(plan: Plan, seen: Observation, name: str, predicted: float | None, actual: float | None) -> str:
    """A sentence for a line; empty where there is nothing to explain."""
    if actual is None:
        return _unseen(seen, name)
    if predicted is None:
        return _unplanned(plan, name)
    if name == "weights":
        return _weights(plan, seen, actual - predicted)
    if name == "runtime":
        return "what nobody accounts for: the driver's share, and other programs on this card"
    if name == "available_kv":
        return _left(plan, seen, actual - predicted)
    return _KNOWN.get(name, "")


def _left(plan: Plan, seen: Observation, difference: float) -> str:
    """What is left for the cache is off by as much as all that was taken before it."""
    told = []
    for name, part in (("weights", "weights"), ("activation", "activation"), ("non_torch", "non_torch")):
        figure = seen.figure(name, 0)
        held = [t.bytes for t in plan.devices[0].terms if (t.group if name == "weights" else t.name) == part]
        if figure is not None and held:
            told.append((name.replace("_", "-"), round(sum(held) - figure.value)))
    rest = round(difference) - sum(size for _, size in told)
    known = ", ".join(f"{_signed(size)} by {name}" for name, size in told)
    silent = [word for word in ("activation", "non-torch") if word not in dict(told)]
    others = f"by what the log does not tell ({', '.join((*silent, 'other programs'))})"
    return f"{known}, {_signed(rest)} {others}" if known else others.removeprefix("by ")


def _signed(size: int) -> str:
    return f"{'+' if size >= 0 else '−'}{format_gib(abs(size))}"


def _unseen(seen: Observation, name: str) -> str:
    if name == "runtime":
        return "the engine does not tell it; the driver does (--against nvml)"
    return "not told by the server" if seen.source.startswith("http") else "not in the log"


def _unplanned(plan: Plan, name: str) -> str:
    if name in ("gpu_memory", "available_kv", "kv_tokens", "num_blocks", "max_concurrency") and plan.devices[0].usable is None:
        return "the plan needs to know the card: name it with --gpu"
    if name.startswith("mtp"):
        return "the model's own prediction layers, which the plan leaves out (--set mtp=true)"
    if name.startswith("draft"):
        return "a draft's context or file, which the plan does not hold"
    if name.startswith("mmproj"):
        return "the vision or audio tower, which the plan leaves out (--set mmproj=true)"
    return "the plan has no term for it"


def _weights(plan: Plan, seen: Observation, difference: float) -> str:
    if seen.engine in ("llama.cpp", "ollama"):
        return "" if plan.model.basis == "exact" else _MIXES
    online = [note for note in seen.notes if note.startswith("quantization=")]
    if online:
        return f"the format: the plan has {plan.request.quant}, {online[0]}"
    return f"the format ({plan.request.quant}), or what the version keeps beside the parameters ({format_gib(abs(int(difference)))})"
