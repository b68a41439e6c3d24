"""A model in a local Ollama store: a manifest names blobs, of which the model's is a GGUF.

The layout is Ollama's (server/modelpath.go, server/manifest.go): `manifests/HOST/NAMESPACE/NAME/TAG` is JSON whose
layers have a media type and a digest, `blobs/sha256-…` are the layers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ..errors import FormatError, ModelNotFoundError
from . import gguf
from .checkpoint import Checkpoint, GgufHeader
from .files import is_folder, read_bounded
from .json_guard import load_json

__all__ = ["open_ollama", "store_folder"]

_MODEL: Final = "application/vnd.ollama.image.model"
_PROJECTOR: Final = "application/vnd.ollama.image.projector"
_TENSOR: Final = "application/vnd.ollama.image.tensor"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_NAME = re.compile(r"(?:(?:([\w.-]+(?::\d+)?)/)?([\w-][\w.-]*)/)?([\w-][\w.-]*)(?::([\w-][\w.-]*))?")
_HOST: Final = "registry.ollama.ai"
_MAX_MANIFEST_BYTES: Final = 4_000_000


def store_folder() -> Path:
    """Where Ollama keeps its models: `OLLAMA_MODELS`, else `.ollama/models` in the home folder."""
    named = os.environ.get("OLLAMA_MODELS")
    return Path(named).expanduser() if named else Path("~/.ollama/models").expanduser()


def open_ollama(reference: str, root: Path | None = None) -> Checkpoint | None:
    """The model of a tag (`llama3:8b`, `user/model:tag`, `hf.co/org/repo:Q4_K_M`) if this machine pulled it; else None.

    A vision projector that Ollama would load with it is part of the model. Raises FormatError for a store that is
    there but cannot be understood.
    """
    root = root or store_folder()
    manifest = _manifest(root, reference)
    if manifest is None:
        return None
    layers = _layers(load_json(read_bounded(manifest, _MAX_MANIFEST_BYTES), str(manifest)), manifest)
    models = [_blob(root, digest, manifest) for kind, digest in layers if kind == _MODEL]
    if not models:
        what = "is in Ollama's own tensor format, which is not read" if any(k == _TENSOR for k, _ in layers) else "names no model"
        raise FormatError(f"{manifest} {what}", "name the GGUF file or the Hub id of the model")
    header = gguf.join([gguf.read_path(path) for path in models], reference)
    for path in (_blob(root, digest, manifest) for kind, digest in layers if kind == _PROJECTOR):
        header = _with_projector(header, gguf.read_path(path), reference)
    return Checkpoint(name=reference, reference=reference, kind="ollama", source=f"Ollama's store, {models[0]}", gguf=header)


def _manifest(root: Path, reference: str) -> Path | None:
    """The manifest of a tag: Ollama fills in its registry, `library` and `latest`."""
    match = _NAME.fullmatch(reference)
    if match is None or ".." in reference:
        return None
    host, namespace, name, tag = match.groups()
    path = root / "manifests" / (host or _HOST).replace(":", "_") / (namespace or "library") / name / (tag or "latest")
    try:
        return None if is_folder(path) else path
    except ModelNotFoundError:
        return None


def _layers(manifest: Any, where: Path) -> list[tuple[str, str]]:
    """Media type and digest of each layer."""
    layers = manifest.get("layers") if isinstance(manifest, Mapping) else None
    if not isinstance(layers, list) or not all(isinstance(layer, Mapping) for layer in layers):
        raise FormatError(f"{where} lists no layers", "pull the model again with ollama")
    return [(str(layer.get("mediaType")), str(layer.get("digest"))) for layer in layers]


def _blob(root: Path, digest: str, where: Path) -> Path:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise FormatError(f"{where} names the blob {digest[:80]!r}, which is no digest", "pull the model again with ollama")
    return root / "blobs" / f"sha256-{match[1]}"


def _with_projector(model: GgufHeader, projector: GgufHeader, where: str) -> GgufHeader:
    """The model's header with the projector's weights and keys added; the model's own keys win."""
    tensors = (*model.tensors, *projector.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise FormatError(f"{where}: the projector holds tensors the model has as well", "pull the model again with ollama")
    return replace(
        model,
        metadata={**projector.metadata, **model.metadata},
        tensors=tensors,
        file_bytes=model.file_bytes + projector.file_bytes,
    )
