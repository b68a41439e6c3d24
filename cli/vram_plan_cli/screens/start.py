"""How to start what was planned: commands that can be copied whole, whatever the width."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..language import say

if TYPE_CHECKING:
    from vram_plan import Plan
    from vram_plan.results import LaunchCommand

__all__ = ["copyable", "remarks", "start_lines", "starts"]

_WORD = re.compile(r"(?:[^\s'\"]|'[^']*'?|\"[^\"]*\"?)+")
#: What is typed at the engine's own prompt, once it runs.
_INSIDE = "/set "


def starts(plan: Plan) -> bool:
    """Whether the command runs as planned, or, where not all fits, with less than was asked: layers on the CPU, requests that wait."""
    if plan.fit.verdict != "does_not_fit":
        return True
    return not plan.fit.refusal and (plan.request.engine == "ollama" or (plan.engine.get("max_concurrency") or 0) >= 1)


def start_lines(plan: Plan) -> list[str]:
    """The commands that realise a plan, with what must be in their environment."""
    return [_with_settings(command) for command in plan.launch]


def _with_settings(command: LaunchCommand) -> str:
    return " ".join((*(f"{key}={value}" for key, value in command.env.items()), command.command))


def remarks(command: LaunchCommand) -> tuple[list[str], list[str]]:
    """What is typed at the engine's own prompt once it runs, and what else there is to say."""
    parts = [part for part in command.note.split("; ") if part]
    return [part for part in parts if part.startswith(_INSIDE)], [part for part in parts if not part.startswith(_INSIDE)]


def copyable(plan: Plan, width: int) -> list[str]:
    """The commands as lines to paste: broken by `\\` where they are too long, remarks as comments above."""
    return [line for command in plan.launch for line in _command_lines(command, max(width - 2, 20))]


def _command_lines(command: LaunchCommand, width: int) -> Iterator[str]:
    typed, told = remarks(command)
    for remark in map(say, told):
        yield from textwrap.wrap(remark, width, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)
    for line in _with_settings(command).splitlines():
        yield from _broken(line, width)
    yield from typed


def _broken(line: str, width: int) -> Iterator[str]:
    """One line of a shell or of Python, broken before an option where it can be; what has no blank stays whole."""
    held = ""
    for group in _groups(line) if len(line) > width else [line]:
        if held and len(held) + len(group) + 3 > width:
            yield f"{held} \\"
            held = f"  {group}"
        else:
            held = f"{held} {group}" if held else group
    if held:
        yield held


def _groups(line: str) -> Iterator[str]:
    """Words; an option and its value are one."""
    words = _WORD.findall(line)
    at = 0
    while at < len(words):
        pair = words[at].startswith("-") and at + 1 < len(words) and not words[at + 1].startswith("-")
        yield " ".join(words[at : at + 1 + pair])
        at += 1 + pair
