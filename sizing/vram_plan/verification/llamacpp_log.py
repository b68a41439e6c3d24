"""llama.cpp's load log: where each buffer went, and the settings it was made with.

A log may show several loads (a dry one that fits the parameters, a draft model, Ollama's models one after another); each is kept
apart, and so are the contexts made on it: the model's own, a draft's. Sizes are printed in MiB with two decimals.
Source: llama.cpp 0c1e57098, src/llama-model.cpp, llama-context.cpp, llama-kv-cache.cpp, tools/mtmd/clip.cpp, common/fit.cpp; older
wordings from public logs since b4600.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ..units import MIB, format_gib
from .llamacpp_load import Context, Load, facts_of, figures_of, is_model, longest, place_of, settings_of, used
from .values import Observation, Place, Rate

__all__ = ["LlamaLog"]

Take = Callable[[re.Match[str], str], None]

_MAX_LOADS: Final = 1000
_MAX_BUFFERS: Final = 10_000

_SIZE: Final = r"buffer size = +(\d{1,12}(?:\.\d{1,6})?) MiB"
_BUFFER: Final = re.compile(rf"(?:(\w+): +)?(?:(\S{{1,80}}) +)?(?:DSV4 \w+ )?(model|KV|RS|compute|output|state|LoRA) {_SIZE}")
#: Before 2025 the weights' lines had no word of their own.
_OLD_WEIGHTS: Final = re.compile(rf"()(?:llm_)?load_tensors: +(\S{{1,80}}) +()?{_SIZE}")
_SELF: Final = re.compile(r"KV self size += +(\d{1,12}(?:\.\d{1,6})?) MiB")
_CACHE: Final = re.compile(r"K \((\w+)\): +[\d.]+ MiB, V \((\w+)\): +[\d.]+ MiB")
_FIELD: Final = re.compile(
    r"(?:llama_context|llama_new_context_with_model|llama_init_from_model): (n_seq_max|n_ctx|n_ctx_seq|n_ctx_per_seq|n_batch|n_ubatch|"
    r"n_outputs_max|flash_attn|kv_unified) *= (\w+)"
)
_FACT: Final = re.compile(
    r"(?:print_info|llm_load_print_meta): (arch|n_layer|n_embd|n_vocab|n_ctx_train|no_alloc|general\.name|file type|model ftype|file size|"
    r"model size|model params) *= (.{1,200})"
)
_OFFLOADED: Final = re.compile(r"offloaded (\d{1,5})/(\d{1,5}) layers to GPU")
_FLASH: Final = re.compile(r"Flash Attention (?:was auto, set to )?(enabled|disabled)|flash attention is (enabled|disabled)", re.IGNORECASE)
_BUILD: Final = re.compile(r"\bbuild(?:_info)?: b?(\d{1,7})(?:-| \()([0-9a-f]{7,40})|print_info: build (\d{1,7}) \(([0-9a-f]{7,40})\)")
_DEVICE: Final = re.compile(
    r"Device (\d{1,3}): (.{1,80}?), (?:compute capability|gfx)|using device [A-Za-z]+(\d{0,3}) \(([^()]{1,80})|"
    r"- (?:CUDA|ROCm|Vulkan|MTL|Metal|SYCL)(\d{0,3}) +: ([^()]{1,80}) \(\d"
)
_BREAKDOWN: Final = re.compile(
    r"memory_breakdown_print: \| +- [A-Za-z]+(\d{1,3}) \(.{1,120}?\) *\|"
    r" *\d+ = *\d+ \+ \( *\d+ = *\d+ \+ *\d+ \+ *\d+\) \+ *(-?\d{1,12}) \|"
)
_TOWER: Final = re.compile(r"load_hparams: model size: +(\d{1,12}(?:\.\d{1,6})?) MiB")
_TOWER_DEVICE: Final = re.compile(r"clip_ctx: CLIP using (\w+) backend")
_TIMED: Final = re.compile(
    r"(prompt eval|eval) time = +[\d.]{1,16} ms / +(\d{1,9}) (?:tokens|runs) .*?(\d{1,12}(?:\.\d{1,6})?) tokens per second", re.IGNORECASE
)
_FAILED: Final = re.compile(r"failed to allocate (\w{1,24}) buffer of size (\d{1,15})")
_DRAFTED: Final = re.compile(r"draft acceptance")
_PREDICTS: Final = re.compile(r"creating MTP draft context against the target model")
_ROTATES: Final = re.compile(r"(?:attn|n)_rot_[kv] = ")
_CONTEXT_START: Final = re.compile(r"constructing llama_context")
_LOAD_START: Final = re.compile(r"loaded meta data with \d+ key-value pairs")
_GROUPS: Final = {"KV": "kv_cache", "RS": "state", "state": "state", "LoRA": "lora"}
_TOWER_PARTS: Final = ("alloc_compute_meta", "reserve_compute_meta")
_BACKENDS: Final = {"CUDA": "cuda", "ROCm": "rocm", "Vulkan": "vulkan", "MTL": "metal", "Metal": "metal"}


class LlamaLog:
    """Fed line by line; `loads` is what it saw."""

    engine = "llama.cpp"

    def __init__(self) -> None:
        self.loads: list[Load] = []
        self.version: str | None = None
        self.gpus: dict[int, str] = {}
        self.notes: list[str] = []
        self.hits = 0
        self._tower_place: Place = 0
        self._buffers = 0
        self._prompt: tuple[int, float] | None = None
        #: Words a line must hold, what is read of it, and by whom.
        self._rules: tuple[tuple[str, re.Pattern[str], Take], ...] = (
            ("loaded meta data", _LOAD_START, self._load_start), ("constructing llama_context", _CONTEXT_START, self._context_start),
            ("buffer size", _BUFFER, self._buffer), ("load_tensors: ", _OLD_WEIGHTS, self._buffer),
            ("llama_context: ", _FIELD, self._field), ("print_info: ", _FACT, self._fact),
            ("llama_new_context_with_model: ", _FIELD, self._field), ("llama_init_from_model: ", _FIELD, self._field),
            ("llm_load_print_meta: ", _FACT, self._fact), (" MiB, V (", _CACHE, self._types),
            ("KV self size", _SELF, self._self_size), ("lash ", _FLASH, self._flash), ("offloaded ", _OFFLOADED, self._offloaded),
            ("build", _BUILD, self._build), ("Device ", _DEVICE, self._device), ("using device ", _DEVICE, self._device),
            ("MiB free)", _DEVICE, self._device),
            ("memory_breakdown_print", _BREAKDOWN, self._breakdown), ("load_hparams: model size", _TOWER, self._tower),
            ("clip_ctx: ", _TOWER_DEVICE, self._tower_device), ("eval time = ", _TIMED, self._timed), ("_rot_", _ROTATES, self._rotates),
            ("failed to allocate", _FAILED, self._failed), ("draft acceptance", _DRAFTED, self._drafted),
            ("MTP draft context", _PREDICTS, self._predicts),
        )  # fmt: skip

    def feed(self, line: str) -> None:
        for mark, pattern, take in self._rules:
            if mark in line and (match := pattern.search(line)):
                take(match, line.strip()[-240:])

    @property
    def _load(self) -> Load:
        if not self.loads:
            self.loads.append(Load())
        return self.loads[-1]

    @property
    def _context(self) -> Context:
        if not self._load.contexts:
            self._load.contexts.append(Context())
        return self._load.contexts[-1]

    def _load_start(self, match: re.Match[str], line: str) -> None:
        self.hits += 1
        if len(self.loads) < _MAX_LOADS:
            self.loads.append(Load())

    def _context_start(self, match: re.Match[str], line: str) -> None:
        self.hits += 1
        if not self._load.contexts or self._load.contexts[-1].fields:
            self._load.contexts.append(Context())

    def _buffer(self, match: re.Match[str], line: str) -> None:
        self.hits += 1
        self._buffers += 1
        part, name, kind, size = match[1] or "", match[2] or "", match[3], _mib(match[4])
        place = place_of(name) if name else None
        if self._buffers > _MAX_BUFFERS or kind == "output":
            return
        if kind in ("", "model") and self._load.contexts and self._load.weights:
            self.loads.append(Load())  # another model, without a header of its own
        if isinstance(place, int):
            self._load.backends.add(_BACKENDS.get(re.sub(r"\d.*|_.*", "", name), ""))
        if part in _TOWER_PARTS:
            self._load.tower.append(("compute", place, size, line))
        elif kind in ("", "model"):
            self._load.weights.append((place, size, line))
        elif kind == "compute":
            self._context.compute[name] = (size, line)
        else:
            self._context.caches.append((_GROUPS[kind], place, size, line))

    def _self_size(self, match: re.Match[str], line: str) -> None:
        """The sum alone, where the buffers are not printed."""
        if not any(group == "kv_cache" for group, *_ in self._context.caches):
            self.hits += 1
            self._context.caches.append(("kv_cache", None, _mib(match[1]), line))

    def _field(self, match: re.Match[str], line: str) -> None:
        name, value = match[1], match[2]
        if name in ("n_seq_max", "n_ctx") and name in self._context.fields:
            self._load.contexts.append(Context())
        self._context.fields[name] = value
        self._context.lines[name] = line

    def _types(self, match: re.Match[str], line: str) -> None:
        self._context.types = self._context.types or (match[1], match[2], line)

    def _flash(self, match: re.Match[str], line: str) -> None:
        if "warmup" not in line:
            self._context.fields["flash"] = (match[1] or match[2]).lower()
            self._context.lines["flash"] = line

    def _fact(self, match: re.Match[str], line: str) -> None:
        self.hits += 1
        self._load.facts.setdefault(match[1], match[2].strip())

    def _offloaded(self, match: re.Match[str], line: str) -> None:
        self._load.offloaded = (int(match[1]), int(match[2]), line)

    def _build(self, match: re.Match[str], line: str) -> None:
        number, commit = match[1] or match[3], match[2] or match[4]
        self.version = f"b{number} ({commit[:9]})"

    def _device(self, match: re.Match[str], line: str) -> None:
        number, name = next((pair for pair in (match.groups()[i : i + 2] for i in (0, 2, 4)) if pair[1]), ("", ""))
        self.gpus.setdefault(int(number or 0), name.strip())

    def _breakdown(self, match: re.Match[str], line: str) -> None:
        """Printed before a load as a projection, and at the end, when it also knows what nobody accounts for."""
        if 0 <= int(match[2]) < 1 << 20 and self._load.contexts:
            self._load.unaccounted[int(match[1])] = (int(match[2]) * MIB, line)

    def _failed(self, match: re.Match[str], line: str) -> None:
        self.hits += 1
        if len(self.notes) < 8:
            self.notes.append(f"the engine failed to allocate {format_gib(int(match[2]))} on {match[1]}")

    def _rotates(self, match: re.Match[str], line: str) -> None:
        self._load.marks.add("rotates")

    def _drafted(self, match: re.Match[str], line: str) -> None:
        self._load.marks.add("drafted")

    def _predicts(self, match: re.Match[str], line: str) -> None:
        self._load.marks.add("mtp")

    def _tower(self, match: re.Match[str], line: str) -> None:
        self._load.tower.append(("weights", self._tower_place, _mib(match[1]), line))

    def _tower_device(self, match: re.Match[str], line: str) -> None:
        self._tower_place = place_of(match[1])

    def _timed(self, match: re.Match[str], line: str) -> None:
        """A request's two lines: its prompt, then its answer."""
        tokens, rate = int(match[2]), float(match[3])
        if match[1].lower() == "prompt eval":
            self._prompt = (tokens, rate)
        elif self._prompt and len(self._load.rates) < _MAX_LOADS:
            self._load.rates.append(Rate(self._prompt[0], tokens, self._prompt[1], rate, line))
            self._prompt = None

    # what it amounts to

    def observation(self, source: str, layers: int | None = None, hidden_size: int | None = None) -> Observation | None:
        """The load that is this model's by its layers and width, else the last; None where no memory was printed."""
        real = [load for load in self.loads if load.real] or [load for load in self.loads if load.contexts and figures_of(load)]
        if not real:
            return None
        ours = [load for load in real if is_model(load, layers, hidden_size)]
        load = ours[-1] if ours else real[-1] if any(load.facts for load in real) else max(real, key=lambda load: load.weight_bytes)
        notes = [*self.notes]
        if len(real) > 1:
            notes.append(f"the log shows {len(real)} loads; {'the last of this model' if ours else 'the last'} is compared")
        if drafts := load.contexts[1:]:
            notes.append(f"{len(drafts)} more context{'s' if len(drafts) > 1 else ''} on this model, for drafting, shown apart")
        rates = longest(load.rates)
        if "drafted" in load.marks:
            rates = tuple(replace(rate, decode_tokens_per_s=None) for rate in rates)
            notes.append("its decode rate is not compared: it answered with the help of a draft")
        gpus = used(load)
        names = tuple(self.gpus[gpu] for gpu in gpus) if all(gpu in self.gpus for gpu in gpus) else ()
        return Observation(
            self.engine, source, self.version, figures_of(load), tuple(settings_of(load)), facts_of(load), names, rates, tuple(notes),
        )  # fmt: skip


def _mib(text: str) -> float:
    return float(text) * MIB
