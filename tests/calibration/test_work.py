"""What a calibration sets out to do fits the memory and the time there is, and can tell its constants apart."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import vram_plan as vp
from vram_plan.calibration.fit import solve
from vram_plan.calibration.work import Facts, job_from_wire, plan_work, run_from_wire, usable_bytes
from vram_plan.hardware.device import GIB, MIB

CPU = Facts(
    "cpu", "a processor", 16 * GIB, 12 * GIB, 32 * MIB, "bf16", {"bf16": 20e9, "int8": 18e9, "int4": 12e9}, 0.4e12, 2e9, "2.13.0", "3.11.7",
    "Linux", threads=1, kernels=("int8", "int4"),
)  # fmt: skip
GPU = Facts(
    "cuda", "RTX 4090", 24 * GIB, 23 * GIB, 72 * MIB, "bf16", {"bf16": 800e9, "int8": 500e9, "int4": 400e9}, 160e12, 300e9, "2.13.0",
    "3.11.7", "Linux", graphs=True, kernels=("int8", "int4"),
)  # fmt: skip


MACHINES = [CPU, GPU, replace(GPU, free_bytes=5 * GIB), replace(GPU, free_bytes=79 * GIB), replace(CPU, free_bytes=3 * GIB)]


@pytest.mark.parametrize("facts", MACHINES)
@pytest.mark.parametrize("budget", [6, 20, 60])
def test_it_stays_within_memory_and_can_tell_the_constants_apart(facts: Facts, budget: float) -> None:
    work = plan_work(facts, budget)
    assert work.usable_bytes == usable_bytes(facts.free_bytes) <= facts.free_bytes - max(GIB, facts.free_bytes // 10)
    element = {"int8": 1, "int4": 0.625}
    held = sum(run.layout().parameters * element.get(run.weights, 2) + 2 * run.layout().kv_elements(run.capacity) for run in work.runs)
    assert held <= work.usable_bytes
    assert all(2 * size <= work.usable_bytes for size in work.buffer_bytes)
    rows = [
        [2.0 * layout.parameters / len(layout.layers) * n + 1e6, 2.0 * layout.kv_elements(depth) * n / len(layout.layers), n, 1.0]
        for run in work.runs
        if run.role == "fit" and run.weights == "bf16" and not run.architecture.experts
        for layout in [run.layout()]
        for n, depth in run.depths
    ]
    true = [1e-9, 2e-9, 1e-4, 1e-3]
    times = [sum(a * b for a, b in zip(row, true, strict=True)) for row in rows]
    assert solve(rows, times).values == pytest.approx(true, rel=1e-3)


def test_more_time_means_larger_models_and_more_formats() -> None:
    small, large = plan_work(CPU, 5), plan_work(CPU, 60)
    assert sum(run.layout().parameters for run in large.runs) > 3 * sum(run.layout().parameters for run in small.runs)
    assert {"int8", "int4"} <= {run.weights for run in plan_work(GPU, 60).runs}
    assert any(run.architecture.experts for run in plan_work(GPU, 60).runs)


def test_on_a_gpu_a_model_of_several_gigabytes_is_run() -> None:
    runs = plan_work(GPU, 60).runs
    assert max(2 * run.layout().parameters for run in runs if run.role == "fit") > 4e9
    held = next(run for run in runs if run.role == "held-out")
    assert held.architecture.hidden_size not in {run.architecture.hidden_size for run in runs if run.role == "fit"}


def test_a_model_too_large_is_run_with_fewer_layers_and_that_is_said() -> None:
    model = vp.load("llama3-70b").architecture
    work = plan_work(GPU, 60, model)
    run = next(run for run in work.runs if run.role == "model")
    assert 1 <= run.architecture.layers < model.layers
    assert any(f"with {run.architecture.layers} of its {model.layers} layers" in note for note in work.notes)
    small = next(run for run in plan_work(GPU, 60, vp.load("Qwen3-0.6B").architecture).runs if run.role == "model")
    assert small.architecture.layers == 28


def test_a_model_without_room_for_one_layer_is_left_out_and_that_is_said() -> None:
    model = vp.load("llama-3.1-405b").architecture
    work = plan_work(replace(CPU, stream_bytes_per_s={"bf16": 3e9}), 20, model, "the giant")
    assert all(run.role != "model" for run in work.runs) and {job.role for job in work.memory} == {"fit", "held-out"}
    assert any("the giant is not run" in note for note in work.notes)


def test_too_little_memory_is_an_error_that_says_how_much_there_is() -> None:
    with pytest.raises(vp.HardwareError, match=r"1\.00 GiB free"):
        plan_work(replace(CPU, free_bytes=GIB), 60)


def test_weights_that_fit_a_cache_are_said() -> None:
    assert any("partly read from cache" in note for note in plan_work(replace(CPU, cache_bytes=512 * MIB), 60).notes)


def test_it_says_what_it_will_do() -> None:
    lines = plan_work(GPU, 60).in_words()
    assert "stay below 20.7 GiB of 23.0 GiB free" in lines[0]
    assert any("not part of the fit" in line for line in lines)


def test_work_survives_the_way_to_the_measuring_process() -> None:
    work = plan_work(GPU, 60)
    for run in work.runs:
        assert run_from_wire(json.loads(json.dumps(asdict(run)))) == run
    for job in work.memory:
        assert job_from_wire(json.loads(json.dumps(asdict(job)))) == job
