"""The walk from a model to a plan: sums, verdicts, the inverse questions and the defaults."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from functools import cache

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.hardware import resolve
from vram_plan.inverse import largest

GIB = 2**30
#: One model of each kind of cache: full, sliding, latent, hybrid with a state, state only, shared layers.
MODELS = ("llama3-8b", "gemma3-27b", "deepseek-v2-lite", "qwen3-next", "falcon-mamba-7b", "gemma4-e2b", "gpt-oss-20b")
QUANTS = ("Q2_K", "Q4_K_M", "Q8_0", "BF16")


@cache
def model(name: str) -> vp.Model:
    return vp.load(name)


def test_the_classic_numbers() -> None:
    llama2 = model("llama2-7b")
    assert llama2.parameters.total == 6_738_415_616
    assert vp.plan(llama2, engine="transformers", bits=16).need.weights == 13_476_831_232
    llama3 = model("llama3-8b")
    assert vp.plan(llama3, context="8k").kv_bytes_per_token == 128 * 1024
    assert vp.plan(llama3, context="8k").need.kv_cache == GIB
    assert vp.plan(llama3, context="16k").need.kv_cache == 2 * GIB


def test_terms_add_up_to_everything_that_is_said() -> None:
    plan = vp.plan(model("llama3-8b"), engine="llama.cpp", context="16k", bits=4, gpus="2x RTX 3090", sequences=3)
    for device in plan.devices:
        assert device.used == sum(term.bytes for term in device.terms)
        assert device.headroom == device.free - device.used
        assert all(term.why and term.basis in ("exact", "formula", "measured", "fallback") for term in device.terms)
    assert plan.memory.total == sum(device.used for device in plan.devices)
    assert plan.memory.total == sum(getattr(plan.memory, group) for group in ("weights", "kv_cache", "state", "compute", "runtime"))


def test_json_is_the_model_dump_and_has_the_contracts_fields() -> None:
    plan = vp.plan(model("gpt-oss-20b"), context="8k", gpus="24GB")
    dump = plan.model_dump(mode="json")
    assert json.loads(plan.model_dump_json()) == dump
    assert dump["schema"] == "vram-plan/1"
    assert set(dump) >= {
        "schema",
        "model",
        "request",
        "need",
        "kv_bytes_per_token",
        "devices",
        "host",
        "memory",
        "fit",
        "engine",
        "speed",
        "launch",
        "notes",
    }
    assert {"name", "source", "revision", "architecture", "trained_context", "tied_embeddings", "parameters", "basis"} <= set(dump["model"])
    assert {"total", "active", "embedding", "lm_head", "vision", "audio", "projector", "experts"} <= set(dump["model"]["parameters"])
    assert {"verdict", "headroom", "limiting_device", "max_context", "max_sequences", "suggestions"} <= set(dump["fit"])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(QUANTS), st.sampled_from(("8GB", "12GB", "24GB", "80GB", "2x24GB")), st.integers(1, 5))
def test_the_longest_context_fits_and_one_more_token_does_not(name: str, quant: str, gpu: str, sequences: int) -> None:
    request = {"quant": quant, "engine": "llama.cpp", "gpus": gpu, "sequences": sequences}
    longest = vp.plan(model(name), context=1, **request).fit.max_context
    if longest is None:
        assert vp.plan(model(name), context=1 << 30, **request).fit.headroom >= 0
        return
    if longest:
        assert vp.plan(model(name), context=longest, **request).fit.headroom >= 0
    assert vp.plan(model(name), context=longest + 1, **request).fit.headroom < 0


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(QUANTS), st.sampled_from(("24GB", "80GB")), st.integers(1, 100_000))
def test_the_most_sequences_fit_and_one_more_does_not(name: str, quant: str, gpu: str, context: int) -> None:
    request = {"quant": quant, "engine": "llama.cpp", "gpus": gpu, "context": context}
    most = vp.plan(model(name), **request).fit.max_sequences
    if most is None:
        return
    if most:
        assert vp.plan(model(name), sequences=most, **request).fit.headroom >= 0
    assert vp.plan(model(name), sequences=most + 1, **request).fit.verdict == "does_not_fit"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 200_000), st.integers(0, 5_000), st.integers(1, 8))
def test_memory_never_falls_when_more_is_asked(name: str, context: int, more: int, sequences: int) -> None:
    request = {"quant": "Q4_K_M", "engine": "llama.cpp"}
    base = vp.plan(model(name), context=context, sequences=sequences, **request).memory.total
    assert vp.plan(model(name), context=context + more, sequences=sequences, **request).memory.total >= base
    assert vp.plan(model(name), context=context, sequences=sequences + 1, **request).memory.total >= base


# gpt-oss has rows of 2,880 numbers, which K-quants' blocks of 256 do not divide: its 3 bits are wider than its MXFP4.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "gpt-oss-20b"])
def test_weights_never_fall_when_bits_rise(name: str) -> None:
    sizes = [vp.plan(model(name), engine="llama.cpp", bits=bits).need.weights for bits in (2, 3, 4, 5, 6, 8, 16)]
    assert sizes == sorted(sizes)


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.integers(1, 10**9), st.integers(0, 10**7))
def test_largest_finds_the_step_of_any_falling_function(room: int, slope: int, limit: int, knee: int) -> None:
    def headroom(n: int) -> int:
        return room - slope * min(n, knee) - (slope // 3) * max(n - knee, 0)

    found = largest(headroom, limit)
    if found is None:
        assert headroom(limit) >= 0
    else:
        assert (found == 0 or headroom(found) >= 0) and headroom(found + 1) < 0


def test_defaults_are_filled_in_and_said() -> None:
    plan = vp.plan(model("llama3-8b"))
    assert (plan.request.context, plan.request.engine, plan.request.quant) == (8192, "vllm", "BF16")
    assert plan.fit.verdict == "unknown"
    said = " ".join(note.text for note in plan.notes)
    assert "context not given" in said and "engine not given" in said and "format not given" in said
    assert vp.plan(model("gpt2")).request.context == 1024


@pytest.mark.parametrize(
    ("request_", "engine", "quant"),
    [
        ({"bits": 4}, "ollama", "Q4_K_M"),
        ({"bits": 4, "engine": "vllm"}, "vllm", "AWQ"),
        ({"bits": 8, "engine": "vllm"}, "vllm", "FP8"),
        ({"bits": 4, "engine": "transformers"}, "transformers", "NF4"),
        ({"bits": 8, "engine": "transformers"}, "transformers", "INT8"),
        ({"bits": 16, "engine": "llama.cpp"}, "llama.cpp", "F16"),
        ({"quant": "q5_k_m"}, "ollama", "Q5_K_M"),
        ({"bits": 4, "gpus": "2x RTX 3090"}, "vllm", "AWQ"),
    ],
)
def test_bits_mean_the_engines_usual_format(request_: dict, engine: str, quant: str) -> None:
    plan = vp.plan(model("llama3-8b"), **request_)
    assert (plan.request.engine, plan.request.quant) == (engine, quant)


@pytest.mark.parametrize(
    ("gpus", "engine"),
    [("M4 16GB", "ollama"), ("GTX 1080 Ti", "ollama"), ("RTX 2080 Ti", "vllm"), ("RX 7900 XTX", "vllm"), ("24GB", "vllm")],
)
def test_where_vllm_does_not_run_it_is_not_taken(gpus: str, engine: str) -> None:
    plan = vp.plan(model("llama3-8b"), gpus=gpus)
    said = next(note.text for note in plan.notes if note.text.startswith("engine not given: "))
    assert plan.request.engine == engine and engine in said.lower() and ("vLLM does not run here" in said) is (engine == "ollama")
    assert vp.plan(model("llama3-8b"), gpus=gpus, engine="vllm").request.engine == "vllm"


def test_a_format_that_is_no_gguf_is_warned_of_where_only_those_are_read() -> None:
    warnings = [note.text for note in vp.plan(model("llama3-8b"), quant="AWQ", engine="ollama").notes if note.level == "warning"]
    assert warnings == ["ollama reads no AWQ, only GGUF: --quant Q4_K_M is as wide"]
    assert not any("reads no" in note.text for note in vp.plan(model("llama3-8b"), quant="AWQ", engine="vllm").notes)


@pytest.mark.parametrize(
    ("name", "gpus", "option"),
    [("llama3-8b", "8GB", "--engine ollama --bits 4"), ("llama3-70b", "2x RTX 3090", "--engine llama.cpp --bits 4"),
     ("gpt-oss-20b", "8GB", "--engine llama.cpp --bits 4 --offload experts")],
)  # fmt: skip
def test_where_a_server_does_not_fit_llama_cpp_may(name: str, gpus: str, option: str) -> None:
    texts = [text for text in vp.plan(model(name), gpus=gpus, engine="vllm").fit.suggestions if text.startswith("--engine")]
    assert [text.split(":")[0] for text in texts] == [option]
    words = option.split()
    changed = {"engine": words[1], "bits": 4, "offload": words[5] if len(words) > 4 else "auto"}
    assert vp.plan(model(name), gpus=gpus, **changed).fit.verdict in ("fits", "tight")


def test_without_a_gpu_the_usual_four_bits_are_told_too() -> None:
    where, less = vp.plan(model("llama3-8b")).fit.suggestions
    assert where.startswith("fits one of: ") and less.startswith("--engine ollama --bits 4: ")
    assert len(vp.plan(model("llama3-8b"), bits=4).fit.suggestions) == 1


def test_a_checkpoint_of_that_width_keeps_its_own_format() -> None:
    assert vp.plan(model("gpt-oss-20b"), bits=4, engine="vllm").request.quant == "MXFP4"
    assert vp.plan(model("gpt-oss-20b"), bits=4, engine="llama.cpp").request.quant == "MXFP4_MOE"


def test_beyond_the_trained_context_there_is_a_warning() -> None:
    notes = vp.plan(model("llama3-8b"), context="16k").notes
    assert any(note.level == "warning" and "8,192" in note.text for note in notes)


def test_what_does_not_fit_comes_with_what_would() -> None:
    plan = vp.plan(model("llama3-8b"), context="128k", bits=8, gpus="RTX 4060")
    assert plan.fit.verdict == "does_not_fit" and plan.fit.headroom < 0
    assert any(text.startswith("--gpu") for text in plan.fit.suggestions)
    assert any(text.startswith(("--ctx", "--quant")) for text in plan.fit.suggestions)


@pytest.mark.parametrize(
    "request_",
    [
        {"context": "lots"}, {"context": 0}, {"context": -5}, {"context": True}, {"bits": 7}, {"quant": "Q9_Z"}, {"engine": "lmstudio2"},
        {"sequences": 0}, {"sequences": 1 << 60}, {"kv_type": "q3_7"}, {"bits": 4, "quant": "Q4_0"}, {"offload": "some"},
        {"options": {"nonsense": 1}}, {"gpus": "RTX 9999 Ultra"}, {"gpus": ""},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_usage_error_in_one_sentence(request_: dict) -> None:
    with pytest.raises(vp.UsageError) as caught:
        vp.plan(model("llama3-8b"), **request_)
    assert caught.value.exit_code == 2 and "\n" not in caught.value.message and caught.value.hint


def test_plans_are_the_same_from_every_thread() -> None:
    plans: list[str] = []

    def work() -> None:
        plans.append(vp.plan(model("gemma3-27b"), context="32k", bits=4, gpus="RTX 3090").model_dump_json())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plans) == 8 and len(set(plans)) == 1


@pytest.mark.parametrize(
    ("name", "gpu", "option"), [("qwen3-30b-a3b", "RTX 4070", "--offload experts"), ("llama3-70b", "RTX 3090", "--offload ")]
)
def test_what_does_not_fit_may_go_to_the_cpu_and_then_it_fits(name: str, gpu: str, option: str) -> None:
    request = {"context": "16k", "bits": 4, "gpus": gpu, "engine": "llama.cpp"}
    texts = [text for text in vp.plan(model(name), **request).fit.suggestions if option in text]
    assert len(texts) == 1 and "tokens/s" in texts[0]
    moved = texts[0].split(":")[0].removeprefix("--offload ").strip("'")
    assert vp.plan(model(name), offload=moved, **request).fit.headroom >= 0


@pytest.mark.parametrize(
    ("platform", "gpus", "local", "said"),
    [("win32", "8GB", True, True), ("win32", "RTX 4090", True, False), ("win32", "8GB", False, False), ("linux", "8GB", True, False)],
)
def test_windows_spill_into_shared_memory_is_told_where_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, platform: str, gpus: str, local: bool, said: bool
) -> None:
    monkeypatch.setattr("vram_plan.planner.sys.platform", platform)
    machine = replace(resolve(gpus), local=local)
    notes = [note.text for note in vp.plan("llama3-8b", quant="Q8_0", engine="llama.cpp", context=8192, gpus=machine).notes]
    assert any("shared memory" in text for text in notes) == said


def test_the_explanation_says_what_the_speed_was_told_from() -> None:
    told, nameless = (
        {section.title: section.lines for section in vp.explain(model("llama3-8b"), vp.plan(model("llama3-8b"), engine="vllm", gpus=gpu))}
        for gpu in ("RTX 4090", "24GB")
    )
    assert "pool: no measurement of ada" in told["Speed"][-1] and "memory-bound" in told["Speed"][0]
    assert "Speed" not in nameless
