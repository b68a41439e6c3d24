"""The inverse questions that count machines: the fewest GPUs, the least offload."""

from __future__ import annotations

import pytest
import vram_plan as vp


def several(model: str, card: str, count: int, **request: object) -> vp.Plan:
    nodes = f"{count // 8} nodes x 8x {card}" if count > 8 else f"{count}x {card}"
    return vp.plan(model, gpus=nodes, **request)


@pytest.mark.parametrize(
    ("model", "card", "request_"),
    [
        ("llama3.3-70b", "RTX 3090", {"engine": "llama.cpp", "bits": 4}),
        ("llama3.3-70b", "A100-80GB", {"engine": "vllm"}),
        ("deepseek-v3.1", "H100", {"engine": "vllm"}),
        ("gemma3-27b", "RTX 3060 12GB", {"engine": "ollama", "bits": 4, "context": "64k"}),
        ("qwen3-32b", "L4", {"engine": "transformers"}),
    ],
)
def test_the_fewest_gpus_fit_and_fewer_do_not(model: str, card: str, request_: dict) -> None:
    fewest = several(model, card, 1, **request_).fit.fewest_gpus
    assert fewest is not None and fewest > 1
    assert several(model, card, fewest, **request_).fit.verdict in ("fits", "tight")
    for fewer in range(1, min(fewest, 9)):
        assert several(model, card, fewer, **request_).fit.verdict == "does_not_fit"


def test_more_of_the_card_is_suggested_and_does_fit() -> None:
    plan = vp.plan("llama3.3-70b", gpus="RTX 3090", bits=4)
    assert any(text.startswith('--gpu "2x RTX 3090" --engine ollama') for text in plan.fit.suggestions)
    assert vp.plan("llama3.3-70b", gpus="2x RTX 3090", engine="ollama", bits=4).fit.verdict != "does_not_fit"


def test_unlike_cards_and_unified_memory_are_not_multiplied() -> None:
    assert vp.plan("llama3-8b", gpus="RTX 3090 + RTX 3060 12GB", engine="llama.cpp", bits=4).fit.fewest_gpus is None
    assert vp.plan("llama3.1-405b", gpus="DGX Spark", engine="llama.cpp", bits=8).fit.fewest_gpus is None
    assert vp.plan("llama3-8b", gpus="DGX Spark", engine="llama.cpp", bits=8).fit.fewest_gpus == 1


@pytest.mark.parametrize(("model", "card"), [("qwen3-32b", "RTX 3060 12GB"), ("qwen3-30b-a3b", "RTX 3060 12GB")])
def test_the_least_offload_is_what_the_plan_with_it_needs(model: str, card: str) -> None:
    least = vp.plan(model, gpus=card, engine="llama.cpp", bits=4).fit.least_offload
    assert least
    if model == "qwen3-32b":
        assert vp.plan(model, gpus=card, engine="llama.cpp", bits=4, offload=f"{least} layers").fit.headroom >= 0
        assert vp.plan(model, gpus=card, engine="llama.cpp", bits=4, offload=f"{least - 1} layers").fit.headroom < 0


def test_nothing_need_leave_what_fits_and_vllm_keeps_nothing_in_ram() -> None:
    assert vp.plan("llama3-8b", gpus="RTX 3090", engine="llama.cpp", bits=4).fit.least_offload == 0
    assert vp.plan("llama3.3-70b", gpus="RTX 3090", engine="vllm").fit.least_offload is None


@pytest.mark.parametrize(("engine", "offload"), [("vllm", "5 layers"), ("sglang", "experts"), ("transformers", "experts")])
def test_what_an_engine_does_not_keep_in_ram_is_not_planned_there(engine: str, offload: str) -> None:
    with pytest.raises(vp.UsageError, match="in host memory"):
        vp.plan("llama3-8b", engine=engine, gpus="RTX 4090", offload=offload)


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
def test_a_model_without_experts_moves_none_and_is_told(engine: str) -> None:
    plan = vp.plan("llama3-8b", engine=engine, bits=4, gpus="RTX 4090", offload="experts")
    assert any("no experts" in note.text for note in plan.notes)
    assert plan.memory.weights == vp.plan("llama3-8b", engine=engine, bits=4, gpus="RTX 4090").memory.weights
    assert vp.plan("llama3-8b", engine=engine, bits=4, offload="1 layer").request.offload == "1 layers"


@pytest.mark.parametrize(("gpus", "bits"), [("RTX 3090 + RTX 3060 12GB", 8), ("4x L4", 16)])
def test_the_least_offload_is_exact_over_several_gpus(gpus: str, bits: int) -> None:
    request = {"engine": "llama.cpp", "bits": bits, "context": 4096, "gpus": gpus}
    least = vp.plan("llama3.3-70b", **request).fit.least_offload
    assert least
    assert vp.plan("llama3.3-70b", **request, offload=f"{least} layers").fit.verdict != "does_not_fit"
    assert vp.plan("llama3.3-70b", **request, offload=f"{least - 1} layers").fit.verdict == "does_not_fit"
    assert vp.plan("llama3.3-70b", **request, options={"n_gpu_layers": 81}).fit.least_offload is None


@pytest.mark.parametrize("engine", ["ollama", "llama.cpp", "vllm", "sglang", "transformers"])
def test_a_split_the_engine_does_not_make_is_refused_with_what_it_does(engine: str) -> None:
    plan = vp.plan("llama3-8b", engine=engine, gpus="3x RTX 4090", tensor_parallel=3)
    assert plan.fit.verdict == "does_not_fit" and plan.fit.refusal
    assert "leave --tp" in plan.fit.refusal or "tensor parallelism of 1, 2, 4, 8" in plan.fit.refusal


@pytest.mark.parametrize("engine", ["ollama", "llama.cpp", "transformers"])
def test_engines_of_one_machine_are_not_planned_over_several(engine: str) -> None:
    fit = vp.plan("llama3-8b", engine=engine, gpus="2 nodes x 8x RTX 4090").fit
    assert (fit.verdict, fit.max_context, fit.fewest_gpus) == ("does_not_fit", 0, 1 if engine != "transformers" else fit.fewest_gpus)
    assert fit.refusal and "one machine" in fit.refusal
    huge = vp.plan("deepseek-v3", engine=engine, gpus="RTX 4090", bits=16 if engine == "transformers" else 8).fit
    assert huge.fewest_gpus is None
