"""What a running engine measured, kept in the profile of the device it ran on."""

from __future__ import annotations

from .values import Observation, Reconciliation

__all__ = ["saved"]


def saved(found: Reconciliation, seen: Observation) -> str:
    raise NotImplementedError
