"""What the driver says while measuring, and what of it is a disturbance. No driver: nothing is known, and nothing fails."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
from vram_plan.calibration.driver import Snapshot, Watch, busy, disturbances
from vram_plan.hardware.device import GIB, MIB


def fake(monkeypatch: pytest.MonkeyPatch, **answers: object) -> None:
    module = ModuleType("pynvml")
    default: dict[str, object] = {"nvmlInit": None, "nvmlDeviceGetHandleByUUID": "handle"}
    for name, value in {**default, **answers}.items():
        setattr(module, name, value if callable(value) else lambda *a, value=value: value)
    monkeypatch.setitem(sys.modules, "pynvml", module)


def test_one_look_tells_own_memory_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        monkeypatch,
        nvmlDeviceGetMemoryInfo=SimpleNamespace(used=5 * GIB),
        nvmlDeviceGetComputeRunningProcesses=[
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB), SimpleNamespace(pid=1, usedGpuMemory=None)
        ],
        nvmlDeviceGetCurrentClocksThrottleReasons=0x4 | 0x20,
        nvmlDeviceGetUtilizationRates=SimpleNamespace(gpu=7),
        nvmlDeviceGetEnforcedPowerLimit=450_000,
    )  # fmt: skip
    watch = Watch("GPU-1")
    seen = watch.look()
    assert (seen.used_bytes, seen.own_bytes, seen.others, seen.utilisation) == (5 * GIB, 3 * GIB, ((1, None),), 7.0)
    assert seen.throttled == ("its power limit", "heat") and seen.memory_clock_mhz is None
    assert watch.power_limit_w == 450 and watch.driver is None


def _broken(*_: object) -> None:
    raise RuntimeError("NVML: the driver is gone")


def test_a_driver_that_is_not_there_or_breaks_only_means_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Watch(None).look() == Snapshot()
    fake(monkeypatch, nvmlInit=_broken)
    assert Watch("GPU-1").look() == Snapshot()
    fake(monkeypatch, nvmlDeviceGetMemoryInfo=_broken, nvmlDeviceGetComputeRunningProcesses=_broken)
    assert Watch("GPU-1").look() == Snapshot()


def test_a_quiet_device_is_no_disturbance() -> None:
    quiet = Snapshot(used_bytes=GIB, utilisation=0.0, memory_clock_mhz=10_000, memory_clock_max_mhz=10_500)
    idle = Snapshot(memory_clock_mhz=405, memory_clock_max_mhz=10_500, throttled=("heat",))
    assert disturbances([idle, quiet, idle]) == [] == disturbances([Snapshot()] * 2) and busy(quiet) == [] == busy(Snapshot())


def test_what_runs_there_before_is_said() -> None:
    assert "40 % busy" in busy(Snapshot(utilisation=40.0))[0]


def test_in_a_container_nobody_can_tell_whose_memory_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver lists this process under the id it has outside."""
    listed = [SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=3 * GIB)]
    fake(monkeypatch, nvmlDeviceGetMemoryInfo=SimpleNamespace(used=4 * GIB), nvmlDeviceGetComputeRunningProcesses=listed)
    seen = Watch("GPU-1").look()
    assert (seen.used_bytes, seen.own_bytes, seen.others) == (4 * GIB, None, ())


@pytest.mark.parametrize(
    ("before", "during", "after", "words"),
    [
        (Snapshot(), Snapshot(throttled=("heat",)), Snapshot(), "held back by heat"),
        (Snapshot(), Snapshot(memory_clock_mhz=405, memory_clock_max_mhz=10_500), Snapshot(), "405 MHz"),
        (Snapshot(others=((7, GIB),)), Snapshot(), Snapshot(others=((7, GIB + 300 * MIB),)), "other processes took"),
        (Snapshot(), Snapshot(), Snapshot(others=((9, None),)), "other processes took"),
        (Snapshot(others=((7, GIB),)), Snapshot(), Snapshot(others=((7, GIB + MIB),)), "1 other processes hold"),
    ],
)
def test_what_disturbs_is_said(before: Snapshot, during: Snapshot, after: Snapshot, words: str) -> None:
    flags = disturbances([before, Snapshot(), during, after])
    assert len(flags) == 1 and words in flags[0]
