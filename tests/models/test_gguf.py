"""GGUF headers: what is read, and how little; what cannot be meant."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import pytest
from model_files import gguf_header, llama_gguf, write_gguf
from vram_plan.errors import FormatError, ModelNotFoundError
from vram_plan.formats.storage import storage_bytes
from vram_plan.models import gguf
from vram_plan.models.checkpoint import GgufHeader


def parse(blob: bytes, file_bytes: int | None = None) -> GgufHeader:
    file = io.BytesIO(blob)

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return gguf.parse(read, "m.gguf", len(blob) if file_bytes is None else file_bytes)


@pytest.mark.parametrize("version", [2, 3])
def test_header_is_the_files(version: int) -> None:
    metadata, tensors = llama_gguf()
    header, data = gguf_header(metadata, tensors, version=version)
    found = parse(header + bytes(data))
    assert [t.name for t in found.tensors] == list(tensors)
    assert found.tensors[0].shape == (1024, 512)
    assert len(header) + sum(-(-t.bytes // 32) * 32 for t in found.tensors) == found.file_bytes == len(header) + data
    assert all(t.bytes == storage_bytes(t.dtype, t.shape) for t in found.tensors)
    assert found.metadata["tokenizer.ggml.tokens"] == gguf.LongArray(1024)
    assert gguf.mix_name(found) == "Q4_K_M"


def test_reads_only_the_header_in_rising_windows() -> None:
    tokens = [f"token number {i}" for i in range(20_000)]
    metadata, tensors = llama_gguf(**{"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * 200_000})
    header, data = gguf_header(metadata, tensors)
    reads: list[tuple[int, int]] = []

    def read(offset: int, size: int) -> bytes:
        reads.append((offset, size))
        return header[offset : offset + size]

    found = gguf.parse(read, "m.gguf", len(header) + data)
    assert len(found.tensors) == len(tensors)
    assert found.metadata["tokenizer.ggml.token_type"] == gguf.LongArray(200_000)
    assert [offset for offset, _ in reads] == sorted(offset for offset, _ in reads)
    assert sum(size for _, size in reads) < len(header) - 700_000 + (64 << 10), "long lists of numbers are stepped over"


def test_mix_without_a_stated_type_is_what_most_bytes_have() -> None:
    metadata, tensors = llama_gguf()
    del metadata["general.file_type"]
    header, data = gguf_header(metadata, tensors)
    assert gguf.mix_name(parse(header, len(header) + data)) == "Q4_K"


def test_split_files_join_in_any_order(tmp_path) -> None:
    metadata, tensors = llama_gguf(4)
    names = list(tensors)
    for number, part in enumerate((names[:10], names[10:20], names[20:])):
        keys = {**(metadata if not number else {}), "split.no": number, "split.count": 3}
        write_gguf(tmp_path / f"m-{number + 1:05}-of-00003.gguf", keys, {n: tensors[n] for n in part})
    whole = gguf.read_path(tmp_path / "m-00002-of-00003.gguf")
    assert [t.name for t in whole.tensors] == names
    assert whole.metadata["general.architecture"] == "llama"
    assert whole.file_bytes == sum(f.stat().st_size for f in tmp_path.iterdir())
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match="m-00003-of-00003"):
        gguf.read_path(tmp_path / "m-00001-of-00003.gguf")


def test_a_part_alone_or_twice_is_refused() -> None:
    metadata, tensors = llama_gguf()
    header, data = gguf_header({**metadata, "split.no": 0, "split.count": 2}, tensors)
    first = parse(header, len(header) + data)
    with pytest.raises(FormatError, match="1 parts of 2"):
        gguf.join([first])
    with pytest.raises(FormatError, match="2 parts of 2"):
        gguf.join([first, first])
    second = replace(first, metadata={"split.no": 1, "split.count": 2})
    with pytest.raises(FormatError, match="in two of its parts"):
        gguf.join([second, first])


def change(offset: int, code: str, value: int) -> bytes:
    """A good file with one number of its header changed."""
    header, data = gguf_header(*llama_gguf())
    blob = bytearray(header + bytes(data))
    struct.pack_into(code, blob, offset, value)
    return bytes(blob)


HOSTILE = {
    "no GGUF": (b"GGML" + bytes(100), "no GGUF file"),
    "empty tail": (b"GGUF", "cut off"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(64), "big-endian"),
    "version 1": (b"GGUF" + struct.pack("<I", 1) + bytes(64), "version 1"),
    "version 99": (b"GGUF" + struct.pack("<I", 99) + bytes(64), "version 99"),
    "2^63 tensors": (change(8, "<Q", 1 << 63), "at most 100,000"),
    "a million tensors": (change(8, "<Q", 1_000_000), "at most 100,000"),
    "2^64 - 1 keys": (change(16, "<Q", (1 << 64) - 1), "10,000 are read"),
    "key of 2^63 bytes": (change(24, "<Q", 1 << 63), "cut off or lies"),
    "key of 1 MB": (change(24, "<Q", 1 << 20), "cut off or lies|a name of"),
    "unknown value type": (change(24 + 8 + 20, "<I", 77), "value type 77"),
    "more tensors than are there": (change(8, "<Q", 90_000), "cut off|dimensions|a name|not known|cannot have"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header_is_a_sentence(name: str) -> None:
    blob, message = HOSTILE[name]
    with pytest.raises(FormatError, match=message):
        parse(blob)


def one_tensor(dimensions: int, sizes: tuple[int, ...], kind: int, offset: int) -> bytes:
    blob = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"w"
    return blob + struct.pack(f"<I{len(sizes)}QIQ", dimensions, *sizes, kind, offset) + bytes(1 << 12)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (one_tensor(0, (), 0, 0), "0 dimensions"),
        (one_tensor(9, (1,) * 9, 0, 0), "9 dimensions"),
        (one_tensor(2, (0, 4), 0, 0), "cannot have"),
        (one_tensor(2, (1 << 63, 4), 0, 0), "cannot have"),
        (one_tensor(4, (1 << 31,) * 4, 0, 0), "cannot have"),
        (one_tensor(2, (100, 4), 12, 0), "Q4_K cannot have"),
        (one_tensor(2, (32, 4), 4, 0), "ggml type 4"),
        (one_tensor(2, (32, 4), 0, 32), "starts at byte 32"),
        (one_tensor(2, (1 << 20, 1 << 20), 0, 0), "its header describes"),
    ],
)
def test_tensor_that_cannot_be(blob: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse(blob)


def test_truncated_anywhere_is_an_error() -> None:
    header, data = gguf_header(*llama_gguf())
    blob = header + bytes(data)
    for size in (*range(0, len(header), 97), len(header), len(blob) - 1):
        with pytest.raises(FormatError):
            parse(blob[:size])


def test_a_vocabulary_that_lies_about_its_length() -> None:
    blob = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 40)
    with pytest.raises(FormatError, match="more than 3,000,000 strings"):
        parse(blob + bytes(1 << 16), 1 << 50)
    nested = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 9, 2)
    with pytest.raises(FormatError, match="list of value type 9"):
        parse(nested + bytes(100))
