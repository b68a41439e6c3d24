"""Random weights and the products with them: 16 or 32 bits, and 8- and 4-bit weights where torch has the kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from .layout import Matrix

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

__all__ = ["Int4Linear", "Int8Linear", "Linear", "PlainLinear", "WeightKind", "fill", "has_kernel", "linear_of", "load_torch"]

WeightKind = Literal["plain", "int8", "int4"]
#: Rows of a 4-bit matrix that share a scale; the width of torch's CUDA tiles of such a matrix.
GROUP: Final = 32
_TILES: Final = 8
#: Values drawn once and repeated: drawing each anew takes longer than everything measured.
_DRAWN: Final = 1 << 20


def load_torch() -> ModuleType:
    """torch, without its warning that NumPy, which nothing here uses, is not installed. Raises ImportError."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        import torch
    return torch


class Linear(Protocol):
    """A product with a fixed matrix. `parameters` counts its numbers, `nbytes` what they take with their scales."""

    parameters: int
    nbytes: int

    def __call__(self, x: Tensor) -> Tensor: ...


def fill(tensor: Tensor) -> Tensor:
    """Random numbers, in place and in the tensor's own dtype: never zeros, whose arithmetic takes less power and time.

    Floats are normal with a standard deviation of 0.02. One draw is repeated, rolled on by a prime each time.
    """
    torch = load_torch()
    flat = tensor.view(-1)
    first = flat[:_DRAWN]
    first.normal_(0.0, 0.02) if tensor.is_floating_point() else first.random_()
    done = first.numel()
    while done < flat.numel():
        size = min(done, flat.numel() - done)
        flat[done : done + size].copy_(torch.roll(flat[:size], 7919) if done == _DRAWN else flat[:size])
        done += size
    return tensor


class PlainLinear:
    """A 16- or 32-bit matrix. One row at a time goes through whichever of torch's two products is faster here."""

    def __init__(self, matrix: Matrix, weight: Tensor, bias: Tensor | None) -> None:
        torch = load_torch()
        self._linear, self._mv = torch.nn.functional.linear, torch.mv
        self.weight, self.bias = weight, bias
        self.parameters = matrix.parameters
        self.nbytes = weight.nbytes + (bias.nbytes if bias is not None else 0)
        self.by_vector = False

    def __call__(self, x: Tensor) -> Tensor:
        if self.by_vector and x.shape[0] == 1:
            row: Tensor = self._mv(self.weight, x[0])
            return (row if self.bias is None else row.add_(self.bias))[None]
        result: Tensor = self._linear(x, self.weight, self.bias)
        return result


class Int8Linear:
    """8-bit weights with a scale a row; activations in 16 bits."""

    def __init__(self, matrix: Matrix, weight: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        self._product = load_torch()._weight_int8pack_mm
        self.weight, self.scales, self.bias = weight, scales, bias
        self.parameters = matrix.parameters
        self.nbytes = weight.nbytes + scales.nbytes + (bias.nbytes if bias is not None else 0)

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self._product(x, self.weight, self.scales)
        return result if self.bias is None else result.add_(self.bias)


class Int4Linear:
    """4-bit weights, packed as the device's kernel wants them, with a scale and an offset for each 32 of a row."""

    def __init__(self, matrix: Matrix, packed: Tensor, scales: Tensor, bias: Tensor | None) -> None:
        torch = load_torch()
        self._product = torch._weight_int4pack_mm_for_cpu if packed.device.type == "cpu" else torch._weight_int4pack_mm
        self.packed, self.scales, self.bias = packed, scales, bias
        self.parameters = matrix.parameters
        self.nbytes = packed.nbytes + scales.nbytes + (bias.nbytes if bias is not None else 0)

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self._product(x, self.packed, GROUP, self.scales)
        return result if self.bias is None else result.add_(self.bias)


def _empty_int4(rows: int, columns: int, place: device) -> Tensor:
    """Room for packed 4-bit weights: two numbers a byte on a CPU, 16 × 8-row tiles of 32-bit words elsewhere."""
    torch = load_torch()
    if place.type == "cpu":
        made: Tensor = torch.empty(rows, columns // 2, dtype=torch.uint8, device=place)
        return made
    tiled: Tensor = torch.empty(rows // 8, columns // (_TILES * 16), 32, _TILES // 2, dtype=torch.int32, device=place)
    return tiled


def packs_to_int4(rows: int, columns: int) -> bool:
    """Whether the 4-bit kernels take a matrix of this size; others stay in 16 bits."""
    return rows % 64 == 0 and columns % (_TILES * 16) == 0


def linear_of(matrix: Matrix, kind: WeightKind, dtype: dtype, place: device) -> Linear:
    """A matrix (not a stack) with random weights. One the 4-bit kernel cannot take stays plain."""
    torch = load_torch()
    bias = fill(torch.empty(matrix.rows, dtype=dtype, device=place)) if matrix.bias else None
    if kind == "int8":
        weight = fill(torch.empty(matrix.rows, matrix.columns, dtype=torch.int8, device=place))
        return Int8Linear(matrix, weight, _scales(torch.empty(matrix.rows, dtype=dtype, device=place)), bias)
    if kind == "int4" and packs_to_int4(matrix.rows, matrix.columns):
        scales = _scales(torch.empty(matrix.columns // GROUP, matrix.rows, 2, dtype=dtype, device=place))
        return Int4Linear(matrix, fill(_empty_int4(matrix.rows, matrix.columns, place)), scales, bias)
    return PlainLinear(matrix, fill(torch.empty(matrix.rows, matrix.columns, dtype=dtype, device=place)), bias)


def _scales(tensor: Tensor) -> Tensor:
    """Small positive scales, so that sums of quantised products stay finite in 16 bits."""
    return tensor.uniform_(1e-4, 3e-4)


def choose_product(linear: Linear, width: int, seconds: Callable[[Callable[[], Any]], float]) -> None:
    """Let a plain matrix take the faster of its two products for one row. `seconds` times a call."""
    if isinstance(linear, PlainLinear):
        x = fill(linear.weight.new_empty(1, width))
        times = []
        for linear.by_vector in (False, True):
            times.append(seconds(lambda: linear(x)))
        linear.by_vector = times[1] < 0.97 * times[0]


def has_kernel(kind: WeightKind, dtype: dtype, place: device) -> bool:
    """Whether this torch multiplies by such weights on this device: a small product is tried."""
    torch = load_torch()
    if kind == "plain":
        return True
    try:
        x = torch.ones(1, 256, dtype=dtype, device=place)
        made = linear_of(Matrix(256, 256), kind, dtype, place)(x)
        if kind == "int4" and not _packs_as_expected(place):
            return False
        return made.shape == (1, 256) and bool(torch.isfinite(made).all())
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False


def _packs_as_expected(place: device) -> bool:
    """Whether torch's own packing has the shape random weights are written in."""
    torch = load_torch()
    if place.type == "cpu":
        packed = torch._convert_weight_to_int4pack_for_cpu(torch.zeros(64, 256, dtype=torch.int32), 1)
    else:
        packed = torch._convert_weight_to_int4pack(torch.zeros(64, 128, dtype=torch.uint8, device=place), _TILES)
    expected = _empty_int4(64, 256, place)
    return bool(packed.shape == expected.shape and packed.dtype == expected.dtype)
