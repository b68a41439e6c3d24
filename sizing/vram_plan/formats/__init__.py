"""How numbers are stored: dtypes, ggml blocks, GGUF mixes and checkpoint quantisation schemes."""

from __future__ import annotations

from .catalogue import Format, apply_format, find_format, for_engine, format_for_bits, inventory_bytes, list_formats

__all__ = ["Format", "apply_format", "find_format", "for_engine", "format_for_bits", "inventory_bytes", "list_formats"]
