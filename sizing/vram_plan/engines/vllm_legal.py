"""What vLLM refuses to start with."""

from __future__ import annotations

from ..models.model import Model
from .base import Work

__all__ = ["refusal"]


def refusal(model: Model, work: Work, tp: int, pp: int) -> str | None:
    """Why vLLM would not start with this split, and what would be legal; None when it would."""
    return None
