"""A GGUF on the Hub: which of a repository's many, and its header in as few requests and bytes as can be.

A GGUF does not say how long its header is: a few kilobytes of facts, then the vocabulary, of 1 to 10 MB, then the tensor list.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

from ..errors import AmbiguousModelError, ModelNotFoundError
from . import gguf
from .checkpoint import GgufHeader
from .hub_files import Progress, Source, in_threads

__all__ = ["choose_gguf", "gguf_header", "quant_label", "quants"]

_MAX_HEADER_BYTES: Final = 64 << 20
_FIRST_LOOK_BYTES: Final = 4096
_REQUESTS: Final = 4  #: aimed at, list and redirect included

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
    return gguf.join(in_threads(lambda part: _one_header(source, part), parts, progress), f"{name} of {source.repo_id}")


def _one_header(source: Source, name: str) -> GgufHeader:
    """A first look, then reads to where the header seems to end, each stopped where it does."""
    file = source.open(name)
    scan = _Scan()
    blob = file.read(0, _FIRST_LOOK_BYTES)
    limit = min(_MAX_HEADER_BYTES, _MAX_HEADER_BYTES if file.file_bytes is None else file.file_bytes)
    scan.advance(blob, 0)
    while not scan.ends_within(len(blob)) and len(blob) < limit and scan.at < limit:
        start = min(scan.at, len(blob))
        last = source.requests + 1 >= _REQUESTS
        grown = len(blob) * (33 if not last else 40 if source.requests < _REQUESTS else 64) // 32
        stop = min(max(scan.guess(last), grown), limit)
        blob = blob[:start] + file.read(start, stop - start, partial(scan.advance, base=start))
        scan.advance(blob, 0)
    return gguf.parse(lambda offset, count: blob[offset : offset + count], f"{name} of {source.repo_id}", file.file_bytes)


class _Scan:
    """Walks over a GGUF header as it arrives, only to know where it ends; `gguf.parse` judges it afterwards."""

    _SIZES: Final[Mapping[int, int]] = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    _STRING, _ARRAY = 8, 9

    def __init__(self) -> None:
        self.at = 0  # where the next item begins
        self.begun = self.odd = self.has_merges = self.in_vocabulary = False
        self.keys = self.tensors = self.strings = 0  # still to come; `strings` of the list at hand
        self.list_start = self.list_strings = self.vocabulary = 0

    def ends_within(self, size: int) -> bool:
        return self.odd or (self._walked and self.at <= size)

    @property
    def _walked(self) -> bool:
        return self.begun and not (self.keys or self.tensors or self.strings)

    def advance(self, data: Any, base: int) -> bool:
        """Walk on in `data`, which begins at byte `base`; whether the header ends in it."""
        try:
            while not self.odd and not self._walked:
                self._step(data, self.at - base)
        except (struct.error, OverflowError):
            return False  # not yet there, or never
        return self.ends_within(base + len(data))

    def guess(self, last: bool) -> int:
        """Where to read to: for the `last` read high, as it stops by itself; before that only what is surely needed."""
        return self.at + (self._texts(last) if self.keys or self.strings else 0) + 66 * self.tensors

    def _texts(self, last: bool) -> int:
        """Bytes still to come of the metadata. Per token: 16 its text, 4 its type, 4 a score or 17 to 37 its merges."""
        after = (16 << 10) if last else min(2048, 4 * self.vocabulary)  # the chat template and small keys
        if not self.vocabulary:
            return 4 << 20 if last else 16 << 10
        if not self.strings:
            return after + (45 * self.vocabulary if last and self.has_merges else 0)
        seen = self.list_strings - self.strings
        mean = (self.at - self.list_start) / seen if seen else 8.0
        if not self.in_vocabulary:  # the merges
            return after + int(self.strings * (1.1 * mean if seen > 5000 else max(1.1 * mean, 19)))
        if last:
            return after + (68 if self.has_merges else 30) * self.vocabulary
        return after + int(self.strings * max(1.1 * mean, 16)) + 8 * self.vocabulary

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
            dimensions = struct.unpack_from("<I", data, here + 8 + name)[0]
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
        kind = struct.unpack_from("<I", data, here + 8 + name)[0]
        key = bytes(data[here + 8 : here + 8 + name])
        size = 8 + name + 4
        if kind in self._SIZES:
            size += self._SIZES[kind]
        elif kind == self._STRING:
            length = struct.unpack_from("<Q", data, here + size)[0]
            if key == b"tokenizer.ggml.model":
                self.has_merges = bytes(data[here + size + 8 : here + size + 12]) == b"gpt2"
            size += 8 + length
        elif kind == self._ARRAY:
            item, count = struct.unpack_from("<IQ", data, here + size)
            size += 12
            size += self._list(key, item, count, self.at + size)
        else:
            self.odd = True
        self.at += size
        self.keys -= 1

    def _list(self, key: bytes, item: int, count: int, start: int) -> int:
        """Bytes of a list of numbers; one of texts is walked next."""
        if item == self._STRING:
            self.strings = self.list_strings = count
            self.list_start = start
            self.in_vocabulary = key == b"tokenizer.ggml.tokens"
            self.vocabulary = count if self.in_vocabulary else self.vocabulary
            return 0
        self.odd = item not in self._SIZES
        return count * self._SIZES.get(item, 0)
