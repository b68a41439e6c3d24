"""Nemotron-H and Nemotron 3: one block a layer — Mamba-2, attention, a dense block or routed experts, by a pattern."""

from __future__ import annotations

from dataclasses import replace

from ...errors import FormatError
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, read_shape, window_cache
from .config import MAX_LAYERS, Config
from .registry import family
from .ssm_blocks import Mamba2, add_mtp, mamba2

_LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}


@family("nemotron_h")
def nemotron_h(c: Config) -> Architecture:
    """Experts and dense blocks have no gate; with `moe_latent_size` the routed experts work in that narrower width."""
    kinds = _kinds(c, "layers_block_type", "hybrid_override_pattern") or ["linear_attention", "moe", "full_attention", "mlp"]
    s = read_shape(c, layers=len(kinds), hidden=4096, heads=32, kv_heads=8, head_dim=128, vocab=131072, ffn=21504, context=4096)
    s = replace(s, layers=len(kinds))
    m = Mamba2(
        s.hidden,
        heads=c.integer("mamba_num_heads", default=128, high=1 << 20),
        head_dim=c.integer("mamba_head_dim", default=64, high=65536),
        groups=c.integer("mamba_n_groups", "n_groups", default=8, high=65536),
        state=c.integer("ssm_state_size", default=128),
        kernel=c.integer("mamba_d_conv", "conv_kernel", default=4, high=1024),
        bias=c.flag("use_bias"),
        conv_bias=c.flag("mamba_conv_bias", "use_conv_bias", default=True),
    )

    def block(inv: Inventory, layer: int) -> CacheLayer | None:
        return _block(inv, layer, c, s, m, kinds[layer])

    experts = c.integer("n_routed_experts", "num_local_experts", default=8, high=65536) if "moe" in kinds else 0
    per_token = c.integer("num_experts_per_tok", default=2, high=65536) if experts else 0
    found = decoder(c, s, block, family="nemotron_h", experts=experts, experts_per_token=per_token)
    return add_mtp(found, _draft(c, s, m, found.dtype))


def _block(inv: Inventory, layer: int, c: Config, s: Shape, m: Mamba2, kind: str) -> CacheLayer | None:
    inv.norm("attn_norm", layer, s.hidden)
    if kind == "linear_attention":
        return mamba2(inv, layer, m)
    if kind == "full_attention":
        attention(inv, layer, s)
        return window_cache(s, layer)
    bias = c.flag("mlp_bias")
    if kind == "moe":
        _experts(inv, layer, c, s, bias)
    else:
        mlp(inv, layer, s.hidden, s.ffn, gated=False, bias=bias)
    return None


def _experts(inv: Inventory, layer: int, c: Config, s: Shape, bias: bool) -> None:
    experts = c.integer("n_routed_experts", "num_local_experts", default=8, high=65536)
    width, latent = c.integer("moe_intermediate_size", default=7688), c.optional("moe_latent_size", low=1)
    inner = latent or s.hidden
    inv.linear("ffn_gate_inp", layer, experts, s.hidden)
    if latent:
        inv.linear("ffn_latent_down", layer, latent, s.hidden, bias)
        inv.linear("ffn_latent_up", layer, s.hidden, latent, bias)
    inv.add("ffn_up_exps", layer, width, inner, experts=experts)
    inv.add("ffn_down_exps", layer, inner, width, experts=experts)
    shared = c.integer("moe_shared_expert_intermediate_size", default=7688)
    mlp(inv, layer, s.hidden, shared, gated=False, bias=bias, suffix="_shexp")


def _draft(c: Config, s: Shape, m: Mamba2, dtype: str) -> Inventory:
    """The MTP layers (llama.cpp `src/models/nemotron-h.cpp`): what joins state and embedding, then the MTP pattern."""
    inv = Inventory(dtype, part="mtp")
    kinds = _kinds(c, "mtp_layers_block_type", "mtp_hybrid_override_pattern") or ["full_attention", "moe"]
    for step in range(c.integer("num_nextn_predict_layers", default=0, low=0, high=64)):
        layer = s.layers + step
        inv.norm("nextn.enorm", layer, s.hidden)
        inv.norm("nextn.hnorm", layer, s.hidden)
        inv.linear("nextn.eh_proj", layer, s.hidden, 2 * s.hidden)
        for kind in kinds:
            _block(inv, layer, c, s, m, kind)
        inv.norm("nextn.shared_head_norm", layer, s.hidden)
    return inv


def _kinds(c: Config, list_key: str, pattern_key: str) -> list[str] | None:
    """The blocks in order, from a list of names or from a pattern of letters."""
    named = c.items(list_key, MAX_LAYERS)
    if list_key == "layers_block_type" and named is None:
        named = c.items("layer_types", MAX_LAYERS)
    if named:
        known = {"mamba": "linear_attention", "attention": "full_attention", **{kind: kind for kind in _LETTERS.values()}}
        return [_known(c, list_key, entry, known) for entry in named]
    pattern = c.get(pattern_key)
    if pattern is None:
        return None
    if not isinstance(pattern, str) or len(pattern) > MAX_LAYERS:
        raise FormatError(f"{c.where}: {pattern_key} must be a text of at most {MAX_LAYERS} letters, one a layer")
    return [_known(c, pattern_key, letter, _LETTERS) for letter in pattern] or None


def _known(c: Config, key: str, entry: object, known: dict[str, str]) -> str:
    if not isinstance(entry, str) or entry not in known:
        raise FormatError(f"{c.where}: {key} holds {str(entry)[:40]!r}; it should be one of {', '.join(known)}")
    return known[entry]
