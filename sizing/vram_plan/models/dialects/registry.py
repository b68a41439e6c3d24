"""The table of families, filled by the `@family` mark on each reader as its module is imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Final

from ..architecture import Architecture
from .config import Config

__all__ = ["Reader", "all_families", "family", "known_reader", "reader_of"]

Reader = Callable[[Config], Architecture]
_FAMILIES: Final[dict[str, Reader]] = {}


def family(*model_types: str) -> Callable[[Reader], Reader]:
    """Mark a function as the reader of these `model_type`s."""

    def mark(reader: Reader) -> Reader:
        for name in model_types:
            if name in _FAMILIES:
                raise ValueError(f"two readers for model_type {name!r}")
            _FAMILIES[name] = reader
        return reader

    return mark


def reader_of(model_type: str) -> Reader | None:
    """The reader of a `model_type`, or None. One module is imported when the index has it, else all are."""
    module = _index().get(model_type)
    if model_type not in _FAMILIES and module:
        import_module(f".{module}", __package__)
    return _FAMILIES.get(model_type) or all_families().get(model_type)


def known_reader(model_type: str) -> Reader:
    """The reader of a `model_type` that has one."""
    reader = reader_of(model_type)
    if reader is None:
        raise LookupError(f"no reader for model_type {model_type!r}")
    return reader


@lru_cache(maxsize=1)
def all_families() -> Mapping[str, Reader]:
    """Every family, all modules imported."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "__init__":
            import_module(f".{path.stem}", __package__)
    return _FAMILIES


@lru_cache(maxsize=1)
def _index() -> Mapping[str, str]:
    """Which module reads which `model_type`; written by `data/tools/build_families.py`, only to import less."""
    from vram_plan_data import ROOT

    index: Mapping[str, str] = json.loads((ROOT / "families.json").read_text(encoding="utf-8"))
    return index
