"""Ollama's server log: its own lines around those of the llama-server it starts, or around its former engine's.

Since 0.30 GGUF models run in llama-server, whose log it passes on; before, its own engine printed sums a device (msg="model weights"
device=CUDA0 size="4.1 GiB"), and before that an estimate (memory.required.full). Source: ollama/ollama fb3076099 (llm/llama_server.go)
and logs of 0.3 to 0.33.
"""

from __future__ import annotations

import re
from typing import Final

from ..units import GIB, MIB, format_gib
from .llamacpp_load import place_of
from .llamacpp_log import LlamaLog
from .values import Figure, Observation, Place, Seen

__all__ = ["OllamaLog"]

_SIZE: Final = r"\"?(\d{1,12}(?:\.\d{1,6})?) ([KMGT]i?B|B)\"?"
_SUMS: Final = re.compile(rf"msg=\"(model weights|kv cache|compute graph)\" device=(\w+) size={_SIZE}")
_ESTIMATE: Final = re.compile(rf"memory\.(required\.full|required\.kv|weights\.total|graph\.full)={_SIZE}")
_VERSION: Final = re.compile(r"\(version (\d+\.\d+\.\d+[\w.-]{0,20})\)")
_START: Final = re.compile(r"msg=\"starting (?:llama-server|llama server|runner)\" cmd=\"(.{1,8000}?)\"")
_REQUEST: Final = re.compile(r"msg=load request=\"\{Operation:commit (.{1,4000})")
_COMPUTE: Final = re.compile(r"msg=\"inference compute\".*? name=[A-Za-z]*(\d{0,3}) description=(?:\"([^\"]{1,80})\"|(\S{1,80}))")
_OFFLOADED: Final = re.compile(r"msg=\"offloaded (\d{1,5})/(\d{1,5}) layers to GPU\"")
_MARKS: Final = ("msg=", "memory.required", "(version ", "Listening on")
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": GIB, "TiB": GIB << 10, "KB": 1 << 10, "MB": MIB, "GB": GIB, "TB": GIB << 10}
_OWN_ENGINE: Final = "this Ollama ran its own engine, which sizes some caches and graphs by other rules than the llama-server of today's"
_EXPECTED: Final = "the compute graph of {0} is what this Ollama expected by a rule of its own before llama.cpp reserved any: not compared"
_NAMES: Final = {
    "model weights": "weights", "kv cache": "kv_cache", "compute graph": "compute",
    "required.full": "total", "required.kv": "kv_cache", "weights.total": "weights", "graph.full": "compute",
}  # fmt: skip


class OllamaLog(LlamaLog):
    """Fed line by line."""

    engine = "ollama"

    def __init__(self) -> None:
        super().__init__()
        self.own = 0
        self._ollama_version: str | None = None
        self._sums: dict[tuple[str, Place], Figure] = {}
        self._estimate: dict[str, Figure] = {}
        self._request: list[Seen] = []
        self._expected = False

    def feed(self, line: str) -> None:
        super().feed(line)
        if not any(mark in line for mark in _MARKS):
            return
        short = line.strip()[-240:]
        if match := _VERSION.search(line):
            self._ollama_version, self.own = match[1], self.own + 1
        if match := _COMPUTE.search(line):
            self.own += 1
            if match[1]:
                self.gpus.setdefault(int(match[1]), match[2] or match[3])
        if match := _START.search(line):
            self.own += 1
            if "--model " in match[1]:
                self._sums, self._request = {}, []
                self._expected = "--ollama-engine" not in match[1]  # llama.cpp runs it: the sums come before its buffers
        if match := _REQUEST.search(line):
            self.own += 1
            self._request = _request_settings(match[1], short)
        if (match := _OFFLOADED.search(line)) and int(match[1]) < int(match[2]):
            self._request.append(Seen("n_gpu_layers", int(match[1]), short))
        self._take_sums(line, short)

    def _take_sums(self, line: str, short: str) -> None:
        if match := _SUMS.search(line):
            self.own += 1
            name, place = _NAMES[match[1]], place_of(match[2])
            value, step = _bytes(match[3], match[4])
            self._sums[name, place] = Figure(name, value, "bytes", place, step, short)
        for match in _ESTIMATE.finditer(line):
            self.own += 1
            value, step = _bytes(match[2], match[3])
            self._estimate[_NAMES[match[1]]] = Figure(_NAMES[match[1]], value, "bytes", None, step, short)

    def observation(self, source: str, layers: int | None = None, hidden_size: int | None = None) -> Observation | None:
        found = super().observation(source, layers, hidden_size)
        gpus = found.gpus if found else ()
        facts, rates, notes = (found.facts, found.rates, found.notes) if found else ({}, (), ())
        whole = found is not None and any(figure.name == "compute" for figure in found.figures)
        if self._sums and not whole:
            places = sorted({place for _, place in self._sums if isinstance(place, int)})
            gpus = tuple(self.gpus[place] for place in places) if all(place in self.gpus for place in places) else ()
            settings, notes = self._own_settings(found), self._said()
            figures = tuple(figure for figure in self._sums.values() if not (self._expected and figure.name == "compute"))
        elif found is not None:
            figures, settings = found.figures, found.settings
        elif self._estimate:
            figures, settings = tuple(self._estimate.values()), ()
            notes = ("these are the figures this old Ollama expected before it loaded the model, not what it took",)
        else:
            return None
        return Observation(self.engine, source, self._ollama_version, figures, settings, facts, gpus, rates, notes)

    def _said(self) -> tuple[str, ...]:
        """What to know of the sums: whose engine they are of, and that the graph of llama.cpp's is a guess."""
        graph = sum(figure.value for (name, _), figure in self._sums.items() if name == "compute")
        return (_EXPECTED.format(format_gib(int(graph))),) if self._expected else (_OWN_ENGINE,)

    def _own_settings(self, found: Observation | None) -> tuple[Seen, ...]:
        quant = tuple(seen for seen in found.settings if seen.name == "quant") if found else ()
        return (*self._request, *quant)


def _bytes(number: str, unit: str) -> tuple[float, float]:
    scale = _UNITS[unit]
    digits = len(number.partition(".")[2])
    return float(number) * scale, 0.5 * 10.0**-digits * scale


def _request_settings(text: str, line: str) -> list[Seen]:
    """Of `Parallel:1 BatchSize:512 FlashAttention:Enabled KvSize:4096 KvCacheType:q8_0`."""
    fields = dict(re.findall(r"(\w+):(\w*)", text))
    parallel = max(int(fields.get("Parallel") or 1), 1)
    found = [Seen("sequences", parallel, line)]
    if (fields.get("KvSize") or "").isdigit():
        found.append(Seen("context", max(int(fields["KvSize"][:12]) // parallel, 1), line))
    if (fields.get("BatchSize") or "").isdigit():
        found += [Seen(name, int(fields["BatchSize"][:9]), line) for name in ("ubatch", "batch")]
    if fields.get("FlashAttention", "").lower() in ("enabled", "true", "disabled", "false"):
        found.append(Seen("flash_attn", fields["FlashAttention"].lower() in ("enabled", "true"), line))
    if kind := fields.get("KvCacheType"):
        found += [Seen("kv_type_k", kind, line), Seen("kv_type_v", kind, line)]
    return found
