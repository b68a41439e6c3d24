"""`frozen` behaves as the standard library's frozen dataclass with slots does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vram_plan.values import frozen


@frozen
class Ours:
    a: int
    b: str = "b"
    c: Mapping[str, int] = field(default_factory=dict)

    @property
    def twice(self) -> int:
        return 2 * self.a


@dataclass(frozen=True, slots=True)
class Theirs:
    a: int
    b: str = "b"
    c: Mapping[str, int] = field(default_factory=dict)


@frozen
class Single:
    only: tuple[int, ...]


@given(a=st.integers(), b=st.text(max_size=4))
def test_a_value_is_made_shown_and_compared_as_a_dataclass(a: int, b: str) -> None:
    ours, theirs = Ours(a, b=b), Theirs(a, b=b)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert asdict(ours) == asdict(theirs)
    assert ours == Ours(a, b) and ours != replace(ours, a=a + 1) and ours != theirs and ours != (a, b, {})
    assert ours.twice == 2 * a


def test_each_value_has_its_own_default() -> None:
    assert Ours(1).c == {} and Ours(1).c is not Ours(1).c
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        Ours()  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [Ours(1, "x", {"y": 2}), Single((1, 2))])
def test_a_value_is_copied_and_pickled_and_never_changed(value: Any) -> None:
    assert copy.deepcopy(value) == value == pickle.loads(pickle.dumps(value)) == copy.copy(value)
    name = fields(value)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, 3)
    with pytest.raises(FrozenInstanceError):
        delattr(value, name)
    with pytest.raises((FrozenInstanceError, AttributeError)):
        value.other = 3


def test_equal_values_hash_equally() -> None:
    assert {Single((1,)): 1}[Single((1,))] == 1
    assert len({Single((1,)), Single((1,)), Single((2,))}) == 2
