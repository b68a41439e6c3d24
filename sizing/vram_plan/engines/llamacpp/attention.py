"""What a layer's attention computes in llama.cpp's graph, node by node, and what every part of the graph starts from.

Source: llama.cpp 0c1e57098, src/llama-graph.cpp (`build_attn`, `build_attn_mha`), src/models/*.cpp.
"""

from __future__ import annotations

from math import prod

from ...formats.cache_types import CACHE_TYPES
from ...models.architecture import Architecture, CacheLayer
from . import families
from .cells import Context, cache_layers
from .layers import Layer, global_shapes, rotation
from .placement import FIRST, HOST
from .schedule import Schedule
from .tape import Tape, padded

__all__ = ["Attention"]


def copied_bytes(elements: int, width: int, kind: str) -> int:
    """A part of a cache as copied to the GPU: CUDA pads the last row of a quantised one to 512 elements."""
    rest = -width % 512 if kind not in ("f32", "f16", "bf16") else 0
    return int(elements * CACHE_TYPES[kind]) + int(rest * CACHE_TYPES[kind])


class Attention:
    """Records the nodes of a batch of `context.tokens` tokens on a tape. Node sizes are in bytes, widths in elements."""

    def __init__(self, a: Architecture, context: Context, tape: Tape, host: bool = False) -> None:
        self.a, self.context, self.tape = a, context, tape
        self.tokens, self.host = context.tokens, host
        self.rows = self.tokens
        self.schedule = tape if isinstance(tape, Schedule) else None
        self.layer: Layer | None = None
        self.output_home, self.output_bytes, self.all_on_gpu = 0, 0, True
        owners = cache_layers(a)
        self.windowed = any(layer.window for layer in owners)
        self.widest_v = max((layer.kv_heads * layer.v_dim for layer in owners if layer.kind != "cross"), default=0)
        self.masks: dict[int, int] = {}
        self.places: dict[int, tuple[int, ...]] = {}
        self.rotations: dict[tuple[int, str], int] = {}
        self.cast: dict[int, int] = {}
        self.slots: tuple[int, ...] = ()
        self.positions: tuple[int, ...] = ()
        self.following: tuple[Layer, ...] = ()
        self.routed = False
        self.gathered = 0
        self.residual: tuple[int, int] | None = None
        self.waiting: tuple[CacheLayer, int] | None = None
        self.before = -1
        self.top: list[int] = []
        self.index_mask: tuple[int, ...] = ()
        self.mixed_inputs: tuple[int, ...] = ()
        self.picked = self.chosen = self.entered = self.hidden = self.trunk = self.best = -1
        self.first_value = self.per_layer = self.per_layer_made = -1
        self.global_shapes = global_shapes(a)

    def fp32(self, width: int, *reads: int, over: tuple[int, ...] = ()) -> int:
        """A node of `width` fp32 elements for each token."""
        return self.tape.add(4 * width * self.tokens, *reads, over=over)

    def weight(self, role: str, rows: int = 0) -> tuple[int, ...]:
        """The next node multiplies so many rows (all tokens) with this weight of the layer: it is computed where that is."""
        layer = self.layer
        if self.schedule is None or layer is None or not (role in layer.shapes or role in layer.visiting or role in FIRST):
            return ()
        home = layer.experts_home if "_exps" in role else layer.home
        if home == HOST:
            return self.schedule.weight(layer.visiting.get(role) or 4 * prod(layer.shapes[role]), rows or self.rows)
        self.schedule.pin(home)
        return ()

    def vector(self, node: int, *roles: str) -> int:
        """A norm's weights or a bias, if the layer has them, applied to a node in place: felt only where devices change."""
        if self.schedule is not None and self.layer is not None:
            for role in roles:
                if role in self.layer.shapes:
                    node = self.tape.add(self.schedule.size_of(node), node, *self.weight(role), over=(node,))
        return node

    def at_home(self, home: int | None = None) -> None:
        """The next node is computed where the layer's cache is, or there."""
        if self.schedule is not None:
            self.schedule.pin(home if home is not None else self.layer.home if self.layer else HOST)

    def view(self, node: int, size: int) -> int:
        return node if self.schedule is None else self.schedule.view(node, size)

    def given(self, size: int) -> int:
        """An input: where all is on one GPU it is there, else in host memory."""
        return self.tape.add(size) if self.schedule is None else self.schedule.given(size)

    def mask(self, layer: CacheLayer) -> int:
        """The mask of layers with this window, a row a token: fp16 with flash attention (older builds cast it), else fp32."""
        if layer.window not in self.masks:
            self.masks[layer.window] = self.given((2 if self.context.flash else 4) * self.tokens * self.context.ring(layer.window))
        if self.context.mask_cast and self.context.flash and layer.window not in self.cast:
            size = 2 * self.tokens * self.context.ring(layer.window)
            self.masks[layer.window] = self.cast[layer.window] = self.tape.add(size, self.masks[layer.window])
        return self.masks[layer.window]

    def turns_of(self, cache: CacheLayer) -> tuple[int, int]:
        """Rows of the matrices K and V are turned by; V always by 64 (`build_input_v_rot`)."""
        c = self.context
        if not c.rotates:
            return 0, 0
        return rotation(cache.k_dim, c.kv_k), min(rotation(cache.v_dim, c.kv_v), 64)

    def rotated(self, width: int, x: int, cache: CacheLayer, name: str) -> int:
        """Queries, K ("k") and V ("v") are turned by a Hadamard matrix before they meet a quantised cache."""
        matrix = self.rotations.get((cache.window, name))
        return x if matrix is None else self.fp32(width, matrix, x)

    def cached(self, cache: CacheLayer, *kept: int) -> None:
        """Copies into the cache."""
        if cache.window not in self.places:
            self.tape.read(*kept)
        for node, place in zip(kept, self.places.get(cache.window, ()), strict=False):
            self.at_home()
            self.tape.read(node, place, *(self.positions if self.layer is None or self.layer.turned else ()))

    def attention(self, layer: Layer, cache: CacheLayer, x: int) -> int:
        heads, out = cache.heads or self.a.heads, layer.columns("attn_output") or self.a.hidden_size
        q_width = heads * cache.k_dim
        made, fused = layer.rows("attn_q", "attn_qkv") or q_width, "attn_qkv" in layer.shapes
        q = self.fp32(made, x, *self.weight("attn_q"), *self.weight("attn_qkv"))
        q = self.vector(q, "attn_q.bias", "attn_qkv.bias")
        k_turn = self.turns_of(cache)[0]
        gated, turned = not fused and made >= 2 * q_width, layer.turned or "attn_q_norm" in layer.shapes
        anew = turned or gated or (fused and k_turn) or self.a.family in families.SCALES_UNTURNED
        whole, q = q, (self.fp32(q_width, q) if anew else q)
        if self.a.family in families.TURNS_FIRST:
            self.tape.read(q, *self.positions)
        q = self.vector(q, "attn_q_norm") if q != whole else q
        self.tape.read(q, *(self.positions if layer.turned else ()))
        q = self.rotated(q_width, q, cache, "k")
        if cache.kind != "shared":
            k, v = self.keys_and_values(layer, cache, whole if fused else x, turned)
            self.cached(cache, k, v)
        self.pick_residual()
        mixed = self.attend(q, cache, heads, cache.k_dim, cache.v_dim)
        if not self.routed:
            self.look_ahead()
        if layer.is_parallel or layer.is_double:
            return mixed
        mixed = self.rotated(out, mixed, cache, "v")
        if gated or "attn_gate" in layer.shapes:
            gate = self.fp32(out, whole if gated else x, *self.weight("attn_gate"))
            mixed = self.fp32(out, mixed, gate, over=(gate,))
        mixed = self.fp32(self.a.hidden_size, mixed, *self.weight("attn_output"))
        return self.vector(mixed, "attn_output.bias")

    def projected(self, cache: CacheLayer, mixed: int) -> int:
        """What is left of attention beside a parallel feed-forward: it is not asked for before that is added."""
        width = (cache.heads or self.a.heads) * cache.v_dim
        return self.fp32(self.a.hidden_size, self.rotated(width, mixed, cache, "v"), *self.weight("attn_output"))

    def look_ahead(self) -> None:
        """What the next layers ask for before anything else; recurrent ones do."""

    def project_waiting(self) -> None:
        """Falcon-H1: what attention gave is projected once the states are copied out."""
        if self.waiting:
            self.before, self.waiting = self.projected(*self.waiting), None

    def pick_residual(self) -> None:
        """The last layer's rows of the residual, where it is the sum's first part: picked before the mixer's result is made."""
        if self.residual:
            hidden, rows = self.residual
            self.residual = None
            self.picked = self.tape.add(4 * self.a.hidden_size * rows, hidden, self.chosen)

    def keys_and_values(self, layer: Layer, cache: CacheLayer, x: int, turned: bool) -> tuple[int, int]:
        """K and V as they are cached, from the layer's input or a fused projection; with windows K is made first."""
        widths = {"k": cache.kv_heads * cache.k_dim, "v": cache.kv_heads * cache.v_dim}
        sizes = dict(zip(("k", "v"), self.turns_of(cache), strict=True))
        made: dict[str, int] = {}
        for name in ("k", "v") if self.windowed else ("v", "k"):
            fused = "attn_qkv" in layer.shapes
            if fused:
                node = self.view(x, 4 * ((self.tokens - 1) * layer.rows("attn_qkv") + widths[name]))
            else:
                node = self.fp32(widths[name], x, *self.weight(f"attn_{name}"))
            node = self.vector(node, f"attn_{name}.bias")
            if (name == "k" and turned) or (fused and sizes[name]):
                node = self.vector(self.fp32(widths[name], node), f"attn_{name}_norm")
            if name == "v" and self.a.family in families.NORMS_V:
                node = self.fp32(widths[name], node)
            made[name] = self.rotated(widths[name], node, cache, name)
        return made["k"], made["v"]

    def attend(self, q: int, cache: CacheLayer, heads: int, k_dim: int, v_dim: int, mask: int = -1) -> int:
        """Scores and their sum over V. CUDA's flash attention keeps an fp16 copy of K and V of any other type behind
        its result (ggml-cuda/fattn.cu, `ggml_cuda_flash_attn_ext_get_alloc_size`)."""
        c, result = self.context, 4 * self.tokens * heads * v_dim
        cells, read = c.ring(cache.window), self.copied_in(cache)
        mask = self.mask(cache) if mask < 0 else mask
        if c.flash:
            same = cache.latent_rank and not read  # a latent is V too, but copied in it is twice there
            k_copy, v_copy = (2 * cells * c.streams * cache.kv_heads * width for width in (k_dim, 0 if same else v_dim))
            for size, kind in ((k_copy, c.kv_k), (v_copy, c.kv_v)):
                result = padded(result) + size if kind != "f16" and c.fp16_copies else result
            node = self.tape.add(result, q, *read, mask)
            return node if self.schedule is None else self.schedule.without(node, 4 * self.tokens * heads * v_dim)
        turned = self.tape.add(2 * cells * c.streams * v_dim) if cache.latent_rank else None
        scores = self.tape.add(4 * self.tokens * heads * cells, q, *read[:1], mask)
        values = self.tape.add(result, *([scores] if turned is None else [turned, scores]), *read[1:])
        return values if cache.latent_rank else self.tape.add(result, values)

    def copied_in(self, cache: CacheLayer) -> tuple[int, ...]:
        """K and V of a cache elsewhere, all cells of them, copied in to be read; of a latent both are it."""
        layer = self.layer
        if self.schedule is None or layer is None or layer.cache_home == layer.home != HOST:
            return ()
        c, cells = self.context, self.context.ring(cache.window) * self.context.streams
        rope = cache.k_dim - cache.latent_rank
        of_v = cells * cache.k_dim - rope if cache.latent_rank else cells * cache.kv_heads * cache.v_dim
        both = (cells * cache.kv_heads * cache.k_dim, cache.k_dim, c.kv_k), (of_v, cache.v_dim, c.kv_v)
        return tuple(self.schedule.cache(copied_bytes(count, width, kind), layer.cache_home) for count, width, kind in both)

    def latent(self, layer: Layer, cache: CacheLayer, x: int) -> int:
        """MLA with the up-projection of K absorbed into the query: every head reads the latent itself."""
        heads, rank, rope = cache.heads or self.a.heads, cache.latent_rank, cache.k_dim - cache.latent_rank
        q, indexed = x, "indexer.attn_k" in layer.shapes
        shared = not indexed and self.best >= 0
        if indexed:
            self.index_keys(layer, x)
        if "attn_q_a" in layer.shapes:
            q = self.fp32(layer.rows("attn_q_a"), x, *self.weight("attn_q_a"))
            q = self.vector(q, "attn_q_a_norm")
        low_rank, q = q, self.fp32(layer.rows("attn_q_b", "attn_q"), q, *self.weight("attn_q_b"), *self.weight("attn_q"))
        absorbed = self.fp32(heads * rank, q, *self.weight("attn_k_b"))
        turned = self.fp32(heads * rope, q, *self.positions) if layer.turned else q
        q = self.fp32(heads * cache.k_dim, absorbed, turned)
        both = self.fp32(cache.k_dim, x, *self.weight("attn_kv_a_mqa"))
        latent = self.vector(self.fp32(rank, both), "attn_kv_a_norm")
        k_rope = self.fp32(rope, both) if layer.turned else both
        self.cached(cache, self.fp32(cache.k_dim, latent, k_rope))
        mixed = self.attend(q, cache, heads, cache.k_dim, rank, self.best_only(layer, cache, x, low_rank) if indexed or shared else -1)
        out = layer.columns("attn_output")
        mixed = self.fp32(out, self.fp32(out, mixed, *self.weight("attn_v_b")))
        return self.fp32(self.a.hidden_size, mixed, *self.weight("attn_output"))

    def index_keys(self, layer: Layer, x: int) -> None:
        """The key a token is found by in the index: projected, normed, turned twice, and cached."""
        width = layer.rows("indexer.attn_k")
        node = x
        for _ in range(4):
            node = self.fp32(width, node, *(self.weight("indexer.attn_k") if node == x else ()))
        self.at_home()
        self.tape.read(node)

    def copied_index(self, width: int) -> tuple[int, ...]:
        """The keys of an index in host memory, copied in to be read."""
        if self.schedule is None or self.layer is None or self.layer.cache_home != HOST:
            return ()
        return (self.schedule.cache(copied_bytes(self.context.length * width, width, self.context.kv_k), HOST),)

    def best_only(self, layer: Layer, cache: CacheLayer, x: int, low_rank: int) -> int:
        """The mask that leaves only the tokens the index scores best: zeros for those, added to the causal mask."""
        mask = self.mask(cache)
        if "indexer.attn_k" in layer.shapes:  # others take what the last one found (GLM-5.2)
            width, best = layer.rows("indexer.attn_q_b"), min(families.INDEX_BEST, self.context.length)
            q = self.fp32(width, self.fp32(width, self.fp32(width, low_rank, *self.weight("indexer.attn_q_b"))))
            weights = self.fp32(layer.rows("indexer.proj"), self.fp32(layer.rows("indexer.proj"), x, *self.weight("indexer.proj")))
            keys = self.copied_index(width // layer.rows("indexer.proj"))
            scores = self.fp32(self.context.length, q, weights, *keys, *self.index_mask)
            self.best = self.fp32(best, self.fp32(best, scores))
        element = 2 if self.context.flash else 4
        size = element * self.tokens * self.context.length
        hidden = self.tape.add(size, mask)
        self.tape.read(self.best, *self.top[:1])
        del self.top[:1]
        return self.tape.add(size, hidden, mask, over=(mask,))
