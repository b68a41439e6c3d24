"""From the text that names a model to a `Model`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ..errors import GatedModelError, HubError, ModelNotFoundError
from . import catalog
from .assemble import assemble
from .checkpoint import Checkpoint
from .model import Model
from .reference import Reference, parse_reference

__all__ = ["load", "load_row"]

Progress = Callable[[int, int], None]


def load(reference: str, *, offline: bool = False, progress: Progress | None = None) -> Model:
    """The model a text names: a catalogue name or alias, an Ollama tag, a Hub id (`org/name[@revision]`,
    `org/name:Q4_K_M`, `org/name/file.gguf`) or a local path. Only a Hub id needs the network, and not with `offline`
    or when it is cached. `progress(done, total)` is called as shard headers arrive.

    Raises ModelError (not found, ambiguous, gated), HubError, FormatError, UsageError.
    """
    asked = parse_reference(reference)
    if asked.kind == "path":
        from .local import open_local

        return assemble(open_local(Path(asked.name).expanduser()))
    if asked.kind == "hub":
        return _from_hub(asked, offline, progress)
    return _from_name(asked.name)


def _from_name(name: str) -> Model:
    """A name: the file in the local Ollama store when it is a tag that was pulled, else the catalogue's row."""
    if ":" in name:
        from .ollama import open_ollama

        pulled = open_ollama(name)
        if pulled:
            return assemble(pulled, ollama_tag=name)
    row, quant, loose = catalog.find_model(name)
    note = (f"{name} was read as {row.id}",) if loose else ()
    return _catalogued(row, name, quant, note, name if ":" in name else None)


def load_row(row: catalog.CatalogRow) -> Model:
    """The model of one row of the catalogue."""
    return _catalogued(row, row.name, None, ())


@lru_cache(maxsize=512)
def _catalogued(
    row: catalog.CatalogRow, reference: str, quant: str | None, notes: tuple[str, ...], ollama_tag: str | None = None
) -> Model:
    config, source = catalog.row_config(row)
    found = Checkpoint(
        name=row.id,
        reference=reference,
        kind="catalogue",
        source=f"the catalogue ({source})",
        config=config,
        quantization=config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config"),
        notes=notes,
    )
    return assemble(found, quant=quant, ollama_tag=ollama_tag)


def _from_hub(asked: Reference, offline: bool, progress: Progress | None) -> Model:
    from .hub import open_hub

    try:
        found = open_hub(asked.name, asked.revision, quant=asked.quant, filename=asked.filename, offline=offline, progress=progress)
    except (GatedModelError, HubError, ModelNotFoundError) as error:
        row = catalog.known_id(asked.name)
        if row is None or (isinstance(error, ModelNotFoundError) and not offline):
            raise
        return _catalogued(row, asked.text, asked.quant, (f"{error.message}: planned from the catalogue's {row.id}",))
    return assemble(found)
