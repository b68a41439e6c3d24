"""`frozen`: a dataclass that cannot be changed, made in half the time; and `Same`, a key by identity.

`dataclass(frozen=True, slots=True)` compiles six functions for each class, a millisecond that every start of the command
pays dozens of times. Here one is compiled, `__init__`; the others are shared, and compare and hash by `attrgetter`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

__all__ = ["Same", "frozen"]

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(made: type[_T]) -> type[_T]:
    """A class decorator: as `dataclass(frozen=True, slots=True)`, without its other options.

    `replace`, `fields` and `asdict` work on its instances, and they can be copied and pickled.
    """
    made.__doc__ = made.__doc__ or ""  # dataclass would make one from the signature, slowly
    new = dataclass(init=False, repr=False, eq=False, slots=True)(made)
    new.__dataclass_params__.frozen = new.__dataclass_params__.eq = True  # type: ignore[attr-defined]
    every = fields(new)  # type: ignore[arg-type]
    values = attrgetter(*(one.name for one in every))

    def equal(self: Any, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    shared = {"__eq__": equal, "__hash__": hashed, "__repr__": _shown, "__getstate__": _state, "__setstate__": _restore}
    for name, function in shared.items():
        if name not in made.__dict__ or made.__dict__[name] is None:
            setattr(new, name, function)
    type.__setattr__(new, "__init__", _init(new, every))
    type.__setattr__(new, "__setattr__", _refuse)
    type.__setattr__(new, "__delattr__", _refuse)
    return new


class Same:
    """A key equal to itself alone: hashing devices or formats field by field costs more than a plan."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


def _init(made: type, every: tuple[Field[Any], ...]) -> Callable[..., None]:
    """The one function that is compiled: its parameters in the fields' order, each put into its slot."""
    known: dict[str, Any] = {}
    parameters, lines = [], []
    for one in every:
        name, value = one.name, one.name
        known[f"_put_{name}"] = made.__dict__[name].__set__
        if one.default_factory is not MISSING:
            known[f"_make_{name}"], known["_missing"] = one.default_factory, MISSING
            parameters.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        elif one.default is not MISSING:
            known[f"_default_{name}"] = one.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        lines.append(f" _put_{name}(self, {value})")
    exec(f"def __init__(self, {', '.join(parameters)}):\n" + "\n".join(lines), known)  # noqa: S102  names of fields only
    function: Callable[..., None] = known["__init__"]
    return function


def _shown(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{one.name}={getattr(self, one.name)!r}' for one in fields(self))})"


def _state(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, one.name) for one in fields(self))


def _restore(self: Any, state: tuple[Any, ...]) -> None:
    for one, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, one.name, value)


def _refuse(self: Any, name: str, *value: Any) -> None:
    raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be changed")
