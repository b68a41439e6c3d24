"""What vLLM's class for an architecture does differently from the next: rows of `vllm_classes.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from vram_plan_data import ROOT

from ...models.model import Model
from ...values import dataclass

__all__ = ["VllmClass", "text_config", "vision_heads", "vllm_class"]


@dataclass(frozen=True, slots=True)
class VllmClass:
    """One architecture as vLLM runs it.

    `embedding` and `head` say which pipeline stages allocate them: `every`, `first+last` (the last only where tied) or
    `last`; `own_head`: a head also where the config ties it to the embedding. `tower` says what tensor parallelism does not
    cut: the vision tower (`whole`; `divides`: where its heads do not divide), its `attention` and its `projector`, the text
    model's `mlp`, its `embedding` (not padded either); `feature`: the tower's layers after the one that is read are not
    built. `router`: `fp32`, `quantised` (by a scheme without exceptions), `bias` (a correction bias per expert). `rope`:
    `none`, `fp32` tables, `local` (sliding layers have a table of their own), `asked` (a table only where the config says
    "rope"), `mrope1` (no room for long videos), `vision` (a table for the tower), `indexer` (one for the sparse indexer), and
    small buffers (`ropes`). `until` is the last version that ran it. `native` is False where Transformers' own code runs.
    """

    architecture: str
    text: str
    embedding: str
    head: str
    pipeline: bool
    tower: frozenset[str]
    router: frozenset[str]
    rope: frozenset[str]
    until: str
    native: bool = True
    own_head: bool = False


#: vLLM's Transformers back end (model_executor/models/transformers): its rope keeps no table.
_TRANSFORMERS: Final = VllmClass("", "", "first+last", "last", True, frozenset(), frozenset(), frozenset(("none",)), "", native=False)


@lru_cache(maxsize=1)
def _rows() -> dict[str, VllmClass]:
    """Every row, by architecture and by model type."""
    found: dict[str, VllmClass] = {}
    with (ROOT / "vllm_classes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            tower, router, rope = (frozenset(row[name].split()) for name in ("tower", "router", "rope"))
            pipeline = row["pipeline"] != "no"
            head, _, own = row["head"].partition(" ")
            value = VllmClass(
                row["architecture"], row["text"], row["embedding"], head, pipeline, tower, router, rope, row["until"], own_head=own == "own"
            )  # fmt: skip
            for name in (row["architecture"], *row["model_types"].split()):
                found.setdefault(name, value)
    return found


@lru_cache(maxsize=256)
def vllm_class(model: Model) -> VllmClass:
    """The row of a model's architecture, what it leaves open filled in from its text model's; else the Transformers back end."""
    config = model.config or {}
    found = _named(config) or _rows().get(model.architecture.name) or _rows().get(model.architecture.family)
    if found is None:
        return replace(_TRANSFORMERS, architecture=model.architecture.name)
    if found.embedding or found.until:
        return found
    inner = _rows().get(found.text) or _named(text_config(model)) or _TRANSFORMERS
    if not inner.embedding:
        inner = _TRANSFORMERS
    return replace(
        found, embedding=inner.embedding, head=inner.head, own_head=inner.own_head, router=found.router | inner.router,
        rope=found.rope | inner.rope,
    )  # fmt: skip


def _named(config: Mapping[str, object]) -> VllmClass | None:
    names = config.get("architectures")
    listed = [name for name in names if isinstance(name, str)] if isinstance(names, (list, tuple)) else []
    return next((_rows()[name] for name in (*listed, str(config.get("model_type"))) if name in _rows()), None)


def text_config(model: Model) -> Mapping[str, object]:
    """The part of a model's config that describes its language model; the whole where it has no parts."""
    config: Mapping[str, object] = model.config or {}
    for outer in ("thinker_config", ""):
        part = config.get(outer) if outer else None
        config = part if isinstance(part, Mapping) else config
    for name in ("text_config", "llm_config", "language_config"):
        part = config.get(name)
        if isinstance(part, Mapping):
            return part
    return config


def vision_heads(model: Model) -> int:
    """Attention heads of the vision tower; 0 where the config names none."""
    config: Mapping[str, object] = model.config or {}
    inner = config.get("thinker_config")
    vision = (inner if isinstance(inner, Mapping) else config).get("vision_config")
    if not isinstance(vision, Mapping):
        return 0
    found = (vision.get(name) for name in ("num_attention_heads", "num_heads", "vt_num_attention_heads"))
    return next((n for n in found if isinstance(n, int) and n > 0), 0)
