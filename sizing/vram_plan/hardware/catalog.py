"""The accelerators of `vram_plan_data/gpus.csv`: one row of data, one `GpuSpec`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import cast

from vram_plan_data import ROOT

from .device import GIB, GpuSpec, MemoryBasis

__all__ = ["catalogue", "common_gpus", "raw_names", "spec_at"]


def _number(text: str, scale: float = 1.0) -> float | None:
    return float(text) * scale if text else None


def _gib(text: str) -> int | None:
    return round(float(text) * GIB) if text else None


def _shares(text: str) -> tuple[tuple[int | None, Fraction], ...]:
    """`2/3<=32;3/4`: two thirds up to 32 GiB, else three quarters."""
    parts = (part.partition("<=") for part in text.split(";") if part)
    return tuple((_gib(limit), Fraction(share)) for share, _, limit in parts)


def _spec(row: Mapping[str, str]) -> GpuSpec:
    """One row, typed: GiB become bytes, GB/s and TFLOPS become SI. Raises ValueError or KeyError on a broken row."""
    return GpuSpec(
        name=row["name"],
        vendor=row["vendor"],
        aliases=tuple(filter(None, row["aliases"].split(";"))),
        memory_bytes=round(float(row["memory_gib_nominal"]) * GIB),
        reported_bytes=_gib(row["memory_gib_reported"]),
        usable_bytes=_gib(row["memory_gib_usable"]),
        memory_basis=cast("MemoryBasis", row["memory_basis"]),
        memory_note=row["memory_note"],
        memory_options=tuple(int(size) * GIB for size in row["memory_options_gb"].split(";") if size),
        bandwidth_bytes_per_s=float(row["bandwidth_gb_s"]) * 1e9,
        fp32_flops=_number(row["fp32_tflops"], 1e12),
        fp16_flops=_number(row["fp16_dense_tflops"], 1e12),
        bf16_flops=_number(row["bf16_dense_tflops"], 1e12),
        fp8_flops=_number(row["fp8_dense_tflops"], 1e12),
        fp4_flops=_number(row["fp4_dense_tflops"], 1e12),
        int8_ops=_number(row["int8_dense_tops"], 1e12),
        power_w=_number(row["tdp_w"]),
        compute_capability=row["compute_capability"] or None,
        interconnect=row["interconnect"],
        release_year=int(row["release_year"]),
        unified=row["unified_memory"] == "yes",
        usable_shares=_shares(row["gpu_wired_limit_fraction"]),
        gpus_per_card=int(row["gpus_per_card"]),
        usual_for=tuple(filter(None, row["usual_for"].split(";"))),
        usual_because=row["usual_because"],
        common=row["common"] == "yes",
        accumulate_note=row["accumulate_note"],
        source=row["source"],
        notes=row["notes"],
    )


@lru_cache(maxsize=1)
def _table() -> tuple[list[str], list[list[str]]]:
    with (ROOT / "gpus.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


@lru_cache(maxsize=1)
def catalogue() -> tuple[GpuSpec, ...]:
    """Every row of the table, in its order. Read once, when first asked for."""
    return tuple(spec_at(index) for index in range(len(_table()[1])))


@lru_cache(maxsize=512)
def spec_at(index: int) -> GpuSpec:
    """One row, by its place in the table."""
    header, rows = _table()
    return _spec(dict(zip(header, rows[index], strict=True)))


def raw_names() -> Iterator[tuple[str, list[str], list[str]]]:
    """Of each row: its vendor, its name and aliases, the family names it stands for."""
    header, rows = _table()
    vendor, name, aliases, families = (header.index(key) for key in ("vendor", "name", "aliases", "usual_for"))
    for row in rows:
        yield row[vendor], [row[name], *filter(None, row[aliases].split(";"))], list(filter(None, row[families].split(";")))


@lru_cache(maxsize=1)
def common_gpus() -> tuple[GpuSpec, ...]:
    """A short list of common cards by usable memory, 8 GB to 192 GB (the rows marked `common`)."""
    header, rows = _table()
    column = header.index("common")
    chosen = [spec_at(index) for index, row in enumerate(rows) if row[column] == "yes"]
    return tuple(sorted(chosen, key=lambda spec: (spec.usable_bytes or spec.memory_bytes, spec.bandwidth_bytes_per_s)))
