"""How a failure is said: one line on stderr, JSON on stdout where JSON was asked for, and the documented exit code."""

from __future__ import annotations

import json
import re
import sys

from .language import say

__all__ = ["exit_code_of", "report"]


def exit_code_of(error: BaseException) -> int:
    """The library's own code, the command line parser's, 130 for an interrupt, 1 for anything unforeseen."""
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return 130
    code = getattr(error, "exit_code", 1)
    return code if isinstance(code, int) else 1


def report(error: BaseException, as_json: bool) -> None:
    """Say what was wrong and what to do."""
    if isinstance(error, SystemExit):
        return
    message, hint, code = _parts(error)
    if as_json:
        print(json.dumps({"error": {"code": code, "message": message, "hint": hint}}))
    message, hint = _said(message), _said(hint)
    told = hint if hint.startswith("pip ") else hint[:1].upper() + hint[1:]
    line = f"{message}. {told}" if hint else message
    print(" ".join(line.split()), file=sys.stderr)


def _said(text: str) -> str:
    """In the chosen language; in English where the failure is that there is no such language."""
    try:
        return say(text)
    except Exception:
        return text


def _plain(text: str) -> str:
    """The parser's words for a figure it cannot take, in fewer."""
    text = re.sub(r"Input should be a valid integer.*", "a whole number is wanted", text)
    text = re.sub(r"Input should be a valid number.*", "a number is wanted", text)
    return re.sub(r"Input should be (greater|less) than or equal to (\S+)", _bound, text)


def _bound(found: re.Match[str]) -> str:
    return f"{found[2]} is the least" if found[1] == "greater" else f"{found[2]} is the most"


def _parts(error: BaseException) -> tuple[str, str, str]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "", "interrupted"
    message = getattr(error, "message", None)
    if hasattr(error, "format_message"):  # the command line parser's own errors
        return _plain(str(error.format_message())).rstrip("."), "see: vram-plan --help", "usage"
    if isinstance(message, str) and hasattr(error, "hint"):
        return message.rstrip("."), str(error.hint), str(getattr(error, "code", "error"))
    return f"internal error ({type(error).__name__}: {str(error)[:200]})", "please report it; VRAM_PLAN_DEBUG=1 shows where", "internal"
