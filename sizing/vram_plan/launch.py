"""The command, and the environment, that starts exactly what was planned.

Everything that comes from outside (names, paths, tags) is quoted. Flags are those of llama.cpp 0c1e57098, Ollama 0.33,
vLLM 0.32, SGLang 0.5.23 and transformers 5.23; the tests compare them with the engines' own lists.
"""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from vram_plan_data import ROOT

from .engines import Allocation, Work
from .hardware.device import Device
from .models.model import Model
from .results import LaunchCommand

__all__ = ["launch"]

#: Stands for the first machine's address where there are several.
_HEAD: Final = "HEAD_IP"
#: Formats vLLM and SGLang make of a 16-bit checkpoint while loading it.
_ONLINE: Final = {
    "vllm": {"FP8": "fp8", "NF4": "bitsandbytes"},
    "sglang": {"FP8": "fp8", "FP8-CHANNEL": "w8a8_fp8", "NF4": "bitsandbytes"},
}
_SERVER_CACHE: Final = {"vllm": "fp8", "sglang": "fp8_e4m3"}


def launch(model: Model, work: Work, devices: tuple[Device, ...], allocation: Allocation) -> tuple[LaunchCommand, ...]:
    """Commands in the order they are run: one, or a line for each machine. `command` is one shell line, but Python for transformers."""
    return _ENGINES[work.engine](model, work, devices, allocation.figures)


def _line(words: Iterable[object]) -> str:
    return " ".join(shlex.quote(str(word)) for word in words)


def _name(text: str) -> str:
    """A name or path that no program takes for an option."""
    cleaned = "".join(c if c.isprintable() else "?" for c in text)
    return f"./{cleaned}" if cleaned.startswith("-") else cleaned


def _checkpoint(model: Model) -> str:
    """What engines that read the Hub or a folder are given: the Hub id, or the path."""
    return _name(model.reference if _is_path(model) else model.name.split(":")[0])


def _is_path(model: Model) -> bool:
    """Whether the model was read from a path: then that is its source, word for word."""
    return model.source == model.reference


# --- Ollama -----------------------------------------------------------------------------------------------------------


def _ollama(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    """The server's settings, where they are not its defaults, then the model; its context is set inside, or for the server."""
    from .engines.ollama import default_context  # here, so that a plan for vLLM does not load llama.cpp's rules

    env = _ollama_env(work, figures)
    tag, note = _ollama_model(model, work)
    inside = [f"/set parameter num_ctx {work.context}"] if not env and default_context(devices) != work.context else []
    if work.option("ubatch") is not None:
        inside.append(f"/set parameter num_batch {figures.get('n_ubatch')}")
    if work.option("n_gpu_layers") is not None or work.offload.endswith("layers"):
        inside.append(f"/set parameter num_gpu {figures.get('n_gpu_layers')}")
    run = LaunchCommand("ollama", _line(("ollama", "run", tag)), {}, "; ".join((*inside, *((note,) if note else ()))))
    if not env:
        return (run,)
    settings = {"OLLAMA_CONTEXT_LENGTH": str(work.context), **env}
    return LaunchCommand("ollama", "ollama serve", settings, "the server's settings, before the model is run"), run


def _ollama_env(work: Work, figures: Mapping[str, Any]) -> dict[str, str]:
    env = {}
    if work.sequences > 1:
        env["OLLAMA_NUM_PARALLEL"] = str(figures.get("n_parallel", work.sequences))
    if work.kv_k != "f16":
        env["OLLAMA_KV_CACHE_TYPE"] = work.kv_k
    if work.option("flash_attn") is not None or work.kv_v not in ("f16", "bf16", "f32"):
        env["OLLAMA_FLASH_ATTENTION"] = "1" if figures.get("flash_attn", True) else "0"
    return env


@lru_cache(maxsize=1)
def _library() -> dict[str, dict[str, str]]:
    with (ROOT / "ollama_library.csv").open(encoding="utf-8", newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def _ollama_model(model: Model, work: Work) -> tuple[str, str]:
    """The tag whose file has the planned format, else a file to make a model of; and what to say about it."""
    from .engines.ollama import tag_format

    format = work.format.name
    if model.ollama_tag and (model.is_gguf or tag_format(model.ollama_tag) == format):
        return _name(model.ollama_tag), ""
    if model.is_gguf and _is_path(model):
        return "vram-plan-model", f"first: ollama create vram-plan-model -f Modelfile, its one line being: FROM {_name(model.reference)}"
    if model.is_gguf:
        return _name(f"hf.co/{model.name.split(':')[0]}:{format}"), ""
    row = _library().get(model.name)
    if row and row["format"] == format:
        return row["tag"], ""
    if row and format in row["variants"].split():
        return row["variant"].replace("{q}", _tag_spelling(format)), ""
    return "vram-plan-model", f"no tag is known in {format}; first: ollama create vram-plan-model -f Modelfile, with FROM model.gguf"


def _tag_spelling(format: str) -> str:
    """As tags spell formats: q4_K_M, q8_0, fp16."""
    return {"F16": "fp16", "BF16": "bf16"}.get(format, "q" + format[1:] if format.startswith("Q") else format.lower())


# --- llama.cpp --------------------------------------------------------------------------------------------------------


def _llamacpp(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    parallel = figures.get("n_parallel", work.sequences)
    words: list[object] = ["llama-server", *_llamacpp_file(model, work)]
    words += ["-c", work.context * parallel, "-np", parallel]
    if parallel > 1:
        words.append("--kv-unified" if figures.get("kv_unified") else "--no-kv-unified")
    words += ["-ngl", figures.get("n_gpu_layers", 0), "-ub", figures.get("n_ubatch", 512), "-b", figures.get("n_batch", 2048)]
    words += ["-ctk", work.kv_k, "-ctv", work.kv_v, "-fa", "on" if figures.get("flash_attn", True) else "off"]
    if figures.get("n_cpu_moe"):
        words += ["--n-cpu-moe", figures["n_cpu_moe"]]
    if len(devices) > 1 and figures.get("n_gpu_layers"):
        words += ["-ts", _shares(figures)]
    if str(work.option("swa_full", "false")).lower() in ("true", "1", "yes", "on"):
        words.append("--swa-full")
    note = "" if model.is_gguf else f"model.gguf: this model as a GGUF in {work.format.name}"
    return (LaunchCommand("llama.cpp", _line(words), {}, note),)


def _shares(figures: Mapping[str, Any]) -> str:
    """Layers of each GPU; the output matrix counts as one more of the last that has any."""
    layers = list(figures["layers_per_device"])
    last = max((i for i, count in enumerate(layers) if count), default=len(layers) - 1)
    layers[last] += 1
    return ",".join(map(str, layers))


def _llamacpp_file(model: Model, work: Work) -> tuple[str, str]:
    if model.is_gguf and not _is_path(model) and "/" in model.name:
        return "-hf", _name(f"{model.name.split(':')[0]}:{work.format.name}")
    return "-m", _name(model.reference) if model.is_gguf and _is_path(model) else "model.gguf"


# --- vLLM -------------------------------------------------------------------------------------------------------------


def _vllm(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    tp, pp, nodes = _shape(work, devices, figures)
    words: list[object] = ["vllm", "serve", _checkpoint(model), *_revision(model)]
    words += ["--max-model-len", figures.get("max_model_len", work.context)]
    if work.option("kv_cache_memory_bytes") is not None:
        words += ["--kv-cache-memory-bytes", work.option("kv_cache_memory_bytes")]
    elif figures.get("gpu_memory_utilization") is not None:
        words += ["--gpu-memory-utilization", figures["gpu_memory_utilization"]]
    words += [*_size("--tensor-parallel-size", tp), *_size("--pipeline-parallel-size", pp)]
    words += _given(work, figures, (("max_num_seqs", "--max-num-seqs"), ("max_num_batched_tokens", "--max-num-batched-tokens")))
    words += _given(work, {}, (("block_size", "--block-size"),))
    words += ["--enable-expert-parallel"] if work.expert_parallel else []
    words += _cache_type("vllm", work) + _quantization("vllm", model, work) + _switch(work, "enforce_eager", "--enforce-eager", True)
    words += _switch(work, "prefix_caching", "--no-enable-prefix-caching", False)
    if work.option("speculative_tokens"):
        words += ["--speculative-config", json.dumps({"method": "mtp", "num_speculative_tokens": int(work.option("speculative_tokens"))})]
    if nodes > 1:
        words += ["--distributed-executor-backend", "ray"]
    serve = LaunchCommand("vllm", _line(words), {}, _format_note("vllm", model, work))
    return (*_ray(nodes), serve) if nodes > 1 else (serve,)


def _ray(nodes: int) -> tuple[LaunchCommand, ...]:
    others = f"on each of the other {nodes - 1} machines" if nodes > 2 else "on the other machine"
    return (
        LaunchCommand("vllm", "ray start --head --port=6379", {}, "on the first machine"),
        LaunchCommand("vllm", f"ray start --address={_HEAD}:6379", {}, f"{others}; {_HEAD}: the first one's address"),
    )


# --- SGLang -----------------------------------------------------------------------------------------------------------


def _sglang(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    tp, pp, nodes = _shape(work, devices, figures)
    words: list[object] = ["python", "-m", "sglang.launch_server", "--model-path", _checkpoint(model), *_revision(model)]
    words += ["--context-length", figures.get("max_model_len", work.context), *_size("--tp-size", tp), *_size("--pp-size", pp)]
    if work.option("kv_cache_memory_bytes") is not None and figures.get("kv_tokens"):
        words += ["--max-total-tokens", figures["kv_tokens"]]
    elif devices:
        words += ["--mem-fraction-static", round(figures["mem_fraction_static"], 4)]
    names = {"max_num_seqs": "--max-running-requests", "max_num_batched_tokens": "--chunked-prefill-size", "block_size": "--page-size"}
    words += _given(work, {}, names.items()) + _cache_type("sglang", work) + _quantization("sglang", model, work)
    words += ["--ep-size", tp] if work.expert_parallel and tp > 1 else []
    words += _switch(work, "enforce_eager", "--disable-cuda-graph", True) + _switch(work, "prefix_caching", "--disable-radix-cache", False)
    if work.option("speculative_tokens"):
        words += ["--speculative-algorithm", "NEXTN", "--speculative-num-draft-tokens", work.option("speculative_tokens")]
    note = _format_note("sglang", model, work)
    if nodes == 1:
        return (LaunchCommand("sglang", _line(words), {}, note),)
    places = (("--dist-init-addr", f"{_HEAD}:5000", "--nnodes", nodes, "--node-rank", rank) for rank in range(nodes))
    return tuple(
        LaunchCommand("sglang", _line((*words, *place)), {}, f"on machine {rank + 1} of {nodes}; {_HEAD}: the first one's address")
        for rank, place in enumerate(places)
    )


# --- what vLLM and SGLang share ---------------------------------------------------------------------------------------


def _shape(work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tensor and pipeline parallelism, and the machines they need."""
    tp, pp = figures.get("tensor_parallel", work.tensor_parallel), figures.get("pipeline_parallel", work.pipeline_parallel)
    return tp, pp, max(len({device.node for device in devices[: tp * pp]}), 1)


def _size(flag: str, count: int) -> list[object]:
    return [flag, count] if count > 1 else []


def _given(work: Work, figures: Mapping[str, Any], names: Iterable[tuple[str, str]]) -> list[object]:
    """Options that were given, and those the sequences asked for raise above the engine's default."""
    words: list[object] = []
    for name, flag in names:
        value = work.option(name)
        if value is None and name == "max_num_seqs" and figures.get(name) == work.sequences:
            value = work.sequences
        words += [] if value is None else [flag, value]
    return words


def _switch(work: Work, option: str, flag: str, when: bool) -> list[object]:
    value = work.option(option)
    return [flag] if value is not None and (str(value).strip().lower() in ("true", "1", "yes", "on")) == when else []


def _cache_type(engine: str, work: Work) -> list[object]:
    return ["--kv-cache-dtype", _SERVER_CACHE[engine]] if work.kv_k == "fp8" else []


def _revision(model: Model) -> list[object]:
    return ["--revision", _name(model.revision)] if model.revision and not _is_path(model) else []


def _quantization(engine: str, model: Model, work: Work) -> list[object]:
    online = _ONLINE[engine].get(work.format.name)
    return ["--quantization", online] if online and _plain(model) and work.format.name != model.stored_format else []


def _plain(model: Model) -> bool:
    return model.stored_format in ("BF16", "F16", "F32")


def _format_note(engine: str, model: Model, work: Work) -> str:
    """Said where the checkpoint named is not in the planned format and the engine does not convert it."""
    wanted, stored = work.format.name, model.stored_format
    if wanted == stored or _quantization(engine, model, work) or {wanted, stored} <= {"BF16", "F16"}:
        return ""
    return f"this checkpoint is in {stored}: name one in {wanted} instead"


# --- transformers -----------------------------------------------------------------------------------------------------


def _transformers(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    """Python that loads the model as planned and generates up to the context."""
    load = [repr(_checkpoint(model)), *([f"revision={model.revision!r}"] if _revision(model) else []), f"dtype={_dtype(model, work)!r}"]
    load.append('device_map="auto"' if len(devices) > 1 or work.offload.endswith("layers") else "device_map=0")
    packed = _PACKED.get(work.format.name) if work.format.name != model.stored_format else None
    if packed:
        load.append(f"quantization_config=BitsAndBytesConfig({packed})")
    attention = {"flash": "flash_attention_2"}.get(figures.get("attention", "sdpa"), figures.get("attention", "sdpa"))
    load.append(f"attn_implementation={attention!r}")
    static = ', cache_implementation="static"' if figures.get("cache") == "static" else ""
    kind = "AutoModelForImageTextToText" if model.parameters.vision else "AutoModelForCausalLM"
    lines = [
        f"from transformers import {kind}, AutoTokenizer{', BitsAndBytesConfig' if packed else ''}",
        f"model = {kind}.from_pretrained({', '.join(load)})",
        f"tokenizer = AutoTokenizer.from_pretrained({_checkpoint(model)!r})",
        f'prompts = tokenizer(["…"] * {work.sequences}, return_tensors="pt").to(model.device)',
        f"answer = model.generate(**prompts, max_length={work.context}{static})",
    ]
    note = "Python" if packed or not _format_note("vllm", model, work) else f"Python; {_format_note('vllm', model, work)}"
    return (LaunchCommand("transformers", "\n".join(lines), {}, note),)


_PACKED: Final = {
    "NF4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4"',
    "NF4-DQ": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True',
    "INT8": "load_in_8bit=True",
}


def _dtype(model: Model, work: Work) -> str:
    stored = work.format.name if work.format.family == "dtype" else model.architecture.dtype
    return {"F32": "float32", "F16": "float16"}.get(stored, "bfloat16")


_ENGINES: Final[Mapping[str, Callable[[Model, Work, tuple[Device, ...], Mapping[str, Any]], tuple[LaunchCommand, ...]]]] = {
    "ollama": _ollama,
    "llama.cpp": _llamacpp,
    "vllm": _vllm,
    "sglang": _sglang,
    "transformers": _transformers,
}
