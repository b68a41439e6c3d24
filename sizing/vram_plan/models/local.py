"""A model on this disk: a checkpoint folder, its config alone, safetensors or GGUF files. Only headers are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import AmbiguousModelError, FormatError, ModelNotFoundError
from . import gguf, safetensors
from .checkpoint import Checkpoint, GgufHeader, StoredTensor
from .files import file_names, file_size, is_folder, open_regular, read_bounded
from .json_guard import MAX_CONFIG_BYTES, load_json

__all__ = ["open_local"]

INDEX: Final = "model.safetensors.index.json"
QUANT_CONFIG: Final = "hf_quant_config.json"
_NUMBERED = re.compile(r"(.*)-\d{5}-of-(\d{5})\.safetensors", re.DOTALL)
_NO_MODEL = re.compile("mmproj|imatrix", re.IGNORECASE)
#: Of all shards together.
MAX_TENSORS: Final = 500_000


def open_local(path: Path) -> Checkpoint:
    """The model at a path: a folder, `config.json` (or any *.json config), `*.safetensors`, `*.gguf`, or a file that starts as a GGUF.

    A shard or a part stands for the whole set beside it. Raises ModelNotFoundError, AmbiguousModelError (a folder with
    several GGUF models), FormatError.
    """
    if is_folder(path):
        return _folder(path)
    name = path.name.lower()
    if name.endswith(".safetensors"):
        return _weights(path)
    if name.endswith(".index.json"):
        return _folder(path.parent)
    if name.endswith(".json"):
        return _checkpoint(path, config=_config(path))
    if name.endswith(".gguf") or _starts_as_gguf(path):
        return _checkpoint(path, header=gguf.read_path(path))
    raise FormatError(f"{path} is no model file", "name a folder, config.json, *.safetensors or *.gguf")


def _folder(folder: Path) -> Checkpoint:
    """Weights first, in transformers' order; then GGUF; a config without weights is enough too."""
    names = file_names(folder)
    config = _config(folder / "config.json") if "config.json" in names else None
    shards = _shards(folder, names)
    if not shards and any(name.lower().endswith(".gguf") for name in names):
        return _gguf_folder(folder, names)
    if config is None and not shards:
        raise _nothing(folder, names)
    missing = [shard for shard in shards if shard not in names]
    if missing and config is None:
        raise ModelNotFoundError(f"{folder} lacks {missing[0]}, which its index names", "download the model completely")
    notes: tuple[str, ...] = ()
    if missing:
        notes = (f"{len(missing)} of {len(shards)} weight files are not in {folder.name}: sizes are computed from its config",)
        shards = ()
    elif not shards:
        notes = (f"{folder.name} holds no safetensors: sizes are computed from its config",)
    return _checkpoint(folder, config=config, stored=_read_shards(folder, shards), notes=notes)


def _nothing(folder: Path, names: frozenset[str]) -> FormatError:
    if "adapter_config.json" in names:
        return FormatError(f"{folder} is an adapter (LoRA), not a whole model", "name its base model; the adapter adds little to it")
    return FormatError(f"{folder} holds no config.json, no safetensors and no GGUF", "name the folder of a model")


def _shards(folder: Path, names: frozenset[str]) -> tuple[str, ...]:
    """The safetensors files that make up the model, none where there are none. Adapters and Mistral's doubles are left out."""
    if "model.safetensors" in names:
        return ("model.safetensors",)
    if INDEX in names:
        return safetensors.load_index(read_bounded(folder / INDEX, safetensors.MAX_INDEX_BYTES), INDEX)
    found = sorted(n for n in names if n.lower().endswith(".safetensors") and not n.startswith("adapter_model"))
    own = [n for n in found if n.startswith("model")] or [n for n in found if not n.startswith("consolidated")]
    return _one_set(folder, own or found) if found else ()


def _one_set(folder: Path, chosen: list[str]) -> tuple[str, ...]:
    """The files, when they are one or one numbered set. Raises AmbiguousModelError for several models."""
    sets = {_set_of(name)[0] for name in chosen}
    if len(sets) > 1:
        listed = ", ".join(sorted(chosen)[:12]) + (", …" if len(chosen) > 12 else "")
        raise AmbiguousModelError(f"{folder} holds several safetensors files and no index: {listed}", f"name one: {folder / chosen[0]}")
    return _set_of(chosen[0])[1]


def _set_of(name: str) -> tuple[str, tuple[str, ...]]:
    """A numbered set's stem and all its files' names; a plain file is a set of its own."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return name, (name,)
    count = int(match[2])
    if not 1 <= count <= safetensors.MAX_SHARDS:
        raise FormatError(f"{name[-80:]!r} is named as one of {count} files; at most {safetensors.MAX_SHARDS:,} are read")
    return f"{match[1]}-of-{match[2]}", tuple(f"{match[1]}-{n:05}-of-{match[2]}.safetensors" for n in range(1, count + 1))


def _weights(path: Path) -> Checkpoint:
    """A safetensors file and those of its set, with the config beside it."""
    file_size(path)
    folder, names = path.parent, file_names(path.parent)
    shards = _set_of(path.name)[1]
    missing = [shard for shard in shards if shard not in names]
    if missing:
        raise ModelNotFoundError(f"{path.name} is one of {len(shards)} files, of which {missing[0]} is not there")
    config = _config(folder / "config.json") if "config.json" in names else None
    return _checkpoint(path, config=config, stored=_read_shards(folder, shards))


def _read_shards(folder: Path, shards: tuple[str, ...]) -> tuple[StoredTensor, ...] | None:
    found: list[StoredTensor] = []
    for shard in shards:
        found += safetensors.read_file(folder / shard)
        if len(found) > MAX_TENSORS:
            raise FormatError(f"{folder} lists more than {MAX_TENSORS:,} tensors")
    return tuple(found) if shards else None


def _gguf_folder(folder: Path, names: frozenset[str]) -> Checkpoint:
    """The one GGUF model of a folder; a split one counts once, vision projectors do not count."""
    files = sorted(n for n in names if n.lower().endswith(".gguf") and not _NO_MODEL.search(n))
    models = sorted({gguf.split_names(name)[0] for name in files})
    if not models:
        raise FormatError(f"{folder} holds no GGUF but a projector or an importance matrix", "name the language model's file")
    if len(models) > 1:
        listed = ", ".join(models[:20]) + (", …" if len(models) > 20 else "")
        raise AmbiguousModelError(f"{folder} holds {len(models)} GGUF models: {listed}", f"name one: {folder / models[0]}")
    projectors = [n for n in sorted(names) if "mmproj" in n.lower()]
    notes = (f"a vision projector lies beside it ({projectors[0]}); it is a file of its own and not counted",) if projectors else ()
    return _checkpoint(folder / models[0], header=gguf.read_path(folder / models[0]), notes=notes)


def _starts_as_gguf(path: Path) -> bool:
    with open_regular(path) as (file, _):
        return file.read(4) == b"GGUF"


def _config(path: Path) -> Mapping[str, Any]:
    found = load_json(read_bounded(path, MAX_CONFIG_BYTES), str(path), words=True)
    if not isinstance(found, dict):
        raise FormatError(f"{path} is no JSON object", "name the config.json of a model")
    return found


def _quantization(folder: Path, config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """`quantization_config`, from the config or its text model's; else what ModelOpt writes beside it."""
    inner = (config or {}).get("text_config")
    for holder in (config or {}, inner if isinstance(inner, Mapping) else {}):
        if isinstance(found := holder.get("quantization_config"), Mapping):
            return found
    if QUANT_CONFIG not in file_names(folder):
        return None
    scheme = _config(folder / QUANT_CONFIG).get("quantization")
    return {"quant_method": "modelopt", **scheme} if isinstance(scheme, Mapping) else None


def _checkpoint(
    path: Path,
    *,
    config: Mapping[str, Any] | None = None,
    stored: tuple[StoredTensor, ...] | None = None,
    header: GgufHeader | None = None,
    notes: tuple[str, ...] = (),
) -> Checkpoint:
    folder = path if is_folder(path) else path.parent
    plain = path.name in ("config.json", "model.safetensors", INDEX) or path == folder
    return Checkpoint(
        name=(folder.resolve().name if plain else path.stem) or str(path),
        reference=str(path),
        kind="local",
        source=str(path),
        config=config,
        gguf=header,
        stored=stored,
        quantization=None if header else _quantization(folder, config),
        notes=notes,
    )
