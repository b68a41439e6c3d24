"""The quick `dataclass` makes what the standard one makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field

import pytest
from vram_plan import values
from vram_plan.results import Memory


def _point(dataclass, **settings):
    @dataclass(frozen=True, **settings)
    class Point:
        x: int
        y: int = 2
        tags: dict[str, int] = field(default_factory=dict)
        secret: str = field(default="s", repr=False)

        def sum(self) -> int:
            return self.x + self.y

    return Point


@pytest.mark.parametrize("settings", [{}, {"slots": True}, {"slots": True, "kw_only": True}, {"eq": False}])
def test_as_the_standard_one(settings):
    quick, standard = (_point(maker, **settings) for maker in (values.dataclass, dataclasses.dataclass))
    a, b = quick(x=1, tags={"k": 3}), standard(x=1, tags={"k": 3})
    assert repr(a) == repr(b)
    assert dataclasses.asdict(a) == dataclasses.asdict(b)
    assert [f.name for f in dataclasses.fields(quick)] == [f.name for f in dataclasses.fields(standard)]
    assert dataclasses.replace(a, y=5) != a
    assert dataclasses.replace(a, y=5).sum() == dataclasses.replace(b, y=5).sum() == 6
    assert (a == copy.copy(a)) is (b == copy.copy(b)) is settings.get("eq", True)
    assert a != b
    assert quick(x=1).tags is not quick(x=1).tags
    assert hasattr(a, "__dict__") is hasattr(b, "__dict__")
    for wrong in ({}, {"x": 1, "z": 2}):
        for kind in (quick, standard):
            with pytest.raises(TypeError):
                kind(**wrong)
    for value in (a, b):
        with pytest.raises(FrozenInstanceError):
            value.x = 3
        with pytest.raises(FrozenInstanceError):
            del value.x
    if settings.get("eq", True):
        for value in (a, b):
            with pytest.raises(TypeError, match="unhashable type: 'dict'"):
                hash(value)


def test_hash_follows_equality():
    a, b = (Memory(1, 2, 3, 4, 5, 15) for _ in range(2))
    assert a == b
    assert len({a, b, dataclasses.replace(a, total=0)}) == 2
    assert pickle.loads(pickle.dumps(a)) == copy.deepcopy(a) == a
