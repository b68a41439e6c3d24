"""The recurrent pieces: Mamba-1 and -2 mixers, gated delta net, Kimi delta attention, short convolution.

Each adds its weights and returns what its layer keeps. States are as transformers 5.23 holds them (the models'
`modeling_*.py`, `cache_utils.py: LinearAttentionLayer`): the last `kernel` inputs of a convolution in the model's
dtype, recurrent states in fp32. Roles are llama.cpp's (`src/llama-arch.cpp`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import FormatError
from ...values import dataclass
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory
from .config import MAX_WIDTH, Config

__all__ = [
    "MLA_DEFAULTS",
    "DeltaNet",
    "Mamba2",
    "add_mtp",
    "factored",
    "gated_delta_net",
    "kimi_delta",
    "layer_kinds",
    "mamba1",
    "mamba2",
    "mamba_rank",
    "short_conv",
    "sparse_layers",
    "with_defaults",
]

#: Older names of layer kinds (transformers `configuration_utils.py: _LEGACY_LAYER_TYPE_REMAP`).
_OLD_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}
#: Latent attention's sizes where a config leaves them out (Kimi Linear, Ling).
MLA_DEFAULTS = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}


def with_defaults(c: Config, **defaults: Any) -> Config:
    """The config with a family's class defaults where a key is absent or null."""
    return Config(defaults, c.where).merged(c)


def layer_kinds(c: Config, layers: int) -> list[str] | None:
    """What `layer_types` (or its older name) says of each of `layers` layers, or None where no list is there."""
    for key in ("layer_types", "layers_block_type"):
        named = c.items(key)
        if named is None:
            continue
        if len(named) < layers or not all(isinstance(kind, str) for kind in named):
            raise FormatError(f"{c.where}: {key} must name the kind of each of the {layers} layers; it has {len(named)} entries")
        return [_OLD_KINDS.get(kind, kind) for kind in named[:layers]]
    return None


def sparse_layers(c: Config, layers: int, first_dense: int) -> list[bool]:
    """Which layers have routed experts: `mlp_layer_types`, else all after the first `first_k_dense_replace`."""
    named = c.items("mlp_layer_types")
    if named and len(named) >= layers:
        return [kind == "sparse" for kind in named[:layers]]
    first = c.integer("first_k_dense_replace", default=first_dense, low=0)
    return [layer >= first for layer in range(layers)]


def factored(c: Config, base: int, *keys: str, default: float) -> float:
    """`base` times the factor under one of `keys`. Raises FormatError where that is no width a model can have."""
    width = base * c.number(*keys, default=default)
    if not 1 <= width <= MAX_WIDTH:
        raise FormatError(f"{c.where}: {keys[0]} times {base} is {width:g}; a width from 1 to {MAX_WIDTH} belongs there")
    return width


def mamba_rank(c: Config, hidden: int, *keys: str) -> int:
    """Rank of Mamba-1's time-step projection: the number given, or hidden ÷ 16 rounded up for "auto"."""
    if any(c.get(key) == "auto" for key in keys):
        return -(-hidden // 16)
    return c.integer(*keys, default=-(-hidden // 16))


def mamba1(
    inv: Inventory,
    layer: int,
    hidden: int,
    inner: int,
    state: int,
    kernel: int,
    rank: int,
    *,
    bias: bool = False,
    conv_bias: bool = True,
    norms: bool = False,
) -> CacheLayer:
    """A Mamba-1 mixer of width `inner`; Jamba's normalises B, C and the time step. Source: modeling_mamba.py."""
    inv.linear("ssm_in", layer, 2 * inner, hidden, bias)
    _conv1d(inv, layer, inner, kernel, conv_bias)
    inv.linear("ssm_x", layer, rank + 2 * state, inner)
    inv.linear("ssm_dt", layer, inner, rank, bias=True)
    inv.add("ssm_a", layer, inner, state)
    inv.add("ssm_d", layer, inner)
    if norms:
        inv.norm("ssm_dt_norm", layer, rank)
        inv.norm("ssm_b_norm", layer, state)
        inv.norm("ssm_c_norm", layer, state)
    inv.linear("ssm_out", layer, hidden, inner, bias)
    return CacheLayer(layer, "recurrent", conv_elements=inner * kernel, state_elements=inner * state)


@dataclass(frozen=True)
class Mamba2:
    """The sizes of a Mamba-2 mixer."""

    hidden: int
    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    bias: bool = False
    out_bias: bool | None = None
    conv_bias: bool = True
    norm: bool = True

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def conv_width(self) -> int:
        return self.inner + 2 * self.groups * self.state


def mamba2(inv: Inventory, layer: int, m: Mamba2) -> CacheLayer:
    """A Mamba-2 mixer: gate, x, B, C and time step from one projection. Source: modeling_mamba2.py."""
    inv.linear("ssm_in", layer, m.inner + m.conv_width + m.heads, m.hidden, m.bias)
    _conv1d(inv, layer, m.conv_width, m.kernel, m.conv_bias)
    for role in ("ssm_dt.bias", "ssm_a", "ssm_d"):
        inv.add(role, layer, m.heads)
    if m.norm:
        inv.norm("ssm_norm", layer, m.inner)
    inv.linear("ssm_out", layer, m.hidden, m.inner, m.bias if m.out_bias is None else m.out_bias)
    return CacheLayer(layer, "recurrent", conv_elements=m.conv_width * m.kernel, state_elements=m.inner * m.state)


@dataclass(frozen=True)
class DeltaNet:
    """The sizes of a gated delta net, by the `linear_*` keys."""

    k_heads: int
    v_heads: int
    k_dim: int
    v_dim: int
    kernel: int

    @classmethod
    def read(cls, c: Config, k_heads: int = 16, v_heads: int = 32, k_dim: int = 128, v_dim: int = 128) -> DeltaNet:
        """The sizes a config gives; the defaults are Qwen3-Next's and Qwen3.5's."""
        return cls(
            c.integer("linear_num_key_heads", default=k_heads, high=65536),
            c.integer("linear_num_value_heads", default=v_heads, high=65536),
            c.integer("linear_key_head_dim", default=k_dim, high=65536),
            c.integer("linear_value_head_dim", default=v_dim, high=65536),
            c.integer("linear_conv_kernel_dim", default=4, high=1024),
        )

    @property
    def qkv_width(self) -> int:
        return 2 * self.k_heads * self.k_dim + self.v_width

    @property
    def v_width(self) -> int:
        return self.v_heads * self.v_dim


def gated_delta_net(inv: Inventory, layer: int, hidden: int, d: DeltaNet, *, fused_ba: bool = False) -> CacheLayer:
    """A gated delta net; `fused_ba` where beta and alpha are one matrix (Qwen3-Next). Source: modeling_qwen3_next.py."""
    inv.linear("attn_qkv", layer, d.qkv_width, hidden)
    inv.linear("attn_gate", layer, d.v_width, hidden)
    if fused_ba:
        inv.linear("ssm_ba", layer, 2 * d.v_heads, hidden)
    else:
        inv.linear("ssm_beta", layer, d.v_heads, hidden)
        inv.linear("ssm_alpha", layer, d.v_heads, hidden)
    _conv1d(inv, layer, d.qkv_width, d.kernel, bias=False)
    inv.add("ssm_dt.bias", layer, d.v_heads)
    inv.add("ssm_a", layer, d.v_heads)
    inv.norm("ssm_norm", layer, d.v_dim)
    inv.linear("ssm_out", layer, hidden, d.v_width)
    return CacheLayer(layer, "recurrent", conv_elements=d.qkv_width * d.kernel, state_elements=d.v_heads * d.k_dim * d.v_dim)


def kimi_delta(
    inv: Inventory, layer: int, hidden: int, heads: int, dim: int, kernel: int, *, full_decay: str = "", full_gate: str = ""
) -> CacheLayer:
    """Kimi delta attention; decay and gate go through `dim` columns, or are one full matrix of the role given.

    Source: modeling_kimi_linear.py.
    """
    width = heads * dim
    for part in "qkv":
        inv.linear(f"attn_{part}", layer, width, hidden)
        inv.add(f"ssm_conv1d_{part}", layer, width, kernel)
    for part, full_role in (("f", full_decay), ("g", full_gate)):
        if full_role:
            inv.linear(full_role, layer, width, hidden)
        else:
            inv.linear(f"ssm_{part}_a", layer, dim, hidden)
            inv.linear(f"ssm_{part}_b", layer, width, dim)
    inv.linear("ssm_beta", layer, heads, hidden)
    inv.add("ssm_a", layer, heads)
    inv.add("ssm_dt.bias", layer, width)
    inv.norm("ssm_norm", layer, dim)
    inv.linear("attn_output", layer, hidden, width)
    return CacheLayer(layer, "recurrent", conv_elements=3 * width * kernel, state_elements=heads * dim * dim)


def short_conv(inv: Inventory, layer: int, hidden: int, kernel: int, *, bias: bool = False) -> CacheLayer:
    """LFM2's gated short convolution: it keeps its last `kernel` inputs and nothing else. Source: modeling_lfm2.py."""
    inv.linear("shortconv.in_proj", layer, 3 * hidden, hidden, bias)
    inv.add("shortconv.conv", layer, hidden, kernel)
    if bias:
        inv.add("shortconv.conv.bias", layer, hidden)
    inv.linear("shortconv.out_proj", layer, hidden, hidden, bias)
    return CacheLayer(layer, "recurrent", conv_elements=hidden * kernel)


def add_mtp(found: Architecture, inv: Inventory) -> Architecture:
    """The architecture with the draft layers `inv` lists; they are no part of the model proper."""
    return replace(found, tensors=found.tensors + tuple(inv.tensors)) if inv.tensors else found


def _conv1d(inv: Inventory, layer: int, width: int, kernel: int, bias: bool) -> None:
    inv.add("ssm_conv1d", layer, width, kernel)
    if bias:
        inv.add("ssm_conv1d.bias", layer, width)
