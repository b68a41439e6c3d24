"""A plan on this machine's card: held against what is free now, and saying what else holds memory."""

from __future__ import annotations

import vram_plan as vp
from vram_plan.hardware import Detection, Device, Process

GIB = 2**30


def card(free: int, used: int = 0, processes: tuple[Process, ...] = (), **more: object) -> Detection:
    device = Device(
        "NVIDIA GeForce RTX 4060", 0, 8 * GIB, 7 * GIB, free, used_by_others=used, processes=processes, basis="measured", **more
    )
    return Detection((device,), local=True)


def test_the_verdict_is_against_what_is_free_now() -> None:
    idle = vp.plan("llama3-8b", context="8k", bits=4, gpus=card(7 * GIB))
    busy = vp.plan("llama3-8b", context="8k", bits=4, gpus=card(4 * GIB, 3 * GIB, (Process(41, "firefox", 3 * GIB),)))
    assert idle.fit.verdict == "fits" and busy.fit.verdict == "does_not_fit"
    assert idle.fit.headroom - busy.fit.headroom == 3 * GIB
    assert any("firefox (41) 3.00 GiB" in note.text for note in busy.notes)
    assert not any("held by" in note.text for note in idle.notes)


def test_unified_memory_is_said() -> None:
    plan = vp.plan("llama3-8b", bits=4, gpus=card(7 * GIB, unified=True, note="shares the system's memory"))
    assert any(note.text == "shares the system's memory" for note in plan.notes)
