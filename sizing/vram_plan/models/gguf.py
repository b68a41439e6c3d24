"""The header of a GGUF file: its metadata and tensor list, read from the front without the weights.

The format is ggml's docs/gguf.md; the limits on names, dimensions and alignment are those of ggml/src/gguf.cpp.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ..errors import FormatError, ModelNotFoundError
from ..formats.storage import block_elements, storage_bytes
from ..values import dataclass
from .checkpoint import GgufHeader, StoredTensor
from .files import file_names, open_regular
from .json_guard import shown

__all__ = ["FILE_TYPES", "GGML_TYPES", "LongArray", "Read", "join", "mix_name", "parse", "read_path", "split_names"]

#: `read(offset, size)` returns `size` bytes from `offset`, fewer only where the file ends.
Read = Callable[[int, int], bytes]

MAX_TENSORS: Final = 100_000
MAX_KEYS: Final = 10_000
MAX_HEADER_BYTES: Final = 256 << 20
#: Strings in arrays, all together; Gemma's vocabulary and merges are 0.8 million.
MAX_STRINGS: Final = 3_000_000
MAX_SPLITS: Final = 1_000
_MAX_NAME: Final = 256
#: Longer texts (a chat template) and lists (the vocabulary) are kept as their length only.
_KEPT_TEXT: Final = 4096
_KEPT_ITEMS: Final = 4096
_KEPT_ITEMS_IN_ALL: Final = 500_000
_WINDOW: Final = 64 << 10

#: ggml's type numbers (ggml/include/ggml.h, `ggml_type`); the names are keys of `formats.storage`.
GGML_TYPES: Final[dict[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
    14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
    41: "Q1_0", 42: "Q2_0",
}  # fmt: skip

#: `general.file_type` (llama.cpp, include/llama.h, `llama_ftype`).
FILE_TYPES: Final[dict[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
    14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M",
    32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip

#: The metadata value types that are plain numbers.
_NUMBERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING: Final = 8
_ARRAY: Final = 9
_SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class LongArray:
    """Stands for a list or text that was too long to keep."""

    length: int


class _Cursor:
    """Walks forward through a file in windows; never holds more than one, never goes back."""

    def __init__(self, read: Read, where: str, file_bytes: int | None) -> None:
        self.read, self.where = read, where
        self.end = MAX_HEADER_BYTES if file_bytes is None else min(file_bytes, MAX_HEADER_BYTES)
        self.start = 0
        self.at = 0
        self.window = b""
        self.strings = 0
        self.items_left = _KEPT_ITEMS_IN_ALL

    @property
    def offset(self) -> int:
        return self.start + self.at

    def _fill(self, size: int) -> None:
        """Make `size` bytes from here stand in the window."""
        self._within(size)
        kept = self.window[self.at :]
        self.start += self.at
        self.at = 0
        wanted = min(max(size, _WINDOW), self.end - self.start)
        self.window = kept + self.read(self.start + len(kept), wanted - len(kept))
        if len(self.window) < size:
            raise self.cut_off()

    def _within(self, size: int) -> None:
        if self.offset + size > self.end:
            raise self.cut_off()

    def cut_off(self) -> FormatError:
        return FormatError(
            f"{self.where}: the header is cut off or lies about its lengths (after {self.offset:,} bytes)",
            "was the file downloaded completely?",
        )

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.window):
            self._fill(size)
        self.at += size
        return self.window[self.at - size : self.at]

    def skip(self, size: int) -> None:
        """Pass over bytes without reading those beyond the window."""
        self._within(size)
        self.at += size
        if self.at > len(self.window):
            self.start, self.at, self.window = self.offset, 0, b""

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self, longest: int) -> str | LongArray:
        """A string; beyond `longest` bytes only its length."""
        size = self.number("<Q")
        if size > longest:
            self.skip(size)
            return LongArray(size)
        return str(self.take(size), "utf-8", "replace")

    def name(self) -> str:
        found = self.text(_MAX_NAME)
        if not isinstance(found, str):
            raise FormatError(f"{self.where}: a name of {found.length:,} bytes; at most {_MAX_NAME} belong there")
        return found

    def skip_strings(self, count: int) -> None:
        """Pass over `count` strings. The inner loop is the parser's hot spot: a vocabulary has 10⁵ to 10⁶ of them."""
        self.strings += count
        if self.strings > MAX_STRINGS:
            raise FormatError(f"{self.where} lists more than {MAX_STRINGS:,} strings")
        self._within(8 * count)
        length_at = struct.Struct("<Q").unpack_from
        while count:
            window, at, last = self.window, self.at, len(self.window) - 8
            while count and at <= last:
                at += 8 + length_at(window, at)[0]
                count -= 1
            passed, self.at = at - self.at, self.at
            self.skip(passed)
            if count and self.at + 8 > len(self.window):
                self._fill(8)


def parse(read: Read, where: str, file_bytes: int | None) -> GgufHeader:
    """The header of one GGUF file (version 2 or 3, little-endian).

    `read` is called with rising offsets, about 64 KiB at a time, until the tensor list ends; the numbers of long
    lists are stepped over. `file_bytes` is the whole file's size where it is known. Raises FormatError for
    anything that cannot be: lengths beyond the file, unknown types, tensors outside the file or over each other.
    """
    cursor = _Cursor(read, where, file_bytes)
    tensor_count, key_count = _counts(cursor)
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.name()
        if key in metadata:
            raise FormatError(f"{where}: the key {shown(key)} is given twice")
        metadata[key] = _value(cursor, cursor.number("<I"), key)
    infos = [_tensor(cursor) for _ in range(tensor_count)]
    end = _check_layout(infos, cursor.offset, _alignment(metadata, where), where)
    if file_bytes is not None and file_bytes < end:
        raise FormatError(f"{where} has {file_bytes:,} bytes, but its header describes {end:,}", "was it cut off while downloading?")
    return GgufHeader(metadata, tuple(tensor for _, tensor in infos), end if file_bytes is None else file_bytes)


def _counts(cursor: _Cursor) -> tuple[int, int]:
    where = cursor.where
    magic, version = cursor.take(4), cursor.number("<I")
    if magic != b"GGUF":
        raise FormatError(f"{where} is no GGUF file: it starts with {magic!r}")
    if version in (2 << 24, 3 << 24):
        raise FormatError(f"{where} is a big-endian GGUF, which is not read", "use the little-endian file of the same model")
    if version not in (2, 3):
        raise FormatError(f"{where} is GGUF version {version}; versions 2 and 3 are read", "convert it with a current llama.cpp")
    tensors, keys = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MAX_TENSORS or keys > MAX_KEYS:
        raise FormatError(f"{where} says it holds {tensors:,} tensors and {keys:,} keys; at most {MAX_TENSORS:,} and {MAX_KEYS:,} are read")
    return tensors, keys


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind in _NUMBERS:
        return cursor.number(_NUMBERS[kind])
    if kind == _STRING:
        return cursor.text(_KEPT_TEXT)
    if kind == _ARRAY:
        return _array(cursor, cursor.number("<I"), cursor.number("<Q"), key)
    raise FormatError(f"{cursor.where}: the key {shown(key)} has the value type {kind}, which is not known")


def _array(cursor: _Cursor, kind: int, count: int, key: str) -> list[Any] | LongArray:
    """A list of numbers, where it is short; else its length."""
    if kind == _STRING:
        cursor.skip_strings(count)
        return LongArray(count)
    if kind not in _NUMBERS:
        raise FormatError(f"{cursor.where}: the key {shown(key)} is a list of value type {kind}, which is not known")
    code = _NUMBERS[kind]
    size = count * struct.calcsize(code)
    if count > min(_KEPT_ITEMS, cursor.items_left):
        cursor.skip(size)
        return LongArray(count)
    cursor.items_left -= count
    return list(struct.unpack(f"<{count}{code[1]}", cursor.take(size)))


def _tensor(cursor: _Cursor) -> tuple[int, StoredTensor]:
    """A tensor's offset in the data, and what it is."""
    name, dimensions = cursor.name(), cursor.number("<I")
    if not 1 <= dimensions <= 4:
        raise _odd_tensor(cursor, name, f"has {dimensions} dimensions; 1 to 4 belong there")
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))[::-1]
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    dtype = GGML_TYPES.get(kind)
    if dtype is None:
        raise _odd_tensor(cursor, name, f"has the ggml type {kind}, which is not known")
    if not all(shape) or math.prod(shape) >= 1 << 60 or shape[-1] % block_elements(dtype):
        raise _odd_tensor(cursor, name, f"has the shape {shape}, which {dtype} cannot have")
    return offset, StoredTensor(name, dtype, shape, storage_bytes(dtype, shape))


def _odd_tensor(cursor: _Cursor, name: str, problem: str) -> FormatError:
    return FormatError(f"{cursor.where}: tensor {shown(name)} {problem}")


def _alignment(metadata: dict[str, Any], where: str) -> int:
    value = metadata.get("general.alignment", 32)
    if type(value) is not int or not 0 < value <= 1 << 20 or value & (value - 1):
        raise FormatError(f"{where}: general.alignment is {shown(value)}; a power of two belongs there")
    return value


def _check_layout(infos: Sequence[tuple[int, StoredTensor]], header_end: int, alignment: int, where: str) -> int:
    """Where the file's data ends. Each tensor must start where the one before it, padded, ends."""
    if len({tensor.name for _, tensor in infos}) != len(infos):
        raise FormatError(f"{where} lists a tensor twice")
    expected = end = 0
    for offset, tensor in infos:
        if offset != expected:
            raise FormatError(f"{where}: tensor {shown(tensor.name)} starts at byte {offset:,} of the data, where {expected:,} is next")
        end = offset + tensor.bytes
        expected = end + -end % alignment
    return header_end + (-header_end % alignment + end if infos else 0)


def join(headers: Sequence[GgufHeader], where: str = "the split GGUF") -> GgufHeader:
    """One header for the parts of a split model, in any order. Raises FormatError where a part is missing or doubled.

    `split.count` and `split.no` are written by llama.cpp's gguf-split; the first part holds the metadata.
    """
    if len(headers) == 1 and headers[0].metadata.get("split.count", 1) in (0, 1):
        return headers[0]
    numbers = [h.metadata.get("split.no") for h in headers]
    complete = all(type(n) is int for n in numbers) and set(numbers) == set(range(len(headers)))
    if not complete or any(h.metadata.get("split.count") != len(headers) for h in headers):
        count = headers[0].metadata.get("split.count") if headers else 0
        raise FormatError(f"{where}: {len(headers)} parts of {shown(count)} are there", "put all parts of the model into one folder")
    ordered = [headers[numbers.index(n)] for n in range(len(headers))]
    tensors = tuple(tensor for header in ordered for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise FormatError(f"{where}: a tensor is in two of its parts")
    return replace(ordered[0], tensors=tensors, file_bytes=sum(h.file_bytes for h in ordered))


def split_names(name: str) -> tuple[str, ...]:
    """The file names of all parts of a split model, from the name of one (`…-00002-of-00003.gguf`); else the name alone."""
    match = _SPLIT_NAME.fullmatch(name)
    if match is None:
        return (name,)
    stem, number, count = match[1], int(match[2]), int(match[3])
    if not 1 <= number <= count <= MAX_SPLITS:
        raise FormatError(f"{name[-80:]!r} is named as part {number} of {count}; at most {MAX_SPLITS} parts are read")
    return tuple(f"{stem}-{n:05}-of-{count:05}{name[-5:]}" for n in range(1, count + 1))


def read_path(path: Path) -> GgufHeader:
    """The header of a GGUF file, or of all parts of a split one when `path` is any of its parts."""
    names = split_names(path.name)
    present = file_names(path.parent) if len(names) > 1 else names
    missing = [name for name in names if name not in present]
    if missing:
        raise ModelNotFoundError(f"{path.name} is one of {len(names)} parts, of which {missing[0]} is not there")
    return join([_read_one(path.with_name(name)) for name in names], path.name)


def _read_one(path: Path) -> GgufHeader:
    with open_regular(path) as (file, size):

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return parse(read, path.name, size)


def mix_name(header: GgufHeader) -> str:
    """What the file's quantisation mix is called: as `general.file_type` says, else the type most of its bytes have."""
    stated = header.metadata.get("general.file_type")
    if type(stated) is int and stated & 1023 in FILE_TYPES:
        return FILE_TYPES[stated & 1023]
    totals: dict[str, int] = {}
    for tensor in header.tensors:
        totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.bytes
    return max(totals, key=lambda name: totals[name]) if totals else "F32"
