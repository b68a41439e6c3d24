"""JSON from outside, read with limits: size, depth, number of values, and nothing but finite numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, Final

from ..errors import FormatError

__all__ = ["MAX_CONFIG_BYTES", "load_json", "shown"]

#: The longest real `config.json` (a quantised mixture of experts listing every module) has under 3 MB.
MAX_CONFIG_BYTES: Final = 10_000_000
#: Keeps what the parser builds under 200 MB: no value takes more than 250 bytes.
MAX_VALUES: Final = 750_000
MAX_DEPTH: Final = 64


def load_json(
    data: bytes,
    where: str,
    max_bytes: int = MAX_CONFIG_BYTES,
    max_depth: int = MAX_DEPTH,
    max_values: int = MAX_VALUES,
    unique_keys: bool = False,
    words: bool = False,
) -> Any:
    """The JSON value in `data`. Numbers are finite; strings can be printed.

    Raises FormatError, naming `where`, for more than `max_bytes`, text that is no UTF-8 or no JSON, nesting deeper
    than `max_depth`, more than `max_values` values, NaN, Infinity, absurdly long numbers; with `unique_keys` also
    for a key given twice. With `words`, NaN and Infinity are read as these words: transformers writes them into the
    configs of Mamba-2 models (`time_step_limit`).
    """
    if len(data) > max_bytes:
        raise FormatError(f"{where} has {len(data):,} bytes; at most {max_bytes:,} are read", "is it the right file?")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > max_values:
        raise FormatError(f"{where} holds more than {max_values:,} values", "is it the right file?")
    try:
        value = json.loads(
            data.decode("utf-8-sig"),
            parse_constant=str if words else _no_constant,
            parse_float=_finite,
            object_pairs_hook=_unique if unique_keys else None,
        )
    except UnicodeDecodeError as error:
        raise FormatError(f"{where} is no UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise FormatError(f"{where} is nested deeper than {max_depth} levels") from None
    except ValueError as error:
        raise FormatError(f"{where} is no valid JSON: {str(error)[:120]}") from None
    _check(value, where, max_depth, check_text=b"\\u" in data)
    return value


def shown(value: object) -> str:
    """A value for an error message: short, and safe whatever it holds."""
    if isinstance(value, (list, tuple, dict)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > 1 << 64:
        return f"a number of {value.bit_length()} bits"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {shown(counts.most_common(1)[0][0])} is given twice")
    return found


def _check(value: Any, where: str, max_depth: int, check_text: bool) -> None:
    """Depth, level by level and so without recursion; and that no string holds half a character (a lone surrogate)."""
    level = [value]
    for _ in range(max_depth + 1):
        if check_text and not all(_printable(v) for v in level):
            raise FormatError(f"{where} holds text that is no Unicode")
        lists = [v for v in level if isinstance(v, (dict, list))]
        if not lists:
            return
        level = [inner for v in lists for inner in (v.values() if isinstance(v, dict) else v)]
    raise FormatError(f"{where} is nested deeper than {max_depth} levels")


def _printable(value: Any) -> bool:
    texts = value if isinstance(value, dict) else (value,)
    return not any(isinstance(t, str) and any("\ud800" <= ch <= "\udfff" for ch in t) for t in texts)
