"""Batch sweeps of a server."""

from __future__ import annotations

import vram_plan as vp
from vram_plan.hardware import parse_gpus
from vram_plan.request import make_work
from vram_plan.speed import Sweep, sweep


def swept(engine: str, gpus: str, most: int) -> Sweep | None:
    model = vp.load("llama3-8b", offline=True)
    devices = parse_gpus(gpus).devices
    nothing = dict.fromkeys(
        ("bits", "quant", "kv_type", "kv_type_k", "kv_type_v", "tensor_parallel", "pipeline_parallel", "prompt", "output", "options")
    )
    work, _ = make_work(model, len(devices), context=2048, engine=engine, sequences=1, expert_parallel=False, offload="auto", **nothing)
    return sweep(model, work, devices, most)


def test_more_sequences_more_in_all_less_each_and_a_knee() -> None:
    found = swept("vllm", "H100", 200)
    assert found is not None
    counts = [load.sequences for load in found.loads]
    assert counts == [1, 2, 4, 8, 16, 32, 64, 128, 200]
    rates = [load.tokens_per_s for load in found.loads]
    assert rates == sorted(rates)
    assert [load.tpot_s for load in found.loads] == sorted(load.tpot_s for load in found.loads)
    assert found.loads[3].kv_bytes == 8 * found.loads[0].kv_bytes
    assert found.knee in counts[1:]
    assert next(load.tokens_per_s for load in found.loads if load.sequences == found.knee) >= 0.8 * max(rates)


def test_one_sequence_is_a_sweep_too_and_llamacpp_is_doubted() -> None:
    found = swept("llama.cpp", "RTX 4090", 1)
    assert found is not None
    assert found.knee == 1
    assert "measured" in found.note


def test_without_bandwidth_there_is_none() -> None:
    assert swept("vllm", "80GB", 8) is None
