"""The table of families, filled by the `@family` mark on each reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..architecture import Architecture
from .config import Config

__all__ = ["FAMILIES", "Reader", "family"]

Reader = Callable[[Config], Architecture]
FAMILIES: Final[dict[str, Reader]] = {}


def family(*model_types: str) -> Callable[[Reader], Reader]:
    """Mark a function as the reader of these `model_type`s."""

    def mark(reader: Reader) -> Reader:
        for name in model_types:
            if name in FAMILIES:
                raise ValueError(f"two readers for model_type {name!r}")
            FAMILIES[name] = reader
        return reader

    return mark
