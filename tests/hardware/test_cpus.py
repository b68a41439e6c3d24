"""Processors by name: the catalogue's rows, what of memory a name says, and plans on them."""

from __future__ import annotations

import re

import pytest
import vram_plan as vp
from vram_plan.hardware.cpus import CpuRow, cpu_catalogue, cpu_of_system, cpu_spec
from vram_plan.hardware.parse import parse_gpus

GB = 1 << 30


@pytest.mark.parametrize("row", cpu_catalogue(), ids=lambda row: row.name)
def test_a_row_is_in_its_units(row: CpuRow):
    assert 1 <= row.cores <= row.threads <= 512
    assert 1.0 <= row.base_ghz <= row.boost_ghz <= 6.5
    assert row.fp32_per_clock in (8, 16, 24, 32, 64)
    assert row.fp32_per_clock <= row.int8_per_clock <= 2048
    assert row.memory in ("DDR3", "DDR4", "DDR5", "LPDDR4", "LPDDR4X", "LPDDR5", "LPDDR5X")
    assert row.bus_bits % 16 == 0
    assert 8e9 <= cpu_spec(row).bandwidth_bytes_per_s <= 1e12
    assert 2011 <= row.release_year <= 2026
    assert re.search(r"20\d\d-\d\d", row.source)


@pytest.mark.parametrize("row", cpu_catalogue(), ids=lambda row: row.name)
def test_its_names_lead_back(row: CpuRow):
    for name in (row.name, *row.aliases):
        spec = parse_gpus(f"{name} 64GB").devices[0].spec
        assert spec is not None
        if spec.vendor == "CPU":  # some names are of a chip with a GPU in it
            assert spec.name == row.name


@pytest.mark.parametrize(
    ("text", "memory", "bandwidth"),
    [
        ("Ryzen 9 7950X 64GB", 64, 83.2e9), ("7950x 64 GB ddr5-6000", 64, 96e9), ("i7-8700 32gib", 32, 42.7e9),
        ("Intel Core i7-8700 16 GB DDR4-2400", 16, 38.4e9), ("EPYC 9554 1.5TB", 1536, 460.8e9),
        ("EPYC 7763 256GB 6 channels", 256, 153.6e9),
        ("Raspberry Pi 5 16GB", 16, 17.1e9),
    ],
)  # fmt: skip
def test_memory_is_what_the_name_says(text: str, memory: float, bandwidth: float):
    (device,) = parse_gpus(text).devices
    assert (device.vendor, device.total) == ("CPU", memory * GB)
    assert device.spec is not None
    assert device.spec.bandwidth_bytes_per_s == pytest.approx(bandwidth, rel=0.01)


def test_memory_wide_for_a_gpu_beside_is_told_apart():
    def wide(text: str) -> bool:
        spec = parse_gpus(text).devices[0].spec
        return spec is not None and spec.unified

    assert wide("Core Ultra 7 258V 32GB")
    assert not wide("Core Ultra 7 155H 32GB DDR5-5600")
    assert not wide("Raspberry Pi 5 16GB")


def test_memory_speed_not_said_is_told():
    assert parse_gpus("Ryzen 9 7950X 64GB").notes == (
        "AMD Ryzen 9 7950X: memory taken as DDR5-5200, the fastest it supports, 83 GB/s; say another as: 64GB DDR5-5200",
    )
    assert parse_gpus("Ryzen 9 7950X 64GB DDR5-6000").notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ryzen 9 7950X", "how much memory"), ("epyc 64gb", "could be"), ("2x EPYC 9554 384GB", "one processor"),
        ("RTX 4090 + Ryzen 9 7950X 64GB", "planned alone"), ("7950X 64GB 9 channels", "memory that no"),
        ("7950X 64GB DDR5-99999", "memory that no"),
        ("no such chip 64GB", "no such chip"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_says_why(text: str, message: str):
    with pytest.raises((vp.UsageError, vp.UnknownNameError), match=re.compile(message, re.IGNORECASE)):
        parse_gpus(text)


@pytest.mark.parametrize(
    ("system", "threads", "name"),
    [
        ("AMD EPYC 9554 64-Core Processor", 128, "AMD EPYC 9554"), ("AMD Ryzen 9 7950X 16-Core Processor", 32, "AMD Ryzen 9 7950X"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", 12, "Intel Core i7-8700"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", 32, "Intel Core i9-13900K"),
        ("Intel(R) N100", 4, "Intel N100"), ("Raspberry Pi 5 Model B Rev 1.0", 4, "Raspberry Pi 5"),
        ("AMD Ryzen 9 7950X 16-Core Processor", 4, None), ("AMD EPYC", 2, None), ("another", 16, None),
    ],
)  # fmt: skip
def test_a_systems_own_name(system: str, threads: int, name: str | None):
    spec, _ = cpu_of_system(system, threads)
    assert (spec.name if spec else None) == name


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
def test_a_plan_is_all_in_its_memory(engine: str):
    plan = vp.plan("llama3.1-8b", engine=engine, quant="Q4_K_M", gpus="Ryzen 9 7950X 32GB", context="16k")
    assert {term.name for term in plan.devices[0].terms} == {"weights", "kv_cache", "compute", "output"}  # no runtime of a backend
    assert plan.host.used == 0
    assert plan.fit.verdict == "fits"
    assert plan.fit.least_offload == 0
    commands = " ".join(launch.command + launch.note for launch in plan.launch)
    assert ("--device none" if engine == "llama.cpp" else "num_gpu 0") in commands
    more = vp.plan("llama3.1-8b", engine=engine, quant="Q4_K_M", gpus="Ryzen 9 7950X 32GB", context=plan.fit.max_context)
    assert more.fit.verdict in ("fits", "tight")


def test_a_model_too_large_is_not_offloaded():
    plan = vp.plan("llama3.1-70b", engine="llama.cpp", quant="Q4_K_M", gpus="Ryzen 9 7950X 32GB", context="8k")
    assert plan.fit.verdict == "does_not_fit"
    assert not any("offload" in suggestion for suggestion in plan.fit.suggestions)


def test_the_engine_is_what_runs_such_a_format():
    assert vp.plan("llama3.1-8b", quant="Q4_K_M", gpus="i7-8700 32GB").request.engine == "ollama"
    assert vp.plan("llama3.1-8b", gpus="i7-8700 32GB").request.engine == "transformers"


def test_another_backend_is_none_of_a_processors():
    with pytest.raises(vp.UsageError, match="cuda"):
        vp.plan("llama3.1-8b", engine="llama.cpp", quant="Q4_K_M", gpus="i7-8700 32GB", options={"backend": "cuda"})
