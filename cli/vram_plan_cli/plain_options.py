"""Options read without pydantic where their text is their value already.

typer makes a pydantic adapter of every option, also of those not given: longer work than a plan's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["PlainCommand", "PlainGroup"]

Reader = Callable[[typer.Context, Any], Any]


class PlainCommand(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(parameter) for parameter in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(parameter) for parameter in super().get_params(ctx)]


def _plain(parameter: Any) -> Any:
    """The parameter with a quicker `process_value`; as it is where typer keeps no adapter's description with it."""
    known = getattr(parameter, "type_descriptor", None)
    info = getattr(known, "parameter_info", None)
    if info is not None and "process_value" not in vars(parameter):
        limits = (getattr(info, name, None) for name in ("min", "max", "parser"))
        plain = parameter.nargs == 1 and not parameter.multiple and not parameter.callback and all(limit is None for limit in limits)
        kind = getattr(known, "annotation", None) if plain else None
        parameter.process_value = partial(_read, parameter, kind, parameter.process_value)
    return parameter


def _read(parameter: Any, kind: object, read: Reader, context: typer.Context, value: Any) -> Any:
    """What typer's own `read` answers, at once where that is plain: not given, or of its `kind` (None: not plain), or digits."""
    if value is None and not parameter.required:
        empty = () if parameter.multiple or parameter.nargs != 1 else None
        return parameter.callback(context, parameter, empty) if parameter.callback else empty
    if kind in (str, int) and type(value) is kind:
        return value
    if kind is int and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return read(context, value)
