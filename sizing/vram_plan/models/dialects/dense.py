"""Dense decoders of Llama's kind: rotary positions, grouped-query attention, one (usually gated) feed-forward block a layer.

Facts: transformers 5.23, models/*/configuration_*.py and modeling_*.py; families transformers does not know are
read from their own published modelling code (named where they stand).
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt

from ..architecture import Architecture
from .blocks import Inventory, Shape, read_shape
from .config import Config
from .plain import NORMS, POST, SANDWICH, Plain, defaulted, llama_shape, read_plain, register, sizes
from .registry import family
from .windows import NO_WINDOWS, Windows

_LATE = Windows(4096, rule="late")


def _sub_norms(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """BitNet: a norm before each output projection."""
    inv.norm("attn_sub_norm", layer, s.hidden)
    inv.norm("ffn_sub_norm", layer, s.ffn)


def _lambdas(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Differential attention's four learned vectors."""
    for name in ("q1", "k1", "q2", "k2"):
        inv.add(f"attn_lambda_{name}", layer, s.head_dim)


def _xielu(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Apertus: xIELU has two learned numbers."""
    if c.text("hidden_act", default="xielu") == "xielu":
        inv.add("ffn_act_alpha_p", layer, 1)
        inv.add("ffn_act_alpha_n", layer, 1)


def _sinks(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    inv.add("attn_sinks", layer, s.heads)


def _doge(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Doge: a learned residual scale twice a layer, and the dynamic mask's projection."""
    inv.add("attn_residual_scale", layer, s.hidden)
    inv.add("ffn_residual_scale", layer, s.hidden)
    inv.add("attn_mask_a", layer, s.kv_heads)
    inv.linear("attn_mask_dt", layer, s.kv_heads, s.kv_width, c.flag("attention_bias"))
    vectors = c.integer("num_experts", default=16384) if c.flag("is_moe") else 0
    if vectors:  # experts of one vector each, looked up like embeddings beside the dense block
        inv.linear("ffn_gate_inp", layer, 2 * isqrt(vectors), s.hidden)
        inv.add("ffn_down_embd", layer, vectors, s.hidden)
        inv.add("ffn_up_embd", layer, vectors, s.hidden)


LLAMA = Plain(sizes(32, 4096, 32, 32000, 2048, ffn=11008), mlp_bias="mlp_bias")
QWEN2 = Plain(
    sizes(32, 4096, 32, 151936, 32768, kv_heads=32, ffn=22016),
    bias=True,
    out_bias=False,
    windows=_LATE,
)
MISTRAL = Plain(
    sizes(32, 4096, 32, 32000, 131072, kv_heads=8, ffn=14336),
    bias=False,
    out_bias=False,
    windows=Windows(4096),
)
COHERE = Plain(
    sizes(40, 8192, 64, 256000, 8192, ffn=22528),
    norms=("attn_norm",),
    qk_norm="full",
    qk_norm_if="use_qk_norm",
    tied=True,
)
GLM = Plain(
    sizes(40, 4096, 32, 151552, 131072, kv_heads=2, head_dim=128, ffn=13696),
    bias="attention_bias=true",
    out_bias=False,
    fused_ffn=True,
)
OLMO2 = Plain(
    sizes(32, 4096, 32, 50304, 2048, ffn=11008),
    norms=POST,
    qk_norm="full",
)
#: InternLM2, Aquila, Skywork, Xverse … keep Llama's tensors under a type of their own.
BARE = replace(LLAMA, bias=False, out_bias=False, mlp_bias=False)

register(
    {
        "llama code_llama Yi": LLAMA,
        "iquestcoder": replace(LLAMA, defaults=sizes(80, 5120, 40, 76800, 131072, kv_heads=8, head_dim=128, ffn=27648)),
        "internlm3": replace(
            LLAMA, defaults=sizes(48, 4096, 32, 128512, 32768, ffn=10240, kv_heads=2, head_dim=128)
        ),
        "internlm": replace(BARE, bias="bias=true", out_bias="bias=true"),
        "internlm2": replace(BARE, bias="bias", out_bias="bias"),
        "aquila xverse exaone baichuan skywork solar yuan open_llama": BARE,
        "qwen2 Dream dream": QWEN2,
        "mimo": QWEN2,
        "qwen3": replace(
            QWEN2, defaults={**QWEN2.defaults, "head_dim": 128}, bias="attention_bias", out_bias="attention_bias", qk_norm="head"
        ),
        "mistral": MISTRAL,
        "ministral": MISTRAL,
        "ministral3": replace(
            MISTRAL, defaults={**MISTRAL.defaults, "layers": 34, "head_dim": 128, "vocab": 131072, "context": 262144}, windows=NO_WINDOWS
        ),
        "phi3": Plain(
            sizes(32, 3072, 32, 32064, 4096, ffn=8192),
            bias=False,
            out_bias=False,
            fused=True,
            fused_ffn=True,
        ),
        "cohere": COHERE,
        "cohere2": replace(COHERE, qk_norm="", windows=Windows(4096, full_every=4, named=True)),
        "cohere_compass_text": replace(COHERE, qk_norm=""),
        "olmo": replace(OLMO2, norms=(), final_norm=False, qk_norm=""),
        "olmo2": OLMO2,
        "olmo3": replace(OLMO2, windows=Windows(4096, full_every=4)),
        "glm": GLM,
        "glm4": replace(GLM, norms=SANDWICH),
        "granite": LLAMA,
        "granite_swa": replace(
            LLAMA,
            defaults=sizes(24, 2560, 20, 100352, 8192, kv_heads=4, ffn=8192),
            tied=True,
            windows=Windows(128, full_every=4, full_first=True),
            layer_extra=_sinks,
        ),
        "smollm3": replace(
            LLAMA,
            defaults=sizes(36, 2048, 16, 128256, 32768, kv_heads=4, ffn=11008),
            tied=True,
            windows=Windows(rule="nope"),
        ),
        "seed_oss": replace(
            LLAMA,
            defaults=sizes(64, 4096, 80, 155136, 524288, kv_heads=8, head_dim=128, ffn=27648),
            bias="attention_bias=true",
            out_bias="attention_out_bias",
        ),
        "helium": replace(
            LLAMA,
            defaults=sizes(24, 2560, 20, 48000, 4096, kv_heads=20, head_dim=128, ffn=7040),
            out_bias=False,
        ),
        "arcee": replace(
            LLAMA, defaults=sizes(32, 2560, 32, 32000, 4096, ffn=18432), gated=False
        ),
        "cwm": replace(
            LLAMA,
            defaults=sizes(64, 6144, 48, 128256, 131072, kv_heads=8, head_dim=128, ffn=21504),
            bias=False,
            out_bias=False,
            windows=Windows(8192, full_every=4, full_first=True),
        ),
        "ernie4_5": Plain(
            sizes(18, 1024, 16, 103424, 131072, kv_heads=2, head_dim=128, ffn=3072),
            bias="use_bias",
            out_bias="use_bias",
            mlp_bias="use_bias",
            tied=True,
        ),
        "exaone4": Plain(
            sizes(32, 4096, 32, 102400, 2048, kv_heads=32, ffn=16384),
            bias=False,
            out_bias=False,
            norms=POST,
            qk_norm="head",
            windows=Windows(4096, full_every=4, named=True),
        ),
        "hunyuan_v1_dense": replace(LLAMA, defaults={**LLAMA.defaults, "vocab": 290943}, mlp_bias=False, qk_norm="head"),
        "bitnet": Plain(
            sizes(30, 2560, 20, 128256, 2048, kv_heads=5, ffn=6912), layer_extra=_sub_norms
        ),
        "apertus": Plain(
            sizes(32, 4096, 32, 131072, 65536, ffn=14336),
            gated=False,
            qk_norm="head",
            layer_extra=_xielu,
        ),
        "diffllama": Plain(
            sizes(16, 2048, 32, 32000, 2048, ffn=8192), layer_extra=_lambdas
        ),
        "nemotron": Plain(
            sizes(32, 6144, 48, 256000, 4096, ffn=24576),
            mlp_bias="mlp_bias",
            gated=False,
            norm_bias=True,
        ),
        "jais2": Plain(
            sizes(32, 3328, 26, 150272, 8192, ffn=26624),
            bias="attention_bias=true",
            out_bias="attention_bias=true",
            mlp_bias="mlp_bias=true",
            gated=False,
            norm_bias=True,
        ),
        "starcoder2": Plain(
            sizes(30, 3072, 24, 49152, 4096, kv_heads=2, ffn=12288),
            bias="use_bias=true",
            out_bias="use_bias=true",
            mlp_bias="use_bias=true",
            gated=False,
            norm_bias=True,
            tied=True,
        ),
        "nanochat": Plain(
            sizes(12, 768, 6, 50304, 2048, ffn=8192),
            norms=(),
            final_norm=False,
            gated=False,
        ),
        "orion": Plain(bias=False, out_bias=False, norm_bias=True),
        "doge": Plain(
            sizes(32, 1024, 8, 32768, 2048, ffn=2048),
            mlp_bias="mlp_bias",
            qk_norm="head",
            layer_extra=_doge,
        ),
    }
)


@family("stablelm", "stablelm_epoch")
def stablelm(c: Config) -> Architecture:
    """StableLM: LayerNorms; one a layer when the residual is parallel."""
    defaults = sizes(32, 2560, 32, 50304, 4096, kv_heads=32, ffn=6912)
    norms = ("attn_norm",) if c.flag("use_parallel_residual") else NORMS
    plain = Plain(
        defaults, bias="use_qkv_bias", out_bias=False, norms=norms, norm_bias=True, qk_norm="full", qk_norm_if="qk_layernorm"
    )
    return read_plain(c, plain, "stablelm")


@family("hyperclovax")
def hyperclovax(c: Config) -> Architecture:
    """HyperCLOVA X: Granite, with a norm after each half where `use_post_norm` does not say otherwise."""
    norms = SANDWICH if c.flag("use_post_norm", default=True) else NORMS
    return read_plain(c, replace(LLAMA, norms=norms), "hyperclovax")


@family("qwen")
def qwen(c: Config) -> Architecture:
    """Qwen 1: fused projections with a bias, and a feed-forward block half as wide as `intermediate_size` says."""
    s = read_shape(c)
    bias = not c.flag("no_bias", default=True)
    plain = Plain(bias=True, out_bias=bias, mlp_bias=bias, fused=True)
    return read_plain(c, plain, "qwen", replace(s, ffn=max(s.ffn // 2, 1)))


@family("chatglm")
def chatglm(c: Config) -> Architecture:
    """ChatGLM 2 and 3 and GLM-4-9B; the first ChatGLM, which has `inner_hidden_size`, has LayerNorms and a bias everywhere."""
    if c.has("inner_hidden_size"):
        s = replace(read_shape(c), ffn=c.integer("inner_hidden_size"))
        return read_plain(c, Plain(bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True, fused=True), "chatglm", s)
    s = read_shape(defaulted(c, vocab_size=c.optional("padded_vocab_size", low=1)))
    if c.flag("multi_query_attention"):
        s = replace(s, kv_heads=c.integer("multi_query_group_num", default=1, high=65536))
    every = c.flag("add_bias_linear")
    plain = Plain(
        bias=every or c.flag("add_qkv_bias"),
        out_bias=every,
        mlp_bias=every,
        norm_bias=not c.flag("rmsnorm", default=True),
        final_norm=c.flag("post_layer_norm", default=True),
        fused=True,
        fused_ffn=True,
    )
    return read_plain(c, plain, "chatglm", s)


@family("phi3small")
def phi3small(c: Config) -> Architecture:
    """Phi-3-small (its own modelling code): LayerNorms and a bias everywhere, gate and up in one matrix, tied by default."""
    s = llama_shape(defaulted(c, intermediate_size=c.optional("ff_intermediate_size", low=1)), {})
    plain = Plain(bias=True, out_bias=True, mlp_bias=True, norm_bias=True, fused=True, fused_ffn=True, tied=True)
    return read_plain(c, plain, "phi3small", s)


@family("telechat")
def telechat(c: Config) -> Architecture:
    """TeleChat (its own modelling code): a bias on both output projections only."""
    s = read_shape(c)

    def down_bias(inv: Inventory, layer: int, _: Config, s: Shape) -> None:
        inv.add("ffn_down.bias", layer, s.hidden)

    return read_plain(c, Plain(bias=False, out_bias=True, layer_extra=down_bias), "telechat", s)
