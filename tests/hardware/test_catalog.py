"""Every row of gpus.csv: units, ranges, sources, and names that lead back to it."""

from __future__ import annotations

import csv
from collections import Counter
from fractions import Fraction

import pytest
from vram_plan.errors import UsageError
from vram_plan.hardware import common_gpus, device_of, list_gpus, match_gpu
from vram_plan.hardware.catalog import catalogue
from vram_plan.hardware.words import cut
from vram_plan_data import ROOT

GIB = 1 << 30
ROWS = catalogue()


def test_the_table_is_whole():
    with (ROOT / "gpus.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows) - 1 == len(ROWS) >= 230
    assert Counter(spec.vendor for spec in ROWS) == {"NVIDIA": 138, "AMD": 41, "Apple": 38, "Intel": 10, "Google": 4}
    assert max(Counter(spec.name for spec in ROWS).values()) == 1


@pytest.mark.parametrize("spec", ROWS, ids=lambda spec: spec.name)
def test_row(spec):
    assert spec.source and spec.interconnect
    assert spec.memory_note or spec.unified
    assert GIB <= spec.memory_bytes <= 1024 * GIB
    assert 50e9 <= spec.bandwidth_bytes_per_s <= 10e12
    assert 2015 <= spec.release_year <= 2026
    assert spec.power_w is None or 10 <= spec.power_w <= 2000
    for rate in (spec.fp32_flops, spec.fp16_flops, spec.bf16_flops, spec.fp8_flops, spec.fp4_flops, spec.int8_ops):
        assert rate is None or 1e12 <= rate <= 2e16
    for lower, higher in ((spec.fp16_flops, spec.fp8_flops), (spec.fp8_flops, spec.fp4_flops)):
        assert lower is None or higher is None or 1.0 <= higher / lower <= 4.1  # GeForce: fp8 with fp32 accumulate is halved
    assert (spec.compute_capability is not None) == (spec.vendor == "NVIDIA")
    assert bool(spec.usual_for) == bool(spec.usual_because)


@pytest.mark.parametrize("spec", ROWS, ids=lambda spec: spec.name)
def test_memory_of_a_row(spec):
    """The driver's total is below the round number, and what an idle card hands out is below that, though not by much."""
    if spec.unified:
        assert spec.usable_shares or spec.usable_bytes
        assert all(Fraction(1, 2) <= share < 1 for _, share in spec.usable_shares)
        assert all(size <= spec.memory_bytes for size in spec.memory_options)
        return
    total = spec.reported_bytes or spec.memory_bytes
    assert spec.usable_bytes is not None and 0.9 * spec.memory_bytes <= total <= spec.memory_bytes
    assert total * 0.9 <= spec.usable_bytes <= total
    assert spec.usable_bytes >= total - 1.2 * GIB or spec.vendor == "Intel"


@pytest.mark.parametrize("spec", ROWS, ids=lambda spec: spec.name)
def test_its_own_name_finds_the_row(spec):
    assert match_gpu(spec.name).spec == spec
    assert match_gpu(spec.name.lower().replace("-", " ")).spec == spec


def test_an_alias_finds_its_row_or_is_shared():
    owners: dict[tuple[str, ...], set[str]] = {}
    for spec in ROWS:
        for alias in spec.aliases:
            owners.setdefault(tuple(cut(alias)), set()).add(spec.name)
    for spec in ROWS:
        for alias in spec.aliases:
            several = owners[tuple(cut(alias))]
            try:
                found = match_gpu(alias).spec.name
            except UsageError as error:  # ambiguous: more rows have it, or one row more sizes
                assert len(several) > 1 or len(spec.memory_options) > 1, error
            else:
                assert found in several


@pytest.mark.parametrize("spec", ROWS, ids=lambda spec: spec.name)
def test_a_family_name_finds_its_usual_member(spec):
    for family in spec.usual_for:
        found = match_gpu(family)
        assert found.spec == spec and spec.usual_because in found.note


def test_every_row_makes_a_device():
    for spec in ROWS:
        device = device_of(spec)
        assert 0 < device.usable <= device.total <= spec.memory_bytes
        assert device.free == device.usable and device.used_by_others == 0


def test_known_totals():
    """nvidia-smi's totals and CUDA's, as logs show them (MiB)."""
    logged = {"RTX 4090": (24564, 24080), "RTX 5090": (32607, 32123), "H100": (81559, 81091), "RTX 3090": (24576, 24126)}
    for name, (total, usable) in logged.items():
        device = device_of(match_gpu(name).spec)
        assert device.total / 2**20 == pytest.approx(total, abs=1)
        assert device.usable / 2**20 == pytest.approx(usable, abs=6)


def test_common_gpus_are_few_and_in_order():
    sizes = [spec.usable_bytes for spec in common_gpus()]
    assert sizes == sorted(sizes) and 8 <= len(sizes) <= 20
    assert sizes[0] < 8 * GIB and sizes[-1] > 180 * GIB


@pytest.mark.parametrize(
    ("query", "count"),
    [("", len(ROWS)), ("4090", 3), ("apple", 38), ("h100", 3), ("geforce rtx 50", None), ("24GB", None), ("zz", 0), ("M3 Max", 2)],
)
def test_list_gpus(query, count):
    found = list_gpus(query)
    assert len(found) == count if count is not None else len(found) > 5
    if query == "24GB":
        assert all(spec.unified or round(spec.memory_bytes / GIB) == 24 or spec.name == "NVIDIA A10" for spec in found)
