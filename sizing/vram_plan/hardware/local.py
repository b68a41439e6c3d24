"""The GPUs of this machine, whoever made them: NVIDIA by NVML, AMD by Linux's sysfs, Apple by sysctl."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from .device import GIB, MIB, Detection, Device, GpuSpec
from .nvml import nvidia_devices
from .unified import gpu_share, system_memory

__all__ = ["amd_devices", "apple_devices", "local_devices", "sysctl"]

DRM: Final = Path("/sys/class/drm")
#: PCI device ids of libdrm's data/amdgpu.ids that stand for one chip; 744c is told apart by its memory.
_AMD_IDS: Final = {
    "0x744c": "RX 7900", "0x1586": "AMD Radeon 8060S", "0x74a1": "MI300X", "0x74a0": "MI300A", "0x74a5": "MI325X",
    "0x740f": "MI210", "0x7408": "MI250X", "0x740c": "MI250X", "0x738c": "MI100", "0x66a1": "MI50",
}  # fmt: skip


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(256).strip()
    except OSError:
        return ""


def _bytes(path: Path) -> int:
    text = _read(path)
    return int(text) if text.isascii() and text.isdigit() else 0


def _amd_device(folder: Path) -> Device | None:
    """One card of amdgpu's sysfs (kernel documentation, "amdgpu: Memory"). An APU may take its carve-out and GTT."""
    if _read(folder / "vendor") != "0x1002" or not (vram := _bytes(folder / "mem_info_vram_total")):
        return None
    pci = _read(folder / "device")
    from .names import match_local

    named = _read(folder / "product_name") or _AMD_IDS.get(pci, "")
    spec = match_local(named, vram) if named else None
    gtt = _bytes(folder / "mem_info_gtt_total")
    unified = spec.unified if spec else vram <= 4 * GIB < gtt
    used = _bytes(folder / "mem_info_vram_used") + (_bytes(folder / "mem_info_gtt_used") if unified else 0)
    total = vram + (gtt if unified else 0)
    note = f"{vram // MIB} MiB set aside by the BIOS and {gtt // MIB} MiB of GTT" if unified else "as amdgpu reports now"
    uuid = _read(folder / "unique_id") or None
    name = spec.name if spec else named or f"AMD GPU {pci}"
    return Device(
        name, 0, total, total, max(total - used, 0), used_by_others=min(used, total), spec=spec, vendor="AMD",
        unified=unified, uuid=uuid, basis="measured", note=note,
    )  # fmt: skip


def amd_devices(root: Path = DRM) -> tuple[Device, ...]:
    """AMD GPUs of a Linux machine with the amdgpu driver; none elsewhere."""
    try:
        cards = sorted((card for card in root.iterdir() if re.fullmatch(r"card\d+", card.name)), key=lambda card: int(card.name[4:]))
    except OSError:
        return ()
    return tuple(device for card in cards if (device := _amd_device(card / "device")))


def sysctl(name: str) -> str:
    """A value of macOS's sysctl; empty where there is none."""
    import subprocess

    try:
        asked = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=2, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()


def _apple_usable(spec: GpuSpec | None, total: int, limit_mb: str) -> tuple[int, str]:
    if limit_mb.isdigit() and int(limit_mb):
        return min(int(limit_mb) * MIB, total), "the limit set with iogpu.wired_limit_mb"
    share = gpu_share(spec, total) if spec else None
    usable = int(total * share) if share else total * 2 // 3
    return usable, f"Metal lets the GPU take {share or '2/3'} of the memory; raise it with: sudo sysctl iogpu.wired_limit_mb=…"


def apple_devices() -> tuple[Device, ...]:
    """The GPU of an Apple silicon Mac; none elsewhere. What is free is not known: macOS makes room by compressing."""
    if sys.platform != "darwin":
        return ()
    from .names import match_local

    name, memory = sysctl("machdep.cpu.brand_string"), sysctl("hw.memsize")
    total = int(memory) if memory.isdigit() else system_memory() or 0
    if not name.startswith("Apple ") or not total:
        return ()
    spec = match_local(name, total)
    usable, note = _apple_usable(spec, total, sysctl("iogpu.wired_limit_mb"))
    return (Device(name, 0, total, usable, None, spec=spec, vendor="Apple", unified=True, basis="measured", note=note),)


def _one_kind(groups: list[tuple[Device, ...]]) -> tuple[tuple[Device, ...], list[str]]:
    """One maker's cards, since no engine runs one model on two makers' unasked; cards before graphics in the processor."""
    devices = [device for group in groups for device in group]
    if any(not device.unified for device in devices):
        groups = [tuple(device for device in group if not device.unified) for group in groups]
    best = max(groups, key=lambda group: sum(device.usable for device in group), default=())
    return best, [f"{device.name} is here too and is not counted" for device in devices if device not in best]


def local_devices(environ: Mapping[str, str] | None = None) -> Detection:
    """This machine's GPUs with what is free now and what was measured on them. None found: the reason.

    Raises HardwareError when a driver is broken.
    """
    nvidia = nvidia_devices(environ)
    devices, others = _one_kind([nvidia.devices, amd_devices(), apple_devices()])
    numbered = tuple(replace(device, index=index) for index, device in enumerate(devices))
    reason = "" if numbered else f"no GPU found here: {nvidia.reason}"
    known, stale = _with_profiles(numbered) if numbered else ((), ())
    return Detection(known, (*nvidia.notes, *others, *stale), reason, local=True)


def _with_profiles(devices: tuple[Device, ...]) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    from .profile_store import attach

    return attach(devices)
