"""A decoder in torch with random weights: what a calibration runs. It computes what a real one does, of numbers that mean nothing.

One step has no Python between kernels that depends on a value, so that a GPU can record it as a graph: the token's place is a
number fixed when it is recorded, and attention reads exactly the cache up to there. Activations are SiLU, positions
are rotary over the whole head and residuals plain, whichever family: their cost is that of the family's own.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .kernels import Linear, WeightKind, fill, linear_of, load_torch
from .layout import Block, Layer, Layout, Matrix, Norm

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

__all__ = ["Decoder", "activation_bytes"]

_EPS = 1e-6
_ROPE_BASE = 10_000.0


class _Norm(NamedTuple):
    weight: Tensor
    bias: Tensor | None


class _Block(NamedTuple):
    up: Linear
    down: Linear
    gated: bool


class _Layer(NamedTuple):
    """One layer's weights and cache: `k` and `v` are (sequences, KV heads, places, head size)."""

    of: Layer
    norms: dict[str, _Norm]
    qkv: Linear
    out: Linear
    dense: _Block | None
    router: Linear | None
    correction: Tensor | None
    routed: tuple[_Block, ...]
    stacks: tuple[Tensor, Tensor] | None
    shared: _Block | None
    shared_gate: Linear | None
    k: Tensor
    v: Tensor
    #: All the layer's weights, and of them the routed experts'.
    bytes: int
    routed_bytes: int


class Decoder:
    """A decoder of `layout` with room for `capacity` tokens of each of `sequences`.

    `weights` other than "plain" pack the layers' matrices; embedding, head, router and norms stay in `dtype`. `grouped`: a mixture's
    experts in one grouped product, which a graph can record; else one product an expert.
    """

    def __init__(
        self, layout: Layout, dtype: dtype, place: device, *, capacity: int, sequences: int = 1, weights: WeightKind = "plain",
        grouped: bool = False,
    ) -> None:  # fmt: skip
        self.torch = load_torch()
        self.layout, self.dtype, self.place, self.capacity, self.sequences = layout, dtype, place, capacity, sequences
        self.weights: WeightKind = weights
        self.grouped = grouped and weights == "plain"
        self.parameters = self.weight_bytes = 0
        self.embedding = self._count(fill(self.torch.empty(layout.vocab, layout.hidden, dtype=dtype, device=place)))
        self.head = self._linear(layout.head) if layout.head else None
        self.norm = self._norm(layout.norm) if layout.norm else None
        self.end_bytes = self.weight_bytes - (self.embedding.nbytes if self.head else 0)
        self.layers = [self._layer(layer) for layer in layout.layers]
        self.tokens = self.torch.zeros(sequences, dtype=self.torch.long, device=place)
        self._ropes = {dim: self._rope_tables(dim) for dim in {layer.head_dim for layer in layout.layers}}

    # --- building ---

    def _count(self, tensor: Tensor) -> Tensor:
        self.parameters += tensor.numel()
        self.weight_bytes += tensor.nbytes
        return tensor

    def _linear(self, matrix: Matrix, weights: WeightKind | None = None) -> Linear:
        made = linear_of(matrix, weights or self.weights, self.dtype, self.place)
        self.parameters += made.parameters
        self.weight_bytes += made.nbytes
        return made

    def _norm(self, norm: Norm) -> _Norm:
        def make() -> Tensor:
            return self._count(fill(self.torch.empty(norm.width, dtype=self.dtype, device=self.place)).add_(1.0))

        return _Norm(make(), make() if norm.bias else None)

    def _block(self, block: Block) -> _Block:
        return _Block(self._linear(block.up), self._linear(block.down), block.gated)

    def _experts(self, block: Block) -> tuple[tuple[_Block, ...], tuple[Tensor, Tensor] | None]:
        """Experts one by one, or as two stacks for a grouped product."""
        up, down = (Matrix(m.rows, m.columns) for m in (block.up, block.down))
        if not self.grouped:
            return tuple(self._block(Block(up, down, block.gated)) for _ in range(block.up.experts)), None
        stacks = [
            self._count(fill(self.torch.empty(block.up.experts, m.rows, m.columns, dtype=self.dtype, device=self.place)))
            for m in (up, down)
        ]
        return (), (stacks[0], stacks[1])

    def _layer(self, layer: Layer) -> _Layer:
        before = self.weight_bytes
        named = {name: norm for name in _NORMS if (norm := getattr(layer, name))}
        routed, stacks = self._experts(layer.routed) if layer.routed else ((), None)
        routed_bytes = self.weight_bytes - before
        router = self._linear(layer.router, "plain") if layer.router else None
        k, v = self._cache(layer)
        made = _Layer(
            layer, {name: self._norm(norm) for name, norm in named.items()}, self._linear(layer.qkv), self._linear(layer.out),
            self._block(layer.dense) if layer.dense else None, router, self._correction(layer), routed, stacks,
            self._block(layer.shared) if layer.shared else None,
            self._linear(layer.shared_gate, "plain") if layer.shared_gate else None, k, v, 0, routed_bytes,
        )  # fmt: skip
        return made._replace(bytes=self.weight_bytes - before)

    def _correction(self, layer: Layer) -> Tensor | None:
        """The numbers added to the router's scores when experts are chosen (DeepSeek-V3's balance)."""
        if not layer.router or not layer.correction:
            return None
        return self._count(fill(self.torch.empty(layer.router.rows, dtype=self.dtype, device=self.place)))

    def _cache(self, layer: Layer) -> tuple[Tensor, Tensor]:
        places = (self.sequences, layer.kv_heads, layer.cache_tokens(self.capacity), layer.head_dim)
        k, v = (fill(self.torch.empty(places, dtype=self.dtype, device=self.place)) for _ in "kv")
        return k, v

    def for_sequences(self, count: int, capacity: int) -> Decoder:
        """The same weights with a cache for `count` sequences of `capacity` tokens, no more than it has room for now."""
        other = copy(self)
        other.sequences, other.capacity = count, min(capacity, self.capacity)
        other.tokens = self.torch.zeros(count, dtype=self.torch.long, device=self.place)
        other.layers = [layer._replace(k=k, v=v) for layer in self.layers for k, v in [other._cache(layer.of)]]
        return other

    def _rope_tables(self, head_dim: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of every place, (capacity, head size)."""
        torch = self.torch
        steps = torch.arange(0, head_dim, 2, device=self.place, dtype=torch.float32) / head_dim
        angles = torch.arange(self.capacity, device=self.place, dtype=torch.float32)[:, None] * _ROPE_BASE**-steps
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), -1).to(self.dtype), torch.cat((-sin, sin), -1).to(self.dtype)

    @property
    def kv_bytes(self) -> int:
        """What the cache takes, all sequences."""
        return sum(layer.k.nbytes + layer.v.nbytes for layer in self.layers)

    @property
    def table_bytes(self) -> int:
        """The rotary tables."""
        return sum(table.nbytes for pair in self._ropes.values() for table in pair)

    def read_bytes(self, layers: int | None = None) -> int:
        """Weight bytes one token needs: of routed experts the chosen ones, of the embedding one row unless it is the head."""
        used = self.layers[:layers]
        resting = sum(x.routed_bytes - x.routed_bytes * x.of.chosen // x.of.routed.up.experts for x in used if x.of.routed)
        return self.end_bytes + sum(x.bytes for x in used) - resting

    def expert_bytes(self, tokens: int) -> int:
        """Bytes of the routed experts a prompt's tokens choose, each on its own: 1 − (1 − k/E)^tokens of them."""
        return int(sum(x.routed_bytes * (1 - (1 - x.of.chosen / x.of.routed.up.experts) ** tokens) for x in self.layers if x.of.routed))

    @property
    def recordable(self) -> bool:
        """Whether no step asks the device for a value (experts one by one do): a graph can only record such steps."""
        return not any(layer.routed for layer in self.layers)

    def kv_read_bytes(self, depth: int, layers: int | None = None) -> int:
        """Cache bytes a step attends to, all sequences."""
        elements = sum(x.of.cache_tokens(depth) * x.of.cache_elements for x in self.layers[:layers])
        return elements * self.sequences * self.dtype.itemsize

    # --- running ---

    def step(self, depth: int, layers: int | None = None) -> Tensor:
        """One more token of each sequence, the `depth`-th, attending to all `depth`: the logits, (sequences, vocabulary).

        Each sequence's likeliest next token becomes `tokens`. `layers`: only the first so many.
        """
        logits = self._forward(self.tokens, depth - 1, layers)
        self.tokens.copy_(logits.argmax(-1))
        return logits

    def prefill(self, tokens: Tensor, layers: int | None = None) -> Tensor:
        """A prompt of one sequence from the start: the logits after its last token, (1, vocabulary)."""
        return self._forward(tokens, 0, layers)

    def _forward(self, tokens: Tensor, first: int, layers: int | None) -> Tensor:
        """`tokens` are one of each sequence (a step), or several of one (a prompt)."""
        x: Tensor = self.torch.nn.functional.embedding(tokens, self.embedding)
        for layer in self.layers[:layers]:
            x = self._run(layer, x, first)
        x = x[-1:] if self.sequences == 1 else x
        x = self._normed(self.norm, x)
        logits: Tensor = self.head(x) if self.head else self.torch.nn.functional.linear(x, self.embedding)
        return logits

    def _normed(self, norm: _Norm | None, x: Tensor) -> Tensor:
        if norm is None:
            return x
        f = self.torch.nn.functional
        shape = norm.weight.shape
        if norm.bias is not None:
            result: Tensor = f.layer_norm(x, shape, norm.weight, norm.bias)
        else:
            result = f.rms_norm(x, shape, norm.weight, _EPS)
        return result

    def _run(self, layer: _Layer, x: Tensor, first: int) -> Tensor:
        norms = layer.norms
        h = self._normed(norms.get("before_attention"), x)
        attended = self._normed(norms.get("after_attention"), self._attention(layer, h, first))
        if layer.of.parallel:
            return x + attended + self._feed(layer, h)
        x = x + attended
        fed = self._feed(layer, self._normed(norms.get("before_ffn"), x))
        return x + self._normed(norms.get("after_ffn"), fed)

    # --- attention ---

    def _attention(self, layer: _Layer, h: Tensor, first: int) -> Tensor:
        of = layer.of
        rows, q_width, kv_width = h.shape[0], of.heads * of.head_dim, of.kv_heads * of.head_dim
        q, k, v = layer.qkv(h).split_with_sizes((q_width, kv_width, kv_width), -1)
        q, k = self._head_normed(layer, "q_norm", q), self._head_normed(layer, "k_norm", k)
        q, k, v = q.view(rows, of.heads, -1), k.view(rows, of.kv_heads, -1), v.view(rows, of.kv_heads, -1)
        one = self.sequences > 1 or rows == 1
        at = slice(first, first + (1 if one else rows))
        cos, sin = (table[at, None] for table in self._ropes[of.head_dim])
        q, k = self._rotated(q, cos, sin), self._rotated(k, cos, sin)
        mixed = self._attend_one(layer, q, k, v, first + 1) if one else self._attend_prompt(layer, q, k, v)
        return layer.out(mixed.reshape(rows, q_width))

    def _head_normed(self, layer: _Layer, name: str, x: Tensor) -> Tensor:
        """Per head where the norm is as wide as a head, else over the whole width."""
        norm = layer.norms.get(name)
        return x if norm is None else self._normed(norm, x.reshape(x.shape[0], -1, norm.weight.numel())).reshape(x.shape)

    def _rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Half of a head turned against the other: x·cos + (second half, first half)·(−sin, sin)."""
        result: Tensor = self.torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
        return result

    def _attend_one(self, layer: _Layer, q: Tensor, k: Tensor, v: Tensor, depth: int) -> Tensor:
        """One token of each sequence. The heads that share K and V become rows of one query: far faster than repeating K and V."""
        of, places = layer.of, layer.k.shape[2]
        at = (depth - 1) % places
        layer.k[:, :, at], layer.v[:, :, at] = k, v
        held = min(depth, places)
        q = q.view(q.shape[0], of.kv_heads, of.heads // of.kv_heads, of.head_dim)
        result: Tensor = self.torch.nn.functional.scaled_dot_product_attention(q, layer.k[:, :, :held], layer.v[:, :, :held])
        return result

    def _attend_prompt(self, layer: _Layer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A prompt attends to itself, then fills the cache; a window's ring keeps its last tokens, each in its own place."""
        of, torch, tokens = layer.of, self.torch, q.shape[0]
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        held = min(tokens, layer.k.shape[2])
        place = torch.arange(tokens - held, tokens, device=self.place) % layer.k.shape[2]
        layer.k[:, :, place], layer.v[:, :, place] = k[:, :, -held:], v[:, :, -held:]
        mask = None
        if of.window and tokens > of.window:
            behind = torch.arange(tokens, device=self.place)
            behind = behind[:, None] - behind[None, :]
            mask = (behind >= 0) & (behind < of.window)
        grouped = of.heads != of.kv_heads
        result: Tensor = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )
        return result[0].transpose(0, 1)

    # --- feed-forward ---

    def _feed(self, layer: _Layer, h: Tensor) -> Tensor:
        if layer.dense is not None:
            return self._block_out(layer.dense, h)
        result = self._mixture(layer, h)
        if layer.shared is not None:
            beside = self._block_out(layer.shared, h)
            result = result + (beside * layer.shared_gate(h).sigmoid() if layer.shared_gate else beside)
        return result

    def _block_out(self, block: _Block, h: Tensor) -> Tensor:
        return block.down(self._activated(block.up(h), block.gated))

    def _activated(self, made: Tensor, gated: bool) -> Tensor:
        silu: Callable[..., Tensor] = self.torch.nn.functional.silu
        if not gated:
            return silu(made, inplace=True)
        gate, up = made.chunk(2, -1)
        return silu(gate).mul_(up)

    def _mixture(self, layer: _Layer, h: Tensor) -> Tensor:
        """Each token's chosen experts, weighted by the router."""
        router: Any = layer.router
        scores: Tensor = router(h).softmax(-1)
        chosen = scores if layer.correction is None else scores + layer.correction
        ids = chosen.topk(layer.of.chosen, -1).indices
        shares = scores.gather(-1, ids)
        shares = shares / shares.sum(-1, keepdim=True)
        return self._grouped(layer, h, ids, shares) if layer.stacks else self._one_by_one(layer, h, ids, shares)

    def _one_by_one(self, layer: _Layer, h: Tensor, ids: Tensor, shares: Tensor) -> Tensor:
        result: Tensor = self.torch.zeros_like(h)
        for expert in sorted(set(ids.flatten().tolist())):
            rows, slots = (ids == expert).nonzero(as_tuple=True)
            made = self._block_out(layer.routed[expert], h[rows])
            result.index_add_(0, rows, made * shares[rows, slots, None])
        return result

    def _grouped(self, layer: _Layer, h: Tensor, ids: Tensor, shares: Tensor) -> Tensor:
        """All chosen experts in two grouped products over rows sorted by expert; no value leaves the device."""
        stacks, routed = cast("tuple[Tensor, Tensor]", layer.stacks), cast("Block", layer.of.routed)
        torch, (up, down) = self.torch, stacks
        order = ids.flatten().argsort()
        rows = order // ids.shape[-1]
        counts = (ids.flatten()[:, None] == torch.arange(up.shape[0], device=self.place)).sum(0)
        ends = counts.cumsum(0).to(torch.int32)
        made = torch._grouped_mm(h[rows], up.transpose(-2, -1), offs=ends)
        made = torch._grouped_mm(self._activated(made, routed.gated), down.transpose(-2, -1), offs=ends)
        weighted = made * shares.flatten()[order, None]
        result: Tensor = torch.zeros_like(h)
        return result.index_add_(0, rows, weighted)


_NORMS = ("q_norm", "k_norm", "before_attention", "after_attention", "before_ffn", "after_ffn")


def activation_bytes(layout: Layout, tokens: int, element_bytes: int) -> int:
    """The most a prompt of `tokens` holds at once beside weights and cache, by the widest layer: what `_run` keeps alive.

    In the block: the residual, its norm's output, gate and up, their product. In attention: residual, norm's output, Q K V, the
    rotated Q and K, what attention gives, and that in rows. Ignored: scratch space of the kernels, the last token's logits.
    """
    most = 0
    for layer in layout.layers:
        block = layer.dense or layer.shared or layer.routed
        width = block.down.columns if block else 0
        fed = 2 * layout.hidden + (3 if block and block.gated else 1) * width
        q, kv = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
        most = max(most, fed, 2 * layout.hidden + (q + 2 * kv) + 3 * q + kv)
    return most * tokens * element_bytes
