"""Configs as transformers writes them hold words that are no JSON numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import vram_plan as vp
from vram_plan.models.dialects import read_architecture

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 256, "max_position_embeddings": 512,
}  # fmt: skip


def test_infinity_in_a_key_that_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "time_step_limit": [0.0, float("inf")]}))
    assert vp.load(str(path)).architecture.layers == 2


@pytest.mark.parametrize("word", [float("inf"), float("nan")])
def test_a_word_where_a_number_belongs(tmp_path: Path, word: float) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "hidden_size": word}))
    with pytest.raises(vp.FormatError):
        vp.load(str(path))


def test_layer_kinds_as_text_are_refused() -> None:
    with pytest.raises(vp.FormatError, match="a list belongs there"):
        read_architecture({"model_type": "gpt_oss", "layer_types": "abc"})
