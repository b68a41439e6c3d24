"""The operations a tower's graph is made of, each as what it does to memory: a tensor of its own, or a parent's place.

An operation that ggml computes in the place of its only parent (a bias, an activation, a gain, a scale, a cast of
positions) is left out where nobody else reads that parent. Source: llama.cpp 0c1e57098, tools/mtmd/clip.cpp
(`build_ffn`, `build_attn`, `build_norm`, `build_patch_merge_permute`), ggml/src/ggml.c, ggml/src/ggml-alloc.c.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..tape import Tape

__all__ = ["Graph", "Mask", "Value"]

#: Head widths CUDA's flash attention has a kernel for (`ggml_cuda_get_best_fattn_kernel`); where a tower's is none of
#: them, all of its attention is computed without.
FLASH: Final = frozenset({40, 64, 72, 80, 96, 112, 128, 256})


#: Bytes, what is read, and what it may be computed in place of.
_Node = tuple[int, tuple[int, ...], tuple[int, ...]]


class Value(NamedTuple):
    """What a node holds: `rows` rows of `width` numbers. `own` unless it is a view of the node: nothing is computed in place of one."""

    at: int
    width: int
    rows: int
    own: bool = True

    def view(self, width: int = 0, rows: int = 0) -> Value:
        """The numbers in another shape, or some of them."""
        return Value(self.at, width or self.width, rows or self.rows, False)


class Mask:
    """What a layer's patches do not see, a number for each two of `rows`. `early`: cast to 16 bits once and again in each layer."""

    def __init__(self, graph: Graph, rows: int, early: bool) -> None:
        self.source, self.early = graph.input(rows, rows), early

    def half(self, graph: Graph) -> Value:
        if self.early:
            self.source, self.early = graph.half(self.source), False
        return graph.half(self.source)


class Graph:
    """A tower's nodes on a tape, in the order ggml visits them. Nodes are fp32 where not said otherwise."""

    def __init__(self, head: int) -> None:
        self._nodes: list[_Node] = []
        self._inputs: list[int] = []
        self._leafs: list[int] = []
        self._away = 0
        self.flash = head in FLASH

    def _add(self, size: int, *reads: int, over: tuple[int, ...] = ()) -> int:
        self._nodes.append((size, reads, over))
        return len(self._nodes) - 1

    def input(self, width: int, rows: int = 1) -> Value:
        """What is filled in on the host. It is copied in before the first node, in the order of first reading."""
        self._inputs.append(self._add(4 * width * rows))
        return Value(self._inputs[-1], width, rows)

    @property
    def given(self) -> int:
        """Bytes of the host's buffer: all inputs, or what the processor computes."""
        return max(sum(self._nodes[at][0] for at in self._inputs), self._away)

    def away(self, size: int) -> None:
        """A node the processor computes, whatever the GPU: `size` bytes are what it reads and makes. llama.cpp tries attention with its
        flash kernel first and keeps that buffer."""
        self._away = max(self._away, size)

    def leaf(self, width: int, rows: int = 1) -> Value:
        """A tensor nobody fills in: it has its place before all others."""
        self._leafs.append(self._add(4 * width * rows))
        return Value(self._leafs[-1], width, rows)

    def peak(self) -> int:
        """Bytes of the buffer that holds the whole graph."""
        inputs = frozenset(self._inputs)
        read = dict.fromkeys(at for _, reads, _ in self._nodes for at in reads if at in inputs)
        order = [*self._leafs, *read, *(at for at in range(len(self._nodes)) if at not in inputs and at not in self._leafs)]
        number = {at: i for i, at in enumerate(order)}
        tape = Tape()
        for at in order:
            size, reads, over = self._nodes[at]
            tape.add(size, *(number[r] for r in reads), over=tuple(number[o] for o in over))
        return tape.peak()

    def new(self, width: int, rows: int, *reads: Value, element: int = 4) -> Value:
        """A node with a place of its own."""
        return Value(self._add(element * width * rows, *(v.at for v in reads)), width, rows)

    def over(self, first: Value, *others: Value) -> Value:
        """A node like `first`, computed in the place of the first of its parents that nobody else reads."""
        size = 4 * first.width * first.rows
        places = tuple(v.at for v in (first, *others) if v.own and v.width * v.rows == first.width * first.rows)
        return Value(self._add(size, *(v.at for v in (first, *others)), over=places), first.width, first.rows)

    def matmul(self, x: Value, out: int) -> Value:
        return self.new(out, x.rows, x)

    def norm(self, x: Value, rms: bool = False) -> Value:
        return self.over(x) if rms else self.new(x.width, x.rows, x)

    def copy(self, x: Value, width: int = 0, rows: int = 0) -> Value:
        """`ggml_cont` of a transposed or permuted view."""
        return self.new(width or x.width, rows or x.rows, x)

    def half(self, x: Value) -> Value:
        """A cast to 16 bits."""
        return self.new(x.width, x.rows, x, element=2)

    def turn(self, x: Value, *places: Value) -> Value:
        """What reads x and something of another shape, and is computed in x's place: rotary positions, a mask."""
        for place in places:
            at = self._add(4 * x.width * x.rows, x.at, place.at, over=(x.at,) if x.own else ())
            x = Value(at, x.width, x.rows)
        return x

    def pick(self, x: Value | None, index: Value, width: int = 0) -> Value:
        """`ggml_get_rows`, of a weight where x is None."""
        return self.new(x.width, index.width, x, index) if x else self.new(width, index.width, index)

    def feed(self, x: Value, up: int, out: int, *, gated: bool = False, clamped: bool = False) -> Value:
        """`build_ffn`: the gate is computed before what it gates; an activation takes the place of what it is of.

        `clamped`: what each projection is given is clamped first (`clip_graph_gemma4v::build_mm`).
        """
        gate = self.matmul(self.over(x) if clamped else x, up) if gated else None
        made = self.matmul(self.over(x) if clamped else x, up)
        acted = made if gate is None else self.new(up, x.rows, gate, made)
        return self.matmul(acted, out)

    def attend(self, q: Value, k: Value, v: Value, heads: int, mask: Mask | None = None) -> Value:
        """`build_attn` without the output matrix: with flash attention K, V and mask are cast to 16 bits."""
        if self.flash:
            k, v = self.half(k), self.half(v)
            return self.new(q.width, q.rows, q, k, v, *((mask.half(self),) if mask else ()))
        self.away(8 * q.width * q.rows + 2 * (k.width + v.width) * k.rows + (2 * mask.source.rows**2 if mask else 0))
        v = self.copy(v)
        scores = self.new(k.rows * heads, q.rows, k, q)
        if mask:
            scores = self.turn(scores, mask.source)
        return self.copy(self.new(q.width, q.rows, v, scores))

    def convolve(self, x: Value, out: int, inputs: int, rows: int) -> Value:
        """`ggml_conv_2d`: patches laid out in 16 bits, multiplied with the kernel of `inputs` numbers, and turned."""
        laid = self.new(inputs, rows, x, element=2)
        return self.copy(self.new(out, rows, laid))

    def merge(self, x: Value, factor: int, side: int) -> Value:
        """`build_patch_merge_permute`: `factor`² neighbouring patches of a square into one row; odd sides are padded first."""
        whole = -(-side // factor) * factor
        if whole != side:
            x = self.new(x.width, whole**2, x)
        width, rows = x.width * factor**2, x.rows // factor**2
        return self.copy(self.copy(x, width, rows), width, rows)
