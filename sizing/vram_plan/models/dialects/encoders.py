"""Encoders: BERT and its relatives, which embed, classify or fill in masks. They keep no cache.

Facts: transformers 5.23, models/*/modeling_*.py (bert, roberta, distilbert, modernbert, nomic_bert, gte, mpnet, electra,
deberta_v2 …); role names: llama.cpp, src/llama-arch.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace

from ...values import dataclass
from ..architecture import Architecture, CacheLayer
from .blocks import Inventory, Shape, architecture_name, attention, dtype_of, mlp, read_shape
from .config import Config
from .plain import Flag, defaulted, flag, sizes
from .registry import family

__all__ = ["BASE", "Encoder", "finished", "head_of", "labels", "read_encoder", "token_head"]

#: Class names whose head predicts tokens.
_TOKEN_HEADS = ("ForMaskedLM", "LMHeadModel", "ForCausalLM", "ForPreTraining")
_CLASS_HEADS = ("ForSequenceClassification", "ForNextSentencePrediction", "ForMultipleChoice")
BASE = sizes(12, 768, 12, 30522, 512, ffn=3072)


@dataclass(frozen=True)
class Encoder:
    """What sets an encoder apart from BERT.

    `types` is the class default of `type_vocab_size` (negative: no table). The bare model ends in a `pooler`, which the
    pre-training class (`pools_classes`) or every class (`pools_tokens`) keeps; ELECTRA's pre-training class tells true
    tokens from false. `bare` is the class taken when the config names none, `narrow` the key of an embedding width.
    """

    defaults: Mapping[str, int] = field(default_factory=lambda: BASE)
    positions: bool = True
    types: int = 2
    embedding_norm: bool = True
    final_norm: bool = False
    bias: Flag = True
    mlp_bias: Flag = True
    gated: bool = False
    down_bias: bool = False
    norm_bias: bool = True
    rms: bool = False
    pooler: bool = True
    pools_classes: bool = False
    pools_tokens: bool = False
    discriminates: bool = False
    bare: str = "Model"
    narrow: str = ""
    more: Callable[[Inventory, Config, Shape], None] | None = None
    layer_extra: Callable[[Inventory, int, Config, Shape], None] | None = None


def read_encoder(c: Config, e: Encoder, name: str) -> Architecture:
    """Embeddings, `layers` times bidirectional attention and a feed-forward block, and the head the class name asks for."""
    s = read_shape(c, **e.defaults)
    inv = Inventory(dtype_of(c))
    width = c.integer(e.narrow, default=e.defaults.get(e.narrow, s.hidden)) if e.narrow else s.hidden
    _embeddings(inv, c, e, s, width)
    for layer in range(s.layers):
        _layer(inv, layer, c, e, s)
    if e.final_norm:
        inv.norm("output_norm", None, s.hidden, e.norm_bias and not e.rms)
    if e.more:
        e.more(inv, c, s)
    _head(inv, c, e, s, width)
    cached = [CacheLayer(i, "full", s.heads, s.kv_heads, s.head_dim, s.head_dim) for i in range(s.layers)] if c.flag("is_decoder") else []
    return finished(c, s, inv, name, cached)


def finished(c: Config, s: Shape, inv: Inventory, name: str, cached: list[CacheLayer]) -> Architecture:
    """The architecture of a filled inventory; one whose layers are cached is a decoder."""
    return Architecture(
        name=architecture_name(c),
        family=name,
        kind="decoder" if cached else "encoder",
        hidden_size=s.hidden,
        layers=s.layers,
        vocab_size=s.vocab,
        heads=s.heads,
        trained_context=s.trained_context,
        tied_embeddings=c.flag("tie_word_embeddings", default=True),
        tensors=tuple(inv.tensors),
        cache_layers=tuple(cached),
        dtype=inv.dtype,
    )


def _embeddings(inv: Inventory, c: Config, e: Encoder, s: Shape, width: int) -> None:
    inv.add("token_embd", None, s.vocab, width)
    if e.positions and c.flag("position_biased_input", default=True):
        inv.add("position_embd", None, s.trained_context or 512, width)
    types = c.integer("type_vocab_size", default=e.types, low=0, high=1 << 20)
    if types and e.types >= 0:
        inv.add("token_types", None, types, width)
    if e.embedding_norm:
        inv.norm("token_embd_norm", None, width, e.norm_bias)
    if width != s.hidden:
        inv.linear("token_embd_in", None, s.hidden, width, bias=True)


def _layer(inv: Inventory, layer: int, c: Config, e: Encoder, s: Shape) -> None:
    bias = flag(c, e.bias)
    attention(inv, layer, s, bias=bias, out_bias=bias)
    inv.norm("attn_output_norm", layer, s.hidden, e.norm_bias)
    mlp(inv, layer, s.hidden, s.ffn, gated=e.gated, bias=flag(c, e.mlp_bias))
    if e.down_bias:
        inv.add("ffn_down.bias", layer, s.hidden)
    inv.norm("layer_output_norm", layer, s.hidden, e.norm_bias)
    if e.layer_extra:
        e.layer_extra(inv, layer, c, s)


def labels(c: Config) -> int:
    """How many labels a classifier has: those listed, else two."""
    listed = c.section("id2label")
    return len(listed.raw) if listed else c.integer("num_labels", default=2, high=1 << 20)


def head_of(c: Config, bare: str) -> str:
    """What the class named in `architectures` ends in, `Model` for a bare one; `bare` where none is named."""
    names = c.items("architectures") or [bare]
    name = names[0] if isinstance(names[0], str) else bare
    return "LMHeadModel" if name.endswith("LMHeadModel") else name[name.rfind("For") :] if "For" in name else "Model"


def _head(inv: Inventory, c: Config, e: Encoder, s: Shape, width: int) -> None:
    head = head_of(c, e.bare)
    if e.discriminates and head == "ForPreTraining":
        inv.linear("cls", None, s.hidden, s.hidden, bias=True)
        inv.linear("cls.output", None, 1, s.hidden, bias=True)
        return
    pooled = e.pooler and (head == "Model" or e.pools_tokens or (e.pools_classes and head == "ForPreTraining"))
    if pooled or head in _CLASS_HEADS:
        inv.linear("cls", None, s.hidden, s.hidden, bias=True)
    if head in _TOKEN_HEADS:
        token_head(inv, c, s, width)
        if head == "ForPreTraining" and e.pools_classes:
            inv.linear("cls.output", None, 2, s.hidden, bias=True)
    elif head == "ForMultipleChoice":
        inv.linear("cls.output", None, 1, s.hidden, bias=True)
    elif head != "Model":
        inv.linear("cls.output", None, labels(c), s.hidden, bias=True)


def token_head(
    inv: Inventory, c: Config, s: Shape, width: int, *, bias: bool = True, norm_bias: bool = True, head_bias: bool = True
) -> None:
    """The masked-token head: a dense layer, a norm and, over the tied embedding, a bias for every token."""
    inv.linear("mlm_dense", None, width, s.hidden, bias)
    inv.norm("mlm_norm", None, width, norm_bias)
    if not c.flag("tie_word_embeddings", default=True):
        inv.add("output", None, s.vocab, width)
    if head_bias:
        inv.add("output.bias", None, s.vocab)


def _relative_bias(inv: Inventory, c: Config, s: Shape) -> None:
    inv.add("attn_rel_b", None, c.integer("relative_attention_num_buckets", default=32, high=1 << 20), s.heads)


def _sinusoids(inv: Inventory, c: Config, s: Shape) -> None:
    """RoFormer keeps its rotary table as a weight."""
    inv.add("position_embd", None, s.trained_context or 1536, s.head_dim)


def _global_projections(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Longformer's second set of projections, for the tokens that see everything."""
    for role in ("attn_q_global", "attn_k_global", "attn_v_global"):
        inv.linear(role, layer, s.hidden, s.hidden, bias=True)


def _deberta_positions(inv: Inventory, c: Config, s: Shape) -> None:
    """DeBERTa's relative positions, which every layer shares, and its convolution beside the first layer."""
    if c.flag("relative_attention"):
        reach = c.number("max_relative_positions", default=-1)
        buckets = c.number("position_buckets", default=-1)
        rows = int(buckets if buckets > 0 else reach if reach >= 1 else s.trained_context or 512)
        inv.add("rel_embd", None, 2 * max(rows, 1), s.hidden)
    if "layer_norm" in c.text("norm_rel_ebd"):
        inv.norm("rel_embd_norm", None, s.hidden, bias=True)
    kernel = c.integer("conv_kernel_size", default=0, low=0, high=1024)
    if kernel:
        groups = c.integer("conv_groups", default=1, high=65536)
        inv.add("conv", None, s.hidden, max(s.hidden // groups, 1), kernel)
        inv.add("conv.bias", None, s.hidden)
        inv.norm("conv_norm", None, s.hidden, bias=True)


def _deberta_keys(inv: Inventory, layer: int, c: Config, s: Shape) -> None:
    """Projections of the relative positions, unless they share the content's (`share_att_key`)."""
    if not c.flag("relative_attention") or c.flag("share_att_key"):
        return
    kinds = c.raw.get("pos_att_type")
    kinds = kinds if isinstance(kinds, (list, str)) else ()
    for kind, role in (("c2p", "attn_k_pos"), ("p2c", "attn_q_pos")):
        if kind in kinds:
            inv.linear(role, layer, s.hidden, s.hidden, bias=True)


BERT = Encoder(pools_classes=True, bare="LMHeadModel")
ROBERTA = Encoder(bare="LMHeadModel")
_NO_PLACES = replace(BERT, positions=False, bare="Model")

FAMILIES_HERE: dict[str, Encoder] = {
    "bert": BERT,
    "roberta": replace(ROBERTA, defaults={**BASE, "vocab": 50265}),
    "camembert xlm-roberta data2vec-text": ROBERTA,
    "xlm-roberta-xl": replace(
        ROBERTA,
        defaults=sizes(36, 2560, 32, 250880, 514, ffn=10240),
        types=1,
        embedding_norm=False,
        final_norm=True,
    ),
    "roberta-prelayernorm": replace(ROBERTA, defaults={**BASE, "vocab": 50265}, final_norm=True),
    "ernie": replace(BERT, more=lambda inv, c, s: _task_types(inv, c, s)),
    "megatron-bert": replace(
        BERT,
        defaults=sizes(24, 1024, 16, 29056, 512, ffn=4096),
        embedding_norm=False,
        final_norm=True,
    ),
    "mpnet": replace(ROBERTA, defaults={**BASE, "vocab": 30527}, types=-1, bare="Model", more=_relative_bias),
    "longformer": replace(ROBERTA, bare="Model", layer_extra=_global_projections),
    "jina_embeddings_v3": replace(
        ROBERTA,
        defaults=sizes(24, 1024, 16, 250002, 8194, ffn=4096),
        positions=False,
        types=1,
        bare="Model",
    ),
    "gte new": replace(
        _NO_PLACES, defaults={**BASE, "vocab": 250048, "context": 8192}, types=1, gated=True, mlp_bias=False, down_bias=True, pooler=False
    ),
    "big_bird": replace(BERT, defaults={**BASE, "vocab": 50358, "context": 4096}, pools_tokens=True),
    "roformer": replace(
        BERT, defaults={**BASE, "vocab": 50000, "context": 1536}, positions=False, pooler=False, narrow="embedding_size", more=_sinusoids
    ),
    "deberta-v2": Encoder(
        {**BASE, "layers": 24, "hidden": 1536, "heads": 24, "vocab": 128100, "ffn": 6144},
        types=0,
        pooler=False,
        more=_deberta_positions,
        layer_extra=_deberta_keys,
    ),
    "electra": Encoder(
        {**BASE, "hidden": 256, "heads": 4, "ffn": 1024, "embedding_size": 128},
        narrow="embedding_size",
        pooler=False,
        discriminates=True,
        bare="ForMaskedLM",
    ),
}


def _task_types(inv: Inventory, c: Config, s: Shape) -> None:
    if c.flag("use_task_id"):
        inv.add("task_types", None, c.integer("task_type_vocab_size", default=3, high=1 << 20), s.hidden)


def _enter(names: str, e: Encoder) -> None:
    for name in names.split():
        family(name)(lambda c, name=name: read_encoder(c, e, name))  # type: ignore[misc]


for _names, _encoder in FAMILIES_HERE.items():
    _enter(_names, _encoder)


@family("distilbert")
def distilbert(c: Config) -> Architecture:
    """DistilBERT: no token types, no pooler, and names of its own."""
    named = defaulted(
        c,
        hidden_size=c.integer("dim", default=768),
        num_attention_heads=c.integer("n_heads", default=12, high=65536),
        num_hidden_layers=c.integer("n_layers", default=6, high=4096),
        intermediate_size=c.integer("hidden_dim", default=3072),
    )
    return read_encoder(named, Encoder(types=-1, pooler=False), "distilbert")


@family("albert")
def albert(c: Config) -> Architecture:
    """ALBERT: a narrow embedding, and one group of weights that every layer uses again."""
    defaults = sizes(12, 4096, 64, 30000, 512, ffn=16384, embedding_size=128)
    s = read_shape(c, **defaults)
    groups = c.integer("num_hidden_groups", default=1, high=4096) * c.integer("inner_group_num", default=1, high=4096)
    e = Encoder(defaults, narrow="embedding_size")
    found = read_encoder(Config({**c.raw, "num_hidden_layers": groups}, c.where), e, "albert")
    return replace(found, layers=s.layers)


@family("rembert")
def rembert(c: Config) -> Architecture:
    """RemBERT: a narrow embedding going in, a wide head of its own coming out."""
    defaults = sizes(32, 1152, 18, 250300, 512, ffn=4608, input_embedding_size=256)
    e = replace(BERT, defaults=defaults, narrow="input_embedding_size")
    if head_of(c, "ForMaskedLM") not in _TOKEN_HEADS:
        return read_encoder(c, e, "rembert")
    trunk = read_encoder(Config({**c.raw, "architectures": ["RemBertModel"]}, c.where), replace(e, pooler=False), "rembert")
    inv = Inventory(trunk.dtype)
    token_head(inv, defaulted(c, tie_word_embeddings=False), read_shape(c, **defaults), c.integer("output_embedding_size", default=1664))
    return replace(trunk, name=architecture_name(c), tied_embeddings=False, tensors=trunk.tensors + tuple(inv.tensors))
