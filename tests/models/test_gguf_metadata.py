"""GGUF metadata as llama.cpp's own converter writes it, one model of each architecture: the cache it leads to is the config's.

The metadata were written by llama.cpp 0c1e57098 (conversion/, `set_gguf_parameters`) from the models' configs; the bytes were
measured with transformers 5.23.0. The tensors are the catalogue's, under their GGUF names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vram_plan.formats.gguf_inventory import as_gguf
from vram_plan.models import catalog
from vram_plan.models.architecture import Tensor
from vram_plan.models.checkpoint import GgufHeader, StoredTensor
from vram_plan.models.dialects import read_architecture
from vram_plan.models.gguf_architecture import read_gguf_architecture

ROWS = [json.loads(line) for line in (Path(__file__).parent.parent / "data" / "gguf_metadata.jsonl").read_text().splitlines()]


def stored(tensor: Tensor) -> StoredTensor:
    name = tensor.role if tensor.role.endswith(".bias") else f"{tensor.role}.weight"
    return StoredTensor(name if tensor.layer is None else f"blk.{tensor.layer}.{name}", tensor.stored_as, tensor.shape, 0)


def test_rows_cover_the_families() -> None:
    assert len({row["architecture"] for row in ROWS}) == len(ROWS) >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["architecture"])
def test_cache_of_the_converted_file(row: dict[str, Any]) -> None:
    known = catalog.known_id(row["model"])
    assert known is not None
    config = read_architecture(catalog.row_config(known)[0])
    arch = row["architecture"]
    metadata = {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in row["metadata"].items()}}
    found = read_gguf_architecture(GgufHeader(metadata, tuple(stored(t) for t in as_gguf(config)), 0))
    assert (found.kv_bytes(8192), found.kv_bytes(131072), found.state_bytes) == (row["kv_8k"], row["kv_128k"], row["state"])
    assert (found.hidden_size, found.vocab_size, found.tied_embeddings) == (config.hidden_size, config.vocab_size, config.tied_embeddings)
    assert (found.experts, found.experts_per_token) == (config.experts, config.experts_per_token)
