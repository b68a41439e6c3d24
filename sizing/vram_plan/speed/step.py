"""The seconds of one step, by what they go to."""

from __future__ import annotations

from typing import Literal

from ..results import EstimatedRate
from ..values import dataclass
from .constants import Spread

__all__ = ["Step"]

Bound = Literal["memory", "compute", "overhead", "link"]


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one step by what they go to, and the range measurements kept to."""

    weights: float
    kv: float
    compute: float
    overhead: float
    link: float
    host: float
    prompts: float
    spread: Spread

    @property
    def total_s(self) -> float:
        return self.weights + self.kv + self.compute + self.overhead + self.link + self.host + self.prompts

    @property
    def bound(self) -> Bound:
        """What takes most of the time. Weights in host memory count as link: they are not read at the GPU's bandwidth."""
        memory, compute, link = self.weights + self.kv, self.compute + self.prompts, self.link + self.host
        most = max(memory, compute, link, self.overhead)
        return "memory" if most == memory else "compute" if most == compute else "link" if most == link else "overhead"

    @property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """Seconds by what they go to, in words."""
        return (
            ("weights", self.weights), ("KV", self.kv), ("compute", self.compute), ("per-layer overhead", self.overhead),
            ("link", self.link), ("weights in host memory", self.host), ("others' prompts", self.prompts),
        )  # fmt: skip

    @property
    def words(self) -> str:
        """`memory-bound: 71 % weights, 22 % KV, 7 % per-layer overhead`; shares below half a percent are left out."""
        total = self.total_s
        listed = [f"{100 * value / total:.0f} % {name}" for name, value in self.shares if value >= total / 200]
        return f"{self.bound}-bound: {', '.join(listed)}"

    def rate(self, tokens: float) -> EstimatedRate:
        """`tokens` in this time, with its range."""
        rate = tokens / self.total_s
        return EstimatedRate(rate, rate * self.spread.low, rate * self.spread.high, self.bound, self.words)
