"""The graph llama.cpp computes for one batch, recorded layer by layer with the sizes of its nodes.

Nodes a buffer of this size would not feel (a few bytes a token) are left out, unless a hole of theirs is felt. Source:
llama.cpp 0c1e57098, src/llama-graph.cpp (`build_attn`, `build_attn_mha`, `build_ffn`, `build_moe_ffn`), src/models/*.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..models.architecture import Architecture, CacheLayer
from .llamacpp_cells import Context, cache_layers
from .llamacpp_layers import RESIDUAL_FIRST, RESIDUAL_FIRST_AFTER, ROWS_AFTER_NORM, ROWS_BEFORE_NORM, Layer, is_rotary, rotation
from .llamacpp_tape import Tape, padded

__all__ = ["Recorder"]


class Recorder:
    """Records the nodes of a batch of `context.tokens` tokens on a tape. Node sizes are in bytes, widths in elements."""

    def __init__(
        self, a: Architecture, context: Context, tape: Tape, copies: int = 1, visiting: Mapping[str, int] | None = None, host: bool = False
    ) -> None:
        self.a, self.context, self.tape = a, context, tape
        self.tokens, self.copies, self.visiting, self.host = context.tokens, copies, visiting or {}, host
        self.windowed = any(layer.window for layer in cache_layers(a))
        self.turned = is_rotary(a)
        self.masks: dict[int, int] = {}
        self.places: dict[int, tuple[int, ...]] = {}
        self.rotations: dict[tuple[int, int], int] = {}
        self.cast: dict[int, int] = {}
        self.slots: tuple[int, ...] = ()
        self.positions: tuple[int, ...] = ()
        self.following: tuple[Layer, ...] = ()
        self.routed = False
        self.gathered = 0

    def fp32(self, width: int, *reads: int, over: tuple[int, ...] = ()) -> int:
        """A node of `width` fp32 elements for each token."""
        return self.tape.add(4 * width * self.tokens, *reads, over=over)

    def mixed(self, layer: Layer, x: int) -> int:
        """What a layer's token mixer makes of its normed input."""
        cache = layer.cache
        if cache is None:
            return self.recurrent(layer, x)
        found = self.latent(layer, cache, x) if cache.latent_rank else self.attention(layer, cache, x)
        return self.add(self.recurrent(layer, x), found) if "ssm_in" in layer.shapes else found

    def add(self, a: int, b: int) -> int:
        return self.fp32(self.a.hidden_size, a, b, over=(a, b))

    def norm(self, layer: Layer | None, x: int, role: str = "attn_norm") -> int:
        """A norm of the hidden state: RMS norms may be computed in place, layer norms (those with a bias) not."""
        in_place = layer is None or f"{role}.bias" not in layer.shapes
        return self.fp32(self.a.hidden_size, x, over=(x,) if in_place else ())

    def inputs(self, layers: tuple[Layer, ...], *, first: bool, last: bool) -> int:
        """The batch as copied to the device; the embedded tokens come first, then indices and masks as layers ask for them."""
        c, embedded = self.context, -1
        if self.host:  # nothing is copied: the graph starts with the tokens, and with room for embeddings given instead
            embedded, _ = self.given(4 * self.tokens), self.given(4 * self.a.hidden_size * self.tokens)
        if not first:  # the last sum of the layer before is made here
            row = 4 * self.a.hidden_size * self.tokens
            parts = self.given(row), self.given(row)
            embedded = self.tape.add(row, *parts, over=parts)
        for layer in layers:
            cache = layer.cache
            if embedded < 0 and not layer.gathers_first:
                embedded = self.given(4 * self.a.hidden_size * self.tokens)
            if layer.state is not None and not self.slots:
                self.slots = self.given(4 * c.parallel), self.given(0)
            if embedded < 0:
                embedded = self.given(4 * self.a.hidden_size * self.tokens)
            if cache is not None and cache.window not in self.masks:
                if self.turned and not self.positions:
                    self.positions = (self.given(4 * self.tokens),)
                for size in (self.turn_of(cache.k_dim, c.kv_k), self.turn_of(cache.v_dim and 64, c.kv_v)):
                    if size and (cache.window, size) not in self.rotations and cache.v_dim:
                        self.rotations[cache.window, size] = self.given(4 * size * size)
                v_places = 8 * self.tokens * (1 if c.flash else cache.kv_heads * cache.v_dim)
                self.places[cache.window] = tuple(self.given(size) for size in (8 * self.tokens, v_places if cache.v_dim else 0) if size)
                element = 4 if c.mask_cast or not c.flash else 2
                self.masks[cache.window] = self.given(element * self.tokens * c.ring(cache.window))
        self.chosen = self.given(4 * c.outputs) if last else -1
        return self.fp32(self.a.hidden_size, embedded) if self.host else embedded

    def weight(self, role: str) -> tuple[int, ...]:
        """A weight that is copied in from host memory for the one node that reads it."""
        size = self.visiting.get(role)
        return (self.tape.add(size),) if size else ()

    def given(self, size: int) -> int:
        """An input; of those of a pipeline's batches in flight, each copy stays."""
        nodes = [self.tape.add(size) for _ in range(self.copies)]
        for node in nodes if self.copies > 1 else ():
            self.tape.keep(node)
        return nodes[0]

    def mask(self, layer: CacheLayer) -> int:
        """The mask of layers with this window, a row a token: fp16 with flash attention (older builds cast it), else fp32."""
        if self.context.mask_cast and self.context.flash and layer.window not in self.cast:
            size = 2 * self.tokens * self.context.ring(layer.window)
            self.masks[layer.window] = self.cast[layer.window] = self.tape.add(size, self.masks[layer.window])
        return self.masks[layer.window]

    def turn_of(self, width: int, kind: str) -> int:
        return rotation(width, kind) if self.context.rotates else 0

    def rotated(self, width: int, x: int, window: int, size: int) -> int:
        """Queries, K and V are turned by a Hadamard matrix before they meet a quantised cache."""
        return self.fp32(width, self.rotations[window, size], x) if (window, size) in self.rotations else x

    def cached(self, cache: CacheLayer, *kept: int) -> None:
        """Copies into the cache."""
        for node, place in zip(kept, self.places[cache.window], strict=False):
            self.tape.read(node, place, *self.positions)

    def attention(self, layer: Layer, cache: CacheLayer, x: int) -> int:
        heads, out = cache.heads or self.a.heads, layer.columns("attn_output") or self.a.hidden_size
        q_width = heads * cache.k_dim
        made, fused = layer.rows("attn_q", "attn_qkv") or q_width, "attn_qkv" in layer.shapes
        q = self.fp32(made, x, *self.weight("attn_q"), *self.weight("attn_qkv"))
        k_turn, v_turn = self.turn_of(cache.k_dim, self.context.kv_k), self.turn_of(cache.v_dim and 64, self.context.kv_v)
        gated, turned = not fused and made >= 2 * q_width, self.turned or "attn_q_norm" in layer.shapes
        whole, q = q, (self.fp32(q_width, q) if turned or gated else q)
        q = self.rotated(q_width, q, cache.window, k_turn)
        if cache.kind != "shared":
            k, v = self.keys_and_values(layer, cache, whole if fused else x, turned)
            self.cached(cache, k, v)
        mixed = self.attend(q, cache, heads, cache.k_dim, cache.v_dim)
        if not self.routed:
            self.look_ahead()
        if layer.is_parallel:
            return mixed
        mixed = self.rotated(out, mixed, cache.window, v_turn)
        if gated or "attn_gate" in layer.shapes:
            gate = self.fp32(out, whole if gated else x)
            mixed = self.fp32(out, mixed, gate, over=(gate,))
        return self.fp32(self.a.hidden_size, mixed, *self.weight("attn_output"))

    def projected(self, cache: CacheLayer, mixed: int) -> int:
        """What is left of attention beside a parallel feed-forward: it is not asked for before that is added."""
        turn = self.turn_of(cache.v_dim and 64, self.context.kv_v)
        width = (cache.heads or self.a.heads) * cache.v_dim
        return self.fp32(self.a.hidden_size, self.rotated(width, mixed, cache.window, turn))

    def keys_and_values(self, layer: Layer, cache: CacheLayer, x: int, turned: bool) -> tuple[int, int]:
        """K and V as they are cached, from the layer's input or a fused projection; with windows K is made first."""
        widths = {"k": cache.kv_heads * cache.k_dim, "v": cache.kv_heads * cache.v_dim}
        sizes = {"k": self.turn_of(cache.k_dim, self.context.kv_k), "v": self.turn_of(cache.v_dim and 64, self.context.kv_v)}
        made: dict[str, int] = {}
        for name in ("k", "v") if self.windowed else ("v", "k"):
            fused = "attn_qkv" in layer.shapes
            node = x if fused else self.fp32(widths[name], x, *self.weight(f"attn_{name}"))
            if (name == "k" and turned) or (fused and sizes[name]):
                node = self.fp32(widths[name], node)
            made[name] = self.rotated(widths[name], node, cache.window, sizes[name])
        return made["k"], made["v"]

    def attend(self, q: int, cache: CacheLayer, heads: int, k_dim: int, v_dim: int) -> int:
        """Scores and their sum over V. CUDA's flash attention keeps an fp16 copy of K and V of any other type behind
        its result (ggml-cuda/fattn.cu, `ggml_cuda_flash_attn_ext_get_alloc_size`)."""
        c, result = self.context, 4 * self.tokens * heads * v_dim
        cells = c.ring(cache.window)
        if c.flash:
            k_copy, v_copy = (2 * cells * c.streams * cache.kv_heads * width for width in (k_dim, 0 if cache.latent_rank else v_dim))
            for size, kind in ((k_copy, c.kv_k), (v_copy, c.kv_v)):
                result = padded(result) + size if kind != "f16" and c.fp16_copies else result
            return self.tape.add(result, q, self.mask(cache))
        turned = self.tape.add(2 * cells * c.streams * v_dim) if cache.latent_rank else None
        scores = self.tape.add(4 * self.tokens * heads * cells, q, self.mask(cache))
        values = self.tape.add(result, *([scores] if turned is None else [turned, scores]))
        return values if cache.latent_rank else self.tape.add(result, values)

    def latent(self, layer: Layer, cache: CacheLayer, x: int) -> int:
        """MLA with the up-projection of K absorbed into the query: every head reads the latent itself."""
        heads, rank, rope = cache.heads or self.a.heads, cache.latent_rank, cache.k_dim - cache.latent_rank
        q = x
        if "attn_q_a" in layer.shapes:
            q = self.fp32(layer.rows("attn_q_a"), x)
        q = self.fp32(layer.rows("attn_q_b", "attn_q"), q)
        absorbed = self.fp32(heads * rank, q)
        turned = self.fp32(heads * rope, q)
        q = self.fp32(heads * cache.k_dim, absorbed, turned)
        both = self.fp32(cache.k_dim, x)
        latent, k_rope = self.fp32(rank, both), self.fp32(rope, both)
        self.cached(cache, self.fp32(cache.k_dim, latent, k_rope))
        mixed = self.attend(q, cache, heads, cache.k_dim, rank)
        out = layer.columns("attn_output")
        return self.fp32(self.a.hidden_size, self.fp32(out, self.fp32(out, mixed)))

    def recurrent(self, layer: Layer, x: int) -> int:
        if "shortconv.conv" in layer.shapes:
            return self.short_convolution(layer, x)
        if layer.is_delta_net:
            return self.delta_net(layer, x)
        if "ssm_in" in layer.shapes:
            return self.mamba(layer, x)
        return self.fp32(self.a.hidden_size, self.fp32(layer.columns("attn_output", "time_mix_output") or self.a.hidden_size, x))

    def convolved(self, layer: Layer, x: int, state: int = 0) -> tuple[int, int]:
        """A causal convolution: the last inputs of every sequence before the batch, all of it laid out channel first.

        With `state` elements a sequence, the state is gathered before; the second result.
        """
        width, before, held = layer.channels, self.gathered or self.gather(layer), 0
        self.gathered = 0
        joined = self.tape.add(4 * width * ((layer.kernel - 1) * self.context.parallel + self.tokens), before, x)
        if state:
            held = self.tape.add(4 * state * self.context.parallel, self.slots[0])
            self.tape.read(self.tape.add(0, self.slots[1]))
        elif "shortconv.conv" in layer.shapes and not self.routed:
            self.look_ahead()
        return self.fp32(width, joined), held

    def gather(self, layer: Layer) -> int:
        """The inputs a convolution kept of every sequence, and the states of slots no sequence is in: none."""
        before = self.tape.add(4 * (layer.kernel - 1) * layer.channels * self.context.parallel, self.slots[0])
        self.tape.read(self.tape.add(0, self.slots[1]))
        return before

    def look_ahead(self) -> None:
        """The next layer's kept inputs are gathered as soon as nothing else was asked to be computed first."""
        for layer in self.following:
            if layer.gathers_first and not self.gathered:
                self.gathered = self.gather(layer)
            if layer.cache is not None or layer.state is not None or "ffn_down_exps" in layer.shapes:
                return

    def advanced(self, *reads: int) -> None:
        """A new state is copied out; that of slots no sequence is in is nothing."""
        self.tape.read(self.tape.add(0, self.slots[1]))
        self.tape.read(*reads)
        if not self.routed:
            self.look_ahead()

    def mamba(self, layer: Layer, x: int) -> int:
        state = layer.state.state_elements if layer.state is not None else 0
        inner, both = layer.columns("ssm_out"), self.fp32(layer.rows("ssm_in"), x)
        conv, _ = self.convolved(layer, both)
        scan = 4 * (self.tokens * inner + state * self.context.parallel)
        if "ssm_x" in layer.shapes:  # Mamba 1: B, C and the step come from the convolution's result
            parameters = self.fp32(layer.rows("ssm_x"), conv)
            step = self.fp32(inner, self.fp32(layer.columns("ssm_dt"), parameters))
            y = self.tape.add(scan, conv, step, parameters, self.slots[0])
            self.advanced(y)
            y = self.fp32(inner, y, self.fp32(inner, conv), over=(y,))
            return self.fp32(self.a.hidden_size, self.fp32(inner, self.fp32(inner, both), y))
        y = self.tape.add(scan, conv, self.fp32(max(layer.shapes["ssm_a"]), both), self.slots[0])
        self.advanced(y)
        gate = self.fp32(inner, both)
        skipped = self.fp32(inner, conv)
        y = self.fp32(inner, y, skipped, over=(skipped,))
        y = self.fp32(inner, gate, y)
        return self.fp32(self.a.hidden_size, self.fp32(inner, y) if "ssm_norm" in layer.shapes else y)

    def delta_net(self, layer: Layer, x: int) -> int:
        """A gated delta net, its heads' queries and keys repeated to the number of value heads."""
        state = layer.state.state_elements if layer.state is not None else 0
        inner, width = layer.columns("ssm_out"), layer.rows("attn_qkv")
        self.gathered, heads = self.gathered or self.gather(layer), max(layer.shapes["ssm_a"])
        conv, held = self.convolved(layer, self.fp32(width, x), state)
        keys, repeated = (width - inner) // 2, []
        for _ in "qk":
            normed = self.fp32(keys, conv)
            repeated.append(self.fp32(inner, normed) if keys < inner and "ssm_ba" in layer.shapes else normed)
        gates = self.fp32(2 * heads, x)
        decay, beta = self.fp32(heads, gates), self.fp32(heads, gates)
        result = 4 * (self.tokens * inner + state * self.context.parallel)
        y = self.tape.add(result, *repeated, conv, decay, beta, held)
        self.tape.read(y)
        if not self.routed:
            self.look_ahead()
        y = self.fp32(inner, y)
        gate = self.fp32(inner, x)
        y = self.fp32(inner, y, self.fp32(inner, gate), over=(y,))
        return self.fp32(self.a.hidden_size, y)

    def short_convolution(self, layer: Layer, x: int) -> int:
        """LFM2: three projections; the first two multiplied are convolved, and gated by the third."""
        width = self.a.hidden_size
        three = self.fp32(3 * width, x)
        conv, _ = self.convolved(layer, self.fp32(width, three))
        y = self.fp32(width, three, conv, over=(conv,))
        return self.fp32(width, y)

    def feed_forward(self, layer: Layer, x: int, tokens: int) -> int:
        if "ffn_down_exps" in layer.shapes:
            return self.experts(layer, x, tokens)
        return self.dense(layer, x, tokens)

    def dense(self, layer: Layer, x: int, tokens: int, suffix: str = "") -> int:
        add, inner = self.tape.add, layer.columns(f"ffn_down{suffix}")
        up = layer.rows(f"ffn_up{suffix}")
        made = [add(4 * up * tokens, x, *self.weight(f"ffn_up{suffix}"))]
        if f"ffn_gate{suffix}" in layer.shapes:
            made.append(add(4 * inner * tokens, x, *self.weight(f"ffn_gate{suffix}")))
        gated = len(made) > 1 or up > inner
        acted = add(4 * inner * tokens, *made, over=() if gated else tuple(made))
        return add(4 * self.a.hidden_size * tokens, acted, *self.weight(f"ffn_down{suffix}"))

    def experts(self, layer: Layer, x: int, tokens: int) -> int:
        """Routed experts, their results for each expert a token uses side by side, and shared ones."""
        add, used = self.tape.add, layer.experts_per_token
        number, inner = layer.shapes["ffn_down_exps"][0], layer.columns("ffn_down_exps")
        latent = layer.rows("ffn_latent_down")
        probabilities = add(4 * number * tokens, x)
        chosen = add(4 * number * tokens, probabilities)
        weights = self.expert_weights(used, tokens, probabilities, chosen)
        entered = add(4 * latent * tokens, x) if latent else x
        width = latent or self.a.hidden_size
        up = layer.rows("ffn_gate_up_exps", "ffn_up_exps")
        made = [add(4 * used * up * tokens, entered, chosen, *self.weight("ffn_gate_up_exps"), *self.weight("ffn_up_exps"))]
        if "ffn_gate_exps" in layer.shapes:
            made.append(add(4 * used * inner * tokens, entered, chosen, *self.weight("ffn_gate_exps")))
        gated = len(made) > 1 or up > inner
        acted = add(4 * used * inner * tokens, *made, over=() if gated else tuple(made))
        down = add(4 * used * width * tokens, acted, chosen, *self.weight("ffn_down_exps"))
        if "ffn_down_exps.bias" in layer.shapes:
            down = add(4 * used * width * tokens, down, chosen, over=(down,))
        down = add(4 * used * width * tokens, down, weights, over=(down,))
        result = add(4 * width * tokens, down)
        if latent:
            result = add(4 * self.a.hidden_size * tokens, result)
        self.look_ahead()
        if "ffn_down_shexp" in layer.shapes:
            shared = self.dense(layer, x, tokens, "_shexp")
            if "ffn_gate_inp_shexp" in layer.shapes:
                shared = add(4 * self.a.hidden_size * tokens, shared, add(4 * tokens, x), over=(shared,))
            result = add(4 * self.a.hidden_size * tokens, result, shared, over=(result, shared))
        return result

    def expert_weights(self, used: int, tokens: int, *reads: int) -> int:
        """The chosen experts' shares, made to add up to 1: divided by their sum, or (gpt-oss) by a softmax of their own."""
        weights = self.tape.add(4 * used * tokens, *reads)
        if self.a.family in ("gpt_oss", "gpt-oss", "gptoss"):
            return self.tape.add(4 * used * tokens, weights)
        return self.tape.add(4 * used * tokens, weights, self.tape.add(4 * tokens, weights))

    def whole(self, layers: tuple[Layer, ...], *, first: bool = True, last: bool) -> None:
        """All layers of one device; on the last device the logits too, of the rows asked for."""
        a, add, hidden = self.a, self.tape.add, self.inputs(layers, first=first, last=last)
        asked = min(self.context.outputs, self.tokens)
        within = a.family not in ROWS_BEFORE_NORM and a.family not in ROWS_AFTER_NORM
        if layers and layers[0].gathers_first:
            self.following = layers
            self.look_ahead()
        for number, layer in enumerate(layers):
            final = last and within and number == len(layers) - 1
            self.following, self.routed = layers[number + 1 :], "ffn_down_exps" in layer.shapes
            hidden = self.through(layer, hidden, asked if final else 0)
        if last:
            row = 4 * a.hidden_size
            if a.family in ROWS_BEFORE_NORM:
                self.tape.keep(hidden)
                hidden = add(row * asked, hidden, self.chosen)
            normed = add(row * (self.tokens if a.family in ROWS_AFTER_NORM else asked), hidden, over=(hidden,))
            if a.family in ROWS_AFTER_NORM:
                self.tape.keep(normed)
                normed = add(row * asked, normed, self.chosen)
            add(4 * a.vocab_size * asked, normed)

    def through(self, layer: Layer, hidden: int, rows: int = 0) -> int:
        """Norm, mixer, residual, norm, feed-forward, residual, where the layer has them; with `rows`, only so many go on."""
        add, row = self.tape.add, 4 * self.a.hidden_size
        tokens, mixed = rows or self.tokens, -1
        normed = self.norm(layer, hidden) if layer.norms_input else hidden
        if layer.cache is not None or layer.state is not None:
            mixed = self.mixed(layer, normed)
        if rows and layer.is_parallel and layer.cache is not None:
            mixed = self.projected(layer.cache, mixed)
        if rows:
            mixed, hidden, normed = (add(row * rows, n, self.chosen) if n >= 0 else n for n in self.going_on(layer, mixed, hidden, normed))
        if layer.is_parallel and layer.cache is not None:
            out = self.feed_forward(layer, normed, tokens)
            out = add(row * tokens, out, hidden, over=(out, hidden))
            mixed = mixed if rows else self.projected(layer.cache, mixed)
            return add(row * tokens, out, mixed, over=(out, mixed))
        if mixed >= 0:
            hidden = add(row * tokens, mixed, hidden, over=self.sum_over(layer, mixed, hidden, reshaped=not rows))
            normed = -1
        if not layer.has_feed_forward:
            return hidden
        if normed < 0:
            normed = add(row * tokens, hidden, over=(hidden,)) if layer.norms_feed_forward else hidden
        out = self.feed_forward(layer, normed, tokens)
        return add(row * tokens, out, hidden, over=(hidden, out) if self.a.family in RESIDUAL_FIRST_AFTER else (out, hidden))

    def sum_over(self, layer: Layer, mixed: int, hidden: int, *, reshaped: bool) -> tuple[int, ...]:
        """Which of the two the sum of a mixer's result and the residual may take the place of, in llama.cpp's order."""
        if layer.reshapes_result and reshaped:
            return (hidden,)
        return (hidden, mixed) if self.a.family in RESIDUAL_FIRST else (mixed, hidden)

    @staticmethod
    def going_on(layer: Layer, mixed: int, hidden: int, normed: int) -> tuple[int, int, int]:
        """Of which nodes the rows asked for are picked within the last layer."""
        return mixed, hidden, normed if layer.is_parallel or mixed < 0 else -1
