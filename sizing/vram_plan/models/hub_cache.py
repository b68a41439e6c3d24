"""What is on this disk of the Hub: huggingface_hub's own snapshots, and the answers this program kept.

Kept answers lie under huggingface_hub's folder for other libraries (`HF_HOME/assets/vram-plan`; VRAM_PLAN_CACHE moves
them). Each is one small file: a config and a tensor list, no weights, no token.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import VramPlanError
from .checkpoint import Checkpoint, GgufHeader, StoredTensor
from .files import file_size, open_regular, read_bounded
from .gguf import LongArray
from .hub_http import FileMissing

__all__ = ["Snapshot", "cache_folder", "load", "store"]

_SCHEMA: Final = 1
_MAX_KEPT_BYTES: Final = 64_000_000
_LONG: Final = "__length__"


# huggingface_hub's cache: models--org--name/{refs/main, snapshots/<commit>/…} (its guide "Understand caching")


@dataclass
class Snapshot:
    """A repository's files as huggingface_hub downloaded them, as far as it did."""

    repo_id: str
    commit: str | None
    folder: Path
    partial: bool = True
    requests: int = 0

    @classmethod
    def find(cls, repo_id: str, revision: str) -> Snapshot | None:
        from huggingface_hub import constants

        root = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
        commit = revision
        with contextlib.suppress(OSError, ValueError):
            commit = (root / "refs" / revision).read_text("utf-8")[:64].strip()
        folder = root / "snapshots" / commit
        return cls(repo_id, commit, folder) if re.fullmatch(r"[0-9a-f]{40}", commit) and folder.is_dir() else None

    def fetch(self, name: str, max_bytes: int) -> bytes:
        return read_bounded(self._path(name), max_bytes)

    def open(self, name: str) -> _LocalFile:
        return _LocalFile(self._path(name))

    def listing(self) -> tuple[str, ...]:
        return tuple(str(path.relative_to(self.folder).as_posix()) for path in sorted(self.folder.rglob("*")) if path.is_file())

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise FileMissing
        return path


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.file_bytes: int | None = file_size(path)

    def read(self, start: int, count: int, enough: Callable[[bytearray], bool] | None = None) -> bytes:
        with open_regular(self._path) as (file, _):
            file.seek(start)
            return file.read(count)


# kept answers


def cache_folder() -> Path:
    """Where answers are kept."""
    from huggingface_hub import constants

    return Path(os.environ.get("VRAM_PLAN_CACHE") or Path(constants.HF_ASSETS_CACHE) / "vram-plan")


def load(*key: str | None) -> Checkpoint | None:
    """The answer kept under this key; None when there is none, or it cannot be read."""
    try:
        packed = read_bounded(_path(key), _MAX_KEPT_BYTES)
        unpacked = zlib.decompressobj().decompress(packed, 4 * _MAX_KEPT_BYTES)
        data = json.loads(unpacked, object_hook=_revive)
        return _from_json(data["checkpoint"]) if data["schema"] == _SCHEMA and data["key"] == list(key) else None
    except (VramPlanError, ValueError, TypeError, KeyError, IndexError, zlib.error, RecursionError):
        return None


def store(checkpoint: Checkpoint, *key: str | None) -> None:
    """Keep an answer. A disk that is full or read-only is no error: the next plan asks the Hub again."""
    data = {"schema": _SCHEMA, "key": key, "checkpoint": _to_json(checkpoint)}
    packed = zlib.compress(json.dumps(data, separators=(",", ":"), default=_plain).encode())
    path = _path(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(packed)
            Path(draft).replace(path)
        except OSError:
            Path(draft).unlink(missing_ok=True)
            raise


def _path(key: tuple[str | None, ...]) -> Path:
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    return cache_folder() / "headers" / f"{digest}.json.z"


def _to_json(checkpoint: Checkpoint) -> dict[str, Any]:
    plain = {name: getattr(checkpoint, name) for name in _PLAIN}
    gguf, stored = checkpoint.gguf, checkpoint.stored
    return plain | {
        "stored": None if stored is None else [_row(t) for t in stored],
        "gguf": None if gguf is None else [gguf.metadata, [_row(t) for t in gguf.tensors], gguf.file_bytes],
    }


def _from_json(data: dict[str, Any]) -> Checkpoint:
    gguf, stored = data["gguf"], data["stored"]
    plain: dict[str, Any] = {name: data[name] for name in _PLAIN if name != "notes"}
    return Checkpoint(
        **plain,
        notes=tuple(data["notes"]),
        stored=None if stored is None else _tensors(stored),
        gguf=None if gguf is None else GgufHeader(gguf[0], _tensors(gguf[1]), gguf[2]),
    )


def _row(tensor: StoredTensor) -> list[Any]:
    return [tensor.name, tensor.dtype, tensor.shape, tensor.bytes]


def _tensors(rows: list[Any]) -> tuple[StoredTensor, ...]:
    return tuple(StoredTensor(name, dtype, tuple(shape), size) for name, dtype, shape, size in rows)


def _plain(value: object) -> Any:
    if isinstance(value, LongArray):
        return {_LONG: value.length}
    raise TypeError(type(value).__name__)


def _revive(found: dict[str, Any]) -> Any:
    return LongArray(found[_LONG]) if found.keys() == {_LONG} else found


_PLAIN: Final = ("name", "reference", "kind", "source", "revision", "config", "quantization", "notes")
