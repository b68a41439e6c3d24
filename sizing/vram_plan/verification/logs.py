"""Which engine wrote a log, by what stands in it, and what it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from ..errors import FormatError
from .llamacpp_log import LlamaLog
from .ollama_log import OllamaLog
from .reading import LIMITS, Limits, Progress, log_lines, opened_log
from .sglang_log import SglangLog
from .values import Observation
from .vllm_log import VllmLog

__all__ = ["observe_lines", "read_log"]

#: What a server goes on to print for each request, most of a long log: nothing of it is looked at.
_TRAFFIC: Final = ("HTTP/1.", "slot ", "update_slots", "Avg prompt throughput", "Prefill batch", "Decode batch", "[GIN]")
_WANTED = "the start-up log of llama-server (-lv 4 prints its buffers), Ollama, vLLM or SGLang belongs there"


def read_log(
    name: str, layers: int | None = None, hidden_size: int | None = None, limits: Limits = LIMITS, progress: Progress | None = None
) -> Observation:
    """What a log file, or standard input (`-`), says of the model with these layers and this width.

    Raises ModelNotFoundError where there is no such file, FormatError where no engine's figures stand in it.
    """
    where = "standard input" if name == "-" else name
    with opened_log(name) as file:
        return observe_lines(log_lines(file, where, limits, progress), where, layers, hidden_size)


def observe_lines(lines: Iterable[str], source: str, layers: int | None = None, hidden_size: int | None = None) -> Observation:
    """As `read_log`, of lines. The engine is the one whose own wordings stand in it most."""
    ollama, vllm, sglang = OllamaLog(), VllmLog(), SglangLog()
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007
        if any(word in line for word in _TRAFFIC) and "eval time" not in line:
            continue
        ollama.feed(line)
        vllm.feed(line)
        sglang.feed(line)
    scores: dict[VllmLog | SglangLog | OllamaLog, int] = {vllm: vllm.hits, sglang: sglang.hits, ollama: ollama.hits + ollama.own}
    for log in sorted(scores, key=lambda log: -scores[log]):
        if scores[log] and (found := log.observation(source, layers, hidden_size)):
            return replace(found, engine="llama.cpp", version=ollama.version) if log is ollama and not ollama.own else found
    raise FormatError(f"{source} shows no memory figures of an engine ({count:,} lines read)", _hint(ollama))


def _hint(log: LlamaLog) -> str:
    if log.hits or log.version:
        return "it is llama.cpp's, without the sizes of its buffers: start llama-server with -lv 4 (or --verbose)"
    return _WANTED
