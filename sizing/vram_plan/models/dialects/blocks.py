"""The pieces models are built from. Each adds its weights to an inventory; shapes are (outputs, inputs) as in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from ...errors import FormatError
from ...values import dataclass
from ..architecture import Architecture, Basis, CacheLayer, Part, Tensor
from .config import MAX_LAYERS, Config

__all__ = [
    "Inventory",
    "Shape",
    "attention",
    "decoder",
    "dtype_of",
    "latent_attention",
    "mlp",
    "moe",
    "read_shape",
    "window_cache",
]

#: More weights than any real model lists; a config that asks for more is not read further.
MAX_TENSORS = 400_000


class Inventory:
    """Collects the weights of one model in the order they are added, and what its layers cache."""

    def __init__(self, dtype: str = "BF16", part: Part = "text") -> None:
        self.dtype = dtype
        self.part: Part = part
        self.tensors: list[Tensor] = []
        self.cache: list[CacheLayer] = []

    def add(self, role: str, layer: int | None, *shape: int, experts: int = 0, dtype: str = "") -> None:
        """One weight of `shape`; with `experts`, a stack of that many."""
        self._put(Tensor(role, layer, (experts, *shape) if experts else shape, experts, dtype or self.dtype, self.part))

    def linear(self, role: str, layer: int | None, outputs: int, inputs: int, bias: bool = False) -> None:
        self._put(Tensor(role, layer, (outputs, inputs), 0, self.dtype, self.part))
        if bias:
            self._put(Tensor(f"{role}.bias", layer, (outputs,), 0, self.dtype, self.part))

    def norm(self, role: str, layer: int | None, width: int, bias: bool = False) -> None:
        self._put(Tensor(role, layer, (width,), 0, self.dtype, self.part))
        if bias:
            self._put(Tensor(f"{role}.bias", layer, (width,), 0, self.dtype, self.part))

    def repeat(self, tensors: Iterable[Tensor], layer: int) -> None:
        """The same weights once more, of another layer."""
        self._put(*[Tensor(role, layer, shape, experts, dtype, part) for role, _, shape, experts, dtype, part in tensors])

    def _put(self, *tensors: Tensor) -> None:
        self.tensors += tensors
        if len(self.tensors) > MAX_TENSORS:
            raise FormatError(f"the config asks for more than {MAX_TENSORS:,} weights")


@dataclass(frozen=True)
class Shape:
    """The numbers nearly every decoder's config has."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    trained_context: int | None

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim


def read_shape(c: Config, **defaults: int) -> Shape:
    """The common numbers under their usual names; `defaults` are the family's class defaults for absent keys.

    An absent number of KV heads means as many as query heads; an absent head size means hidden ÷ heads.
    """

    def default(name: str) -> dict[str, int]:
        return {"default": defaults[name]} if name in defaults else {}

    hidden = c.integer("hidden_size", "n_embd", "d_model", "n_embed", "dim", **default("hidden"))
    heads = c.integer("num_attention_heads", "n_head", "n_heads", "num_heads", high=65536, **default("heads"))
    return Shape(
        hidden=hidden,
        layers=c.integer("num_hidden_layers", "n_layer", "n_layers", "num_layers", high=MAX_LAYERS, **default("layers")),
        heads=heads,
        kv_heads=c.integer("num_key_value_heads", "num_kv_heads", "n_head_kv", default=defaults.get("kv_heads", heads), high=65536),
        head_dim=c.integer(
            "head_dim", "attention_head_dim", "kv_channels", default=defaults.get("head_dim", max(hidden // heads, 1)), high=65536
        ),
        ffn=c.integer("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", default=defaults.get("ffn", 4 * hidden)),
        vocab=c.integer("vocab_size", "padded_vocab_size", "embedding_size", **default("vocab")),
        trained_context=c.optional(
            "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx", "max_seq_len", low=1, high=1 << 40
        )
        or defaults.get("context"),
    )


def dtype_of(c: Config) -> str:
    """The dtype the config says its 16- or 32-bit weights have; BF16 where it says none."""
    named = c.text("dtype", "torch_dtype").removeprefix("torch.")
    return {"float16": "F16", "half": "F16", "float32": "F32", "float": "F32"}.get(named, "BF16")


def window_cache(s: Shape, layer: int, window: int = 0, kind: Literal["sliding", "chunked"] = "sliding") -> CacheLayer:
    """Grouped-query attention's K and V: of all tokens, or of the last `window` where that is not 0."""
    return CacheLayer(layer, kind if window else "full", s.heads, s.kv_heads, s.head_dim, s.head_dim, window)


def attention(
    inv: Inventory,
    layer: int,
    s: Shape,
    *,
    bias: bool = False,
    out_bias: bool = False,
    qk_norm: Literal["", "head", "full"] = "",
    fused: bool = False,
    gate: bool = False,
) -> None:
    """Grouped-query attention's projections; `qk_norm` per head or over the full width; `gate` doubles the query."""
    q_rows = s.q_width * (2 if gate else 1)
    if fused:
        inv.linear("attn_qkv", layer, q_rows + 2 * s.kv_width, s.hidden, bias)
    else:
        inv.linear("attn_q", layer, q_rows, s.hidden, bias)
        inv.linear("attn_k", layer, s.kv_width, s.hidden, bias)
        inv.linear("attn_v", layer, s.kv_width, s.hidden, bias)
    inv.linear("attn_output", layer, s.hidden, s.q_width, out_bias)
    if qk_norm:
        inv.norm("attn_q_norm", layer, s.head_dim if qk_norm == "head" else s.q_width)
        inv.norm("attn_k_norm", layer, s.head_dim if qk_norm == "head" else s.kv_width)


def latent_attention(inv: Inventory, layer: int, c: Config, s: Shape, *, bias: bool = False) -> CacheLayer:
    """Multi-head latent attention (DeepSeek-V2): K and V come from one latent, which alone is cached."""
    rank, rope = c.integer("kv_lora_rank"), c.integer("qk_rope_head_dim", low=0)
    nope, v_dim = c.integer("qk_nope_head_dim"), c.integer("v_head_dim")
    q_rank = c.optional("q_lora_rank")
    if q_rank:
        inv.linear("attn_q_a", layer, q_rank, s.hidden, bias)
        inv.norm("attn_q_a_norm", layer, q_rank)
        inv.linear("attn_q_b", layer, s.heads * (nope + rope), q_rank)
    else:
        inv.linear("attn_q", layer, s.heads * (nope + rope), s.hidden)
    inv.linear("attn_kv_a_mqa", layer, rank + rope, s.hidden, bias)
    inv.norm("attn_kv_a_norm", layer, rank)
    inv.linear("attn_kv_b", layer, s.heads * (nope + v_dim), rank)
    inv.linear("attn_output", layer, s.hidden, s.heads * v_dim, bias)
    return CacheLayer(layer, "latent", s.heads, 1, rank + rope, 0, latent_rank=rank)


def mlp(inv: Inventory, layer: int, hidden: int, width: int, *, gated: bool = True, bias: bool = False, suffix: str = "") -> None:
    """A feed-forward block: three matrices when gated (SwiGLU, GeGLU), else two; `suffix` as in `ffn_up_shexp`."""
    if gated:
        inv.linear(f"ffn_gate{suffix}", layer, width, hidden, bias)
    inv.linear(f"ffn_up{suffix}", layer, width, hidden, bias)
    inv.linear(f"ffn_down{suffix}", layer, hidden, width, bias)


def moe(
    inv: Inventory,
    layer: int,
    hidden: int,
    experts: int,
    width: int,
    *,
    shared: int = 0,
    gated: bool = True,
    bias: bool = False,
    router_bias: bool = False,
) -> None:
    """Routed experts with their router, and a shared expert of width `shared` (0: none)."""
    inv.linear("ffn_gate_inp", layer, experts, hidden)
    if router_bias:
        inv.add("exp_probs_b.bias", layer, experts)
    for role, rows, columns in (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)):
        if role == "gate" and not gated:
            continue
        inv.add(f"ffn_{role}_exps", layer, rows, columns, experts=experts)
        if bias:
            inv.add(f"ffn_{role}_exps.bias", layer, rows, experts=experts)
    if shared:
        mlp(inv, layer, hidden, shared, gated=gated, suffix="_shexp")


def decoder(
    c: Config,
    s: Shape,
    block: Callable[[Inventory, int], CacheLayer | None],
    *,
    family: str,
    tied: bool = False,
    norm_bias: bool = False,
    final_norm: bool = True,
    head_bias: bool = False,
    before: Callable[[Inventory], None] | None = None,
    embedding_width: int = 0,
    experts: int = 0,
    experts_per_token: int = 0,
    basis: Basis = "formula",
    notes: tuple[str, ...] = (),
) -> Architecture:
    """A whole decoder: embedding, `block` once a layer, final norm, head. `tied` is the class default.

    A block returns its layer's cache, or None where it keeps none (or has added several to the inventory itself).
    `before` adds what stands between the embedding and the layers (learned positions, an embedding norm).
    `embedding_width` is that of the embedding and the head where it is not the hidden size.
    A config whose architecture has no language-model head (an embedding or reward model) gets none here.
    """
    inv = Inventory(dtype_of(c))
    inv.add("token_embd", None, s.vocab, embedding_width or s.hidden)
    if before:
        before(inv)
    for layer in range(s.layers):
        cache = block(inv, layer)
        if cache:
            inv.cache.append(cache)
    if final_norm:
        inv.norm("output_norm", None, s.hidden, norm_bias)
    tied = c.flag("tie_word_embeddings", default=tied)
    labels = _label_count(c)
    if labels:
        inv.add("cls.output", None, labels, s.hidden)
    elif has_head(c):
        if not tied:
            inv.add("output", None, s.vocab, embedding_width or s.hidden)
        if head_bias:
            inv.add("output.bias", None, s.vocab)
    return Architecture(
        name=architecture_name(c),
        family=family,
        kind="decoder",
        hidden_size=s.hidden,
        layers=s.layers,
        vocab_size=s.vocab,
        heads=s.heads,
        trained_context=s.trained_context,
        tied_embeddings=tied,
        tensors=tuple(inv.tensors),
        cache_layers=tuple(inv.cache),
        experts=experts,
        experts_per_token=experts_per_token,
        dtype=inv.dtype,
        basis=basis,
        notes=notes,
    )


def architecture_name(c: Config) -> str:
    names = c.items("architectures") or []
    return names[0] if names and isinstance(names[0], str) else c.text("model_type", default="unknown")


def has_head(c: Config) -> bool:
    """False for a bare `…Model` class, which an embedding checkpoint names in `architectures`.

    ChatGLM's only class is called `ChatGLMModel` and has a head all the same, as has `GPT2LMHeadModel`.
    """
    name = architecture_name(c)
    return not name.endswith("Model") or name.endswith("LMHeadModel") or name.startswith("ChatGLM")


def _label_count(c: Config) -> int:
    """Rows of a classification head: the labels the config lists, two by default; 0 for any other head."""
    if not architecture_name(c).endswith("ForSequenceClassification"):
        return 0
    labels = c.section("id2label")
    return len(labels.raw) if labels else c.integer("num_labels", default=2, high=1 << 20)
