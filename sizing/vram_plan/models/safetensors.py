"""The header of a safetensors file: which tensors, of what dtype and shape. The weights are never read.

The format: 8 bytes with the header's length (little-endian), then that much JSON, then the data without gaps
(safetensors, README.md "Format").
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Final, TypeGuard

from ..errors import FormatError
from .checkpoint import StoredTensor
from .files import open_regular
from .json_guard import load_json, shown

__all__ = ["DTYPE_BITS", "MAX_HEADER_BYTES", "header_length", "load_index", "parse_header", "parse_index", "read_file"]

#: The format allows 100 MB. Half of that lists more tensors than `MAX_TENSORS`.
MAX_HEADER_BYTES: Final = 50_000_000
#: Of one file. Real shards have under 5,000.
MAX_TENSORS: Final = 100_000
MAX_SHARDS: Final = 10_000
MAX_INDEX_BYTES: Final = 60_000_000
MAX_INDEX_VALUES: Final = 600_000
_MAX_TENSOR_BYTES: Final = 1 << 50

#: Bits per element (safetensors, `Dtype::bitsize`).
DTYPE_BITS: Final[dict[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip

_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,250}\.safetensors")


def header_length(first8: bytes, where: str) -> int:
    """Bytes of the JSON header, from a file's first eight bytes. Raises FormatError where that cannot be."""
    if len(first8) < 8:
        raise FormatError(f"{where} has only {len(first8)} bytes; a safetensors file starts with the length of its header")
    length = int.from_bytes(first8[:8], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise FormatError(
            f"{where} says its header has {length:,} bytes; 2 to {MAX_HEADER_BYTES:,} are read",
            "is it a safetensors file, and complete?",
        )
    return length


def parse_header(blob: bytes, where: str, file_bytes: int | None) -> tuple[StoredTensor, ...]:
    """The tensors a header lists, in the order of their data; `blob` is the JSON header, all of it and nothing else.

    `file_bytes` is the size of the whole file where it is known: the data must end there. Raises FormatError for
    anything the format does not allow: unknown dtypes, offsets that overlap, leave gaps or do not agree with the
    shape, names given twice.
    """
    raw = load_json(blob, f"the header of {where}", MAX_HEADER_BYTES, max_depth=4, max_values=10 * MAX_TENSORS, unique_keys=True)
    if not isinstance(raw, dict):
        raise FormatError(f"the header of {where} is no JSON object")
    if len(raw) > MAX_TENSORS + 1:
        raise FormatError(f"{where} lists {len(raw):,} tensors; at most {MAX_TENSORS:,} are read")
    entries = sorted((_entry(name, value, where) for name, value in raw.items() if name != "__metadata__"), key=lambda e: e[:2])
    end = 0
    for start, stop, tensor in entries:
        if start != end:
            raise FormatError(f"{where}: tensor {shown(tensor.name)} starts at byte {start:,}, where {end:,} is next")
        end = stop
    if file_bytes is not None and file_bytes != 8 + len(blob) + end:
        raise FormatError(
            f"{where} has {file_bytes:,} bytes, but its header describes {8 + len(blob) + end:,}", "was it cut off while downloading?"
        )
    return tuple(tensor for _, _, tensor in entries)


def _entry(name: str, value: Any, where: str) -> tuple[int, int, StoredTensor]:
    problem = _problem(value)
    if problem:
        raise FormatError(f"{where}: tensor {shown(name)} {problem}")
    start, stop = value["data_offsets"]
    return start, stop, StoredTensor(name, value["dtype"], tuple(value["shape"]), stop - start)


def _problem(value: Any) -> str:
    """What is wrong with a header's entry; empty where nothing is."""
    if not isinstance(value, dict):
        return f"is {shown(value)}; an object belongs there"
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        return f"has the dtype {shown(dtype)}, which is not known"
    if not _whole_numbers(shape, 16):
        return f"has the shape {shown(shape)}; whole numbers belong there"
    if not _whole_numbers(offsets, 2) or len(offsets) != 2 or offsets[1] < offsets[0]:
        return f"has the data_offsets {shown(offsets)}; a start and an end belong there"
    if math.prod(shape) * DTYPE_BITS[dtype] != (offsets[1] - offsets[0]) * 8:
        return f"of shape {shape} and dtype {dtype} cannot take {offsets[1] - offsets[0]:,} bytes"
    return ""


def _whole_numbers(value: Any, most: int) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= most and all(type(v) is int and 0 <= v <= _MAX_TENSOR_BYTES for v in value)


def parse_index(obj: Any, where: str = "model.safetensors.index.json") -> tuple[str, ...]:
    """The shard files an index (its JSON, parsed) names, sorted. Raises FormatError for names that are no plain file name."""
    names = obj.get("weight_map") if isinstance(obj, dict) else None
    if not isinstance(names, dict) or not names:
        raise FormatError(f"{where} has no weight_map")
    shards = {v if isinstance(v, str) else shown(v) for v in names.values()}
    for shard in shards:
        if not _SHARD_NAME.fullmatch(shard):
            raise FormatError(f"{where} names the file {shown(shard)}; a *.safetensors file beside it belongs there")
    if len(shards) > MAX_SHARDS:
        raise FormatError(f"{where} names {len(shards):,} files; at most {MAX_SHARDS:,} are read")
    return tuple(sorted(shards))


def load_index(data: bytes, where: str = "model.safetensors.index.json") -> tuple[str, ...]:
    """`parse_index` of an index file's bytes."""
    return parse_index(load_json(data, where, MAX_INDEX_BYTES, max_values=MAX_INDEX_VALUES), where)


def read_file(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of one safetensors file. Raises FormatError where it is none, or cannot be read."""
    with open_regular(path) as (file, size):
        length = header_length(file.read(8), path.name)
        if 8 + length > size:
            raise FormatError(f"{path.name} has {size:,} bytes, but a header of {length:,}", "was it cut off while downloading?")
        return parse_header(file.read(length), path.name, size)
