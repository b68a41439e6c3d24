"""Reading a config that nests its language model, and joining towers to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from ..architecture import Architecture
from .blocks import Inventory, architecture_name
from .config import Config
from .registry import reader_of
from .standard import standard

__all__ = ["Tie", "join", "read_text", "section", "tower_inventory"]

#: Whose `tie_word_embeddings` counts: the outer config's, either level's, the nested one's alone, or nobody's.
Tie = Literal["outer", "either", "own", "never"]

#: What an outer config must not hand down to its language model when both share one level.
_TOWER_KEYS = ("vision_config", "audio_config", "model_type", "architectures")


def section(c: Config, *keys: str, absent: Mapping[str, Any] | None = None) -> Config:
    """A nested object; where it is not there, `absent` (what the class fills in then) or an empty one."""
    found = c.section(*keys)
    return found if found is not None else Config(dict(absent or {}), f"{c.where}: {keys[0]}")


def read_text(
    c: Config,
    kind: str,
    *,
    tied: bool = False,
    tie: Tie = "outer",
    fixed: bool = False,
    absent: Mapping[str, Any] | None = None,
    fill: Mapping[str, Any] | None = None,
    keys: tuple[str, ...] = ("text_config", "llm_config", "language_config"),
) -> Architecture:
    """The language model inside a multimodal config, read by the reader of its own `model_type`.

    It is under one of `keys`, or lies flat beside the tower's config; where it is nowhere, `absent` is what the
    class fills in; `fill` it fills in for any key left out. `kind` is its type where none is named, or always when
    `fixed`. `tied` is the outer class's default and `tie` says whose flag ties the head to the embedding. The outer
    config decides on the head's existence and the dtype, as in transformers.
    """
    inner = c.section(*keys)
    if inner is None:
        flat = {k: v for k, v in c.raw.items() if k not in _TOWER_KEYS}
        inner = Config(flat if c.has("hidden_size") and c.has("num_hidden_layers") else dict(absent or {}), c.where)
    named = inner.text("model_type")
    nested_again = inner.has("text_config", "vision_config") or reader_of(named) is reader_of(c.text("model_type"))
    if fixed or not named or nested_again:
        named = kind
    raw = {**(fill or {}), **inner.raw}
    raw["model_type"] = named
    raw["architectures"] = _head(c, inner)
    if tie != "own":
        outer = c.flag("tie_word_embeddings", default=tied)
        raw["tie_word_embeddings"] = tie != "never" and (outer or (tie == "either" and inner.flag("tie_word_embeddings")))
    dtype = c.text("dtype", "torch_dtype") or inner.text("dtype", "torch_dtype")
    raw["dtype"] = dtype or None
    view = Config(raw, inner.where)
    return (reader_of(named) or standard)(view)


def _head(c: Config, inner: Config) -> list[Any] | None:
    """The class that decides on a head; InternVL's own `…ChatModel` has one in spite of its name."""
    names = c.items("architectures")
    return inner.items("architectures") if names and str(names[0]).endswith("ChatModel") else names


def tower_inventory(text: Architecture) -> Inventory:
    """An empty inventory for the towers beside `text`, in its dtype."""
    return Inventory(text.dtype, "vision")


def join(c: Config, text: Architecture, inv: Inventory, *notes: str) -> Architecture:
    """The language model and its towers as one architecture, under the outer type's name."""
    return replace(
        text,
        name=architecture_name(c),
        family=c.text("model_type") or text.family,
        tensors=(*text.tensors, *inv.tensors),
        notes=(*text.notes, *notes),
    )
