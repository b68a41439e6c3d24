"""From a GGUF's header to an `Architecture`: weights from the tensor list, the cache from metadata and tensors together.

The rules are llama.cpp's, build 0c1e57098 (src/llama-model.cpp `load_hparams`, src/llama-hparams.cpp, src/models/*.cpp).
Which layers attend and which keep a state is read off the tensors each layer has; that holds for families not yet known.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..errors import FormatError
from .architecture import Architecture, CacheLayer, Part, Tensor
from .checkpoint import GgufHeader, StoredTensor
from .dialects.config import MAX_LAYERS, Config
from .gguf import LongArray, mix_name
from .gguf_families import DIFFUSION, ENCODERS, KNOWN, WINDOWS, WindowRule
from .json_guard import shown

__all__ = ["mix_name", "read_gguf_architecture", "read_tensor"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LAYER_TENSOR = re.compile(r"(?:(enc|dec|v|a|mm|mm\.a)\.)?blk\.(\d{1,5})\.(.+)")
_OLD_EXPERT = re.compile(r"(ffn_(?:gate|up|down))\.\d+(\.weight|\.bias)?")
_VISION: Final = ("v.", "vision.")
_PROJECTOR: Final = ("mm.", "resampler.", "adapter.", "model.image_newline", "model.mm_projector.")

Layers = Mapping[int, Mapping[str, tuple[int, ...]]]


class _Metadata:
    """One architecture's keys; values that may be one number or a list with one for each layer."""

    def __init__(self, header: GgufHeader, where: str) -> None:
        name = header.metadata.get("general.architecture")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise FormatError(f"{where} does not say its general.architecture", "is it a model's file?")
        self.raw, self.arch, self.where = header.metadata, name, where
        self.config = Config(header.metadata, where)
        self.blocks = self.integer("block_count", high=MAX_LAYERS)
        self.drafts = min(self.integer("nextn_predict_layers", default=0), self.blocks)
        self.layers = self.blocks - self.drafts

    def integer(self, key: str, **limits: Any) -> int:
        return self.config.integer(f"{self.arch}.{key}", **{"low": 0, **limits})

    def has(self, key: str) -> bool:
        return f"{self.arch}.{key}" in self.raw

    def listed(self, key: str) -> list[int] | None:
        """A value that is a list, with an entry for each layer; None where it is none."""
        value = self.raw.get(f"{self.arch}.{key}")
        if not isinstance(value, list):
            return None
        if len(value) < self.layers or not all(isinstance(v, int) and 0 <= v < 1 << 40 for v in value):
            raise FormatError(f"{self.where}: {self.arch}.{key} is {shown(value)}; {self.layers} whole numbers belong there, one a layer")
        return [int(v) for v in value[: self.layers]]

    def per_layer(self, key: str, default: list[int] | int) -> list[int]:
        listed = self.listed(key)
        if listed is not None:
            return listed
        if not self.has(key) and isinstance(default, list):
            return default
        return [self.integer(key, default=default)] * self.layers


def read_gguf_architecture(header: GgufHeader, where: str = "the GGUF") -> Architecture:
    """The architecture a GGUF describes. Its tensors are the file's, so their bytes are the file's.

    Rope tables are in the list, as in llama.cpp's own parameter count. Raises FormatError where the metadata cannot
    be meant. An architecture llama.cpp does not know is read the same way and labelled `fallback`.
    """
    if header.metadata.get("general.type") == "adapter":
        raise FormatError(f"{where} is an adapter (LoRA), not a whole model", "name its base model; the adapter adds little to it")
    if header.metadata.get("general.architecture") == "clip":
        return _projector_file(header, where)
    m = _Metadata(header, where)
    if not header.tensors:
        raise FormatError(f"{where} holds no weights, only a vocabulary or metadata", "name the model's own file")
    tensors = tuple(read_tensor(t, m.layers) for t in header.tensors)
    vocab = next((t.shape[0] for t in tensors if t.role == "token_embd" and t.part == "text"), 0)
    heads = m.per_layer("attention.head_count", 0)
    has_experts = any(t.experts for t in tensors)
    cache = _cache(m, heads, _by_layer(tensors, "dec." if m.arch == "t5" else ""))
    return Architecture(
        name=m.arch,
        family=m.arch,
        kind="encoder-decoder" if m.arch == "t5" else "encoder" if m.arch in ENCODERS else "decoder",
        hidden_size=m.integer("embedding_length", low=1),
        layers=m.layers,
        vocab_size=vocab or _vocabulary(m),
        heads=max(heads, default=0),
        trained_context=m.integer("context_length", default=0, high=1 << 40) or None,
        tied_embeddings=bool(vocab) and not any(t.role == "output" for t in tensors),
        tensors=tensors,
        cache_layers=tuple(cache),
        experts=m.integer("expert_count", default=0) if has_experts else 0,
        experts_per_token=max(m.per_layer("expert_used_count", 0), default=0) if has_experts else 0,
        dtype="F16",
        basis="formula" if m.arch in KNOWN else "fallback",
        notes=_notes(m, cache),
        parallel_residual=m.arch == "gptneox" and header.metadata.get("gptneox.use_parallel_residual") is True,
    )


def _notes(m: _Metadata, cache: list[CacheLayer]) -> tuple[str, ...]:
    notes = []
    if m.arch not in KNOWN:
        notes.append(f"architecture {shown(m.arch)} is not known: its cache is read off the usual keys and tensors")
    if m.arch not in WINDOWS and m.config.optional(f"{m.arch}.attention.sliding_window", high=1 << 40):
        notes.append(f"the file names a sliding window; llama.cpp does not use it for {m.arch}, so every layer is counted in full")
    if m.has("attention.kv_lora_rank") and cache and all(layer.kind != "latent" for layer in cache if layer.kv_heads):
        notes.append("the file has no tensors for latent attention (an old conversion): K and V are cached in full")
    return tuple(notes)


def _vocabulary(m: _Metadata) -> int:
    tokens = m.raw.get("tokenizer.ggml.tokens")
    return m.integer("vocab_size", default=tokens.length if isinstance(tokens, LongArray) else 0)


def read_tensor(stored: StoredTensor, layers: int = MAX_LAYERS) -> Tensor:
    """One tensor of a GGUF as a weight; those of layers from `layers` on belong to the MTP head."""
    name, layer = stored.name, None
    part: Part = _part(name)
    match = _LAYER_TENSOR.fullmatch(name)
    if match:
        layer, name = int(match[2]), (f"{match[1]}." if match[1] in ("enc", "dec") else "") + match[3]
        part = "mtp" if part == "text" and not match[1] and layer >= layers else part
    elif name.startswith("nextn."):
        part = "mtp"
    role, experts = name.removesuffix(".weight"), 0
    if old := _OLD_EXPERT.fullmatch(name):
        return Tensor(f"{old[1]}_exps{'.bias' if old[2] == '.bias' else ''}", layer, (1, *stored.shape), 1, stored.dtype, part)
    if role.removesuffix(".bias").endswith("_exps") and len(stored.shape) > 1:
        experts = stored.shape[0]
    return Tensor(role, layer, stored.shape, experts, stored.dtype, part)


def _part(name: str) -> Part:
    """Roles of a multimodal file (llama.cpp, tools/mtmd/clip-impl.h)."""
    if name.startswith(_VISION):
        return "vision"
    if name.startswith(_PROJECTOR):
        return "projector"
    return "audio" if name.startswith("a.") else "text"


def _by_layer(tensors: tuple[Tensor, ...], prefix: str) -> Layers:
    """Role → shape of the text weights of each layer; with `prefix`, of that stack only."""
    found: dict[int, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for tensor in tensors:
        if tensor.layer is not None and tensor.part == "text" and tensor.role.startswith(prefix):
            found[tensor.layer][tensor.role.removeprefix(prefix)] = tensor.shape
    return found


@dataclass(frozen=True)
class _Heads:
    """What the cache of one kind of layer is made of."""

    k_dim: int
    v_dim: int
    window: int = 0
    kind: Literal["full", "sliding", "chunked"] = "full"


def _cache(m: _Metadata, heads: list[int], layers: Layers) -> list[CacheLayer]:
    if m.arch in ENCODERS or m.arch in DIFFUSION:
        return []
    kv_heads = m.per_layer("attention.head_count_kv", heads)
    kinds = _head_kinds(m, max(heads, default=0), _slides(m))
    owners = m.layers - _shared_layers(m)
    recurrent, found = _recurrent_layers(m), []
    for i in range(m.layers):
        roles = layers.get(i, {})
        state = _state(m, i, roles, heads[i] or max(heads), i in recurrent)
        if state:
            found.append(state)
        if i >= owners:
            found.append(_shared(i, owners, heads[i], kv_heads[i], kinds))
        elif kv_heads[i] and i not in recurrent and _attends(roles, bool(state)):
            found.append(_attention(m, i, roles, heads[i], kv_heads[i], kinds[i]))
        if "cross_attn_k" in roles:
            found.append(CacheLayer(i, "cross", heads[i], kv_heads[i], kinds[i].k_dim, kinds[i].v_dim))
    return found * m.integer("num_loops", default=1, low=1, high=MAX_LAYERS // max(m.layers, 1)) if m.arch == "nanbeige" else found


def _attends(roles: Mapping[str, Any], has_state: bool) -> bool:
    """A gated delta net has a fused `attn_qkv` as well, but never an `attn_k` of its own."""
    if any(role in roles for role in ("attn_k", "attn_kv_a_mqa", "attn_kv")):
        return True
    return "attn_qkv" in roles and not has_state


def _slides(m: _Metadata) -> list[bool]:
    """Which layers see a window only."""
    rule = WINDOWS.get(m.arch)
    if rule is None or not _window(m, rule):
        return [False] * m.layers
    listed = m.listed("attention.sliding_window_pattern")
    if listed is not None:
        return [bool(v) for v in listed]
    if rule.listed:
        raise FormatError(f"{m.where} does not list which layers slide ({m.arch}.attention.sliding_window_pattern)")
    every = m.integer("attention.sliding_window_pattern", default=rule.every)
    if not every:
        return [True] * m.layers
    return [i % every != (0 if rule.first else every - 1) for i in range(m.layers)]


def _window(m: _Metadata, rule: WindowRule) -> int:
    stated = m.integer("attention.sliding_window", default=rule.fixed or rule.size, high=1 << 40)
    return (rule.fixed or stated) if stated else 0


def _head_kinds(m: _Metadata, heads: int, slides: list[bool]) -> list[_Heads]:
    width = m.integer("embedding_length", low=1) // max(heads, 1)
    full = _Heads(m.integer("attention.key_length", default=width), m.integer("attention.value_length", default=width))
    if not any(slides):
        return [full] * m.layers
    rule = WINDOWS[m.arch]
    k_dim = m.integer("attention.key_length_swa", default=full.k_dim)
    local = _Heads(k_dim, m.integer("attention.value_length_swa", default=full.v_dim), _window(m, rule), rule.kind)
    return [local if slides_here else full for slides_here in slides]


def _shared_layers(m: _Metadata) -> int:
    """The last layers, which read the cache of an earlier one. Gemma 3n's 20 owners are a constant in llama.cpp."""
    if m.arch == "gemma3n":
        return max(m.layers - 20, 0)
    return min(m.integer("attention.shared_kv_layers", default=0), max(m.layers - 2, 0)) if m.arch == "gemma4" else 0


def _shared(layer: int, owners: int, heads: int, kv_heads: int, kinds: list[_Heads]) -> CacheLayer:
    """The last owner of the same kind is read: the one before last slides, the last is full (llama-model.cpp, `reuse`)."""
    kind = kinds[layer]
    return CacheLayer(layer, "shared", heads, kv_heads, kind.k_dim, kind.v_dim, source=owners - (2 if kind.window else 1))


def _attention(m: _Metadata, layer: int, roles: Mapping[str, tuple[int, ...]], heads: int, kv_heads: int, kind: _Heads) -> CacheLayer:
    if m.arch == "mllama" and layer in (m.config.items(f"{m.arch}.attention.cross_attention_layers") or []):
        return CacheLayer(layer, "cross", heads, kv_heads, kind.k_dim, kind.v_dim)
    index = _rows(roles, "indexer.attn_k", "indexer.k_proj")
    latent = _rows(roles, "attn_kv_a_mqa")
    if latent and "attn_k_b" in roles:
        rank = _rows(roles, "attn_kv_a_norm")
        return CacheLayer(layer, "sliding" if kind.window else "latent", heads, 1, latent, 0, kind.window, index, rank)
    if "attn_kv" in roles and m.arch == "deepseek4":
        return _compressed(m, layer, heads, _rows(roles, "attn_kv"), kind.window)
    return CacheLayer(layer, kind.kind if kind.window else "full", heads, kv_heads, kind.k_dim, kind.v_dim, kind.window, index)


def _compressed(m: _Metadata, layer: int, heads: int, width: int, window: int) -> CacheLayer:
    """DeepSeek-V4: a window of tokens and, by the layer's ratio, one entry for every 4 (with an index key) or 128 tokens before.

    The state is what the compressors of a ratio-4 layer keep of tokens not yet compressed.
    """
    ratios = m.listed("attention.compress_ratios") or [0] * m.layers
    ratio = ratios[layer]
    if not ratio:
        return CacheLayer(layer, "sliding", heads, 1, width, width, window)
    index = m.integer("attention.indexer.key_length", default=0) if ratio == 4 else 0
    state = 2 * ratio * (width + index) if index else 0
    return CacheLayer(
        layer, "compressed", heads, 1, width, 0, window, index, compress_ratio=ratio, compressed_dim=width, conv_elements=state
    )


def _rows(roles: Mapping[str, tuple[int, ...]], *names: str) -> int:
    return next((roles[name][0] for name in names if name in roles), 0)


def _recurrent_layers(m: _Metadata) -> frozenset[int]:
    """Layers the metadata calls recurrent, where the tensors alone do not tell (MiniMax-Text-01)."""
    if m.arch != "minimax-01":
        return frozenset()
    listed = m.listed("attention.recurrent_layers")
    every = m.integer("full_attention_interval", default=8, low=1)
    return frozenset(i for i in range(m.layers) if (listed[i] if listed else (i + 1) % every))


def _state(m: _Metadata, layer: int, roles: Mapping[str, tuple[int, ...]], heads: int, recurrent: bool) -> CacheLayer | None:
    """What a layer keeps whatever the context: the last inputs of its convolution, and its recurrent state.

    Convolution weights are (channels, kernel), so their size is what transformers keeps; llama.cpp keeps one input less.
    """
    conv = sum(math.prod(shape) for role, shape in roles.items() if role.startswith("ssm_conv1d") and not role.endswith(".bias"))
    kda = m.integer("kda.head_dim", default=0, high=65536)
    if "shortconv.conv" in roles:
        return CacheLayer(layer, "recurrent", conv_elements=math.prod(roles["shortconv.conv"]))
    if any(role.startswith("time_mix_") for role in roles):
        width = m.integer("embedding_length", low=1)
        shift = m.integer("token_shift_count", default=2, high=64)
        return CacheLayer(layer, "recurrent", conv_elements=shift * width, state_elements=width * m.integer("wkv.head_size", high=65536))
    if conv and kda:
        return CacheLayer(layer, "recurrent", conv_elements=conv, state_elements=kda * kda * heads)
    if conv:
        return CacheLayer(layer, "recurrent", conv_elements=conv, state_elements=m.integer("ssm.state_size") * m.integer("ssm.inner_size"))
    if recurrent:
        return CacheLayer(layer, "recurrent", state_elements=heads * m.integer("attention.key_length", high=65536) ** 2)
    return None


def _projector_file(header: GgufHeader, where: str) -> Architecture:
    """A vision or audio tower alone (mmproj): weights and no cache."""
    c = Config(header.metadata, where)
    return Architecture(
        name="clip",
        family="clip",
        kind="encoder",
        hidden_size=c.integer("clip.vision.embedding_length", "clip.audio.embedding_length", default=0, low=0),
        layers=c.integer("clip.vision.block_count", "clip.audio.block_count", default=0, low=0, high=MAX_LAYERS),
        vocab_size=0,
        heads=c.integer("clip.vision.attention.head_count", "clip.audio.attention.head_count", default=0, low=0, high=65536),
        trained_context=None,
        tied_embeddings=False,
        tensors=tuple(read_tensor(t) for t in header.tensors),
        cache_layers=(),
        dtype="F16",
        notes=("the file holds a vision or audio tower only; name the language model's file for a plan",),
    )
