"""A graph over several devices and host memory: which device computes a node, what is copied to it, each one's buffer.

A node that reads a weight is computed where the weight is, or on the first GPU where that is host memory and the batch
is large; others go where their neighbours go. A device's nodes in a row are a split; what a split reads from elsewhere
is copied in where it begins. Source: llama.cpp 0c1e57098, ggml/src/ggml-backend.cpp
(`ggml_backend_sched_backend_id_from_cur`, `ggml_backend_sched_split_graph`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .placement import HOST
from .tape import Tape

__all__ = ["OFFLOADED_BATCH", "Schedule"]

#: Batches of this many tokens and more are computed on the GPU although weights are in host memory (CUDA's `offload_op`).
OFFLOADED_BATCH: Final = 32


@dataclass(slots=True)
class _Node:
    """`size` is None where the result is kept elsewhere; `of` is the node this is a view of; `home` None until settled.

    A leaf is given, not computed: an input in host memory, or (`kept`) a weight or a cache there, outside the buffer.
    """

    size: int | None
    reads: tuple[int, ...]
    over: tuple[int, ...]
    home: int | None
    leaf: bool = False
    kept: bool = False
    is_weight: bool = False
    of: int = -1
    bare: int | None = None


class Schedule(Tape):
    """Stands in for a tape. `buffers` tells each device's buffer once all is recorded.

    With `copies` (of a pipeline's batches in flight) inputs and what is copied in are there so many times, from the
    start and for good.
    """

    def __init__(self, copies: int = 1) -> None:
        super().__init__()
        self._copies = copies
        self._all: list[_Node] = []
        self._never_freed: list[int] = []
        self._constants: set[int] = set()
        self._pinned: int | None = None

    def pin(self, home: int) -> None:
        """Have the next node computed there."""
        self._pinned = home

    def add(self, size: int, *reads: int, over: tuple[int, ...] = ()) -> int:
        return self._record(_Node(size, reads, over, self._pinned))

    def read(self, *reads: int) -> None:
        self._record(_Node(None, reads, (), self._pinned))

    def keep(self, node: int) -> None:
        self._never_freed.append(node)

    def given(self, size: int) -> int:
        """An input, which is in host memory."""
        return self._leaf(_Node(size, (), (), HOST, leaf=True))

    def constant(self, size: int) -> int:
        """A number repeated, made where it is read."""
        self._constants.add(len(self._all))
        return self._leaf(_Node(size, (), (), None, leaf=True))

    def weight(self, size: int, rows: int) -> tuple[int, ...]:
        """A weight in host memory that the next node multiplies with so many rows: what it reads of it."""
        self.pin(0 if rows >= OFFLOADED_BATCH else HOST)
        return (self._leaf(_Node(size, (), (), HOST, leaf=True, kept=True, is_weight=True)),)

    def cache(self, size: int, home: int) -> int:
        """A cache on a device or in host memory, as far as it is read."""
        return self._leaf(_Node(size, (), (), home, leaf=True, kept=True))

    def view(self, node: int, size: int) -> int:
        """Part of a node: read elsewhere, only that is copied."""
        return self._leaf(_Node(size, (), (), None, leaf=True, of=node))

    def without(self, node: int, bare: int) -> int:
        """Say that what a GPU keeps behind a node's result is neither copied nor kept in host memory: that is `bare` bytes."""
        self._all[node].bare = bare
        return node

    def _record(self, node: _Node) -> int:
        self._pinned = None
        return self._leaf(node)

    def _leaf(self, node: _Node) -> int:
        self._all.append(node)
        return len(self._all) - 1

    def size_of(self, node: int) -> int:
        found = self._all[node]
        return (found.size if found.bare is None else found.bare) or 0

    def buffers(self, devices: int) -> tuple[int, ...]:
        """Bytes of each device's buffer; the last is the one in host memory."""
        peaks = self._laid_out()
        return tuple(peaks.get(device, 0) for device in (*range(devices), HOST))

    def _settle(self) -> list[int]:
        """Where every node is. GPUs spread to nodes after and before theirs, never past one computed in host memory; then
        whatever is left goes where its neighbours are."""
        computed = [node for node in self._all if not node.leaf]
        for skipped in (HOST, None):
            for nodes in (computed, computed[::-1]):
                current: int | None = None
                for node in nodes:
                    if node.home is None:
                        node.home = current
                    else:
                        current = None if node.home == skipped else node.home
        for node in computed:
            for read in node.reads:
                if self._all[read].home is None:
                    self._all[read].home = node.home
        homes = [HOST if node.home is None else node.home for node in self._all]
        for number, node in enumerate(self._all):
            if node.of >= 0:
                homes[number] = homes[node.of]
        return homes

    def _splits(self, homes: list[int]) -> Iterator[tuple[int, list[int], list[int]]]:
        """The device of each split, its nodes, and what is copied in before."""
        current, nodes, copies = HOST, list[int](), list[int]()
        copied: set[tuple[int, int]] = set()
        for number, node in enumerate(self._all):
            if node.leaf:
                continue
            home = homes[number]
            apart = [read for read in node.reads if homes[read] != home]
            weights = [read for read in apart if self._all[read].is_weight]
            if home != current or (weights and copies):
                if nodes:
                    yield current, nodes, copies
                current, nodes, copies = home, [], []
            for read in (*weights, *apart) if apart else ():  # a product's first operand is its weight
                if (read, home) not in copied:
                    copied.add((read, home))
                    copies.append(read)
            nodes.append(number)
        yield current, nodes, copies

    def _laid_out(self) -> dict[int, int]:
        """The length of every device's own tape, with its copies, and reads of what others copy from it."""
        homes, inputs = self._settle(), [i for i, node in enumerate(self._all) if node.leaf and not node.kept and node.of < 0]
        splits = list(self._splits(homes))
        tapes: dict[int, Tape] = defaultdict(Tape)
        places: dict[int, list[int]] = defaultdict(lambda: [-1] * len(self._all))

        def held(number: int, device: int, times: int) -> None:
            size, tape = self.size_of(number), tapes[device]
            places[device][number] = tape.add(size)
            for place in (places[device][number], *(tape.add(size) for _ in range(times - 1))) if times > 1 else ():
                tape.keep(place)

        def found(number: int, device: int) -> int:
            place, of = places[device][number], self._all[number].of
            return places[device][of] if place < 0 <= of else place

        for number in inputs:
            held(number, homes[number], 1 if number in self._constants else self._copies)
        for device, _, copies in splits if self._copies > 1 else ():
            for source in copies:
                held(source, device, self._copies)
        for device, nodes, copies in splits:
            for source in copies:
                if (origin := found(source, homes[source])) >= 0:
                    tapes[homes[source]].read(origin)
                if self._copies == 1:
                    held(source, device, 1)
            own, tape = places[device], tapes[device]
            for number in nodes:
                node = self._all[number]
                reads = [place for each in node.reads if (place := found(each, device)) >= 0]
                if node.size is None:
                    tape.read(*reads)
                else:
                    size = self.size_of(number) if device == HOST else node.size
                    own[number] = tape.add(size, *reads, over=tuple(own[each] for each in node.over if own[each] >= 0))
        for number in self._never_freed:
            tapes[homes[number]].keep(places[homes[number]][number])
        return {device: tape.peak() for device, tape in tapes.items()}
