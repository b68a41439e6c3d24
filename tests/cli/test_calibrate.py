"""`calibrate`: what it asks of the library, what it says, and how it looks after the profiles. The measuring is another room's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vram_plan as vp
from profile_values import a_device, a_profile
from vram_plan.hardware import local, profile_store
from vram_plan.hardware.device import Detection
from vram_plan.hardware.profile_store import save_profile
from vram_plan.hardware.profiles import EngineScale, Fitted, Profile
from vram_plan_cli.screens import calibrate as calibrate_screen

Calls = list[tuple[Any, dict[str, Any]]]


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(profile_store, "_torch_version", lambda: None)
    monkeypatch.setattr(profile_store, "_today", lambda: profile_store.date(2026, 11, 23))
    return tmp_path / "profiles"


@pytest.fixture
def measured(monkeypatch) -> Calls:
    """The library's `calibrate`, which measures nothing here and answers with a profile made by hand."""
    calls: Calls = []

    def fake(model: Any = None, *, dry_run: bool = False, progress: Callable[[str, float], None] | None = None, **asked: Any) -> Any:
        calls.append((model, asked))
        if dry_run:
            return SimpleNamespace(seconds=12.34, in_words=lambda: ("copy 512 MiB", "decode, 2048 wide"))
        assert progress is not None
        progress("decode, 2048 wide", 20.0)
        save_profile(a_profile())
        return a_profile()

    monkeypatch.setattr(vp, "calibrate", fake, raising=False)
    return calls


# --- measuring ---


def test_the_held_out_table_and_the_verdict_are_shown(run, measured: Calls):
    result = run("calibrate")
    assert (result.code, result.err) == (0, "")
    assert measured == [(None, {"device": None, "dtype": None, "budget_s": 60.0})]
    lines = result.out.splitlines()
    assert lines[0] == "RTX 4090 · cuda · 2026-11-22 · torch 2.13.0+cu130 · bf16 · 48 s"
    assert "predicted" in result.out and "measured" in result.out
    assert any(line.split()[-4:] == ["54", "ms", "50", "ms"] or "+8.0 %" in line for line in lines)
    assert "Off by at most 4.0 % for a token and 8.0 % for a prompt: later plans on this" in result.out
    assert "89 % of the catalogue's" in result.out
    assert lines[-1] == "kept (vram-plan calibrate --list); used by plans for transformers, vLLM, SGLang"
    assert max(len(line) for line in lines) <= 80


def test_one_that_plans_do_not_take_is_kept_all_the_same(run, monkeypatch):
    off = replace(a_profile(), held_out=(replace(a_profile().held_out[0], error=0.5),))
    monkeypatch.setattr(vp, "calibrate", lambda model=None, **asked: off, raising=False)
    assert run("calibrate").out.splitlines()[-1] == "kept (vram-plan calibrate --list)"


def test_options_and_the_model_go_to_the_library(run, measured: Calls):
    run("calibrate", "qwen3-0.6b", "--device", "cpu", "--dtype", "f32", "--budget", "20")
    ((model, asked),) = measured
    assert model.name.endswith("Qwen3-0.6B")
    assert asked == {"device": "cpu", "dtype": "f32", "budget_s": 20.0}


def test_json_is_the_profile(run, measured: Calls):
    assert Profile.model_validate_json(run("calibrate", "--json").out) == a_profile()


def test_quiet_is_the_verdict_alone(run, measured: Calls):
    assert run("calibrate", "--quiet").out.startswith("Off by at most 4.0 % for a token")


def test_a_dry_run_measures_nothing(run, measured: Calls, store: Path):
    assert run("calibrate", "--dry-run").out.splitlines() == ["About 12 s:", "  copy 512 MiB", "  decode, 2048 wide"]
    assert json.loads(run("calibrate", "--dry-run", "--json").out) == {"seconds": 12.3, "work": ["copy 512 MiB", "decode, 2048 wide"]}
    assert not store.exists()


def test_without_torch_the_line_that_installs_it(run, monkeypatch):
    def absent(model: Any = None, **asked: Any) -> Profile:
        raise vp.MissingExtraError("calibrate needs torch", "pip install 'vram-plan[calibrate]'")

    monkeypatch.setattr(vp, "calibrate", absent, raising=False)
    result = run("calibrate")
    assert result.code == 7
    assert "pip install 'vram-plan[calibrate]'" in result.err.lower() or "vram-plan[calibrate]" in result.err
    assert len(result.err.splitlines()) == 1


def test_an_interrupt_says_so_and_keeps_nothing(run, monkeypatch, store: Path):
    def stopped(model: Any = None, **asked: Any) -> Profile:
        raise KeyboardInterrupt

    monkeypatch.setattr(vp, "calibrate", stopped, raising=False)
    result = run("calibrate")
    assert (result.code, result.out) == (130, "")
    assert not store.exists()


def test_progress_is_a_bar_on_a_terminal_alone(capsys, monkeypatch):
    with calibrate_screen.measuring() as progress:
        progress("reading", 10.0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(calibrate_screen.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(calibrate_screen.time, "monotonic", iter([0.0, 30.0]).__next__)
    with calibrate_screen.measuring() as progress:
        progress("decode, 4096 wide", 10.0)
    drawn = capsys.readouterr().err
    assert "█" * 18 + "·" * 6 in drawn
    assert "10 s left  decode, 4096 wide" in drawn
    assert drawn.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    "args",
    [
        ("--list", "--remove", "x"), ("qwen3-0.6b", "--list"), ("--import", "x", "--device", "cpu"), ("--show", "x", "--dry-run"),
        ("--json", "--plot"), ("--budget", "1"), ("--budget", "x"), ("qwen3-0.6b", "another"),
    ],
)  # fmt: skip
def test_wrong_usage(run, measured: Calls, args: tuple[str, ...]):
    result = run("calibrate", *args)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert measured == []


# --- what later plans make of it ---


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (replace(a_profile(), held_out=()), "Nothing was measured that the fit had not seen"),
        (replace(a_profile(), held_out=(replace(a_profile().held_out[0], error=-0.31),)), "over 20 %, so later plans do not use it"),
        (replace(a_profile(), held_out=(*a_profile().held_out[:2], replace(a_profile().held_out[2], error=0.4))), "not for prompts"),
        (replace(a_profile(), points=(), fitted=Fitted(), held_out=(), software=None), "No calibration"),
    ],
)
def test_the_verdict(run, profile: Profile, words: str):
    save_profile(profile)
    result = run("calibrate", "--show", "4090")
    assert result.code == 0
    assert words in " ".join(result.out.split())


def test_flags_and_engines_are_shown(run):
    engines = {"vllm": EngineScale(0.93, None, 300 << 20, 3, "0.32", "2026-11-20")}
    save_profile(replace(a_profile(), flags=("another process used the GPU",), engines=engines))
    out = " ".join(run("calibrate", "--show", "4090").out.split())
    assert "note another process used the GPU" in out
    assert "vllm decode × 0.93 of the plan, 0.29 GiB of context and libraries (3 runs of 0.32, 2026-11-20)" in out


def test_points_are_listed(run):
    save_profile(a_profile())
    lines = run("calibrate", "--show", "4090", "--points").out.splitlines()
    rows = [line for line in lines if line.startswith("decode  d")]
    assert len(rows) == len(a_profile().points)
    assert rows[0].split()[:8] == ["decode", "d2048", "bf16", "graph", "1", "64", "1", "3.401"]
    assert max(len(line) for line in lines) <= 80


# --- the plot ---


def test_the_plot_has_the_points_and_the_line(run):
    save_profile(a_profile())
    out = run("calibrate", "--show", "4090", "--plot").out
    assert "Decode on RTX 4090, bf16, graph (ms a token)" in out
    assert "d4096, 16 layers, as fitted" in out
    assert "tokens of context" in out


def test_the_line_is_the_fit_and_the_points_are_the_medians():
    chart = calibrate_screen.decode_chart(a_profile())
    line, points = chart.series[0], chart.series[-1]
    assert line.points[-1] == pytest.approx((16384.0, 1e3 * (7e9 / 800e9 + 16384 * 4096 * 16 / 2 / 700e9 + 16 * 50e-6 + 100e-6)))
    assert {y for _, y in points.points} == {1e3 * p.median_s for p in a_profile().points if p.mode == "graph"}


def test_the_plot_as_a_file(run, tmp_path: Path):
    save_profile(a_profile())
    assert run("calibrate", "--show", "4090", "--save", str(tmp_path / "plot.svg")).code == 0
    svg = (tmp_path / "plot.svg").read_text()
    assert svg.startswith("<svg") and "d4096, 16 layers, as fitted" in svg and svg.count("<circle") > 3
    assert run("calibrate", "--show", "4090", "--save", str(tmp_path / "plot.txt")).code == 2


def test_nothing_to_draw_is_said(run):
    save_profile(replace(a_profile(), points=a_profile().points[:1]))
    result = run("calibrate", "--show", "4090", "--plot")
    assert result.code == 2
    assert "decoded at two contexts" in result.err


# --- the profiles that are kept ---


def test_the_list(run, store: Path):
    assert run("calibrate", "--list").out == "No profile yet. Measure this machine with: vram-plan calibrate\n"
    name = save_profile(a_profile()).stem
    (store / "broken.json").write_text("{")
    listed = run("calibrate", "--list", "--width", "160").out.splitlines()
    assert listed[1].startswith("broken") and "not used: the profile broken.json is no valid JSON" in listed[1]
    row = next(line for line in listed if line.startswith(name))
    assert row.split() == [name, "RTX", "4090", "2026-11-22", "2.13.0+cu130", "bf16", "4.0", "%"]
    rows = json.loads(run("calibrate", "--list", "--json").out)
    assert [row["name"] for row in rows] == ["broken", name]
    assert rows[1]["held_out"][0]["error"] == 0.04


def test_show_remove_export_import(run, tmp_path: Path):
    path = save_profile(a_profile())
    assert Profile.model_validate_json(run("calibrate", "--show", "4090", "--json").out) == a_profile()
    file = tmp_path / "mine.json"
    assert run("calibrate", "--export", str(file)).out == f"written: {file}\n"
    assert run("calibrate", "--show", "4090", "--export", str(file)).code == 2
    assert run("calibrate", "--remove", path.stem).out == f"removed: {path.stem}\n"
    assert run("calibrate", "--import", str(file)).out.startswith("kept: nvidia-geforce-rtx-4090-")
    assert run("calibrate", "--import", str(file)).code == 2
    assert run("calibrate", "--show", "4090").code == 0


def test_export_of_none_and_of_two(run, tmp_path: Path):
    assert "there is no profile yet" in run("calibrate", "--export", str(tmp_path / "x")).err
    save_profile(a_profile())
    save_profile(a_profile(uuid="GPU-2"))
    result = run("calibrate", "--export", str(tmp_path / "x"))
    assert result.code == 2
    assert "there are 2 profiles" in result.err


def test_a_broken_profile_is_said_not_thrown(run, store: Path):
    store.mkdir()
    (store / "broken.json").write_bytes(b"\xff")
    result = run("calibrate", "--show", "broken")
    assert result.code == 5
    assert "vram-plan calibrate --remove broken" in result.err
    assert run("calibrate", "--show", "nothing").code == 2
    assert run("calibrate", "--import", "nowhere.json").code == 5


# --- other screens ---


@pytest.fixture
def a_machine(monkeypatch) -> None:
    monkeypatch.setattr(local, "nvidia_devices", lambda environ: Detection((a_device(),)))
    monkeypatch.setattr(local, "amd_devices", tuple)
    monkeypatch.setattr(local, "apple_devices", tuple)


def test_hardware_says_whether_it_was_calibrated(run, a_machine: None):
    assert "not calibrated (vram-plan calibrate)" in run("hardware").out
    save_profile(a_profile())
    assert "calibrated 2026-11-22, decode held out within 4.0 %" in run("hardware").out
    save_profile(replace(a_profile(), held_out=()))
    assert "calibrated 2026-11-22, not used: nothing was held out" in run("hardware").out
    save_profile(a_profile())
    (device,) = json.loads(run("hardware", "--json").out)["devices"]
    assert device["profile"] == {"date": "2026-11-22", "decode_error": 0.04, "engines": []}


def test_the_plan_says_what_was_measured(run, a_machine: None):
    args = ("llama3-8b", "--engine", "transformers", "--ctx", "2k")
    assert "measured  calibration" not in run(*args).out
    save_profile(a_profile())
    out = " ".join(run(*args).out.split())
    assert "measured calibration of 2026-11-22, torch 2.13.0+cu130, bf16, decode held out within 3.0 %" in out
    save_profile(replace(a_profile(), held_out=()))
    assert "note the calibration of 2026-11-22 is not used" in " ".join(run(*args).out.split())


def test_a_corrupt_profile_never_spoils_a_plan(run, a_machine: None):
    path = save_profile(a_profile())
    path.write_text('{"schema": "vram-plan-profile/1"')
    result = run("llama3-8b", "--engine", "transformers", "--ctx", "2k")
    assert result.code == 0
    assert f"vram-plan calibrate --remove {path.stem}" in " ".join(result.out.split())
