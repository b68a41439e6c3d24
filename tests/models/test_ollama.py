"""Ollama's store: a tag's manifest leads to its blobs, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_files import llama_gguf, write_gguf
from vram_plan.errors import FormatError, ModelNotFoundError, VramPlanError
from vram_plan.models.ollama import open_ollama, store_folder

MODEL, PROJECTOR = "application/vnd.ollama.image.model", "application/vnd.ollama.image.projector"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def put_manifest(root: Path, layers: object, tag: str = "registry.ollama.ai/library/llama3/8b") -> Path:
    path = root / "manifests" / tag
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return path


def put_blob(root: Path, number: int, metadata: dict[str, object], tensors: dict[str, object]) -> Path:
    (root / "blobs").mkdir(exist_ok=True)
    return write_gguf(root / "blobs" / digest(number).replace(":", "-"), metadata, tensors)


def layer(kind: str, named: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": named, "size": 1}


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("llama3:8b", "registry.ollama.ai/library/llama3/8b"),
        ("llama3", "registry.ollama.ai/library/llama3/latest"),
        ("library/llama3:8b", "registry.ollama.ai/library/llama3/8b"),
        ("someone/model:tag", "registry.ollama.ai/someone/model/tag"),
        ("hf.co/org/repo:Q4_K_M", "hf.co/org/repo/Q4_K_M"),
    ],
)
def test_tag(tmp_path, monkeypatch, reference: str, tag: str) -> None:
    put_manifest(tmp_path, [layer(MODEL, digest(7)), layer("application/vnd.ollama.image.params", digest(8))], tag)
    path = put_blob(tmp_path, 7, *llama_gguf())
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    found = open_ollama(reference)
    assert found is not None
    assert (found.kind, found.name) == ("ollama", reference)
    assert found.gguf is not None
    assert found.gguf.file_bytes == path.stat().st_size


def test_projector_is_part_of_the_model(tmp_path) -> None:
    put_manifest(tmp_path, [layer(MODEL, digest(1)), layer(PROJECTOR, digest(2))])
    metadata, tensors = llama_gguf()
    paths = [put_blob(tmp_path, 1, metadata, tensors), put_blob(tmp_path, 2, {"general.architecture": "clip"}, {"v.w": (32, 32)})]
    found = open_ollama("llama3:8b", tmp_path)
    assert found is not None
    assert found.gguf is not None
    assert found.gguf.metadata["general.architecture"] == "llama"
    assert len(found.gguf.tensors) == len(tensors) + 1
    assert found.gguf.file_bytes == sum(p.stat().st_size for p in paths)


def test_not_pulled(tmp_path) -> None:
    put_manifest(tmp_path, [])
    for reference in ("qwen3:8b", "../../etc:x", "a b", "llama3:8b:9", "/llama3", "..:8b", "llama3/..:8b", ""):
        assert open_ollama(reference, tmp_path) is None
    assert open_ollama("llama3:8b", tmp_path / "nowhere") is None


def test_default_store(monkeypatch) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert store_folder() == Path("/somewhere/.ollama/models")


@pytest.mark.parametrize(
    ("layers", "kind", "message"),
    [
        ("x", FormatError, "lists no layers"),
        ([1], FormatError, "lists no layers"),
        ([], FormatError, "names no model"),
        ([layer("application/vnd.ollama.image.tensor", digest(1))], FormatError, "own tensor format"),
        ([layer(MODEL, "sha256:../../../etc/passwd")], FormatError, "no digest"),
        ([layer(MODEL, "sha256:" + "A" * 64)], FormatError, "no digest"),
        ([{"mediaType": MODEL}], FormatError, "no digest"),
        ([layer(MODEL, digest(5))], ModelNotFoundError, "no file"),
    ],
)
def test_odd_manifest(tmp_path, layers: object, kind: type[VramPlanError], message: str) -> None:
    put_manifest(tmp_path, layers)
    with pytest.raises(kind, match=message):
        open_ollama("llama3:8b", tmp_path)
