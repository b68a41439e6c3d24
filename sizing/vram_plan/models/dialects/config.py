"""A bounded, typed view of a `config.json`: every value read through it is of the kind and size it must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...errors import FormatError

__all__ = ["MAX_LAYERS", "MAX_WIDTH", "Config"]

MAX_LAYERS: Final = 4096
MAX_WIDTH: Final = 1 << 27
_MISSING: Final = object()


class Config:
    """One object of a config. Keys are asked for by their names in order of preference; which were asked is kept."""

    def __init__(self, raw: Mapping[str, Any], where: str = "config.json") -> None:
        self.raw = raw
        self.where = where
        self.asked: set[str] = set()

    def _find(self, keys: Sequence[str]) -> tuple[str, Any]:
        self.asked.update(keys)
        for key in keys:
            value = self.raw.get(key)
            if value is not None:
                return key, value
        return keys[0], None

    def has(self, *keys: str) -> bool:
        """True when one of the keys is there and not null."""
        return self._find(keys)[1] is not None

    def get(self, key: str) -> Any:
        """The raw value; the caller checks it."""
        return self._find((key,))[1]

    def integer(self, *keys: str, default: Any = _MISSING, low: int = 1, high: int = MAX_WIDTH) -> int:
        """The first of `keys` that is there, as an int in [low, high]; without a default it must be there."""
        key, value = self._find(keys)
        if value is None:
            if default is _MISSING:
                raise FormatError(f"{self.where} has no {' / '.join(keys)}", "is it a language model's config?")
            return int(default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise FormatError(f"{self.where}: {key} is {_shown(value)}; a whole number from {low} to {high} belongs there")
        return value

    def optional(self, *keys: str, low: int = 0, high: int = MAX_WIDTH) -> int | None:
        """As `integer`, but None where no key is there."""
        return self.integer(*keys, low=low, high=high) if self.has(*keys) else None

    def number(self, *keys: str, default: float) -> float:
        key, value = self._find(keys)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e12:
            raise FormatError(f"{self.where}: {key} is {_shown(value)}; a number belongs there")
        return float(value)

    def flag(self, *keys: str, default: bool = False) -> bool:
        key, value = self._find(keys)
        if value is None:
            return default
        if not isinstance(value, (bool, int)):
            raise FormatError(f"{self.where}: {key} is {_shown(value)}; true or false belongs there")
        return bool(value)

    def text(self, *keys: str, default: str = "") -> str:
        value = self._find(keys)[1]
        return value if isinstance(value, str) and len(value) <= 1024 else default

    def items(self, key: str, limit: int = 2 * MAX_LAYERS) -> list[Any] | None:
        """A list of at most `limit` entries, or None where the key is absent or no list."""
        value = self._find((key,))[1]
        if isinstance(value, str) and key == "layer_types":
            raise FormatError(f"{self.where}: {key} is {_shown(value)}; a list belongs there")
        if not isinstance(value, list):
            return None
        if len(value) > limit:
            raise FormatError(f"{self.where}: {key} has {len(value)} entries; at most {limit} are read")
        return value

    def integers(self, key: str, low: int = 0, high: int = MAX_WIDTH) -> list[int] | None:
        """A list of whole numbers, or None where the key is absent or no list."""
        value = self.items(key)
        if value is None:
            return None
        for entry in value:
            if isinstance(entry, bool) or not isinstance(entry, int) or not low <= entry <= high:
                raise FormatError(f"{self.where}: {key} holds {_shown(entry)}; whole numbers from {low} to {high} belong there")
        return value

    def section(self, *keys: str) -> Config | None:
        """A nested object under one of `keys`, or None."""
        key, value = self._find(keys)
        return Config(value, f"{self.where}: {key}") if isinstance(value, Mapping) else None

    def merged(self, inner: Config) -> Config:
        """A view in which `inner`'s keys win over this object's; asking either is remembered by this one.

        A null of `inner` does not hide a value of this object, but stays where this object says nothing.
        """
        view = Config({**self.raw, **{k: v for k, v in inner.raw.items() if v is not None or k not in self.raw}}, inner.where)
        view.asked = self.asked
        return view


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
