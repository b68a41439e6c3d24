"""The largest number that still fits, found exactly."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["largest"]


def largest(headroom: Callable[[int], int], limit: int) -> int | None:
    """The largest n in 1…limit with headroom(n) ≥ 0; 0 when not even 1 fits; None when the limit itself does.

    `headroom` must never grow. Memory is piecewise linear in what is asked, so the crossing is looked for where
    the line through the bracket's ends meets 0, by halves where that does not help.
    """
    low, low_room = 1, headroom(1)
    if low_room < 0:
        return 0
    high, high_room = limit, headroom(limit)
    if high_room >= 0:
        return None
    halve = False
    while high - low > 1:
        guess = low + (high - low) // 2 if halve else low + (high - low) * low_room // (low_room - high_room)
        guess = min(max(guess, low + 1), high - 1)
        room = headroom(guess)
        width = high - low
        if room >= 0:
            low, low_room = guess, room
            # the crossing is often just above: look there before halving
            if high - low > 1 and headroom(low + 1) < 0:
                return low
        else:
            high, high_room = guess, room
        halve = 2 * (high - low) > width and not halve
    return low
