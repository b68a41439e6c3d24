"""What the driver says a process holds, at the pynvml boundary."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import vram_plan as vp
from hardware.fake_nvml import MIB, FakeGpu, FakeNvml, process
from vram_plan.hardware import profile_store


def machine(monkeypatch: pytest.MonkeyPatch, *gpus: FakeGpu, names: dict[int, str]) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(*gpus, names=names))


def card(*held: tuple[int, int | None], uuid: str = "a") -> FakeGpu:
    used = sum(size or 0 for _, size in held)
    return FakeGpu(used=used, uuid=f"GPU-{uuid * 8}-0000-0000-0000-000000000000", compute=[process(pid, size) for pid, size in held])


def test_the_process_that_holds_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A desktop beside it is left out, and the memory it holds itself does not count as taken: the plan is of the whole card."""
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    plan = vp.plan("llama3-8b", engine="llama.cpp", quant="Q4_K_M", gpus="RTX 4090")
    held = plan.devices[0].used + 50 * MIB
    machine(monkeypatch, card((7, 900 * MIB), (42, held)), names={7: "/usr/lib/xorg/Xorg", 42: "/opt/llama.cpp/llama-server -m x"})
    found = vp.verify("llama3-8b", "nvml", quant="Q4_K_M", save=True)
    [line] = [line for line in found.lines if line.name == "held"]
    assert found.engine == "llama.cpp" and "llama-server (42)" in found.source and found.within(0.02)
    assert line.difference == pytest.approx(50 * MIB, abs=MIB) and line.counts
    [stored] = profile_store.stored_profiles()
    runtime = next(term.bytes for term in plan.devices[0].terms if term.name == "runtime")
    assert stored.profile and stored.profile.engines["llama.cpp"].runtime_bytes == pytest.approx(runtime + 50 * MIB, abs=MIB)
    later = vp.plan("llama3-8b", engine="llama.cpp", quant="Q4_K_M", gpus="local")
    assert next(t for t in later.devices[0].terms if t.name == "runtime").bytes == stored.profile.engines["llama.cpp"].runtime_bytes


def test_workers_of_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, card((1, 20_000 * MIB)), card((2, 20_100 * MIB), uuid="b"), names={1: "VLLM::Worker_TP0", 2: "VLLM::Worker_TP1"})
    found = vp.verify("qwen3-8b", "nvml", tensor_parallel=2, context=8192)
    assert found.engine == "vllm" and [(line.name, line.place, line.actual) for line in found.lines if line.actual] == [
        ("held", 0, 20_000 * MIB), ("held", 1, 20_100 * MIB),
    ]  # fmt: skip


def test_a_named_process(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, card((5, 6000 * MIB), (6, 3000 * MIB)), names={5: "python3", 6: "python3"})
    assert next(line for line in vp.verify("llama3-8b", "nvml:6", engine="vllm").lines if line.actual).actual == 3000 * MIB
    assert next(line for line in vp.verify("llama3-8b", "nvml", engine="vllm").lines if line.actual).actual == 6000 * MIB
    with pytest.raises(vp.UsageError, match="which engine"):
        vp.verify("llama3-8b", "nvml:6")


@pytest.mark.parametrize(("asked", "error"), [("nvml:x", vp.UsageError), ("nvml:0", vp.UsageError), ("nvml:99", vp.HardwareError)])
def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch, asked: str, error: type[vp.VramPlanError]) -> None:
    machine(monkeypatch, card((5, 6000 * MIB)), names={5: "Xorg"})
    with pytest.raises(error):
        vp.verify("llama3-8b", asked)
    with pytest.raises(vp.HardwareError, match="no process of an engine"):
        vp.verify("llama3-8b", "nvml")


def test_windows_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, card((5, None)), names={5: "ollama.exe"})
    with pytest.raises(vp.HardwareError, match="does not say how much"):
        vp.verify("llama3-8b", "nvml")


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, names={})
    with pytest.raises(vp.HardwareError):
        vp.verify("llama3-8b", "nvml")
