"""Small readings of a request for the speed model: how old a build is, a yes or no."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["age_of", "flag", "version_age"]

#: llama.cpp builds: age 1 up to May 2024, 0 in August 2025, −0.5 from spring 2026; the measurements lie between.
_OLD: Final = 2024 + 4 / 12
_MIDDLE: Final = 2025 + 7 / 12
_NEWEST: Final = -0.5
_NO: Final = frozenset({"false", "no", "off", "0"})


def age_of(build: Any) -> float:
    """1 for a build of May 2024 or before, falling in a line to −0.5 for one of spring 2026 or later; a build not read is new."""
    year, _, month = str(build).strip().partition("-")
    if not (year.isdigit() and month.isdigit() and len(year) == 4 and len(month) <= 2):
        return _NEWEST
    when = int(year) + (int(month) - 1) / 12
    return min(1.0, max(_NEWEST, (_MIDDLE - when) / (_MIDDLE - _OLD)))


#: vLLM's kernels for routed experts: 1 up to 0.16, 0 from 0.18, of the versions that were measured.
_OLD_VLLM: Final = 16
_NEW_VLLM: Final = 18


def version_age(version: Any) -> float:
    """0 for vLLM 0.18 or later, 1 for 0.16 or before, between in a line; a version not read is new."""
    major, _, rest = str(version or "").strip().removeprefix("v").partition(".")
    minor = rest.partition(".")[0]
    if major != "0" or not (minor.isdigit() and len(minor) < 4):
        return 0.0
    return min(1.0, max(0.0, (_NEW_VLLM - int(minor)) / (_NEW_VLLM - _OLD_VLLM)))


def flag(value: Any, default: bool) -> bool:
    """True unless the value says no."""
    return default if value is None else str(value).strip().lower() not in _NO
