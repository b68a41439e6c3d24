"""The shipped tables: models, accelerators, formats, engine and speed constants. Every row has its source."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["ROOT"]

ROOT: Final = Path(__file__).parent
