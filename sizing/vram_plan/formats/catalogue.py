"""Every number format by name: what people type, what it stores, and a model's weights in it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Final, Literal

from vram_plan_data import ROOT

from ..errors import UnknownNameError, UsageError
from ..models.architecture import Architecture, Tensor
from ..values import dataclass
from .gguf_inventory import as_gguf, gguf_facts
from .mixes import GgufFacts, mix_bits, mix_types
from .scheme import Scheme, apply_scheme
from .storage import is_scheme_key, storage_bits_per_weight, storage_bytes

__all__ = ["Format", "apply_format", "find_format", "for_engine", "format_for_bits", "inventory_bytes", "list_formats"]

Family = Literal["gguf", "scheme", "dtype"]


@dataclass(frozen=True, slots=True)
class Format:
    """A number format a model's weights can be in.

    `bits_per_weight` of a GGUF mix is that of a whole file (Llama-3-8B), of a scheme that of one quantised matrix.
    `stored_as` is the key of `formats.storage` its quantised matrices have, for a mix its base type.
    """

    name: str
    family: Family
    bits_per_weight: float
    note: str
    source: str
    stored_as: str


#: `--bits` by engine (the contract): what each engine's users usually run at that width.
_GGUF_BITS: Final = {2: "Q2_K", 3: "Q3_K_M", 4: "Q4_K_M", 5: "Q5_K_M", 6: "Q6_K", 8: "Q8_0", 16: "F16"}
_SERVER_BITS: Final = {4: "AWQ", 8: "FP8", 16: "BF16"}
_BITS: Final = {
    "llama.cpp": _GGUF_BITS,
    "ollama": _GGUF_BITS,
    "vllm": _SERVER_BITS,
    "sglang": _SERVER_BITS,
    "transformers": {4: "NF4", 8: "INT8", 16: "BF16"},
}
#: Short names of GGUF mixes: the usual one of that width.
_SHORT: Final = {
    "q2": "Q2_K", "q3": "Q3_K_M", "q3k": "Q3_K_M", "q4": "Q4_K_M", "q4k": "Q4_K_M", "q5": "Q5_K_M", "q5k": "Q5_K_M", "q6": "Q6_K",
    "q8": "Q8_0",
    "iq4": "IQ4_XS",
}  # fmt: skip
_BITS_WORD: Final = re.compile(r"(?:int)?(\d{1,2})-?bits?")
#: Storage keys that are variants of a listed format: with zero points, with 8-bit scales.
_VARIANTS: Final = {"CTZ": "CT", "FP8BE": "FP8B"}
_MIX_SOURCE: Final = "llama.cpp, src/llama-quant.cpp (0c1e57098)"


def _key(text: str) -> str:
    """A name without what people vary: case, spaces, `-`, `_`, `.`."""
    return re.sub(r"[\s_.\-]+", "", text.lower())


@lru_cache(maxsize=1)
def _formats() -> dict[str, Format]:
    """Every format by name, in the order they are listed."""
    with (ROOT / "formats.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {r["name"]: _plain(r) for r in rows if r["family"] == "dtype"}
    for name, (base, bits, note) in mix_bits().items():
        found[name] = Format(name, "gguf", bits, note, _MIX_SOURCE, base)
    found.update({r["name"]: _plain(r) for r in rows if r["family"] == "scheme"})
    return found


def _plain(row: dict[str, str]) -> Format:
    family: Family = "dtype" if row["family"] == "dtype" else "scheme"
    return Format(row["name"], family, round(storage_bits_per_weight(row["stored_as"]), 3), row["note"], row["source"], row["stored_as"])


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """What people type, reduced by `_key`, to the format's name."""
    with (ROOT / "formats.csv").open(encoding="utf-8", newline="") as file:
        aliases = {_key(alias): row["name"] for row in csv.DictReader(file) for alias in (row["stored_as"], *row["aliases"].split())}
    return {**aliases, **_SHORT, **{_key(name): name for name in _formats()}}


def find_format(text: str, engine: str = "llama.cpp") -> Format:
    """The format of that name, forgivingly read: `q4_k_m`, `Q4KM`, `awq`, `fp8`, `nf4`, `GPTQ-4/32`; `4bit` by the engine.

    Raises UnknownNameError, naming the nearest.
    """
    bits = _BITS_WORD.fullmatch(text.strip().lower())
    if bits and "bit" in text.lower() and int(bits[1]) != 32:
        return format_for_bits(int(bits[1]), engine)
    name = _names().get(_key(text[:64]))
    if name is not None:
        return _formats()[name]
    parameterised = text.strip().upper()
    if is_scheme_key(parameterised):
        return _parameterised(parameterised)
    if parameterised.startswith("UD-"):
        raise UnknownNameError(f"{text[:40]!r} follows no published rules", "name the file itself: its header says every tensor's format")
    near = get_close_matches(_key(text[:64]), _names(), n=6, cutoff=0.5)
    names = list(dict.fromkeys(_names()[key] for key in near))[:3]
    hint = f"did you mean {' or '.join(names)}? " if names else ""
    raise UnknownNameError(f"no number format is called {text[:40]!r}", hint + "`vram-plan formats` lists them")


def _parameterised(key: str) -> Format:
    """A scheme with its own bits or group size; the named one where that is the same."""
    bits = round(storage_bits_per_weight(key), 3)
    kind = key.split("-")[0]
    usual = next(f for f in _formats().values() if f.stored_as.split("-")[0] == _VARIANTS.get(kind, kind))
    if storage_bytes(key, (384, 768)) == storage_bytes(usual.stored_as, (384, 768)):
        return usual
    return Format(key, "scheme", bits, f"as {usual.name}, with bits and group size of its own", usual.source, key)


def list_formats(query: str = "") -> tuple[Format, ...]:
    """The formats whose name, family or note holds `query`; all without one."""
    wanted = _key(query[:64])
    return tuple(f for f in _formats().values() if wanted in _key(f.name) or query.lower() in f.family or query.lower() in f.note.lower())


@lru_cache(maxsize=256)
def format_for_bits(bits: int, engine: str) -> Format:
    """The format an engine's users usually run at that width. Raises UsageError for a width it has none for."""
    table = _BITS.get(engine.lower().replace("llamacpp", "llama.cpp"))
    if table is None:
        raise UnknownNameError(f"no engine is called {engine[:40]!r}", f"known: {', '.join(_BITS)}")
    if bits not in table:
        raise UsageError(f"{engine} has no usual {bits}-bit format", f"--bits {', '.join(map(str, table))}, or name a format with --quant")
    return for_engine(find_format(table[bits]), engine)


@lru_cache(maxsize=256)
def for_engine(format: Format, engine: str) -> Format:
    """A format as an engine's files have it: a plain dtype in a GGUF keeps norms in fp32 and leaves towers out; llama.cpp's quantiser
    and converter put what no MXFP4 is meant for in Q8_0 (Ollama's gpt-oss is the checkpoint as it was)."""
    if format.name == "MXFP4" and engine.lower() == "llama.cpp":
        return _formats()["MXFP4_MOE"]
    gguf = format.family == "dtype" and engine.lower() in ("llama.cpp", "ollama")
    return replace(format, family="gguf", note=f"a GGUF of {format.name}: matrices so, norms and vectors in fp32") if gguf else format


@lru_cache(maxsize=64)
def _gguf(architecture: Architecture) -> tuple[tuple[Tensor, ...], GgufFacts]:
    """A model's 16-bit GGUF and what mixes ask of it: the same for every mix."""
    tensors = as_gguf(architecture)
    return tensors, gguf_facts(architecture, tensors)


def apply_format(architecture: Architecture, format: Format) -> tuple[Tensor, ...]:
    """A model's weights in a format. A GGUF leaves vision and audio towers out: they are a file of their own."""
    if format.family == "gguf":
        tensors, facts = _gguf(architecture)
        return mix_types(tensors, format.name, facts)
    if format.family == "dtype":
        return tuple(Tensor(t.role, t.layer, t.shape, t.experts, format.stored_as, t.part) for t in architecture.tensors)
    return apply_scheme(architecture.tensors, Scheme.plain(format.name, format.stored_as))


def inventory_bytes(tensors: Iterable[Tensor]) -> int:
    """Exact bytes of all tensors as stored."""
    return sum(storage_bytes(t.stored_as, t.shape) for t in tensors)
