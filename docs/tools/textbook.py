"""What a sizing page on one sheet of paper gives: parameters, weights and KV from a config's plainest numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["textbook_kv", "textbook_parameters", "textbook_weights"]


def shape_of(config: Mapping[str, Any] | None) -> dict[str, int] | None:
    """Layers, width, heads, KV heads and vocabulary, as a reader picks them from a config; None where they are not all there."""
    found = dict(config or {})
    found |= next((found[name] for name in ("text_config", "llm_config", "language_config") if isinstance(found.get(name), dict)), {})
    names = {"layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"), "width": ("hidden_size", "n_embd", "d_model")}
    names |= {"heads": ("num_attention_heads", "n_head", "n_heads"), "vocabulary": ("vocab_size",)}
    shape = {key: next((found[name] for name in options if name in found), None) for key, options in names.items()}
    if not all(isinstance(value, int) and value > 0 for value in shape.values()):
        return None
    kv_heads = found.get("num_key_value_heads")
    return {**shape, "kv_heads": kv_heads if isinstance(kv_heads, int) else shape["heads"]}  # type: ignore[dict-item]


def textbook_parameters(config: Mapping[str, Any] | None) -> float | None:
    """12 × layers × width² + 2 × vocabulary × width."""
    shape = shape_of(config)
    return None if shape is None else 12 * shape["layers"] * shape["width"] ** 2 + 2 * shape["vocabulary"] * shape["width"]


def textbook_weights(parameters: int, format: str, ranks: int = 1) -> float:
    """Bytes: parameters × bits ÷ 8, the bits being the number in the format's name (AWQ and GPTQ: 4)."""
    number = re.search(r"\d+", format)
    return parameters * (int(number[0]) if number else 4) / 8 / ranks


def textbook_kv(config: Mapping[str, Any] | None, tokens: float, element_bytes: float = 2, ranks: int = 1) -> float | None:
    """Bytes: 2 × layers × KV heads × (width ÷ heads) × tokens × bytes."""
    shape = shape_of(config)
    if shape is None:
        return None
    heads = max(1, shape["kv_heads"] / ranks)
    return 2 * shape["layers"] * heads * (shape["width"] / shape["heads"]) * tokens * element_bytes
