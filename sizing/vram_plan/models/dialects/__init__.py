"""From a `config.json` to an `Architecture`. One small function a family, found by the config's `model_type`.

To add a family: write a function `(Config) -> Architecture` in the module it belongs to and mark it
`@family("its_model_type")`; nothing else changes. Nested configs (vision models) are one function too: it reads
its language model with `read_text` and adds its towers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import FormatError
from ..architecture import Architecture
from .config import Config
from .registry import reader_of

__all__ = ["read_architecture"]


def read_architecture(raw: Mapping[str, Any], where: str = "config.json") -> Architecture:
    """The architecture a config describes.

    Raises FormatError where a value cannot be meant or where not even the standard reading is possible.
    An unknown `model_type` gets the standard-transformer reading with `basis="fallback"`.
    """
    if not isinstance(raw, Mapping):
        raise FormatError(f"{where} holds no JSON object")
    c = Config(raw, where)
    reader = reader_of(c.text("model_type"))
    if reader is None:
        from .standard import standard

        return standard(c)
    return reader(c)
