"""vLLM's start-up log: what each rank loaded, profiled and kept for the cache, and the flags it was started with.

Wordings of vLLM 0.3 to 0.32 (v1/worker/gpu_worker.py, v1/worker/gpu_model_runner.py, v1/core/kv_cache_utils.py; the V0 engine's
worker.py). Where it prints "GB" it means GiB.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ..units import GIB
from .values import Figure, Observation, Place, Seen, Unit

__all__ = ["VllmLog"]

_N: Final = r"(-?\d[\d,]{0,20}(?:\.\d{1,8})?)"
#: Words a line must hold, its whole wording, the figure's name, its unit, and what the number is multiplied with.
_FIGURES: Final[tuple[tuple[str, re.Pattern[str], str, Unit, float], ...]] = (
    (" took ", re.compile(rf"(?:Model loading|Loading model weights) took {_N} Gi?B"), "weights", "bytes", GIB),
    ("model weights take ", re.compile(rf"model weights take {_N} ?GiB"), "weights", "bytes", GIB),
    ("non_torch_memory", re.compile(rf"non_torch_memory(?: takes)? {_N} ?GiB"), "non_torch", "bytes", GIB),
    ("non-torch forward", re.compile(rf"non-torch forward increase memory: {_N} ?GiB"), "non_torch", "bytes", GIB),
    ("activation peak", re.compile(rf"activation peak memory(?: takes)? {_N} ?GiB"), "activation", "bytes", GIB),
    ("torch peak memory", re.compile(rf"torch peak memory increase: {_N} ?GiB"), "activation", "bytes", GIB),
    ("Available KV cache", re.compile(rf"Available KV cache memory: {_N} GiB"), "available_kv", "bytes", GIB),
    ("reserved for KV Cache", re.compile(rf"reserved for KV Cache is {_N} ?GiB"), "available_kv", "bytes", GIB),
    ("available_kv_cache_memory", re.compile(rf"available_kv_cache_memory {_N} ?GiB"), "available_kv", "bytes", GIB),
    ("larger than the available", re.compile(rf"larger than the available KV cache memory \({_N} GiB\)"), "available_kv", "bytes", GIB),
    ("for KV Cache as specified", re.compile(rf"reserved {_N} GiB memory for KV Cache as specified"), "available_kv", "bytes", GIB),
    ("KV cache is needed", re.compile(rf"\(?{_N} GiB KV cache is needed"), "needed_kv", "bytes", GIB),
    ("estimated maximum model", re.compile(rf"estimated maximum model length is {_N}"), "max_context", "tokens", 1),
    ("KV cache size: ", re.compile(rf"KV cache size: {_N} tokens"), "kv_tokens", "tokens", 1),
    ("can be stored in KV", re.compile(rf"tokens that can be stored in KV cache \({_N}\)"), "kv_tokens", "tokens", 1),
    ("Maximum concurrency", re.compile(rf"Maximum concurrency for [\d,]+ tokens per request: {_N}x"), "max_concurrency", "requests", 1),
    ("blocks: ", re.compile(rf"# (?:GPU|CUDA|cuda) blocks: {_N}"), "num_blocks", "blocks", 1),
    ("num_gpu_blocks is", re.compile(rf"num_gpu_blocks is: {_N}"), "num_blocks", "blocks", 1),
    ("Graph capturing", re.compile(rf"Graph capturing finished(?: in .{{1,24}})?, took {_N} GiB"), "cuda_graphs", "bytes", GIB),
    ("total_gpu_memory", re.compile(rf"total_gpu_memory \(?{_N} ?GiB"), "gpu_memory", "bytes", GIB),
)  # fmt: skip
#: A line of none of these tells no setting.
_MARKS: Final = (
    "max_num_batched_tokens", "max model len", "Maximum concurrency", "(largest=", "utilization", "architecture: ", "Cudagraph is disabled",
    "LLM engine", "version ", "vllm serve ", "args: {", "cache blocks", "out of memory", "CUDA graph memory",
)  # fmt: skip
_VERSION: Final = re.compile(r"(?:LLM engine \(v|vLLM API server version |[█▀▄ ]version )(\d+\.\d+(?:\.\d+)?)")
_CONFIG: Final = re.compile(r"Initializing an? (?:V[01] )?LLM engine .{0,40}?config: ?(.*)")
_ARGS: Final = re.compile(r"non-default args: (\{.*)")
#: What only the V0 engine prints, and a version that had it.
_OLD_WORDS, _OLD = "model weights take ", "0.7"
_COMMAND: Final = re.compile(r"vllm serve (.*)")
#: What a line of its own begins with.
_PREFIX: Final = re.compile(r"\b(?:INFO|WARNING|ERROR|DEBUG)\b|pid=\d|%\|")
_MOST_ARGUMENTS: Final = 30_000
_RANK: Final = re.compile(r"(?:PP(\d{1,3})_)?(?<![A-Za-z])TP(\d{1,3})")
_LENGTH: Final = re.compile(r"Using max model len (\d{1,9})|Maximum concurrency for ([\d,]{1,12}) tokens")
_BATCH: Final = re.compile(r"max_num_batched_tokens=(\d{1,9})")
_UTILIZATION: Final = re.compile(r"gpu-memory-utilization(?:=| from )(\d?\.\d{1,6})|gpu_memory_utilization \((\d?\.\d{1,6})\)")
#: The share of the card its graphs are reckoned at: both together tell the card's memory.
_GRAPH_ESTIMATE: Final = re.compile(r"Estimated CUDA graph memory: (\d{1,4}\.\d{1,3}) GiB")
_GRAPH_SHARE: Final = re.compile(r"utilization(?:=| from )(\d?\.\d{2,6}) (?:is equivalent to --gpu-memory-utilization=|to )(\d?\.\d{2,6})")
_FULL_GRAPHS: Final = re.compile(r"FULL=\d+ \(largest=(\d{1,5})\)")
_FAILED: Final = re.compile(r"(No available memory for the cache blocks|CUDA out of memory\. Tried to allocate [\d.]{1,12} [GM]iB)")
_ARCHITECTURE: Final = re.compile(r"Resolved architecture: (\w{1,80})")

#: An argument's name → what `plan` calls it.
_ARGUMENTS: Final = {
    "tensor_parallel_size": "tensor_parallel", "pipeline_parallel_size": "pipeline_parallel", "enable_expert_parallel": "expert_parallel",
    "max_model_len": "max_model_len", "max_seq_len": "max_model_len", "gpu_memory_utilization": "gpu_memory_utilization",
    "max_num_seqs": "max_num_seqs", "max_num_batched_tokens": "max_num_batched_tokens", "block_size": "block_size",
    "enforce_eager": "enforce_eager", "enable_prefix_caching": "prefix_caching", "kv_cache_memory_bytes": "kv_cache_memory_bytes",
    "kv_cache_dtype": "kv_type", "quantization": "quantization", "num_speculative_tokens": "speculative_tokens", "model": "model",
}  # fmt: skip
_PAIR: Final = re.compile(
    rf"""(?<![\w])['"]?({"|".join(_ARGUMENTS)})['"]?[=:] ?(?:'([^']{{0,200}})'|"([^"]{{0,200}})"|([\w./+-]{{1,120}}))"""
)
_FLAG: Final = re.compile(r"--([a-z][a-z-]{1,40})(?:[= ]([^\s-][^\s]{0,200}))?")
_CACHE: Final = {"auto": None, "fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_inc": "fp8"}
#: What of a checkpoint in 16 bits these flags make while loading.
_ONLINE: Final = {"fp8": "FP8", "bitsandbytes": "NF4"}


class VllmLog:
    """Fed line by line."""

    engine = "vllm"

    def __init__(self) -> None:
        self.hits = 0
        self.version: str | None = None
        self.notes: list[str] = []
        self._figures: dict[tuple[str, Place], Figure] = {}
        self._settings: dict[str, Seen] = {}
        self._facts: dict[str, Any] = {}
        self._graphs_gib = 0.0
        self._open = ""

    def feed(self, line: str) -> None:
        if self._open:
            self._go_on(line)
        for mark, pattern, name, unit, scale in _FIGURES:
            if mark in line and (match := pattern.search(line)):
                self.hits += 1
                key = (name, _rank(line))
                figure = Figure(name, _number(match[1]) * scale, unit, key[1], _step(match[1]) * scale, line.strip()[-240:])
                self._figures.setdefault(key, figure)
        if any(mark in line for mark in _MARKS):
            self._take_version(line)
            self._take_arguments(line)
            self._take_words(line, line.strip()[-240:])

    def _take_version(self, line: str) -> None:
        if match := _VERSION.search(line):
            self.hits += 1
            self.version = self.version or match[1]

    def _take_arguments(self, line: str) -> None:
        """The flags that were given come before the whole config, and win."""
        for pattern in (_ARGS, _CONFIG):
            if match := pattern.search(line):
                self.hits += 1
                self._open = match[1]
                self._take_pairs(match[1])
        if (match := _COMMAND.search(line)) and "--" in line:
            for flag in _FLAG.finditer(match[1][:8000]):
                name = _ARGUMENTS.get(flag[1].replace("-", "_").removeprefix("no_"))
                if name:
                    self._take(name, "False" if flag[1].startswith("no-") else flag[2] or "True", flag[0])

    def _go_on(self, line: str) -> None:
        """A line of arguments that a terminal broke: what follows without a time of its own belongs to it."""
        if _PREFIX.search(line[:120]) or len(self._open) > _MOST_ARGUMENTS:
            self._open = ""
            return
        self._open += line
        self._take_pairs(self._open[-2 * len(line) - 120 :])

    def _take_pairs(self, text: str) -> None:
        for pair in _PAIR.finditer(text[:_MOST_ARGUMENTS]):
            if pair.end() < len(text):  # else the line may break in the middle of it
                value = next(part for part in pair.groups()[1:] if part is not None)
                self._take(_ARGUMENTS[pair[1]], value, f"{pair[1]}={value}")

    def _take_words(self, line: str, short: str) -> None:
        for pattern, name in ((_LENGTH, "max_model_len"), (_BATCH, "max_num_batched_tokens"), (_UTILIZATION, "gpu_memory_utilization")):
            if match := pattern.search(line):
                self._take(name, next(g for g in match.groups() if g).replace(",", ""), short)
        self._take_card(line, short)
        if match := _ARCHITECTURE.search(line):
            self._facts["architecture"] = match[1]
        if match := _FULL_GRAPHS.search(line):
            largest = int(match[1])
            if largest < 512:  # decode graphs end at the number of sequences, or at 512
                self._take("graph_sequences", str(largest), short)
        if (match := _FAILED.search(line)) and len(self.notes) < 8:
            self.notes.append(f"the engine did not start: {match[1]}")
        if "Cudagraph is disabled under eager mode" in line:
            self._take("enforce_eager", "True", short)

    def _take_card(self, line: str, short: str) -> None:
        """The card's memory, which newer versions do not print, from two figures that are rounded."""
        if match := _GRAPH_ESTIMATE.search(line):
            self._graphs_gib = float(match[1])
        if (match := _GRAPH_SHARE.search(line)) and self._graphs_gib > 0:
            share = abs(float(match[1]) - float(match[2]))
            if share > 0.0005:
                size = self._graphs_gib / share * GIB
                step = size * (0.005 / self._graphs_gib + 0.00006 / share)
                self._figures.setdefault(("gpu_memory", None), Figure("gpu_memory", size, "bytes", None, step, short))

    def _take(self, name: str, value: str, line: str) -> None:
        if value not in ("None", "", "null") and len(self._settings) < 100:
            self._settings.setdefault(name, Seen(name, value, line[-240:]))

    # what it amounts to

    def observation(self, source: str, layers: int | None = None, hidden_size: int | None = None) -> Observation | None:
        if not self._figures:
            return None
        facts = dict(self._facts)
        if model := self._settings.get("model"):
            facts["name"] = model.value
        notes = list(self.notes)
        settings = self._known_settings(notes)
        return Observation(self.engine, source, self.version, self._placed(settings), tuple(settings), facts, (), (), tuple(notes))

    def _placed(self, settings: list[Seen]) -> tuple[Figure, ...]:
        """Ranks as numbers of GPUs; a line without a rank is of the first, or of all where it is of the whole engine."""
        whole = ("kv_tokens", "max_concurrency", "num_blocks", "max_context", "needed_kv")
        tp = next((seen.value for seen in settings if seen.name == "tensor_parallel" and isinstance(seen.value, int)), 1)
        found: dict[tuple[str, Place], Figure] = {}
        for figure in self._figures.values():
            rank = figure.place if isinstance(figure.place, int) else 0
            place = None if figure.name in whole else rank // 1000 * tp + rank % 1000
            found.setdefault((figure.name, place), Figure(figure.name, figure.value, figure.unit, place, figure.step, figure.line))
        return tuple(found.values())

    def _known_settings(self, notes: list[str]) -> list[Seen]:
        found = []
        for seen in self._settings.values():
            name, value = seen.name, _value(str(seen.value))
            if name == "max_model_len":
                found.append(Seen("context", value, seen.line))
            elif name == "kv_type":
                if (kind := _CACHE.get(str(value))) is not None:
                    found.append(Seen("kv_type", kind, seen.line))
            elif name == "quantization":
                if kind := _ONLINE.get(str(value)):
                    found.append(Seen("online_quant", kind, seen.line))
                notes.append(f"quantization={value} in the log")
            elif name == "graph_sequences":
                if "max_num_seqs" not in self._settings:
                    found.append(Seen("max_num_seqs", value, seen.line))
            elif name != "model":
                found.append(Seen(name, value, seen.line))
        if version := self.version or (_OLD if any(_OLD_WORDS in figure.line for figure in self._figures.values()) else None):
            found.append(Seen("version", version, f"version {version}" if self.version else "by its wording: the V0 engine"))
        return found


def _rank(line: str) -> Place:
    """The tensor-parallel rank a worker's line is of, 1000 added for each pipeline stage; None where it names none."""
    match = _RANK.search(line[:80])
    return 1000 * int(match[1] or 0) + int(match[2]) if match else None


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _step(text: str) -> float:
    return 0.5 * 10.0 ** -len(text.partition(".")[2]) if "." in text else 0.0
