"""How fast: prefill, time to first token and decode, by a roofline whose constants were fitted to measurements."""

from __future__ import annotations

from .estimate import estimate

__all__ = ["estimate"]
