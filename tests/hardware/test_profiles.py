"""A calibration's profile: its JSON, the store, which device has which, and files nobody should trust."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_values import a_device, a_profile
from vram_plan.hardware import local, profile_store
from vram_plan.hardware.device import Detection
from vram_plan.hardware.profile_store import attach, file_of, profiled, read_profile, record_engine, save_profile
from vram_plan.hardware.profiles import EngineScale, Figure, Fitted, HeldOut, Profile, ProfiledDevice

TODAY = date(2026, 11, 23)


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(profile_store, "_today", lambda: TODAY)
    monkeypatch.setattr(profile_store, "_torch_version", lambda: "2.13.0")
    return tmp_path / "profiles"


# --- the value ---


def test_json_brings_the_same_profile_back():
    profile = a_profile()
    again = Profile.model_validate_json(profile.model_dump_json())
    assert again == profile
    assert hash(again) == hash(profile)
    assert json.loads(profile.model_dump_json()) == profile.model_dump(mode="json")


@settings(deadline=None)
@given(st.floats(1, 1e17), st.floats(0, 1e9), st.text(max_size=20), st.floats(-0.9, 5))
def test_json_keeps_any_figure(value: float, sd: float, name: str, error: float):
    fitted = Fitted(weight_bytes_per_s={name: Figure(value, sd)})
    held = (HeldOut(name, "decode", value, value / (1 + error), error),)
    profile = replace(a_profile(), fitted=fitted, held_out=held)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_the_worst_held_out_error_has_no_sign():
    held = (
        HeldOut("a", "decode", 9.0, 10.0, -0.1, "graph"), HeldOut("b", "decode", 10.5, 10.0, 0.05, "eager"),
        HeldOut("c", "memory", 1.0, 1.0, 0.0),
    )  # fmt: skip
    profile = replace(a_profile(), held_out=held)
    assert profile.worst_error("decode") == 0.1
    assert profile.worst_error("decode", "eager") == 0.05
    assert profile.worst_error("memory") == 0.0
    assert profile.worst_error("prefill") is None


# --- the store ---


def test_saved_and_found_again(store: Path):
    profile = a_profile()
    path = save_profile(profile)
    assert path.parent == store
    assert [stored.profile for stored in vp.stored_profiles()] == [profile]
    assert vp.find_profile(path.stem).profile == profile
    assert vp.find_profile(profile.device.name).profile == profile
    assert vp.find_profile("4090").profile == profile
    assert list(store.iterdir()) == [path]  # nothing half written is left beside it
    assert vp.remove_profile("4090") == path
    assert vp.stored_profiles() == ()


def test_what_a_driver_said_does_not_spoil_the_file():
    path = save_profile(replace(a_profile(), flags=("two\nlines\x1b[2J", "x" * 5000)))
    assert read_profile(path).flags == ("two lines [2J", "x" * 500)


def test_two_cards_of_one_name_have_two_files():
    one, two = a_profile(), a_profile(uuid="GPU-2")
    save_profile(one)
    save_profile(two)
    assert {stored.profile for stored in vp.stored_profiles()} == {one, two}
    with pytest.raises(vp.UnknownNameError, match="several profiles"):
        vp.find_profile("4090")
    with pytest.raises(vp.UnknownNameError, match="no profile"):
        vp.find_profile("")


def test_none_yet_says_how_to_measure():
    with pytest.raises(vp.UnknownNameError) as caught:
        vp.find_profile("4090")
    assert "vram-plan calibrate" in caught.value.hint


def test_measuring_again_keeps_what_verify_measured():
    save_profile(replace(a_profile(), engines={"ollama": EngineScale(0.9), "vllm": EngineScale(1.1)}))
    save_profile(replace(a_profile(), date="2026-11-23", engines={"vllm": EngineScale(1.2)}))
    (stored,) = vp.stored_profiles()
    assert stored.profile is not None
    assert stored.profile.date == "2026-11-23"
    assert stored.profile.engines == {"ollama": EngineScale(0.9), "vllm": EngineScale(1.2)}


def test_a_failed_write_leaves_the_old_profile(monkeypatch, store: Path):
    path = save_profile(a_profile())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(profile_store.os, "fsync", full)
    with pytest.raises(vp.UsageError, match="No space left"):
        save_profile(replace(a_profile(), date="2026-11-23"))
    assert read_profile(path) == a_profile()
    assert list(store.iterdir()) == [path]


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(vp.UsageError, match="cannot be written"):
        save_profile(a_profile())
    assert vp.stored_profiles() == ()


def test_without_the_variable_it_is_the_users_data_folder(monkeypatch):
    monkeypatch.delenv("VRAM_PLAN_DATA_DIR")
    assert profile_store.folder().parts[-2:] == ("vram-plan", "profiles")


def test_export_leaves_the_uuid_out_and_import_takes_it_in(tmp_path: Path):
    path = save_profile(a_profile())
    target = vp.export_profile("4090", tmp_path / "mine.json")
    assert "GPU-1" not in target.read_text()
    with pytest.raises(vp.UsageError, match="exists already"):
        vp.export_profile("4090", target)
    path.unlink()
    vp.import_profile(target)
    with pytest.raises(vp.UsageError, match="has a profile already"):
        vp.import_profile(target)
    (stored,) = vp.stored_profiles()
    assert stored.profile == replace(a_profile(), device=replace(a_profile().device, uuid=None))


def test_engine_runs_are_averaged_by_version():
    device = a_device()
    record_engine(device, "vllm", EngineScale(0.8, None, 100, 1, "0.32", "2026-11-20"))
    path = record_engine(device, "vllm", EngineScale(1.1, 1.0, 400, 2, "0.32", "2026-11-21"))
    found = read_profile(path).engines["vllm"]
    assert found.decode_scale == pytest.approx((0.8 + 2 * 1.1) / 3)
    assert (found.prefill_scale, found.runtime_bytes, found.samples, found.date) == (1.0, 300, 3, "2026-11-21")
    record_engine(device, "vllm", EngineScale(1.5, version="0.33", date="2026-11-22"))
    assert read_profile(path).engines["vllm"] == EngineScale(1.5, version="0.33", date="2026-11-22")
    assert read_profile(path).software is None


def test_engine_runs_join_a_calibration():
    path = save_profile(a_profile())
    assert record_engine(a_device(), "ollama", EngineScale(0.9, date="2026-11-22")) == path
    assert read_profile(path) == replace(a_profile(), engines={"ollama": EngineScale(0.9, date="2026-11-22")})


# --- which device has which ---


def test_attached_by_uuid():
    other = a_profile(uuid="GPU-2")
    save_profile(a_profile())
    save_profile(replace(other, date="2099-01-01"))
    (device,), notes = attach((a_device(),))
    assert device.profile == a_profile()
    assert notes == ()


def test_another_card_of_the_name_is_said():
    save_profile(a_profile(uuid="GPU-2"))
    (device,), notes = attach((a_device(),))
    assert device.profile == a_profile(uuid="GPU-2")
    assert notes == ("GPU 0: the profile was measured on another NVIDIA GeForce RTX 4090",)


def test_torchs_name_and_the_catalogues_are_one():
    profile = a_profile(uuid=None)
    save_profile(replace(profile, device=replace(profile.device, kind="rocm", name="AMD Radeon RX 7900 XTX")))
    card = replace(a_device(uuid="1f3c"), name="RX 7900 XTX", vendor="AMD")
    (device,), notes = attach((card,))
    assert device.profile is not None
    assert notes == ("GPU 0: the profile was measured on another RX 7900 XTX", *notes[1:])


@pytest.mark.parametrize("change", [{"name": "NVIDIA GeForce RTX 4090 Laptop GPU"}, {"kind": "cpu"}, {"total_bytes": 16 << 30}])
def test_another_kind_of_device_is_not_taken(change: dict[str, object]):
    save_profile(replace(a_profile(), device=replace(a_profile().device, uuid=None, **change)))
    (device,), notes = attach((a_device(),))
    assert device.profile is None
    assert notes == ()


def test_nothing_is_read_where_there_is_no_store(monkeypatch):
    monkeypatch.setattr(profile_store, "read_profile", lambda path: pytest.fail("read"))
    assert attach((a_device(),)) == ((a_device(),), ())
    assert attach(()) == ((), ())


def doubts(profile: Profile, **now: object) -> str:
    save_profile(profile)
    return " ".join(attach((replace(a_device(), **now),))[1])


def test_what_has_changed_since_is_noted():
    today = replace(a_profile(), date=TODAY.isoformat())
    assert doubts(today) == ""
    assert "driver 580.10 then, 590.1 now" in doubts(today, driver="590.1")
    assert "power limit 450 W then, 300 W now" in doubts(today, power_limit_w=300.0)
    assert doubts(today, power_limit_w=445.0) == ""
    old = replace(today, date=(TODAY - timedelta(days=181)).isoformat())
    assert "measured 181 days ago" in doubts(old)
    assert doubts(replace(today, date=(TODAY - timedelta(days=180)).isoformat())) == ""


def test_another_torch_is_noted(monkeypatch):
    assert doubts(a_profile()) == ""
    monkeypatch.setattr(profile_store, "_torch_version", lambda: "2.14.0")
    assert "torch 2.13.0+cu130 then, 2.14.0 now" in doubts(a_profile())


def test_this_machines_devices_have_their_profiles(monkeypatch):
    save_profile(replace(a_profile(), date="2020-01-01"))
    monkeypatch.setattr(local, "nvidia_devices", lambda environ: Detection((a_device(),), notes=("first",)))
    monkeypatch.setattr(local, "amd_devices", tuple)
    monkeypatch.setattr(local, "apple_devices", tuple)
    found = vp.local_devices()
    assert found.devices[0].profile is not None
    assert found.notes[0] == "first"
    assert "days ago" in found.notes[1]


# --- files nobody should trust ---

HOSTILE = {
    "empty": (b"", "no valid JSON"),
    "binary": (bytes(range(256)), "no UTF-8"),
    "a list": (b"[]", "no profile of this version"),
    "another schema": (b'{"schema": "vram-plan-profile/9"}', "no profile of this version"),
    "too large": (b" " * (4 << 20) + b"{}", "at most"),
    "deep": (b"[" * 5000, ""),
    "too many values": (b"[" + b"1," * 300_000 + b"1]", "values"),
    "half of one": (a_profile().model_dump_json().encode()[:-40], "no valid JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_reported_and_passed_over(store: Path, case: str):
    data, why = HOSTILE[case]
    store.mkdir()
    name = file_of(profiled(a_device()))
    (store / f"{name}.json").write_bytes(data)
    (device,), notes = attach((a_device(),))
    assert device.profile is None
    assert len(notes) == 1
    assert why in notes[0]
    assert f"vram-plan calibrate --remove {name}" in notes[0]
    (stored,) = vp.stored_profiles()
    assert stored.profile is None
    assert stored.problem in notes[0]
    vp.remove_profile(name)
    assert vp.stored_profiles() == ()


def changed(**parts: object) -> Profile:
    return replace(a_profile(), **parts)


NONSENSE = {
    "a rate of zero": changed(fitted=Fitted(copy_bytes_per_s=Figure(0.0))),
    "a negative rate": changed(fitted=Fitted(weight_bytes_per_s={"bf16": Figure(-1e9)})),
    "a negative time": changed(fitted=Fitted(graph_layer_s=Figure(-1e-6))),
    "a negative deviation": changed(fitted=Fitted(kv_bytes_per_s=Figure(1e9, -1.0))),
    "a rate beyond any": changed(fitted=Fitted(prefill_flops=Figure(1e30))),
    "a scale of zero": changed(engines={"vllm": EngineScale(0.0)}),
    "a runtime larger than the card": changed(engines={"vllm": EngineScale(runtime_bytes=1 << 50)}),
    "no samples": changed(engines={"vllm": EngineScale(1.0, samples=0)}),
    "no memory": changed(device=ProfiledDevice("cuda", "x", 0)),
    "no date": changed(date="yesterday"),
    "a text that moves the cursor": changed(flags=("\x1b[2J",)),
    "a text beyond reading": changed(flags=("a" * 5000,)),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_values_that_cannot_be_are_refused(tmp_path: Path, case: str):
    path = tmp_path / "one.json"
    path.write_text(NONSENSE[case].model_dump_json())
    with pytest.raises(vp.FormatError):
        vp.import_profile(path)
    assert vp.stored_profiles() == ()


def test_wrong_types_are_refused_with_their_place(tmp_path: Path):
    data = a_profile().model_dump(mode="json")
    data["fitted"]["copy_bytes_per_s"] = {"value": "fast"}
    (tmp_path / "one.json").write_text(json.dumps(data))
    with pytest.raises(vp.FormatError, match=r"fitted\.copy_bytes_per_s\.value"):
        vp.import_profile(tmp_path / "one.json")


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(tmp_path_factory, data: bytes):
    path = tmp_path_factory.mktemp("any") / "one.json"
    path.write_bytes(data)
    with pytest.raises(vp.FormatError):
        read_profile(path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, store: Path):
    store.mkdir()
    os.mkfifo(store / f"{file_of(profiled(a_device()))}.json")
    assert attach((a_device(),))[0][0].profile is None
    with pytest.raises(vp.FormatError, match="does not exist"):
        vp.import_profile(tmp_path / "nowhere.json")
