"""llama.cpp: `llama-server`. Flags: common/arg.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engines import Work
from ..engines.llamacpp.draft import draft_model, draft_work
from ..hardware.device import Device
from ..models.model import Model
from ..results import LaunchCommand
from .shared import flag, is_path, line, name, switch

__all__ = ["commands"]


def commands(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    """One llama-server, told every size the plan has."""
    parallel = figures.get("n_parallel", work.sequences)
    words: list[object] = ["llama-server", *_file(model, work)]
    words += ["-c", work.context * parallel, "-np", parallel]
    if parallel > 1:
        words.append("--kv-unified" if figures.get("kv_unified") else "--no-kv-unified")
    words += ["-ngl", figures.get("n_gpu_layers", 0), "-ub", figures.get("n_ubatch", 512), "-b", figures.get("n_batch", 2048)]
    words += ["-ctk", work.kv_k, "-ctv", work.kv_v, "-fa", "on" if figures.get("flash_attn", True) else "off"]
    if figures.get("n_cpu_moe"):
        words += ["--n-cpu-moe", figures["n_cpu_moe"]]
    if len(devices) > 1 and figures.get("n_gpu_layers"):
        words += ["-ts", _shares(figures)]
    words += switch(work, "swa_full", "--swa-full", True) + _tower(model, work)
    words += _draft(work, figures)
    if figures.get("backend") == "cpu":
        words += ["--device", "none"]
    note = "" if model.is_gguf else f"model.gguf: this model as a GGUF in {work.format.name}"
    return (LaunchCommand("llama.cpp", line(words), {}, note),)


def _shares(figures: Mapping[str, Any]) -> str:
    """Layers of each GPU; the output matrix counts as one more where it is."""
    return ",".join(str(count + (i == figures["output_device"])) for i, count in enumerate(figures["layers_per_device"]))


def _file(model: Model, work: Work) -> tuple[str, str]:
    if model.is_gguf and not is_path(model) and "/" in model.name:
        return "-hf", name(f"{model.name.split(':')[0]}:{work.format.name}")
    return "-m", name(model.reference) if model.is_gguf and is_path(model) else "model.gguf"


def _draft(work: Work, figures: Mapping[str, Any]) -> list[object]:
    """What drafts tokens: a smaller model's file, or the prediction layers in the model's own."""
    if not figures.get("draft"):
        return []
    draft = draft_model(work.option("draft"))
    if draft is None:
        return ["--spec-type", "draft-mtp"]
    option, file = _file(draft, draft_work(work, draft))
    named = file if draft.is_gguf else "draft.gguf"
    return ["--spec-type", "draft-simple", "-hfd" if option == "-hf" else "-md", named]


def _tower(model: Model, work: Work) -> list[object]:
    """The file of the vision or audio tower: with -hf it is loaded unless it is declined."""
    from_hub = _file(model, work)[0] == "-hf"
    if not flag(work, "mmproj"):
        return ["--no-mmproj"] if from_hub and model.parameters.vision + model.parameters.audio else []
    return [] if from_hub else ["--mmproj", "mmproj.gguf"]
