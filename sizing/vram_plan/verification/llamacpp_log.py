"""llama.cpp's load log: where each buffer went, and the settings it was made with.

A log may show several loads (a dry one that fits the parameters, a draft model, Ollama's models one after another); each is kept
apart, and so are the contexts made on it: the model's own, a draft's. Sizes are printed in MiB with two decimals.
Source: llama.cpp 0c1e57098, src/llama-model.cpp, llama-context.cpp, llama-kv-cache.cpp, tools/mtmd/clip.cpp, common/fit.cpp; older
wordings from public logs since b4600.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..units import GIB, MIB, format_gib
from .values import HOST, Figure, Observation, Place, Rate, Seen

__all__ = ["LlamaLog", "Load", "file_type", "place_of"]

Take = Callable[[re.Match[str], str], None]

_MAX_LOADS: Final = 1000
_MAX_BUFFERS: Final = 10_000
_STEP: Final = 0.005 * MIB

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
_ROTATES: Final = re.compile(r"(?:attn|n)_rot_[kv] = ")
_CONTEXT_START: Final = re.compile(r"constructing llama_context")
_LOAD_START: Final = re.compile(r"loaded meta data with \d+ key-value pairs")
_GROUPS: Final = {"KV": "kv_cache", "RS": "state", "state": "state", "LoRA": "lora"}
_TOWER_PARTS: Final = ("alloc_compute_meta", "reserve_compute_meta")
_BACKENDS: Final = {"CUDA": "cuda", "ROCm": "rocm", "Vulkan": "vulkan", "MTL": "metal", "Metal": "metal"}


def place_of(buffer: str) -> Place:
    """The GPU a buffer is on by its name (`CUDA0`, `MTL0_Mapped`, `Metal`, `RPC0[host:port]`), or the host (`CPU_Mapped`, `CUDA_Host`)."""
    if buffer.startswith(("CPU", "BLAS")) or buffer.endswith("_Host"):
        return HOST
    number = re.match(r"[A-Za-z]+(\d{1,3})", buffer)
    return int(number[1]) if number else 0


@dataclass(slots=True)
class _Context:
    """One llama_context: its fields as printed, its caches summed, its last compute buffer of each device."""

    fields: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    caches: list[tuple[str, Place, float, str]] = field(default_factory=list)
    compute: dict[str, tuple[float, str]] = field(default_factory=dict)
    types: tuple[str, str, str] | None = None


@dataclass(slots=True)
class Load:
    """One model loaded: facts, buffers of weights, contexts, and a vision or audio tower."""

    facts: dict[str, str] = field(default_factory=dict)
    weights: list[tuple[Place, float, str]] = field(default_factory=list)
    contexts: list[_Context] = field(default_factory=list)
    tower: list[tuple[str, Place, float, str]] = field(default_factory=list)
    offloaded: tuple[int, int, str] | None = None
    unaccounted: dict[int, tuple[int, str]] = field(default_factory=dict)
    backends: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)
    rates: list[Rate] = field(default_factory=list)

    @property
    def real(self) -> bool:
        """Whether memory was taken: not a dry load that only measures."""
        return self.facts.get("no_alloc", "0").strip() != "1" and any(size for _, size, _ in self.weights)

    def facts_number(self, name: str) -> int | None:
        text = self.facts.get(name, "").strip()
        return int(text) if text.isdigit() and len(text) < 12 else None


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
    def _context(self) -> _Context:
        if not self._load.contexts:
            self._load.contexts.append(_Context())
        return self._load.contexts[-1]

    def _load_start(self, match: re.Match[str], line: str) -> None:
        self.hits += 1
        if len(self.loads) < _MAX_LOADS:
            self.loads.append(Load())

    def _context_start(self, match: re.Match[str], line: str) -> None:
        self.hits += 1
        if not self._load.contexts or self._load.contexts[-1].fields:
            self._load.contexts.append(_Context())

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
            self._load.contexts.append(_Context())
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
        real = [load for load in self.loads if load.real] or [load for load in self.loads if load.contexts and _figures(load)]
        if not real:
            return None
        ours = [load for load in real if _is_model(load, layers, hidden_size)]
        load = (ours or real)[-1]
        notes = [*self.notes]
        if len(real) > 1:
            notes.append(f"the log shows {len(real)} loads; {'the last of this model' if ours else 'the last'} is compared")
        if drafts := load.contexts[1:]:
            notes.append(f"{len(drafts)} more context{'s' if len(drafts) > 1 else ''} on this model (a draft's) are shown apart")
        rates = _longest(load.rates)
        if "drafted" in load.marks:
            rates = tuple(replace(rate, decode_tokens_per_s=None) for rate in rates)
            notes.append("its decode rate is not compared: it answered with the help of a draft")
        gpus = tuple(self.gpus[i] for i in sorted(self.gpus)) if load.backends or not load.weights else ()
        return Observation(
            self.engine, source, self.version, _figures(load), tuple(self._settings(load)), _facts(load), gpus, rates, tuple(notes),
        )  # fmt: skip

    def _settings(self, load: Load) -> list[Seen]:
        found = _context_settings(load.contexts[0]) if load.contexts else []
        line = next((text for _, _, text in load.weights), "")
        backend = next(iter(load.backends - {""}), "cpu" if load.weights else "")
        if backend:
            found.append(Seen("backend", backend, line))
        if load.offloaded and load.offloaded[0] < load.offloaded[1] and backend != "cpu":
            found.append(Seen("n_gpu_layers", load.offloaded[0], load.offloaded[2]))
        if kind := file_type(load.facts.get("file type") or load.facts.get("model ftype") or ""):
            found.append(Seen("quant", kind, f"file type = {load.facts.get('file type') or load.facts.get('model ftype')}"))
        if any(what == "weights" for what, *_ in load.tower):
            found.append(Seen("mmproj", True, load.tower[0][3]))
        if month := _build_month(load):
            found.append(Seen("build", month, "by what the log prints"))
        return found


def _mib(text: str) -> float:
    return float(text) * MIB


def _is_model(load: Load, layers: int | None, hidden_size: int | None) -> bool:
    wide, deep = load.facts_number("n_embd"), load.facts_number("n_layer")
    return bool(wide or deep) and hidden_size in (wide, None) and (deep is None or layers is None or abs(deep - layers) <= 1)


def _longest(rates: list[Rate]) -> tuple[Rate, ...]:
    return (max(rates, key=lambda rate: (min(rate.output, 64), rate.prompt)),) if rates else ()


def _figures(load: Load) -> tuple[Figure, ...]:
    """Sums by what they are for and where they are; a draft's and a tower's under names of their own."""
    parts: list[tuple[str, Place, float, str]] = [("weights", place, size, line) for place, size, line in load.weights]
    for i, context in enumerate(load.contexts):
        ahead = "draft_" if i else ""
        parts += [(ahead + group, place, size, line) for group, place, size, line in context.caches]
        parts += [(f"{ahead}compute", place_of(name), size, line) for name, (size, line) in context.compute.items()]
    parts += [("mmproj" if what == "weights" else "mmproj_compute", place, size, line) for what, place, size, line in load.tower]
    sums: dict[tuple[str, Place], list[Any]] = {}
    for name, place, size, line in parts:
        entry = sums.setdefault((name, place), [0.0, 0.0, line])
        entry[0] += size
        entry[1] += _STEP
    found = [Figure(name, entry[0], "bytes", place, entry[1], entry[2]) for (name, place), entry in sums.items()]
    found += [Figure("runtime", size, "bytes", gpu, 0.5 * MIB, line) for gpu, (size, line) in load.unaccounted.items()]
    file = re.match(r"(\d{1,9}\.\d{1,4}) (MiB|GiB)", load.facts.get("file size") or load.facts.get("model size") or "")
    if file:
        unit = MIB if file[2] == "MiB" else GIB
        found.append(Figure("file_bytes", float(file[1]) * unit, "bytes", None, 0.005 * unit, f"file size = {file[0]}"))
    return tuple(found)


def _facts(load: Load) -> dict[str, Any]:
    numbers = {"layers": "n_layer", "hidden_size": "n_embd", "vocab_size": "n_vocab", "trained_context": "n_ctx_train"}
    found: dict[str, Any] = {name: load.facts_number(key) for name, key in numbers.items() if load.facts_number(key)}
    return found | {name: load.facts[key] for name, key in (("name", "general.name"), ("architecture", "arch")) if key in load.facts}


def _context_settings(c: _Context) -> list[Seen]:
    found = []
    number = {name: int(value) for name, value in c.fields.items() if value.isdigit() and len(value) < 12}
    n_ctx, sequences = number.get("n_ctx"), max(number.get("n_seq_max", 1), 1)
    if n_ctx:
        found.append(Seen("context", max(n_ctx // sequences, 1), c.lines["n_ctx"]))
        found.append(Seen("sequences", sequences, c.lines.get("n_seq_max", c.lines["n_ctx"])))
    for name, option in (("n_ubatch", "ubatch"), ("n_batch", "batch")):
        if name in number:
            found.append(Seen(option, number[name], c.lines[name]))
    if c.fields.get("kv_unified") in ("true", "false", "1", "0") and sequences > 1:
        found.append(Seen("kv_unified", c.fields["kv_unified"] in ("true", "1"), c.lines["kv_unified"]))
    flash = {"enabled": True, "disabled": False, "1": True, "0": False}.get(c.fields.get("flash", c.fields.get("flash_attn", "")))
    if flash is not None:
        found.append(Seen("flash_attn", flash, c.lines.get("flash", c.lines.get("flash_attn", ""))))
    if c.types:
        found += [Seen("kv_type_k", c.types[0], c.types[2]), Seen("kv_type_v", c.types[1], c.types[2])]
    if number.get("n_outputs_max", 0) > sequences and number["n_outputs_max"] >= number.get("n_ubatch", 1 << 30):
        found.append(Seen("logits", "all", c.lines["n_outputs_max"]))
    return found


_FILE_TYPES: Final = {"small": "_S", "medium": "_M", "large": "_L"}


def file_type(text: str) -> str | None:
    """`Q4_K - Medium` → Q4_K_M; None for what names no mix."""
    text = text.removesuffix(" (guessed)").strip()
    kind, _, size = text.partition(" - ")
    kind = {"all F32": "F32", "MXFP4 MoE": "MXFP4_MOE"}.get(kind, kind)
    ending = _FILE_TYPES.get(size.strip().partition(" ")[0].lower(), "")
    return kind + ending if re.fullmatch(r"(?:I?Q|TQ|F|BF|MXFP|NVFP)\w{1,12}", kind + ending) else None


def _build_month(load: Load) -> str | None:
    """The rules of the build, by which fields it prints (data: llamacpp_builds.toml): None for the newest."""
    fields = {name for context in load.contexts for name in context.fields}
    if "n_outputs_max" in fields or not fields:
        return None
    if "rotates" in load.marks:
        return "2026-05"
    return "2025-10" if "n_ctx_seq" in fields else "2025-01"
