"""What `plan` answers: one value, whose JSON (`Plan.model_dump(mode="json")`) is the command's `--json`.

Sizes are bytes, rates SI floats, times seconds. None means not known or not applicable, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .models.architecture import Basis
from .models.model import Parameters

__all__ = [
    "DevicePlan", "EstimatedRate", "Fit", "Group", "HostPlan", "LaunchCommand", "Memory", "ModelSummary", "Need", "Note", "Plan",
    "RequestSummary", "SpeedEstimate", "Term", "Verdict",
]  # fmt: skip

Group = Literal["weights", "kv_cache", "state", "compute", "runtime"]
Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]


@dataclass(frozen=True, slots=True)
class Term:
    """One named share of a device's memory: how many bytes, how that is known, and why it is that number.

    `group` is the line of `Plan.memory` it counts towards.
    """

    name: str
    bytes: int
    basis: Basis
    why: str
    group: Group


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One GPU. `usable` is what an engine may take in all, `free` what is free of that now; None where no GPU was named."""

    name: str
    index: int
    total: int | None
    usable: int | None
    free: int | None
    terms: tuple[Term, ...]
    used: int
    headroom: int | None


@dataclass(frozen=True, slots=True)
class HostPlan:
    terms: tuple[Term, ...]
    used: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The terms of all GPUs summed by what they are for."""

    weights: int
    kv_cache: int
    state: int
    compute: int
    runtime: int
    total: int


@dataclass(frozen=True, slots=True)
class Need:
    """What the model itself needs, no engine's padding: weights in the format, KV and state of all sequences."""

    weights: int
    kv_cache: int
    state: int


@dataclass(frozen=True, slots=True)
class Fit:
    """`max_context` at this number of sequences and `max_sequences` at this context: one more does not fit.

    Both are None without a GPU, or where memory sets no limit.
    """

    verdict: Verdict
    headroom: int | None
    limiting_device: int | None
    max_context: int | None
    max_sequences: int | None
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EstimatedRate:
    """Tokens per second as an estimate with its range; `bound` is what limits it."""

    tokens_per_s: float
    low: float
    high: float
    bound: Literal["memory", "compute", "overhead", "link"]


@dataclass(frozen=True, slots=True)
class SpeedEstimate:
    prefill: EstimatedRate
    decode: EstimatedRate
    ttft_s: float
    tpot_s: float
    total_s: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class LaunchCommand:
    engine: str
    command: str
    env: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The model without its lists."""

    name: str
    source: str
    revision: str | None
    architecture: str
    trained_context: int | None
    tied_embeddings: bool
    parameters: Parameters
    layers: int
    hidden_size: int
    vocab_size: int
    state_bytes: int
    stored_format: str
    stored_bytes: int | None
    basis: Basis


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """What was planned, defaults filled in."""

    engine: str
    engine_version: str | None
    quant: str
    kv_type_k: str
    kv_type_v: str
    context: int
    sequences: int
    prompt: int
    output: int
    tensor_parallel: int
    pipeline_parallel: int
    expert_parallel: bool
    offload: str
    options: Mapping[str, Any]


class Plan(BaseModel):
    """A model, a context, a format and a machine: every byte with its reason, and the verdict."""

    # The schema is built when a plan is first dumped or parsed: planning itself needs none.
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, defer_build=True)

    schema_: Literal["vram-plan/1"] = Field("vram-plan/1", alias="schema", serialization_alias="schema")
    model: ModelSummary
    request: RequestSummary
    need: Need
    kv_bytes_per_token: int
    devices: tuple[DevicePlan, ...]
    host: HostPlan
    memory: Memory
    fit: Fit
    engine: dict[str, Any]
    speed: SpeedEstimate | None
    launch: tuple[LaunchCommand, ...]
    notes: tuple[Note, ...]

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As pydantic's, by the names the contract gives (`schema`)."""
        return super().model_dump(**{"by_alias": True, **options})

    def model_dump_json(self, **options: Any) -> str:
        return super().model_dump_json(**{"by_alias": True, **options})
