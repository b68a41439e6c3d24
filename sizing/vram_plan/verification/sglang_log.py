"""SGLang's start-up log: what loading took, the pools it made, and its ServerArgs.

Wordings of SGLang 0.4 to 0.5.23 (srt/model_executor/model_runner.py, srt/mem_cache/memory_pool.py, srt/managers/scheduler.py).
Its "GB" are GiB. No line tells the driver's share; what is free after the pools is the reserve.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..units import GIB
from .values import Figure, Observation, Place, Seen

__all__ = ["SglangLog"]

_N: Final = r"(-?\d{1,12}(?:\.\d{1,6})?)"
_BEGIN: Final = re.compile(rf"Load weight begin\. avail mem={_N} GB")
_END: Final = re.compile(rf"Load weight end\..*?avail mem={_N} GB(?:, mem usage={_N} GB)?")
_KV: Final = re.compile(rf"KV Cache is allocated\.(?:.*?#tokens: ([\d,]{{1,16}}),?)? (?:K size: {_N} GB, V size: {_N} GB|KV size: {_N} GB)")
_STATE: Final = re.compile(
    rf"Mamba Cache is allocated\..*?max_mamba_cache_size: (\d{{1,9}}),? conv_state size: {_N} ?GB,? ssm_state size: {_N} ?GB"
)
_POOLS_END: Final = re.compile(rf"Memory pool end\. avail mem={_N} GB")
_GRAPHS: Final = re.compile(rf"Capture .*?cuda graph end\..*?mem usage={_N} GB", re.IGNORECASE)
_TOTAL: Final = re.compile(r"max_total_num_tokens=(\d{1,12})")
_ARGS: Final = re.compile(r"server_args=ServerArgs\((.*)")
_RANK: Final = re.compile(r"\bTP(\d{1,3})(?: PP(\d{1,3}))?")
_RUN: Final = re.compile(r"(context_len|chunked_prefill_size|max_running_requests)=(\d{1,10})")
_TYPE: Final = re.compile(r"Load weight end\..*?type=(\w{1,80})")
_MARKS: Final = ("avail mem", "is allocated", "max_total_num_tokens", "server_args=", "cuda graph", "CUDA graph", "KV cache dtype")
_VERSION: Final = re.compile(r"sglang(?:\[[^\]]*\])?(?:==|[ -]v?)(\d+\.\d+\.\d+)")
#: A ServerArgs field → what `plan` calls it.
_ARGUMENTS: Final = {
    "tp_size": "tensor_parallel", "pp_size": "pipeline_parallel", "context_length": "context", "page_size": "block_size",
    "mem_fraction_static": "gpu_memory_utilization", "max_running_requests": "max_num_seqs", "model_path": "model",
    "chunked_prefill_size": "max_num_batched_tokens", "disable_cuda_graph": "enforce_eager", "disable_radix_cache": "no_radix",
    "kv_cache_dtype": "kv_type", "quantization": "quantization", "speculative_algorithm": "algorithm",
    "speculative_num_draft_tokens": "speculative_tokens",
}  # fmt: skip
_PAIR: Final = re.compile(rf"(?<!\w)({'|'.join(_ARGUMENTS)})=(?:'([^']{{0,200}})'|([\w.+/-]{{1,120}}))")


class SglangLog:
    """Fed line by line."""

    engine = "sglang"

    def __init__(self) -> None:
        self.hits = 0
        self.version: str | None = None
        self._figures: dict[tuple[str, Place], Figure] = {}
        self._before: dict[Place, float] = {}
        self._settings: dict[str, Seen] = {}
        self._facts: dict[str, Any] = {}
        self._loads: dict[Place, int] = {}

    def feed(self, line: str) -> None:
        if match := _VERSION.search(line):
            self.version = self.version or match[1]
        if not any(mark in line for mark in _MARKS):
            return
        match = _RANK.search(line[:120])
        rank: Place = int(match[1]) + 1000 * int(match[2] or 0) if match else 0
        short = line.strip()[-240:]
        self._weights(line, rank, short)
        self._pools(line, rank, short)
        self._arguments(line, short)

    def _put(self, name: str, gib: float, rank: Place, line: str, step: float = 0.005) -> None:
        self.hits += 1
        self._figures.setdefault((name, rank), Figure(name, gib * GIB, "bytes", rank, step * GIB, line))

    def _weights(self, line: str, rank: Place, short: str) -> None:
        if match := _BEGIN.search(line):
            self._before[rank] = float(match[1])
            self._loads[rank] = self._loads.get(rank, 0) + 1
            if self._loads[rank] == 1:
                self._put("free_before", float(match[1]), rank, short)
        if match := _END.search(line):
            name = "weights" if self._loads.get(rank, 1) < 2 else "draft_weights"
            used = float(match[2]) if match[2] else self._before.get(rank, float(match[1])) - float(match[1])
            if match[2] or rank in self._before:
                self._put(name, used, rank, short, 0.005 if match[2] else 0.01)
            if kind := _TYPE.search(line):
                self._facts.setdefault("architecture", kind[1])

    def _pools(self, line: str, rank: Place, short: str) -> None:
        if match := _KV.search(line):
            size = float(match[4]) if match[4] else float(match[2]) + float(match[3])
            name = "kv_cache" if ("kv_cache", rank) not in self._figures else "more_kv_cache"
            self._put(name, size, rank, short, 0.005 if match[4] else 0.01)
        if match := _STATE.search(line):
            self._put("state", float(match[2]) + float(match[3]), rank, short, 0.01)
        if match := _POOLS_END.search(line):
            self._put("reserve", float(match[1]), rank, short)
        if match := _GRAPHS.search(line):
            self._put("cuda_graphs", float(match[1]), rank, short)
        if match := _TOTAL.search(line):
            self.hits += 1
            self._figures.setdefault(("kv_tokens", None), Figure("kv_tokens", float(match[1]), "tokens", None, 0.0, short))

    def _arguments(self, line: str, short: str) -> None:
        if match := _ARGS.search(line):
            self.hits += 1
            for pair in _PAIR.finditer(match[1][:30_000]):
                value = pair[2] if pair[2] is not None else pair[3]
                if value not in ("None", "", "null"):
                    self._settings.setdefault(_ARGUMENTS[pair[1]], Seen(_ARGUMENTS[pair[1]], _value(value), f"{pair[1]}={value}"))
        if _TOTAL.search(line):
            names = {"context_len": "context", "chunked_prefill_size": "max_num_batched_tokens"}
            for pair in _RUN.finditer(line):
                if pair[1] in names:
                    self._settings.setdefault(names[pair[1]], Seen(names[pair[1]], int(pair[2]), pair[0]))

    # what it amounts to

    def observation(self, source: str, layers: int | None = None, hidden_size: int | None = None) -> Observation | None:
        if not self._figures:
            return None
        facts = dict(self._facts)
        if model := self._settings.get("model"):
            facts["name"] = model.value
        settings, tp = [], int(self._settings["tensor_parallel"].value) if "tensor_parallel" in self._settings else 1
        for seen in self._settings.values():
            settings += self._known(seen)
        if self.version:
            settings.append(Seen("version", self.version, f"sglang {self.version}"))
        figures = tuple(_placed(figure, tp) for figure in self._figures.values())
        return Observation(self.engine, source, self.version, figures, tuple(settings), facts)

    def _known(self, seen: Seen) -> list[Seen]:
        if seen.name == "kv_type":
            return [Seen("kv_type", "fp8", seen.line)] if str(seen.value).startswith("fp8") else []
        if seen.name == "quantization":
            return [Seen("online_quant", "FP8", seen.line)] if seen.value == "fp8" else []
        if seen.name == "no_radix":
            return [Seen("prefix_caching", not seen.value, seen.line)]
        if seen.name == "speculative_tokens" and "algorithm" not in self._settings:
            return []  # older versions print its default
        if seen.name == "max_num_batched_tokens" and int(seen.value) <= 0:
            return []
        return [] if seen.name in ("model", "algorithm") else [seen]


def _placed(figure: Figure, tp: int) -> Figure:
    place = figure.place // 1000 * tp + figure.place % 1000 if isinstance(figure.place, int) else None
    return Figure(figure.name, figure.value, figure.unit, place, figure.step, figure.line)


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
