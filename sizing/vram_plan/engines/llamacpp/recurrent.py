"""What layers with a recurrent state compute in llama.cpp's graph: short convolutions, Mamba, gated delta nets.

Source: llama.cpp 0c1e57098, src/models/{mamba-base,delta-net-base,lfm2,kimi-linear,rwkv6-base,rwkv7-base}.cpp.
"""

from __future__ import annotations

from .attention import Attention
from .layers import Layer

__all__ = ["Recurrent"]


class Recurrent(Attention):
    """Adds the nodes of recurrent mixers. The last inputs of every sequence and its state are read from slots."""

    def recurrent(self, layer: Layer, x: int) -> int:
        if "shortconv.conv" in layer.shapes:
            return self.short_convolution(layer, x)
        if layer.is_delta_net:
            return self.delta_net(layer, x)
        if "ssm_in" in layer.shapes:
            return self.mamba(layer, x)
        if "ssm_conv1d_q" in layer.shapes:
            return self.kimi_delta(layer, x)
        if "time_mix_lerp_fused" in layer.shapes:
            return self.time_mix(layer, x)
        return self.fp32(self.a.hidden_size, self.fp32(layer.columns("attn_output", "time_mix_output") or self.a.hidden_size, x))

    def convolved(self, layer: Layer, x: int, state: int = 0) -> tuple[int, int]:
        """A causal convolution: the last inputs of every sequence before the batch, all of it laid out channel first.

        With `state` elements a sequence, the state is gathered before; the second result.
        """
        width, before, held = layer.channels, self.gathered or self.gather(layer), 0
        self.gathered = 0
        joined = self.tape.add(4 * width * ((layer.kernel - 1) * self.context.parallel + self.tokens), before, x)
        if state:
            self.written(joined, width * ((layer.kernel - 1) * self.context.parallel + self.tokens))
            held = self.kept(state, layer.home)
        elif self.schedule is not None and "ssm_in" in layer.shapes:
            self.written(joined, width * ((layer.kernel - 1) * self.context.parallel + self.tokens))
        elif "shortconv.conv" in layer.shapes and not self.routed:
            self.look_ahead()
        if "shortconv.conv" in layer.shapes:
            self.pick_residual()
        made = self.fp32(width, joined, *self.weight("ssm_conv1d"), *self.weight("shortconv.conv"))
        return self.vector(made, "ssm_conv1d.bias"), held

    def gather(self, layer: Layer) -> int:
        """The inputs a convolution kept of every sequence."""
        return self.kept((layer.kernel - 1) * layer.channels, layer.home)

    def kept(self, elements: int, home: int) -> int:
        """What a layer kept of every sequence, gathered, and the states of slots no sequence is in: none. The CPU does that in
        host memory, and what it gathered is copied in."""
        if self.schedule is not None:  # the cache itself is set to nothing for slots that begin
            self.at_home(home)
            self.tape.read()
        found = self.tape.add(4 * elements * self.context.parallel, self.slots[0])
        rest = self.tape.add(0, self.slots[1])
        self.at_home(home)
        self.tape.read(rest)
        return found

    def written(self, node: int, elements: int) -> None:
        """A new state, of so many elements, is copied to the cache."""
        if self.schedule is not None:
            self.at_home()
            self.tape.read(self.view(node, 4 * elements))

    def look_ahead(self) -> None:
        """The next layer's kept inputs are gathered as soon as nothing else was asked to be computed first."""
        for layer in self.following:
            if layer.gathers_first and not self.gathered:
                self.gathered = self.gather(layer)
            if layer.cache is not None or layer.state is not None or "ffn_down_exps" in layer.shapes:
                return

    def advanced(self, y: int, inner: int, state: int) -> int:
        """A new state is copied out of what a scan gives, that of slots no sequence is in is nothing; what goes on of it."""
        for kept in (self.tape.add(0, self.slots[1]), self.view(y, 4 * state * self.context.parallel)):
            self.at_home()
            self.tape.read(kept)
        if not self.routed:
            self.look_ahead()
        self.pick_residual()
        self.project_waiting()
        return self.view(y, 4 * inner * self.tokens)

    def mamba(self, layer: Layer, x: int) -> int:
        state = layer.state.state_elements if layer.state is not None else 0
        inner, both = layer.columns("ssm_out"), self.fp32(layer.rows("ssm_in"), x, *self.weight("ssm_in"))
        conv, _ = self.convolved(layer, both)
        scan = 4 * (self.tokens * inner + state * self.context.parallel)
        if "ssm_x" in layer.shapes:  # Mamba 1: B, C and the step come from the convolution's result
            parameters = self.fp32(layer.rows("ssm_x"), conv, *self.weight("ssm_x"))
            if "ssm_b_norm" in layer.shapes or self.a.family == "falcon_mamba":  # each normed, apart from the others
                ranks = layer.rows("ssm_x") - layer.columns("ssm_dt")
                step = self.fp32(inner, self.fp32(layer.columns("ssm_dt"), parameters), *self.weight("ssm_dt"))
                read = self.fp32(ranks // 2, parameters), self.fp32(ranks // 2, parameters)
            else:
                step, read = self.fp32(inner, parameters, *self.weight("ssm_dt")), (parameters, parameters)
            y = self.tape.add(scan, conv, step, *read, self.slots[0], *self.weight("ssm_a", 1))
            y = self.advanced(y, inner, state)
            gate, skipped = self.fp32(inner, both), self.fp32(inner, conv, *self.weight("ssm_d"), over=(conv,))
            y = self.fp32(inner, y, skipped, over=(skipped,) if self.schedule is None else (y, skipped))
            return self.fp32(self.a.hidden_size, self.fp32(inner, gate, y), *self.weight("ssm_out"))
        group, span = (layer.channels - inner) // 2, (self.tokens - 1) * layer.channels
        parts = [self.view(conv, 4 * (span + part)) for part in (inner, group, group)]
        step = self.vector(self.fp32(max(layer.shapes["ssm_a"]), both), "ssm_dt.bias")
        y = self.tape.add(scan, *parts, step, self.slots[0], *self.weight("ssm_a", 1))
        y = self.advanced(y, inner, state)
        gate = self.fp32(inner, both)
        skipped = self.fp32(inner, conv, *self.weight("ssm_d"))
        y = self.fp32(inner, y, skipped, over=(skipped,) if self.schedule is None else (y, skipped))
        y = self.fp32(inner, gate, y)
        normed = self.vector(self.fp32(inner, y), "ssm_norm") if "ssm_norm" in layer.shapes else y
        return self.fp32(self.a.hidden_size, normed, *self.weight("ssm_out"))

    def delta_net(self, layer: Layer, x: int) -> int:
        """A gated delta net, its heads' queries and keys repeated to the number of value heads."""
        state = layer.state.state_elements if layer.state is not None else 0
        inner, width = layer.columns("ssm_out"), layer.rows("attn_qkv")
        self.gathered, heads = self.gathered or self.gather(layer), max(layer.shapes["ssm_a"])
        conv, held = self.convolved(layer, self.fp32(width, x, *self.weight("attn_qkv")), state)
        keys, repeated = (width - inner) // 2, []
        for _ in "qk":
            normed = self.fp32(keys, conv)
            repeated.append(self.fp32(inner, normed) if keys < inner and "ssm_ba" in layer.shapes else normed)
        gates = self.fp32(2 * heads, x, *self.weight("ssm_ba"), *self.weight("ssm_alpha"))
        decay, beta = self.fp32(heads, gates), self.fp32(heads, gates, *self.weight("ssm_beta"))
        result = 4 * (self.tokens * inner + state * self.context.states)
        y = self.tape.add(result, *repeated, conv, decay, beta, held)
        if self.schedule is None:
            self.tape.read(y)
        self.written(y, state * self.context.states)
        if not self.routed:
            self.look_ahead()
        y = self.vector(self.fp32(inner, y), "ssm_norm")
        gate = self.fp32(inner, x, *self.weight("attn_gate"))
        y = self.fp32(inner, y, self.fp32(inner, gate), over=(y,))
        return self.fp32(self.a.hidden_size, y, *self.weight("ssm_out"))

    def kimi_delta(self, layer: Layer, x: int) -> int:
        """Kimi's delta attention: queries, keys and values each convolved, a decay for each of their elements."""
        state = layer.state.state_elements if layer.state is not None else 0
        inner, sequences, before = layer.columns("attn_output"), self.context.parallel, self.gather(layer)
        size = 4 * inner * ((layer.kernel - 1) * sequences + self.tokens)
        joined = [self.tape.add(size, before, self.fp32(inner, x, *self.weight(f"attn_{name}"))) for name in "qkv"]
        held = self.kept(state, layer.home)
        q, k, v = (self.fp32(inner, self.fp32(inner, node)) if i == 2 else self.normed_result(inner, node) for i, node in enumerate(joined))
        decay = self.fp32(inner, self.fp32(inner, self.fp32(layer.rows("ssm_f_a"), x, *self.weight("ssm_f_a")), *self.weight("ssm_f_b")))
        beta = self.fp32(layer.rows("ssm_beta"), self.fp32(layer.rows("ssm_beta"), x, *self.weight("ssm_beta")))
        y = self.tape.add(4 * (self.tokens * inner + state * self.context.states), q, k, v, decay, beta, held)
        self.tape.read(y)
        y = self.fp32(inner, self.fp32(inner, y))
        low = self.fp32(layer.rows("ssm_g_a"), x, *self.weight("ssm_g_a"))
        gate = self.fp32(inner, self.fp32(inner, low, *self.weight("ssm_g_b")))
        mixed = self.fp32(inner, self.fp32(inner, y, gate, over=(y, gate)))
        return self.fp32(self.a.hidden_size, mixed, *self.weight("attn_output"))

    def time_mix(self, layer: Layer, x: int) -> int:
        """RWKV 6 and 7: each token mixed with the one before in as many ways as there are projections, then the recurrence."""
        width, state = self.a.hidden_size, layer.state.state_elements if layer.state is not None else 0
        held = self.tape.add(4 * state * self.context.parallel, self.slots[0])
        shifted = self.fp32(width, x)
        mixes = self.fp32(layer.shapes["time_mix_lerp_fused"][0] * width, self.fp32(width, shifted, x, over=(shifted,)), x)
        receptance, decay, key = (self.fp32(width, mixes) for _ in range(3))
        if "time_mix_a1" in layer.shapes:  # 7: the state's own keys, and how much of them is replaced
            rate = self.fp32(width, mixes)
            changed = self.fp32(width, key)
            changed = self.fp32(width, key, self.fp32(width, rate, changed))
            value, normed = self.first(self.fp32(width, mixes)), self.fp32(width, self.fp32(width, key))
            reads = [changed, value, self.fp32(width, normed), self.fp32(width, normed, rate)]
        else:
            reads = [key, self.fp32(width, mixes), self.fp32(width, mixes)]
        y = self.tape.add(4 * (self.tokens * width + state * self.context.parallel), receptance, decay, *reads, held)
        self.tape.read(y)
        gate = self.fp32(width, mixes)
        mixed = self.fp32(width, self.fp32(width, self.fp32(width, y), gate))
        if "time_mix_a1" in layer.shapes:  # what the next batch's first token is mixed with
            self.tape.read(x)
        return mixed

    def first(self, value: int) -> int:
        """A layer's values, the first layer's added to: those are kept until the last."""
        if self.first_value < 0:
            self.first_value = value
            return value
        return self.fp32(self.a.hidden_size, value, self.first_value, over=(value,))

    def normed_result(self, inner: int, joined: int) -> int:
        return self.fp32(inner, self.fp32(inner, self.fp32(inner, joined)))

    def short_convolution(self, layer: Layer, x: int) -> int:
        """LFM2: three projections; the first two multiplied are convolved, and gated by the third."""
        width = self.a.hidden_size
        three = self.fp32(3 * width, x, *self.weight("shortconv.in_proj"))
        conv, _ = self.convolved(layer, self.fp32(width, three))
        y = self.fp32(width, three, conv, over=(conv,))
        return self.fp32(width, y, *self.weight("shortconv.out_proj"))
