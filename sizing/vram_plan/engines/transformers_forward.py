"""What a forward pass of transformers holds beside weights and cache, counted tensor by tensor where its code peaks.

Each formula is a line of modelling code at which most tensors are alive, in elements per token of the prompt; checked in the
tests against peaks traced on small models. Kernels' own workspaces are not counted. Source: transformers 5.23.0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..models.architecture import CacheLayer, Tensor
from ..models.model import Model

__all__ = ["Forward", "cat_bytes", "forward_of"]


@dataclass(frozen=True, eq=False, slots=True)
class Forward:
    """Bytes of one forward pass. `token` per prompt token where no attention scores are held, `attention` per token inside
    attention (`where` names the larger), `expand` per cached token of the latent cache that one layer expands.

    `windowed`: the smallest window (0: none), beyond which a mask is built. `scores`: heads whose scores eager attention keeps,
    `score` bytes each (in 16 bits: themselves, an fp32 copy and the fp32 softmax).
    `repeat`: bytes per token of K and V repeated for grouped heads where a mask is built. `logits`: per row.
    """

    token: int
    attention: int
    expand: int
    windowed: int
    scores: int
    score: int
    repeat: int
    logits: int
    element: int
    where: str

    def prefill(self, tokens: int, sequences: int, eager: bool, all_logits: bool) -> int:
        """The largest moment of a prefill of `tokens` in each of `sequences`, beside weights and cache. Masks are shared by the batch."""
        n = tokens * sequences
        mask = tokens * tokens if eager or (self.windowed and tokens >= self.windowed) else 0
        inside = self.attention * n
        if eager:
            inside += self.scores * self.score * tokens * n + self.repeat * n
        elif mask:
            inside = max(inside, self.repeat * n + self.attention * n // 2) + mask * self.element
        rows = n if all_logits else sequences
        last = rows * self.logits + n * 2 * self.element
        return mask * (self.element if eager else 1) + max(self.token * n, inside + self.expand * n, last)


@lru_cache(maxsize=256)
def forward_of(model: Model, element: int, score: int = 0) -> Forward:
    """The coefficients of a model whose activations take `element` bytes each; `score`: of an attention score, where the class differs."""
    a = model.architecture
    hidden = a.hidden_size
    layers = _layers(model)
    phases = {"norm": 3 * hidden * element + 8 * hidden}
    attention = 0
    expand = 0
    for layer in layers.values():
        phases["feed-forward"] = max(phases.get("feed-forward", 0), _feed_forward(layer, hidden) * element)
        if any(tensor.experts for tensor in layer.values()):
            phases["experts"] = max(phases.get("experts", 0), _experts(layer, hidden, a.experts_per_token, element))
        phases["state"] = max(phases.get("state", 0), _recurrent(layer, hidden, element))
        attention = max(attention, _attention(layer, hidden, element))
        expand = max(expand, _expansion(layer) * element)
    where = max(phases, key=lambda name: phases[name])
    tables = len({c.window for c in model.cache_layers if c.kv_heads})
    rope = 2 * tables * element * max((c.k_dim for c in model.cache_layers), default=0) + 8
    heads = [c for c in model.cache_layers if c.kv_heads or c.k_dim]
    windows = [c.window for c in heads if c.window]
    grouped = [c for c in heads if c.heads > c.kv_heads and c.kind != "latent"]
    return Forward(
        token=phases[where] + rope,
        attention=attention + rope,
        expand=expand,
        windowed=min(windows, default=0),
        scores=max((c.heads for c in heads), default=a.heads),
        score=score or (10 if element == 2 else 8),
        repeat=max((c.heads * (c.k_dim + c.v_dim) for c in grouped), default=0) * element,
        logits=a.vocab_size * (element + 4),
        element=element,
        where=where,
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
    """Embeddings, residual, input and attention's output; activation, up and their product (`down(act(gate(x)) * up(x))`)."""
    width = max(_rows(layer, "ffn_up"), _rows(layer, "ffn_up_shexp"))
    gated = "ffn_gate" in layer or "ffn_gate_shexp" in layer or _rows(layer, "ffn_up") == 2 * _columns(layer, "ffn_down")
    if gated and width == 2 * _columns(layer, "ffn_down"):
        width //= 2
    return 4 * hidden + (3 if gated else 2) * width


def _columns(layer: Mapping[str, Tensor], role: str) -> int:
    return layer[role].shape[-1] if role in layer else 0


def _experts(layer: Mapping[str, Tensor], hidden: int, chosen: int, element: int) -> int:
    """Each token's copies, one for each expert it goes to: gathered, multiplied, weighted and sorted back (integrations/moe.py)."""
    width = max((t.shape[-1] for role, t in layer.items() if role == "ffn_down_exps"), default=0)
    shared = 4 * hidden if any("shexp" in role for role in layer) else 0
    return (4 * hidden + shared + chosen * max(4 * hidden, hidden + 4 * width)) * element + 40 * chosen


def _attention(layer: Mapping[str, Tensor], hidden: int, element: int) -> int:
    """Embeddings, residual and input; Q four times while it is turned, or twice in fp32 while it is normed. K and V count as cached."""
    q = _rows(layer, "attn_q", "attn_q_b") or (_rows(layer, "attn_qkv") // 2)
    if not q:
        return 0
    normed = q * (element + 8) - (_rows(layer, "attn_k") + _rows(layer, "attn_v")) * element if "attn_q_norm" in layer else 0
    return 3 * hidden * element + max(4 * q * element, normed)


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
