"""What SGLang keeps of a page of tokens and of a request, in bytes, on one rank of one pipeline stage.

Source: sglang 0.5.23, srt/model_executor/pool_configurator.py, srt/mem_cache/deepseek_v4_memory_pool.py,
kernels/ops/attention/dsv4/kv_layout.py (layout V4), srt/configs/mamba_utils.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from ...models.architecture import CacheLayer
from ...models.model import Model
from ...values import dataclass
from .settings import Settings, is_compressed, window_pool

__all__ = ["Cells", "cells_of"]

#: Values of an indexer's key with a scale of their own, and the scale's bytes.
_INDEX_GROUP, _INDEX_SCALE = 128, 4
#: Compressed attention: a token is 8-bit values, 16-bit ones where rope turns them, and 8 bytes of scales; pages are whole rows.
_SCALES: Final = 8
_DEFAULT_ROPE: Final = 64
#: Its unfinished entries are fp32, K and score: of 4 tokens (twice, and an indexer's as well) in 8 rows for each page of the
#: windows' pool; of 128 tokens in as many rows for each request and two more, in steps of 128 rows.
_STATE_BYTES, _RING, _STATE_ROWS = 4, 8, 128


@dataclass(frozen=True, slots=True)
class Cells:
    """What one pipeline stage keeps on one rank: bytes of a page of tokens in full layers and in windowed ones, of one request's
    states, and what is there whatever the requests."""

    full: int
    windowed: int
    state: int
    fixed: int = 0


def cells_of(model: Model, s: Settings, layers: Iterable[CacheLayer]) -> Cells:
    if is_compressed(model):
        return _compressed(model, s, tuple(layers))
    split_pool = window_pool(model, s.profile) is not None
    full = windowed = state = 0
    for layer in layers:
        size = _token_bytes(layer, s) * s.page
        if split_pool and (layer.kind in ("sliding", "chunked") or (layer.kind == "latent" and layer.window)):
            windowed += size
        else:
            full += size
        state += _state_bytes(model, layer) // s.attention_tp
    full += full * _draft_layers(model, s) // max(model.architecture.layers, 1)
    return Cells(full, windowed, state)


def _token_bytes(layer: CacheLayer, s: Settings) -> int:
    """One token of one layer: KV heads are shared out, latents are not; an indexer's key is in fp8 with its scale."""
    if layer.kind in ("recurrent", "shared", "cross"):
        return 0
    index = _index_bytes(layer)
    if layer.kind == "latent":
        packed = s.element_bytes == 1 and layer.index_dim
        latent = layer.latent_rank + layer.latent_rank // 128 * 4 + (layer.k_dim - layer.latent_rank) * 2 if packed else 0
        return (latent or layer.k_dim * s.element_bytes) + index
    return max(1, layer.kv_heads // s.attention_tp) * (layer.k_dim + layer.v_dim) * s.element_bytes + index


def _index_bytes(layer: CacheLayer) -> int:
    return layer.index_dim + layer.index_dim // _INDEX_GROUP * _INDEX_SCALE


def _compressed(model: Model, s: Settings, layers: tuple[CacheLayer, ...]) -> Cells:
    """DeepSeek-V4: every layer has its window; of all tokens it keeps one entry for 4 or 128 (`DSV4PoolConfigurator`).

    A draft is reckoned as one layer more of everything, and its tokens widen the rings.
    """
    rope = (model.config or {}).get("qk_rope_head_dim")
    rope = rope if isinstance(rope, int) and 0 <= rope <= 1 << 16 else _DEFAULT_ROPE
    wider = 2 if s.speculative else 1
    full = windowed = fixed = 0
    for layer in layers:
        windowed += _page_bytes(s.page, layer.k_dim + rope)
        if layer.compress_ratio:
            entries = s.page // layer.compress_ratio
            full += _page_bytes(entries, layer.compressed_dim + rope) + entries * _index_bytes(layer)
        if layer.index_dim:
            windowed += wider * _RING * 4 * (layer.compressed_dim + layer.index_dim) * _STATE_BYTES
        elif layer.compress_ratio:
            ring = wider * layer.compress_ratio
            rows = ((s.max_requests or 1) + 2) * ring + 1
            fixed += -(-rows // _STATE_ROWS) * _STATE_ROWS * 2 * layer.compressed_dim * _STATE_BYTES
    drafts = len(layers) + (1 if s.speculative else 0)
    return Cells(full * drafts // max(len(layers), 1), windowed * drafts // max(len(layers), 1), 0, fixed)


def _page_bytes(rows: int, row: int) -> int:
    """Rows of a page, rounded up to whole rows without their scales."""
    return -(-rows * (row + _SCALES) // row) * row


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
