"""llama.cpp's allocation against what the engine itself projects and against logs, and what must hold of any plan."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.engines.llamacpp import engine as llamacpp
from vram_plan.engines.llamacpp.settings import build_of, runtime_of
from vram_plan.hardware import resolve
from vram_plan.request import make_work

MIB = 2**20
CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "llamacpp_cases.jsonl").read_text().splitlines()]
MODELS = sorted({case["model"] for case in CASES if "model" in case})
#: One of each kind of cache: full, sliding, latent, hybrid with a state, state only, shared layers, mixture of experts.
KINDS = ("llama3-8b", "gemma3-27b", "deepseek-v2-lite", "qwen3-next-80b-a3b", "falcon-mamba-7b", "gemma4-e2b", "gpt-oss-20b")


@cache
def model(name: str) -> vp.Model:
    return vp.load(name)


def plan(name: str, **request: Any) -> vp.Plan:
    return vp.plan(model(name), engine="llama.cpp", **{"quant": "Q4_K_M", **request})


def case_plan(case: dict[str, Any]) -> vp.Plan:
    options = {
        "ubatch": case["ubatch"],
        "kv_unified": case["unified"],
        "flash_attn": case["flash"],
        "logits": "all" if case["outputs"] > case["parallel"] else "last",
    }
    return plan(
        case["model"], quant=case["quant"], context=case["n_ctx"] // case["parallel"], sequences=case["parallel"], kv_type=case["kv"],
        options=options,
    )  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_buffer_is_what_the_engine_projects(name: str) -> None:
    """Weights, cache with state, compute buffer and host weights of all cases of a model, each within a thousandth."""
    wrong = []
    for case in (case for case in CASES if case.get("model") == name):
        found = case_plan(case)
        host = sum(term.bytes for term in found.host.terms if term.name == "weights")
        got = (found.memory.weights, found.memory.kv_cache + found.memory.state, found.memory.compute, host)
        want = tuple(case[key] for key in ("weights_mib", "kv_mib", "compute_mib", "host_weights_mib"))
        if any(abs(g / MIB - w) > 0.002 + w / 1000 for g, w in zip(got, want, strict=True)) or found.engine["n_ctx"] != case["n_ctx"]:
            wrong.append((case["id"], [round(g / MIB, 3) for g in got], want))
    assert not wrong


#: Lines of logs people posted, by model: request, and the term they print.
LOGS: list[tuple[str, dict[str, Any], dict[str, float]]] = [
    # LLamaSharp#1099, b4701, RTX 4080 SUPER
    ("qwen2.5-3b", {"context": 4096, "options": {"build": "2025-02", "flash_attn": False}}, {"kv_cache": 144.0, "compute": 300.75}),
    # Vulkan, 29/29 layers
    (
        "qwen3-0.6b",
        {"context": 4096, "quant": "Q8_0", "options": {"flash_attn": False, "backend": "vulkan", "build": "2025-10"}},
        {"weights": 604.15, "kv_cache": 448.0, "compute": 298.75},
    ),
    # Apple M5, both batch sizes
    ("gpt-oss-20b", {"context": 131072, "quant": "MXFP4_MOE"}, {"kv_cache": 3090.0}),
    ("gpt-oss-20b", {"context": 131072, "quant": "MXFP4_MOE", "options": {"ubatch": 2048}}, {"kv_cache": 3126.0}),
    # ROCm, 16 sequences of 1,024 tokens, a cache each
    ("qwen3-4b", {"context": 1024, "sequences": 16, "quant": "Q8_0"}, {"kv_cache": 2304.0}),
    # unsloth PR 6718, 2026-06 to 08
    ("qwen3.5-9b", {"context": 262144, "kv_type": "q8_0"}, {"compute": 1336.0}),
    ("gemma4-31b", {"context": 262144, "kv_type": "q8_0"}, {"compute": 2392.0}),
    # recurrent state of four sequences
    ("qwen3.5-35b-a3b", {"context": 4096, "sequences": 4}, {"state": 251.25}),
    # 2026-05, four sequences in one pool, logits of the whole batch
    (
        "qwen3.6-27b",
        {"context": 32768, "sequences": 4, "kv_type": "q8_0", "options": {"kv_unified": True, "build": "2026-05-14"}},
        {"kv_cache": 4352.0, "state": 598.5, "compute": 495.0},
    ),
    # b8196, RTX 5080
    (
        "qwen3.5-35b-a3b", {"context": 65536, "quant": "Q3_K_S", "kv_type": "iq4_nl", "options": {"build": "2026-03"}},
        {"kv_cache": 360.0, "compute": 493.0},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "request_", "logged"), LOGS)
def test_terms_are_what_logs_print(name: str, request_: dict[str, Any], logged: dict[str, float]) -> None:
    memory = plan(name, **request_).memory
    for group, mib in logged.items():
        assert getattr(memory, group) / MIB == pytest.approx(mib, rel=0.002), group


#: What the host held: build, request, MiB; b7342, b8196, 2026-05-14, and two of issue #23527.
HOST: list[tuple[str, str, dict[str, Any], float]] = [
    ("2025-12", "qwen3-coder-30b-a3b", {"context": 16384, "sequences": 4, "options": {"kv_unified": True}}, 132.01),
    ("2026-03", "qwen3.5-35b-a3b", {"context": 65536}, 136.0),
    ("2026-05-14", "qwen3.6-27b", {"context": 131072}, 276.29),
    ("2026-05-20", "qwen3.5-35b-a3b", {"context": 150000, "options": {"ubatch": 4096, "batch": 4096}}, 2408.0),
    ("2026-05", "qwen3.5-35b-a3b", {"context": 150000, "options": {"ubatch": 4096, "batch": 4096}}, 1236.0),
]


@pytest.mark.parametrize(("build", "name", "request_", "logged"), HOST)
def test_the_hosts_buffer_is_what_logs_print(build: str, name: str, request_: dict[str, Any], logged: float) -> None:
    options = {**request_.get("options", {}), "build": build}
    found = plan(name, **{**request_, "options": options})
    assert next(t.bytes for t in found.host.terms if t.name == "compute") / MIB == pytest.approx(logged, rel=0.0012)


def test_a_quiet_card_holds_what_nvidia_smi_said() -> None:
    """Qwen2.5-7B Q4_K_M, 8,192 tokens in q4_0 on an 8 GB laptop card: 4,594 MiB in use (llama.cpp issue log, 2026-08)."""
    found = plan("qwen2.5-7b", context=8192, kv_type="q4_0", gpus="RTX 4060")
    assert found.memory.total / MIB == pytest.approx(4594, rel=0.005)


def test_several_gpus_hold_what_the_scheduler_gives_them() -> None:
    """Emulated CUDA devices, llama.cpp 0c1e57098: shares by free memory, four copies of the inputs and of what the layer
    before gives. (`llama-fit-params` forgets that a layer's norm is computed where the layer is: 213,950,976 for the second.)"""
    found = plan("llama3-8b", context=8192, gpus="2x RTX 3090")
    got = [tuple(term.bytes for term in device.terms if term.name != "runtime") for device in found.devices]
    assert got == [(2215936000, 570425344, 180396032), (2401460224, 503316480, 180396544)]
    split = plan("llama3-8b", context=8192, gpus="3x RTX 3090", options={"tensor_split": "24,12,12"})
    assert [sum(t.bytes for t in device.terms if t.group == "kv_cache") for device in split.devices] == [570425344, 268435456, 234881024]
    assert split.engine["layers_per_device"] == [17, 8, 7]


def test_weights_left_in_host_memory_are_copied_in_one_by_one() -> None:
    """Emulated CUDA device, llama.cpp 0c1e57098, Qwen3-30B-A3B and Llama 3 8B at 8,192 tokens."""
    found = plan("qwen3-30b-a3b", context=8192, offload="experts")
    assert found.memory.weights == 822523904
    assert found.memory.compute == pytest.approx(236464384, rel=1e-6)
    assert sum(t.bytes for t in found.host.terms if t.name == "weights") == pytest.approx(17728192512, rel=1e-5)
    partial = plan("llama3-8b", context=8192, options={"n_gpu_layers": 20})
    assert (partial.memory.weights, partial.memory.kv_cache) == (2908545024, 637534208)
    assert partial.memory.compute == 135792640
    assert partial.engine["n_gpu_layers"] == 20


#: Emulated CUDA device, llama.cpp 0c1e57098: the compute buffers at 8,192 tokens, at 16,384 in q8_0 by 2,048, and at 131,072, with
#: so many layers on it, or with all but the experts.
PARTIAL: list[tuple[str, int | None, tuple[int, ...]]] = [
    ("llama3-8b", 16, (135792640, 563159040, 697305088)),
    ("llama3-8b", 0, (135792640,)),
    ("gemma3-27b", 31, (222317312, 877360640, 1246759424)),
    ("gemma3-27b", 60, (183520000,)),
    ("qwen2.5-7b", 14, (207945728, 659052544, 573456384)),
    ("qwen3-30b-a3b", 24, (257949952, 493782272, 566755328)),
    ("qwen3-30b-a3b", None, (236464384, 484040960, 362293504)),
    ("deepseek-v2-lite", 13, (275644672, 477373056, 641072896)),
    ("deepseek-v2-lite", None, (255609088, 467738880, 381438208)),
    ("gpt-oss-20b", None, (358566144, 628113664, 484395264)),
    ("qwen3.5-35b-a3b", None, (466616448, 578814080, 592445568)),
    ("qwen3-next-80b-a3b", None, (910164096, 1031798912, 1035993216)),
]


@pytest.mark.parametrize(("name", "on_gpu", "buffers"), PARTIAL)
def test_what_is_left_in_host_memory_is_copied_in(name: str, on_gpu: int | None, buffers: tuple[int, ...]) -> None:
    """Weights, norms and biases one by one, and the caches of whole layers, each where the scheduler's parts of the graph begin."""
    for buffer, (context, ubatch, kv) in zip(buffers, ((8192, 512, "f16"), (16384, 2048, "q8_0"), (131072, 512, "f16")), strict=False):
        away: dict[str, Any] = {"offload": "experts"} if on_gpu is None else {}
        options = {"ubatch": ubatch} if on_gpu is None else {"ubatch": ubatch, "n_gpu_layers": on_gpu}
        assert plan(name, context=context, kv_type=kv, options=options, **away).memory.compute == pytest.approx(buffer, rel=2e-4)


def test_the_first_of_several_gpus_computes_what_is_in_host_memory() -> None:
    """Two emulated CUDA devices, Llama 3 8B with 16 of 33 layers on them, 131,072 tokens."""
    found = plan("llama3-8b", context=131072, gpus="2x RTX 3090", options={"n_gpu_layers": 16})
    got = [next(term.bytes for term in device.terms if term.name == "compute") for device in found.devices]
    assert got == [697305088, 239085696]


@pytest.mark.parametrize("name", ["llama3.1-70b", "qwen3-30b-a3b"])
def test_the_least_offload_is_enough_and_one_less_is_not(name: str) -> None:
    devices = resolve("16GB").devices
    whole = plan(name, context=8192, gpus=devices)
    least = llamacpp.least_offload(model(name), work_of(name, quant="Q4_K_M", context=8192), devices)
    assert whole.fit.verdict == "does_not_fit"
    assert least
    if model(name).parameters.experts:
        assert plan(name, context=8192, gpus=devices, offload="experts").fit.headroom >= 0
        assert whole.engine["auto_offload"] == f"experts of {least} layers"
        return
    assert plan(name, context=8192, gpus=devices, offload=f"{least} layers").fit.headroom >= 0
    assert plan(name, context=8192, gpus=devices, offload=f"{least - 1} layers").fit.headroom < 0
    assert whole.engine["auto_offload"] == f"{least} layers"


def work_of(name: str, **request: Any) -> Any:
    """The parsed request, as the planner makes it."""
    names = ("bits", "kv_type", "kv_type_k", "kv_type_v", "tensor_parallel", "pipeline_parallel", "prompt", "output", "options")
    given: dict[str, Any] = dict.fromkeys(names)
    given |= {"engine": "llama.cpp", "sequences": 1, "expert_parallel": False, "offload": "auto"}
    return make_work(model(name), 1, **{**given, **{key: value for key, value in request.items() if key != "gpus"}})[0]


@given(st.sampled_from(KINDS), st.integers(1, 60_000), st.integers(1, 20_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_longer_context_never_takes_less(name: str, context: int, more: int, quantised: bool) -> None:
    request = {"kv_type": "q8_0" if quantised else "f16"}
    assert plan(name, context=context, **request).memory.total <= plan(name, context=context + more, **request).memory.total


@given(st.sampled_from(KINDS), st.integers(1, 8), st.sampled_from((512, 4096, 20_000)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_more_sequences_never_take_less(name: str, sequences: int, context: int, unified: bool) -> None:
    request = {"context": context, "options": {"kv_unified": unified}}
    assert plan(name, sequences=sequences, **request).memory.total <= plan(name, sequences=sequences + 1, **request).memory.total


@pytest.mark.parametrize("name", KINDS)
def test_several_gpus_together_never_hold_less_than_one(name: str) -> None:
    one = plan(name, context=8192, gpus="1x H100").memory
    two = plan(name, context=8192, gpus="2x H100").memory
    assert two.total >= one.total
    assert two.weights == one.weights
    assert (two.kv_cache, two.state) == (one.kv_cache, one.state)


def test_the_cache_is_linear_once_every_window_is_full() -> None:
    sizes = [plan("gemma3-27b", context=n).memory.kv_cache for n in (8192, 16384, 24576, 32768)]
    steps = [b - a for a, b in pairwise(sizes)]
    assert len(set(steps)) == 1
    assert plan("gemma3-27b", context=8192, options={"swa_full": True}).memory.kv_cache > sizes[0]


def test_contexts_are_rounded_up_to_256_cells() -> None:
    for context, cells in ((1, 256), (256, 256), (257, 512), (8192, 8192), (8193, 8448)):
        assert plan("llama3-8b", context=context).engine["n_ctx"] == cells


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ubatch": 0}, "ubatch"),
        ({"ubatch": "many"}, "ubatch"),
        ({"flash_attn": "perhaps"}, "flash_attn"),
        ({"logits": "some"}, "logits"),
        ({"backend": "abacus"}, "backend"),
        ({"build": "b4701"}, "month"),
        ({"tensor_split": "a,b"}, "tensor_split"),
        ({"tensor_split": "0,0"}, "tensor_split"),
        ({"n_gpu_layers": -1}, "n_gpu_layers"),
        ({"ubatches": 512}, "no option"),
    ],
)
def test_odd_options_are_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(vp.UsageError, match=said):
        plan("llama3-8b", context=4096, options=options)


def test_a_quantised_v_needs_flash_attention() -> None:
    with pytest.raises(vp.UsageError, match="flash attention"):
        plan("llama3-8b", context=4096, kv_type="q8_0", options={"flash_attn": False})


def test_more_sequences_than_llama_cpp_runs_are_refused() -> None:
    found = plan("llama3-8b", context=256, sequences=257, gpus="H100")
    assert found.fit.verdict == "does_not_fit"


def test_on_the_cpu_nothing_is_on_a_gpu() -> None:
    found = plan("llama3-8b", context=4096, options={"backend": "cpu"})
    assert (found.memory.weights, found.memory.kv_cache) == (0, 0)
    assert found.engine["n_gpu_layers"] == 0
    assert found.host.used > 4 * 2**30


def test_every_row_of_the_tables_has_its_source() -> None:
    for month in ("2024-06", "2025-10", "2026-05", "2026-06", "2026-10", "2030-01"):
        assert build_of(month).source
    for vendor, capability in (("NVIDIA", "8.9"), ("NVIDIA", ""), ("AMD", ""), ("Apple", ""), ("", "")):
        size, basis, source = runtime_of(vendor, capability, 24 << 30)
        assert 50 * MIB <= size <= 600 * MIB
        assert source and basis in ("measured", "fallback")


def test_the_reasons_name_this_models_numbers() -> None:
    found = plan("gemma3-27b", context=16384, sequences=2, gpus="RTX 4090")
    why = {term.name: term.why for term in found.devices[0].terms}
    assert "1,024" in why["kv_cache"] and "16,384 cells" in why["kv_cache"]
    assert "second time" in why["weights"]
    assert any("-c 32768 -np 2" in note.text for note in found.notes)


@pytest.mark.parametrize("name", ["falcon-mamba-7b", "kimi-k3", "deepseek-v4-flash", "glm-5"])
def test_layers_nobody_measured_are_laid_out_all_the_same(name: str) -> None:
    assert plan(name, context=4096, kv_type="q8_0", sequences=3).memory.compute > 0
