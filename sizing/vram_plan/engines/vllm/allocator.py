"""What PyTorch's CUDA allocator counts as allocated beyond the tensors asked for.

Source: PyTorch 2.13, c10/cuda/CUDACachingAllocator.cpp and CUDAAllocatorConfig.h (kMinBlockSize, kSmallSize, kLargeBuffer,
kMinLargeAlloc, kRoundLarge; `should_split`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

__all__ = ["allocated"]

_MIB: Final = 1 << 20
#: Sizes are whole blocks; up to a small size tensors share segments of their own, cut anywhere.
_BLOCK, _SMALL = 512, _MIB
#: A medium tensor's segment; from this size on a tensor's segment is its own, in whole steps.
_SEGMENT, _LARGE, _STEP = 20 * _MIB, 10 * _MIB, 2 * _MIB


def allocated(sizes: Iterable[int]) -> tuple[int, int]:
    """Bytes counted beyond tensors of these sizes, allocated in this order and kept; and those of their segments that stay free.

    A tensor over 1 MiB takes the smallest free piece that holds it, else a new segment; what is left of it stays free where it
    is more than 1 MiB, and is counted with the tensor where not.
    """
    free: list[int] = []
    slack = 0
    for size in sizes:
        asked = -(-size // _BLOCK) * _BLOCK
        slack += asked - size
        if asked <= _SMALL:
            continue
        place = bisect_left(free, asked)
        piece = free.pop(place) if place < len(free) else _SEGMENT if asked < _LARGE else -(-asked // _STEP) * _STEP
        if piece - asked > _SMALL:
            insort(free, piece - asked)
        else:
            slack += piece - asked
    return slack, sum(free)
