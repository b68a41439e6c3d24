"""Models without attention, or nearly so: Mamba, RWKV, xLSTM, RecurrentGemma.

RWKV-5, -6 and -7 live in remote code: their shapes are those llama.cpp loads (`src/models/rwkv6.cpp`, `rwkv7.cpp`,
`conversion/rwkv.py`) and fla's `modeling_rwkv7.py`.
"""

from __future__ import annotations

from dataclasses import replace

from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, mlp, window_cache
from .config import MAX_LAYERS, Config
from .registry import family
from .ssm_blocks import Mamba2, factored, layer_kinds, mamba1, mamba2, mamba_rank


def _shape(c: Config, hidden: int, layers: int, vocab: int) -> Shape:
    """The numbers of a model that has no attention; the arguments are the class defaults."""
    return Shape(
        hidden=c.integer("hidden_size", "d_model", "embedding_dim", default=hidden),
        layers=c.integer("num_hidden_layers", "num_blocks", "n_layer", default=layers, high=MAX_LAYERS),
        heads=0,
        kv_heads=0,
        head_dim=0,
        ffn=0,
        vocab=c.integer("vocab_size", default=vocab),
        trained_context=c.optional("max_position_embeddings", "context_length", "model_max_length", low=1, high=1 << 40),
    )


def _inner(c: Config, hidden: int) -> int:
    """Width of a Mamba-1 mixer: `intermediate_size` where given (falcon-mamba's `expand` is wrong), else expand × hidden."""
    return c.optional("intermediate_size", low=1) or int(factored(c, hidden, "expand", default=2))


@family("mamba", "falcon_mamba")
def mamba(c: Config) -> Architecture:
    s = _shape(c, 768, 32, 50280)
    inner, state = _inner(c, s.hidden), c.integer("state_size", default=16)
    kernel, rank = c.integer("conv_kernel", default=4, high=1024), mamba_rank(c, s.hidden, "time_step_rank")
    bias, conv_bias = c.flag("use_bias"), c.flag("use_conv_bias", default=True)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        return mamba1(inv, layer, s.hidden, inner, state, kernel, rank, bias=bias, conv_bias=conv_bias)

    return decoder(c, s, block, family="mamba", tied=True)


@family("mamba2")
def mamba2_model(c: Config) -> Architecture:
    s = _shape(c, 4096, 64, 32768)
    m = Mamba2(
        s.hidden,
        heads=c.integer("num_heads", default=128, high=1 << 20),
        head_dim=c.integer("head_dim", default=64, high=65536),
        groups=c.integer("n_groups", default=8, high=65536),
        state=c.integer("state_size", default=128),
        kernel=c.integer("conv_kernel", default=4, high=1024),
        bias=c.flag("use_bias"),
        conv_bias=c.flag("use_conv_bias", default=True),
    )

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        return mamba2(inv, layer, m)

    return decoder(c, s, block, family="mamba2")


@family("rwkv")
def rwkv4(c: Config) -> Architecture:
    s = _shape(c, 4096, 32, 50277)
    width = c.integer("attention_hidden_size", default=s.hidden)
    ffn = c.integer("intermediate_size", default=4 * s.hidden)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        _rwkv_norms(inv, layer, s.hidden)
        inv.add("time_mix_decay", layer, width)
        inv.add("time_mix_first", layer, width)
        for part in "kvr":
            inv.add(f"time_mix_lerp_{part}", layer, s.hidden)
        _rwkv_mix(inv, layer, s.hidden, width, gate=False)
        _rwkv_channel_mix(inv, layer, s.hidden, ffn, receptance=True)
        # two shifted inputs in the model's dtype; numerator, denominator and maximum in fp32 (modeling_rwkv.py)
        return CacheLayer(layer, "recurrent", conv_elements=2 * s.hidden, state_elements=3 * s.hidden)

    return decoder(c, s, block, family="rwkv4", norm_bias=True)


@family("rwkv5", "rwkv6")
def rwkv6(c: Config) -> Architecture:
    s = _shape(c, 4096 if c.text("model_type") == "rwkv6" else 2560, 32, 65536)
    six = c.text("model_type") == "rwkv6"
    width = c.integer("attention_hidden_size", default=s.hidden)
    ffn = c.integer("intermediate_size", default=int(s.hidden * 3.5) // 32 * 32)
    head = c.integer("head_size", default=64, high=65536)
    shift_rank, decay_rank = (64, 128) if s.hidden == 4096 else (32, 64)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        _rwkv_norms(inv, layer, s.hidden)
        inv.add("time_mix_decay", layer, width)
        inv.add("time_mix_first", layer, width)
        if six:
            inv.add("time_mix_lerp_x", layer, s.hidden)
            inv.add("time_mix_lerp_fused", layer, 5, s.hidden)
            inv.add("time_mix_w1", layer, 5 * shift_rank, s.hidden)
            inv.add("time_mix_w2", layer, 5, s.hidden, shift_rank)
            inv.add("time_mix_decay_w1", layer, decay_rank, s.hidden)
            inv.add("time_mix_decay_w2", layer, width, decay_rank)
        else:
            inv.add("time_mix_lerp_fused", layer, 4, s.hidden)
        inv.norm("time_mix_ln", layer, width, bias=True)
        _rwkv_mix(inv, layer, s.hidden, width, gate=True)
        _rwkv_channel_mix(inv, layer, s.hidden, ffn, receptance=True)
        return CacheLayer(layer, "recurrent", conv_elements=2 * s.hidden, state_elements=width * head)

    return decoder(c, s, block, family="rwkv6" if six else "rwkv5", norm_bias=True)


@family("rwkv7")
def rwkv7(c: Config) -> Architecture:
    s = _shape(c, 2048, 24, 65536)
    head = c.integer("head_dim", "head_size", default=64, high=65536)
    ffn = c.integer("intermediate_size", default=4 * s.hidden)

    def rank(power: float, factor: float, *keys: str) -> int:
        return c.integer(*keys, default=max(1, round(s.hidden**power * factor / 32)) * 32)

    decay = rank(0.5, 1.8, "decay_low_rank_dim", "lora_rank_decay")
    rate = rank(0.5, 1.8, "a_low_rank_dim", "lora_rank_iclr")
    value = rank(0.5, 1.3, "v_low_rank_dim", "lora_rank_value_residual_mix")
    gate = rank(0.8, 0.6, "gate_low_rank_dim", "lora_rank_gate")

    def block(inv: Inventory, layer: int) -> CacheLayer:
        _rwkv_norms(inv, layer, s.hidden)
        inv.add("time_mix_lerp_fused", layer, 6, s.hidden)
        for part, inside in (("w", decay), ("a", rate), ("v", value), ("g", gate)):
            if part == "v" and layer == 0:  # the first layer's value is what later ones mix in
                continue
            if part != "g":
                inv.add(f"time_mix_{part}0", layer, s.hidden)
            inv.linear(f"time_mix_{part}1", layer, inside, s.hidden)
            inv.linear(f"time_mix_{part}2", layer, s.hidden, inside)
        for role in ("k_k", "k_a", "r_k"):
            inv.add(f"time_mix_{role}", layer, s.hidden)
        inv.norm("time_mix_ln", layer, s.hidden, bias=True)
        _rwkv_mix(inv, layer, s.hidden, s.hidden, gate=False)
        _rwkv_channel_mix(inv, layer, s.hidden, ffn, receptance=False)
        return CacheLayer(layer, "recurrent", conv_elements=2 * s.hidden, state_elements=s.hidden * head)

    return decoder(c, s, block, family="rwkv7", norm_bias=True)


def _rwkv_norms(inv: Inventory, layer: int, hidden: int) -> None:
    if layer == 0:
        inv.norm("token_embd_norm", layer, hidden, bias=True)
    inv.norm("attn_norm", layer, hidden, bias=True)
    inv.norm("attn_norm_2", layer, hidden, bias=True)


def _rwkv_mix(inv: Inventory, layer: int, hidden: int, width: int, *, gate: bool) -> None:
    for part in ("key", "value", "receptance") + (("gate",) if gate else ()):
        inv.linear(f"time_mix_{part}", layer, width, hidden)
    inv.linear("time_mix_output", layer, hidden, width)


def _rwkv_channel_mix(inv: Inventory, layer: int, hidden: int, ffn: int, *, receptance: bool) -> None:
    for part in "kr" if receptance else "k":
        inv.add(f"channel_mix_lerp_{part}", layer, hidden)
    inv.linear("channel_mix_key", layer, ffn, hidden)
    if receptance:
        inv.linear("channel_mix_receptance", layer, hidden, hidden)
    inv.linear("channel_mix_value", layer, hidden, ffn)


def _round_up(width: float, multiple: int) -> int:
    return int((width + multiple - 1) // multiple * multiple)


@family("xlstm")
def xlstm(c: Config) -> Architecture:
    s = _shape(c, 4096, 32, 50304)
    blocks = c.integer("num_blocks", "num_hidden_layers", default=32, high=MAX_LAYERS)
    heads, bias = c.integer("num_heads", default=8, high=65536), c.flag("use_bias")
    qk, v = factored(c, s.hidden, "qk_dim_factor", default=0.5), factored(c, s.hidden, "v_dim_factor", default=1.0)
    ffn = _round_up(factored(c, s.hidden, "ffn_proj_factor", default=2.667), c.integer("ffn_round_up_to_multiple_of", default=64))
    qk_head, v_head = _round_up(qk, 64) // heads, _round_up(v, 64) // heads
    qk, v = int(qk), int(v)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden, bias)
        inv.linear("attn_q", layer, qk, s.hidden, bias)
        inv.linear("attn_k", layer, qk, s.hidden, bias)
        inv.linear("attn_v", layer, v, s.hidden, bias)
        inv.linear("attn_gate", layer, v, s.hidden, bias)
        inv.linear("ssm_alpha", layer, heads, s.hidden, bias=True)
        inv.linear("ssm_beta", layer, heads, s.hidden, bias=True)
        inv.norm("ssm_norm", layer, v, bias)
        inv.linear("attn_output", layer, s.hidden, v, bias)
        inv.norm("ffn_norm", layer, s.hidden, bias)
        mlp(inv, layer, s.hidden, ffn, bias=bias)
        # memory, normaliser and maximum of each head, all in the model's dtype (modeling_xlstm.py: xLSTMCache)
        return CacheLayer(layer, "recurrent", conv_elements=heads * (qk_head * v_head + qk_head + 1))

    return decoder(c, replace(s, layers=blocks), block, family="xlstm")


@family("recurrent_gemma")
def recurrent_gemma(c: Config) -> Architecture:
    hidden = c.integer("hidden_size", default=2560)
    heads = c.integer("num_attention_heads", default=10, high=65536)
    s = Shape(
        hidden=hidden,
        layers=c.integer("num_hidden_layers", default=26, high=MAX_LAYERS),
        heads=heads,
        kv_heads=c.integer("num_key_value_heads", default=heads, high=65536),
        head_dim=hidden // heads,
        ffn=c.integer("intermediate_size", default=7680) // 2,
        vocab=c.integer("vocab_size", default=256000),
        trained_context=c.optional("max_position_embeddings", low=1, high=1 << 40) or 8192,
    )
    lru, kernel = c.integer("lru_width", default=hidden), c.integer("conv1d_width", default=4, high=1024)
    window, bias = c.integer("attention_window_size", "sliding_window", default=2048), c.flag("attention_bias")
    pattern = [kind for kind in c.items("block_types") or () if isinstance(kind, str)] or ["recurrent", "recurrent", "attention"]
    kinds = layer_kinds(c, s.layers) if not c.has("block_types") else None

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, hidden)
        kind = kinds[layer] if kinds else pattern[layer % len(pattern)]
        if kind in ("recurrent", "linear_attention"):
            cache = _gated_linear_recurrence(inv, layer, hidden, lru, kernel, heads)
        else:
            attention(inv, layer, s, bias=bias, out_bias=True)
            cache = window_cache(s, layer, window)
        inv.norm("ffn_norm", layer, hidden)
        mlp(inv, layer, hidden, s.ffn, bias=True)
        return cache

    return decoder(c, s, block, family="recurrent_gemma", tied=True)


def _gated_linear_recurrence(inv: Inventory, layer: int, hidden: int, width: int, kernel: int, heads: int) -> CacheLayer:
    """RecurrentGemma's RG-LRU block; its convolution keeps one input less than others' (modeling_recurrent_gemma.py)."""
    inv.linear("lru_y", layer, width, hidden, bias=True)
    inv.linear("lru_x", layer, width, hidden, bias=True)
    inv.linear("lru_out", layer, hidden, width, bias=True)
    inv.add("ssm_conv1d", layer, width, kernel)
    inv.add("ssm_conv1d.bias", layer, width)
    inv.add("lru_a", layer, width)
    for gate in ("lru_input_gate", "lru_recurrent_gate"):
        inv.add(gate, layer, heads, width // heads, width // heads)
        inv.add(f"{gate}.bias", layer, width // heads * heads)
    return CacheLayer(layer, "recurrent", conv_elements=hidden * (kernel - 1), state_elements=width)
