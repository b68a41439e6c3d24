"""One load of a model as llama.cpp's log tells it: facts, buffers by place, contexts; and what that amounts to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from ..units import GIB, MIB
from .values import HOST, Figure, Place, Rate, Seen

__all__ = ["Context", "Load", "facts_of", "figures_of", "file_type", "is_model", "longest", "place_of", "settings_of", "used"]

_STEP: Final = 0.005 * MIB
#: What it is for, where it is, its bytes, and the line that says so.
_Part = tuple[str, Place, float, str]


def place_of(buffer: str) -> Place:
    """The GPU a buffer is on by its name (`CUDA0`, `MTL0_Mapped`, `Metal`, `RPC0[host:port]`), or the host (`CPU_Mapped`, `CUDA_Host`)."""
    if buffer.startswith(("CPU", "BLAS")) or buffer.endswith("_Host"):
        return HOST
    number = re.match(r"[A-Za-z]+(\d{1,3})", buffer)
    return int(number[1]) if number else 0


@dataclass(slots=True)
class Context:
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
    contexts: list[Context] = field(default_factory=list)
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

    @property
    def weight_bytes(self) -> float:
        return sum(size for _, size, _ in self.weights)

    def facts_number(self, name: str) -> int | None:
        text = self.facts.get(name, "").strip()
        return int(text) if text.isdigit() and len(text) < 12 else None


def is_model(load: Load, layers: int | None, hidden_size: int | None) -> bool:
    wide, deep = load.facts_number("n_embd"), load.facts_number("n_layer")
    return bool(wide or deep) and hidden_size in (wide, None) and (deep is None or layers is None or abs(deep - layers) <= 1)


def longest(rates: list[Rate]) -> tuple[Rate, ...]:
    return (max(rates, key=lambda rate: (min(rate.output, 64), rate.prompt)),) if rates else ()


def figures_of(load: Load) -> tuple[Figure, ...]:
    """Sums by what they are for and where they are; a draft's, the prediction layers' and a tower's under names of their own."""
    parts: list[_Part] = [("weights", place, size, line) for place, size, line in load.weights]
    drafts = "mtp_" if "mtp" in load.marks else "draft_"
    for i, context in enumerate(load.contexts):
        ahead = drafts if i else ""
        parts.extend((ahead + group, place, size, line) for group, place, size, line in context.caches)
        parts.extend((f"{ahead}compute", place_of(name), size, line) for name, (size, line) in context.compute.items())
    parts.extend(("mmproj" if what == "weights" else "mmproj_compute", place, size, line) for what, place, size, line in load.tower)
    sums: dict[tuple[str, Place], list[Any]] = {}
    number = {gpu: i for i, gpu in enumerate(used(load))}
    for name, place, size, line in parts:
        place = number.get(place, place) if isinstance(place, int) else place
        entry = sums.setdefault((name, place), [0.0, 0.0, line])
        entry[0] += size
        entry[1] += _STEP
    found = [Figure(name, entry[0], "bytes", place, entry[1], entry[2]) for (name, place), entry in sums.items()]
    told = [(number[gpu], *entry) for gpu, entry in load.unaccounted.items() if gpu in number]
    found += [Figure("runtime", size, "bytes", gpu, 0.5 * MIB, line) for gpu, size, line in told]
    file = re.match(r"(\d{1,9}\.\d{1,4}) (MiB|GiB)", load.facts.get("file size") or load.facts.get("model size") or "")
    if file:
        unit = MIB if file[2] == "MiB" else GIB
        found.append(Figure("file_bytes", float(file[1]) * unit, "bytes", None, 0.005 * unit, f"file size = {file[0]}"))
    return tuple(found)


def facts_of(load: Load) -> dict[str, Any]:
    numbers = {"layers": "n_layer", "hidden_size": "n_embd", "vocab_size": "n_vocab", "trained_context": "n_ctx_train"}
    found: dict[str, Any] = {name: load.facts_number(key) for name, key in numbers.items() if load.facts_number(key)}
    return found | {name: load.facts[key] for name, key in (("name", "general.name"), ("architecture", "arch")) if key in load.facts}


def _context_settings(c: Context) -> list[Seen]:
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
        return "2026-05" if "n_rs_seq" in fields else "2026-04"
    return "2025-10" if "n_ctx_seq" in fields else "2025-01"


def settings_of(load: Load) -> list[Seen]:
    """What the load ran with, in the words of `plan`."""
    found = _context_settings(load.contexts[0]) if load.contexts else []
    line = next((text for _, _, text in load.weights), "")
    backend = next(iter(load.backends - {""}), "cpu" if load.weights else "")
    if backend:
        found.append(Seen("backend", backend, line))
    if load.offloaded and load.offloaded[0] < load.offloaded[1] and backend != "cpu":
        found.append(Seen("n_gpu_layers", load.offloaded[0], load.offloaded[2]))
    if split := _split(load):
        found.append(Seen("tensor_split", split, "by the cache of each GPU"))
    if kind := file_type(load.facts.get("file type") or load.facts.get("model ftype") or ""):
        found.append(Seen("quant", kind, f"file type = {load.facts.get('file type') or load.facts.get('model ftype')}"))
    if any(what == "weights" for what, *_ in load.tower):
        found.append(Seen("mmproj", True, load.tower[0][3]))
    if month := _build_month(load):
        found.append(Seen("build", month, "by what the log prints"))
    if "mtp" in load.marks:
        found.append(Seen("mtp", True, "creating MTP draft context"))
    return found


def used(load: Load) -> list[int]:
    """The GPUs that hold something of the model, in order: others that were there are left out."""
    places = {place for place, *_ in load.weights} | {place for context in load.contexts[:1] for _, place, *_ in context.caches}
    return sorted(place for place in places if isinstance(place, int))


def _split(load: Load) -> str | None:
    """Layers of each of several GPUs, where each layer's cache is as large as the others'; the output counts as one more of the last."""
    gpus, layers = used(load), load.facts_number("n_layer")
    caches = load.contexts[0].caches if load.contexts else []
    sizes = {place: size for group, place, size, _ in caches if group == "kv_cache" and isinstance(place, int)}
    if len(gpus) < 2 or layers is None or len(caches) != len(gpus) or set(sizes) != set(gpus) or not all(sizes.values()):
        return None
    per_layer = sum(sizes.values()) / layers
    counts = [sizes[gpu] / per_layer for gpu in gpus]
    if any(abs(count - round(count)) > 0.05 for count in counts):
        return None
    return ",".join(str(round(count) + (i == len(counts) - 1)) for i, count in enumerate(counts))
