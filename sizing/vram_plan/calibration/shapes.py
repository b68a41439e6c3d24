"""The models a calibration runs: llama-shaped ones of chosen widths, any architecture cut to its first layers; as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..models.architecture import Architecture, CacheLayer, Tensor
from ..models.dialects import read_architecture

__all__ = ["first_layers", "from_wire", "ladder_shape"]

_EXPERTS, _CHOSEN = 8, 2


def ladder_shape(hidden: int, layers: int, vocab: int, *, mixture: bool = False) -> Architecture:
    """Llama's layer at this width: heads of 128 (64 when narrow), a quarter as many KV heads, a block 3.5 times as wide.

    `mixture`: eight experts of half that width, two of them chosen, in the block's place (Mixtral's layer).
    """
    head = 128 if hidden >= 1024 else 64
    heads = max(hidden // head, 1)
    config: dict[str, Any] = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "head_dim": head,
        "num_key_value_heads": max(heads // 4, 1), "vocab_size": vocab, "max_position_embeddings": 1 << 20,
    }  # fmt: skip
    if mixture:
        config |= {
            "model_type": "mixtral", "intermediate_size": _wide(hidden // 2), "num_local_experts": _EXPERTS,
            "num_experts_per_tok": _CHOSEN, "sliding_window": None,
        }  # fmt: skip
    else:
        config |= {"model_type": "llama", "intermediate_size": _wide(hidden)}
    return read_architecture(config, "the calibration's own shape")


def _wide(hidden: int) -> int:
    """3.5 times the width, in steps the packed kernels take."""
    return -(-hidden * 7 // 2 // 256) * 256


def first_layers(architecture: Architecture, layers: int) -> Architecture:
    """The same model with its first `layers` layers only; draft layers and towers are left out."""
    return replace(
        architecture,
        layers=min(layers, architecture.layers),
        tensors=tuple(t for t in architecture.tensors if t.part == "text" and (t.layer is None or t.layer < layers)),
        cache_layers=tuple(c for c in architecture.cache_layers if c.layer < layers),
    )


def from_wire(wire: Mapping[str, Any]) -> Architecture:
    """An architecture as `dataclasses.asdict` wrote it for the measuring process."""
    fields = dict(wire)
    fields["tensors"] = tuple(Tensor(role, layer, tuple(shape), *rest) for role, layer, shape, *rest in wire["tensors"])
    fields["cache_layers"] = tuple(CacheLayer(*row) for row in wire["cache_layers"])
    fields["notes"] = tuple(wire["notes"])
    return Architecture(**fields)
