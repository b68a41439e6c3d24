"""What is read of recorded logs: each engine's wording over two years, and which engine wrote a log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.verification.llamacpp_load import file_type, place_of
from vram_plan.verification.logs import observe_lines, read_log

LOGS = Path(__file__).parents[1] / "data" / "logs"
GIB, MIB = 1 << 30, 1 << 20
QUOTES = [json.loads(line) for line in (LOGS / "quotes.jsonl").read_text("utf-8").splitlines()]
NAMES = {"weights": "weights", "activation": "activation", "non_torch": "non_torch", "available_kv": "available_kv", "graph": "cuda_graphs",
         "kv": "kv_cache", "state": "state", "compute": "compute", "total": "total"}  # fmt: skip


def figures(name: str, **shape: int) -> dict[tuple[str, Any], float]:
    return {(f.name, f.place): f.value for f in read_log(str(LOGS / name), **shape).figures}


def settings(name: str) -> dict[str, Any]:
    return {seen.name: seen.value for seen in read_log(str(LOGS / name)).settings}


def test_every_log_says_where_it_is_from() -> None:
    for path in LOGS.glob("*.log"):
        first = path.read_text("utf-8").splitlines()[0]
        assert first.startswith("# ") and ("text-index id" in first or "recorded here" in first)
    assert all(row["source"] for row in QUOTES)


@pytest.mark.parametrize("row", QUOTES, ids=lambda row: row["id"])
def test_quoted_lines(row: dict[str, Any]) -> None:
    """Lines quoted from public logs, with the figures a reader took from them."""
    lines = re.split(r"; | / ", row["quote"])
    if row["engine"] == "ollama":  # quoted without the words each field begins with
        begun = re.compile(r"(?<![.\w])(?:required\.|weights\.|graph\.|kv=)")
        lines = [begun.sub(lambda m: "memory." + {"kv=": "required.kv="}.get(m[0], m[0]), line) for line in lines]
    found = observe_lines(lines, "a quote")
    assert found.engine == row["engine"]
    for key, value in row["says"].items():
        stem, _, unit = key.rpartition("_")
        scale = {"gib": GIB, "mib": MIB}.get(unit, 1)
        name = NAMES[stem] if scale > 1 else key
        same = [f.value for f in found.figures if f.name == name and f.place != "host"]
        assert same and (same[0] if row["engine"] == "vllm" else sum(same)) / scale == pytest.approx(value, rel=1e-6, abs=0.006), key


def test_llamacpp() -> None:
    found = read_log(str(LOGS / "llamacpp_b7342_qwen3-coder-30b_a100.log"))
    assert (found.engine, found.version, found.gpus) == ("llama.cpp", "b7342 (2fbe3b7bb)", ("NVIDIA A100-PCIE-40GB",))
    assert {(f.name, f.place): f.value / MIB for f in found.figures if f.name != "file_bytes"} == {
        ("weights", "host"): 315.30, ("weights", 0): 30658.12, ("kv_cache", 0): 6144.0, ("compute", 0): 300.75, ("compute", "host"): 132.01,
    }  # fmt: skip
    assert settings("llamacpp_b7342_qwen3-coder-30b_a100.log") == {
        "context": 16384, "sequences": 4, "ubatch": 512, "batch": 2048, "kv_unified": True, "flash_attn": True, "kv_type_k": "f16",
        "kv_type_v": "f16", "backend": "cuda", "quant": "Q8_0", "build": "2025-10",
    }  # fmt: skip
    assert found.facts["layers"] == 48 and found.facts["name"] == "Qwen3-Coder-30B-A3B-Instruct"


def test_a_draft_and_a_tower_are_kept_apart() -> None:
    found = figures("llamacpp_2026-05_qwen3.6-27b-mtp_5090.log")
    assert {key: value / MIB for key, value in found.items() if key[1] == 0} == {
        ("weights", 0): 16386.94, ("kv_cache", 0): 4352.0, ("state", 0): 598.5, ("compute", 0): 495.0, ("mtp_kv_cache", 0): 272.0,
        ("mtp_compute", 0): 495.0, ("mmproj", 0): 887.99, ("mmproj_compute", 0): 248.1,
    }  # fmt: skip


def test_the_load_of_the_model_asked_for_is_taken() -> None:
    """Ollama's log goes on with another model; by layers and width the first is found, else the last that took memory."""
    ministral = {"layers": 26, "hidden_size": 3072}
    assert figures("ollama_0.33_ministral-3b_cpu.log", **ministral)["compute", "host"] == 168.03 * MIB
    text = (LOGS / "llamacpp_b7342_qwen3-coder-30b_a100.log").read_text("utf-8")
    both = [*text.splitlines(), *(LOGS / "llamacpp_2026-10_tiny_cpu.log").read_text("utf-8").splitlines()]
    assert observe_lines(both, "two", 48, 2048).facts["layers"] == 48
    assert observe_lines(both, "two", 3, 256).facts["layers"] == 3
    assert observe_lines(both, "two").facts["layers"] == 3
    assert any("2 loads" in note for note in observe_lines(both, "two").notes)


def test_a_dry_load_that_only_measures_is_passed_over() -> None:
    lines = (LOGS / "llamacpp_b7342_qwen3-coder-30b_a100.log").read_text("utf-8").splitlines()
    dry = [re.sub(r"= +[\d.]+ MiB", "=     0.00 MiB", line) for line in lines]
    assert observe_lines([*dry, *lines], "fit").figure("weights", 0).value == 30658.12 * MIB


def test_vllm() -> None:
    found = read_log(str(LOGS / "vllm_0.22_qwen2.5-7b.log"))
    assert (found.engine, found.version) == ("vllm", "0.22.0")
    assert settings("vllm_0.22_qwen2.5-7b.log") == {
        "context": 4096, "max_num_batched_tokens": 2048, "tensor_parallel": 1, "pipeline_parallel": 1, "enforce_eager": False,
        "prefix_caching": True, "max_num_seqs": 128, "gpu_memory_utilization": 0.95, "version": "0.22.0",
    }  # fmt: skip
    assert settings("vllm_v0_qwen2.5-math-1.5b.log")["version"] == "0.7"  # by its wording
    old = figures("vllm_v0_qwen2.5-math-1.5b.log")
    assert old["weights", 0] == 2.8797 * GIB and old["num_blocks", None] == 78115 and old["gpu_memory", 0] == 44.39 * GIB


def test_vllm_ranks() -> None:
    lines = [f"(Worker_PP{p}_TP{t} pid=1) INFO Model loading took {10 * p + t + 1}.5 GiB memory" for p in (0, 1) for t in (0, 1)]
    lines.append("INFO non-default args: {'tensor_parallel_size': 2, 'pipeline_parallel_size': 2, 'kv_cache_dtype': 'fp8_e4m3'}")
    found = observe_lines(lines, "ranks")
    assert [found.figure("weights", i).value / GIB for i in range(4)] == [1.5, 2.5, 11.5, 12.5]
    assert {s.name: s.value for s in found.settings} == {"tensor_parallel": 2, "pipeline_parallel": 2, "kv_type": "fp8"}


def test_vllm_lines_a_terminal_broke() -> None:
    """Copied from a narrow terminal: arguments go on in lines of their own, cut anywhere."""
    text = (LOGS / "vllm_0.22_qwen2.5-7b.log").read_text("utf-8")
    whole = {s.name: s.value for s in observe_lines(text.splitlines(), "whole").settings}
    broken = [line[i : i + 150] for line in text.splitlines() for i in range(0, len(line), 150)]
    assert {s.name: s.value for s in observe_lines(broken, "broken").settings}.items() >= {
        key: whole[key] for key in ("context", "tensor_parallel", "enforce_eager", "prefix_caching", "version")
    }.items()
    cut = ["INFO non-default args: {'model_tag': 'org/na", "me', 'gpu_memory_utilization': 0.2", "5, 'tensor_parallel_si", "ze': 2}",
           "INFO Model loading took 3.00 GiB memory"]  # fmt: skip
    assert {s.name: s.value for s in observe_lines(cut, "cut").settings} == {"gpu_memory_utilization": 0.25, "tensor_parallel": 2}


@pytest.mark.parametrize(
    ("line", "name", "backend"),
    [
        ("llama_model_load_from_file_impl: using device Vulkan0 (AMD Radeon RX 7900 XTX (RADV NAVI31)) - 24000 MiB free",
         "AMD Radeon RX 7900 XTX", "vulkan"),
        ("llama_prepare_model_devices: using device MTL0 (Apple M1 Max) (unknown id) - 21845 MiB free", "Apple M1 Max", "metal"),
        ("llama_load_model_from_file: using device Metal (Apple M2 Ultra) - 147455 MiB free", "Apple M2 Ultra", "metal"),
        ("  Device 0: AMD Radeon RX 6800, gfx1030 (0x1030), VMM: no, Wave Size: 32", "AMD Radeon RX 6800", "rocm"),
        ("0.00.2 I cmn  common_param:   - CUDA0   : NVIDIA GeForce RTX 5060 Ti (15849 MiB, 15712 MiB free)", "NVIDIA GeForce RTX 5060 Ti",
         "cuda"),
    ],
)  # fmt: skip
def test_llamacpp_devices(line: str, name: str, backend: str) -> None:
    buffer = {"vulkan": "Vulkan0", "metal": "MTL0_Mapped", "rocm": "ROCm0", "cuda": "CUDA0"}[backend]
    found = observe_lines([line, f"load_tensors:   {buffer} model buffer size =   100.00 MiB"], "a log")
    assert found.gpus == (name,) and {s.name: s.value for s in found.settings} == {"backend": backend}


def test_llamacpp_buffers_of_other_kinds() -> None:
    lines = [
        "load_tensors:   RPC0[10.0.0.2:50052] model buffer size =  1000.00 MiB",
        "load_tensors:        CUDA1 model buffer size =  500.00 MiB",
        "llama_context: n_ctx = 4096", "llama_kv_cache_dsv4:      CUDA1 DSV4 attn state buffer size =   64.00 MiB",
        "load:      CUDA1 LoRA buffer size =    80.00 MiB", "llama_context:  CUDA_Host  output buffer size =     0.59 MiB",
        "sched_reserve:  RPC0[10.0.0.2:50052] compute buffer size =   20.00 MiB",
        "load_tensors:        CUDA1 model buffer size =   655.73 MiB", "llama_context: n_ctx = 2048",
        "llama_kv_cache:      CUDA1 KV buffer size =    80.00 MiB",
    ]  # fmt: skip
    found = {(f.name, f.place): f.value / MIB for f in observe_lines(lines[:7], "rpc").figures}
    assert found == {("weights", 0): 1000, ("weights", 1): 500, ("state", 1): 64, ("lora", 1): 80, ("compute", 0): 20}
    assert observe_lines(lines, "with a drafter").figure("weights", 0).value == 1000 * MIB  # the drafter is a load of its own


def test_vllm_command_line_and_colours() -> None:
    lines = [
        "$ vllm serve org/name --tensor-parallel-size 2 --gpu-memory-utilization=0.8 --enforce-eager --no-enable-prefix-caching --seed 1",
        "\x1b[1;36m(EngineCore pid=9)\x1b[0;0m INFO \x1b[32mAvailable KV cache memory: 3.50 GiB\x1b[0m",
    ]
    found = observe_lines([re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines], "shell")
    assert {s.name: s.value for s in found.settings} == {
        "tensor_parallel": 2, "gpu_memory_utilization": 0.8, "enforce_eager": True, "prefix_caching": False,
    }  # fmt: skip


def test_sglang() -> None:
    found = figures("sglang_0.4_r1-distill-qwen-7b_3090.log")
    assert found["weights", 0] / GIB == pytest.approx(22.76 - 8.37) and found["kv_cache", 0] / GIB == pytest.approx(5.64)
    assert found["kv_tokens", None] == 105531
    assert settings("sglang_0.4_r1-distill-qwen-7b_3090.log") == {
        "gpu_memory_utilization": 0.88, "max_num_batched_tokens": 2048, "tensor_parallel": 1, "prefix_caching": True,
        "enforce_eager": False, "context": 131072,
    }  # fmt: skip
    hybrid = figures("sglang_2026-02_granite-4.0-h-micro.log")
    assert hybrid["state", 0] / GIB == pytest.approx(2.77) and hybrid["weights", 0] / GIB == pytest.approx(5.98)


def test_sglang_of_2026() -> None:
    """sgl-project/sglang PR #29853's log, a public one with a draft (text-index id 69412325477), and one of two pipeline stages."""
    lines = [
        "[2026-07-01 15:19:55 TP1] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 387968, K size: 5.92 GB, V size: 5.92 GB",
        "[2026-09-11 23:34:13 TP0 EP0] Load weight begin. avail mem=111.47 GB",
        "[2026-09-11 23:43:15 TP0 EP0] Load weight end. elapsed=541.76 s, type=DeepseekV4ForCausalLM, quant=fp8, avail mem=17.47 GB, "
        "mem usage=94.00 GB.",
        "[2026-09-11 23:44:38 TP0 EP0] Load weight begin. avail mem=17.54 GB",
        "[2026-09-11 23:45:53 TP0 EP0] Load weight end. elapsed=74.58 s, type=DSpark, avail mem=14.74 GB, mem usage=2.80 GB.",
        "[2026-09-11 23:46:44 TP0 EP0] Capture target verify CUDA graph end. elapsed=13.48 s, mem usage=0.58 GB, avail mem=7.62 GB.",
        "[2026-09-11 23:46:49 TP0 EP0] max_total_num_tokens=2999808, chunked_prefill_size=1024, context_len=1048576",
        "[2026-10-01 00:00:00 TP1 PP1] Memory pool end. avail mem=9.90 GB", "server_args=ServerArgs(tp_size=2, pp_size=2, page_size=64)",
    ]  # fmt: skip
    seen = observe_lines(lines, "a log")
    found = {(f.name, f.place): round(f.value / GIB, 2) for f in seen.figures if f.unit == "bytes"}
    assert found == {("kv_cache", 1): 11.84, ("free_before", 0): 111.47, ("weights", 0): 94.0, ("draft_weights", 0): 2.8,
                     ("cuda_graphs", 0): 0.58, ("reserve", 3): 9.9}  # fmt: skip
    assert {s.name: s.value for s in seen.settings} == {
        "context": 1048576, "max_num_batched_tokens": 1024, "tensor_parallel": 2, "pipeline_parallel": 2, "block_size": 64,
    }  # fmt: skip


def test_ollama() -> None:
    found = read_log(str(LOGS / "ollama_0.33_ministral-3b_cpu.log"), 26, 3072)
    assert (found.engine, found.version) == ("ollama", "0.33.2") and found.facts["name"] == "ministral-3B-Instruct-2512"
    assert found.rates[0].prompt == 871 and found.rates[0].decode_tokens_per_s == 11.64
    own = read_log(str(LOGS / "ollama_0.20_qwen2.5-coder-7b_3060.log"))
    assert own.gpus == ("NVIDIA GeForce RTX 3060",) and own.figure("kv_cache", 0).value == 1.8 * GIB
    assert {s.name: s.value for s in own.settings} == {
        "sequences": 1, "context": 32768, "ubatch": 512, "batch": 512, "quant": "Q4_K_M",
    }  # fmt: skip


def test_a_log_without_buffers_says_how_to_get_them() -> None:
    with pytest.raises(vp.FormatError) as caught:
        observe_lines(["0.00 I srv init: build_info: b9000-abcdef123", "srv load_model: loading model 'x.gguf'"], "quiet.log")
    assert "-lv 4" in caught.value.hint


def test_what_failed_is_said() -> None:
    lines = ["load_tensors:        CUDA0 model buffer size = 8000.00 MiB",
             "alloc_tensor_range: failed to allocate CUDA0 buffer of size 4294967296"]  # fmt: skip
    assert observe_lines(lines, "oom").notes == ("the engine failed to allocate 4.00 GiB on CUDA0",)
    vllm = ["Available KV cache memory: -1.25 GiB", "ValueError: No available memory for the cache blocks. Try increasing"]
    found = observe_lines(vllm, "oom")
    assert found.figure("available_kv", 0).value == -1.25 * GIB and "did not start" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "kind"),
    [("Q4_K - Medium", "Q4_K_M"), ("Q8_0", "Q8_0"), ("BF16", "BF16"), ("Q3_K - Small", "Q3_K_S"), ("IQ4_XS - 4.25 bpw", "IQ4_XS"),
     ("Q4_K_M", "Q4_K_M"), ("MXFP4 MoE", "MXFP4_MOE"), ("unknown", None), ("", None), (" - ", None), ("Q4_K - ", None)],
)  # fmt: skip
def test_file_types(text: str, kind: str | None) -> None:
    assert file_type(text) == kind


def test_places() -> None:
    names = {"CUDA0": 0, "CUDA12": 12, "MTL0_Mapped": 0, "Metal": 0, "ROCm1": 1, "Vulkan0": 0, "CPU": "host", "CPU_Mapped": "host",
             "CPU_REPACK": "host", "CUDA_Host": "host", "BLAS": "host"}  # fmt: skip
    assert {name: place_of(name) for name in names} == names
