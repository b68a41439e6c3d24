"""What SGLang keeps of a token and of a request, in bytes, on one rank of one pipeline stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ..models.architecture import CacheLayer
from ..models.model import Model
from .sglang_settings import Settings, window_pool

__all__ = ["Cells", "cells_of"]

#: Bytes of one indexer key: 128 values in fp8 and a scale for each 128.
_INDEX_SCALE: Final = 4


@dataclass(frozen=True, slots=True)
class Cells:
    """What one pipeline stage keeps on one rank: bytes of a token in full layers and in windowed ones, and of one request's states."""

    full: int
    windowed: int
    state: int


def cells_of(model: Model, s: Settings, layers: Iterable[CacheLayer]) -> Cells:
    split_pool = window_pool(model) is not None
    full = windowed = state = 0
    for layer in layers:
        size = _token_bytes(layer, s)
        windowed_layer = layer.kind in ("sliding", "chunked") or (layer.kind == "latent" and layer.window)
        if split_pool and (windowed_layer or layer.kind == "compressed"):
            windowed += size
        else:
            full += size
        if layer.compress_ratio:
            full += (layer.compressed_dim + layer.index_dim) * s.element_bytes // layer.compress_ratio
        state += _state_bytes(model, layer) // s.tp
    full += full * _draft_layers(model, s) // max(model.architecture.layers, 1)
    return Cells(full, windowed, state)


def _token_bytes(layer: CacheLayer, s: Settings) -> int:
    """One token of one layer: KV heads are shared out, latents are not; an indexer's key is in fp8 with its scale."""
    if layer.kind in ("recurrent", "shared", "cross"):
        return 0
    index = layer.index_dim + layer.index_dim // 128 * _INDEX_SCALE if layer.index_dim and not layer.compress_ratio else 0
    if layer.kind == "latent":
        packed = s.element_bytes == 1 and layer.index_dim
        latent = layer.latent_rank + layer.latent_rank // 128 * 4 + (layer.k_dim - layer.latent_rank) * 2 if packed else 0
        return (latent or layer.k_dim * s.element_bytes) + index
    return max(1, layer.kv_heads // s.tp) * (layer.k_dim + layer.v_dim) * s.element_bytes + index


def _draft_layers(model: Model, s: Settings) -> int:
    if not s.speculative:
        return 0
    return len({tensor.layer for tensor in model.architecture.tensors if tensor.part == "mtp"})


def _state_bytes(model: Model, layer: CacheLayer) -> int:
    """A request's state of one layer: k − 1 convolution inputs in 16 bits, recurrent state in fp32 (configs/mamba_utils.py)."""
    if layer.kind != "recurrent":
        return 0
    kernel = _kernels(model).get(layer.layer, 0)
    kept = layer.conv_elements * (kernel - 1) // kernel if kernel > 1 else layer.conv_elements
    config = model.config or {}
    text = config.get("text_config")
    said = (text if isinstance(text, Mapping) else config).get("mamba_ssm_dtype")
    return 2 * kept + layer.state_elements * (2 if said in ("bfloat16", "float16") else 4)


@lru_cache(maxsize=64)
def _kernels(model: Model) -> dict[int, int]:
    """Layer → width of its convolution, where what transformers keeps of it is that many inputs."""
    return {
        tensor.layer: tensor.shape[-1]
        for tensor in model.architecture.tensors
        if tensor.layer is not None and len(tensor.shape) == 2 and tensor.role.startswith(("ssm_conv1d", "shortconv.conv"))
    }
