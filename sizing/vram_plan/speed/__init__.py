"""How fast: prefill, time to first token and decode, by a roofline whose constants were fitted to measurements."""

from __future__ import annotations

from .estimate import estimate
from .sweep import Load, Sweep, sweep

__all__ = ["Load", "Sweep", "estimate", "sweep"]
