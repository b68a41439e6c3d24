"""AMD by sysfs, Apple by sysctl, several makers in one machine, and what the system says of its memory."""

from __future__ import annotations

import sys

import pytest
from vram_plan.hardware import device_of, find_gpu, local, unified
from vram_plan.hardware.device import Detection, Device

GIB, MIB = 1 << 30, 1 << 20


def card(root, number: int, **files: object):
    folder = root / f"card{number}" / "device"
    folder.mkdir(parents=True)
    for name, text in {"vendor": "0x1002", **files}.items():
        (folder / name).write_text(f"{text}\n")


def test_amd_cards(tmp_path):
    sizes = {"mem_info_vram_total": 20464 * MIB, "mem_info_vram_used": 464 * MIB, "mem_info_gtt_total": 52 * GIB}
    card(tmp_path, 10, device="0x744c", unique_id="ab12", **sizes)
    card(tmp_path, 1, device="0x74a1", product_name="AMD Instinct MI300X", mem_info_vram_total=196592 * MIB, mem_info_vram_used=0)
    card(tmp_path, 2, vendor="0x8086", mem_info_vram_total=GIB)
    card(tmp_path, 3, device="0x1234", mem_info_vram_total="many")
    card(tmp_path, 4, device="0x1234", mem_info_vram_total=16 * GIB, mem_info_vram_used=GIB)
    (tmp_path / "card1-HDMI-A-1").mkdir()
    first, unheard_of, second = local.amd_devices(tmp_path)
    assert (first.name, first.total, first.free) == ("AMD Instinct MI300X", 196592 * MIB, 196592 * MIB)
    assert (second.name, second.usable, second.free, second.uuid) == ("AMD Radeon RX 7900 XT", 20464 * MIB, 20000 * MIB, "ab12")
    assert (second.used_by_others, second.unified, second.basis) == (464 * MIB, False, "measured")
    assert (unheard_of.name, unheard_of.spec, unheard_of.free) == ("AMD GPU 0x1234", None, 15 * GIB)


def test_an_apu_may_take_its_carve_out_and_gtt(tmp_path):
    sizes = {"mem_info_vram_total": 512 * MIB, "mem_info_vram_used": 100 * MIB}
    sizes |= {"mem_info_gtt_total": 62 * GIB, "mem_info_gtt_used": 2 * GIB}
    card(tmp_path, 0, device="0x1586", **sizes)
    card(tmp_path, 1, device="0x15bf", **sizes)
    for device, name in zip(local.amd_devices(tmp_path), ("AMD Radeon 8060S", "AMD GPU 0x15bf"), strict=True):
        assert device.name == name and device.unified
        assert device.total == device.usable == 62 * GIB + 512 * MIB
        assert device.free == 60 * GIB + 412 * MIB and "512 MiB set aside" in device.note


def test_no_amdgpu(tmp_path):
    assert local.amd_devices(tmp_path) == local.amd_devices(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("chip", "gib", "limit", "usable", "row"),
    [
        ("Apple M3 Max", 64, "0", 48 * GIB, "Apple M3 Max (40-core GPU)"),
        ("Apple M1", 16, "", 16 * GIB * 2 // 3, "Apple M1 (7-core GPU)"),
        ("Apple M2 Ultra", 192, "180000", 180000 * MIB, "Apple M2 Ultra (60-core GPU)"),
        ("Apple M9", 24, "0", 16 * GIB, None),
    ],
)
def test_a_mac(monkeypatch, chip, gib, limit, usable, row):
    answers = {"machdep.cpu.brand_string": chip, "hw.memsize": str(gib * GIB), "iogpu.wired_limit_mb": limit}
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(local, "sysctl", answers.__getitem__)
    (device,) = local.apple_devices()
    assert (device.name, device.total, device.usable, device.free) == (chip, gib * GIB, usable, None)
    assert (device.spec.name if device.spec else None) == row and device.unified


def test_no_mac(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert local.apple_devices() == ()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(local, "sysctl", {"machdep.cpu.brand_string": "Intel(R) Core(TM) i7", "hw.memsize": "x"}.__getitem__)
    assert local.apple_devices() == ()


def machine(monkeypatch, nvidia: tuple[Device, ...] = (), amd: tuple[Device, ...] = (), reason: str = "") -> Detection:
    monkeypatch.setattr(local, "nvidia_devices", lambda environ: Detection(nvidia, reason=reason))
    monkeypatch.setattr(local, "amd_devices", lambda: amd)
    monkeypatch.setattr(local, "apple_devices", tuple)
    return local.local_devices()


def test_one_maker_s_cards_are_taken(monkeypatch):
    big, small, apu = device_of(find_gpu("4090")), device_of(find_gpu("RX 7600")), device_of(find_gpu("Radeon 780M"))
    found = machine(monkeypatch, (big, big), (small, apu))
    assert [(device.name, device.index) for device in found.devices] == [(big.name, 0), (big.name, 1)]
    assert found.notes == (f"{small.name} is here too and is not counted", f"{apu.name} is here too and is not counted")
    assert machine(monkeypatch, (), (apu,)).devices == (apu,)


def test_none_found_says_why(monkeypatch):
    found = machine(monkeypatch, reason="no NVIDIA driver")
    assert found == Detection(reason="no GPU found here: no NVIDIA driver", local=True)


def test_system_memory(monkeypatch, tmp_path):
    total = unified.system_memory()
    assert total is not None and total > 256 * MIB
    monkeypatch.setattr(unified, "MEMINFO", tmp_path / "meminfo")
    assert unified.available_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemAvailable:   640 kB\n")
    assert unified.available_memory() == 640 * 1024
    (tmp_path / "meminfo").write_text("MemAvailable:\n")
    assert unified.available_memory() is None


def test_system_memory_where_it_cannot_be_asked(monkeypatch):
    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(unified.os, "sysconf", refuse)
    assert unified.system_memory() is None
