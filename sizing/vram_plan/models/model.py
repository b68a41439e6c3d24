"""A model ready to be planned: its architecture, how its weights are stored, and where that is known from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from operator import itemgetter

from ..formats.cache_types import cache_element_bytes
from ..values import dataclass
from .architecture import Architecture, Basis, CacheLayer, Tensor

__all__ = ["Model", "Parameters"]

#: What tensors of different layers have in common: role, shape, experts, part.
_ALIKE = itemgetter(0, 2, 3, 5)


@dataclass(frozen=True)
class Parameters:
    """Exact counts. `total` leaves MTP draft layers out (`mtp`), as engines do unless asked; `active` is what one
    generated token uses: all of the text model but the experts not routed to."""

    total: int
    active: int
    embedding: int
    lm_head: int
    vision: int
    audio: int
    projector: int
    experts: int
    mtp: int


@dataclass(frozen=True)
class Model:
    """A model as `load` returns it.

    `tensors` are the weights with the number format each is stored in; `stored_format` names that format as a
    whole. `stored_bytes` is the exact sum of the file headers when they were read, else None. `basis` is `exact`
    when the weights come from a header, `formula` from a config of a known family, else `fallback`. `config` is the
    config as found, for rules of engines that hang on more than the architecture (rope tables).
    """

    name: str
    reference: str
    source: str
    revision: str | None
    architecture: Architecture
    tensors: tuple[Tensor, ...]
    stored_format: str
    stored_bytes: int | None
    basis: Basis
    is_gguf: bool = False
    ollama_tag: str | None = None
    quantization: Mapping[str, object] | None = None
    config: Mapping[str, object] | None = None
    notes: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def trained_context(self) -> int | None:
        return self.architecture.trained_context

    @property
    def tied_embeddings(self) -> bool:
        return self.architecture.tied_embeddings

    @property
    def cache_layers(self) -> tuple[CacheLayer, ...]:
        return self.architecture.cache_layers

    @property
    def state_bytes(self) -> int:
        """Constant bytes per sequence: convolution states in the model's 16 bits, recurrent states in fp32."""
        return self.architecture.state_bytes

    def kv_bytes(self, context: int, dtype: str = "bf16") -> int:
        """Bytes one sequence of `context` tokens keeps, as transformers' cache holds it; no engine's padding.

        Raises UnknownNameError for a cache type nobody has.
        """
        return math.ceil(self.architecture.kv_bytes(context, 1) * cache_element_bytes(dtype))

    @cached_property
    def parameters(self) -> Parameters:
        parts = dict.fromkeys(("text", "vision", "audio", "projector", "mtp"), 0)
        embedding = lm_head = experts = 0
        for (role, shape, stacked, part), times in Counter(map(_ALIKE, self.architecture.tensors)).items():
            count = times * Tensor(role, None, shape).parameters
            parts[part] += count
            if part == "text":
                embedding += count if role == "token_embd" else 0
                lm_head += count if role in ("output", "output.bias") else 0
                experts += count if stacked else 0
        a = self.architecture
        routed = experts * min(a.experts_per_token, a.experts) // a.experts if a.experts else experts
        return Parameters(
            total=sum(parts.values()) - parts["mtp"],
            active=parts["text"] - experts + routed,
            embedding=embedding,
            lm_head=lm_head,
            vision=parts["vision"],
            audio=parts["audio"],
            projector=parts["projector"],
            experts=experts,
            mtp=parts["mtp"],
        )
