"""Memory against context: the curve crosses its limit where the plan says it ends."""

from __future__ import annotations

import pytest
import vram_plan as vp

CASES = {
    "ollama": ("llama3-8b", {"bits": 4, "context": "16k", "gpus": "RTX 4060"}),
    "a pool": ("llama3-8b", {"engine": "vllm", "gpus": "RTX 4090"}),
    "a pool cut over two": ("llama3-8b", {"engine": "vllm", "gpus": "2x RTX 3090", "tensor_parallel": 2, "context": "64k"}),
    "sglang": ("llama3-8b", {"engine": "sglang", "gpus": "RTX 4090"}),
    "a window": ("gemma3-12b", {"bits": 4, "gpus": "RTX 4090", "engine": "llama.cpp"}),
    "states": ("qwen3-next", {"engine": "vllm", "gpus": "4x H100", "tensor_parallel": 4}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_ends_where_the_plan_says(name: str) -> None:
    reference, request = CASES[name]
    model = vp.load(reference, offline=True)
    curve, plan = vp.context_curve(model, **request), vp.plan(model, **request)
    assert curve.max_context == plan.fit.max_context and curve.planned == plan.request.context
    assert curve.limit is not None and curve.max_context
    at_the_end = vp.context_curve(model, contexts=[curve.max_context, curve.max_context + 1], **request)
    first, beyond = at_the_end.points
    assert first.headroom is not None and beyond.headroom is not None and first.headroom >= 0 > beyond.headroom
    assert all(p.headroom is not None and abs(p.needed + p.headroom - curve.limit) <= 2**21 for p in curve.points)


@pytest.mark.parametrize("name", CASES)
def test_the_planned_point_is_the_plan(name: str) -> None:
    reference, request = CASES[name]
    model = vp.load(reference, offline=True)
    curve, plan = vp.context_curve(model, **request), vp.plan(model, **request)
    point = next(p for p in curve.points if p.context == curve.planned)
    device = plan.devices[curve.index]
    assert point.headroom == device.headroom
    assert point.weights == sum(t.bytes for t in device.terms if t.group == "weights")
    if not curve.pool:
        assert point.needed == device.used
    else:
        assert point.kv_cache < sum(t.bytes for t in device.terms if t.group == "kv_cache")


def test_without_a_gpu_there_is_no_limit() -> None:
    curve = vp.context_curve("llama3-8b", gpus=(), offline=True)
    assert (curve.limit, curve.max_context, curve.times, curve.device) == (None, None, None, "")
    assert all(p.headroom is None and p.needed > 0 for p in curve.points)


def test_weights_too_large_for_the_pool_still_show_their_limit() -> None:
    curve = vp.context_curve("qwen3-next", engine="vllm", gpus="H100", offline=True)
    assert curve.max_context == 0 and curve.limit is not None and 70 * 2**30 < curve.limit < 80 * 2**30
    assert all(p.headroom is not None and p.needed - curve.limit == pytest.approx(-p.headroom, rel=0.02) for p in curve.points)


def test_the_times_are_those_of_the_estimate() -> None:
    model = vp.load("llama3-8b", offline=True)
    request = {"bits": 4, "context": "16k", "gpus": "RTX 4060"}
    times, speed = vp.context_curve(model, **request).times, vp.plan(model, **request).speed
    assert times is not None and speed is not None
    assert sum(s for _, s in times.token) == pytest.approx(1 / speed.decode.tokens_per_s, rel=0.02)
    assert sum(s for _, s in times.prompt) == pytest.approx(16384 / speed.prefill.tokens_per_s, rel=0.02)


def test_an_end_far_away_is_left_outside_and_a_wrong_context_refused() -> None:
    far = vp.context_curve("llama3-8b", bits=4, gpus="H200", engine="llama.cpp", offline=True)
    assert far.max_context is not None and far.points[-1].context < far.max_context
    with pytest.raises(vp.UsageError):
        vp.context_curve("llama3-8b", contexts="long", gpus="8GB", offline=True)


def test_a_processor_is_a_machine_too() -> None:
    curve = vp.context_curve("qwen3-0.6b", gpus="cpu", offline=True)
    assert curve.engine == "transformers" and curve.limit
    assert vp.table("qwen3-0.6b", gpus="cpu", offline=True).engine == "ollama"  # formats side by side: those a processor is run with
    with pytest.raises(vp.UsageError, match="processor"):
        vp.context_curve("qwen3-0.6b", gpus="cpu", engine="vllm", offline=True)
