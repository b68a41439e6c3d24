"""Hybrids with several residual streams: GLM-5 next and Qwen4-Exp. Source: transformers 5.23 `modeling_*.py` of each."""

from __future__ import annotations

from itertools import count

from ...errors import FormatError
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, attention, decoder, latent_attention, mlp, moe, read_shape, window_cache
from .config import Config
from .registry import family
from .ssm_blocks import DeltaNet, gated_delta_net, kimi_delta, layer_kinds, with_defaults

#: More hashed n-gram tables than any published model has; each costs a search for a prime.
_MAX_NGRAM_TABLES = 512


@family("glm5_next_text")
def glm5_next(c: Config) -> Architecture:
    """Kimi delta attention, and latent attention with an indexer over pools of tokens; several residual streams."""
    c = with_defaults(c, kv_lora_rank=512, q_lora_rank=1536, qk_rope_head_dim=0, qk_nope_head_dim=256, v_head_dim=256)
    s = read_shape(c, layers=45, hidden=4096, heads=64, vocab=154880, ffn=12288, context=1048576)
    linear = c.section("linear_attn_config") or Config({}, c.where)
    heads = linear.integer("num_heads", default=c.integer("linear_num_heads", default=64), high=65536)
    dim = linear.integer("head_dim", default=c.integer("linear_head_dim", default=128), high=65536)
    kernel = linear.integer("short_conv_kernel_size", default=c.integer("linear_conv_kernel_dim", default=4), high=1024)
    kinds = layer_kinds(c, s.layers) or ["linear_attention" if i % 4 != 3 else "indexed_attention" for i in range(s.layers)]
    experts = c.integer("n_routed_experts", "num_local_experts", default=288, high=65536)
    width = c.integer("moe_intermediate_size", default=2048)
    shared = width * c.integer("n_shared_experts", default=1, low=0, high=65536)
    named = c.items("mlp_layer_types")
    sparse = [kind == "sparse" for kind in named] if named and len(named) >= s.layers else [i >= 3 for i in range(s.layers)]
    own_index, streams, bias = _indexers(c, s.layers), c.integer("hc_mult", default=4, high=64), c.flag("attention_bias")

    def latent(inv: Inventory, layer: int) -> CacheLayer:
        cache = latent_attention(inv, layer, c, s, bias=bias)
        return cache._replace(index_dim=_glm_indexer(inv, layer, c, s.hidden)) if own_index[layer] else cache

    def block(inv: Inventory, layer: int) -> CacheLayer:
        inv.norm("attn_norm", layer, s.hidden)
        linear_layer = kinds[layer] == "linear_attention"
        cache = kimi_delta(inv, layer, s.hidden, heads, dim, kernel) if linear_layer else latent(inv, layer)
        inv.norm("ffn_norm", layer, s.hidden)
        if sparse[layer]:
            moe(inv, layer, s.hidden, experts, width, shared=shared)
        else:
            mlp(inv, layer, s.hidden, s.ffn)
        for part in ("attn", "ffn"):  # manifold-constrained hyper-connections
            mixes = (2 + streams) * streams
            inv.add(f"hc_{part}_fn", layer, mixes, streams * s.hidden)
            inv.add(f"hc_{part}_base", layer, mixes)
            inv.add(f"hc_{part}_scale", layer, 3)
        return cache

    per_token = c.integer("num_experts_per_tok", default=8, high=65536)
    return decoder(c, s, block, family="glm5_next", experts=experts, experts_per_token=per_token)


def _indexers(c: Config, layers: int) -> list[bool]:
    """Which layers run an indexer of their own; the others reuse the selection of the one before."""
    named = c.items("indexer_types") or c.items("index_topk_pattern")
    if named is None and c.text("index_topk_pattern"):
        named = list(c.text("index_topk_pattern"))
    if named and len(named) >= layers:
        return [kind in ("full", "F") for kind in named[:layers]]
    every, offset = c.integer("index_topk_freq", default=1, low=0), c.integer("index_skip_topk_offset", default=2, low=0)
    return [max(layer - offset + 1, 0) % max(every, 1) == 0 for layer in range(layers)]


def _glm_indexer(inv: Inventory, layer: int, c: Config, hidden: int) -> int:
    """The indexer's weights; returns what it keeps per token: a key, its gate and whether it is no padding."""
    dim, heads = c.integer("index_head_dim", default=128, high=65536), c.integer("index_n_heads", default=32, high=65536)
    inv.linear("indexer.attn_q_b", layer, heads * dim, c.integer("q_lora_rank"))
    inv.linear("indexer.attn_k", layer, dim, hidden)
    inv.norm("indexer.k_norm", layer, dim, bias=True)
    inv.linear("indexer.proj", layer, heads, hidden)
    inv.add("indexer.compress_ape", layer, c.integer("index_kpool", default=16, high=65536), dim)
    inv.linear("indexer.compress_gate", layer, dim, hidden)
    return 2 * dim + 1


@family("qwen4_exp_text")
def qwen4_exp(c: Config) -> Architecture:
    """Gated delta nets, attention with an indexer, several residual streams, and hashed n-gram embeddings in some layers."""
    s = read_shape(c, layers=40, hidden=2048, heads=16, kv_heads=2, head_dim=256, vocab=248320, context=32768)
    d, bias, interval = DeltaNet.read(c), c.flag("attention_bias"), c.integer("full_attention_interval", default=4)
    kinds = layer_kinds(c, s.layers) or ["linear_attention" if (i + 1) % interval else "indexed_attention" for i in range(s.layers)]
    experts = c.integer("num_experts", "num_local_experts", default=512, high=65536)
    width, shared = c.integer("moe_intermediate_size", default=512), c.integer("shared_expert_intermediate_size", default=512)
    streams, rank = c.integer("hc_count", default=4, high=64), c.integer("hc_lowrank", default=320)
    ngram_layers = {number - 1: index for index, number in enumerate(sorted(set(c.integers("ple_layer_ids", low=1) or ())))}
    indexer_dim = c.integer("indexer_head_dim", default=0, low=0, high=65536)

    def mixer(inv: Inventory, layer: int | None, name: str, *, inject: bool = True) -> None:
        wide = streams * s.hidden
        inv.norm(f"hc_{name}_norm", layer, wide)
        inv.linear(f"hc_{name}_down", layer, rank, wide)
        inv.linear(f"hc_{name}_up", layer, wide, rank)
        if inject:
            inv.linear(f"hc_{name}_inject", layer, streams, wide)

    def full(inv: Inventory, layer: int) -> CacheLayer:
        attention(inv, layer, s, bias=bias, out_bias=bias, qk_norm="head", gate=True)
        if indexer_dim:
            index_heads = c.integer("indexer_n_heads", high=65536) + c.integer("indexer_kv_heads", default=1, high=65536)
            inv.linear("indexer.attn_qk", layer, index_heads * indexer_dim, s.hidden)
            inv.norm("indexer.q_norm", layer, indexer_dim)
            inv.norm("indexer.k_norm", layer, indexer_dim)
        return window_cache(s, layer)._replace(index_dim=indexer_dim)

    def block(inv: Inventory, layer: int) -> CacheLayer:
        linear = kinds[layer] == "linear_attention"
        cache = gated_delta_net(inv, layer, s.hidden, d) if linear else full(inv, layer)
        if layer in ngram_layers:
            kept = _ngram_embedding(inv, layer, c, s, streams, ngram_layers[layer])
            cache = cache._replace(conv_elements=cache.conv_elements + kept)
        moe(inv, layer, s.hidden, experts, width, shared=shared)
        inv.linear("ffn_gate_inp_shexp", layer, 1, s.hidden)
        mixer(inv, layer, "attn")
        mixer(inv, layer, "ffn")
        if layer == s.layers - 1:
            mixer(inv, None, "output", inject=False)
        return cache

    per_token = c.integer("num_experts_per_tok", default=10, high=65536)
    return decoder(c, s, block, family="qwen4_exp", final_norm=False, experts=experts, experts_per_token=per_token)


def _ngram_embedding(inv: Inventory, layer: int, c: Config, s: Shape, streams: int, index: int) -> int:
    """One layer's n-gram tables and what joins them to the streams; returns the convolution inputs it keeps.

    Each table has a prime number of rows, the next one after `ngram_vocab_size_base` not yet taken.
    """
    longest, per_order = c.integer("ngram_size", default=3, low=2, high=64), c.integer("heads_per_ngram", default=8, high=1024)
    tables, wide = (longest - 1) * per_order, streams * s.hidden
    width = c.integer("ple_embed_dim", default=s.hidden)
    if (index + 1) * tables > _MAX_NGRAM_TABLES:
        raise FormatError(f"{c.where}: ple_layer_ids and heads_per_ngram ask for more than {_MAX_NGRAM_TABLES} n-gram tables")
    primes = _primes_from(c.integer("ngram_vocab_size_base", default=20_000_000), (index + 1) * tables)
    unit = c.integer("make_ngram_vocab_size_divisible_by", default=128)
    rows = -(-sum(primes[index * tables :]) // unit) * unit
    kernel = c.integer("ple_conv_kernel_size", default=4, high=1024)
    inv.add("ngram_embd", layer, rows, width // tables)
    inv.linear("ngram_key", layer, wide, width)
    inv.linear("ngram_value", layer, s.hidden, width)
    for role in ("key", "query", "conv"):
        inv.norm(f"ngram_{role}_norm", layer, wide)
    inv.add("ngram_conv1d", layer, wide, kernel)
    return wide * (kernel - 1) * longest


def _primes_from(start: int, how_many: int) -> list[int]:
    """The first primes not below `start`."""
    found: list[int] = []
    for number in count(max(start, 2)):
        if len(found) == how_many:
            break
        if number == 2 or (number % 2 and all(number % odd for odd in range(3, int(number**0.5) + 1, 2))):
            found.append(number)
    return found
