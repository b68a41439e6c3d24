"""Options read without pydantic where their text is their value already.

typer makes a pydantic adapter of every option, also of those not given: longer work than a plan's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .language import chosen_language, say

__all__ = ["PlainCommand", "PlainGroup"]

Reader = Callable[[typer.Context, Any], Any]


class PlainCommand(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(parameter) for parameter in super().get_params(ctx)]

    def get_help(self, ctx: Any) -> str:
        return super().get_help(_spoken(ctx))

    def get_short_help_str(self, limit: int = 45) -> str:
        return self.help or "" if chosen_language() else super().get_short_help_str(limit)


class PlainGroup(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(parameter) for parameter in super().get_params(ctx)]

    def get_help(self, ctx: Any) -> str:
        return super().get_help(_spoken(ctx))


class _Spoken:
    """Help in the chosen language: before a formatter of the command line parser, whose words it says."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, prefix or say("Usage: "))  # type: ignore[misc]

    def write_heading(self, heading: str) -> None:
        super().write_heading(say(heading))  # type: ignore[misc]

    def write_text(self, text: str) -> None:
        super().write_text(say(text))  # type: ignore[misc]

    def write_dl(self, rows: Any, *spaces: int) -> None:
        super().write_dl([(first, say(second)) for first, second in rows], *spaces)  # type: ignore[misc]


def _spoken(ctx: Any) -> Any:
    if chosen_language():
        ctx.formatter_class = type("Spoken", (_Spoken, ctx.formatter_class), {})
    return ctx


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
