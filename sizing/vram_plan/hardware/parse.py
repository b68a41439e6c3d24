"""`--gpu` in words → devices: `RTX 4090`, `2xA100-80GB`, `RTX 3090 + RTX 3060`, `2 nodes x 8xH100`, `8GB`.

Several cards are joined by `+`, `,` or `and`; a count stands before (`2x3090`, `8 H100`) or behind (`3090 x2`).
`8GB` is a nameless card with 8 GiB: cards are sold by GiB, whatever the box says.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from ..errors import UnknownNameError, UsageError
from .device import GIB, Detection, Device
from .mig import slice_named
from .names import match_gpu
from .specs import device_of

__all__ = ["device_of", "parse_gpus"]

#: An NVL72 rack is the largest machine whose GPUs work as one.
MAX_PER_NODE: Final = 72
MAX_DEVICES: Final = 4096
MAX_TEXT: Final = 500

_NODES: Final = re.compile(r"(\d{1,9})\s*(?:nodes?|machines?|hosts?)\b\s*(?:[x×*:,]|of|with)?\s*(.*)", re.I | re.S)
#: Radeons are written `7900xtx` and `7800xt`: that x counts nothing.
_BEFORE: Final = re.compile(r"(?!\d{3,4}xtx?\b)(\d{1,9})\s*[x×*]\s*(\S.*)", re.I | re.S)
_BEFORE_SPACED: Final = re.compile(r"(\d{1,2})\s+([a-z].*)", re.I | re.S)
_BEHIND: Final = re.compile(r"(.*\S)(?:\s+[x×]|\s*[×*])\s*(\d{1,9})", re.I | re.S)
#: `3090x2`, which could as well be 3090 cards called 2.
_GLUED: Final = re.compile(r"(\d{3,4})[x×](\d{1,2})", re.I)
_SIZE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(tib|tb|t|gib|gb|g|mib|mb|m)(?:\s+(?:gpu|card|vram|of vram))?", re.I)
_SCALE: Final = {"t": 1 << 40, "g": 1 << 30, "m": 1 << 20}
_JOIN: Final = re.compile(r"\s*(?:[+,&]|\band\b)\s*", re.I)
#: A `+` that belongs to a slice's name: 1g.10gb+me.
_MEDIA: Final = re.compile(r"(?<=gb)\+(?:me(?:\.all)?|gfx)\b", re.I)
#: A `+` that belongs to a name: Ryzen AI MAX+ 395, Xeon Platinum 8480+.
_MAX_PLUS: Final = re.compile(r"\b(max|8480|8592)\+", re.I)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _usage(text: str, why: str) -> UsageError:
    examples = "for example: 'RTX 4090', 2xA100-80GB, 'RTX 3090 + RTX 3060', '2 nodes x 8xH100', 8GB, local"
    return UsageError(f"--gpu {_quoted(text)}: {why}", examples)


def _nameless(text: str) -> Device | None:
    """`8GB`, `24 GiB`: a card known by its memory only."""
    size = _SIZE.fullmatch(text)
    if not size:
        return None
    memory = round(float(size[1]) * _SCALE[size[2][0].lower()])
    if not GIB // 4 <= memory <= 4 << 40:
        raise _usage(text, "a GPU's memory is between 256 MiB and 4 TiB")
    note = "a nameless card: memory as said, speed not known"
    return Device(f"GPU {memory / GIB:g} GiB", 0, memory, memory, memory, basis="formula", note=note)


def _counted(text: str) -> tuple[int, str]:
    """`2x3090`, `8 H100`, `3090 x2` → (count, name)."""
    before, behind = _BEFORE.fullmatch(text), _BEHIND.fullmatch(text)
    if before and (int(before[1]) <= MAX_PER_NODE or not (behind or _GLUED.fullmatch(text))):
        return int(before[1]), before[2]
    if behind := behind or _GLUED.fullmatch(text):
        return int(behind[2]), behind[1]
    if (found := _BEFORE_SPACED.fullmatch(text)) and not _SIZE.fullmatch(text):
        return int(found[1]), found[2]
    return 1, text


def _processor(text: str) -> tuple[Device, str] | None:
    from .cpus import cpu_named  # most names are of cards

    return cpu_named(text)


def _group(text: str, whole: str) -> tuple[list[Device], str]:
    """One kind of card, as often as it is counted. A card with two GPUs (MI250) gives two devices."""
    count, name = _counted(text)
    if not 1 <= count <= MAX_PER_NODE:
        if processor := _processor(text):  # 7950X 64GB: no count
            return [processor[0]], processor[1]
        raise _usage(whole, f"{count} GPUs in one machine; between 1 and {MAX_PER_NODE} can be planned")
    if found := slice_named(name):
        return [found[0]] * count, found[1]
    if device := _nameless(name):
        return [device] * count, ""
    try:
        match = match_gpu(name)
    except UnknownNameError:
        if not (processor := _processor(name)):
            raise
        if count > 1:
            raise _usage(whole, "one processor is planned, not several") from None
        return [processor[0]], processor[1]
    device, per_card = device_of(match.spec, match.memory_bytes), match.spec.gpus_per_card
    note = match.note
    if per_card > 1:
        note = f"{note or name}: each card is {per_card} GPUs of {device.total / GIB:.0f} GB to software".lstrip(": ")
    return [device] * (count * per_card), note


def _machine(text: str, whole: str) -> tuple[list[Device], list[str]]:
    devices: list[Device] = []
    notes: list[str] = []
    parts = _JOIN.split(_MEDIA.sub("", _MAX_PLUS.sub(r"\1 ", text)))
    if len(parts) > MAX_PER_NODE:
        raise _usage(whole, f"more than {MAX_PER_NODE} GPUs in one machine")
    for part in parts:
        if not part.strip():
            raise _usage(whole, "a GPU's name is missing")
        group, note = _group(part.strip(), whole)
        devices += group
        if note and note not in notes:
            notes.append(note)
    if len(devices) > 1 and any(device.vendor == "CPU" for device in devices):
        raise _usage(whole, "a processor is planned alone")
    if len(devices) > MAX_PER_NODE:
        raise _usage(whole, f"{len(devices)} GPUs in one machine; at most {MAX_PER_NODE} can be planned")
    return devices, notes


def parse_gpus(text: str) -> Detection:
    """The devices a text names, as if nothing else ran on them. Raises UsageError, or UnknownNameError with the nearest names."""
    whole = text.strip()
    if not whole or len(whole) > MAX_TEXT:
        raise _usage(whole, "names no GPU" if not whole else "is too long")
    nodes, rest = 1, whole
    if found := _NODES.fullmatch(whole):
        nodes, rest = int(found[1]), found[2]
        if not rest:
            raise _usage(whole, "says how many machines, not what is in them")
    devices, notes = _machine(rest, whole)
    if not 1 <= nodes * len(devices) <= MAX_DEVICES:
        raise _usage(whole, f"{nodes * len(devices)} GPUs; between 1 and {MAX_DEVICES} can be planned")
    if nodes * len(devices) > 1 and any(device.is_slice for device in devices):
        raise _usage(whole, "a program takes one MIG slice and no other GPU")
    placed = [replace(device, index=node * len(devices) + i, node=node) for node in range(nodes) for i, device in enumerate(devices)]
    return Detection(tuple(placed), tuple(notes))
