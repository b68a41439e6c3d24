"""What a running server says of itself: Ollama, llama-server, vLLM and SGLang, told apart by the pages they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ..errors import EngineError
from ..models.json_guard import shown
from ..units import GIB
from .http import Server
from .llamacpp_load import file_type
from .values import Figure, Observation, Seen, Unit

__all__ = ["observe_server"]


def observe_server(server: Server, wanted: tuple[str, ...], engine: str | None = None) -> Observation:
    """What the server at hand tells. `wanted` are names the plan's model goes by, for an Ollama that holds several.

    Raises EngineError where no engine answers, or none has the model; FormatError for replies that are not understood.
    """
    props = server.json("/props")
    if isinstance(props, dict) and ("default_generation_settings" in props or "total_slots" in props):
        return _llama_server(server, props)
    version = server.json("/api/version")
    if isinstance(version, dict) and isinstance(version.get("version"), str):
        return _ollama(server, version["version"], wanted)
    models = server.json("/v1/models")
    if isinstance(models, dict) and isinstance(models.get("data"), list) and models["data"]:
        first = models["data"][0]
        if isinstance(first, dict):
            return _sglang(server, first) if first.get("owned_by") == "sglang" else _vllm(server, first)
    raise EngineError(f"{server.address} is no server of Ollama, llama.cpp, vLLM or SGLang", "is this its port?")


def _number(holder: Any, name: str, most: float = 1e18) -> int | None:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < most else None


def _text(holder: Any, name: str) -> str:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return "".join(c if c.isprintable() else "?" for c in value)[:200] if isinstance(value, str) else ""


# --- Ollama -----------------------------------------------------------------------------------------------------------


def _ollama(server: Server, version: str, wanted: tuple[str, ...]) -> Observation:
    """`/api/ps` tells what is loaded and how large, `/api/show` what it is (docs/api.md)."""
    loaded = server.json("/api/ps")
    models = loaded.get("models") if isinstance(loaded, dict) else None
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise EngineError(f"{server.address}/api/ps answered {shown(loaded)}, not a list of models")
    row = _chosen(server, models[:1000], wanted)
    name = _text(row, "name")
    info = server.json("/api/show", {"model": name}) if name else None
    figures, settings = _ollama_figures(row), _ollama_settings(row)
    facts = _ollama_facts(info)
    size, on_gpu = _number(row, "size") or 0, _number(row, "size_vram") or 0
    notes = [f"{100 * on_gpu / size:.0f} % of it is on the GPU; llama-server decided the split"] if 0 < on_gpu < size else []
    facts["name"] = name
    if count := facts.pop("parameters", None):
        figures.append(Figure("parameters", float(count), "parameters", None, 0.0, f"general.parameter_count {count:,}"))
    return Observation("ollama", server.address, version[:40], tuple(figures), tuple(settings), facts, (), (), tuple(notes))


def _chosen(server: Server, models: list[Any], wanted: tuple[str, ...]) -> Any:
    if not models:
        raise EngineError(f"the Ollama at {server.address} has no model loaded", "run it first: ollama run MODEL")
    ours = [row for row in models if _matches(_text(row, "name"), wanted)]
    if len(ours) == 1 or len(models) == 1:
        return (ours or models)[0]
    names = ", ".join(_text(row, "name") for row in models[:8])
    raise EngineError(f"the Ollama at {server.address} has {len(models)} models loaded: {names}", "name the one meant by its tag, as MODEL")


def _matches(name: str, wanted: tuple[str, ...]) -> bool:
    short = name.lower().removesuffix(":latest")
    return any(short == one.lower().removesuffix(":latest") for one in wanted)


def _ollama_figures(row: Any) -> list[Figure]:
    size, on_gpu = _number(row, "size"), _number(row, "size_vram")
    found = []
    if on_gpu:
        found.append(Figure("buffers", float(on_gpu), "bytes", None, 0.0, f"size_vram {on_gpu:,}"))
    if size and size != on_gpu:
        found.append(Figure("buffers_and_ram", float(size), "bytes", None, 0.0, f"size {size:,}"))
    return found


def _ollama_settings(row: Any) -> list[Seen]:
    found = []
    if length := _number(row, "context_length", 1 << 40):
        found.append(Seen("context", length, f"context_length {length}"))
    kind = file_type(_text(row.get("details"), "quantization_level"))
    if kind:
        found.append(Seen("quant", kind, f"quantization_level {kind}"))
    if _number(row, "size_vram") == 0 and _number(row, "size"):
        found.append(Seen("backend", "cpu", "size_vram 0"))
    return found


def _ollama_facts(info: Any) -> dict[str, Any]:
    keys = info.get("model_info") if isinstance(info, dict) else None
    if not isinstance(keys, dict):
        return {}
    arch = _text(keys, "general.architecture")
    names = {"layers": f"{arch}.block_count", "hidden_size": f"{arch}.embedding_length", "vocab_size": f"{arch}.vocab_size",
             "parameters": "general.parameter_count"}  # fmt: skip
    found: dict[str, Any] = {name: _number(keys, key) for name, key in names.items() if _number(keys, key)}
    return found | ({"architecture": arch} if arch else {})


# --- llama-server -----------------------------------------------------------------------------------------------------


def _llama_server(server: Server, props: Mapping[str, Any]) -> Observation:
    """`/props`, `/v1/models` and `/metrics` (tools/server/README.md). It tells no buffers; its log does."""
    figures, facts, settings = [], {}, []
    models = server.json("/v1/models")
    rows = models.get("data") if isinstance(models, dict) else None
    meta = rows[0].get("meta") if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None
    if size := _number(meta, "size"):
        figures.append(Figure("file_bytes", float(size), "bytes", None, 0.0, f"size {size:,}"))
    if count := _number(meta, "n_params"):
        figures.append(Figure("parameters", float(count), "parameters", None, 0.0, f"n_params {count:,}"))
    for name, key in (("hidden_size", "n_embd"), ("vocab_size", "n_vocab"), ("trained_context", "n_ctx_train")):
        if value := _number(meta, key):
            facts[name] = value
    slots, length = _number(props, "total_slots", 1 << 20), _number(props.get("default_generation_settings"), "n_ctx", 1 << 40)
    if length:
        settings.append(Seen("context", length, f"n_ctx {length} of each slot"))
    if kind := file_type(_text(props, "model_ftype")):
        settings.append(Seen("quant", kind, f"model_ftype {kind}"))
    path = _text(props, "model_path")
    notes = [f"{slots} slots of {length:,} tokens; whether they share one pool it does not tell"] if slots and slots > 1 and length else []
    notes.append("the server tells no buffers: give its log (llama-server -lv 4), or --against nvml, for the memory")
    notes += _llama_averages(server.text("/metrics") or "")
    build, named = _text(props, "build_info"), {"name": path.replace("\\", "/").split("/")[-1]}
    return Observation("llama.cpp", server.address, build or None, tuple(figures), tuple(settings), facts | named, (), (), tuple(notes))


def _llama_averages(metrics: str) -> list[str]:
    """What it did since it was started, as an average over requests of any length."""
    values = dict(re.findall(r"^llamacpp:(\w{1,60}) ([\d.e+]{1,24})$", metrics, re.MULTILINE))
    try:
        prompt, answer = float(values["prompt_tokens_seconds"]), float(values["predicted_tokens_seconds"])
        tokens = int(float(values["tokens_predicted_total"]))
    except (KeyError, ValueError, OverflowError):
        return []
    return [f"so far, on average: prefill {prompt:,.0f}, decode {answer:,.1f} tokens/s over {tokens:,} tokens"] if tokens else []


# --- vLLM and SGLang --------------------------------------------------------------------------------------------------

_LABELS: Final = re.compile(r"^vllm:cache_config_info\{(.{1,8000})\}", re.MULTILINE)
_COUNTS: Final[tuple[tuple[str, str, Unit], ...]] = (
    ("num_gpu_blocks", "num_blocks", "blocks"), ("kv_cache_size_tokens", "kv_tokens", "tokens"),
)  # fmt: skip
_LABEL: Final = re.compile(r'(\w{1,60})="([^"]{0,200})"')


def _vllm(server: Server, model: Mapping[str, Any]) -> Observation:
    """`/v1/models` and the cache's configuration in `/metrics` (v1/metrics/loggers.py)."""
    found = server.json("/version")
    version = _text(found, "version") or None
    labels = dict(_LABEL.findall(match[1])) if (match := _LABELS.search(server.text("/metrics") or "")) else {}
    figures, settings = _vllm_cache(labels)
    if length := _number(model, "max_model_len", 1 << 40):
        settings.append(Seen("context", length, f"max_model_len {length}"))
    if version and re.match(r"\d+\.\d+", version):
        settings.append(Seen("version", version.split("+")[0], f"version {version}"))
    notes = [] if labels else ["/metrics tells nothing of the cache: it may be switched off, or this is no vLLM"]
    name = _text(model, "root") or _text(model, "id")
    return Observation("vllm", server.address, version, tuple(figures), tuple(settings), {"name": name}, (), (), tuple(notes))


def _vllm_cache(labels: Mapping[str, str]) -> tuple[list[Figure], list[Seen]]:
    figures, settings = [], []
    for label, name, unit in _COUNTS:
        text = labels.get(label, "")
        if text.isascii() and text.isdigit() and len(text) < 16:
            figures.append(Figure(name, float(text), unit, None, 0.0, f'{label}="{text}"'))
    for label, name in (("block_size", "block_size"), ("gpu_memory_utilization", "gpu_memory_utilization"),
                        ("enable_prefix_caching", "prefix_caching"), ("kv_cache_memory_bytes", "kv_cache_memory_bytes")):  # fmt: skip
        text = labels.get(label, "None")
        if text not in ("None", "") and (value := _plain(text)) is not None:
            settings.append(Seen(name, value, f'{label}="{text}"'))
    if labels.get("cache_dtype", "auto").startswith("fp8"):
        settings.append(Seen("kv_type", "fp8", f'cache_dtype="{labels["cache_dtype"]}"'))
    return figures, settings


def _plain(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    if re.fullmatch(r"\d{1,15}", text):
        return int(text)
    return float(text) if re.fullmatch(r"\d{0,3}\.\d{1,9}", text) else None


def _sglang(server: Server, model: Mapping[str, Any]) -> Observation:
    """`/get_server_info`: its ServerArgs, the size of the pool, and what it holds in GiB (srt/entrypoints/http_server.py)."""
    info = server.json("/get_server_info") or {}
    names = {"tp_size": "tensor_parallel", "pp_size": "pipeline_parallel", "mem_fraction_static": "gpu_memory_utilization",
             "chunked_prefill_size": "max_num_batched_tokens", "page_size": "block_size"}  # fmt: skip
    settings = [
        Seen(name, info[key], f"{key} {info[key]}") for key, name in names.items()
        if isinstance(info.get(key), (int, float)) and not isinstance(info.get(key), bool) and info[key] > 0
    ]  # fmt: skip
    if length := _number(model, "max_model_len", 1 << 40):
        settings.append(Seen("context", length, f"max_model_len {length}"))
    figures = [Figure("kv_tokens", float(tokens), "tokens", None)] if (tokens := _number(info, "max_total_num_tokens")) else []
    states = info.get("internal_states")
    usage = states[0].get("memory_usage") if isinstance(states, list) and states and isinstance(states[0], dict) else None
    for key, name in (("weight", "weights"), ("kvcache", "kv_cache")):
        value = usage.get(key) if isinstance(usage, dict) else None
        if isinstance(value, (int, float)) and 0 < value < 1e5:
            figures.append(Figure(name, value * GIB, "bytes", 0, 0.005 * GIB, f"memory_usage.{key} {value}"))
    version = _text(info, "version") or None
    if version and re.match(r"\d+\.\d+", version):
        settings.append(Seen("version", version.split("+")[0], f"version {version}"))
    return Observation("sglang", server.address, version, tuple(figures), tuple(settings), {"name": _text(model, "id")})
