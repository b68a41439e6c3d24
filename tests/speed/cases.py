"""The measured token rates of `tests/data/speed_cases.jsonl`, one value a measurement."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["LOCALSCORE_TOKENS", "Case", "speed_cases"]

TABLE = Path(__file__).resolve().parents[1] / "data" / "speed_cases.jsonl"
#: The mean history of LocalScore's nine prompt and answer lengths (16 to 4,096 tokens): its rates are their average.
LOCALSCORE_TOKENS = 1837


@dataclass(frozen=True)
class Case:
    """One measurement. Tokens per second in all, except `tpot_ms` (a server's time per output token)."""

    id: str
    source: str
    engine: str
    model: str
    quant: str
    gpu: str
    metric: str
    backend: str = ""
    build: str = ""
    version: str = ""
    size_gib: float | None = None
    flash_attn: bool = False
    ubatch: int = 512
    n_gpu: int = 1
    batch: int = 1
    prompt: int = 0
    depth: int = 0
    gen: int = 0
    tp: int = 1
    ep: int = 1
    oom: bool = False
    tokens_per_s: float | None = None
    tpot_ms: float | None = None
    ttft_ms: float | None = None
    threads: int = 0
    trust: str = "A"
    suspect: str = ""
    row: str = ""
    measured: str = ""
    kv: str = ""
    quant_as_named: str = ""

    @property
    def history(self) -> float:
        """Mean tokens before the ones written."""
        if self.engine == "llamafile":
            return LOCALSCORE_TOKENS
        return self.depth + (self.gen or 128) / 2


@lru_cache(maxsize=1)
def speed_cases() -> tuple[Case, ...]:
    """Every measurement of the table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()[1:]
    cases = []
    for group in map(json.loads, lines):
        rows: list[dict[str, Any]] = group.pop("rows")
        cases.extend(Case(**group, **row) for row in rows)
    return tuple(cases)
