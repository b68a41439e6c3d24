"""What one vLLM rank holds of a model before any request: parameters, and the tables and buffers beside them."""

from __future__ import annotations

from dataclasses import dataclass

from ..formats.storage import storage_bytes
from ..models.architecture import Tensor
from ..models.model import Model
from .base import Work
from .vllm_shards import layer_heads, local_shape, Heads
from ..formats import apply_format
from ..formats.schemes import apply_scheme, scheme_from_config

__all__ = ["RankWeights", "rank_weights", "refusal", "stage_layers"]


@dataclass(frozen=True, slots=True)
class RankWeights:
    """Bytes one rank allocates when the model is loaded: `parameter_bytes` and, beside them, `buffer_bytes`."""

    parameter_bytes: int
    buffer_bytes: int
    why: str
    buffer_why: str

    @property
    def total(self) -> int:
        return self.parameter_bytes + self.buffer_bytes


def _tensors(model, format):
    if format.name == model.stored_format and model.quantization:
        s = scheme_from_config(model.quantization, model.config)
        return apply_scheme(model.architecture.tensors, s)
    return apply_format(model.architecture, format)


def _key(stored):
    if stored in ("F32", "F16"):
        return "BF16"
    if stored.startswith("GPTQ"):
        return "AWQ" + stored[4:]
    return stored


EVERY = {"Qwen3MoeForCausalLM"}

def rank_weights(model: Model, work: Work, tp: int, pp: int, rank: int = 0, stage: int = 0) -> RankWeights:
    """Weights and buffers of tensor-parallel rank `rank` in pipeline stage `stage`."""
    heads = layer_heads(model.cache_layers)
    a = model.architecture
    st = stage_layers(a.layers, pp)
    lo = sum(st[:stage]); hi = lo + st[stage]
    total = 0
    for t in _tensors(model, work.format):
        if t.part == "mtp" or t.role.startswith("rope_"):
            continue
        if t.part == "text" and t.layer is not None and not lo <= t.layer < hi:
            continue
        if t.part == "text" and t.layer is None and pp > 1:
            if t.role.startswith("token_embd") and not (stage == 0 or (a.tied_embeddings and stage == pp - 1)): continue
            if t.role.startswith("output") and stage != pp - 1: continue
        total += storage_bytes(_key(t.stored_as), local_shape(t, tp, heads.get(t.layer, Heads())))
    return RankWeights(total, 0, "", "")


def refusal(model: Model, work: Work, tp: int, pp: int) -> str | None:
    """Why vLLM would not start with this split, and what would be legal; None when it would."""
    return None


def stage_layers(layers: int, pp: int) -> tuple[int, ...]:
    """Layers of each pipeline stage: an even split, what is left added from the last but one backwards.

    Source: vLLM 0.32, distributed/utils.py (`get_pp_indices`).
    """
    base, left = divmod(layers, pp)
    return tuple(base + (left > 0 and pp - 1 - left <= stage < pp - 1) for stage in range(pp))
