"""What a number format costs in quality, where somebody published it."""

from __future__ import annotations

import csv
from functools import lru_cache

from vram_plan_data import ROOT

from ..formats import Format
from ..values import dataclass

__all__ = ["Quality", "loss_of", "quality_of"]


@dataclass(frozen=True, slots=True)
class Quality:
    """`loss` is the share lost against 16 bits (0.028 is 2.8 %) on `model`: by how much perplexity rose, or a benchmark's
    average fell, as `measure` says. Other models lose more or less: the larger the model, the less as a rule."""

    format: str
    loss: float
    measure: str
    model: str
    date: str
    source: str


@lru_cache(maxsize=1)
def _table() -> dict[str, Quality]:
    with (ROOT / "quality.csv").open(encoding="utf-8", newline="") as file:
        return {row["format"]: _quality(row) for row in csv.DictReader(file)}


def _quality(row: dict[str, str]) -> Quality:
    before, after = float(row["at_16_bits"]), float(row["in_format"])
    loss = after / before - 1 if row["measure"] == "perplexity" else 1 - after / before
    return Quality(row["format"], max(round(loss, 5), 0.0), row["measure"], row["model"], row["date"], row["source"])


def quality_of(format: str) -> Quality | None:
    """The published figure of a format by its name, None where none is known."""
    return _table().get(format)


def loss_of(format: Format) -> float:
    """For ordering formats: the published loss; without one, that of the nearest narrower format which has one."""
    known = _table().get(format.name)
    if known:
        return known.loss
    if format.bits_per_weight >= 16:
        return 0.0
    return next((loss for bits, loss in _by_bits() if bits <= format.bits_per_weight), 1.0)


@lru_cache(maxsize=1)
def _by_bits() -> tuple[tuple[float, float], ...]:
    """(bits per weight, loss) of the formats with a published perplexity, widest first."""
    from ..formats import find_format

    rows = [(find_format(q.format).bits_per_weight, q.loss) for q in _table().values() if q.measure == "perplexity"]
    return tuple(sorted(rows, reverse=True))
