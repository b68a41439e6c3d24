"""Plans held against recorded logs: which lines agree, what is taken over, what is contradicted, the corrected command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.verification.logs import observe_lines
from vram_plan.verification.values import Line, Observation
from vram_plan.verification.verify import reconciled

LOGS = Path(__file__).parents[1] / "data" / "logs"


def verified(model: str, log: str, **request: Any) -> vp.Reconciliation:
    return vp.verify(model, str(LOGS / log), offline=True, **request)


def by_name(found: vp.Reconciliation) -> dict[tuple[str, Any], Line]:
    return {(line.name, line.place): line for line in found.lines}


def test_llamacpp_to_the_last_digit() -> None:
    """Weights, cache and compute of an A100's log, from the model's name and the log's settings alone."""
    found = verified("qwen3-coder-30b-a3b", "llamacpp_b7342_qwen3-coder-30b_a100.log")
    lines = by_name(found)
    assert all(lines[name, 0].error == 0 for name in ("weights", "kv_cache", "compute", "total"))
    assert lines["weights", "host"].error == 0 and found.within(0)
    assert lines["runtime", 0].actual is None and lines["runtime", 0].error is None and not lines["runtime", 0].counts
    assert found.plan.devices[0].name == "NVIDIA A100-PCIE-40GB" and found.plan.request.sequences == 4


def test_ollama_to_the_last_digit() -> None:
    lines = by_name(verified("ministral3-3b-2512", "ollama_0.33_ministral-3b_cpu.log"))
    assert lines["weights", "host"].error == 0 and lines["kv_cache", "host"].error == 0
    assert abs(lines["compute", "host"].error or 0) < 0.001


def test_what_ollama_expected_of_a_graph_is_no_figure_of_the_engine() -> None:
    """Its rule for qwen2, 4 · 512 · (1 + 2 · 3584 + 32768 · (1 + 28)) B, is no buffer of llama.cpp's, which ran the model."""
    found = verified("qwen2.5-coder-7b", "ollama_0.20_qwen2.5-coder-7b_3060.log")
    lines = by_name(found)
    assert found.within(0.05) and ("compute", 0) in lines and lines["compute", 0].error is None
    assert any("1.80 GiB is what this Ollama expected" in note for note in found.notes)


def test_an_unlike_mix_is_told_apart() -> None:
    """A maker's own Q4_K_XL: the cache, state and graph agree, the weights do not, and the reason says why."""
    found = verified("qwen3.6-27b", "llamacpp_2026-05_qwen3.6-27b-mtp_5090.log")
    lines = by_name(found)
    assert lines["kv_cache", 0].error == 0 and lines["state", 0].error == 0 and abs(lines["compute", 0].error or 0) < 0.03
    assert 0.05 < (lines["weights", 0].error or 0) < 0.1 and "org/name:QUANT" in lines["weights", 0].why
    assert found.worst == lines["weights", 0] and not found.within(0.05) and found.within(0.1)


@pytest.mark.parametrize(
    ("model", "log", "gpu"),
    [("qwen2.5-7b-instruct", "vllm_0.22_qwen2.5-7b.log", "A40"), ("qwen3.5-9b", "vllm_0.19_qwen3.5-9b_l40s.log", "L40S")],
)
def test_vllm(model: str, log: str, gpu: str) -> None:
    lines = by_name(verified(model, log, gpus=gpu))
    assert abs(lines["weights", 0].error or 0) < 0.01
    assert abs(lines["kv_tokens_of_that_memory", None].error or 0) < 0.0003
    assert abs(lines["kv_tokens", None].error or 0) < 0.1


def test_what_is_left_for_the_cache_is_put_down_to_its_parts() -> None:
    line = by_name(verified("qwen3.5-9b", "vllm_0.19_qwen3.5-9b_l40s.log", gpus="L40S"))["available_kv", None]
    assert "by weights" in line.why and "does not tell (activation, non-torch, other programs)" in line.why
    old = by_name(verified("qwen2.5-1.5b", "vllm_v0_qwen2.5-math-1.5b.log", gpus="A40"))["available_kv", None]
    assert abs(old.error or 0) < 0.01
    assert "by activation" in old.why and "by non-torch" in old.why and "does not tell (other programs)" in old.why


def test_the_log_of_a_real_server_on_a_cpu(tmp_path: Path) -> None:
    """Recorded from xllamacpp 2026.10 with the model `test_server_real` writes: file, cache to the digit, the graph within its bound."""
    tiny = json.loads((LOGS.parent / "tiny_ggufs.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(tiny["full"]["config"]))
    found = verified(str(tmp_path / "config.json"), "llamacpp_2026-10_tiny_cpu.log")
    lines = by_name(found)
    assert lines["weights", "host"].error == 0 and lines["kv_cache", "host"].error == 0 and lines["file_bytes", None].error == 0
    assert 0 <= (lines["compute", "host"].difference or 0) < 2 * 256 * 4 * 512 + 50_000
    assert found.plan.request.sequences == 2 and found.plan.request.context == 2048 and found.plan.request.quant == "F16"


def test_sglang() -> None:
    lines = by_name(verified("qwen2.5-7b", "sglang_0.4_r1-distill-qwen-7b_3090.log", gpus="RTX 3090"))
    assert abs(lines["weights", 0].error or 0) < 0.02 and lines["kv_tokens_of_that_memory", None].error == 0


def test_the_longest_context_vllm_tells_when_it_refuses() -> None:
    """Of the memory it says it had: as the plan finds it in a pool of that size."""
    plan = vp.plan("qwen3-8b", engine="vllm", context=40960, gpus="RTX 4090", options={"kv_cache_memory_bytes": 3 << 30})
    told = f"estimated maximum model length is {plan.fit.max_context}"
    lines = ["Using max model len 40960", f"KV cache is needed, which is larger than the available KV cache memory (3.0 GiB). {told}"]
    found = reconciled(vp.load("qwen3-8b"), observe_lines(lines, "refused"), {}, _machine("RTX 4090"))
    assert by_name(found)["max_context_of_that_memory", None].error == 0


def _machine(gpus: str) -> Any:
    from vram_plan.hardware import resolve

    return resolve(gpus)


def test_what_was_asked_stays_and_is_said() -> None:
    found = verified("qwen3-coder-30b-a3b", "llamacpp_b7342_qwen3-coder-30b_a100.log", context="8k", options={"ubatch": 256})
    refused = {s.name: (s.asked, s.engine) for s in found.settings if not s.taken}
    assert refused == {"context": ("8k", 16384), "ubatch": (256, 512)}
    assert found.plan.request.context == 8192 and found.plan.engine["n_ubatch"] == 256
    assert by_name(found)["kv_cache", 0].error == pytest.approx(0.5)
    assert any("context: the plan has 8k, the engine runs with 16384" in note for note in found.notes)
    words = shlex.split(found.command)
    assert words[words.index("--ctx") + 1] == "16384" and "ubatch=512" in words


def test_the_corrected_command_makes_the_same_plan() -> None:
    from vram_plan_cli.options import parse_settings

    found = verified("qwen3-coder-30b-a3b", "llamacpp_b7342_qwen3-coder-30b_a100.log")
    words = shlex.split(found.command)
    assert words[:2] == ["vram-plan", "qwen3-coder-30b-a3b"]
    given = {words[i]: words[i + 1] for i in range(2, len(words), 2) if words[i] != "--set"}
    options = parse_settings([words[i + 1] for i in range(2, len(words), 2) if words[i] == "--set"])
    again = vp.plan(
        words[1], engine=given["--engine"], context=given["--ctx"], sequences=int(given["--parallel"]), quant=given["--quant"],
        gpus=given["--gpu"], options=options,
    )  # fmt: skip
    assert again.memory == found.plan.memory and again.engine == found.plan.engine


def test_another_model_is_noticed() -> None:
    found = verified("llama3-8b", "llamacpp_b7342_qwen3-coder-30b_a100.log")
    assert any("another model (Qwen3-Coder-30B-A3B-Instruct): layers 48 (the plan's model: 32)" in note for note in found.notes)


def test_a_finished_plan_is_compared_as_it_is() -> None:
    plan = vp.plan("qwen3-coder-30b-a3b", engine="llama.cpp", quant="Q8_0", context=16384, sequences=4, gpus="A100-40GB",
                   options={"kv_unified": True, "build": "2025-12"})  # fmt: skip
    found = vp.verify(plan, str(LOGS / "llamacpp_b7342_qwen3-coder-30b_a100.log"))
    assert found.within(0) and found.plan is plan and all(setting.taken for setting in found.settings if setting.name != "build")
    shorter = vp.plan("qwen3-coder-30b-a3b", engine="llama.cpp", quant="Q8_0", context=8192, sequences=4, gpus="A100-40GB",
                      options={"kv_unified": True, "build": "2025-10"})  # fmt: skip
    apart = vp.verify(shorter, str(LOGS / "llamacpp_b7342_qwen3-coder-30b_a100.log"))
    assert [(s.name, s.asked, s.engine) for s in apart.settings if not s.taken] == [("context", 8192, 16384)] and not apart.within(0.05)
    assert "--ctx 16384" in apart.command
    with pytest.raises(vp.UsageError):
        vp.verify(plan, str(LOGS / "llamacpp_b7342_qwen3-coder-30b_a100.log"), context=8192)


def test_nothing_compared_is_not_within() -> None:
    model = vp.load("llama3-8b")
    found = reconciled(model, Observation("llama.cpp", "nothing"), {}, _machine("RTX 4090"))
    assert found.worst is None and not found.within(10)


def test_formats_and_caches_of_the_log() -> None:
    lines = ["llama_context: n_ctx = 8192", "llama_context: n_seq_max = 1", "print_info: file type   = Q6_K",
             "llama_kv_cache: size = 512.00 MiB ( 8192 cells, 32 layers, 1/1 seqs), K (q8_0): 272.00 MiB, V (f16): 512.00 MiB",
             "load_tensors:        CUDA0 model buffer size = 6000.00 MiB"]  # fmt: skip
    seen = observe_lines(lines, "a log")
    plan = reconciled(vp.load("llama3-8b"), seen, {}, _machine("RTX 4090")).plan
    assert (plan.request.quant, plan.request.kv_type_k, plan.request.kv_type_v) == ("Q6_K", "q8_0", "f16")
    asked = reconciled(vp.load("llama3-8b"), seen, {"bits": 4, "kv_type": "f16"}, _machine("RTX 4090"))
    assert (asked.plan.request.quant, asked.plan.request.kv_type_k) == ("Q4_K_M", "f16")
    assert [s.name for s in asked.settings if not s.taken] == ["kv_type_k"]
    assert "the engine's file is Q6_K, the plan's format Q4_K_M" in asked.notes


def test_a_backend_the_card_does_not_tell_is_taken_over() -> None:
    lines = ["using device Vulkan0 (NVIDIA GeForce RTX 3060) - 11000 MiB free", "load_tensors:   Vulkan0 model buffer size =  4403.49 MiB",
             "llama_context: n_ctx = 4096"]  # fmt: skip
    found = reconciled(vp.load("llama3-8b"), observe_lines(lines, "a log"), {"quant": "Q4_K_M"}, _machine("RTX 3060"))
    assert found.plan.engine["backend"] == "vulkan" and "backend=vulkan" in found.command


TWO_CARDS = """
  Device 0: NVIDIA GeForce RTX 3060, compute capability 8.6, VMM: yes
  Device 1: NVIDIA GeForce RTX 3090, compute capability 8.6, VMM: yes
  Device 2: NVIDIA GeForce RTX 3090, compute capability 8.6, VMM: yes
print_info: n_layer               = 32
load_tensors:        CUDA{a} model buffer size =  {wa} MiB
load_tensors:        CUDA{b} model buffer size =  {wb} MiB
llama_context: n_ctx = 8192
llama_context: n_outputs_max = 1
llama_kv_cache:      CUDA{a} KV buffer size =   {ka} MiB
llama_kv_cache:      CUDA{b} KV buffer size =   {kb} MiB
sched_reserve:      CUDA{a} compute buffer size =   172.00 MiB
sched_reserve:      CUDA{b} compute buffer size =   204.00 MiB
"""


def test_the_split_of_several_cards_is_taken_over() -> None:
    """Layers by the cache of each card; a card that holds nothing is left out, and the others are counted from 0."""
    text = TWO_CARDS.format(a=1, b=2, wa=2000.0, wb=2400.0, ka=480.0, kb=544.0)
    found = reconciled(vp.load("llama3-8b"), observe_lines(text.splitlines(), "a log"), {"quant": "Q4_K_M"}, _machine("2x RTX 3090"))
    assert next(s.engine for s in found.settings if s.name == "tensor_split") == "15,18"
    assert found.plan.engine["layers_per_device"] == [15, 17]
    lines = by_name(found)
    assert lines["kv_cache", 0].error == 0 and lines["kv_cache", 1].error == 0 and (2, "kv_cache") not in lines
    seen = observe_lines(text.splitlines(), "a log")
    assert seen.gpus == ("NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3090")
    assert "--set tensor_split=15,18" in found.command
    uneven = TWO_CARDS.format(a=0, b=1, wa=2000.0, wb=2400.0, ka=500.0, kb=524.0)
    assert not any(s.name == "tensor_split" for s in observe_lines(uneven.splitlines(), "a log").settings)


def test_ollama_takes_one_of_two_cards() -> None:
    lines = [
        'msg="inference compute" id=GPU-1 library=CUDA compute=8.6 name=CUDA0 description="NVIDIA GeForce RTX 3060" total="12.0 GiB"',
        'msg="inference compute" id=GPU-2 library=CUDA compute=8.9 name=CUDA1 description="NVIDIA GeForce RTX 4090" total="24.0 GiB"',
        "load_tensors:        CUDA1 model buffer size =  4403.49 MiB", "llama_context: n_ctx = 4096",
    ]  # fmt: skip
    seen = observe_lines(lines, "a log")
    assert seen.gpus == ("NVIDIA GeForce RTX 4090",) and seen.figure("weights", 0) is not None


def test_partial_offload_is_taken_over() -> None:
    lines = ["load_tensors: offloaded 20/33 layers to GPU", "load_tensors:        CUDA0 model buffer size = 2000.00 MiB",
             "llama_context: n_ctx = 4096", "llama_context: n_seq_max = 1"]  # fmt: skip
    found = reconciled(vp.load("llama3-8b"), observe_lines(lines, "a log"), {"quant": "Q4_K_M"}, _machine("RTX 4090"))
    assert found.plan.engine["n_gpu_layers"] == 20 and "n_gpu_layers=20" in found.command


def test_speeds_in_a_log_are_compared_where_long_enough() -> None:
    lines = ["llama_context: n_ctx = 4096", "load_tensors:        CUDA0 model buffer size = 4403.49 MiB",
             "prompt eval time =     500.00 ms /  2000 tokens (    0.25 ms per token,  4000.00 tokens per second)",
             "       eval time =    5000.00 ms /   500 tokens (   10.00 ms per token,   100.00 tokens per second)"]  # fmt: skip
    rates = by_name(reconciled(vp.load("llama3-8b"), observe_lines(lines, "a log"), {"quant": "Q4_K_M"}, _machine("RTX 4090")))
    assert rates["prefill", None].actual == 4000 and rates["decode", None].actual == 100 and not rates["decode", None].counts
    short = [line.replace("2000 tokens", "  20 tokens").replace("500 tokens", "  5 tokens") for line in lines]
    few = by_name(reconciled(vp.load("llama3-8b"), observe_lines(short, "a log"), {"quant": "Q4_K_M"}, _machine("RTX 4090")))
    assert ("prefill", None) not in few and ("decode", None) not in few


def test_prediction_layers_are_taken_over_from_a_newest_build(tmp_path: Path) -> None:
    """Written as the newest source prints it: the layers are in the model's buffer, their cache and graph beside."""
    size = vp.plan("qwen3.6-27b", engine="llama.cpp", quant="Q4_K_M", context=4096, options={"mtp": True})
    mib = {term.name: term.bytes / 2**20 for term in size.devices[0].terms}
    lines = [
        "print_info: n_embd                = 5120", "print_info: n_layer               = 65", "print_info: file type   = Q4_K - Medium",
        f"load_tensors:        CUDA0 model buffer size = {mib['weights'] + mib['mtp_weights']:.2f} MiB",
        "llama_context: n_seq_max     = 1", "llama_context: n_ctx         = 4096", "llama_context: n_outputs_max = 4",
        f"llama_kv_cache:      CUDA0 KV buffer size = {mib['kv_cache']:.2f} MiB",
        f"llama_memory_recurrent:      CUDA0 RS buffer size = {mib['state']:.2f} MiB",
        f"sched_reserve:      CUDA0 compute buffer size = {mib['compute']:.2f} MiB",
        "common_speculative_init: creating MTP draft context against the target model 'm.gguf'",
        "llama_context: n_seq_max     = 1", "llama_context: n_ctx         = 4096",
        f"llama_kv_cache:      CUDA0 KV buffer size = {mib['mtp_kv_cache']:.2f} MiB",
        f"sched_reserve:      CUDA0 compute buffer size = {mib['mtp_compute']:.2f} MiB",
    ]  # fmt: skip
    (tmp_path / "mtp.log").write_text("\n".join(lines))
    found = vp.verify("qwen3.6-27b", str(tmp_path / "mtp.log"))
    assert "mtp=true" in found.command and {line.name for line in found.lines if line.error == 0} >= {
        "weights", "kv_cache", "state", "compute", "mtp_kv_cache", "mtp_compute", "total",
    }  # fmt: skip
    assert found.within(0.0001)
    other = vp.verify("qwen2.5-7b-instruct", str(tmp_path / "mtp.log"))  # a model without them is compared without
    assert "mtp" not in other.command and "--set mtp=true" in by_name(other)["mtp_compute", 0].why
