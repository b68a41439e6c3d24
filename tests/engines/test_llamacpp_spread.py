"""A graph over several devices: where its nodes are computed, what is copied, and what llama.cpp projects for real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.engines.base import Work
from vram_plan.engines.llamacpp import engine
from vram_plan.engines.llamacpp.placement import HOST
from vram_plan.engines.llamacpp.schedule import OFFLOADED_BATCH, Schedule
from vram_plan.formats import find_format, for_engine
from vram_plan.hardware import resolve

KIB = 1 << 10
LINES = (Path(__file__).parents[1] / "data" / "llamacpp_spread.jsonl").read_text(encoding="utf-8").splitlines()
#: One in so many; the page on accuracy is of all.
ROWS = [json.loads(line) for line in LINES[1::11]]
#: Compute buffers not laid out to a thousandth.
ROUGH = {"google/gemma-4-E2B-it": 0.03}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row.get('n_gpu_layers', 'all')}-{row['gpus']}")
def test_every_device_holds_what_the_engine_projects(row: dict[str, Any]) -> None:
    """Weights, cache with state and compute of each GPU, and the host's buffer, within a thousandth, or a ten-thousandth of all."""
    devices, format = resolve(f"{row['gpus']}x H100").devices, for_engine(find_format("Q4_K_M"), "llama.cpp")
    for length, ubatch, parallel, unified, kv, flash, buffers, host in row["rows"]:
        options: dict[str, Any] = {"ubatch": ubatch, "kv_unified": unified, "flash_attn": flash}
        options["build"] = "2026-10" if row["fused"] else "2026-08"
        if "n_gpu_layers" in row:
            options["n_gpu_layers"] = row["n_gpu_layers"]
        offload = "experts" if row.get("experts") else "none"
        work = Work("llama.cpp", format, kv, kv, length // parallel, parallel, offload=offload, options=tuple(options.items()))
        found = engine.allocate(vp.load(row["model"], offline=True), work, devices)
        for terms, held in zip(found.devices, buffers, strict=True):
            for groups, size in zip((("weights",), ("kv_cache", "state"), ("compute",)), held, strict=True):
                got = sum(term.bytes for term in terms if term.group in groups)
                assert got == pytest.approx(size, rel=ROUGH.get(row["model"], 1e-3), abs=sum(held) / 10_000), groups
        assert sum(term.bytes for term in found.host if term.name == "compute") == pytest.approx(host[2], rel=0.01)


def test_a_large_batch_goes_to_the_weight_and_a_small_one_not() -> None:
    for rows, gpu, host in ((OFFLOADED_BATCH, 12 * KIB, 2 * KIB), (OFFLOADED_BATCH - 1, 0, 4 * KIB)):
        schedule = Schedule()
        given = schedule.given(2 * KIB)
        copied = schedule.weight(8 * KIB, rows)
        schedule.add(2 * KIB, given, *copied)
        assert schedule.buffers(1) == (gpu, host)


def test_what_nobody_pins_goes_where_its_neighbours_are() -> None:
    """A cache in host memory is written there; what comes before is a GPU's, and what lies between two such writes is not."""
    schedule = Schedule()
    schedule.pin(0)
    made = schedule.add(4 * KIB)
    turned = schedule.add(KIB, made)
    schedule.pin(HOST)
    schedule.read(turned)
    between = schedule.add(16 * KIB)
    schedule.pin(HOST)
    schedule.read(between)
    assert schedule.buffers(1) == (5 * KIB, 16 * KIB)


def test_of_a_part_only_that_is_copied() -> None:
    schedule = Schedule()
    schedule.pin(0)
    made = schedule.add(64 * KIB)
    schedule.pin(1)
    schedule.add(KIB, schedule.view(made, 2 * KIB))
    assert schedule.buffers(2) == (64 * KIB, 3 * KIB, 0)


def test_a_pipelines_copies_stay() -> None:
    """Inputs and what crosses over, four times each: in host memory, and on every GPU that reads them."""
    schedule = Schedule(4)
    given = schedule.given(KIB)
    schedule.pin(0)
    first = schedule.add(2 * KIB, given, over=(given,))
    schedule.pin(1)
    schedule.add(2 * KIB, first, over=(first,))
    assert schedule.buffers(2) == (6 * KIB, 10 * KIB, 4 * KIB)


def test_a_mixture_takes_more_where_experts_are_summed_up_in_one_step() -> None:
    """Qwen3.6-35B-A3B by 8,192 tokens a batch, Q8_0: a build of 2026-09-09 reserved 512.5 MiB more for it on an RTX 5070 Ti (its log leaves
    out the mask, 1,024 MiB here, and the choice of experts, three nodes of 8 MiB, was not yet kept then)."""
    sizes = []
    for build in ("2026-08", "2026-10"):
        options = {"ubatch": 8192, "batch": 8192, "build": build}
        found = vp.plan("qwen3.5-35b-a3b", engine="llama.cpp", quant="Q8_0", context=65536, gpus="RTX 5070 Ti", options=options)
        sizes.append(found.memory.compute / (1 << 20))
    assert sizes == [pytest.approx(1088.25 + 1024, abs=0.2), pytest.approx(1600.78 + 1024 + 24, abs=0.2)]
    alone = vp.plan("qwen3.5-35b-a3b", engine="llama.cpp", quant="Q8_0", context=65536, options={"ubatch": 8192, "batch": 8192})
    assert alone.memory.compute / (1 << 20) == pytest.approx(sizes[0])
