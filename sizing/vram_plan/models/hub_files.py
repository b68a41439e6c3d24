"""What a repository's files say of a model, read as sparingly as their formats allow: headers, never weights.

The same walk serves the Hub (byte ranges over HTTP) and a snapshot in huggingface_hub's cache: both are a `Source`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from ..errors import FormatError
from . import safetensors
from .checkpoint import StoredTensor
from .hub_http import FileMissing
from .json_guard import load_json

__all__ = ["INDEX", "SINGLE", "Progress", "RangedFile", "Source", "in_threads", "shard_headers", "tensor_header"]

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
MAX_INDEX_BYTES: Final = 64_000_000
_MAX_INDEX_VALUES: Final = 1_000_000
#: Of all shards together; the largest models published have a fifth of that.
_MAX_TENSORS: Final = 500_000
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
    """Where a repository's files come from. All methods raise FileMissing.

    `partial`: some files may be elsewhere. `requests`: made so far.
    """

    repo_id: str
    commit: str | None
    partial: bool
    requests: int

    def fetch(self, name: str, max_bytes: int) -> bytes: ...

    def open(self, name: str) -> RangedFile: ...

    def listing(self) -> tuple[str, ...]: ...


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
