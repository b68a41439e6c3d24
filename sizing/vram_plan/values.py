"""A key for caches that is cheaper than the value it stands for."""

from __future__ import annotations

from typing import Any

__all__ = ["Same"]


class Same:
    """A key equal to itself alone: hashing devices or formats field by field costs more than a plan."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
