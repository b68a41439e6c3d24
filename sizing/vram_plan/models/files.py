"""Opening files from outside: only regular ones, and with a sentence where that fails."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from os import stat_result
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import FormatError, ModelNotFoundError, VramPlanError

__all__ = ["file_names", "file_size", "is_folder", "open_regular", "read_bounded"]

MAX_FILES: Final = 20_000


def is_folder(path: Path) -> bool:
    """True for a folder, False for a file. Raises ModelNotFoundError or FormatError where it is neither or cannot be told."""
    return stat.S_ISDIR(_stat(path).st_mode)


def file_names(folder: Path) -> frozenset[str]:
    """The names in a folder, of at most `MAX_FILES`."""
    try:
        found = [entry.name for entry in islice(folder.iterdir(), MAX_FILES + 1)]
    except OSError as error:
        raise _reason(folder, error) from None
    if len(found) > MAX_FILES:
        raise FormatError(f"{folder} holds more than {MAX_FILES:,} files", "name the model's file or its config.json")
    return frozenset(found)


def file_size(path: Path) -> int:
    """Bytes of a regular file. A pipe or a device is refused without opening it, so nothing can hang."""
    found = _stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise FormatError(f"{path} is a folder; a file belongs there")
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(f"{path} is a device or a pipe; a file belongs there")
    return found.st_size


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file, open for reading, and its size. Raises ModelNotFoundError or FormatError where it cannot be read."""
    size = file_size(path)
    if not size:
        raise FormatError(f"{path} is empty")
    try:
        with path.open("rb") as file:
            yield file, size
    except OSError as error:
        raise _reason(path, error) from None


def read_bounded(path: Path, limit: int) -> bytes:
    """A whole file of at most `limit` bytes."""
    with open_regular(path) as (file, size):
        if size > limit:
            raise FormatError(f"{path} has {size:,} bytes; at most {limit:,} are read", "is it the right file?")
        return file.read(limit)


def _stat(path: Path) -> stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        raise _reason(path, error) from None


def _reason(path: Path, error: Exception) -> VramPlanError:
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOENT, errno.ENOTDIR):
        return ModelNotFoundError(f"there is no file or folder {path}")
    if code in (errno.EACCES, errno.EPERM):
        return FormatError(f"{path} may not be read: permission denied", "change its permissions, or run as its owner")
    if code == errno.ELOOP:
        return FormatError(f"{path} is a link that leads back to itself")
    return FormatError(f"{str(path)[:200]!r} cannot be read: {(error.strerror if isinstance(error, OSError) else None) or error}")
