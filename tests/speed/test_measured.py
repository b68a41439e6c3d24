"""A calibration in place of the fitted constants: what of it is used, by which engine, with which range."""

from __future__ import annotations

from dataclasses import replace

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_values import a_device, a_profile
from vram_plan.hardware.profiles import EngineScale, Figure, Fitted, HeldOut, Profile
from vram_plan.results import SpeedEstimate
from vram_plan.speed.reads import reads_of

LLAMA = vp.load("llama3-8b")


def speed(profile: Profile | None, engine: str = "transformers", quant: str = "BF16", count: int = 1, **request: object) -> SpeedEstimate:
    found = vp.plan(LLAMA, engine=engine, quant=quant, context="8k", gpus=[replace(a_device(), profile=profile)] * count, **request).speed
    assert found is not None
    return found


def held_out(decode: float, prefill: float = 0.0, mode: str = "eager") -> Profile:
    rows = (HeldOut("d", "decode", 1 + decode, 1.0, decode, mode), HeldOut("p", "prefill", 1 + prefill, 1.0, prefill))
    return replace(a_profile(), held_out=rows)


def test_transformers_takes_the_eager_kernels_as_measured():
    """Worked out by hand: what is read at each rate, 32 layers at 50 µs and 100 µs a token, which is more than 32 launches of 250 µs."""
    weights = 2 * (8_030_261_248 - 128_256 * 4096)
    kv = 8192 * 32 * 2 * 8 * 128 * 2
    step_s = weights / 800e9 + kv / 700e9 + 32 * 50e-6 + 100e-6
    assert step_s > 32 * 250e-6 + 100e-6
    found = speed(a_profile())
    assert found.decode.tokens_per_s == pytest.approx(1 / step_s, rel=1e-3)
    words = "measured: calibration of 2026-11-22, torch 2.13.0+cu130, bf16, decode held out within 3.0 %, prompts within 8.0 %"
    assert found.basis == words


def test_launches_that_take_longer_than_the_device_are_what_a_step_takes():
    slow = replace(a_profile(), fitted=replace(a_profile().fitted, eager_layer_s=Figure(2e-3)))
    assert speed(slow).decode.tokens_per_s == pytest.approx(1 / (32 * 2e-3 + 100e-6), rel=1e-6)
    assert "overhead" in speed(slow).decode.why


def test_a_prompt_is_computed_at_the_measured_rates():
    found = speed(a_profile(), prompt=2048)
    reads = reads_of(LLAMA, LLAMA_BF16)
    matrices = 2.0 * reads.active_parameters * 2048
    attention = reads.mean_attention_flops(2048, 0) * 2048
    assert found.prefill.tokens_per_s == pytest.approx(2048 / (matrices / 100e12 + attention / 50e12), rel=1e-9)


LLAMA_BF16 = next(row for row in vp.list_formats("BF16") if row.name == "BF16")


def test_a_short_prompt_is_no_quicker_than_a_decode_step():
    one, step = speed(a_profile(), prompt=1), speed(a_profile())
    assert 1 / one.prefill.tokens_per_s < 1 / step.decode.tokens_per_s
    assert one.prefill.bound == "memory"
    assert 1 / one.prefill.tokens_per_s == pytest.approx(2 * (8_030_261_248 - 128_256 * 4096) / 800e9 + 32 * 50e-6 + 100e-6, rel=1e-3)


def test_the_held_out_error_is_the_range():
    found = speed(held_out(-0.12, 0.08))
    assert found.decode.low == pytest.approx(found.decode.tokens_per_s * 0.88)
    assert found.decode.high == pytest.approx(found.decode.tokens_per_s * 1.12)
    assert found.prefill.high == pytest.approx(found.prefill.tokens_per_s * 1.08)


def test_a_lucky_check_promises_no_more_than_equal_cards_keep():
    found = speed(held_out(0.001))
    assert found.decode.high == pytest.approx(found.decode.tokens_per_s * 1.05)


def test_steps_that_scatter_widen_the_range():
    points = tuple(replace(p, p10_s=0.8 * p.median_s, p90_s=1.4 * p.median_s) for p in a_profile().points)
    found = speed(replace(a_profile(), points=points))
    assert found.decode.low == pytest.approx(found.decode.tokens_per_s * 0.7)
    assert found.decode.high == pytest.approx(found.decode.tokens_per_s * 1.3)


@pytest.mark.parametrize(("error", "words"), [(0.21, "off by 21 % on what it had not seen"), (None, "was not measured")])
def test_an_error_above_a_fifth_keeps_the_fitted_constants_and_says_so(error: float | None, words: str):
    profile = held_out(error) if error else replace(a_profile(), held_out=())
    found, fitted = speed(profile), speed(None)
    assert (found.decode, found.prefill) == (fitted.decode, fitted.prefill)
    assert found.basis.startswith(fitted.basis)
    assert "calibration of 2026-11-22 is not used" in found.basis
    assert words in found.basis


def test_a_bad_check_of_prompts_leaves_decode_measured():
    found, fitted = speed(held_out(0.02, 0.4)), speed(None)
    assert found.prefill == fitted.prefill
    assert found.decode == speed(a_profile()).decode
    assert found.basis.endswith(f"prompts: {fitted.basis}")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_servers_take_bandwidth_and_the_graphs_layer_but_keep_their_range(engine: str):
    found, fitted = speed(a_profile(), engine), speed(None, engine)
    weights, kv = 2 * (8_030_261_248 - 128_256 * 4096), 8192 * 32 * 2 * 8 * 128 * 2
    assert found.decode.tokens_per_s == pytest.approx(1 / (weights / 800e9 + kv / 700e9 + 32 * 50e-6 + 100e-6), rel=1e-3)
    assert found.decode.low / found.decode.tokens_per_s == pytest.approx(fitted.decode.low / fitted.decode.tokens_per_s)
    assert f"range of {fitted.basis}" in found.basis


def test_without_graphs_servers_take_the_eager_layer():
    fitted = replace(a_profile().fitted, graph_layer_s=None, graph_token_s=None)
    without = replace(a_profile(), fitted=fitted)
    assert speed(without, "vllm").decode.tokens_per_s < speed(a_profile(), "vllm").decode.tokens_per_s
    assert "held out within 3.0 %" in speed(without, "vllm").basis


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
def test_torchs_kernels_say_nothing_of_llama_cpps(engine: str):
    assert speed(a_profile(), engine, "Q4_K_M") == speed(None, engine, "Q4_K_M")


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama", "vllm", "sglang", "transformers"])
def test_what_an_engine_did_here_scales_what_was_fitted(engine: str):
    quant = "Q4_K_M" if engine in ("llama.cpp", "ollama") else "BF16"
    profile = replace(a_profile(), engines={engine: EngineScale(0.9, 0.8, None, 3, "1.2", "2026-11-21")})
    found, fitted = speed(profile, engine, quant), speed(None, engine, quant)
    assert found.decode.tokens_per_s == pytest.approx(0.9 * fitted.decode.tokens_per_s)
    assert found.prefill.tokens_per_s == pytest.approx(0.8 * fitted.prefill.tokens_per_s)
    assert found.decode.why == fitted.decode.why
    assert found.basis == f"measured: 3 runs of {engine} 1.2 here, 2026-11-21 (decode × 0.90, prefill × 0.80); {fitted.basis}"


def test_a_runtime_alone_is_no_rate():
    profile = replace(a_profile(), engines={"llama.cpp": EngineScale(runtime_bytes=1 << 28)})
    assert speed(profile, "llama.cpp", "Q4_K_M") == speed(None, "llama.cpp", "Q4_K_M")


def test_a_profile_of_engines_alone_is_no_calibration():
    bare = replace(a_profile(), software=None, points=(), fitted=Fitted(), held_out=(), engines={"vllm": EngineScale(1.1)})
    assert speed(bare) == speed(None)


def test_one_card_of_two_that_was_not_measured_keeps_the_fitted_constants():
    devices = [replace(a_device(), profile=a_profile()), a_device()]
    request = {"engine": "vllm", "quant": "BF16", "context": "8k"}
    assert vp.plan(LLAMA, gpus=devices, **request).speed == vp.plan(LLAMA, gpus=[a_device()] * 2, **request).speed


def test_two_measured_cards_share_the_reading_and_pay_for_the_link():
    one, two = speed(a_profile(), "vllm"), speed(a_profile(), "vllm", count=2)
    assert one.decode.tokens_per_s < two.decode.tokens_per_s < 2 * one.decode.tokens_per_s


@pytest.mark.parametrize("profile", [a_profile(), None])
def test_layers_shared_out_one_after_the_other_are_no_quicker(profile: Profile | None):
    assert speed(profile, count=2).decode.tokens_per_s == pytest.approx(speed(profile).decode.tokens_per_s, rel=1e-6)


def test_a_card_no_catalogue_knows_has_a_speed_once_it_is_measured():
    nameless = replace(a_device(), spec=None, name="Brand New GPU", vendor="NVIDIA")
    assert vp.plan(LLAMA, engine="transformers", quant="BF16", gpus=[nameless]).speed is None
    found = vp.plan(LLAMA, engine="transformers", quant="BF16", context="8k", gpus=[replace(nameless, profile=a_profile())]).speed
    assert found is not None
    assert found.decode.tokens_per_s == pytest.approx(speed(a_profile()).decode.tokens_per_s)


def test_a_mixture_pays_for_its_experts_launches():
    model = vp.load("mixtral-8x7b")
    device = replace(a_device(), total=200 << 30, usable=200 << 30, free=200 << 30)

    def step_s(profile: Profile) -> float:
        found = vp.plan(model, engine="transformers", quant="BF16", context="4k", gpus=[replace(device, profile=profile)]).speed
        assert found is not None
        return 1 / found.decode.tokens_per_s

    without = replace(a_profile(), fitted=replace(a_profile().fitted, moe_layer_s=None))
    assert step_s(a_profile()) - step_s(without) == pytest.approx(32 * 80e-6)


def test_a_mixtures_prompt_reads_every_expert_its_tokens_choose():
    """Mixtral in a short prompt: nearly all eight experts are read, and their arithmetic is that of two."""
    model = vp.load("mixtral-8x7b")
    reads = reads_of(model, LLAMA_BF16)
    device = replace(a_device(), total=200 << 30, usable=200 << 30, free=200 << 30, profile=a_profile())
    found = vp.plan(model, engine="transformers", quant="BF16", context="4k", prompt=64, gpus=[device]).speed
    assert found is not None
    compute = 2.0 * reads.active_parameters * 64 / 100e12 + reads.mean_attention_flops(64, 0) * 64 / 50e12
    assert 64 / found.prefill.tokens_per_s == pytest.approx(compute + reads.expert_bytes * (1 - 0.75**64) / 800e9, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e10, 1e13), st.floats(1.01, 3.0))
def test_more_bandwidth_is_never_slower(rate: float, more: float):
    def at(value: float) -> float:
        fitted = replace(a_profile().fitted, weight_bytes_per_s={"bf16": Figure(value)})
        return speed(replace(a_profile(), fitted=fitted), "vllm").decode.tokens_per_s

    assert at(rate * more) > at(rate)
