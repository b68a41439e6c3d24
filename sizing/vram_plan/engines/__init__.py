"""Who runs the model: one module an engine, found by its name."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Final, cast

from ..errors import UnknownNameError
from ..formats.cache_types import cache_type
from .base import Allocation, Engine, Work

__all__ = ["ENGINES", "Allocation", "Engine", "Work", "engine_cache_type", "engine_module", "engine_name"]

#: Engine → the module that knows its rules.
ENGINES: Final = {
    "ollama": "ollama",
    "llama.cpp": "llamacpp.engine",
    "vllm": "vllm.engine",
    "sglang": "sglang.engine",
    "transformers": "transformers.engine",
}
#: The KV cache types each engine has.
_GGML: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_SERVER: Final = ("f32", "f16", "bf16", "fp8")
_KV_TYPES: Final = {"ollama": _GGML, "llama.cpp": _GGML, "vllm": _SERVER, "sglang": _SERVER, "transformers": ("f32", "f16", "bf16")}
_ALIASES: Final = {"llamacpp": "llama.cpp", "llama-cpp": "llama.cpp", "llama-server": "llama.cpp", "hf": "transformers"}


def engine_name(text: str) -> str:
    """The canonical name of an engine. Raises UnknownNameError, naming the nearest."""
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    if name not in ENGINES:
        near = get_close_matches(name, ENGINES, n=1, cutoff=0.4)
        hint = (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(ENGINES)}"
        raise UnknownNameError(f"no engine is called {text[:40]!r}", hint)
    return name


def engine_cache_type(engine: str, text: str) -> str:
    """A KV cache type the engine has, by its canonical name. Raises UnknownNameError, listing the engine's."""
    name = cache_type(text)
    if name not in _KV_TYPES[engine]:
        others = " or ".join(other for other, types in _KV_TYPES.items() if name in types)
        having = f"; {name} is for --engine {others}" if others else ""
        raise UnknownNameError(f"{engine} has no {name} KV cache", f"it has: {', '.join(_KV_TYPES[engine])}{having}")
    return name


@cache
def engine_module(name: str) -> Engine:
    """The module with an engine's rules."""
    return cast(Engine, import_module(f".{ENGINES[name]}", __name__))
