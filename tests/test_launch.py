"""Commands: the engines' real flags, the plan's own figures, and names that would run something else."""

from __future__ import annotations

import ast
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.engines.ollama import tag_format
from vram_plan.launching.ollama import _library

FLAGS = {name: set(row["flags"].split()) for name, row in json.loads((Path(__file__).parent / "data" / "flags.json").read_text()).items()}
HOSTILE = ["a; rm -rf ~", "$(id)", "`id`", "it's", 'a"b', "--help", "-rf", "x\ny", "🦙 y", "a\x00b", "../../x", "%s", "{x}"]
EVERYTHING: dict[str, dict[str, Any]] = {
    "llama.cpp": {"swa_full": True, "ubatch": 256, "batch": 1024, "mmproj": True, "backend": "cpu"},
    "vllm": {"max_num_seqs": 32, "max_num_batched_tokens": 4096, "block_size": 32, "enforce_eager": True, "prefix_caching": False,
             "speculative_tokens": 2, "max_model_len": 32768},
    "sglang": {"max_num_seqs": 32, "max_num_batched_tokens": 4096, "block_size": 64, "enforce_eager": True, "prefix_caching": False,
               "speculative_tokens": 2, "max_model_len": 32768},
}  # fmt: skip


def commands(model: str | vp.Model, **request: Any) -> list[str]:
    return [command.command for command in vp.plan(model, **request).launch]


def value(command: str, flag: str) -> str:
    words = shlex.split(command)
    return words[words.index(flag) + 1]


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm", "sglang"])
@pytest.mark.parametrize(
    "request_",
    [
        {"gpus": "H100"}, {"gpus": "2x RTX 3090", "sequences": 8}, {"gpus": "2 nodes x 8xH100", "expert_parallel": True}, {},
        {"gpus": "H100", "everything": True}, {"gpus": "H100", "offload": "experts"}, {"gpus": "H100", "packed": True},
    ],
)  # fmt: skip
def test_every_flag_is_one_the_engine_has(engine: str, request_: dict[str, Any]) -> None:
    given = dict(request_)
    if given.pop("everything", False):
        given["options"] = EVERYTHING[engine]
    if given.pop("packed", False):
        given["kv_type"] = "q8_0" if engine == "llama.cpp" else "fp8"
    if engine != "llama.cpp":
        given.pop("offload", None)
    else:
        given.pop("expert_parallel", None)
    for command in vp.plan("qwen3-30b-a3b", engine=engine, context=16384, **given).launch:
        flags = {word.split("=")[0] for word in shlex.split(command.command) if word.startswith("-") and not word.lstrip("-").isdigit()}
        if command.command.startswith("ray "):
            assert flags <= {"--head", "--port", "--address"}
        else:
            assert flags - ({"-m"} if engine == "sglang" else set()) <= FLAGS[engine]


def test_vllm_is_told_the_plan() -> None:
    (command,) = commands("llama3-8b", engine="vllm", gpus="4x H100", context=8192, quant="FP8", kv_type="fp8", tensor_parallel=4)
    words = shlex.split(command)
    assert words[:3] == ["vllm", "serve", "meta-llama/Meta-Llama-3-8B"]
    assert (value(command, "--max-model-len"), value(command, "--tensor-parallel-size")) == ("8192", "4")
    assert (value(command, "--quantization"), value(command, "--kv-cache-dtype")) == ("fp8", "fp8")


def test_a_format_vllm_cannot_make_is_said() -> None:
    plan = vp.plan("llama3-8b", engine="vllm", gpus="H100", context=8192, quant="AWQ")
    assert "--quantization" not in plan.launch[0].command and "AWQ" in plan.launch[0].note
    assert vp.plan("llama3-8b", engine="vllm", gpus="H100", context=8192).launch[0].note == ""


def test_bitsandbytes_is_a_plug_in_of_newer_vllm() -> None:
    new, old = (vp.plan("llama3-8b", engine="vllm", gpus="H100", quant="NF4", options=o).launch[0] for o in ({}, {"version": "0.19"}))
    for launch in (new, old):
        assert value(launch.command, "--quantization") == value(launch.command, "--load-format") == "bitsandbytes"
    assert "vllm-bnb-plugin" in new.note and "plugin" not in old.note
    assert "vllm-gguf-plugin" in vp.plan("llama3-8b", engine="vllm", gpus="H100", quant="Q4_K_M").launch[0].note


def test_vllm_is_told_what_it_would_not_take_by_itself() -> None:
    plain = shlex.split(commands("llama3-8b", engine="vllm", gpus="H100", context=8192, sequences=8)[0])
    assert not {"--max-num-seqs", "--max-num-batched-tokens", "--dtype", "--trust-remote-code"} & set(plain)
    (many,) = commands("llama3-8b", engine="vllm", gpus="RTX 4090", context=512, sequences=300)
    assert (
        value(many, "--max-num-seqs")
        == "300"
        == str(vp.plan("llama3-8b", engine="vllm", gpus="RTX 4090", context=512, sequences=300).engine["max_num_seqs"])
    )
    (few,) = commands(
        "llama3-8b", engine="vllm", gpus="RTX 4090", context=512, options={"max_num_batched_tokens": 128, "enforce_eager": True}
    )
    assert (value(few, "--max-num-batched-tokens"), value(few, "--max-num-seqs")) == ("128", "128") and "--enforce-eager" in few
    (half,) = commands("llama3-8b", engine="vllm", gpus="RTX 4090", context=512, quant="F16")
    assert value(half, "--dtype") == "float16"
    old = vp.plan("llama3-8b", engine="vllm", gpus="H100", context=512, options={"version": "0.8.5"}).launch[0]
    assert "vLLM 0.8.5" in old.note and value(old.command, "--gpu-memory-utilization") == "0.9"
    (given,) = commands("llama3-8b", engine="vllm", gpus="H100", context=512, options={"kv_cache_memory_bytes": 1 << 33})
    assert value(given, "--kv-cache-memory-bytes") == str(1 << 33) and "--gpu-memory-utilization" not in given


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers"])
def test_code_a_checkpoint_brings_is_allowed(engine: str) -> None:
    base = vp.load("llama3-8b")
    own = replace(base, config={**(base.config or {}), "auto_map": {"AutoModelForCausalLM": "modeling_x.X"}})
    word = "trust_remote_code=True" if engine == "transformers" else "--trust-remote-code"
    assert all(word in command for command in commands(own, engine=engine, context=4096, gpus="H100"))
    assert not any(word in command for command in commands(base, engine=engine, context=4096, gpus="H100"))


def test_several_machines_get_ray_or_a_line_each() -> None:
    ray = commands("deepseek-v3", engine="vllm", gpus="2 nodes x 8xH100", context=8192)
    assert [shlex.split(command)[:2] for command in ray] == [["ray", "start"], ["ray", "start"], ["vllm", "serve"]]
    assert value(ray[2], "--distributed-executor-backend") == "ray"
    options = {"data_parallel": 16}
    copies = commands("deepseek-v3", engine="vllm", gpus="2 nodes x 8xH200", context=8192, expert_parallel=True, options=options)[-1]
    assert (value(copies, "--data-parallel-size"), value(copies, "--data-parallel-backend")) == ("16", "ray")
    lines = commands("deepseek-v3", engine="sglang", gpus="2 nodes x 8xH100", context=8192)
    assert [value(line, "--node-rank") for line in lines] == ["0", "1"]
    assert {(value(line, "--nnodes"), value(line, "--tp-size"), value(line, "--pp-size")) for line in lines} == {("2", "8", "2")}


def test_sglang_is_given_the_share_that_was_planned() -> None:
    plan = vp.plan("llama3-8b", engine="sglang", gpus="H100", context=8192)
    assert float(value(plan.launch[0].command, "--mem-fraction-static")) == pytest.approx(plan.engine["mem_fraction_static"], abs=1e-4)
    fixed = vp.plan("llama3-8b", engine="sglang", gpus="H100", context=8192, options={"kv_cache_memory_bytes": 2**33})
    assert int(value(fixed.launch[0].command, "--max-total-tokens")) == 2**33 // 131_072


def test_llama_server_is_told_cells_and_layers() -> None:
    plan = vp.plan("llama3-8b", engine="llama.cpp", bits=4, gpus="2x RTX 3090", context=16384, sequences=4, kv_type="q8_0")
    (command,) = [c.command for c in plan.launch]
    assert (value(command, "-c"), value(command, "-np"), value(command, "-ctk")) == ("65536", "4", "q8_0")
    assert "--no-kv-unified" in command and value(command, "-ngl") == str(plan.engine["n_gpu_layers"])
    assert sum(map(int, value(command, "-ts").split(","))) == 33


def test_llama_server_is_told_of_the_tower_and_of_no_gpu() -> None:
    (plain,), (seeing,) = (commands("gemma3-4b", engine="llama.cpp", bits=4, context=4096, options={"mmproj": m}) for m in (False, True))
    assert "mmproj" not in plain and value(seeing, "--mmproj") == "mmproj.gguf"
    (alone,) = commands("llama3-8b", engine="llama.cpp", bits=4, context=4096, gpus="RTX 4060", options={"backend": "cpu"})
    assert (value(alone, "-ngl"), value(alone, "--device")) == ("0", "none")


def test_ollama_is_told_the_layers_it_would_place_elsewhere() -> None:
    plan = vp.plan("llama3-8b", engine="ollama", quant="Q8_0", context=8192, gpus="RTX 4060", offload="20 layers")
    assert f"/set parameter num_gpu {plan.engine['n_gpu_layers']}" in plan.launch[-1].note
    assert "num_gpu" not in vp.plan("llama3-8b", engine="ollama", bits=4, context=8192, gpus="RTX 4060").launch[-1].note
    apart = vp.plan("qwen3-30b-a3b", engine="ollama", bits=4, context=8192, gpus="RTX 4060", offload="experts").launch[-1]
    assert "--n-cpu-moe" in apart.note
    spread = vp.plan("llama3-8b", engine="ollama", bits=4, context=8192, gpus="2x RTX 3090", options={"spread": True}).launch
    assert spread[0].env["OLLAMA_SCHED_SPREAD"] == "1" and spread[0].command == "ollama serve"


def test_ollama_is_told_the_context() -> None:
    (run,) = vp.plan("llama3-8b", bits=4, context=16384, gpus="RTX 4060").launch
    assert (run.command, run.note) == ("ollama run llama3:8b-instruct-q4_K_M", "/set parameter num_ctx 16384")
    (own,) = vp.plan("llama3-8b", bits=4, context=4096, gpus="RTX 4060").launch
    assert own.note == ""


def test_ollama_serve_gets_what_the_session_cannot_set() -> None:
    serve, run = vp.plan("llama3-8b", engine="ollama", bits=8, context=16384, gpus="RTX 4090", sequences=4, kv_type="q8_0").launch
    assert serve.command == "ollama serve" and run.command == "ollama run llama3:8b-instruct-q8_0"
    assert dict(serve.env) == {
        "OLLAMA_CONTEXT_LENGTH": "16384", "OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "quant", "tag"),
    [
        ("llama3-8b", "Q4_0", "llama3:8b"), ("llama3.1-8b", "Q4_K_M", "llama3.1:8b"), ("gpt-oss-20b", "MXFP4", "gpt-oss:20b"),
        ("qwen3-8b", "Q8_0", "qwen3:8b-q8_0"), ("gemma3-27b", "F16", "gemma3:27b-it-fp16"), ("qwen3-8b", "IQ4_XS", "vram-plan-model"),
    ],
)  # fmt: skip
def test_the_tag_has_the_planned_format(model: str, quant: str, tag: str) -> None:
    (run,) = vp.plan(model, engine="ollama", quant=quant, context=4096, gpus="RTX 4060").launch
    assert shlex.split(run.command) == ["ollama", "run", tag]
    assert tag == "vram-plan-model" or tag_format(tag) == quant


def test_every_tag_of_the_table_has_the_format_its_row_says() -> None:
    rows = _library()
    assert len(rows) > 60
    for row in rows.values():
        assert row["source"] and tag_format(row["tag"]) == row["format"]
        assert bool(row["variant"]) == bool(row["variants"]) and all(q == q.upper() for q in row["variants"].split())


@pytest.mark.parametrize("request_", [{"bits": 4}, {"bits": 8}, {}, {"options": {"cache": "static"}}, {"gpus": "2x RTX 3090"}])
def test_the_snippet_is_python(request_: dict[str, Any]) -> None:
    (command,) = commands("llama3-8b", engine="transformers", context=8192, **request_)
    tree = ast.parse(command)
    calls = {ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    load = calls["AutoModelForCausalLM.from_pretrained"]
    assert ast.literal_eval(load.args[0]) == "meta-llama/Meta-Llama-3-8B"
    assert ("quantization_config" in {k.arg for k in load.keywords}) == ("bits" in request_)
    assert ("BitsAndBytesConfig" in calls) == ("bits" in request_)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("engine", ["ollama", "llama.cpp", "vllm", "sglang", "transformers"])
@pytest.mark.parametrize("kind", ["name", "path", "tag", "gguf"])
def test_hostile_names_stay_one_word(name: str, engine: str, kind: str) -> None:
    base = vp.load("llama3-8b")
    model = {
        "name": replace(base, name=name, reference=name),
        "path": replace(base, name="x", reference=name, source=name),
        "tag": replace(base, ollama_tag=name),
        "gguf": replace(base, name=f"{name}/x", reference=name, is_gguf=True, revision=name),
    }[kind]
    quant = "Q4_0" if engine in ("ollama", "llama.cpp") else None
    for command in vp.plan(model, engine=engine, context=4096, gpus="H100", quant=quant).launch:
        if engine == "transformers":
            assert len(ast.parse(command.command).body) == 5
            continue
        words = shlex.split(command.command)
        plain = shlex.split(vp.plan(base, engine=engine, context=4096, gpus="H100").launch[-1].command)
        assert "\n" not in command.command and "\x00" not in command.command
        assert words[0] == plain[0] and {"id", "rm", ";", "~"}.isdisjoint(words)
        assert not any(word in ("--help", "-rf") for word in words)


def test_commands_need_no_gpu() -> None:
    for engine in ("ollama", "llama.cpp", "vllm", "sglang", "transformers"):
        assert commands("llama3-8b", engine=engine, context=4096)
