"""What was seen of a running engine, and how it compares with a plan. Bytes are int, rates tokens per second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..results import LaunchCommand, Plan

__all__ = ["HOST", "Figure", "Line", "Observation", "Rate", "Reconciliation", "Seen", "Setting", "Unit"]

Unit = Literal["bytes", "tokens", "requests", "blocks", "parameters", "tokens/s"]
#: The place of a figure that is not on a GPU.
HOST: Final = "host"
Place = int | Literal["host"] | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure the engine gave. `place` is a GPU's number, `host`, or None for all of them; `step` half of the last digit
    that was printed, in the same unit; `line` the text it was read from."""

    name: str
    value: float
    unit: Unit
    place: Place = None
    step: float = 0.0
    line: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A setting the engine runs with: the name `plan` (or the engine's options) gives it, the value, and where it was seen."""

    name: str
    value: Any
    line: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """Speed of one request of `prompt` tokens answered with `output` tokens; None where it was not told."""

    prompt: int
    output: int
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    line: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """All that was seen of one engine running one model.

    `facts` describe the model as the engine read it (layers, hidden_size, vocab_size, name, …). `gpus` are names as the driver gives them.
    """

    engine: str
    source: str
    version: str | None = None
    figures: tuple[Figure, ...] = ()
    settings: tuple[Seen, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    rates: tuple[Rate, ...] = ()
    notes: tuple[str, ...] = ()

    def figure(self, name: str, place: Place = None) -> Figure | None:
        return next((f for f in self.figures if f.name == name and f.place == place), None)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the comparison. `difference` is actual − predicted, `error` that as a share of the actual; None where one side
    says nothing. `counts` says whether the line decides if the plan held; `why` what may make the difference, `seen` the engine's
    own words."""

    name: str
    place: Place
    unit: Unit
    predicted: float | None
    actual: float | None
    difference: float | None
    error: float | None
    counts: bool
    why: str = ""
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the engine beside what was asked of the plan (None: nothing). `taken`: the plan compared has the engine's value."""

    name: str
    asked: Any
    engine: Any
    taken: bool
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A plan held against what an engine did. `plan` is the one compared, with the engine's settings taken over.

    `command` is the `vram-plan` line that plans with the engine's settings; `launch` starts the engine so. `worst` is the line that
    counts and is off most, None where nothing could be compared.
    """

    source: str
    engine: str
    engine_version: str | None
    model: str
    lines: tuple[Line, ...]
    settings: tuple[Setting, ...]
    command: str
    launch: tuple[LaunchCommand, ...]
    notes: tuple[str, ...]
    plan: Plan
    worst: Line | None = None
    saved: str | None = None

    def within(self, tolerance: float) -> bool:
        """Whether every line that counts is within this share (0.05: 5 %) of what the engine did. False where nothing could be compared."""
        return self.worst is not None and abs(self.worst.error or 0) <= tolerance
