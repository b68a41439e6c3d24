"""Engine options as values: each reader checks one kind and raises a UsageError that says what belongs there.

Values come as Python values from the library and may come as text from the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError

__all__ = ["choice", "flag", "fraction", "whole"]

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def whole(given: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """A whole number from `low` to `high`; None when it was not given."""
    value = given.get(name)
    if value is None:
        return None
    text = "" if isinstance(value, (bool, float)) else str(value).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise UsageError(f"{name} is {str(value)[:40]!r}", f"a whole number from {low} to {high:,} belongs there")
    return int(text)


def fraction(given: Mapping[str, Any], name: str) -> float | None:
    """A number above 0 and up to 1; None when it was not given."""
    value = given.get(name)
    if value is None:
        return None
    try:
        number = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if not 0 < number <= 1:
        raise UsageError(f"{name} is {str(value)[:40]!r}", "a number above 0 and up to 1 belongs there")
    return number


def flag(given: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false, also as a word."""
    value = _WORDS.get(str(given.get(name, default)).strip().lower())
    if value is None:
        raise UsageError(f"{name} is {str(given[name])[:40]!r}", "true or false belongs there")
    return value


def choice(given: Mapping[str, Any], name: str, known: Sequence[str]) -> str | None:
    """One of the words known; None when it was not given."""
    value = given.get(name)
    if value is None:
        return None
    word = str(value).strip().lower()
    if word not in known:
        raise UsageError(f"{name} is {str(value)[:40]!r}", f"one of {', '.join(known)} belongs there")
    return word
