"""What a source found, before anything is interpreted: a config, a file header, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..values import dataclass

__all__ = ["Checkpoint", "GgufHeader", "SourceKind", "StoredTensor"]

SourceKind = Literal["catalogue", "hub", "local", "ollama"]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as a file's header lists it. `shape` is row-major (a GGUF's reversed order is turned round)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """The metadata and tensor list of a GGUF, split files joined. Long token lists are kept as their length only."""

    metadata: Mapping[str, Any]
    tensors: tuple[StoredTensor, ...]
    file_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A model as found. `reference` is what was asked for, `source` in words where it was found.

    Exactly one of `config` and `gguf` describes the shape; `stored` is a safetensors header's list, when one was
    read. `quantization` is `quantization_config`, from the config or from the file beside it.
    """

    name: str
    reference: str
    kind: SourceKind
    source: str
    revision: str | None = None
    config: Mapping[str, Any] | None = None
    gguf: GgufHeader | None = None
    stored: tuple[StoredTensor, ...] | None = None
    quantization: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
