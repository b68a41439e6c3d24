"""How vLLM cuts one weight over the ranks of tensor and expert parallelism.

A weight is cut by rows (its outputs: `ColumnParallelLinear`), by columns (its inputs: `RowParallelLinear`), by KV heads
(rows, a head repeated where there are fewer than ranks), or kept whole on every rank.
Source: vLLM 0.32, model_executor/layers/linear.py (`QKVParallelLinear`), vocab_parallel_embedding.py,
mamba/mamba_mixer2.py, the models' files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

from ...models.architecture import Tensor
from ...values import dataclass

__all__ = ["VOCAB_PADDING", "Cut", "LayerHeads", "cut_of", "local_shape", "padded_vocab", "stage_layers"]

#: `DEFAULT_VOCAB_PADDING_SIZE` of vocab_parallel_embedding.py.
VOCAB_PADDING: Final = 64

Cut = Literal["rows", "columns", "kv", "qkv", "whole", "vocab", "mamba2"]

_ROLES: Final[Mapping[Cut, str]] = {
    "vocab": "token_embd output per_layer_token_embd",
    "kv": "attn_k attn_v",
    "qkv": "attn_qkv",
    "mamba2": "ssm_in ssm_conv1d",
    "rows": """attn_q attn_q_b attn_kv_b attn_gate attn_sinks attn_output_a ffn_gate ffn_up ffn_gate_shexp ffn_up_shexp ffn_gate_exps
        ffn_up_exps ffn_gate_up_exps ssm_ba ssm_alpha ssm_beta ssm_a ssm_d ssm_dt ssm_conv1d_q ssm_conv1d_k ssm_conv1d_v ssm_f_b ssm_g
        ssm_g_b shortconv.in_proj shortconv.conv per_layer_model_proj ffn_gate_up_adapter_a ffn_gate_up_adapter_b
        attn_q_adapter_a attn_q_adapter_b attn_k_adapter_a attn_k_adapter_b attn_v_adapter_a attn_v_adapter_b
        a.ffn1_up a.ffn2_up a.out indexer.q_proj mm.merge.0 mm.patch
        v.attn_q v.attn_k v.attn_v v.attn_qkv v.ffn_gate v.ffn_up v.deepstack.N.0 v.adapter.up mm.0 mm.gate mm.up mm.model.fc""",
    "columns": """attn_output attn_output_b ffn_down ffn_down_shexp ffn_down_exps ssm_out ssm_x shortconv.out_proj
        v.attn_out v.ffn_down v.deepstack.N.2 v.adapter.down mm.2 mm.down
        a.ffn1_down a.ffn2_down a.out_mid mm.merge.2""",
}
_CUTS: Final[dict[str, Cut]] = {role: cut for cut, roles in _ROLES.items() for role in roles.split()}


@dataclass(frozen=True, slots=True)
class LayerHeads:
    """What the cuts of one layer hang on: its heads, and a Mamba-2 mixer's inner width, state groups and heads."""

    heads: int = 0
    kv_heads: int = 0
    inner: int = 0
    groups: int = 0
    mamba_heads: int = 0

    def kv_rows(self, rows: int, tp: int) -> int:
        """Rows of K (or V) on one rank: whole heads, at least one."""
        return rows // self.kv_heads if 0 < self.kv_heads < tp else rows // tp

    def mamba_rows(self, rows: int, tp: int) -> int:
        """Rows of a Mamba-2 projection or convolution: B and C of a group are repeated where ranks outnumber groups."""
        if not self.groups:
            return rows // tp
        inner_parts = 2 if rows >= 2 * self.inner else 1
        dt = self.mamba_heads if inner_parts == 2 else 0
        state = max(rows - inner_parts * self.inner - dt, 0) // self.groups
        groups = self.groups // tp if self.groups % tp == 0 else 1
        return (inner_parts * self.inner + dt) // tp + state * groups


def padded_vocab(size: int) -> int:
    """Rows of an embedding as vLLM allocates it."""
    return -(-size // VOCAB_PADDING) * VOCAB_PADDING


@lru_cache(maxsize=2048)
def cut_of(role: str) -> Cut:
    """How a role is cut. The bias of a matrix cut by columns is whole."""
    name = re.sub(r"(?<=v\.deepstack\.)\d+", "N", role).removeprefix("enc.").removeprefix("dec.").removeprefix("cross_")
    bias = name.endswith(".bias")
    cut = _CUTS.get(name.removesuffix(".bias"), "whole")
    return "whole" if bias and cut == "columns" else cut


def local_shape(tensor: Tensor, tp: int, heads: LayerHeads) -> tuple[int, ...]:
    """The shape of one rank's part under tensor parallelism."""
    cut = cut_of(tensor.role)
    if cut == "whole" or not tensor.shape:
        return tensor.shape
    axis = max(len(tensor.shape) - (1 if cut == "columns" else 2), 0)
    if tensor.role.endswith("_exps.bias"):
        axis = 1
    if (tensor.role == "ssm_a" and len(tensor.shape) == 2) or cut == "mamba2":
        axis = 0
    shape = list(tensor.shape)
    shape[axis] = _local_size(cut, shape[axis], tp, heads)
    return tuple(shape)


def _local_size(cut: Cut, size: int, tp: int, heads: LayerHeads) -> int:
    if cut == "vocab":
        return padded_vocab(size) // tp
    if cut == "kv":
        return heads.kv_rows(size, tp)
    if cut == "mamba2":
        return heads.mamba_rows(size, tp)
    every = heads.heads + 2 * heads.kv_heads
    if cut == "qkv" and heads.kv_heads and size % every == 0:
        return size // every * (heads.heads // tp) + 2 * heads.kv_rows(size // every * heads.kv_heads, tp)
    return -(-size // tp)


def stage_layers(layers: int, pp: int) -> tuple[int, ...]:
    """Layers of each pipeline stage: an even split, what is left added from the last but one backwards.

    Source: vLLM 0.32, distributed/utils.py (`get_pp_indices`).
    """
    base, left = divmod(layers, pp)
    return tuple(base + (left > 0 and pp - 1 - left <= stage < pp - 1) for stage in range(pp))
