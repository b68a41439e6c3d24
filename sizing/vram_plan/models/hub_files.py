"""What a repository's files say of a model, read as sparingly as their formats allow: headers, never weights.

The same walk serves the Hub (byte ranges over HTTP) and a snapshot in huggingface_hub's cache: both are a `Source`.
"""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final, Protocol, TypeVar

from ..errors import AmbiguousModelError, FormatError, ModelNotFoundError
from . import gguf, safetensors
from .checkpoint import GgufHeader, StoredTensor
from .hub_http import FileMissing
from .json_guard import load_json

__all__ = ["Progress", "RangedFile", "Source", "choose_gguf", "gguf_header", "quants", "shard_headers", "tensor_header"]

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
MAX_INDEX_BYTES: Final = 64_000_000
_MAX_INDEX_VALUES: Final = 1_000_000
#: Of all shards together; the largest models published have a fifth of that.
_MAX_TENSORS: Final = 500_000
_MAX_GGUF_HEADER_BYTES: Final = 64 << 20
_THREADS: Final = 8

#: Told how many of how many files are read; called from several threads, one at a time.
Progress = Callable[[int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


class RangedFile(Protocol):
    """`file_bytes` is known after the first read; a read gives fewer bytes where the file ends or `enough` says so."""

    file_bytes: int | None

    def read(self, start: int, count: int, enough: Callable[[bytearray], bool] | None = None) -> bytes: ...


class Source(Protocol):
    """Where a repository's files come from; `partial` where some may not be there. All methods raise FileMissing."""

    repo_id: str
    commit: str | None
    partial: bool

    def fetch(self, name: str, max_bytes: int) -> bytes: ...

    def open(self, name: str) -> RangedFile: ...

    def listing(self) -> tuple[str, ...]: ...


# safetensors


def tensor_header(source: Source, name: str, first: int = 8) -> tuple[StoredTensor, ...]:
    """One safetensors header: its length from the `first` bytes, then what is still missing of it."""
    where = f"{name} of {source.repo_id}"
    file = source.open(name)
    head = file.read(0, first)
    end = 8 + safetensors.header_length(head, where)
    if file.file_bytes is not None and end > file.file_bytes:
        raise FormatError(f"{where} has {file.file_bytes:,} bytes, but a header of {end - 8:,}", "was it uploaded completely?")
    if len(head) < end:
        head += file.read(len(head), end - len(head))
    return safetensors.parse_header(head[8:end], where, file.file_bytes)


def shard_headers(source: Source, progress: Progress | None) -> tuple[StoredTensor, ...]:
    """The headers of all shards the index names, several at a time. Raises FileMissing where there is no index."""
    index = load_json(source.fetch(INDEX, MAX_INDEX_BYTES), f"{INDEX} of {source.repo_id}", MAX_INDEX_BYTES, max_values=_MAX_INDEX_VALUES)
    names = safetensors.parse_index(index)
    guesses = dict.fromkeys(names, 72)
    for tensor, shard in index["weight_map"].items():
        guesses[shard] += _entry_bytes(tensor)
    read = 0

    def header(name: str) -> tuple[StoredTensor, ...]:
        nonlocal read
        try:
            found = tensor_header(source, name, guesses[name])
        except FileMissing:
            if source.partial:
                raise
            raise FormatError(f"{INDEX} of {source.repo_id} names {name}, which is not there") from None
        read += len(found)
        if read > _MAX_TENSORS:
            raise FormatError(f"the shards of {source.repo_id} list more than {_MAX_TENSORS:,} tensors")
        return found

    return tuple(tensor for shard in in_threads(header, names, progress) for tensor in shard)


def _entry_bytes(tensor: str) -> int:
    """Bytes of a header's line, a little high: `"name":{"dtype":"BF16","shape":[4096,4096],"data_offsets":[4294967296,4328521728]},`."""
    return len(tensor) + 84


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], progress: Progress | None) -> list[Result]:
    """`work` on every item, eight at a time; the first error ends it. The threads never keep the program from ending."""
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    waiting = iter(range(len(items)))
    lock = threading.Lock()

    def run() -> None:
        while not errors:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            try:
                result = work(items[number])
            except BaseException as error:  # handed to the caller's thread
                errors.append(error)
                return
            with lock:
                results[number] = result
                if progress is not None:
                    progress(len(results), len(items))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(_THREADS, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(items))]


# GGUF

_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_QUANT = re.compile(
    r"(?:^|[-._ ])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4))$",
    re.IGNORECASE,
)


def quants(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The models among a repository's GGUF files: the first part's name → all its parts, in order.

    Vision projectors (mmproj) and importance matrices are no models and left out.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() == ".gguf" and not re.search("mmproj|imatrix", path.name, re.IGNORECASE):
            found.setdefault(str(path.with_name(_SPLIT.sub("", path.stem))), []).append(name)
    return {parts[0]: tuple(parts) for parts in found.values()}


def quant_label(name: str) -> str:
    """The quant a GGUF's name states: `Llama-3-8B-Q4_K_M.gguf` → `Q4_K_M`; also by its folder; else the bare name."""
    path = PurePosixPath(name)
    stem = _SPLIT.sub("", path.stem)
    match = _QUANT.search(stem) or _QUANT.search(path.parent.name)
    return match[1].upper() if match else stem


def choose_gguf(repo_id: str, names: Sequence[str], quant: str | None) -> str:
    """The file (of a split model the first part) of the quant asked for.

    Raises AmbiguousModelError for several, ModelNotFoundError for none, each listing what there is.
    """
    files = list(quants(names))
    if quant is not None:
        files = _with_quant(files, quant)
    if len(files) == 1:
        return files[0]
    labels = sorted({quant_label(name) for name in quants(names)})
    shown = ", ".join(labels[:40]) + (", …" if len(labels) > 40 else "")
    if not files:
        raise ModelNotFoundError(f"{repo_id} has no GGUF {quant}", f"it has {shown}")
    if len({quant_label(name) for name in files}) == 1:
        raise AmbiguousModelError(f"{repo_id} has several files of that quant", f"name one: {repo_id}/{files[0]}, …")
    raise AmbiguousModelError(f"{repo_id} has {len(files)} quants: {shown}", f"name one: {repo_id}:{labels[0]}")


def _with_quant(files: Sequence[str], quant: str) -> list[str]:
    wanted = quant.upper().removesuffix(".GGUF")
    exact = [name for name in files if quant_label(name).upper() == wanted]
    return exact or [name for name in files if quant_label(name).upper().removeprefix("UD-") == wanted]


def gguf_header(source: Source, name: str, progress: Progress | None) -> GgufHeader:
    """The header of a GGUF, split ones joined from all their parts. Raises FileMissing, FormatError."""
    parts = gguf.split_names(name)
    return gguf.join(in_threads(lambda part: _one_gguf_header(source, part), parts, progress), f"{name} of {source.repo_id}")


def _one_gguf_header(source: Source, name: str) -> GgufHeader:
    """A first look, then one read that stops where the header ends; more only where the guess was short."""
    file = source.open(name)
    scan = _GgufScan()
    blob = file.read(0, 4096)
    limit = min(_MAX_GGUF_HEADER_BYTES, _MAX_GGUF_HEADER_BYTES if file.file_bytes is None else file.file_bytes)
    scan.advance(blob, 0)
    while not scan.ends_within(len(blob)) and len(blob) < limit and scan.at < limit:
        start = min(scan.at, len(blob))
        stop = min(max(scan.guess(), len(blob) + len(blob) // 4), limit)
        blob = blob[:start] + file.read(start, stop - start, partial(scan.advance, base=start))
    return gguf.parse(lambda offset, count: blob[offset : offset + count], f"{name} of {source.repo_id}", file.file_bytes)


class _GgufScan:
    """Walks over a GGUF header as it arrives, only to know where it ends; `gguf.parse` judges it afterwards."""

    _SIZES: Final[Mapping[int, int]] = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    _STRING, _ARRAY = 8, 9

    def __init__(self) -> None:
        self.at = 0
        self.begun = self.odd = False
        self.keys = self.tensors = self.strings = self.vocabulary = 0

    def ends_within(self, size: int) -> bool:
        return self.odd or (self.begun and not (self.keys or self.tensors or self.strings) and self.at <= size)

    def advance(self, data: Any, base: int) -> bool:
        """Walk on in `data`, which begins at byte `base`; whether the header ends in it."""
        try:
            while not self.ends_within(base + len(data)):
                self._step(data, self.at - base)
        except (struct.error, OverflowError):
            return False  # not yet there, or never
        return True

    def guess(self) -> int:
        """Where the header may end: high for a vocabulary, whose texts have no fixed size, else close."""
        texts = 72 * self.vocabulary + (16 << 10) if self.vocabulary else 4 << 20
        return self.at + (texts if self.keys or self.strings else 0) + 66 * self.tensors

    def _step(self, data: Any, here: int) -> None:
        if not self.begun:
            magic, _, self.tensors, self.keys = struct.unpack_from("<4sIQQ", data, here)
            self.at, self.begun, self.odd = 24, True, magic != b"GGUF"
        elif self.strings:
            self._strings(data, here)
        elif self.keys:
            self._key(data, here)
        else:
            name = struct.unpack_from("<Q", data, here)[0]
            dimensions = struct.unpack_from("<I", data, here + 8 + name)[0] if name < 1 << 20 else 9
            self.odd = dimensions > 4
            self.at += 8 + name + 4 + 8 * dimensions + 4 + 8
            self.tensors -= 1

    def _strings(self, data: Any, here: int) -> None:
        length_at = struct.Struct("<Q").unpack_from
        begin = here
        try:
            while self.strings:
                here += 8 + length_at(data, here)[0]
                self.strings -= 1
        finally:
            self.at += here - begin

    def _key(self, data: Any, here: int) -> None:
        name = struct.unpack_from("<Q", data, here)[0]
        if name > 1 << 20:
            self.odd = True
            return
        kind = struct.unpack_from("<I", data, here + 8 + name)[0]
        size = 8 + name + 4
        if kind in self._SIZES:
            size += self._SIZES[kind]
        elif kind == self._STRING:
            size += 8 + struct.unpack_from("<Q", data, here + size)[0]
        else:
            item, count = struct.unpack_from("<IQ", data, here + size) if kind == self._ARRAY else (0, -1)
            self.odd = count < 0 or (item != self._STRING and item not in self._SIZES)
            size += 12 + (0 if self.odd or item == self._STRING else count * self._SIZES[item])
            self.strings = count if item == self._STRING else 0
            self.vocabulary = max(self.vocabulary, self.strings if self.strings > 1000 else 0)
        self.at += size
        self.keys -= 1
