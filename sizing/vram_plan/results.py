"""What `plan` answers: one value, whose JSON (`Plan.model_dump(mode="json")`) is the command's `--json`.

Sizes are bytes, rates SI floats, times seconds. None means not known or not applicable, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from .models.architecture import Basis
from .models.model import Parameters
from .values import Dumped, dataclass

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

    @property
    def available(self) -> int:
        """What an engine can take now: what is free, where that is known, and never more than is usable. 0 without a GPU."""
        return min(self.usable or 0, self.usable or 0 if self.free is None else self.free)


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

    Both are None without a GPU, or where memory sets no limit. `fewest_gpus` of this kind would do (None: not even 64, or the
    GPUs are of several kinds); `least_offload` layers (of a mixture of experts: layers' experts) must stay in host memory
    (None: the engine keeps none there, or all would not be enough). `refusal` is why the engine itself would not start.
    """

    verdict: Verdict
    headroom: int | None
    limiting_device: int | None
    max_context: int | None
    max_sequences: int | None
    suggestions: tuple[str, ...] = ()
    fewest_gpus: int | None = None
    least_offload: int | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class EstimatedRate:
    """Tokens per second as an estimate with its range; `bound` is what limits it, `why` says it in words with shares."""

    tokens_per_s: float
    low: float
    high: float
    bound: Literal["memory", "compute", "overhead", "link"]
    why: str = ""


@dataclass(frozen=True, slots=True)
class SpeedEstimate:
    """`ttft_s` is of one prompt on an idle machine. `tokens_per_joule_at_limit` is decode with the GPUs' power limits drawn throughout;
    `joules_per_token_at_most` the same at the slow end of the range: an upper bound for the GPUs, the rest of the machine left out."""

    prefill: EstimatedRate
    decode: EstimatedRate
    ttft_s: float
    tpot_s: float
    total_s: float | None
    basis: str
    tokens_per_joule_at_limit: float | None = None
    joules_per_token_at_most: float | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Dumped):
    """A model, a context, a format and a machine: every byte with its reason, and the verdict.

    The `model_…` methods are named and behave as pydantic's, which does their work when it is first asked for.
    """

    schema: Literal["vram-plan/1"] = "vram-plan/1"
    model: ModelSummary
    request: RequestSummary
    need: Need
    kv_bytes_per_token: int
    devices: tuple[DevicePlan, ...]
    host: HostPlan
    memory: Memory
    fit: Fit
    engine: Mapping[str, Any]
    speed: SpeedEstimate | None
    launch: tuple[LaunchCommand, ...]
    notes: tuple[Note, ...]
