"""What this project's values are made with: a `dataclass` that is quicker to import, its JSON, and a key for caches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self

__all__ = ["Dumped", "Same", "dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass

    from pydantic import TypeAdapter
else:

    def dataclass(*, frozen: bool, slots: bool = False, eq: bool = True, kw_only: bool = False) -> Callable[[type], type]:
        """`dataclasses.dataclass(frozen=True, …)`, less the six methods that writes and compiles for each class: the fifty classes
        a plan needs took a quarter of the command's time. Here `__init__` alone is compiled, the rest are shared.

        Not known here, as not used: `__post_init__`, `init=False`, `compare=False`.
        """
        if not frozen:
            raise TypeError("only frozen values are made here")

        def made(cls: type) -> type:
            told = cls.__doc__
            cls.__doc__ = told or cls.__name__  # else a signature is worked out to stand there
            value = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
            value.__doc__ = told
            value.__init__ = _init(value, slots, kw_only)
            for name, method in (_VALUE | _compared(value) if eq else _VALUE).items():
                if name not in cls.__dict__ or (name == "__hash__" and cls.__dict__[name] is None):
                    setattr(value, name, method)
            return value

        return made


def _init(value: Any, slots: bool, kw_only: bool) -> Any:
    """`__init__`, which puts each field in its slot past the frozen `__setattr__`."""
    scope: dict[str, Any] = {"put": object.__setattr__, "absent": object()}
    parameters, lines = ["self", "*"] if kw_only else ["self"], ["pass"]
    for name, field in value.__dataclass_fields__.items():
        given, default = name, field.default
        if field.default_factory is not dataclasses.MISSING:
            default, scope[f"make_{name}"] = scope["absent"], field.default_factory
            given = f"make_{name}() if {name} is absent else {name}"
        if default is not dataclasses.MISSING:
            scope[f"default_{name}"] = default
        parameters.append(name if default is dataclasses.MISSING else f"{name}=default_{name}")
        if slots:
            scope[f"put_{name}"] = getattr(value, name).__set__
        lines.append(f"put_{name}(self, {given})" if slots else f"put(self, {name!r}, {given})")
    exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines), scope)  # noqa: S102 - names of fields only
    return scope["__init__"]


def _compared(value: Any) -> dict[str, Any]:
    names = tuple(value.__dataclass_fields__)
    fields: Callable[[Any], Any] = attrgetter(*names)

    def __eq__(self: Any, other: object) -> bool:
        if self is other:
            return True
        return bool(fields(self) == fields(other)) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(fields(self))

    return {"__eq__": __eq__, "__hash__": __hash__}


def _repr(self: Any) -> str:
    fields = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(fields)})"


def _frozen(self: Any, name: str, *value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _reduced(self: Any) -> tuple[Any, ...]:
    return _restored, (type(self), {field.name: getattr(self, field.name) for field in dataclasses.fields(self)})


def _restored(cls: Any, fields: dict[str, Any]) -> Any:
    return cls(**fields)


_VALUE = {"__repr__": _repr, "__setattr__": _frozen, "__delattr__": _frozen, "__reduce__": _reduced}


class Dumped:
    """A value's JSON: these methods are named and behave as pydantic's, which does their work when it is first asked for."""

    __slots__ = ()
    #: Whether JSON must have each field's own type, as a file from elsewhere must.
    _STRICT: ClassVar[bool] = False

    def model_dump(self, mode: Literal["python", "json"] = "python") -> dict[str, Any]:
        """As plain values; with `mode="json"` exactly what its JSON holds."""
        dumped: dict[str, Any] = _adapter(type(self)).dump_python(self, mode=mode)
        return dumped

    def model_dump_json(self, indent: int | None = None) -> str:
        """As JSON text."""
        return str(_adapter(type(self)).dump_json(self, indent=indent), "utf-8")

    @classmethod
    def model_validate_json(cls, text: str | bytes) -> Self:
        """What a JSON text holds. Raises pydantic's ValidationError where it holds no such value."""
        value: Self = _adapter(cls).validate_json(text, strict=cls._STRICT)
        return value

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON schema of `model_dump_json`."""
        return _adapter(cls).json_schema(mode="serialization")


def _new_adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(_new_adapter)


class Same:
    """A key equal to itself alone: hashing devices or formats field by field costs more than a plan."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
