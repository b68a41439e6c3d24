"""Architectures of shipped models, by id, for the tests of number formats."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from vram_plan.models.architecture import Architecture
from vram_plan.models.dialects import read_architecture
from vram_plan_data import ROOT
from vram_plan_data.folding import unfolded


@lru_cache(maxsize=1)
def _lines() -> dict[str, str]:
    lines = (ROOT / "models.jsonl").read_text(encoding="utf-8").splitlines()
    return {line.split('"', 4)[3]: line for line in lines}


def config(model: str) -> dict[str, Any]:
    found: dict[str, Any] = unfolded(json.loads(_lines()[model])["config"])
    return found


@lru_cache(maxsize=64)
def architecture(model: str) -> Architecture:
    return read_architecture(config(model))
