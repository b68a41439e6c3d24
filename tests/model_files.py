"""Small model files for tests: GGUF and safetensors headers, with a hole where the data would be."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

GGML = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q6_K": (14, 256, 210),
    "BF16": (30, 1, 2),
    "I32": (26, 1, 4),
}
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1, "I32": 4}

#: A tensor's shape as torch writes it, or that and its ggml type.
Shapes = Mapping[str, tuple[int, ...] | tuple[tuple[int, ...], str]]


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_value(value: object) -> bytes:
    """A metadata value with its type in front."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value) if 0 <= value < 1 << 32 else struct.pack("<Iq", 11, value)
    if isinstance(value, float):
        return struct.pack("<Id", 12, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    assert isinstance(value, Sequence)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(v) for v in value)
    code, kind = ("?", 7) if value and isinstance(value[0], bool) else ("i", 5)
    return struct.pack(f"<IIQ{len(value)}{code}", 9, kind, len(value), *value)


def gguf_header(metadata: Mapping[str, object], tensors: Shapes, version: int = 3, alignment: int = 32) -> tuple[bytes, int]:
    """The header's bytes, padded, and how many bytes of data follow it."""
    out = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    out += [text(key) + gguf_value(value) for key, value in metadata.items()]
    offset = 0
    for name, entry in tensors.items():
        shape, kind = entry if isinstance(entry[0], tuple) else (entry, "F16")
        number, block, size = GGML[kind]
        out.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), number, offset))
        count = 1
        for n in shape:
            count *= n
        offset += -(-(count // block * size) // alignment) * alignment
    header = b"".join(out)
    return header + bytes(-len(header) % alignment), offset


def write_gguf(path: Path, metadata: Mapping[str, object], tensors: Shapes, **options: int) -> Path:
    header, data = gguf_header(metadata, tensors, **options)
    return write_sparse(path, header, len(header) + data)


def safetensors_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], **extra: object) -> tuple[bytes, int]:
    """The JSON header and how many bytes of data follow it."""
    entries: dict[str, object] = dict(extra)
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = DTYPE_BYTES[dtype]
        for n in shape:
            size *= n
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    return json.dumps(entries).encode(), offset


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], **extra: object) -> Path:
    header, data = safetensors_header(tensors, **extra)
    return write_sparse(path, struct.pack("<Q", len(header)) + header, 8 + len(header) + data)


def write_sparse(path: Path, head: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def llama_gguf(layers: int = 2, **metadata: object) -> tuple[dict[str, object], dict[str, tuple[tuple[int, ...], str]]]:
    """Metadata and tensors of a small Llama: 8 heads of 64, 2 KV heads, vocabulary 1024."""
    keys: dict[str, object] = {
        "general.architecture": "llama",
        "general.file_type": 15,
        "llama.block_count": layers,
        "llama.context_length": 8192,
        "llama.embedding_length": 512,
        "llama.feed_forward_length": 1024,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(1024)],
        **metadata,
    }
    tensors: dict[str, tuple[tuple[int, ...], str]] = {"token_embd.weight": ((1024, 512), "Q4_K"), "output_norm.weight": ((512,), "F32")}
    for i in range(layers):
        tensors |= {
            f"blk.{i}.attn_norm.weight": ((512,), "F32"),
            f"blk.{i}.attn_q.weight": ((512, 512), "Q4_K"),
            f"blk.{i}.attn_k.weight": ((128, 512), "Q4_K"),
            f"blk.{i}.attn_v.weight": ((128, 512), "Q6_K"),
            f"blk.{i}.attn_output.weight": ((512, 512), "Q4_K"),
            f"blk.{i}.ffn_norm.weight": ((512,), "F32"),
            f"blk.{i}.ffn_gate.weight": ((1024, 512), "Q4_K"),
            f"blk.{i}.ffn_up.weight": ((1024, 512), "Q4_K"),
            f"blk.{i}.ffn_down.weight": ((512, 1024), "Q6_K"),
        }
    return keys, tensors
