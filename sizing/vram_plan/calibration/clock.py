"""Times of calls on a device, and what a list of them says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from .kernels import load_torch

if TYPE_CHECKING:
    from torch import device

__all__ = ["Clock", "Summary", "summary"]


class Summary(NamedTuple):
    median_s: float
    p10_s: float
    p90_s: float
    n: int


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Between the two nearest values, as usual."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(times: Sequence[float]) -> Summary:
    """Median and the 10th and 90th percentile of at least one time."""
    ordered = sorted(times)
    return Summary(_quantile(ordered, 0.5), _quantile(ordered, 0.1), _quantile(ordered, 0.9), len(ordered))


class Clock:
    """Seconds of calls: by events of the device where it has a stream of its own, else by the wall clock around each."""

    def __init__(self, place: device) -> None:
        self.torch = load_torch()
        self.place = place

    def finish(self) -> None:
        """Wait until the device has done all it was given."""
        if self.place.type == "cuda":
            self.torch.cuda.synchronize(self.place)
        elif self.place.type == "mps":
            self.torch.mps.synchronize()

    def times(self, run: Callable[[], Any], count: int) -> list[float]:
        """`count` calls one after the other, each call's seconds."""
        if self.place.type == "cuda":
            marks = [self.torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
            marks[0].record()
            for mark in marks[1:]:
                run()
                mark.record()
            self.finish()
            return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]
        found = []
        for _ in range(count):
            started = time.perf_counter()
            run()
            self.finish()
            found.append(time.perf_counter() - started)
        return found

    def rough(self, run: Callable[[], Any]) -> float:
        """The quickest of three after one that is not counted: for choosing, not for reporting."""
        run()
        return min(self.times(run, 3))
