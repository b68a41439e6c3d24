"""What a vLLM rank keeps beside its parameters: rope tables, buffers for a whole batch, and small things per layer.

Rope tables are whole on every rank of tensor parallelism and on every pipeline stage, and as long as the config's
positions, whatever `--max-model-len` says. Source: vLLM 0.32, model_executor/layers/rotary_embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from ...models.architecture import CacheLayer
from ...models.model import Model
from ...values import dataclass
from .classes import VllmClass, text_config, vllm_class
from .inventory import layer_heads
from .shards import local_shape

__all__ = ["RopeTable", "batch_buffer_bytes", "layer_buffer_bytes", "rope_tables"]

_Config = Mapping[str, object]
_DEFAULT_POSITIONS: Final = 8192
#: Positions of the table of a vision tower (qwen2_vl.py and its kin).
_VISION_POSITIONS: Final = 8192
#: Where configs say how long the table is, by the first that is there (commandr.py, chatglm.py, dbrx.py, the rest).
_POSITION_KEYS: Final = ("model_max_length", "max_position_embeddings", "seq_length", "max_seq_len", "max_sequence_length", "n_positions")
#: Scalings whose table reaches factor × the original length.
_STRETCHED: Final = ("yarn", "deepseek_yarn", "deepseek_llama_scaling")
_ROTATED: Final = ("full", "sliding", "chunked", "latent", "compressed")
#: The share of a head that is rotated where the config does not say (transformers 5.19, the families' configurations).
_DEFAULT_SHARES: Final = {
    **dict.fromkeys(("glm", "glm4", "glm4_moe", "glm4v", "glm4v_moe", "nemotron"), 0.5),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen3_next", "stablelm"), 0.25),
}
#: Frames of a block where Granite Speech's config does not say (configuration_granite_speech.py).
_SOUND_BLOCK: Final = 200
#: Four scales in fp32 on the device and two on the host, as the attention layer's tensors (attention.py).
ATTENTION_LAYER_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Sines and cosines for `positions` × `width`, in `element_bytes`."""

    positions: int
    width: int
    element_bytes: int = 2

    @property
    def bytes(self) -> int:
        return self.positions * self.width * self.element_bytes


@lru_cache(maxsize=512)
def rope_tables(model: Model, layers: range) -> tuple[RopeTable, ...]:
    """Every table a stage with these layers has: one for each distinct rope of its layers, and the vision tower's."""
    kind, config = vllm_class(model), text_config(model)
    vision = _vision_table(model) if "vision" in kind.rope else ()
    if "none" in kind.rope:
        return vision
    if config.get("position_embedding_type", None if "asked" in kind.rope else "rope") != "rope" and kind.native:
        return vision
    rotated = (c for c in model.cache_layers if c.layer in layers and c.kind in _ROTATED and c.k_dim)
    ropes = {_rope(model, kind, config, layer): None for layer in rotated}
    tables = tuple(table for table, *_ in ropes)
    indexer = tables if "indexer" in kind.rope and not config.get("indexer_rope_interleave") else ()
    return (*tables, *indexer, *vision)


def _rope(model: Model, kind: VllmClass, config: _Config, layer: CacheLayer) -> tuple[RopeTable, object, object]:
    """A layer's table, and what else tells one rope from another."""
    sliding = layer.kind in ("sliding", "chunked") and "local" in kind.rope
    scaling = _scaling(config, sliding)
    width = _width(config, scaling, layer)
    table = RopeTable(_positions(model, kind, config, scaling), width, 4 if "fp32" in kind.rope else 2)
    return table, sliding, bool(layer.compress_ratio)


def _scaling(config: _Config, sliding: bool) -> _Config:
    """The rope parameters of a kind of layer: one for all, or by the layer's type; a local rope has no scaling."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(found, Mapping):
        return {}
    by_kind = found.get("sliding_attention" if sliding else "full_attention")
    if isinstance(by_kind, Mapping):
        return by_kind
    return {} if sliding else found


def _width(config: _Config, scaling: _Config, layer: CacheLayer) -> int:
    """Elements of a head that are rotated."""
    if layer.latent_rank:
        return layer.k_dim - layer.latent_rank
    if config.get("qk_rope_head_dim") is not None:
        return _whole(config["qk_rope_head_dim"], layer.k_dim)
    if scaling.get("rope_type") == "proportional":
        return layer.k_dim
    rotary = _whole(scaling.get("rope_dim") or config.get("rotary_dim"), 0)
    if rotary:
        return min(rotary, layer.k_dim)
    share = scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or config.get("rotary_pct")
    if share is None:
        chatglm = config.get("kv_channels") and config.get("seq_length")
        share = 0.5 if chatglm else _DEFAULT_SHARES.get(str(config.get("model_type")).removesuffix("_text"))
    return int(layer.k_dim * share) if isinstance(share, float) and 0 < share <= 1 else layer.k_dim


def _positions(model: Model, kind: VllmClass, config: _Config, scaling: _Config) -> int:
    limit = next((_whole(config[key], 0) for key in _POSITION_KEYS if _whole(config.get(key), 0)), 0)
    limit = limit or model.trained_context or _DEFAULT_POSITIONS
    name = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor")
    times = float(factor) if isinstance(factor, (int, float)) and 0 < factor <= 1 << 20 else 1.0
    original = _whole(scaling.get("original_max_position_embeddings") or config.get("original_max_position_embeddings"), 0)
    if name in _STRETCHED and original:
        limit = int(original * times)
    elif name == "linear":
        limit = int(limit * times)
    elif name in ("longrope", "su") and original:
        limit += original
    return limit * (4 if scaling.get("mrope_section") and "mrope1" not in kind.rope else 1)


def _vision_table(model: Model) -> tuple[RopeTable, ...]:
    """Half of each head of the tower is rotated (qwen2_vl.py, qwen3_vl.py, glm4_1v.py)."""
    config: _Config = model.config or {}
    inner = config.get("thinker_config")
    vision = (inner if isinstance(inner, Mapping) else config).get("vision_config")
    if not isinstance(vision, Mapping):
        return ()
    hidden = _whole(vision.get("embed_dim"), 0) or _whole(vision.get("hidden_size"), 0)
    heads = _whole(vision.get("num_heads"), 0) or _whole(vision.get("num_attention_heads"), 0)
    return (RopeTable(_VISION_POSITIONS, hidden // heads // 2),) if hidden and heads else ()


def batch_buffer_bytes(model: Model, batch_tokens: int, tp: int) -> int:
    """Buffers for the tokens of one step: the sparse indexer's picks, and the per-layer embeddings of Gemma's classes with towers."""
    config = text_config(model)
    size = 0
    if any(c.index_dim for c in model.cache_layers):
        size += 4 * batch_tokens * _whole(config.get("index_topk"), 0)
        sparse = config.get("sparse_attention_config")
        if isinstance(sparse, Mapping):  # by index head (models/minimax_m3)
            heads = max(1, _whole(sparse.get("sparse_num_index_heads"), 1) // tp)
            size += 4 * batch_tokens * heads * _whole(sparse.get("sparse_topk_blocks"), 0)
    towers = any(t.part != "text" for t in model.architecture.tensors)
    if towers and any(t.role == "per_layer_token_embd" for t in model.architecture.tensors):
        size += 2 * batch_tokens * model.architecture.layers * _whole(config.get("hidden_size_per_layer_input"), 0)
    return size


def layer_buffer_bytes(model: Model, tp: int, layers: range) -> int:
    """Small things beside the layers: attention's scales, KDA's fp32 convolutions (kda.py), Falcon-Mamba's bare norms
    (mamba_mixer.py), Falcon-H1's multipliers, GPTBigCode's mask, Granite Speech's encoder, the
    numbered positions of CLIP and SigLIP towers."""
    words, size = vllm_class(model).rope, 0
    if "bare" not in words:
        size = ATTENTION_LAYER_BYTES * sum(c.kind not in ("recurrent", "cross") and c.layer in layers for c in model.cache_layers)
    if "conformer" in words:  # distances within a block of sound (granite_speech.py)
        encoder = (model.config or {}).get("encoder_config")
        size += 8 * _whole(encoder.get("context_size") if isinstance(encoder, Mapping) else None, _SOUND_BLOCK) ** 2
    if "mask" in words:
        size += _whole(text_config(model).get("n_positions"), 0) ** 2
    for tensor in model.architecture.tensors:
        held = tensor.layer is not None and tensor.layer in layers
        if tensor.part == "text" and held and tensor.role in ("ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v"):
            size += 4 * tensor.parameters // tp
        elif "mup" in words and tensor.role == "ssm_in" and held:
            size += 2 * local_shape(tensor, tp, layer_heads(model)[tensor.layer])[0]
        elif "state_norms" in words and tensor.role == "ssm_x" and held:
            size += 2 * tensor.shape[0]
        elif "conformer" in words and tensor.role == "a.conv_dw":
            size += 4 * tensor.shape[0] + 8  # a batch norm's mean, variance and count
        elif "position_ids" in words and tensor.role == "v.position_embd":
            size += 8 * tensor.shape[0]
    return size


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32 else default
