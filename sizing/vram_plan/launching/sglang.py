"""SGLang: `python -m sglang.launch_server`. Flags: srt/arg_groups/fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engines import Work
from ..engines.sglang.settings import profile_of
from ..hardware.device import Device
from ..models.model import Model
from ..results import LaunchCommand
from .shared import HEAD, cache_type, checkpoint, format_note, given, line, needs_remote_code, quantization, revision, shape, size, switch

__all__ = ["commands"]


def commands(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    """One server, or a line for each machine."""
    tp, pp, nodes = shape(work, devices, figures)
    words: list[object] = ["python", "-m", "sglang.launch_server", "--model-path", checkpoint(model), *revision(model)]
    words += ["--context-length", figures.get("max_model_len", work.context), *size("--tp-size", tp), *size("--pp-size", pp)]
    if work.option("kv_cache_memory_bytes") is not None and figures.get("kv_tokens"):
        words += ["--max-total-tokens", figures["kv_tokens"]]
    if devices:
        words += ["--mem-fraction-static", round(figures["mem_fraction_static"], 4)]
    names = {"max_num_seqs": "--max-running-requests", "max_num_batched_tokens": "--chunked-prefill-size", "block_size": "--page-size"}
    words += given(work, names.items()) + cache_type("sglang", work) + quantization("sglang", model, work)
    if (groups := figures.get("attention_data_parallel", 1)) > 1:
        version = work.option("version")
        words += [*profile_of(None if version is None else str(version)).attention_groups, groups]
    words += ["--ep-size", tp] if work.expert_parallel and tp > 1 else []
    words += switch(work, "enforce_eager", "--disable-cuda-graph", True) + switch(work, "prefix_caching", "--disable-radix-cache", False)
    if work.option("speculative_tokens"):
        words += ["--speculative-algorithm", "NEXTN", "--speculative-num-draft-tokens", work.option("speculative_tokens")]
    words += ["--trust-remote-code"] if needs_remote_code(model) else []
    note = format_note("sglang", model, work)
    if nodes == 1:
        return (LaunchCommand("sglang", line(words), {}, note),)
    places = (("--dist-init-addr", f"{HEAD}:5000", "--nnodes", nodes, "--node-rank", rank) for rank in range(nodes))
    return tuple(
        LaunchCommand("sglang", line((*words, *place)), {}, f"on machine {rank + 1} of {nodes}; {HEAD}: the first one's address")
        for rank, place in enumerate(places)
    )
