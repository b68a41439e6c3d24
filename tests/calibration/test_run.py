"""A whole calibration on this machine's CPU, as small as it gets; and what it refuses."""

from __future__ import annotations

import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import vram_plan as vp
from vram_plan.calibration import run as room
from vram_plan.calibration.process import Measurer
from vram_plan.calibration.run import calibrate
from vram_plan.hardware.profiles import Profile

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def profile(calls: list[tuple[str, float]], tmp_path_factory: pytest.TempPathFactory) -> Profile:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VRAM_PLAN_DATA_DIR", str(folder))
        found = calibrate(device="cpu", budget_s=2, progress=lambda what, left: calls.append((what, left)))
    (kept,) = folder.rglob("*.json")
    assert Profile.model_validate_json(kept.read_bytes()) == found
    return found


def test_every_kind_of_point_is_there_with_times_in_order(profile: Profile) -> None:
    assert {p.what for p in profile.points} == {"copy", "read", "matmul", "prefill", "decode", "memory"}
    for p in profile.points:
        if p.what != "memory":
            assert p.n >= 2 and 0 < p.p10_s <= p.median_s <= p.p90_s, p
    steps = [p for p in profile.points if p.what == "decode"]
    assert {p.part for p in steps} == {"fit", "held-out"}
    fitted = [p for p in steps if p.part == "fit" and p.dtype == profile.dtype]
    assert len({p.shape for p in fitted}) >= 2 and len({p.layers for p in fitted}) >= 2 and len({p.depth for p in fitted}) >= 2


def test_more_bytes_take_more_time(profile: Profile) -> None:
    """The deep of one width against the shallow: three times the layers, at the quickest of each."""
    steps = [p for p in profile.points if p.what == "decode" and p.part == "fit" and p.batch == 1 and "," not in p.shape]
    name = min({p.shape for p in steps}, key=lambda shape: int(shape.split()[1]))
    layers = sorted({p.layers for p in steps if p.shape == name})
    shallow, deep = (min(p.p10_s for p in steps if p.shape == name and p.layers == n) for n in (layers[0], layers[-1]))
    assert layers[-1] == 3 * layers[0] and deep > shallow


def test_memory_is_what_the_plan_says(profile: Profile) -> None:
    first = next(p.shape for p in profile.points if p.what == "memory")
    parts = {p.part: p for p in profile.points if p.what == "memory" and p.shape == first}
    assert parts["kv_cache"].bytes == parts["kv_cache"].expected_bytes
    assert parts["weights"].expected_bytes and abs(parts["weights"].bytes - parts["weights"].expected_bytes) < 3 << 20
    assert sum(p.bytes for part, p in parts.items() if part != "total") == pytest.approx(parts["total"].bytes, abs=1)
    assert profile.fitted.runtime_bytes and 50 << 20 < profile.fitted.runtime_bytes.value < 2 << 30


def test_what_was_held_out_is_predicted_and_its_error_told(profile: Profile) -> None:
    steps = [row for row in profile.held_out if row.quantity == "decode"]
    if profile.fitted.decode_s("eager", profile.dtype, 1.0, 1.0, 1) is None:
        assert any("held against the fit" in flag for flag in profile.flags)
        return
    assert len(steps) == 2
    for row in profile.held_out:
        assert row.error == pytest.approx(row.predicted / row.measured - 1)


def test_it_is_kept_as_json_that_reads_back(profile: Profile) -> None:
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert profile.software and profile.software.torch and profile.software.threads
    assert profile.device.kind == "cpu" and profile.device.total_bytes > 0
    assert profile.wall_s > 0


def test_progress_names_what_is_measured_and_time_runs_down(profile: Profile, calls: list[tuple[str, float]]) -> None:
    assert calls[0][0] == "starting torch" and len({what for what, _ in calls}) > 3
    assert all(0 <= left <= 2 for _, left in calls)


def test_nothing_is_left_running(profile: Profile) -> None:
    import psutil

    assert not [child for child in psutil.Process().children(recursive=True) if "vram_plan.calibration.worker" in " ".join(child.cmdline())]


def test_an_interrupt_leaves_neither_process_nor_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of measuring, by a worker that says what it does and never ends."""
    import psutil

    busy = "import sys, time; sys.stdin.readline(); print('{\"progress\": {\"what\": \"measuring\"}}', flush=True); time.sleep(60)"
    monkeypatch.setattr(room, "Measurer", partial(Measurer, command=(sys.executable, "-c", busy)))
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    count, running = threading.active_count(), set(psutil.Process().children(recursive=True))
    said: list[str] = []

    def stop(what: str, left: float) -> None:
        said.append(what)
        if what == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(device="cpu", dtype="f32", budget_s=5, progress=stop)
    assert said == ["starting torch", "measuring"] and not list(tmp_path.rglob("*.json*"))
    assert set(psutil.Process().children(recursive=True)) <= running and threading.active_count() <= count + 1


def test_without_torch_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(vp.MissingExtraError) as caught:
        calibrate()
    assert caught.value.exit_code == 7 and "pip install" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"dtype": "int3"}, "int3"), ({"budget_s": 0}, "budget"), ({"budget_s": 1e9}, "budget"), ({"budget_s": float("nan")}, "budget")],
)
def test_what_cannot_be_meant_is_refused_at_once(asked: dict[str, object], words: str) -> None:
    with pytest.raises(vp.UsageError, match=words):
        calibrate(**asked)  # type: ignore[call-overload]


def test_a_model_it_cannot_build_is_refused_before_torch_is_started(calls: list[tuple[str, float]]) -> None:
    before = len(calls)
    with pytest.raises(vp.UsageError, match="latent"):
        calibrate("deepseek-v3", progress=lambda *a: calls.append(a))
    assert len(calls) == before
