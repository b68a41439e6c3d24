"""From a `config.json` to an `Architecture`. One small function a family, found by the config's `model_type`.

To add a family: write a function `(Config) -> Architecture` in the module it belongs to and mark it
`@family("its_model_type")`; nothing else changes. Nested configs (vision models) are one function too: it reads
its language model with `read_text` and adds its towers.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ...errors import FormatError
from ..architecture import Architecture
from .config import Config
from .registry import FAMILIES, Reader

__all__ = ["read_architecture"]

_MODULES = (
    "dense",
    "irregular",
    "seq2seq",
    "encoders",
    "encoders_modern",
    "gemma",
    "gpt",
    "moe",
    "deepseek",
    "deepseek_v4",
    "latent_more",
    "moe_windowed",
    "moe_special",
    "moe_convolved",
    "moe_seq2seq",
    "recurrent",
    "hybrid",
    "nemotron_h",
    "delta",
    "linear_attention",
    "ling",
    "short_convolution",
    "hybrid_streams",
    "nested_text",
    "vision_merged",
    "multimodal",
    "multimodal_merged",
    "multimodal_audio",
    "multimodal_bridged",
    "multimodal_remote",
    "multimodal_newer",
)
_loaded = False


def _families() -> dict[str, Reader]:
    global _loaded
    if not _loaded:
        for name in _MODULES:
            import_module(f".{name}", __name__)
        _loaded = True
    return FAMILIES


def read_architecture(raw: Mapping[str, Any], where: str = "config.json") -> Architecture:
    """The architecture a config describes.

    Raises FormatError where a value cannot be meant or where not even the standard reading is possible.
    An unknown `model_type` gets the standard-transformer reading with `basis="fallback"`.
    """
    if not isinstance(raw, Mapping):
        raise FormatError(f"{where} holds no JSON object")
    c = Config(raw, where)
    reader = _families().get(c.text("model_type"))
    if reader is None:
        from .standard import standard

        return standard(c)
    return reader(c)
