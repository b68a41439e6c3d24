"""Long lists of module names, folded: `a.{0-3,7}.b` stands for a.0.b, a.1.b, a.2.b, a.3.b and a.7.b."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, Final

__all__ = ["fold", "folded", "unfold", "unfolded"]

_RANGES: Final = re.compile(r"\{([\d,-]+)\}")
_LONG: Final = 8


def unfolded(value: Any) -> Any:
    """A config with every folded name list and every folded mapping of names written out."""
    if isinstance(value, dict):
        return {name: unfolded(inner) for key, inner in value.items() for name in unfold(key)}
    if isinstance(value, list):
        return [name for entry in value for name in (unfold(entry) if isinstance(entry, str) else [unfolded(entry)])]
    return value


def unfold(text: str) -> Iterator[str]:
    if "{" not in text:
        yield text
        return
    parts = _RANGES.split(text)
    for numbers in product(*(list(_numbers(ranges)) for ranges in parts[1::2])):
        yield "".join(piece + (str(numbers[i]) if i < len(numbers) else "") for i, piece in enumerate(parts[::2]))


def folded(value: Any) -> Any:
    """The other way: long lists of names, and mappings of many names to few values."""
    if isinstance(value, dict):
        inner = {key: folded(entry) for key, entry in value.items()}
        return _folded_keys(inner) if len(inner) > _LONG and any(re.search(r"\d", key) for key in inner) else inner
    if isinstance(value, list):
        if len(value) > _LONG and all(isinstance(entry, str) for entry in value) and len(set(value)) == len(value):
            return list(fold(value))
        return [folded(entry) for entry in value]
    return value


def _folded_keys(mapping: dict[str, Any]) -> dict[str, Any]:
    by_value: dict[str, list[str]] = defaultdict(list)
    for key, value in mapping.items():
        by_value[repr(value)].append(key)
    return {name: mapping[keys[0]] for keys in by_value.values() for name in fold(keys)}


def fold(names: Iterable[str]) -> Iterator[str]:
    """Names whose numbers run over ranges become one; what makes no full product of ranges stays as it is."""
    groups: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for name in names:
        groups[re.sub(r"(?<=\.)\d+(?=\.|\*|$)", "{}", name)].append(tuple(int(n) for n in re.findall(r"(?<=\.)(\d+)(?=\.|\*|$)", name)))
    for template, tuples in groups.items():
        columns = [sorted(set(column)) for column in zip(*tuples, strict=True)]
        if columns and set(product(*columns)) == set(tuples):
            yield template.format(*("{" + ",".join(_ranges(column)) + "}" for column in columns))
        else:
            yield from (template.format(*numbers) for numbers in tuples)


def _ranges(numbers: list[int]) -> Iterator[str]:
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            yield str(start) if start == previous else f"{start}-{previous}"
            start = number
        previous = number


def _numbers(ranges: str) -> Iterator[int]:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
