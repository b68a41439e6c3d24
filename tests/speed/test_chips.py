"""Estimates over the whole catalogue: none faster than memory can be read, and a larger chip of a generation is no slower."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from vram_plan.formats import find_format
from vram_plan.hardware import device_of
from vram_plan.hardware.catalog import catalogue
from vram_plan.hardware.device import GpuSpec
from vram_plan.models.loading import load
from vram_plan.speed.constants import decode_constants, prefill_constants
from vram_plan.speed.hardware import Rates, backend_of, rates_of
from vram_plan.speed.reads import reads_of
from vram_plan.speed.roofline import decode_pieces, decode_terms, prefill_pieces, prefill_terms

MODELS = (("Llama-3.1-8B", "Q4_K_M"), ("Llama-3.2-1B", "Q8_0"), ("Llama-2-7B", "F16"), ("gpt-oss-20b", "MXFP4_MOE"))
KINDS = ("", "Pro", "Max", "Ultra")
GPUS = [spec for spec in catalogue() if spec.vendor in ("Apple", "NVIDIA", "AMD", "Intel")]


def rates_per_s(spec: GpuSpec, backend: str, model: str, quant: str) -> tuple[float, float, float] | None:
    """Decode and prefill in tokens per second, and the share of the bandwidth that decode's weights take."""
    rates: Rates | None = rates_of(device_of(spec), backend)
    if rates is None:
        return None
    reads = reads_of(load(model, offline=True), find_format(quant))
    at = (backend, rates.architecture, reads.weight_family, bool(reads.experts), True, -0.5)
    decode = decode_terms(decode_constants(*at, rates.dies), decode_pieces(reads, rates, 64, 1, 2.0, 2.0)).total_s
    prefill = prefill_terms(prefill_constants(*at), prefill_pieces(reads, rates, 512)).total_s
    return 1 / decode, 512 / prefill, reads.weight_bytes(1) / decode / rates.bandwidth


@pytest.mark.parametrize("spec", GPUS, ids=lambda spec: spec.name)
def test_none_reads_faster_than_its_memory(spec: GpuSpec) -> None:
    for backend in {backend_of(spec.vendor), "vulkan"}:
        for model, quant in MODELS:
            found = rates_per_s(spec, backend, model, quant)
            if found:
                decode, prefill, share = found
                assert 0 < decode < prefill
                assert share < 1.0


def chip(spec: GpuSpec) -> tuple[int, int, int]:
    """Generation, kind and cores of an Apple chip."""
    parts = re.match(r"Apple M(\d+) ?(Pro|Max|Ultra)? \((\d+)-core GPU\)", spec.name)
    assert parts, spec.name
    return int(parts[1]), KINDS.index(parts[2] or ""), int(parts[3])


@pytest.mark.parametrize(("model", "quant"), MODELS)
def test_a_larger_apple_chip_is_no_slower(model: str, quant: str) -> None:
    chips = sorted(((chip(spec), spec) for spec in GPUS if spec.vendor == "Apple"), key=lambda pair: pair[0])
    assert len(chips) > 30
    for ((generation, *_), one), ((next_generation, *_), other) in pairwise(chips):
        if generation == next_generation:
            small, large = (rates_per_s(spec, "metal", model, quant) for spec in (one, other))
            assert small and large
            assert small[0] <= large[0], f"{one.name}, {other.name}"
            assert small[1] <= large[1], f"{one.name}, {other.name}"


def test_a_newer_apple_chip_takes_less_time_a_layer() -> None:
    layers = [decode_constants("metal", f"m{generation}", "k", False, True, -0.5).layer_s for generation in range(1, 7)]
    assert layers == sorted(layers, reverse=True)


def test_a_second_die_costs_bandwidth() -> None:
    one, two = (decode_constants("metal", "m3", "k", False, True, -0.5, dies).weight_share for dies in (1, 2))
    assert 0.8 * one < two < one
