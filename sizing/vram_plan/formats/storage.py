"""Exact bytes of one tensor in a given number format."""

from __future__ import annotations

import csv
import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

from vram_plan_data import ROOT

from ..errors import FormatError
from ..values import dataclass

__all__ = ["block_elements", "is_scheme_key", "is_stored_format", "storage_bits_per_weight", "storage_bytes", "storage_names"]

#: `AWQ-4/128`: a scheme, its bits, and how many weights of a row share a scale (0: the whole row).
_PARAMETERS: Final = re.compile(r"([A-Z0-9]+)(?:-([2-8])(?:/(\d{1,6}))?)?")


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How a matrix of rows × columns is stored by a checkpoint's quantisation scheme."""

    bits: int
    group_rows: int
    group_columns: int
    group_bits: Fraction
    row_bytes: int
    column_bytes: int
    matrix_bytes: int
    flat: bool

    def matrix_size(self, rows: int, columns: int) -> int:
        """Bytes of one matrix: packed weights, then scales and zero points per group, row, column and matrix."""
        if self.flat:
            rows, columns = 1, rows * columns
        groups = math.ceil(rows / (self.group_rows or rows)) * math.ceil(columns / (self.group_columns or columns))
        packed = rows * math.ceil(columns * self.bits / 8)
        return packed + math.ceil(groups * self.group_bits / 8) + rows * self.row_bytes + columns * self.column_bytes + self.matrix_bytes


@lru_cache(maxsize=1)
def _blocks() -> dict[str, tuple[int, int]]:
    """Elements and bytes of one block, of the formats whose tensors are blocks and nothing else."""
    with (ROOT / "formats_blocks.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: (int(row["elements"]), int(row["bytes"])) for row in csv.DictReader(file)}


@lru_cache(maxsize=1)
def _scheme_rows() -> dict[str, dict[str, str]]:
    with (ROOT / "formats_schemes.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@lru_cache(maxsize=256)
def _scheme(name: str) -> _Scheme:
    match = _PARAMETERS.fullmatch(name)
    row = _scheme_rows().get(match[1]) if match else None
    if match is None or row is None:
        raise FormatError(f"no number format is stored as {name[:40]!r}", f"known: {', '.join(storage_names())}")
    bits = int(match[2] or row["bits"])
    zero_bits = bits if row["zero_point"] == "yes" else 0
    return _Scheme(
        bits=bits,
        group_rows=int(row["group_rows"]),
        group_columns=int(match[3]) if match[3] is not None else int(row["group_columns"]),
        group_bits=Fraction(row["scale_bits"]) + zero_bits,
        row_bytes=int(row["row_bytes"]),
        column_bytes=int(row["column_bytes"]),
        matrix_bytes=int(row["tensor_bytes"]),
        flat=row["flat"] == "yes",
    )


def storage_names() -> tuple[str, ...]:
    """Every key `storage_bytes` takes; a scheme also as `AWQ-4/64`, with its bits and group size."""
    return (*_blocks(), *_scheme_rows())


def is_stored_format(name: str) -> bool:
    """True when `storage_bytes` knows the key."""
    return name in _blocks() or is_scheme_key(name)


def is_scheme_key(name: str) -> bool:
    """True for a checkpoint scheme's key, with or without bits and group size."""
    match = _PARAMETERS.fullmatch(name)
    return match is not None and match[1] in _scheme_rows()


def block_elements(stored_as: str) -> int:
    """How many elements of a row one block holds: 1 for dtypes, 256 for K-quants, the group for schemes."""
    block = _blocks().get(stored_as)
    return block[0] if block else _scheme(stored_as).group_columns or 1


@lru_cache(maxsize=1 << 16)
def storage_bytes(stored_as: str, shape: tuple[int, ...]) -> int:
    """Exact bytes of a tensor of `shape` (row-major: the last number is the row's length) in a number format.

    ggml blocks: whole blocks a row, as llama.cpp's ggml_row_size. Schemes: each matrix of the last two dimensions with
    its own scales. Raises FormatError for a key nobody has.
    """
    columns = shape[-1] if shape else 1
    block = _blocks().get(stored_as)
    if block is not None:
        return math.prod(shape[:-1]) * (-(-columns // block[0]) * block[1])
    if not math.prod(shape):
        return 0
    rows = shape[-2] if len(shape) > 1 else 1
    return math.prod(shape[:-2]) * _scheme(stored_as).matrix_size(rows, columns)


def storage_bits_per_weight(stored_as: str) -> float:
    """Bits per weight of a large matrix (4096 × 4096), scales included."""
    return storage_bytes(stored_as, (4096, 4096)) * 8 / 4096**2
