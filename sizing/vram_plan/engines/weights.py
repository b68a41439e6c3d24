"""A model's weights in a number format, summed once the ways engines ask for them."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

from ..formats import Format, apply_format
from ..formats.storage import storage_bytes
from ..models.architecture import LOOKED_UP, Basis, Part, Tensor
from ..models.model import Model
from ..values import dataclass

__all__ = ["Weights", "weights_of"]


@dataclass(frozen=True, eq=False)
class Weights:
    """Bytes of one model in one format; MTP draft layers apart (`mtp`), as engines leave them out unless asked.

    `layers[i]` is layer i's share of the text model, `experts[i]` what of it are routed experts. `embedding` is the
    input table, `head` the output matrix (0 when tied), `other` the rest of the text model, `towers` vision, audio
    and projector. `total` is their sum; `basis` is `exact` when a file's header gave it. `tables` is what of it rows are looked up
    in, the embedding and others.
    """

    format: Format
    tensors: tuple[Tensor, ...]
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    embedding: int
    head: int
    other: int
    towers: int
    mtp: int
    total: int
    tables: int
    basis: Basis


@lru_cache(maxsize=256)
def weights_of(model: Model, format: Format) -> Weights:
    """The sums for a format; the checkpoint's own format takes its header's tensors."""
    own = format.name == model.stored_format and (model.is_gguf or format.family != "gguf")
    tensors = model.tensors if own else apply_format(model.architecture, format)
    layers: dict[int, int] = defaultdict(int)
    experts: dict[int, int] = defaultdict(int)
    tables, sums = 0, dict.fromkeys(("embedding", "head", "other", "towers", "mtp"), 0)
    for role, layer, shape, stacked, stored_as, part in tensors:
        size = storage_bytes(stored_as, shape)
        if part == "text" and layer is not None:
            layers[layer] += size
            if stacked:
                experts[layer] += size
        else:
            sums[_share(role, part)] += size
            tables += size if part == "text" and role in LOOKED_UP else 0
    count = max((model.architecture.layers, *(i + 1 for i in layers)))
    return Weights(
        format=format,
        tensors=tensors,
        layers=tuple(layers[i] for i in range(count)),
        experts=tuple(experts[i] for i in range(count)),
        total=sum(layers.values()) + sum(sums.values()) - sums["mtp"],
        tables=tables,
        basis=model.basis if own or model.basis == "fallback" else "formula",
        **sums,
    )


def _share(role: str, part: Part) -> str:
    if part == "mtp":
        return "mtp"
    if part != "text":
        return "towers"
    return {"token_embd": "embedding", "output": "head", "output.bias": "head"}.get(role, "other")
