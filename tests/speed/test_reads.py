"""Bytes read a token, from the inventory: not what is stored."""

from __future__ import annotations

import pytest
import vram_plan as vp
from hypothesis import given
from hypothesis import strategies as st
from vram_plan.engines.weights import weights_of
from vram_plan.formats import find_format
from vram_plan.speed.reads import CacheGroup, Reads, reads_of


def reads(name: str, quant: str) -> Reads:
    return reads_of(vp.load(name, offline=True), find_format(quant))


def test_the_input_table_is_not_read() -> None:
    model = vp.load("llama3-8b", offline=True)
    weights = weights_of(model, find_format("F16"))
    assert reads("llama3-8b", "F16").weight_bytes(1) == weights.total - weights.embedding


def test_a_tied_table_is_read_as_the_output() -> None:
    model = vp.load("llama3.2-1b", offline=True)
    assert reads("llama3.2-1b", "F16").weight_bytes(1) == weights_of(model, find_format("F16")).total


def test_tables_of_each_layers_embeddings_are_looked_up_in_host_memory() -> None:
    model = vp.load("gemma4-e2b", offline=True)
    weights = weights_of(model, find_format("BF16"))
    assert weights.tables > 2 * weights.embedding  # most of this model
    assert reads("gemma4-e2b", "BF16").weight_bytes(1) == weights.total - weights.towers - (weights.tables - weights.embedding)
    speed = vp.plan(model, engine="llama.cpp", quant="BF16", gpus="RTX 3060 12GB").speed
    assert speed is not None and "host memory" not in speed.decode.why


def test_towers_rest() -> None:
    model = vp.load("gemma-3-4b", offline=True)
    weights = weights_of(model, find_format("BF16"))
    assert weights.towers > 0
    assert reads("gemma-3-4b", "BF16").weight_bytes(1) == weights.total - weights.towers


def test_only_chosen_experts_are_read_and_a_batch_touches_more() -> None:
    moe = reads("gpt-oss-120b", "MXFP4")
    one = moe.weight_bytes(1)
    assert one == pytest.approx(moe.shared_bytes + moe.head_bytes + moe.expert_bytes * 4 / 128)
    assert one < moe.weight_bytes(8) < moe.weight_bytes(64) < moe.shared_bytes + moe.head_bytes + moe.expert_bytes
    assert moe.touched(1000) == pytest.approx(1.0)


def test_active_parameters_are_the_models_own() -> None:
    """Norms and biases are no part of the arithmetic; the rest is what `parameters.active` says, input table apart."""
    for name in ("llama3-8b", "qwen3-30b-a3b", "deepseek-v3"):
        model, found = vp.load(name, offline=True), reads(name, "BF16")
        expected = model.parameters.active - model.parameters.embedding
        assert found.active_parameters + found.head_parameters == pytest.approx(expected, rel=2e-3)


def test_windows_cap_what_is_read() -> None:
    gemma = reads("gemma-3-4b", "BF16")
    assert gemma.kv_bytes(512, 2, 2) == 34 * 512 * 2048 * 2
    assert gemma.kv_bytes(10_000, 2, 2) == (29 * 1024 + 5 * 10_000) * 2048 * 2


def test_quantised_caches_read_less() -> None:
    llama = reads("llama3-8b", "Q4_K_M")
    assert llama.kv_bytes(4096, 2, 2) == vp.load("llama3-8b", offline=True).kv_bytes(4096)
    assert llama.kv_bytes(4096, 34 / 32, 34 / 32) == pytest.approx(llama.kv_bytes(4096, 2, 2) * 34 / 64)


def test_shared_layers_read_their_source() -> None:
    name = "google/gemma-4-E2B-it"
    model = vp.load(name, offline=True)
    shared = sum(layer.kind == "shared" for layer in model.cache_layers)
    assert shared
    assert sum(group.count for group in reads(name, "BF16").cache) == len(model.cache_layers)


@given(limit=st.integers(0, 5000), first=st.integers(0, 9000), more=st.integers(1, 9000))
def test_the_mean_over_a_prompt_is_the_mean(limit: int, first: int, more: int) -> None:
    group = CacheGroup(1, limit, 64, 64, 0.0, 128)
    steps = 2000
    sampled = sum(group.tokens(first + more * (i + 0.5) / steps) for i in range(steps)) / steps
    assert group.mean_tokens(first, first + more) == pytest.approx(sampled, rel=1e-3, abs=1e-2)
