"""A compute graph laid out in one buffer, as ggml's graph allocator does it.

ggml gives every node a place when it is computed and frees it after its last reader; the buffer is as long as the
furthest end any node ever had. Holes count: a wide node does not fit where a narrow one was. Source: llama.cpp
0c1e57098, ggml/src/ggml-alloc.c (`ggml_gallocr_alloc_graph_impl`, `ggml_dyn_tallocr_alloc`).
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALIGNMENT", "Tape", "padded"]

#: Offsets are multiples of this on CUDA (`ggml_backend_cuda_buffer_type_get_alignment`).
ALIGNMENT: Final = 128
_ENDLESS: Final = 1 << 62


def padded(size: int, to: int = ALIGNMENT) -> int:
    """`size` rounded up to a multiple of `to`."""
    return -(-size // to) * to


class Tape:
    """Nodes in the order they are computed. A view is not a node: who reads it reads what it is a view of."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int | None, tuple[int, ...], tuple[int, ...]]] = []
        self._kept: list[int] = []

    def add(self, size: int, *reads: int, over: tuple[int, ...] = ()) -> int:
        """Record a node of `size` bytes that reads other nodes; its number.

        `over` are the nodes it may be computed in place of, the first with no other reader left. A node of 0 bytes
        still has a place, and where it lay free blocks may stay apart.
        """
        self._nodes.append((padded(size), reads, over))
        return len(self._nodes) - 1

    def read(self, *reads: int) -> None:
        """Record a node that is kept elsewhere: a copy into the cache."""
        self._nodes.append((None, reads, ()))

    def keep(self, node: int) -> None:
        """Never free a node: an input several batches in flight may still read."""
        self._kept.append(node)

    def peak(self) -> int:
        """Bytes of the buffer that holds the whole graph."""
        readers = [0] * len(self._nodes)
        for node in self._kept:
            readers[node] += 1
        for _, reads, _ in self._nodes:
            for node in reads:
                readers[node] += 1
        place: dict[int, tuple[int, int]] = {}
        free = _FreeBlocks()
        for number, (size, reads, over) in enumerate(self._nodes):
            if size is not None:
                for node in over:
                    if readers[node] == 1 and node in place and place[node][1] >= size:
                        place[number] = free.shrink(*place.pop(node), size)
                        break
                else:
                    place[number] = free.take(size), size
            for node in reads:
                readers[node] -= 1
                if not readers[node] and node in place:
                    free.give(*place.pop(node))
        return free.end


class _FreeBlocks:
    """Free blocks by offset; the last is endless. The best fitting other one is taken before it is touched."""

    def __init__(self) -> None:
        self._blocks: list[list[int]] = [[0, _ENDLESS]]
        self.end = 0

    def take(self, size: int) -> int:
        blocks = self._blocks
        best, best_size = len(blocks) - 1, _ENDLESS
        for i in range(len(blocks) - 1):
            if size <= blocks[i][1] <= best_size:
                best, best_size = i, blocks[i][1]
        block = blocks[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if not block[1]:
            del blocks[best]
        self.end = max(self.end, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free a place; like ggml, join it with a neighbour and at most one more."""
        blocks = self._blocks
        if offset > blocks[-1][0]:
            return  # an empty place whose surroundings have been freed into the endless block
        for i, block in enumerate(blocks):
            if block[0] + block[1] == offset:
                block[1] += size
                if i + 1 < len(blocks) and block[0] + block[1] == blocks[i + 1][0]:
                    block[1] += blocks.pop(i + 1)[1]
                return
            if offset + size == block[0]:
                block[0], block[1] = offset, block[1] + size
                if i and sum(blocks[i - 1]) == offset:
                    blocks[i - 1][1] += blocks.pop(i)[1]
                return
        blocks.insert(next(i for i, block in enumerate(blocks) if block[0] > offset), [offset, size])

    def shrink(self, offset: int, size: int, to: int) -> tuple[int, int]:
        """A place taken over by a smaller node: what is left at its end is free."""
        if size > to:
            self.give(offset + to, size - to)
        return offset, to
