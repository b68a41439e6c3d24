"""Options read without pydantic where their text is their value already.

typer makes a pydantic adapter of every option, also of those not given: longer work than a plan's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from typer.core import TyperCommand

__all__ = ["PlainCommand", "read_plainly"]

Reader = Callable[[Any, Any], Any]


class PlainCommand(TyperCommand):
    """A command with its options read that way."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        read_plainly(self.params)


def read_plainly(parameters: Iterable[Any]) -> None:
    for parameter in parameters:
        known = getattr(parameter, "type_descriptor", None)  # a typer without adapters is left as it is
        if known is not None:
            vars(parameter)["process_value"] = partial(_read, parameter, known, parameter.process_value)


def _read(parameter: Any, known: Any, read: Reader, context: Any, value: Any) -> Any:
    """What typer's own `read` answers, at once where that is plain: not given, or a text or a whole number without limits."""
    several = parameter.multiple or parameter.nargs != 1
    if value is None and not parameter.required:
        empty = () if several else None
        return parameter.callback(context, parameter, empty) if parameter.callback else empty
    if several or type(value) not in (str, int) or known.is_ranged or known.parameter_info.parser or parameter.callback:
        return read(context, value)
    if known.annotation is type(value):
        return value
    if known.annotation is int and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return read(context, value)
