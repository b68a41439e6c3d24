"""The fitted constants: every row in range, with what it was fitted on; the accuracy the fit stored beside them."""

from __future__ import annotations

from typing import Any

import pytest
from vram_plan.hardware.catalog import catalogue
from vram_plan.speed.constants import architecture_key, decode_constants, prefill_constants, server_constants, table
from vram_plan.speed.words import age_of, version_age

from speed.cases import speed_cases

BACKENDS = ("cuda", "metal", "rocm", "vulkan")
PARTS = [(backend, part) for backend in BACKENDS for part in ("decode", "prefill")]


@pytest.mark.parametrize(("backend", "part"), PARTS)
def test_a_class_says_what_it_was_fitted_on(backend: str, part: str) -> None:
    row = table()["llama.cpp"][backend][part]
    assert row["rows"] == sum(own["rows"] for own in row["architectures"].values())
    assert row["gpus"] == sum(own["gpus"] for own in row["architectures"].values())
    for ends in (row["spread"], row["spread_moe"]):
        assert 0 < ends[0] < 1 < ends[1] < 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_decode_constants_are_possible(backend: str) -> None:
    for architecture in (*table()["llama.cpp"][backend]["decode"]["architectures"], "never seen"):
        for family in ("plain", "simple", "k", "fp4"):
            c = decode_constants(backend, architecture, family, True, True, 0.0)
            assert 0.3 < c.weight_share < 1.3
            assert 0.05 < c.kv_share < 1.5
            assert 1e-6 < c.layer_s < 1e-3
            assert c.issue_bytes_per_flop > 0.01
            p = prefill_constants(backend, architecture, family, False, True, 0.0)
            assert 0.001 < p.tensor_share < 1
            assert p.issue_share > 0.01


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("moe", [False, True])
def test_server_constants_are_possible(engine: str, moe: bool) -> None:
    for architecture in ("h100", "b200", "ada"):
        for fp8 in (False, True):
            c = server_constants(engine, architecture, moe, fp8, 1.0)
            assert 0.4 < min(c.weight_share, c.expert_share, c.kv_share, c.link_share) < 1
            assert 0.05 < min(c.compute_share, c.prompt_share) < 1
            assert 1e-6 < c.layer_s < 1e-3
            assert 0 < c.sequence_s < 1e-4
            assert c.idle_prompt > 0.5
            assert 0 <= c.idle_exponent <= 1
            assert c.prefill_spread.low < 1 < c.prefill_spread.high


def test_an_unseen_architecture_takes_its_pool_and_says_so() -> None:
    seen, unseen = (decode_constants("cuda", name, "k", False, True, 0.0) for name in ("ada", "never seen"))
    assert seen.evidence.own_architecture
    assert not unseen.evidence.own_architecture
    assert "no measurement of never seen" in unseen.evidence.label
    assert unseen.evidence.gpus > seen.evidence.gpus


def test_assumed_constants_say_where_they_come_from() -> None:
    for name, row in table()["assumed"].items():
        assert row["value"] > 0, name
        assert len(row["source"]) > 20, name


def test_every_gpu_of_the_common_makers_has_a_class() -> None:
    makers = {"NVIDIA", "Apple", "AMD"}
    for spec in catalogue():
        if spec.vendor in makers and spec.release_year >= 2018 and spec.compute_capability != "11.0":
            assert architecture_key(spec.vendor, spec.name, spec.compute_capability) != spec.vendor.lower(), spec.name


@pytest.mark.parametrize(
    ("name", "mid", "ninth"),
    [
        ("llama.cpp decode, cuda", 0.07, 0.18), ("llama.cpp decode, metal", 0.06, 0.16), ("llama.cpp decode, rocm", 0.14, 0.30),
        ("llama.cpp decode, cuda, mixtures of experts", 0.05, 0.10), ("llama.cpp prefill, cuda", 0.20, 0.50),
        ("llama.cpp decode, vulkan", 0.15, 0.40), ("llama.cpp prefill, rocm, builds since autumn 2025", 0.45, 1.0),
        ("vllm time per output token, all, GPU left out", 0.11, 0.30), ("vllm time per output token, all, model left out", 0.10, 0.25),
        ("vllm time per output token, mixtures of experts, GPU left out", 0.13, 0.35),
        ("sglang time per output token, all, model left out", 0.15, 0.60),
    ],
)  # fmt: skip
def test_gpus_left_out_of_the_fit_are_estimated(name: str, mid: float, ninth: float) -> None:
    row: dict[str, Any] = next(row for row in table()["accuracy"] if row["class"] == name)
    assert row["median"] <= mid
    assert row["p90"] <= ninth
    # few GPUs tell a wide range: it holds more of those it was not told by
    assert 0.8 <= row["inside"] <= (0.95 if row["gpus"] >= 10 else 1.0)
    assert row["naive_median"] is None or row["naive_median"] > 3 * row["median"]


def test_measurements_are_whole() -> None:
    cases = speed_cases()
    assert len({case.id for case in cases}) == len(cases) > 1900
    for case in cases:
        assert case.source
        assert case.trust in "AB"
        assert case.oom or (case.tokens_per_s or case.tpot_ms or 0) > 0, case.id


@pytest.mark.parametrize(
    ("build", "age"),
    [("2026-10", -0.5), ("2024-05", 1.0), ("2023-01", 1.0), ("2024-12", 0.53), ("2025-08", 0.0), ("", -0.5), ("b4000", -0.5)],
)
def test_age_of_builds(build: str, age: float) -> None:
    assert age_of(build) == pytest.approx(age, abs=0.01)


@pytest.mark.parametrize(
    ("version", "age"),
    [("0.19", 0.0), ("0.18.0", 0.0), ("0.17", 0.5), ("v0.16.0", 1.0), ("0.9.2", 1.0), ("1.0", 0.0), (None, 0.0), ("nightly", 0.0)],
)
def test_age_of_versions(version: str | None, age: float) -> None:
    assert version_age(version) == age


def test_old_versions_and_fp8_layers_are_slower_for_mixtures_only() -> None:
    dense, old_dense = (server_constants("vllm", "h100", False, True, age) for age in (0.0, 1.0))
    assert dense == old_dense
    new, old = (server_constants("vllm", "h100", True, True, age) for age in (0.0, 1.0))
    assert old.layer_s > new.layer_s > server_constants("vllm", "h100", True).layer_s
    assert old.expert_share < new.expert_share


def test_every_matrix_rate_says_what_it_counts() -> None:
    for spec in catalogue():
        assert not (spec.fp16_flops or spec.bf16_flops) or spec.accumulate_note, spec.name
