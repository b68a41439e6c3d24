"""A progress bar on stderr for anything that takes more than a second; nothing when it is quicker or not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .language import say

__all__ = ["after_a_second"]

_WIDTH = 30


@contextmanager
def after_a_second(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a `progress(done, total)` that starts to draw one second after it was made."""
    what, started, drawn = say(what), time.monotonic(), False

    def progress(done: int, total: int) -> None:
        nonlocal drawn
        if total <= 0 or time.monotonic() - started < 1 or not sys.stderr.isatty():
            return
        drawn = True
        filled = _WIDTH * min(done, total) // total
        print(f"\r{what} {'█' * filled}{'·' * (_WIDTH - filled)} {done}/{total}", end="", file=sys.stderr, flush=True)

    try:
        yield progress
    finally:
        if drawn:
            print("\r" + " " * (len(what) + _WIDTH + 24) + "\r", end="", file=sys.stderr, flush=True)
