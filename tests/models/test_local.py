"""Models on this disk: folders, lone files, and what cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from model_files import llama_gguf, write_gguf, write_safetensors
from vram_plan.errors import AmbiguousModelError, FormatError, ModelNotFoundError, VramPlanError
from vram_plan.models.local import open_local

CONFIG = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WEIGHTS = {"model.embed_tokens.weight": ("BF16", (100, 64)), "model.norm.weight": ("BF16", (64,))}


def put_config(folder: Path, **extra: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, **extra}))
    return path


def put_shards(folder: Path, index: bool = True) -> list[Path]:
    paths = [write_safetensors(folder / f"model-{i + 1:05}-of-00002.safetensors", {f"w{i}": ("F16", (4, 4))}) for i in range(2)]
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {f"w{i}": p.name for i, p in enumerate(paths)}}))
    return paths


def test_checkpoint_folder(tmp_path) -> None:
    put_config(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", WEIGHTS)
    found = open_local(tmp_path)
    assert (found.name, found.kind, found.config) == (tmp_path.name, "local", CONFIG)
    assert [t.name for t in found.stored or ()] == list(WEIGHTS)
    assert found.quantization is None


@pytest.mark.parametrize("index", [True, False])
def test_shards_with_and_without_an_index(tmp_path, index: bool) -> None:
    put_config(tmp_path)
    paths = put_shards(tmp_path, index)
    write_safetensors(tmp_path / "consolidated.safetensors", WEIGHTS)
    for start in (tmp_path, paths[1]):
        found = open_local(start)
        assert [t.name for t in found.stored or ()] == ["w0", "w1"]
        assert found.config == CONFIG


def test_config_alone_under_any_name(tmp_path) -> None:
    put_config(tmp_path)
    assert open_local(tmp_path / "config.json").name == tmp_path.name
    other = (tmp_path / "config.json").rename(tmp_path / "my-llama.json")
    found = open_local(other)
    assert (found.name, found.config, found.stored) == ("my-llama", CONFIG, None)


def test_folder_without_weights_or_with_some_missing(tmp_path) -> None:
    put_config(tmp_path)
    assert "no safetensors" in open_local(tmp_path).notes[0]
    paths = put_shards(tmp_path)
    paths[0].unlink()
    found = open_local(tmp_path)
    assert found.stored is None
    assert "1 of 2 weight files" in found.notes[0]
    with pytest.raises(ModelNotFoundError, match="00001-of-00002"):
        open_local(paths[1])
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match="00001-of-00002"):
        open_local(tmp_path)


def test_lone_safetensors(tmp_path) -> None:
    found = open_local(write_safetensors(tmp_path / "mine.safetensors", WEIGHTS))
    assert (found.name, found.config) == ("mine", None)
    assert len(found.stored or ()) == 2


def test_quantization_beside_the_config(tmp_path) -> None:
    put_config(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", WEIGHTS)
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}))
    assert open_local(tmp_path).quantization == {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}
    put_config(tmp_path, quantization_config={"quant_method": "fp8"})
    assert open_local(tmp_path).quantization == {"quant_method": "fp8"}


def test_gguf_file_and_folder(tmp_path) -> None:
    path = write_gguf(tmp_path / "llama-Q4_K_M.gguf", *llama_gguf())
    for start in (path, tmp_path):
        found = open_local(start)
        assert found.name == "llama-Q4_K_M"
        assert found.gguf is not None
        assert found.gguf.file_bytes == path.stat().st_size
    write_gguf(tmp_path / "mmproj-f16.gguf", {"general.architecture": "clip"}, {"v.w": (32, 32)})
    assert "mmproj-f16.gguf" in open_local(tmp_path).notes[0]
    put_config(tmp_path)
    assert open_local(tmp_path).gguf is not None, "a GGUF's sizes are better than a config's"
    write_gguf(tmp_path / "llama-Q8_0.gguf", *llama_gguf())
    with pytest.raises(AmbiguousModelError, match=r"llama-Q4_K_M\.gguf, llama-Q8_0\.gguf"):
        open_local(tmp_path)


def test_gguf_under_another_name(tmp_path) -> None:
    path = write_gguf(tmp_path / "sha256-abc", *llama_gguf())
    assert open_local(path).gguf is not None


def test_several_models_in_one_folder(tmp_path) -> None:
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", WEIGHTS)
    with pytest.raises(AmbiguousModelError, match=r"a\.safetensors, b\.safetensors"):
        open_local(tmp_path)


def folder(path: Path) -> Path:
    (path / "x").mkdir()
    return path / "x"


def loop(path: Path) -> Path:
    (path / "a.gguf").symlink_to(path / "b.gguf")
    (path / "b.gguf").symlink_to(path / "a.gguf")
    return path / "a.gguf"


def config_loop(path: Path) -> Path:
    (path / "config.json").symlink_to(path / "config.json")
    return path


def pipe(name: str):
    def make(path: Path) -> Path:
        os.mkfifo(path / name)
        return path / name

    return make


def named_folder(path: Path) -> Path:
    (path / "m.gguf").mkdir()
    return path / "m.gguf"


def adapter(path: Path) -> Path:
    (path / "adapter_config.json").write_text("{}")
    return path


def content(name: str, data: bytes):
    def make(path: Path) -> Path:
        (path / name).write_bytes(data)
        return path / name

    return make


def big(name: str, size: int):
    def make(path: Path) -> Path:
        with (path / name).open("wb") as file:
            file.truncate(size)
        return path / name

    return make


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda p: p / "nothing.gguf", ModelNotFoundError, "no file or folder"),
        (lambda p: p / ("n" * 5000), FormatError, "cannot be read"),
        (folder, FormatError, "no config.json, no safetensors and no GGUF"),
        (named_folder, FormatError, "no config.json"),
        (loop, FormatError, "leads back to itself"),
        (config_loop, FormatError, "leads back to itself"),
        (pipe("m.gguf"), FormatError, "a device or a pipe"),
        (pipe("m.safetensors"), FormatError, "a device or a pipe"),
        (pipe("config.json"), FormatError, "a device or a pipe"),
        (pipe("blob"), FormatError, "a device or a pipe"),
        (lambda p: Path("/dev/zero"), FormatError, "a device or a pipe"),
        (adapter, FormatError, "adapter"),
        (content("m.gguf", b""), FormatError, "is empty"),
        (content("m.safetensors", b""), FormatError, "is empty"),
        (content("config.json", b""), FormatError, "is empty"),
        (content("config.json", b"[1]"), FormatError, "no JSON object"),
        (content("readme.md", b"hello"), FormatError, "no model file"),
        (content("m.gguf", b"<!DOCTYPE html>"), FormatError, "no GGUF file"),
        (big("config.json", 50_000_000), FormatError, "50,000,000 bytes; at most 10,000,000"),
        (big("m.gguf", 1 << 40), FormatError, "no GGUF file"),
        (big("m.safetensors", 1 << 40), FormatError, "its header has 0 bytes"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_a_sentence(tmp_path, make, kind: type[VramPlanError], message: str) -> None:
    with pytest.raises(kind) as error:
        open_local(make(tmp_path))
    assert message in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.json", "m.gguf", "m.safetensors", ""])
def test_no_permission(tmp_path, name: str) -> None:
    path = tmp_path / "closed"
    path.mkdir()
    if name:
        path = path / name
        path.write_bytes(b"x")
    path.chmod(0)
    try:
        with pytest.raises(FormatError, match="permission denied"):
            open_local(path)
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("code", [13, 1])
def test_no_permission_as_the_system_says_it(tmp_path, monkeypatch, code: int) -> None:
    path = put_config(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FormatError, match="permission denied"):
        open_local(path)
