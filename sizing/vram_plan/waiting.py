"""Waiting for work that may hang where no timeout reaches: a name look-up, headers that drip."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_time"]

T = TypeVar("T")


def in_time(work: Callable[[], T], left_s: Callable[[], float], name: str, most_s: float = 1.0) -> T:
    """`work()`, in a thread of that name, given up when `left_s()` raises: it is asked for the seconds left before each wait of at
    most `most_s`. Raises what either raises."""
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # handed to the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name=name)
    thread.start()
    while thread.is_alive():
        thread.join(min(left_s(), most_s))
    if failed:
        raise failed[0]
    return found[0]
