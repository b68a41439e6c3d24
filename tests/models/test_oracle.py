"""Every model whose exact counts are known: parameters by part, KV bytes at two contexts, and constant state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vram_plan.models import catalog
from vram_plan.models.architecture import Architecture
from vram_plan.models.dialects import read_architecture

ROWS = [json.loads(line) for path in sorted(Path(__file__).parents[1].glob("data/oracle*.jsonl")) for line in path.read_text().splitlines()]


def counted(a: Architecture) -> dict[str, int]:
    parts = {part: sum(t.parameters for t in a.tensors if t.part == part) for part in ("text", "vision", "audio", "projector")}
    experts = sum(t.parameters for t in a.tensors if t.experts and t.part == "text")
    routed = experts * min(a.experts_per_token, a.experts) // a.experts if a.experts else experts
    return {
        "params_total": sum(parts.values()),
        "params_active": parts["text"] - experts + routed,
        "params_embedding": sum(t.parameters for t in a.tensors if t.role == "token_embd"),
        "params_lm_head": sum(t.parameters for t in a.tensors if t.role in ("output", "output.bias")),
        "params_vision": parts["vision"],
        "params_audio": parts["audio"],
        "params_projector": parts["projector"],
        "params_experts": experts,
        "kv_bytes_bf16_8k": a.kv_bytes(8192),
        "kv_bytes_bf16_128k": a.kv_bytes(131072),
        "state_bytes": a.state_bytes,
    }


@pytest.mark.parametrize("row", ROWS, ids=[row.get("model", row.get("config", {}).get("model_type", "?")) for row in ROWS])
def test_counts_equal_the_oracle(row: dict) -> None:
    config = row.get("config") or catalog.row_config(catalog._rows()[row["model"]])[0]
    architecture = read_architecture(config)
    got = counted(architecture)
    assert architecture.basis == "formula"
    assert {key: value for key, value in got.items() if row.get(key) is not None} == {
        key: row[key] for key in got if row.get(key) is not None
    }
