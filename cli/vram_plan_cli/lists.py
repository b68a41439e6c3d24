"""The lists: models, accelerators, formats, and what this machine has."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import vram_plan as vp
from rich.table import Table
from vram_plan import format_gib

from .screen import console

__all__ = ["print_formats", "print_gpus", "print_hardware", "print_models"]


def _print(rows: list[dict[str, Any]], columns: dict[str, str], as_json: bool, what: str, query: str) -> None:
    """Rows as JSON, or as a table of the named columns; a query nothing answers to is an error."""
    if not rows:
        raise vp.UnknownNameError(f"no {what} has {query[:60]!r} in its name", f"see them all with: vram-plan {what}s")
    if as_json:
        print(json.dumps(rows, default=str, indent=1))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for title in columns.values():
        table.add_column(title, justify="right" if title in ("GiB", "GB/s", "bits/weight") else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if row.get(key) is None else str(row[key]) for key in columns))
    console().print(table)


def print_models(query: str, as_json: bool) -> None:
    rows = [{"name": row.name, "id": row.id} for row in vp.list_models(query)]
    _print(rows, {"name": "name", "id": "Hub id"}, as_json, "model", query)


def print_gpus(query: str, as_json: bool) -> None:
    rows = [_gpu_row(spec) for spec in vp.list_gpus(query)]
    columns = {"name": "name", "memory": "GiB", "bandwidth": "GB/s", "compute_capability": "sm", "release_year": "year"}
    _print(rows, columns, as_json, "gpu", query)


def _gpu_row(spec: vp.GpuSpec) -> dict[str, Any]:
    bandwidth = spec.bandwidth_bytes_per_s
    return asdict(spec) | {
        "memory": f"{spec.memory_bytes / 2**30:.1f}",
        "bandwidth": f"{bandwidth / 1e9:,.0f}" if bandwidth else None,
    }


def print_formats(query: str, as_json: bool) -> None:
    rows = [asdict(row) | {"bits": f"{row.bits_per_weight:.2f}"} for row in vp.list_formats(query)]
    _print(rows, {"name": "name", "family": "kind", "bits": "bits/weight", "note": "what it is"}, as_json, "format", query)


def print_hardware(as_json: bool) -> None:
    found = vp.local_devices()
    if as_json:
        print(json.dumps({"devices": [_device_row(d) for d in found.devices], "notes": list(found.notes)}, default=str, indent=1))
        return
    out = console()
    for device in found.devices:
        out.print(f"{device.index}  {device.name}", style="bold")
        out.print(f"   {format_gib(device.available)} free of {format_gib(device.total)}; usable in all {format_gib(device.usable)}")
        for label, value in (("driver", device.driver), ("compute capability", device.compute_capability), ("UUID", device.uuid)):
            if value:
                out.print(f"   {label} {value}")
        out.print(f"   {_calibration(device.profile)}")
        for process in device.processes:
            out.print(f"   held by {process.name or 'process'} ({process.pid}): {format_gib(process.bytes or 0)}")
    if not found.devices:
        out.print(found.reason or "no GPU found here")
    for note in found.notes:
        out.print(note)
    for one in vp.stored_profiles():
        if one.profile and one.profile.device.kind == "cpu":
            out.print(f"{one.profile.device.name}: {_calibration(one.profile)}; plan on it with --gpu cpu")


def _device_row(device: vp.Device) -> dict[str, Any]:
    """The device with what matters of its profile: `vram-plan calibrate --show` has the rest."""
    p = device.profile
    known = {"date": p.date, "decode_error": p.worst_error("decode"), "engines": sorted(p.engines)} if p else None
    return asdict(replace(device, profile=None)) | {"profile": known}


def _calibration(profile: vp.Profile | None) -> str:
    if profile is None or not profile.points:
        return "not calibrated (vram-plan calibrate)"
    error = profile.worst_error("decode")
    return f"calibrated {profile.date[:10]}" + ("" if error is None else f", decode held out within {100 * error:.1f} %")
