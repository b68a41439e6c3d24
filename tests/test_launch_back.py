"""A command read back as a request plans the very same memory: nothing of the plan is left out of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st

MODELS = {name: vp.load(name) for name in ("llama3-8b", "qwen3-30b-a3b", "gemma3-12b", "deepseek-v2-lite", "lfm2-1.2b")}
MACHINES = ("RTX 4090", "2x RTX 3090", "8xH100", "M4 Pro 24GB", "RTX 3090 + RTX 3060 12GB", "2 nodes x 8xH100")
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama.cpp": {
        "ubatch": (128, 1024), "batch": (1024,), "kv_unified": (True, False), "swa_full": (True,), "n_gpu_layers": (0, 5, 99),
        "tensor_split": ("3,1", "1,1"), "mmproj": (True,),
    },
    "vllm": {
        "gpu_memory_utilization": (0.5, 0.83), "kv_cache_memory_bytes": (1 << 31,), "max_model_len": (30000,), "max_num_seqs": (16, 100),
        "max_num_batched_tokens": (1024, 4096), "block_size": (32,), "enforce_eager": (True, False), "prefix_caching": (True, False),
    },
}  # fmt: skip
CHOICES["sglang"] = {name: values for name, values in CHOICES["vllm"].items() if name != "kv_cache_memory_bytes"}
SERVER = {
    "max_model_len": ("--max-model-len", "--context-length"),
    "gpu_memory_utilization": ("--gpu-memory-utilization", "--mem-fraction-static"),
    "max_num_seqs": ("--max-num-seqs", "--max-running-requests"), "block_size": ("--block-size", "--page-size"),
    "max_num_batched_tokens": ("--max-num-batched-tokens", "--chunked-prefill-size"), "kv_cache_memory_bytes": ("--kv-cache-memory-bytes",),
}  # fmt: skip


def words_of(command: str) -> tuple[list[str], Callable[..., Any]]:
    words = shlex.split(command)

    def value(*flags: str, kind: Callable[[str], Any] = int) -> Any:
        return next((kind(words[words.index(flag) + 1]) for flag in flags if flag in words), None)

    return words, value


def llama_server(command: str) -> dict[str, Any]:
    words, value = words_of(command)
    parallel = value("-np")
    options = {"n_gpu_layers": value("-ngl"), "ubatch": value("-ub"), "batch": value("-b"), "flash_attn": value("-fa", kind=str) == "on"}
    options |= {"tensor_split": value("-ts", kind=str)} if "-ts" in words else {}
    switches = {"kv_unified": "--kv-unified", "swa_full": "--swa-full", "mmproj": "--mmproj"}
    options |= {name: True for name, flag in switches.items() if flag in words}
    return {
        "context": value("-c") // parallel, "sequences": parallel, "kv_type_k": value("-ctk", kind=str), "options": options,
        "kv_type_v": value("-ctv", kind=str), "offload": "experts" if "--n-cpu-moe" in words else "auto",
    }  # fmt: skip


def server(command: str) -> dict[str, Any]:
    words, value = words_of(command)
    options = {name: value(*flags, kind=float if "." in str(value(*flags, kind=str)) else int) for name, flags in SERVER.items()}
    options |= {"enforce_eager": True} if {"--enforce-eager", "--disable-cuda-graph"} & set(words) else {}
    options |= {"prefix_caching": False} if {"--no-enable-prefix-caching", "--disable-radix-cache"} & set(words) else {}
    return {
        "tensor_parallel": value("--tensor-parallel-size", "--tp-size") or 1, "kv_type": "fp8" if "--kv-cache-dtype" in words else None,
        "pipeline_parallel": value("--pipeline-parallel-size", "--pp-size") or 1,
        "expert_parallel": bool({"--enable-expert-parallel", "--ep-size"} & set(words)),
        "options": {name: found for name, found in options.items() if found is not None},
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm", "sglang"])
@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)), gpus=st.sampled_from(MACHINES), context=st.sampled_from((512, 4000, 16384)),
    sequences=st.sampled_from((1, 3, 8)), packed=st.booleans(), spread=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_command_read_back_is_the_plan(
    engine: str, name: str, gpus: str, context: int, sequences: int, packed: bool, spread: bool, data: st.DataObject
) -> None:
    drawn = {key: values for key, values in CHOICES[engine].items() if data.draw(st.integers(0, 3)) == 0}
    given_options = {key: data.draw(st.sampled_from(values)) for key, values in drawn.items()}
    request: dict[str, Any] = {"engine": engine, "gpus": gpus, "context": context, "sequences": sequences}
    if packed:
        request["kv_type"] = "q8_0" if engine == "llama.cpp" else "fp8"
    if engine == "llama.cpp":
        asked = {"offload": "experts" if spread and MODELS[name].architecture.experts else "auto"}
    else:
        asked = {"expert_parallel": spread}
    plan = vp.plan(MODELS[name], **request, **asked, options=given_options)
    read = (llama_server if engine == "llama.cpp" else server)(plan.launch[-1].command)
    again = vp.plan(MODELS[name], **{**request, "kv_type": None, **read})
    sizes, same = ([[(t.name, t.bytes) for t in device.terms] for device in p.devices] for p in (plan, again))
    if engine == "sglang":  # the share is written with four digits
        assert [[n for n, _ in terms] for terms in sizes] == [[n for n, _ in terms] for terms in same]
        flat = [(a, b) for one, two in zip(sizes, same, strict=True) for (_, a), (_, b) in zip(one, two, strict=True)]
        assert all(abs(a - b) <= 2e-4 * device.total for device in plan.devices if device.total for a, b in flat)
    else:
        assert sizes == same
    assert (plan.fit.verdict == "does_not_fit") == (again.fit.verdict == "does_not_fit") or engine == "sglang"
