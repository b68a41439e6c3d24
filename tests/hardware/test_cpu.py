"""This machine's processor as a device, and a plan on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import vram_plan as vp
from profile_values import a_profile
from vram_plan.hardware import cpu, profile_store
from vram_plan.hardware.cpu import cpu_device, cpu_name
from vram_plan.hardware.profile_store import profiled, save_profile
from vram_plan.hardware.profiles import Profile

MEMORY = 64 << 30


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC  9554 64-Core Processor\nmodel name\t: another\n")
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu, "system_memory", lambda: MEMORY)
    monkeypatch.setattr(cpu, "available_memory", lambda: 48 << 30)
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(profile_store, "_torch_version", lambda: None)
    monkeypatch.setattr(profile_store, "_today", lambda: profile_store.date(2026, 11, 23))


def a_cpu_profile() -> Profile:
    """As a calibration of this processor would be: a twentieth of the card's rates, no graphs."""
    f = a_profile().fitted
    slow = {name: replace(figure, value=figure.value / 20) for name, figure in f.weight_bytes_per_s.items()}
    fitted = replace(f, weight_bytes_per_s=slow, kv_bytes_per_s=None, graph_layer_s=None, graph_token_s=None)
    return replace(a_profile(), device=profiled(cpu_device()), fitted=fitted)


def test_its_name_is_the_systems(monkeypatch, tmp_path: Path):
    assert cpu_name() == "AMD EPYC 9554 64-Core Processor"
    (tmp_path / "cpuinfo").write_text("model name : " + "x" * 5000)
    assert len(cpu_name()) == 100
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "nothing")
    assert cpu_name()


def test_its_memory_is_the_machines():
    device = cpu_device()
    assert (device.total, device.free, device.used_by_others, device.vendor) == (MEMORY, 48 << 30, 16 << 30, "CPU")


def test_a_system_that_does_not_say(monkeypatch):
    monkeypatch.setattr(cpu, "system_memory", lambda: None)
    with pytest.raises(vp.HardwareError, match="how much memory"):
        vp.plan("llama3-8b", gpus="cpu")


def test_a_plan_on_it_is_transformers_with_what_was_measured():
    before = vp.plan("qwen3-0.6b", gpus="cpu", context="2k")
    assert (before.request.engine, before.devices[0].name, before.speed) == ("transformers", "AMD EPYC 9554 64-Core Processor", None)
    save_profile(a_cpu_profile())
    plan = vp.plan("qwen3-0.6b", gpus="CPU", context="2k")
    assert plan.speed is not None
    assert plan.speed.basis.startswith("measured: calibration of 2026-11-22")
    assert plan.speed.decode.low < plan.speed.decode.tokens_per_s < plan.speed.decode.high
    assert 'device_map="cpu"' in plan.launch[0].command
    assert next(term for term in plan.devices[0].terms if term.name == "runtime").basis == "measured"


def test_kernels_of_another_dtype_say_nothing_on_a_processor():
    save_profile(a_cpu_profile())
    plan = vp.plan("qwen3-0.6b", gpus="cpu", context="2k", quant="F16")
    assert plan.speed is None
    assert notes(plan)[-1].endswith("is not used: it has no times of eager steps in f16 (measure with --dtype f16)")


def notes(plan: vp.Plan) -> list[str]:
    return [note.text for note in plan.notes if note.text.startswith("no speed")]


def test_a_poor_check_is_a_wide_range_where_there_are_no_other_constants():
    held = tuple(replace(row, error=0.5) for row in a_cpu_profile().held_out)
    save_profile(replace(a_cpu_profile(), held_out=held))
    plan = vp.plan("qwen3-0.6b", gpus="cpu", context="2k")
    assert plan.speed is not None
    assert plan.speed.decode.low == pytest.approx(0.5 * plan.speed.decode.tokens_per_s)
    assert plan.speed.prefill.high == pytest.approx(1.5 * plan.speed.prefill.tokens_per_s)
    assert "held out within 50.0 %" in plan.speed.basis


def test_without_a_check_there_is_no_speed():
    save_profile(replace(a_cpu_profile(), held_out=a_cpu_profile().held_out[:2]))
    plan = vp.plan("qwen3-0.6b", gpus="cpu", context="2k")
    assert plan.speed is None
    name = "AMD EPYC 9554 64-Core Processor"
    assert notes(plan) == [f"no speed: the calibration of {name} is not used: no prompt was measured that it had not seen"]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_other_engines_are_refused(engine: str):
    with pytest.raises(vp.UsageError, match="not planned on a processor"):
        vp.plan("llama3-8b", gpus="cpu", engine=engine)


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
def test_llama_is_planned_on_it_with_what_of_memory_is_free(engine: str, monkeypatch):
    monkeypatch.setattr(cpu.os, "cpu_count", lambda: 128)
    plan = vp.plan("llama3.1-8b", quant="Q4_K_M", gpus="cpu", engine=engine, context="8k")
    assert plan.fit.headroom + plan.memory.total == 48 << 30
    assert plan.fit.verdict == "fits"
    assert "memory taken as DDR5-4800" in " ".join(note.text for note in plan.notes)


def test_a_share_of_a_processor_has_no_rates(monkeypatch):
    monkeypatch.setattr(cpu.os, "cpu_count", lambda: 2)
    device = cpu_device()
    assert device.spec is None
    assert "no speed: 2 threads are seen" in device.note
    assert vp.plan("llama3.1-8b", quant="Q4_K_M", gpus="cpu", engine="llama.cpp", context="8k").speed is None


def test_a_boards_name_is_its_device_trees(monkeypatch, tmp_path: Path):
    (tmp_path / "cpuinfo").write_text("processor: 0\nCPU part: 0xd0b\n")
    (tmp_path / "board").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    monkeypatch.setattr(cpu, "BOARD", tmp_path / "board")
    monkeypatch.setattr(cpu.os, "cpu_count", lambda: 4)
    device = cpu_device()
    assert device.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert device.spec is not None
    assert device.spec.bandwidth_bytes_per_s == pytest.approx(17.1e9, rel=0.01)
