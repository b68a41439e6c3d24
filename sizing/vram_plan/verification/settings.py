"""The settings an engine runs with, taken into the request of a plan; what the user asked for stays as it is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any, Final

from ..errors import UsageError
from ..models.model import Model
from ..results import Plan
from .values import Observation, Seen, Setting

__all__ = ["command_line", "gpus_text", "merged", "planned"]

#: Settings that `plan` takes as arguments of their own; the others are the engine's options.
REQUEST: Final = (
    "context", "sequences", "kv_type", "kv_type_k", "kv_type_v", "tensor_parallel", "pipeline_parallel", "expert_parallel", "quant",
)  # fmt: skip
#: What the engines take themselves: not repeated in a request.
_LLAMA: Final = {"backend": "cuda", "flash_attn": True, "kv_unified": False, "logits": "last", "kv_type_k": "f16", "kv_type_v": "f16",
                 "sequences": 1}  # fmt: skip
_SERVER: Final = {"tensor_parallel": 1, "pipeline_parallel": 1, "enforce_eager": False}
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama.cpp": {**_LLAMA, "ubatch": 512, "batch": 2048, "mmproj": False}, "ollama": {**_LLAMA, "mmproj": True},
    "vllm": {**_SERVER, "expert_parallel": False}, "sglang": {**_SERVER, "prefix_caching": True},
}  # fmt: skip
_SIXTEEN_BITS: Final = ("BF16", "F16", "F32")
_GGUF_ENGINES: Final = ("llama.cpp", "ollama")
_OPTIONS_OF: Final = {"context": "--ctx", "sequences": "--parallel", "tensor_parallel": "--tp", "pipeline_parallel": "--pp",
                      "quant": "--quant", "bits": "--bits", "kv_type": "--kv", "kv_type_k": "--kv-k", "kv_type_v": "--kv-v",
                      "offload": "--offload", "prompt": "--prompt", "output": "--output"}  # fmt: skip


def merged(model: Model, asked: Mapping[str, Any], seen: Observation) -> tuple[dict[str, Any], tuple[Setting, ...]]:
    """The request with the engine's settings wherever the user said nothing, and both sides of each setting."""
    given = {name: value for name, value in asked.items() if value is not None and value != {}}
    options = dict(given.pop("options", {}) or {})
    request: dict[str, Any] = {**given, "engine": given.get("engine", seen.engine)}
    settings = []
    for item in _usable(model, given, seen):
        mine = _asked_for(item.name, given, options)
        taken = mine is None or _same(mine, item.value)
        if mine is None and _DEFAULTS.get(seen.engine, {}).get(item.name) != item.value:
            (request if item.name in REQUEST else options)[item.name] = item.value
        settings.append(Setting(item.name, mine, item.value, taken, item.line))
    return {**request, "options": options}, tuple(settings)


def _usable(model: Model, given: Mapping[str, Any], seen: Observation) -> list[Seen]:
    """What was seen, in the words of `plan`: the pool's length where less context was asked for, a format where the model is no file."""
    found = []
    server = seen.engine in ("vllm", "sglang")
    for item in seen.settings:
        if item.name == "context" and server and "context" in given:
            found.append(Seen("max_model_len", item.value, item.line))
        elif item.name == "online_quant":
            if model.stored_format in _SIXTEEN_BITS and not {"quant", "bits"} & set(given):
                found.append(Seen("quant", item.value, item.line))
        elif not _foreign(item.name, model, given, seen):
            found.append(item)
    return found


def _foreign(name: str, model: Model, given: Mapping[str, Any], seen: Observation) -> bool:
    """Whether the plan cannot take this setting: a file's own format, prediction layers that are not known."""
    if name == "quant":
        return seen.engine in _GGUF_ENGINES and (model.is_gguf or "bits" in given)
    return name == "mtp" and (seen.engine != "llama.cpp" or not _predicts(model))


def _predicts(model: Model) -> bool:
    """Whether the plan knows this model's prediction layers."""
    from ..engines.llamacpp.draft import predictor

    try:
        return bool(predictor(model))
    except UsageError:
        return False


def _asked_for(name: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    if name in ("kv_type_k", "kv_type_v"):
        return given.get(name, given.get("kv_type"))
    return given.get(name) if name in REQUEST else options.get(name)


def _same(mine: Any, engine: Any) -> bool:
    from ..units import parse_tokens

    if isinstance(engine, int) and not isinstance(engine, bool):
        try:
            return parse_tokens(mine) == engine
        except UsageError:
            return False
    return str(mine).strip().lower() == str(engine).strip().lower()


def gpus_text(names: tuple[str, ...]) -> str:
    """The cards of a log as `--gpu` takes them."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return " + ".join(f"{count}x {name}" if count > 1 else name for name, count in counts.items())


def planned(plan: Plan, seen: Observation) -> tuple[dict[str, Any], tuple[Setting, ...]]:
    """The request of a finished plan, and its settings beside those of the engine."""
    r, e = plan.request, plan.engine
    request = {
        "engine": r.engine, "context": r.context, "sequences": r.sequences, "quant": r.quant, "kv_type_k": r.kv_type_k,
        "kv_type_v": r.kv_type_v, "tensor_parallel": r.tensor_parallel, "pipeline_parallel": r.pipeline_parallel,
        "expert_parallel": r.expert_parallel, "options": dict(r.options),
    }  # fmt: skip
    known = {**e, "ubatch": e.get("n_ubatch"), "batch": e.get("n_batch"), **r.options, **request}
    settings = []
    for item in seen.settings:
        if (mine := known.get(item.name)) is not None:
            settings.append(Setting(item.name, mine, item.value, _same(mine, item.value), item.line))
    return request, tuple(settings)


def command_line(reference: str, request: Mapping[str, Any], settings: tuple[Setting, ...], gpus: str | None) -> str:
    """The `vram-plan` line that plans with the engine's settings, also where the user asked for something else."""
    fixed = {name: value for name, value in request.items() if name != "gpus"}
    options = dict(fixed.pop("options", {}) or {})
    for setting in settings:
        if not setting.taken:
            (fixed if setting.name in REQUEST else options)[setting.name] = setting.engine
    if fixed.get("kv_type_k") is not None and fixed.get("kv_type_k") == fixed.get("kv_type_v"):
        fixed["kv_type"] = fixed.pop("kv_type_k")
        fixed.pop("kv_type_v")
    words = ["vram-plan", reference, "--engine", str(fixed.get("engine"))]
    for name, flag in _OPTIONS_OF.items():
        if fixed.get(name) is not None:
            words += [flag, str(fixed[name])]
    words += ["--ep"] if fixed.get("expert_parallel") else []
    words += ["--gpu", gpus] if gpus else []
    for name, value in sorted(options.items()):
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return " ".join(shlex.quote("".join(c if c.isprintable() else "?" for c in word)) for word in words)
