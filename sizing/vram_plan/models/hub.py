"""A model on the Hugging Face Hub: its config and its file headers, in a handful of requests.

The order of asking: an answer kept on this disk, a snapshot huggingface_hub downloaded, then the Hub itself
(`hub_http`, the only module that uses the network). Weights are never read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ..errors import FormatError, ModelNotFoundError, UsageError, VramPlanError
from ..values import dataclass
from . import hub_cache, hub_files, hub_gguf
from .checkpoint import Checkpoint, StoredTensor
from .hub_files import Progress, Source
from .hub_http import Connection, Deadline, FileMissing, endpoint, is_offline
from .json_guard import MAX_CONFIG_BYTES, load_json

__all__ = ["open_hub"]

#: As huggingface_hub's validate_repo_id: one slash at most, 96 characters, no `--`, no `..`.
_REPO_ID = re.compile(r"(?=.{1,96}$)(?!.*(--|\.\.))\w(?:[\w.-]*\w)?(?:/\w(?:[\w.-]*\w)?)?", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+-]{0,199}", re.ASCII)
_FILE = re.compile(r"(?!/)(?!.*(?:^|/)\.\.?(?:/|$))[^\x00-\x1f\\:?*]{1,250}\.(?:gguf|safetensors)", re.IGNORECASE)
QUANT_CONFIG: Final = "hf_quant_config.json"


@dataclass(frozen=True)
class _Wanted:
    """What of a repository is asked for."""

    repo_id: str
    revision: str
    quant: str | None
    filename: str | None

    @property
    def reference(self) -> str:
        at = "" if self.revision == "main" else f"@{self.revision}"
        part = f":{self.quant}" if self.quant else f"/{self.filename}" if self.filename else ""
        return self.repo_id + at + part

    @property
    def is_gguf(self) -> bool:
        return self.quant is not None or (self.filename or "").lower().endswith(".gguf")


def open_hub(
    repo_id: str,
    revision: str | None,
    *,
    quant: str | None = None,
    filename: str | None = None,
    offline: bool = False,
    timeout_s: float = 7,
    progress: Progress | None = None,
    refresh: bool = False,
) -> Checkpoint:
    """The model `repo_id` at `revision` (None: main), as its config and headers describe it.

    `quant` picks a GGUF by its quant's name, `filename` a GGUF or safetensors file by its path. `timeout_s` is for
    everything together; a second is added for each megabyte that arrives. `progress(done, total)` counts shards. An
    answer is kept on disk and used without asking again, for a branch too; `refresh` asks again.

    Raises UsageError (no such name can be), ModelNotFoundError, AmbiguousModelError, GatedModelError, HubError (the
    Hub is down, slow or odd), FormatError (the files are not understood).
    """
    wanted = _checked(_Wanted(repo_id, revision or "main", quant, filename))
    key = (endpoint(), wanted.repo_id, wanted.revision, quant.upper() if quant else None, filename)
    offline = offline or is_offline()
    if (offline or not refresh) and (kept := hub_cache.load(*key)) is not None:
        return replace(kept, reference=wanted.reference)
    if (offline or not refresh) and (local := _from_snapshot(wanted, offline)) is not None:
        return local
    if offline:
        raise ModelNotFoundError(
            f"{wanted.reference} is not on this disk, and the Hub may not be asked (--offline or HF_HUB_OFFLINE)",
            "ask once without --offline, or give a catalogue name or a local path",
        )
    deadline = Deadline(timeout_s)
    found = deadline.guard(lambda: _read(Connection(wanted.repo_id, wanted.revision, deadline), wanted, progress))
    hub_cache.store(found, *key)
    return found


def _checked(wanted: _Wanted) -> _Wanted:
    if not _REPO_ID.fullmatch(wanted.repo_id):
        raise UsageError(f"{wanted.repo_id[:100]!r} is no Hub model", "it looks like org/name: letters, digits, '-', '_' and '.'")
    if not _REVISION.fullmatch(wanted.revision):
        raise UsageError(f"{wanted.revision[:100]!r} is no revision", "a branch, a tag or a commit belongs after the @")
    if wanted.filename is not None and not _FILE.fullmatch(wanted.filename):
        raise UsageError(f"{wanted.filename[:100]!r} is no file of a model", "name a *.gguf or *.safetensors file of the repository")
    return wanted


def _from_snapshot(wanted: _Wanted, offline: bool) -> Checkpoint | None:
    """From huggingface_hub's cache when all that is needed is there; offline also from a config without the weights."""
    snapshot = hub_cache.Snapshot.find(wanted.repo_id, wanted.revision)
    if snapshot is None:
        return None
    try:
        found = _read(snapshot, wanted, None)
    except (FormatError, ModelNotFoundError):
        if offline:
            raise
        return None
    several = found.gguf is not None and wanted.quant is None and wanted.filename is None  # the Hub may have more quants
    if not offline and (several or (found.stored is None and found.gguf is None)):
        return None
    return replace(found, source=f"huggingface_hub's cache, {found.source.partition(', ')[2]}")


# one walk for the Hub and for a snapshot of it


def _read(source: Source, wanted: _Wanted, progress: Progress | None) -> Checkpoint:
    try:
        if wanted.is_gguf or (wanted.filename is None and "gguf" in wanted.repo_id.lower()):
            return _read_gguf(source, wanted, progress)
        return _read_transformers(source, wanted, progress)
    except FileMissing:
        place = "this disk" if source.partial else "the Hub"
        what = f"{source.repo_id} has no file {wanted.filename} on {place}" if wanted.filename else f"{place} has no model {wanted.repo_id}"
        raise ModelNotFoundError(what, "check the spelling, upper and lower case too") from None


def _read_gguf(source: Source, wanted: _Wanted, progress: Progress | None) -> Checkpoint:
    name = wanted.filename
    notes: tuple[str, ...] = ()
    if name is None:
        names = source.listing()
        if not hub_gguf.quants(names):
            return _without_gguf(source, wanted, names, progress)
        name = hub_gguf.choose_gguf(source.repo_id, names, wanted.quant)
        projectors = [n for n in names if "mmproj" in n.lower() and n.lower().endswith(".gguf")]
        if projectors:
            notes = (f"a vision projector lies beside it ({projectors[0]}); it is a file of its own and not counted",)
    header = hub_gguf.gguf_header(source, name, progress)
    return replace(_checkpoint(source, wanted, name), gguf=header, notes=notes)


def _without_gguf(source: Source, wanted: _Wanted, names: tuple[str, ...], progress: Progress | None) -> Checkpoint:
    if wanted.quant is not None:
        raise ModelNotFoundError(
            f"{source.repo_id} holds no GGUF files", f"for the size it would have: {source.repo_id} --quant {wanted.quant}"
        )
    if "config.json" not in names:
        raise _no_model(source.repo_id, names)
    return _read_transformers(source, wanted, progress)


def _read_transformers(source: Source, wanted: _Wanted, progress: Progress | None) -> Checkpoint:
    try:
        config = _json_object(source, "config.json")
    except FileMissing:
        if wanted.filename is not None:
            raise FormatError(f"{source.repo_id} has no config.json to read {wanted.filename} with") from None
        return _read_gguf(source, wanted, progress)
    stored = _stored(source, wanted.filename, _first_bytes(source, config), progress)
    notes: tuple[str, ...] = ()
    if stored is None:
        if hub_gguf.quants(source.listing()):
            return _read_gguf(source, wanted, progress)
        where = "is not on this disk with its weights" if source.partial else "has no safetensors"
        notes = (f"{source.repo_id} {where}: sizes are computed from its config",)
    quantization = _quantization(source, config, stored)
    return replace(_checkpoint(source, wanted, wanted.filename), config=config, stored=stored, quantization=quantization, notes=notes)


def _first_bytes(source: Source, config: Mapping[str, Any]) -> int:
    """How much of a header to read first: the 8 bytes of its length, which waste nothing, in a request of their own.

    Where the config was redirected already, requests run short, and the whole header is asked for at once, as long
    as it should be: 118 bytes a tensor are right to −3 … +6 % for most families (transformers 5.23's names).
    """
    if source.requests < 2:
        return 8
    from .dialects import read_architecture

    try:
        return 68 + 118 * sum(tensor.experts or 1 for tensor in read_architecture(config).tensors)
    except VramPlanError:
        return 8


def _stored(source: Source, filename: str | None, first: int, progress: Progress | None) -> tuple[StoredTensor, ...] | None:
    """The tensor list: of the file named, else of the one file, else of the shards; None where there are none."""
    if filename is not None:
        return hub_files.tensor_header(source, filename, first)
    try:
        return hub_files.tensor_header(source, hub_files.SINGLE, first)
    except FileMissing:
        pass
    try:
        return hub_files.shard_headers(source, progress)
    except FileMissing:
        return None


def _quantization(source: Source, config: Mapping[str, Any], stored: tuple[StoredTensor, ...] | None) -> Mapping[str, Any] | None:
    """`quantization_config`; where the config has none but the weights have scales, ModelOpt's file beside it is asked for."""
    inner = config.get("text_config")
    for holder in (config, inner if isinstance(inner, dict) else {}):
        if isinstance(found := holder.get("quantization_config"), dict):
            return found
    if not any(t.name.endswith(("weight_scale", "weight_scale_2", "input_scale")) for t in stored or ()):
        return None
    try:
        beside = _json_object(source, QUANT_CONFIG)
    except FileMissing:
        return None
    scheme = beside.get("quantization")
    return {"quant_method": "modelopt", **scheme} if isinstance(scheme, dict) else None


def _json_object(source: Source, name: str) -> dict[str, Any]:
    where = f"{name} of {source.repo_id}"
    found = load_json(source.fetch(name, MAX_CONFIG_BYTES), where, MAX_CONFIG_BYTES, words=True)
    if not isinstance(found, dict):
        raise FormatError(f"{where} is no JSON object")
    return found


def _checkpoint(source: Source, wanted: _Wanted, filename: str | None) -> Checkpoint:
    file = f", {filename}" if filename else ""
    renamed = f" (renamed from {wanted.repo_id})" if source.repo_id != wanted.repo_id else ""
    commit = f"@{source.commit[:8]}" if source.commit else ""
    label = f":{hub_gguf.quant_label(filename)}" if filename and filename.lower().endswith(".gguf") else ""
    return Checkpoint(
        name=source.repo_id + label,
        reference=wanted.reference,
        kind="hub",
        source=f"Hugging Face Hub, {source.repo_id}{commit}{file}{renamed}",
        revision=source.commit or wanted.revision,
    )


def _no_model(repo_id: str, names: tuple[str, ...]) -> FormatError:
    if "adapter_config.json" in names:
        return FormatError(f"{repo_id} is an adapter (LoRA), not a whole model", "name its base model; the adapter adds little to it")
    return FormatError(f"{repo_id} holds neither a config.json nor a GGUF", "name a repository with a transformers model or a GGUF in it")
