"""Logs as lines, whatever they are: files or standard input, of any size, never more than a line in memory.

Long lines are cut, the rest is passed over; reading ends at a number of bytes, of lines or of seconds, so that a stream that never
ends does not keep the command from ending.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ..errors import FormatError
from ..models.files import open_regular

__all__ = ["LIMITS", "Limits", "log_lines", "opened_log"]

_CHUNK: Final = 1 << 16
#: Told how much is done of how much.
Progress = Callable[[int, int], None]
_COLOURS: Final = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")
#: A share of control characters above this in the first chunk is no text.
_BINARY_SHARE: Final = 0.03


class Limits:
    """Bounds of one reading: bytes and lines in all, characters kept of a line, seconds in all and without anything new."""

    def __init__(
        self, max_bytes: int = 256 << 20, max_lines: int = 4_000_000, max_line: int = 32_768, seconds: float = 30.0, idle: float = 5.0
    ) -> None:
        self.max_bytes, self.max_lines, self.max_line, self.seconds, self.idle = max_bytes, max_lines, max_line, seconds, idle


LIMITS: Final = Limits()


@contextmanager
def opened_log(name: str) -> Iterator[IO[bytes]]:
    """The file of that name, or standard input for `-`. Raises ModelNotFoundError and FormatError as `open_regular` does."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with open_regular(Path(name).expanduser()) as (file, _):
        yield file


def log_lines(file: IO[bytes], where: str, limits: Limits = LIMITS, progress: Progress | None = None) -> Iterator[str]:
    """The lines of a log without colours, each cut to `limits.max_line` characters. Raises FormatError for what is no text.

    `progress(done, total)` is told the bytes read of those that will be.
    """
    decoder: codecs.IncrementalDecoder | None = None
    rest, skipping, count = "", False, 0
    for chunk in _chunks(file, limits, progress):
        decoder = decoder or _decoder(chunk, where)
        pieces = _ENDS.split(rest + decoder.decode(chunk))
        rest = pieces.pop()
        for piece in pieces:
            if not skipping and piece:
                yield _clean(piece[: limits.max_line])
            skipping = False
        count += len(pieces)
        if count > limits.max_lines:
            return
        if len(rest) > limits.max_line:  # the end of a line that is too long is passed over
            if not skipping:
                yield _clean(rest[: limits.max_line])
            rest, skipping = "", True
    if rest and not skipping:
        yield _clean(rest[: limits.max_line])


_ENDS: Final = re.compile(r"[\r\n]+")


def _clean(line: str) -> str:
    """Without colours, Docker's JSON around it, and what would move a terminal's cursor where the line is shown."""
    if line.startswith('{"log":"'):
        line = line[8:].partition('\\n"')[0]
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in _COLOURS.sub("", line))


def _chunks(file: IO[bytes], limits: Limits, progress: Progress | None) -> Iterator[bytes]:
    started, read = time.monotonic(), 0
    waits = _may_wait(file)
    total = 0 if waits or progress is None else min(_size(file), limits.max_bytes)
    while read < limits.max_bytes and (left := limits.seconds - (time.monotonic() - started)) > 0:
        if waits and not select.select([file], [], [], min(left, limits.idle))[0]:
            return
        chunk = os.read(file.fileno(), _CHUNK) if waits else file.read(_CHUNK)
        if not chunk:
            return
        read += len(chunk)
        if progress is not None and total:
            progress(read, total)
        yield chunk


def _size(file: IO[bytes]) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except (OSError, ValueError):  # held in memory
        return 0


def _may_wait(file: IO[bytes]) -> bool:
    """Whether reading may wait for ever: a pipe or a terminal, which can be asked first (not on Windows)."""
    if sys.platform == "win32":
        return False
    try:
        return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):  # held in memory
        return False


def _decoder(head: bytes, where: str) -> codecs.IncrementalDecoder:
    """UTF-8, or UTF-16 as Windows PowerShell writes what it redirects. Raises FormatError for what is no text."""
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    control = sum(head.count(bytes([code])) for code in (*range(9), *range(14, 27)))
    if not wide and control > _BINARY_SHARE * len(head):
        raise FormatError(f"{where} is no log: it is not text", "give the engine's log, or a server's address (http://127.0.0.1:8080)")
    return codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")(errors="replace")
