"""The reader most dense decoders share: Llama's layer with the differences of each family written down as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Literal

from ...values import dataclass
from ..architecture import Architecture, CacheLayer, Tensor
from .blocks import Inventory, Shape, attention, decoder, mlp, read_shape
from .config import Config
from .registry import family
from .windows import NO_WINDOWS, Windows, grouped_cache

__all__ = ["Flag", "Plain", "defaulted", "flag", "llama_shape", "read_plain", "register", "sizes"]

#: Always, never, or as the named key of the config says; `key=true` where the class's default is true.
Flag = bool | str
#: A family's own small tensors of one layer.
Extra = Callable[[Inventory, int, Config, Shape], None]

NORMS = ("attn_norm", "ffn_norm")
SANDWICH = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
_DERIVED = {"num_key_value_heads": "kv_heads", "head_dim": "head_dim"}
POST = ("post_attention_norm", "post_ffw_norm")


@dataclass(frozen=True)
class Plain:
    """What sets a dense family apart from Llama. `defaults` are its class's, for keys a config leaves out.

    `norms` are the layer's norms by role; `qk_norm` is per head, over the full width, or one row per head;
    `fused` projects Q, K and V at once, `fused_ffn` gate and up at once, as the family's files store them.
    """

    defaults: Mapping[str, int] = field(default_factory=dict)
    bias: Flag = "attention_bias"
    out_bias: Flag = "attention_bias"
    mlp_bias: Flag = False
    gated: bool = True
    norms: tuple[str, ...] = NORMS
    norm_bias: bool = False
    final_norm: bool = True
    qk_norm: Literal["", "head", "full"] = ""
    qk_norm_bias: bool = False
    qk_norm_if: Flag = True
    fused: bool = False
    fused_ffn: bool = False
    tied: bool = False
    head_bias: Flag = False
    embedding_width: int = 0
    windows: Windows = NO_WINDOWS
    layer_extra: Extra | None = None
    before: Callable[[Inventory, Config, Shape], None] | None = None


def sizes(layers: int, hidden: int, heads: int, vocab: int, context: int, **more: int) -> dict[str, int]:
    """A family's class defaults, for the keys a config leaves out; `more` as in `read_shape`."""
    return {"layers": layers, "hidden": hidden, "heads": heads, "vocab": vocab, "context": context, **more}


def flag(c: Config, value: Flag) -> bool:
    """What a Flag means for this config."""
    if isinstance(value, bool):
        return value
    key, _, default = value.partition("=")
    return c.flag(key, default=default == "true")


def defaulted(c: Config, **defaults: Any) -> Config:
    """A view of the config in which absent or null keys have these values."""
    view = Config({**defaults, **{k: v for k, v in c.raw.items() if v is not None or k not in defaults}}, c.where)
    view.asked = c.asked
    return view


def llama_shape(c: Config, defaults: Mapping[str, int]) -> Shape:
    """The common numbers; an explicit null for KV heads or head size means the usual derivation, not the class default."""
    nulls = {name for key, name in _DERIVED.items() if key in c.raw and c.raw[key] is None}
    return read_shape(c, **{name: value for name, value in defaults.items() if name not in nulls})


def read_plain(c: Config, plain: Plain, name: str, s: Shape | None = None) -> Architecture:
    """Every layer is grouped-query attention and one feed-forward block, as `plain` says."""
    s = s or llama_shape(c, plain.defaults)
    cache = grouped_cache(c, s, plain.windows)
    bias, out_bias, mlp_bias = flag(c, plain.bias), flag(c, plain.out_bias), flag(c, plain.mlp_bias)
    qk_norm = plain.qk_norm if flag(c, plain.qk_norm_if) else ""
    extra, before = plain.layer_extra, plain.before
    first: list[Tensor] = []

    def block(inv: Inventory, layer: int) -> CacheLayer:
        if first:
            inv.repeat(first, layer)
            return cache[layer]
        start = len(inv.tensors)
        for role in plain.norms:
            inv.norm(role, layer, s.hidden, plain.norm_bias)
        attention(inv, layer, s, bias=bias, out_bias=out_bias, qk_norm=qk_norm, fused=plain.fused)
        if qk_norm and plain.qk_norm_bias:
            inv.add("attn_q_norm.bias", layer, s.head_dim)
            inv.add("attn_k_norm.bias", layer, s.head_dim)
        if plain.fused_ffn:
            inv.linear("ffn_up", layer, 2 * s.ffn, s.hidden, mlp_bias)
            inv.linear("ffn_down", layer, s.hidden, s.ffn, mlp_bias)
        else:
            mlp(inv, layer, s.hidden, s.ffn, gated=plain.gated, bias=mlp_bias)
        if extra:
            extra(inv, layer, c, s)
        else:
            first.extend(inv.tensors[start:])
        return cache[layer]

    return decoder(
        c,
        s,
        block,
        family=name,
        tied=plain.tied,
        norm_bias=plain.norm_bias,
        final_norm=plain.final_norm,
        head_bias=flag(c, plain.head_bias),
        embedding_width=plain.embedding_width,
        before=(lambda inv: before(inv, c, s)) if before else None,
    )


def register(table: Mapping[str, Plain]) -> None:
    """Enter a table of plain families; a key may name several model types, parted by spaces."""
    for names, plain in table.items():
        for name in names.split():
            family(name)(_reader(plain, name))


def _reader(plain: Plain, name: str) -> Callable[[Config], Architecture]:
    return lambda c: read_plain(c, plain, name)
