"""The lists: models, accelerators, formats, and what this machine has."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import vram_plan as vp
from rich.console import Console
from rich.table import Table
from rich.text import Text
from vram_plan import format_gib

from .calibrate import is_used
from .plan import console, show

__all__ = ["Look", "print_formats", "print_gpus", "print_hardware", "print_models"]

_NONE_WORDS: Final = {"model": "no model", "gpu": "no GPU", "format": "no format"}
_MODEL_COLUMNS: Final = {"name": "name", "id": "Hub id"}
_GPU_COLUMNS: Final = {"name": "name", "memory": "GiB", "bandwidth": "GB/s", "compute_capability": "sm", "release_year": "year"}
_FORMAT_COLUMNS: Final = {"name": "name", "family": "kind", "bits": "bits/weight", "note": "what it is"}


@dataclass(frozen=True, slots=True)
class Look:
    """How a list is shown: as JSON, as names alone, in how many columns."""

    json: bool = False
    quiet: bool = False
    width: int | None = None


def _print(rows: list[dict[str, Any]], columns: dict[str, str], look: Look, what: str, query: str) -> None:
    """Rows as JSON, or as a table of the named columns; a query nothing answers to is an error."""
    if not rows:
        raise vp.UnknownNameError(f"{_NONE_WORDS[what]} has {query[:60]!r} in its name", f"see them all with: vram-plan {what}s")
    if look.json:
        print(json.dumps(rows, default=str, indent=1))
    elif look.quiet:
        print(*(row["name"] for row in rows), sep="\n")
    else:
        _print_table(rows, columns, console(look.width))


def _print_table(rows: list[dict[str, Any]], columns: dict[str, str], out: Console) -> None:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for title in columns.values():
        numbers = title in ("GiB", "GB/s", "bits/weight", "sm", "year")
        table.add_column(title, justify="right" if numbers else "left", overflow="fold", no_wrap=numbers)
    for row in rows:
        table.add_row(*("" if row.get(key) is None else str(row[key]) for key in columns))
    show(out, table)


def print_models(query: str, look: Look) -> None:
    rows = [{"name": row.name, "id": row.id} for row in vp.list_models(query)]
    _print(rows, _MODEL_COLUMNS, look, "model", query)


def print_gpus(query: str, look: Look) -> None:
    rows = [_gpu_row(spec) for spec in vp.list_gpus(query)]
    _print(rows, _GPU_COLUMNS, look, "gpu", query)
    if not (look.json or look.quiet):
        show(console(look.width), "", "bandwidth (GB/s) decides how fast a model writes; sm is the CUDA compute capability")


def _gpu_row(spec: vp.GpuSpec) -> dict[str, Any]:
    bandwidth = spec.bandwidth_bytes_per_s
    return asdict(spec) | {
        "memory": f"{spec.memory_bytes / 2**30:.1f}",
        "bandwidth": f"{bandwidth / 1e9:,.0f}" if bandwidth else None,
    }


def print_formats(query: str, look: Look) -> None:
    rows = [asdict(row) | {"bits": f"{row.bits_per_weight:.2f}"} for row in vp.list_formats(query)]
    _print(rows, _FORMAT_COLUMNS, look, "format", query)


def print_hardware(look: Look) -> None:
    found = vp.local_devices()
    if look.json:
        print(json.dumps({"devices": [_device_row(d) for d in found.devices], "notes": list(found.notes)}, default=str, indent=1))
        return
    out = console(look.width)
    for device in found.devices:
        show(out, Text(f"{device.index}  {device.name}", style="bold"))
        show(out, *(f"   {line}" for line in _device_lines(device)[: 1 if look.quiet else None]))
    if not found.devices:
        show(out, found.reason or "no GPU found here")
    if not look.quiet:
        show(out, *found.notes, *_calibrated_cpus())


def _device_lines(device: vp.Device) -> list[str]:
    lines = [f"{format_gib(device.available)} free of {format_gib(device.total)}; usable in all {format_gib(device.usable)}"]
    facts = (("driver", device.driver), ("compute capability", device.compute_capability), ("UUID", device.uuid))
    lines += [f"{label} {value}" for label, value in facts if value]
    lines.append(_calibration(device.profile))
    return lines + [f"held by {p.name or 'process'} ({p.pid}): {format_gib(p.bytes or 0)}" for p in device.processes]


def _calibrated_cpus() -> list[str]:
    profiles = [one.profile for one in vp.stored_profiles() if one.profile and one.profile.device.kind == "cpu"]
    return [f"{p.device.name}: {_calibration(p)}" + ("; plan on it with --gpu cpu" if is_used(p) else "") for p in profiles]


def _device_row(device: vp.Device) -> dict[str, Any]:
    """The device with what matters of its profile: `vram-plan calibrate --show` has the rest."""
    p = device.profile
    known = {"date": p.date, "decode_error": p.worst_error("decode"), "engines": sorted(p.engines)} if p else None
    return asdict(replace(device, profile=None)) | {"profile": known}


def _calibration(profile: vp.Profile | None) -> str:
    if profile is None or not profile.points:
        return "not calibrated (vram-plan calibrate)"
    error, day = profile.worst_error("decode"), f"calibrated {profile.date[:10]}"
    if not is_used(profile):
        return f"{day}, not used: " + ("nothing was held out" if error is None else f"off by {100 * error:.0f} %")
    return f"{day}, decode held out within {100 * (error or 0.0):.1f} %"
