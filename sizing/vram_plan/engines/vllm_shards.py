"""How vLLM cuts one weight over the ranks of tensor parallelism.

A weight is cut by rows (its outputs: `ColumnParallelLinear`), by columns (its inputs: `RowParallelLinear`), by KV heads
(rows, a head repeated where there are fewer than ranks), or kept whole on every rank.
Source: vLLM 0.32, model_executor/layers/linear.py (`QKVParallelLinear`), vocab_parallel_embedding.py, the models' files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ..models.architecture import CacheLayer, Tensor

__all__ = ["VOCAB_PADDING", "Cut", "Heads", "cut_of", "local_shape", "layer_heads"]

#: `DEFAULT_VOCAB_PADDING_SIZE` of vocab_parallel_embedding.py.
VOCAB_PADDING: Final = 64

Cut = Literal["rows", "columns", "kv", "qkv", "whole", "vocab", "ssm"]

#: Roles cut otherwise than `whole`; a bias follows its matrix's rows.
_CUTS: Final[dict[str, Cut]] = {
    **dict.fromkeys(("token_embd", "output", "per_layer_token_embd"), "vocab"),
    **dict.fromkeys(("attn_k", "attn_v"), "kv"),
    "attn_qkv": "qkv",
    **dict.fromkeys(
        (
            "attn_q", "attn_q_b", "attn_kv_b", "attn_gate", "attn_sinks", "attn_output_a", "ffn_gate", "ffn_up", "ffn_gate_shexp",
            "ffn_up_shexp", "ffn_gate_exps", "ffn_up_exps", "ffn_gate_up_exps", "ssm_ba", "ssm_alpha", "ssm_beta", "ssm_a",
            "ssm_d", "ssm_dt", "ssm_dt.bias", "ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v", "ssm_f_b", "ssm_g", "ssm_g_b", "shortconv.in_proj",
            "shortconv.conv",
        ),
        "rows",
    ),
    **dict.fromkeys(
        ("attn_output", "attn_output_b", "ffn_down", "ffn_down_shexp", "ffn_down_exps", "ssm_out", "ssm_x", "shortconv.out_proj"), "columns"
    ),
    "ssm_in": "ssm",
    "ssm_conv1d": "ssm",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads of one layer, for the cuts that hang on them."""

    heads: int = 0
    kv_heads: int = 0

    def kv_share(self, rows: int, tp: int) -> int:
        """Rows of K (or V) one rank has: whole heads, at least one."""
        if not self.kv_heads or self.kv_heads >= tp:
            return rows // tp
        return rows // self.kv_heads


def layer_heads(layers: tuple[CacheLayer, ...]) -> dict[int, Heads]:
    return {c.layer: Heads(c.heads, c.kv_heads) for c in layers if c.heads}


def cut_of(role: str) -> Cut:
    base = role.removesuffix(".bias")
    cut = _CUTS.get(role) or _CUTS.get(base, "whole")
    return "whole" if role.endswith(".bias") and cut == "columns" else cut


def local_shape(tensor: Tensor, tp: int, heads: Heads) -> tuple[int, ...]:
    """The shape of one rank's part."""
    cut = cut_of(tensor.role)
    if cut == "whole" or not tensor.shape:
        return tensor.shape
    axis = len(tensor.shape) - 1 if cut == "columns" or (len(tensor.shape) == 1) else len(tensor.shape) - 2
    size = tensor.shape[axis]
    if cut == "vocab":
        local = -(-size // VOCAB_PADDING) * VOCAB_PADDING // tp
    elif cut == "kv":
        local = heads.kv_share(size, tp)
    elif cut == "qkv" and heads.kv_heads and size % (heads.heads + 2 * heads.kv_heads) == 0:
        one = size // (heads.heads + 2 * heads.kv_heads)
        local = one * (heads.heads // tp) + 2 * heads.kv_share(one * heads.kv_heads, tp)
    else:
        local = -(-size // tp)
    return (*tensor.shape[:axis], local, *tensor.shape[axis + 1 :])
