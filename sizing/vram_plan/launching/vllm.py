"""vLLM: `vllm serve`, and Ray over several machines. Flags: engine/arg_utils.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ..engines import Work
from ..engines.vllm.versions import batch_defaults
from ..hardware.device import Device
from ..models.model import Model
from ..results import LaunchCommand
from .shared import (
    HEAD,
    cache_type,
    checkpoint,
    dtype,
    format_note,
    given,
    line,
    name,
    needs_remote_code,
    quantization,
    revision,
    shape,
    size,
    switch,
)  # fmt: skip

__all__ = ["commands"]

#: What bitsandbytes makes.
_BITSANDBYTES: Final = ("NF4", "NF4DQ", "BNB8")


def commands(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    """`vllm serve`, after the lines that join several machines."""
    tp, pp, nodes = shape(work, devices, figures)
    words: list[object] = ["vllm", "serve", checkpoint(model), *revision(model)]
    words += ["--max-model-len", figures.get("max_model_len", work.context)]
    if work.option("kv_cache_memory_bytes") is not None:
        words += ["--kv-cache-memory-bytes", work.option("kv_cache_memory_bytes")]
    elif figures.get("gpu_memory_utilization") is not None:
        words += ["--gpu-memory-utilization", figures["gpu_memory_utilization"]]
    words += [*size("--tensor-parallel-size", tp), *size("--pipeline-parallel-size", pp)]
    words += size("--data-parallel-size", figures.get("data_parallel", 1))
    words += _sequences(work, devices, figures)
    words += given(work, (("max_num_batched_tokens", "--max-num-batched-tokens"), ("block_size", "--block-size")))
    words += ["--enable-expert-parallel"] if work.expert_parallel else []
    words += ["--moe-backend", "marlin"] if work.option("moe_backend") == "marlin" else []
    words += _dtype(model, work) + cache_type("vllm", work) + quantization("vllm", model, work)
    words += ["--trust-remote-code"] if needs_remote_code(model) else []
    words += switch(work, "enforce_eager", "--enforce-eager", True)
    words += switch(work, "prefix_caching", "--no-enable-prefix-caching", False)
    if work.option("speculative_tokens"):
        words += ["--speculative-config", json.dumps({"method": "mtp", "num_speculative_tokens": int(work.option("speculative_tokens"))})]
    if nodes > 1:
        words += ["--distributed-executor-backend", "ray"]
        words += ["--data-parallel-backend", "ray"] if figures.get("data_parallel", 1) > 1 else []
    serve = LaunchCommand("vllm", line(words), {}, _note(model, work))
    return (*_ray(nodes), serve) if nodes > 1 else (serve,)


def _ray(nodes: int) -> tuple[LaunchCommand, ...]:
    others = f"on each of the other {nodes - 1} machines" if nodes > 2 else "on the other machine"
    return (
        LaunchCommand("vllm", "ray start --head --port=6379", {}, "on the first machine"),
        LaunchCommand("vllm", f"ray start --address={HEAD}:6379", {}, f"{others}; {HEAD}: the first one's address"),
    )


def _sequences(work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> list[object]:
    """Sequences at once, where they are not what vLLM takes by itself on these GPUs: its activation and graphs hang on them."""
    planned, version = figures.get("max_num_seqs"), work.option("version")
    default = batch_defaults(devices[0], version if isinstance(version, str) else None)[1] if devices else work.sequences
    asked = work.option("max_num_seqs") is not None or (bool(devices) and planned != default)
    return ["--max-num-seqs", planned] if asked and planned else []


def _dtype(model: Model, work: Work) -> list[object]:
    """The planned 16-bit type, where the checkpoint has another."""
    own = work.format.family == "dtype" and work.format.name != model.stored_format and model.stored_format in ("BF16", "F16", "F32")
    return ["--dtype", dtype(model, work)] if own else []


def _note(model: Model, work: Work) -> str:
    version = work.option("version")
    notes = (
        format_note("vllm", model, work),
        f"planned for vLLM {name(str(version))}" if version is not None else "",
        _plugin(work) if version is None else "",
    )
    return "; ".join(note for note in notes if note)


def _plugin(work: Work) -> str:
    """Formats that left vLLM for a plug-in: not in 0.32.0's QUANTIZATION_METHODS (pypi.org/project/vllm-bnb-plugin, vllm-gguf-plugin)."""
    if work.format.family == "gguf":
        return "vLLM 0.32 reads no GGUF of its own: pip install vllm-gguf-plugin"
    packed = work.format.stored_as in _BITSANDBYTES
    return "vLLM 0.32 has no bitsandbytes of its own: pip install vllm-bnb-plugin" if packed else ""
