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
_NOWHERE: Final = -1


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
        readers, sizes = [0] * len(self._nodes), [size or 0 for size, _, _ in self._nodes]
        for node in self._kept:
            readers[node] += 1
        for _, reads, _ in self._nodes:
            for node in reads:
                readers[node] += 1
        place, free = [_NOWHERE] * len(self._nodes), _FreeBlocks()
        for number, (size, reads, over) in enumerate(self._nodes):
            if size is not None:
                for node in over:
                    room = sizes[node]
                    if readers[node] == 1 and room >= size and place[node] != _NOWHERE:
                        place[number], place[node] = place[node], _NOWHERE
                        if room > size:  # what is left at its end is free
                            free.give(place[number] + size, room - size)
                        break
                else:
                    place[number] = free.take(size)
            for node in reads:
                readers[node] -= 1
                if not readers[node] and place[node] != _NOWHERE:
                    free.give(place[node], sizes[node])
                    place[node] = _NOWHERE
        return free.end


class _FreeBlocks:
    """Free blocks by offset, and all beyond `_tail`. The best fitting block is taken before what is beyond is touched."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sizes: list[int] = []
        self._tail = self.end = 0

    def take(self, size: int) -> int:
        best, best_size = -1, _ENDLESS
        for i, room in enumerate(self._sizes):
            if size <= room <= best_size:
                best, best_size = i, room
        if best < 0:
            offset = self._tail
            self._tail += size
            self.end = max(self.end, self._tail)
            return offset
        offset = self._starts[best]
        if size == best_size:
            del self._starts[best], self._sizes[best]
        else:
            self._starts[best] += size
            self._sizes[best] -= size
        return offset

    def give(self, offset: int, size: int) -> None:
        """Free a place; like ggml, join it with a neighbour and at most one more."""
        starts, sizes, end = self._starts, self._sizes, offset + size
        if offset > self._tail:
            return  # an empty place whose surroundings have been freed into what is beyond
        for at, start in enumerate(starts):
            if start + sizes[at] == offset:
                sizes[at] += size
                self._join(at)
                return
            if start == end:
                starts[at] = offset
                sizes[at] += size
                if at and starts[at - 1] + sizes[at - 1] == offset:
                    self._join(at - 1)
                return
        if end == self._tail:
            self._tail = offset
            if starts and starts[-1] + sizes[-1] == offset:
                self._join(len(starts) - 1)
            return
        at = next((i for i, start in enumerate(starts) if start > offset), len(starts))
        starts.insert(at, offset)
        sizes.insert(at, size)

    def _join(self, at: int) -> None:
        """Make one of a block and the next, if they touch."""
        end = self._starts[at] + self._sizes[at]
        if at + 1 == len(self._starts):
            if end == self._tail:
                self._tail = self._starts.pop()
                self._sizes.pop()
        elif end == self._starts[at + 1]:
            self._sizes[at] += self._sizes.pop(at + 1)
            del self._starts[at + 1]
