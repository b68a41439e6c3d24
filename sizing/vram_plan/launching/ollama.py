"""Ollama: `ollama run`, and the server's settings where they are not its own (envconfig/config.go)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vram_plan_data import ROOT

from ..engines import Work
from ..engines.ollama import default_context, tag_format
from ..hardware.device import Device
from ..models.model import Model
from ..results import LaunchCommand
from .shared import flag, is_path, line, name

__all__ = ["commands"]


def commands(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    """The server's settings, where they are not its defaults, then the model; its context is set inside, or for the server."""
    env = _env(work, figures)
    tag, note = _model(model, work)
    inside = [f"/set parameter num_ctx {work.context}"] if not env and default_context(devices) != work.context else []
    if work.option("ubatch") is not None:
        inside.append(f"/set parameter num_batch {figures.get('n_ubatch')}")
    told = figures.get("n_gpu_layers", 0) < figures.get("n_layers", 0) or figures.get("num_gpu")
    if told and devices:
        inside.append(f"/set parameter num_gpu {figures.get('n_gpu_layers')}")
    if figures.get("n_cpu_moe"):
        note += f"{'; ' * bool(note)}Ollama has no setting that keeps experts alone in RAM: llama-server does (--n-cpu-moe)"
    run = LaunchCommand("ollama", line(("ollama", "run", tag)), {}, "; ".join((*inside, *((note,) if note else ()))))
    if not env:
        return (run,)
    settings = {"OLLAMA_CONTEXT_LENGTH": str(work.context), **env}
    return LaunchCommand("ollama", "ollama serve", settings, "the server's settings, before the model is run"), run


def _env(work: Work, figures: Mapping[str, Any]) -> dict[str, str]:
    env = {}
    if work.sequences > 1:
        env["OLLAMA_NUM_PARALLEL"] = str(figures.get("n_parallel", work.sequences))
    if work.kv_k != "f16":
        env["OLLAMA_KV_CACHE_TYPE"] = work.kv_k
    if work.option("flash_attn") is not None or work.kv_v not in ("f16", "bf16", "f32"):
        env["OLLAMA_FLASH_ATTENTION"] = "1" if figures.get("flash_attn", True) else "0"
    if flag(work, "spread"):
        env["OLLAMA_SCHED_SPREAD"] = "1"
    return env


@lru_cache(maxsize=1)
def _library() -> dict[str, dict[str, str]]:
    with (ROOT / "ollama_library.csv").open(encoding="utf-8", newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def _model(model: Model, work: Work) -> tuple[str, str]:
    """The tag whose file has the planned format, else a file to make a model of; and what to say about it."""
    format = work.format.name
    if model.ollama_tag and (model.is_gguf or tag_format(model.ollama_tag) == format):
        return name(model.ollama_tag), ""
    if model.is_gguf and is_path(model):
        return "vram-plan-model", f"first: ollama create vram-plan-model -f Modelfile, its one line being: FROM {name(model.reference)}"
    if model.is_gguf:
        return name(f"hf.co/{model.name.split(':')[0]}:{format}"), ""
    row = _library().get(model.name)
    if row and row["format"] == format:
        return row["tag"], ""
    if row and format in row["variants"].split():
        return row["variant"].replace("{q}", _tag_spelling(format)), ""
    first = "first: ollama create vram-plan-model -f Modelfile, with FROM model.gguf"
    return "vram-plan-model", "; ".join((f"no tag is known in {format}", first))


def _tag_spelling(format: str) -> str:
    """As tags spell formats: q4_K_M, q8_0, fp16."""
    return {"F16": "fp16", "BF16": "bf16"}.get(format, "q" + format[1:] if format.startswith("Q") else format.lower())
