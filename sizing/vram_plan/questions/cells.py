"""The quick answer for one piece of work, and what a question of many tries: formats, contexts, one engine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from ..engines import Allocation, Work, engine_name
from ..errors import UsageError
from ..formats import Format, find_format, for_engine
from ..hardware import Detection, Device, local_devices
from ..inverse import allocated, rooms_of
from ..models.model import Model
from ..planner import named_machine, verdict_of
from ..request import own_format
from ..results import Note, SpeedEstimate, Verdict
from ..units import parse_tokens
from ..values import dataclass

__all__ = [
    "Cell", "Machine", "cell", "cell_and_speed", "machine_of", "name_of", "parse_contexts", "parse_formats", "said_engine", "summary_of",
    "texts_of", "usual_contexts", "usual_formats",
]  # fmt: skip

#: What people choose between, widest first.
_GGUF: Final = ("BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
_SERVER: Final = ("BF16", "FP8", "W8A8", "AWQ")
USUAL_FORMATS: Final = {
    "ollama": _GGUF,
    "llama.cpp": _GGUF,
    "vllm": _SERVER,
    "sglang": _SERVER,
    "transformers": ("BF16", "INT8", "NF4"),
}
_CONTEXTS: Final = tuple(1024 * k for k in (2, 4, 8, 16, 32, 64, 128))
MOST: Final = 4096


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of work on a machine. `needed` is what it takes of all GPUs, in bytes: of a pool that an engine fills
    with cache only what these sequences use. `headroom` is what the fullest GPU has left over (negative: short);
    None without a GPU."""

    context: int
    needed: int
    headroom: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs in a few words ("2 × RTX 4090") and their sums in bytes. `free` is what an engine may take of them now."""

    name: str
    gpus: int
    total: int
    usable: int
    free: int


def summary_of(devices: Sequence[Device]) -> Machine | None:
    """The machine in words; None without a GPU."""
    if not devices:
        return None
    free = sum(device.available for device in devices)
    return Machine(name_of(devices), len(devices), sum(d.total for d in devices), sum(d.usable for d in devices), free)


def name_of(devices: Sequence[Device]) -> str:
    """`RTX 4090`, `2 × RTX 3090 + RTX 3060 12GB`: names without their maker."""
    counts: dict[str, int] = {}
    for device in devices:
        name = device.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
        counts[name] = counts.get(name, 0) + 1
    return " + ".join(f"{count} × {name}" if count > 1 else name for name, count in counts.items())


def cell(model: Model, work: Work, devices: tuple[Device, ...]) -> Cell:
    """The verdict and the sums alone: no inverse questions, no suggestions."""
    return _cell(work, devices, allocated(model, work, devices))


def cell_and_speed(model: Model, work: Work, devices: tuple[Device, ...]) -> tuple[Cell, SpeedEstimate | None]:
    """A cell, and the speed where that is known."""
    from ..speed import estimate

    found = allocated(model, work, devices)
    return _cell(work, devices, found), estimate(model, work, devices, found) if devices else None


def _cell(work: Work, devices: tuple[Device, ...], found: Allocation) -> Cell:
    used = sum(term.bytes for terms in found.devices for term in terms)
    if not devices:
        return Cell(work.context, used, None, "unknown")
    rooms = rooms_of(found, devices)
    if found.headroom is not None:
        used -= sum(found.headroom)
    room = min(rooms)
    return Cell(work.context, used, min(room, -1) if found.refusal else room, verdict_of(rooms, devices, found))


def machine_of(gpus: str | Sequence[Device] | Detection | None) -> Detection:
    """As `plan` takes it; None is this machine's GPUs, or none with the reason."""
    return local_devices() if gpus is None else named_machine(gpus)


@lru_cache(maxsize=256)
def usual_formats(model: Model, engine: str) -> tuple[Format, ...]:
    """The checkpoint's own format as the engine holds it, and the engine's usual ones, widest first."""
    own, _ = own_format(model, engine)
    known = [for_engine(find_format(name), engine) for name in USUAL_FORMATS[engine]]
    if own.name in ("F16", "BF16", "F32") and not model.is_gguf:
        return tuple(known)
    return tuple(sorted({f.name: f for f in (own, *known)}.values(), key=lambda f: -f.bits_per_weight))


def parts_of(texts: str | Sequence[str] | None, separator: str = ",") -> list[str]:
    """`a,b` or a list of such texts, one by one."""
    given = [texts] if isinstance(texts, str) else texts or ()
    return [part.strip() for text in given for part in text.split(separator) if part.strip()]


def parse_formats(texts: str | Sequence[str], engine: str) -> tuple[Format, ...]:
    """`Q4_K_M,Q8_0` or a list of names. Raises UnknownNameError, UsageError."""
    names = parts_of(texts)
    _bounded(names, "formats")
    return tuple({f.name: f for f in (for_engine(find_format(name, engine), engine) for name in names)}.values())


def parse_contexts(texts: str | int | Sequence[str | int]) -> tuple[int, ...]:
    """`4k,16k,64k`, a number, or a list of either, in ascending order. Raises UsageError."""
    parts: list[str | int] = [texts] if isinstance(texts, int) else list(texts.split(",") if isinstance(texts, str) else texts)
    _bounded(parts, "contexts")
    return tuple(sorted({parse_tokens(part) for part in parts}))


def usual_contexts(model: Model) -> tuple[int, ...]:
    """2k to 128k by doubling, as far as the model was trained, and that length itself."""
    trained = model.trained_context
    if not trained:
        return _CONTEXTS
    return (*(context for context in _CONTEXTS if context < trained), *((trained,) if trained <= _CONTEXTS[-1] else ()))


def _bounded(parts: Sequence[Any], what: str) -> None:
    if not 1 <= len(parts) <= MOST:
        raise UsageError(f"{len(parts)} {what} were given", f"between 1 and {MOST} can be shown")


def said_engine(engine: str | None) -> str | None:
    """The canonical name of an engine that was named."""
    return engine_name(engine) if engine else None


def texts_of(notes: Sequence[Note]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note.text for note in notes))
