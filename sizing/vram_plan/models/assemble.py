"""From what a source found to a `Model`: the architecture, and how each weight is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ..errors import FormatError
from ..formats import apply_format, find_format
from ..formats.scheme import Scheme, apply_scheme
from .architecture import Architecture, Tensor
from .checkpoint import Checkpoint, GgufHeader, StoredTensor
from .dialects import read_architecture
from .model import Model

__all__ = ["assemble"]


def assemble(found: Checkpoint, *, quant: str | None = None, ollama_tag: str | None = None) -> Model:
    """The model a checkpoint holds. `quant` is a format named with the model (`llama3:8b-q4_0`).

    Raises FormatError where neither a config nor a header describes a model.
    """
    if found.gguf is not None:
        return _from_gguf(found, found.gguf, ollama_tag)
    if found.config is not None:
        architecture = _one_of(read_architecture(found.config, f"config.json of {found.name}"))
    elif found.stored:
        from .names import architecture_from_safetensors

        architecture = architecture_from_safetensors(found.stored)
    else:
        raise FormatError(
            f"{found.name} has neither a config nor a file header", "name a folder with config.json, a .gguf or .safetensors file"
        )
    scheme = _scheme(found)
    notes = (*found.notes, *architecture.notes, *((scheme.note,) if scheme and scheme.note else ()))
    if quant:
        format = find_format(quant)
        return _model(found, architecture, apply_format(architecture, format), format.name, None, notes, ollama_tag)
    if found.stored:
        return _from_headers(found, architecture, scheme.name if scheme else None, notes)
    tensors = apply_scheme(architecture.tensors, scheme) if scheme else architecture.tensors
    return _model(found, architecture, tensors, scheme.name if scheme else architecture.dtype, None, notes, ollama_tag)


@lru_cache(maxsize=256)
def _one_of(architecture: Architecture) -> Architecture:
    """One object of all equal architectures: else caches compare tensor by tensor each time they are asked for a second one."""
    return architecture


def _scheme(found: Checkpoint) -> Scheme | None:
    if not found.quantization:
        return None
    from ..formats.schemes import scheme_from_config

    return scheme_from_config(found.quantization, found.config)


def _model(
    found: Checkpoint,
    architecture: Architecture,
    tensors: tuple[Tensor, ...],
    stored_format: str,
    stored_bytes: int | None,
    notes: tuple[str, ...],
    ollama_tag: str | None = None,
) -> Model:
    return Model(
        name=found.name,
        reference=found.reference,
        source=found.source,
        revision=found.revision,
        architecture=architecture,
        tensors=tensors,
        stored_format=stored_format,
        stored_bytes=stored_bytes,
        basis=architecture.basis if stored_bytes is None else "exact",
        is_gguf=found.gguf is not None,
        ollama_tag=ollama_tag,
        quantization=found.quantization,
        config=found.config,
        notes=notes,
    )


def _from_gguf(found: Checkpoint, header: GgufHeader, ollama_tag: str | None) -> Model:
    from .gguf_architecture import mix_name, read_gguf_architecture

    architecture = read_gguf_architecture(header)
    size = sum(tensor.bytes for tensor in header.tensors)
    return _model(found, architecture, architecture.tensors, mix_name(header), size, (*found.notes, *architecture.notes), ollama_tag)


def _from_headers(found: Checkpoint, architecture: Architecture, scheme_name: str | None, notes: tuple[str, ...]) -> Model:
    """The header's tensors are the weights; an unquantised header's parameters also check the config's reading."""
    stored = found.stored or ()
    tensors = stored_inventory(stored, architecture.layers if architecture.kind == "decoder" and architecture.basis != "fallback" else None)
    size = sum(tensor.bytes for tensor in stored)
    if scheme_name is None:
        counted = sum(t.parameters for t in tensors if t.part != "mtp")
        expected = sum(t.parameters for t in architecture.tensors if t.part != "mtp")
        if architecture.basis == "fallback":
            architecture = replace(architecture, tensors=tensors)
        elif counted != expected:
            notes = (
                *notes,
                f"the files hold {counted:,} parameters, the config describes {expected:,}: the files' bytes are used for the weights",
            )
    name = scheme_name or _main_dtype(tensors) or architecture.dtype
    return _model(found, architecture, tensors, name, size, notes)


def stored_inventory(stored: Sequence[StoredTensor], layers: int | None = None) -> tuple[Tensor, ...]:
    """A safetensors header as weights: role, layer and part from each name, dtype and shape as stored.

    Text layers beyond `layers`, where it is given, are the MTP head's.
    """
    from .names import classify

    inventory = []
    for tensor in stored:
        role, layer, part, expert = classify(tensor.name, layers)
        inventory.append(Tensor(role, layer, tensor.shape, 1 if expert else 0, tensor.dtype, part))
    return tuple(inventory)


def _main_dtype(tensors: Sequence[Tensor]) -> str | None:
    """The dtype most parameters have, where it is a plain float."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.stored_as] = sizes.get(tensor.stored_as, 0) + tensor.parameters
    main = max(sizes, key=lambda dtype: sizes[dtype], default=None)
    return main if main in ("BF16", "F16", "F32") else None
