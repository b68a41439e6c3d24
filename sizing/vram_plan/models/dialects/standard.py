"""The reading of an architecture nobody has described here: a standard transformer, labelled as a guess."""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, attention, decoder, mlp, moe, read_shape, window_cache
from .config import Config

__all__ = ["standard"]

#: Keys that say nothing of shapes, so that not knowing them is no loss.
_HARMLESS = (
    "_token_id", "_dropout", "_pdrop", "_eps", "_epsilon", "initializer_range", "_version", "_map", "use_cache", "id2label",
    "label2id", "hidden_act", "hidden_activation", "rope_theta", "rope_scaling", "rope_parameters", "torch_dtype", "dtype",
    "architectures", "initializer", "softcapping", "_scaling_factor", "_multiplier", "_std",
)  # fmt: skip


def standard(c: Config) -> Architecture:
    """Llama's shape with what the usual keys say of experts and windows; names the keys it did not understand."""
    inner = c.section("text_config", "llm_config", "language_config")
    if inner is not None:
        c = c.merged(inner)
    s = read_shape(c)
    experts = c.integer("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", default=0, low=0, high=65536)
    expert_width = c.integer("moe_intermediate_size", "expert_intermediate_size", default=s.ffn)
    first_dense = c.integer("first_k_dense_replace", default=0, low=0)
    bias = c.flag("attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        attention(inv, layer, s, bias=bias)
        inv.norm("ffn_norm", layer, s.hidden)
        if experts and layer >= first_dense:
            moe(inv, layer, s.hidden, experts, expert_width)
        else:
            mlp(inv, layer, s.hidden, s.ffn)
        return window_cache(s, layer)

    per_token = c.integer("num_experts_per_tok", "experts_per_token", "moe_top_k", default=min(experts, 2), low=0, high=65536)
    found = decoder(c, s, block, family="standard", basis="fallback", experts=experts, experts_per_token=per_token)
    return replace(found, notes=(_note(c),))


def _note(c: Config) -> str:
    unknown = sorted(k for k, v in c.raw.items() if k not in c.asked and v is not None and not k.endswith(_HARMLESS) and k != "model_type")
    kind = c.text("model_type", default="absent")
    listed = ", ".join(key[:40] for key in unknown[:12]) + (" …" if len(unknown) > 12 else "")
    return f"architecture {kind[:40]!r} is not known: read as a standard transformer" + (
        f"; keys not understood: {listed}" if unknown else ""
    )
