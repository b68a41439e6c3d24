"""Vision and audio towers: a file of their own (mmproj), its graphs' buffers, and what they are given.

Most models have none: what lays them out is imported for the first that has.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from ....models.model import Model
from ....results import Term

__all__ = ["reads_towers", "tower_inputs", "tower_note", "tower_terms"]

#: What the roles of a tower's or projector's weights begin with, under whichever part transformers counts them.
_SENSES: Final = ("v.", "a.", "mm.")


@lru_cache(maxsize=256)
def _terms(model: Model) -> Any:
    """The room of what a model sees or hears with; None for one without."""
    if not any(role.startswith(_SENSES) for role in set(map(itemgetter(0), model.architecture.tensors))):
        return None
    from . import terms

    return terms


def reads_towers(model: Model) -> bool:
    """Whether llama.cpp reads this model's images or sound."""
    return (terms := _terms(model)) is not None and bool(terms.reads_towers(model))


def tower_note(model: Model) -> str:
    """What keeps a server from starting with this model's towers; empty where nothing does."""
    return str(terms.tower_note(model)) if (terms := _terms(model)) else ""


def tower_terms(model: Model, kind: str = "F16") -> tuple[Term, ...]:
    """The file of the towers and projector, its matrices as `kind` (of `file.KINDS`), and their buffers; nothing where there is none."""
    found: tuple[Term, ...] = terms.tower_terms(model, kind) if (terms := _terms(model)) else ()
    return found


def tower_inputs(model: Model) -> int:
    """Bytes of what the towers are given, in host memory: pixels, samples, positions and masks."""
    return int(terms.tower_inputs(model)) if (terms := _terms(model)) else 0
