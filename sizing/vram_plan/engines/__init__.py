"""Who runs the model: one module an engine, found by its name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Final, cast

from ..errors import UnknownNameError
from .base import Allocation, Engine, Work

__all__ = ["ENGINES", "Allocation", "Engine", "Work", "engine_module", "engine_name"]

#: Engine → the module that knows its rules.
ENGINES: Final = {
    "ollama": "ollama",
    "llama.cpp": "llamacpp",
    "vllm": "vllm",
    "sglang": "sglang",
    "transformers": "transformers",
}
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


def engine_module(name: str) -> Engine:
    """The module with an engine's rules."""
    return cast(Engine, import_module(f".{ENGINES[name]}", __name__))
