"""More sequences at once: the curve of a server."""

from __future__ import annotations

from typing import Any

import pytest
import vram_plan as vp


def curve(model: str = "llama3-8b", **request: Any) -> vp.BatchCurve:
    return vp.batch_curve(model, **({"engine": "vllm", "gpus": "H100", "context": 2048} | request))


def test_more_sequences_more_in_all_less_each_and_a_knee() -> None:
    found = curve(most=200)
    counts = [load.sequences for load in found.loads]
    assert counts == [1, 2, 4, 8, 16, 32, 64, 128, 200]
    rates = [load.tokens_per_s for load in found.loads]
    assert rates == sorted(rates)
    assert [load.tpot_s for load in found.loads] == sorted(load.tpot_s for load in found.loads)
    assert found.loads[3].kv_bytes == 8 * found.loads[0].kv_bytes
    assert found.knee in counts[1:]
    best = max(rates)
    assert [rate >= 0.8 * best for rate in rates] == [count >= found.knee for count in counts]
    for load in found.loads:
        assert load.low < load.tokens_per_s < load.high
        assert load.tokens_per_s_each * load.sequences == pytest.approx(load.tokens_per_s)


def test_it_ends_where_memory_ends() -> None:
    found = curve()
    plan = vp.plan("llama3-8b", engine="vllm", gpus="H100", context=2048)
    assert found.loads[-1].sequences == found.max_sequences == plan.fit.max_sequences
    assert curve(most=3).loads[-1].sequences == 3


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp", "transformers", "ollama"])
def test_each_load_is_the_plan_of_so_many(engine: str) -> None:
    request: dict[str, Any] = {"engine": engine, "bits": 16, "gpus": "H100", "context": 4096, "prompt": 3000, "output": 400}
    found = vp.batch_curve("llama3-8b", most=8, **request)
    for load in found.loads:
        speed = vp.plan("llama3-8b", sequences=load.sequences, **request).speed
        assert speed is not None
        assert load.tpot_s == pytest.approx(speed.tpot_s)
    alone = vp.plan("llama3-8b", **request).speed
    assert alone is not None
    assert found.ttft_s == pytest.approx(alone.ttft_s)
    assert found.basis == alone.basis


def test_with_an_answers_length_the_other_prompts_count() -> None:
    without, counted = curve(most=32, prompt=1900), curve(most=32, prompt=1900, output=100)
    assert "others' prompts" in counted.loads[-1].why
    assert counted.loads[-1].tpot_s > without.loads[-1].tpot_s
    assert any("--output" in note for note in without.notes)
    assert "idle" in counted.notes[0]


def test_llamacpp_is_doubted() -> None:
    found = curve(engine="llama.cpp", bits=4, gpus="RTX 4090", most=1)
    assert found.knee == 1
    assert any("measured" in note for note in found.notes)


def test_a_mixture_reads_more_experts_the_more_write() -> None:
    found = curve("gpt-oss-120b", most=64, gpus="H200")
    assert found.loads[3].tpot_s > 1.3 * found.loads[0].tpot_s


@pytest.mark.parametrize(
    ("model", "request_", "error", "words"),
    [
        ("llama3-8b", {"gpus": "80GB"}, vp.HardwareError, "bandwidth"),
        ("llama3-70b", {"bits": 16}, vp.UsageError, "not one sequence"),
        ("BAAI/bge-large-en", {"engine": "transformers"}, vp.UsageError, "token by token"),
        ("llama3-8b", {"most": 0}, vp.UsageError, "go up to"),
    ],
)
def test_where_nothing_can_be_told_it_says_why(model: str, request_: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        curve(model, **({"context": None} | request_))


def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(vp.HardwareError, match="no GPU"):
        curve(gpus=())
