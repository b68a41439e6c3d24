"""What one vLLM rank holds of a model before any request: parameters, and the tables and buffers beside them."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.model import Model
from .base import Work
from .weights import weights_of

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


def rank_weights(model: Model, work: Work, tp: int, pp: int, rank: int = 0, stage: int = 0) -> RankWeights:
    """Weights and buffers of tensor-parallel rank `rank` in pipeline stage `stage`."""
    total = weights_of(model, work.format).total
    return RankWeights(total // (tp * pp), 0, f"{total:,} B / {tp * pp}", "")


def refusal(model: Model, work: Work, tp: int, pp: int) -> str | None:
    """Why vLLM would not start with this split, and what would be legal; None when it would."""
    return None


def stage_layers(layers: int, pp: int) -> tuple[int, ...]:
    """Layers of each pipeline stage: an even split, what is left added from the last but one backwards.

    Source: vLLM 0.32, distributed/utils.py (`get_pp_indices`).
    """
    base, left = divmod(layers, pp)
    return tuple(base + (left > 0 and pp - 1 - left <= stage < pp - 1) for stage in range(pp))
