"""The number formats a KV cache can have."""

from __future__ import annotations

from difflib import get_close_matches
from fractions import Fraction
from typing import Final

from ..errors import UnknownNameError

__all__ = ["CACHE_TYPES", "cache_element_bytes", "cache_type"]

#: Bytes per element, block scales included (ggml-common.h: block_q8_0 is 34 bytes for 32 elements, and so on).
CACHE_TYPES: Final[dict[str, Fraction]] = {
    "f32": Fraction(4),
    "f16": Fraction(2),
    "bf16": Fraction(2),
    "fp8": Fraction(1),
    "q8_0": Fraction(34, 32),
    "q5_1": Fraction(24, 32),
    "q5_0": Fraction(22, 32),
    "q4_1": Fraction(20, 32),
    "q4_0": Fraction(18, 32),
    "iq4_nl": Fraction(18, 32),
}
_ALIASES: Final = {
    "fp16": "f16", "float16": "f16", "half": "f16", "16": "f16", "fp32": "f32", "float32": "f32", "bfloat16": "bf16",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "float8": "fp8", "q8": "q8_0", "8": "q8_0", "q4": "q4_0", "4": "q4_0",
}  # fmt: skip


def cache_type(text: str) -> str:
    """The canonical name of a cache type. Raises UnknownNameError, naming the nearest."""
    name = text.strip().lower().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in CACHE_TYPES:
        near = get_close_matches(name, CACHE_TYPES, n=3, cutoff=0.4)
        raise UnknownNameError(
            f"no KV cache type is called {text[:40]!r}",
            (f"did you mean {' or '.join(near)}? " if near else "") + f"known: {', '.join(CACHE_TYPES)}",
        )
    return name


def cache_element_bytes(text: str) -> Fraction:
    """Bytes per cached element, exactly."""
    return CACHE_TYPES[cache_type(text)]
