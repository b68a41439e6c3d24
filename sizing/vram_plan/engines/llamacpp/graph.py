"""The graph llama.cpp computes for one batch, recorded layer by layer with the sizes of its nodes.

Nodes a buffer of this size would not feel (a few bytes a token) are left out, unless a hole of theirs is felt. Source:
llama.cpp 0c1e57098, src/llama-graph.cpp (`build_inp_embd`, `build_ffn`, `build_moe_ffn`), src/models/*.cpp.
"""

from __future__ import annotations

from typing import Final

from ...models.architecture import CacheLayer
from . import families
from .layers import Layer
from .placement import HOST
from .recurrent import Recurrent

__all__ = ["Recorder"]

#: Experts a token may use for their weighted sum to be one step, and numbers of experts, beside powers of two, whose choice is
#: one (ggml-cuda.cu, `ggml_cuda_match_moe_weighted_reduction`; topk-moe.cu, `ggml_cuda_should_use_topk_moe`). What such a step
#: reads is kept until it is done.
_FUSED_AT_MOST: Final = 15
#: A norm of what attention gives, or if there is no other before the feed-forward part, that.
_NORMS_AFTER: Final = ("attn_post_norm", "post_attention_norm")
_FUSED_EXPERTS: Final = frozenset({288, 576})


class Recorder(Recurrent):
    """Records the nodes of a batch of `context.tokens` tokens on a tape. Node sizes are in bytes, widths in elements."""

    def mixed(self, layer: Layer, x: int) -> int:
        """What a layer's token mixer makes of its normed input."""
        cache = layer.cache
        if cache is None:
            return self.recurrent(layer, x)
        found = self.latent(layer, cache, x) if cache.latent_rank else self.attention(layer, cache, x)
        if not layer.is_double:
            return found
        self.waiting, self.gathered = (cache, found), self.gather(layer)
        other = self.recurrent(layer, self.norm(layer, self.hidden))
        return self.fp32(self.a.hidden_size, self.before, other, over=(self.before,))

    def add(self, a: int, b: int) -> int:
        return self.fp32(self.a.hidden_size, a, b, over=(a, b))

    def norm(self, layer: Layer | None, x: int, role: str = "attn_norm") -> int:
        """A norm of the hidden state: RMS norms may be computed in place, layer norms (those with a bias) not."""
        in_place = self.in_place(layer is not None and f"{role}.bias" in layer.shapes)
        self.at_norm(role)
        node = self.fp32(self.a.hidden_size, x, over=(x,) if in_place else ())
        return node if layer is None else self.vector(node, role, f"{role}.bias")

    def at_norm(self, *roles: str) -> None:
        """Where every layer is on a GPU, a norm (with weights) is computed there and not where the layer before is (`graph_get_cb`)."""
        layer = self.layer
        if self.schedule is not None and self.all_on_gpu and layer is not None and any(role in layer.shapes for role in roles):
            self.schedule.pin(layer.home)

    def in_place(self, bias: bool) -> bool:
        return self.a.family not in families.LAYER_NORMS and (not bias or self.a.family in families.RMS_NORMS)

    def inputs(self, layers: tuple[Layer, ...]) -> int:
        """The batch as copied to the device; the embedded tokens come first, then indices and masks as layers ask for them."""
        row, embedded, learned = 4 * self.a.hidden_size * self.tokens, -1, -1
        indexed = len(layers) if any("indexer.attn_k" in layer.shapes for layer in layers) else 0
        best = 4 * min(families.INDEX_BEST, self.context.length) * self.tokens
        self.top = [self.tape.add(best) if self.schedule is None else self.schedule.constant(best) for _ in range(indexed)]
        looks_up = self.host or self.schedule is not None
        if looks_up:  # the graph starts with the tokens, and with room for embeddings given instead
            embedded, _ = self.given(4 * self.tokens), self.given(row * (1 + sum(layer.deep for layer in layers)))
            if self.context.mixed:
                self.mixed_inputs = self.given(4 * self.tokens), self.given(row), self.given(8 * self.tokens)
            learned = self.given(4 * self.tokens) if "position_embd" in self.global_shapes else -1
        else:
            self.looked_up_by_layer()
        for layer in layers:
            if embedded < 0 and not layer.gathers_first:
                embedded = self.given(row)
                learned = self.given(row) if "position_embd" in self.global_shapes else -1
            if "nextn.eh_proj" in layer.shapes and self.trunk < 0:
                self.trunk = self.given(row)
            if layer.state is not None and layer.cache is None and not self.slots:
                self.slots = self.given(4 * self.context.parallel), self.given(0)
            if embedded < 0:
                embedded = self.given(row)
            if layer.cache is not None and layer.cache.window not in self.masks:
                self.attention_inputs(layer, layer.cache)
            if layer.is_double and not self.slots:
                self.slots = self.given(4 * self.context.parallel), self.given(0)
        self.chosen = self.given(4 * self.context.outputs)
        if looks_up:  # nothing is computed before the inputs have their places
            self.layer = None
            embedded = self.looked_up(embedded)
            if learned >= 0:
                self.at_home()
                learned = self.tape.add(row, learned)
            self.looked_up_by_layer()
        if learned >= 0:
            embedded = self.tape.add(row, embedded, learned, over=(embedded, learned))
        return embedded

    def looked_up_by_layer(self) -> None:
        """Gemma 3n's and 4's second table, of each layer's embeddings: looked up in host memory."""
        if "per_layer_model_proj" in self.global_shapes:
            size = 4 * self.global_shapes["per_layer_model_proj"][0] * self.tokens
            self.at_home()
            looked_up = self.tape.add(size)
            self.per_layer = self.tape.add(size, looked_up, over=(looked_up,))

    def looked_up(self, tokens: int) -> int:
        """The embeddings of tokens; later builds also make them of tokens and embeddings mixed, whatever is asked for."""
        self.at_home()
        embedded = self.fp32(self.a.hidden_size, tokens)
        if self.mixed_inputs:
            mixed_tokens, given, slots = self.mixed_inputs
            self.at_home()
            rows = self.fp32(self.a.hidden_size, mixed_tokens)
            self.at_home()
            whole = self.fp32(self.a.hidden_size, given)
            self.at_home()
            self.tape.read(rows, slots)
            self.tape.keep(whole)
        return embedded

    def attention_inputs(self, layer: Layer, cache: CacheLayer) -> None:
        """What layers with one window share: positions, matrices that turn a quantised cache, places in it, the mask."""
        c = self.context
        if layer.turned and not self.positions:
            self.positions = (self.given(4 * self.tokens),)
        for name, size in zip("kv", self.turns_of(cache), strict=True):
            if size and cache.v_dim:
                self.rotations[cache.window, name] = self.given(4 * size * size)
        v_places = 8 * self.tokens * (1 if c.flash else self.widest_v)
        if "indexer.attn_k" in layer.shapes:
            self.index_mask = self.given(4 * 128 * 128), self.given(2 * self.tokens * c.length)
        self.places[cache.window] = tuple(self.given(size) for size in (8 * self.tokens, v_places if cache.v_dim else 0) if size)
        element = 4 if c.mask_cast or not c.flash else 2
        self.masks[cache.window] = self.given(element * self.tokens * c.ring(cache.window))

    def feed_forward(self, layer: Layer, x: int, tokens: int) -> int:
        """The feed-forward part of a normed input; of Gemma 4's mixtures, of what is normed within."""
        if "pre_ffw_norm_2" in layer.shapes:
            return self.dense_and_experts(layer, x, tokens)
        return self.experts(layer, x, tokens) if "ffn_down_exps" in layer.shapes else self.dense(layer, x, tokens)

    def dense_and_experts(self, layer: Layer, x: int, tokens: int) -> int:
        """Gemma 4: experts and a dense part side by side, each with norms of its own, and the router with one more."""
        row = 4 * self.a.hidden_size * tokens
        routed = self.experts(layer, x, tokens, router=self.tape.add(row, x), normed=False)
        dense = self.dense(layer, self.tape.add(row, x), tokens)
        return self.tape.add(row, dense, routed, over=(dense, routed))

    def dense(self, layer: Layer, x: int, tokens: int, suffix: str = "") -> int:
        add, inner = self.tape.add, layer.columns(f"ffn_down{suffix}")
        up = layer.rows(f"ffn_up{suffix}")
        made = [add(4 * up * tokens, x, *self.weight(f"ffn_up{suffix}", tokens))]
        if f"ffn_gate{suffix}" in layer.shapes:
            made.append(add(4 * inner * tokens, x, *self.weight(f"ffn_gate{suffix}", tokens)))
        gated = len(made) > 1 or up > inner
        acted = add(4 * inner * tokens, *made, over=() if gated else tuple(made))
        return add(4 * self.a.hidden_size * tokens, acted, *self.weight(f"ffn_down{suffix}", tokens))

    def experts(self, layer: Layer, x: int, tokens: int, router: int = -1, *, normed: bool = True) -> int:
        """Routed experts, their results for each expert a token uses side by side, and shared ones."""
        add, used = self.tape.add, layer.experts_per_token
        number, inner = layer.shapes["ffn_down_exps"][0], layer.columns("ffn_down_exps")
        latent = layer.rows("ffn_latent_down")
        probabilities = add(4 * number * tokens, x if router < 0 else router, *self.weight("ffn_gate_inp"))
        probabilities = self.vector(probabilities, "ffn_gate_inp.bias")
        scores, fused = probabilities, self.context.fuses and self.a.family not in families.PICKS_FIRST
        if fused and (number in _FUSED_EXPERTS or number & (number - 1) == 0):
            probabilities = add(4 * number * tokens, scores)
        biased = self.a.family in families.ROUTER_BIAS or any(role.startswith("exp_probs_b") for role in layer.shapes)
        biased_too = add(4 * number * tokens, probabilities, *self.weight("exp_probs_b.bias")) if biased else probabilities
        chosen = add(4 * number * tokens, biased_too)
        weights = self.expert_weights(used, tokens, probabilities, chosen)
        if probabilities != scores:
            self.tape.read(scores, probabilities, biased_too)
        if latent:
            entered = add(4 * latent * tokens, x, *self.weight("ffn_latent_down"))
        else:
            entered = x if normed else add(4 * self.a.hidden_size * tokens, x)
        if self.a.family in families.WEIGHS_FIRST:
            entered = add(4 * used * self.a.hidden_size * tokens, entered, weights)
        width = latent or self.a.hidden_size
        up = layer.rows("ffn_gate_up_exps", "ffn_up_exps")
        made = [add(4 * used * up * tokens, entered, chosen, *self.weight("ffn_gate_up_exps"), *self.weight("ffn_up_exps"))]
        made[0] = self.vector(made[0], "ffn_gate_up_exps.bias", "ffn_up_exps.bias")
        if "ffn_gate_exps" in layer.shapes:
            made.append(add(4 * used * inner * tokens, entered, chosen, *self.weight("ffn_gate_exps")))
            made[1] = self.vector(made[1], "ffn_gate_exps.bias")
        gated = len(made) > 1 or up > inner
        acted = add(4 * used * inner * tokens, *made, over=() if gated else tuple(made))
        down = add(4 * used * width * tokens, acted, chosen, *self.weight("ffn_down_exps"))
        if "ffn_down_exps.bias" in layer.shapes:
            down = add(4 * used * width * tokens, down, chosen, *self.weight("ffn_down_exps.bias"), over=(down,))
        given = down
        if self.a.family not in families.WEIGHS_FIRST:
            down = add(4 * used * width * tokens, down, weights, over=(down,))
        result = add(4 * width * tokens, down)
        if self.context.fuses and 1 < used <= _FUSED_AT_MOST and down != given:
            self.tape.read(given, weights)
        if latent:
            result = add(4 * self.a.hidden_size * tokens, result, *self.weight("ffn_latent_up"))
        self.look_ahead()
        if "ffn_down_shexp" in layer.shapes:
            shared = self.dense(layer, x, tokens, "_shexp")
            if "ffn_gate_inp_shexp" in layer.shapes:
                gate = add(4 * tokens, x, *self.weight("ffn_gate_inp_shexp", tokens))
                shared = add(4 * self.a.hidden_size * tokens, shared, gate, over=(shared,))
            result = add(4 * self.a.hidden_size * tokens, result, shared, over=(result, shared))
        return result

    def expert_weights(self, used: int, tokens: int, *reads: int) -> int:
        """The chosen experts' shares, made to add up to 1: divided by their sum, or (gpt-oss) by a softmax of their own."""
        weights = self.tape.add(4 * used * tokens, *reads)
        if self.a.family in families.PICKS_FIRST:
            return self.tape.add(4 * used * tokens, weights)
        return self.tape.add(4 * used * tokens, weights, self.tape.add(4 * tokens, weights))

    def whole(self, layers: tuple[Layer, ...]) -> None:
        """All layers, and the logits of the rows asked for."""
        a, hidden = self.a, self.inputs(layers)
        deep = sum(layer.deep for layer in layers)
        if deep:
            hidden = self.fp32(a.hidden_size * (1 + deep), hidden)
        if self.trunk >= 0:
            hidden = self.merged(hidden)
        if "token_embd_norm" in self.global_shapes:
            hidden = self.fp32(a.hidden_size, hidden)
        if a.family in families.SCALES_EMBEDDED:
            hidden = self.fp32(a.hidden_size, hidden, over=(hidden,))
        self.entered = hidden
        asked = min(self.context.outputs, self.tokens)
        within = not self.picks_after()
        if layers and layers[0].gathers_first:
            self.following = layers
            self.look_ahead()
        for number, layer in enumerate(layers):
            final = within and number == len(layers) - 1
            self.following, self.routed = layers[number + 1 :], "ffn_down_exps" in layer.shapes
            hidden = self.through(layer, hidden, asked if final else 0)
            if layer.deep:
                hidden = self.fp32(a.hidden_size, hidden, self.entered, over=(hidden,))
        if a.kind != "encoder":
            self.logits(hidden, asked)

    def picks_after(self) -> str:
        """Where the rows asked for are picked if not within the last layer: before the last norm, or after it."""
        family = self.a.family if self.context.picks_last else ""
        return "before" if family in families.ROWS_BEFORE_NORM else "after" if family in families.ROWS_AFTER_NORM else ""

    def merged(self, embedded: int) -> int:
        """A prediction layer starts from the next token and what the model made of this one, both normed and side by side."""
        width = self.a.hidden_size
        both = self.fp32(width, embedded, over=(embedded,)), self.fp32(width, self.trunk, over=(self.trunk,))
        return self.fp32(width, self.fp32(2 * width, *both))

    def logits(self, hidden: int, asked: int) -> None:
        """The last norm and the output matrix."""
        a, add, row, picks = self.a, self.tape.add, 4 * self.a.hidden_size, self.picks_after()
        self.layer = None
        if picks == "before":
            self.tape.keep(hidden)
            hidden = add(row * asked, hidden, self.chosen)
        over = (hidden,) if self.in_place("output_norm.bias" in self.global_shapes) else ()
        rows = self.tokens if picks == "after" else asked
        normed = add(row * rows, hidden, over=over)
        if self.schedule:
            normed = add(row * rows, normed, *self.of_output("output_norm", rows), over=(normed,))
        if picks == "after":
            self.tape.keep(normed)
            normed = add(row * asked, normed, self.chosen)
        add(4 * a.vocab_size * asked, normed, *self.of_output("output", asked))

    def of_output(self, role: str, rows: int) -> tuple[int, ...]:
        """A weight of the output layer, as `weight`."""
        if self.schedule is None:
            return ()
        if self.output_home == HOST:
            return self.schedule.weight(self.output_bytes if role == "output" else 4 * self.a.hidden_size, rows)
        self.schedule.pin(self.output_home)
        return ()

    def through(self, layer: Layer, hidden: int, rows: int = 0) -> int:
        """Norm, mixer, residual, norm, feed-forward, residual, where the layer has them; with `rows`, only so many go on."""
        add, row = self.tape.add, 4 * self.a.hidden_size
        tokens, mixed, picked = rows or self.tokens, -1, False
        self.layer, self.rows = layer, self.tokens
        self.hidden, normed = hidden, self.norm(layer, hidden) if layer.norms_input else hidden
        if layer.cache is not None or layer.state is not None:
            self.residual = (hidden, rows) if rows and self.a.family in families.RESIDUAL_FIRST else None
            mixed = self.mixed(layer, normed)
            picked = rows > 0 and self.picked >= 0
        if layer.is_parallel and layer.cache is not None:
            return self.parallel(layer, layer.cache, (mixed, hidden, normed), rows)
        if rows and layer.is_double:
            hidden, mixed = self.add(mixed, hidden), -1
        self.rows = tokens
        if rows:
            mixed = add(row * rows, mixed, self.chosen) if mixed >= 0 else mixed
            hidden = self.picked if picked else add(row * rows, hidden, self.chosen)
            normed = add(row * rows, normed, self.chosen) if mixed < 0 and not layer.is_double else -1
        if mixed >= 0:
            if "ffn_norm" in layer.shapes:
                mixed = self.vector(mixed, *_NORMS_AFTER)
            hidden = add(row * tokens, mixed, hidden, over=self.sum_over(layer, mixed, hidden, reshaped=not rows))
            normed = -1
        if not layer.has_feed_forward:
            return hidden
        if normed < 0:
            unnormed = not layer.norms_feed_forward or "pre_ffw_norm_2" in layer.shapes
            normed = hidden if unnormed else self.normed_again(layer, hidden, tokens)
        out = self.vector(self.feed_forward(layer, normed, tokens), "post_ffw_norm")
        hidden = add(row * tokens, out, hidden, over=(hidden, out) if self.a.family in families.RESIDUAL_FIRST_AFTER else (out, hidden))
        return self.per_layer_added(layer, hidden) if "inp_gate" in layer.shapes and self.per_layer >= 0 else hidden

    def normed_again(self, layer: Layer, hidden: int, tokens: int) -> int:
        roles = ("ffn_norm",) if "ffn_norm" in layer.shapes else _NORMS_AFTER
        self.at_norm(*roles)
        node = self.tape.add(4 * self.a.hidden_size * tokens, hidden, over=(hidden,))
        return self.vector(node, *roles)

    def parallel(self, layer: Layer, cache: CacheLayer, nodes: tuple[int, int, int], rows: int) -> int:
        """Attention and feed-forward of one norm, added up; attention is projected when its part of the sum is asked for."""
        mixed, hidden, normed = nodes
        size, first = 4 * self.a.hidden_size * (rows or self.tokens), self.a.family in families.PROJECTS_FIRST

        def asked(node: int) -> int:
            return self.tape.add(size, node, self.chosen) if rows else node

        mixed = asked(self.projected(cache, mixed)) if first else mixed
        if layer.parallel:
            hidden = asked(hidden)
            out = self.feed_forward(layer, self.tape.add(size, hidden), rows or self.tokens)
        else:
            out = self.feed_forward(layer, asked(normed), rows or self.tokens)
        if first:
            out = self.tape.add(size, mixed, out, over=(mixed, out))
            hidden = asked(hidden)
            return self.tape.add(size, out, hidden, over=(out, hidden))
        hidden = hidden if layer.parallel else asked(hidden)
        out = self.tape.add(size, out, hidden, over=(out, hidden))
        mixed = asked(self.projected(cache, mixed))
        return self.tape.add(size, out, mixed, over=(out, mixed))

    def per_layer_added(self, layer: Layer, hidden: int) -> int:
        """Gemma 4's small models: each layer's own embedding of a token, gated and projected, is added to its result.

        All layers' embeddings are made in the first layer, from the tokens' and what the first input projects to.
        """
        wide, width = self.global_shapes["per_layer_model_proj"][0], layer.rows("inp_gate")
        gate = self.fp32(width, hidden, *self.weight("inp_gate"))
        if self.per_layer_made < 0:
            normed = self.fp32(wide, self.fp32(wide, self.entered, *self.weight("per_layer_model_proj")))
            both = self.fp32(wide, normed, self.per_layer, over=(normed, self.per_layer))
            self.per_layer_made = self.fp32(wide, both)
        gate = self.fp32(width, gate, self.view(self.per_layer_made, 4 * width * self.tokens), over=(gate,))
        return self.add(hidden, self.fp32(self.a.hidden_size, gate, *self.weight("proj")))

    def sum_over(self, layer: Layer, mixed: int, hidden: int, *, reshaped: bool) -> tuple[int, ...]:
        """Which of the two the sum of a mixer's result and the residual may take the place of, in llama.cpp's order."""
        if layer.reshapes_result and reshaped:
            return (hidden,)
        return (hidden, mixed) if self.a.family in families.RESIDUAL_FIRST else (mixed, hidden)
