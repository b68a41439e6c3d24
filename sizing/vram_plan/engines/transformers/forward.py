"""What a forward pass of transformers holds beside weights and cache, counted tensor by tensor where its code peaks.

Each formula is a line of modelling code at which most tensors are alive, in elements per token of the prompt; checked in the
tests against peaks traced on small models. Kernels' own workspaces are not counted. Source: transformers 5.23.0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from ...models.architecture import CacheLayer, Tensor
from ...models.model import Model
from ...values import dataclass

__all__ = ["Forward", "Habits", "cat_bytes", "forward_of"]

#: A token's position, a long integer.
_POSITION = 8


@dataclass(frozen=True, slots=True)
class Habits:
    """What classes do differently: bytes of an attention score (0: by the rule), whether K and V are there already when Q is normed,
    whether experts' outputs are weighted in fp32, and whether a mask of windows is built though no layer has one."""

    score: int = 0
    late_norms: bool = False
    wide_routing: bool = False
    spare_mask: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Forward:
    """Bytes of one forward pass. `token` per prompt token where no attention scores are held, `attention` per token inside
    attention (`where` names the larger), `expand` per cached token of the latent cache that one layer expands.

    `windowed`: the smallest window (0: none), beyond which a mask is built; `masks` of them where all are. `scores`: heads whose scores
    eager attention keeps, `score` bytes each (in 16 bits: themselves, an fp32 copy and the fp32 softmax), beside `scored` per token.
    `repeat`: bytes per token of K and V repeated for grouped heads where a mask is built. `rope`: sines and cosines of a position, which
    sequences share. `logits`: per row. `spare`: one mask more, which no layer reads.
    """

    token: int
    attention: int
    scored: int
    expand: int
    windowed: int
    masks: int
    scores: int
    score: int
    repeat: int
    rope: int
    logits: int
    element: int
    where: str
    spare: bool

    def prefill(self, tokens: int, sequences: int, eager: bool, all_logits: bool) -> int:
        """The largest moment of a prefill of `tokens` in each of `sequences`, beside weights and cache. Masks are shared by the batch."""
        n = tokens * sequences
        mask = tokens * tokens if eager or (self.windowed and tokens >= self.windowed) else 0
        inside = self.attention * n
        if eager:
            inside = max(inside, (self.scored + self.scores * self.score * tokens + self.repeat) * n)
        elif mask:
            inside = max(inside, (self.scored + self.repeat) * n + mask * self.element)
        rows = n if all_logits else sequences
        last = rows * self.logits + n * 2 * self.element
        layer = max(self.token * n, inside + self.expand * n) + self.rope * tokens
        unread = tokens * tokens * (self.element if eager else 1) if self.spare else 0
        return unread + mask * (self.element * self.masks if eager else 1) + max(layer, last)


@lru_cache(maxsize=256)
def forward_of(model: Model, element: int, habits: Habits) -> Forward:
    """The coefficients of a model whose activations take `element` bytes each."""
    a = model.architecture
    hidden = a.hidden_size
    layers = _layers(model)
    phases = {"norm": 3 * hidden * element + 8 * hidden}
    attention = scored = expand = 0
    for layer in layers.values():
        phases["feed-forward"] = max(phases.get("feed-forward", 0), _feed_forward(layer, hidden) * element)
        if any(tensor.experts for tensor in layer.values()):
            phases["experts"] = max(phases.get("experts", 0), _experts(layer, hidden, a.experts_per_token, element, habits.wide_routing))
        phases["state"] = max(phases.get("state", 0), _recurrent(layer, hidden, element))
        attention = max(attention, _attention(layer, hidden, element, habits.late_norms))
        scored = max(scored, (_inputs(layer) * hidden + _rows(layer, "attn_qkv") + _query(layer)) * element)
        expand = max(expand, _expansion(layer) * element)
    where = max(phases, key=lambda name: phases[name])
    tables = len({c.window for c in model.cache_layers if c.kv_heads})
    heads = [c for c in model.cache_layers if c.kv_heads or c.k_dim]
    windows = [c.window for c in heads if c.window]
    grouped = [c for c in heads if c.heads > c.kv_heads and c.kind != "latent"]
    return Forward(
        token=phases[where] + _POSITION,
        attention=attention + _POSITION,
        scored=scored + _POSITION,
        expand=expand,
        windowed=min(windows, default=0),
        masks=max(tables, 1),
        scores=max((c.heads for c in heads), default=a.heads),
        score=habits.score or (10 if element == 2 else 8),
        repeat=max((c.heads * (c.k_dim + c.v_dim) for c in grouped), default=0) * element,
        rope=2 * tables * element * max((c.k_dim - c.latent_rank for c in model.cache_layers), default=0),
        logits=a.vocab_size * (element + 4),
        element=element,
        where=where,
        spare=habits.spare_mask and not windows,
    )


def cat_bytes(layers: Iterable[CacheLayer], context: int, element: int) -> int:
    """The larger of K and V of one layer: `torch.cat` makes the new one while the old one is still there."""
    held = [max(layer.k_dim, layer.v_dim) * layer.kv_heads * layer.tokens_held(context) for layer in layers]
    return max(held, default=0) * element


def _layers(model: Model) -> Mapping[int, Mapping[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for tensor in model.architecture.tensors:
        if tensor.part == "text" and tensor.layer is not None:
            found[tensor.layer][tensor.role] = tensor
    return found


def _rows(layer: Mapping[str, Tensor], *roles: str) -> int:
    """Rows of the first of these matrices the layer has: the width of what it puts out."""
    return next((layer[role].shape[-2] for role in roles if role in layer and len(layer[role].shape) > 1), 0)


def _feed_forward(layer: Mapping[str, Tensor], hidden: int) -> int:
    """Embeddings, residual, attention's output and what a norm makes of it, where it comes before the block; activation, up and
    their product (`down(act(gate(x)) * up(x))`). Where gate and up are one matrix, gate's half stays beside its activation."""
    width = max(_rows(layer, "ffn_up"), _rows(layer, "ffn_up_shexp"))
    gated = "ffn_gate" in layer or "ffn_gate_shexp" in layer or _rows(layer, "ffn_up") == 2 * _columns(layer, "ffn_down")
    fused = gated and width == 2 * _columns(layer, "ffn_down")
    normed_after = "post_ffw_norm" in layer and "ffn_norm" not in layer
    return (3 if normed_after else 4) * hidden + (2 * width if fused else 3 * width if gated else 2 * width)


def _columns(layer: Mapping[str, Tensor], role: str) -> int:
    return layer[role].shape[-1] if role in layer else 0


def _experts(layer: Mapping[str, Tensor], hidden: int, chosen: int, element: int, wide: bool) -> int:
    """Each token's copies, one for each expert it goes to: gathered, multiplied, weighted and sorted back (integrations/moe.py); the
    last two in fp32 where the router's weights are."""
    width = max((t.shape[-1] for role, t in layer.items() if role == "ffn_down_exps"), default=0)
    back = 2 * hidden * (element + (4 if wide else element))
    shared = 1 if "ffn_gate_inp_shexp" in layer else 0  # a shared expert with a gate comes before the others
    return (4 + shared) * hidden * element + chosen * (max(back, (hidden + 4 * width) * element) + 40)


def _attention(layer: Mapping[str, Tensor], hidden: int, element: int, late_norms: bool) -> int:
    """Embeddings, residual and input; Q four times while it is turned, or twice in fp32 while it is normed. K and V count as cached."""
    q = _query(layer)
    if not q:
        return 0
    later = 0 if late_norms else _rows(layer, "attn_k") + _rows(layer, "attn_v")
    normed = q * (element + 8) - later * element if "attn_q_norm" in layer else 0
    return _inputs(layer) * hidden * element + max(4 * q * element, normed)


def _inputs(layer: Mapping[str, Tensor]) -> int:
    """Hidden states alive inside attention: embeddings, residual and what a norm makes of it, where there is one before the block."""
    return 3 if "attn_norm" in layer or "post_attention_norm" not in layer else 2


def _query(layer: Mapping[str, Tensor]) -> int:
    return _rows(layer, "attn_q", "attn_q_b") or (_columns(layer, "attn_output") if "attn_qkv" in layer else 0)


def _expansion(layer: Mapping[str, Tensor]) -> int:
    """MLA: K and V of all heads, made from the latent for one layer at a time; K is joined from its two parts once more."""
    kv_b, q = _rows(layer, "attn_kv_b"), _rows(layer, "attn_q_b", "attn_q")
    return kv_b + q if kv_b else 0


def _recurrent(layer: Mapping[str, Tensor], hidden: int, element: int) -> int:
    """State layers with their kernels: input projections, twice, and the output in fp32; without kernels several times as much."""
    roles = ("ssm_in", "attn_qkv", "attn_gate", "ssm_ba", "ssm_beta_alpha", "ssm_x")
    if not any(role.startswith(("ssm_", "shortconv", "time_mix")) for role in layer):
        return 0
    width = sum(_rows(layer, role) for role in roles)
    return (4 * hidden + 3 * width) * element
