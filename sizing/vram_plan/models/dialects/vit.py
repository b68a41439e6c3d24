"""The pieces vision and audio towers are built from: transformer blocks, patches, positions, poolers.

Roles are those of llama.cpp's mmproj files (`v.attn_q`, `v.ffn_up`, `a.…`, `mm.…`). Shapes were taken from the
modules of transformers 5.23 (models/*/modeling_*.py).
"""

from __future__ import annotations

from ...errors import FormatError
from ...values import dataclass
from .blocks import Inventory
from .config import MAX_LAYERS, Config

__all__ = ["Vit", "blocks", "clip_like", "lone_norm", "pooling_head", "read_vit", "scaled", "side"]


@dataclass(frozen=True)
class Vit:
    """The numbers of one tower. `ffn` is its feed-forward width, `image` and `patch` are sides in pixels."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    image: int
    patch: int
    channels: int

    @property
    def positions(self) -> int:
        """Patches in one image."""
        return (self.image // self.patch) ** 2

    @property
    def patch_width(self) -> int:
        """Numbers in one patch."""
        return self.channels * self.patch**2


def side(v: Config, key: str, default: int) -> int:
    """A length given as a number or as [height, width] (the first)."""
    pair = v.integers(key, low=1, high=1 << 16)
    return pair[0] if pair else v.integer(key, default=default, high=1 << 16)


def read_vit(v: Config, *, hidden: int = 768, layers: int = 12, heads: int = 12, ffn: int = 3072, image: int = 224, patch: int = 16) -> Vit:
    """A tower's numbers under their usual names; the arguments are its class's defaults."""
    return Vit(
        hidden=v.integer("hidden_size", "embed_dim", default=hidden, high=1 << 20),
        layers=v.integer("num_hidden_layers", "depth", default=layers, low=0, high=MAX_LAYERS),
        heads=v.integer("num_attention_heads", "num_heads", default=heads, high=65536),
        ffn=v.integer("intermediate_size", default=ffn, high=1 << 24),
        image=side(v, "image_size", image),
        patch=side(v, "patch_size", patch),
        channels=v.integer("num_channels", "in_channels", default=3, high=1024),
    )


def scaled(v: Config, key: str, default: float, width: int) -> int:
    """`width` times the ratio under `key`, which must be positive."""
    ratio = v.number(key, default=default)
    if not 0 < ratio <= 1024:
        raise FormatError(f"{v.where}: {key} is {ratio}; a positive ratio belongs there")
    return int(width * ratio)


def blocks(
    inv: Inventory,
    s: Vit,
    *,
    name: str = "v",
    bias: bool = True,
    k_bias: bool | None = None,
    out_bias: bool | None = None,
    fused: bool = False,
    gated: bool = False,
    mlp_bias: bool = True,
    norm_bias: bool = True,
    qk_norm: int = 0,
    qk_norm_bias: bool = False,
    q_width: int = 0,
    kv_width: int = 0,
    scales: int = 0,
    scale_width: int = 0,
) -> None:
    """`s.layers` transformer blocks: norm, attention, norm, feed-forward. Biases default to `bias` where not named.

    `qk_norm` is the width of a query and a key norm (0: none), `scales` the number of per-channel (or
    `scale_width`-wide) gains a block has.
    """
    q, kv = q_width or s.hidden, kv_width or q_width or s.hidden
    for layer in range(s.layers):
        inv.norm(f"{name}.ln1", layer, s.hidden, norm_bias)
        if fused:
            inv.linear(f"{name}.attn_qkv", layer, q + 2 * kv, s.hidden, bias)
        else:
            inv.linear(f"{name}.attn_q", layer, q, s.hidden, bias)
            inv.linear(f"{name}.attn_k", layer, kv, s.hidden, bias if k_bias is None else k_bias)
            inv.linear(f"{name}.attn_v", layer, kv, s.hidden, bias)
        inv.linear(f"{name}.attn_out", layer, s.hidden, q, bias if out_bias is None else out_bias)
        if qk_norm:
            inv.norm(f"{name}.attn_q_norm", layer, qk_norm, qk_norm_bias)
            inv.norm(f"{name}.attn_k_norm", layer, qk_norm, qk_norm_bias)
        inv.norm(f"{name}.ln2", layer, s.hidden, norm_bias)
        for role in ("ffn_gate", "ffn_up") if gated else ("ffn_up",):
            inv.linear(f"{name}.{role}", layer, s.ffn, s.hidden, mlp_bias)
        inv.linear(f"{name}.ffn_down", layer, s.hidden, s.ffn, mlp_bias)
        for i in range(scales):
            inv.add(f"{name}.layer_scale{i + 1}", layer, scale_width or s.hidden)


def lone_norm(inv: Inventory, role: str, width: int, bias: bool = True) -> None:
    """A norm outside the blocks."""
    inv.norm(role, None, width, bias)


def clip_like(
    inv: Inventory, s: Vit, *, cls: int = 0, patch_bias: bool = True, pre_norm: bool = False, post_norm: bool = True, positions: int = -1
) -> None:
    """CLIP's and SigLIP's encoder: patches, learned positions, blocks. `cls` class tokens, with a position each."""
    if cls:
        inv.add("v.class_embd", None, cls, s.hidden)
    inv.linear("v.patch_embd", None, s.hidden, s.patch_width, patch_bias)
    count = s.positions + cls if positions < 0 else positions
    if count:
        inv.add("v.position_embd", None, count, s.hidden)
    if pre_norm:
        lone_norm(inv, "v.pre_ln", s.hidden)
    blocks(inv, s)
    if post_norm:
        lone_norm(inv, "v.post_ln", s.hidden)


def pooling_head(inv: Inventory, s: Vit) -> None:
    """SigLIP's attention pooling: a probe, one attention, one feed-forward block."""
    inv.add("v.head.probe", None, s.hidden)
    inv.linear("v.head.attn_qkv", None, 3 * s.hidden, s.hidden, True)
    inv.linear("v.head.attn_out", None, s.hidden, s.hidden, True)
    lone_norm(inv, "v.head.ln", s.hidden)
    inv.linear("v.head.ffn_up", None, s.ffn, s.hidden, True)
    inv.linear("v.head.ffn_down", None, s.hidden, s.ffn, True)
