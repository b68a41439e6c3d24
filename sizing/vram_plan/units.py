"""Numbers as people type and read them: `16k` tokens, `24GiB`, `13.5 GiB`."""

from __future__ import annotations

import re
from typing import Final

from .errors import UsageError

__all__ = ["GIB", "MIB", "format_count", "format_gib", "parse_bytes", "parse_tokens"]

MIB: Final = 1 << 20
GIB: Final = 1 << 30
_TOKENS: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?\s*([km]?)i?", re.IGNORECASE)
_BYTES: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(b|[kmgt]i?b?)?", re.IGNORECASE)
_MAX_TOKENS: Final = 1 << 40


def parse_tokens(text: str | int, what: str = "context") -> int:
    """A number of tokens: `16384`, `16k` (k = 1024), `1m`, `0.5k`. Raises UsageError for anything else."""
    if isinstance(text, bool) or not isinstance(text, (str, int)):
        raise UsageError(f"{what} {text!r} is no number of tokens", "write it as 16384 or 16k")
    if isinstance(text, int) and 1 <= text <= _MAX_TOKENS:
        return text
    match = _TOKENS.fullmatch(str(text).strip().replace(",", "").replace("_", ""))
    if not match:
        raise UsageError(f"{what} {str(text)[:40]!r} is no number of tokens", "write it as 16384 or 16k")
    whole, fraction, unit = match.groups()
    scale: int = {"": 1, "k": 1 << 10, "m": 1 << 20}[unit.lower()]
    parts = 10 ** len(fraction or "")
    tokens, rest = divmod(int(whole + (fraction or "")) * scale, int(parts))
    if rest or not 1 <= tokens <= _MAX_TOKENS:
        raise UsageError(f"{what} {str(text)[:40]!r} is not between 1 and {_MAX_TOKENS:,} whole tokens", "write it as 16384 or 16k")
    return tokens


def parse_bytes(text: str) -> int:
    """A size: `8GB` = 8 × 10⁹, `8GiB` = 8 × 2³⁰, `512MiB`; a bare number is bytes. Raises UsageError."""
    match = _BYTES.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text[:40]!r} is no size", "write it as 8GB, 7.5GiB or 512MiB")
    unit = (match[2] or "b").lower()
    base = 1024 if "i" in unit else 1000
    return int(float(match[1]) * base ** "bkmgt".index(unit[0]))


def format_gib(size: int) -> str:
    """A size for people: GiB with two decimals, MiB below a tenth of one."""
    if abs(size) < GIB // 10:
        return f"{size / MIB:.1f} MiB" if abs(size) < 10 * MIB else f"{size / MIB:.0f} MiB"
    return f"{size / GIB:.2f} GiB"


def format_count(count: int) -> str:
    """A count of parameters for people: `8.03 B`, `135 M`."""
    if count >= 10**12:
        return f"{count / 1e12:.2f} T"
    return f"{count / 1e9:.2f} B" if count >= 999_500_000 else f"{count / 1e6:.0f} M" if count >= 10**6 else f"{count:,}"
