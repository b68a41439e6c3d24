"""What each layer asks of vLLM's block pool: pages of how many tokens and bytes, and how many blocks one request takes.

Source: vLLM 0.32.0, v1/kv_cache_interface.py (pages and blocks per request), the layers' get_kv_cache_spec,
platforms/interface.py (block sizes, hybrid alignment), model_executor/layers/mamba/mamba_utils.py (states).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, Literal

from ...models.architecture import CacheLayer, Tensor
from ...models.model import Model
from ...values import dataclass

__all__ = ["CacheSetup", "Spec", "SpecKind", "checkpoint_cache", "layer_specs", "text_config"]

SpecKind = Literal["full", "latent", "index", "sliding", "chunked", "latent_window", "state", "cross"]
#: Kinds that hold every token of a request, and so may share one group whatever their page sizes.
WHOLE: Final = frozenset({"full", "latent", "index"})

#: fp8_ds_mla: NoPE part in fp8, rotary part in 16 bits, scales (V3.2: flashmla_sparse.py; V4: deepseek_v4/attention.py).
_PACKED_V32, _PACKED_V4, _V4_ALIGNMENT = 656, 584, 576
#: Latent attention that vLLM runs, and caches, head by head (models/minicpm3.py: K and V of the rotary and other parts' width).
_EXPANDED: Final = frozenset({"minicpm3"})


@dataclass(frozen=True, slots=True)
class CacheSetup:
    """What the cache's layout hangs on beside the model. `capability` is the major number of the GPU's compute capability;
    `encoder_tokens` what cross-attention is sized for: a batch (config/scheduler.py, max_num_encoder_input_tokens)."""

    fp8: bool = False
    tensor_parallel: int = 1
    block_size: int | None = None
    prefix_caching: bool = True
    speculative: int = 0
    capability: int = 9
    encoder_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class Spec:
    """One layer's cache: pages of `block` tokens and `page` bytes. `fixed` blocks per request where the context does not count.

    `shape` tells specs apart that only look alike (heads, widths). A `state` may be padded to any page.
    """

    kind: SpecKind
    layer: int
    block: int
    page: int
    shape: tuple[int, ...] = ()
    window: int = 0
    fixed: int = 0

    def blocks(self, context: int, in_flight: int) -> int:
        """Blocks one request of `context` tokens holds at most while `in_flight` tokens are scheduled and not yet settled."""
        if self.fixed:
            return self.fixed
        if self.kind in ("sliding", "latent_window"):
            # one more: a window need not start where a block does
            return -(-min(self.window - 1 + in_flight, context) // self.block) + 1
        if self.kind == "chunked":
            return -(-min(self.window + in_flight, context) // self.block)
        return -(-context // self.block)

    @property
    def key(self) -> tuple[object, ...]:
        """What layers of one group have in common; full layers may differ in a window they do not use."""
        return (self.kind, self.block, self.page, self.shape, self.window, self.fixed)


def text_config(model: Model) -> Mapping[str, Any]:
    """The part of a config that describes the text model."""
    config: Mapping[str, Any] = model.config or {}
    for key in ("thinker_config", "text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if isinstance(inner, Mapping) and inner:
            config = inner
    return config


def checkpoint_cache(model: Model) -> str | None:
    """The cache type a quantised checkpoint brings along ("fp8"), taken unless another is asked for; None without one.

    Source: utils/torch_utils.py, get_kv_cache_quant_algo_string; layers/attention/attention.py (kv_cache_scheme).
    """
    found = model.quantization or {}
    method = str(found.get("quant_method") or "")
    inner = found.get("quantization")
    for part in (inner if isinstance(inner, Mapping) else {}, found):
        for key in ("kv_cache_scheme", "kv_cache_quant_algo"):
            value = part.get(key)
            if isinstance(value, str) and method.startswith("modelopt"):
                return "fp8" if value.lower().startswith("fp8") else None
            if isinstance(value, Mapping) and value.get("num_bits") == 8 and value.get("type") == "float":
                return "fp8"
    return None


def layer_specs(model: Model, setup: CacheSetup) -> list[Spec]:
    """One spec per layer and cache, in the order vLLM registers the layers. Layers that share another's cache have none."""
    if any(layer.compress_ratio for layer in model.cache_layers):
        return list(_compressed_specs(model))
    if model.architecture.family == "falcon" and setup.fp8:
        setup = replace(setup, fp8=not _ignores_cache_type(model))
    layers = [layer for layer in _with_drafts(model, setup) if layer.kind != "shared"]
    attention = [layer for layer in layers if layer.kind not in ("recurrent", "cross") and (layer.kv_heads or layer.index_dim)]
    states = {id(layer): _state_bytes(model, layer, setup) for layer in layers if layer.kind == "recurrent"}
    block, padded = _block_size(model, setup, attention, [size for size, _ in states.values()])
    found: list[Spec] = []
    for layer in layers:
        if layer.kind == "recurrent":
            size, checkpoints = states[id(layer)]
            fixed = (2 + checkpoints if setup.prefix_caching else 1) + setup.speculative
            found.append(Spec("state", layer.layer, block, max(padded, size), (size,), fixed=fixed))
        elif layer.kind == "cross":
            width = _width(layer, setup)
            found.append(Spec("cross", layer.layer, block, block * width, (width,), fixed=-(-setup.encoder_tokens // block)))
        else:
            found.extend(_attention_specs(layer, setup, block))
    return found


def _attention_specs(layer: CacheLayer, setup: CacheSetup, block: int) -> Iterator[Spec]:
    if layer.kind == "latent":
        packed = setup.fp8 and _is_sparse(layer)
        width = _PACKED_V32 if packed else layer.k_dim * (1 if setup.fp8 else 2)
        if layer.k_dim:
            kind: SpecKind = "latent_window" if layer.window else "latent"
            yield Spec(kind, layer.layer, block, block * width, (width, bool(layer.index_dim)), window=layer.window)
    elif layer.kv_heads:
        kind = {"sliding": "sliding", "chunked": "chunked"}.get(layer.kind, "full")  # type: ignore[assignment]
        width = _width(layer, setup)
        shape = (max(1, layer.kv_heads // setup.tensor_parallel), layer.k_dim, layer.v_dim)
        yield Spec(kind, layer.layer, block, block * width, shape, window=layer.window if kind != "full" else 0)
    if layer.index_dim and layer.kind == "latent":
        index = _index_bytes(layer.index_dim)
        yield Spec("index", layer.layer, block, block * index, (index,))
    elif layer.index_dim:
        index = 2 * layer.index_dim
        yield Spec("index", layer.layer, block, block * index, (index,))


def _width(layer: CacheLayer, setup: CacheSetup) -> int:
    """Bytes of K and V one token takes on one rank; heads are doubled rather than cut below one."""
    return max(1, layer.kv_heads // setup.tensor_parallel) * (layer.k_dim + layer.v_dim) * (1 if setup.fp8 else 2)


def _index_bytes(width: int) -> int:
    """An indexer's key in 8 bits, and one fp32 scale for each 128 elements (models/deepseek_v2.py)."""
    return width + width // 128 * 4


def _is_sparse(layer: CacheLayer) -> bool:
    return bool(layer.index_dim) or layer.source is not None


def _ignores_cache_type(model: Model) -> bool:
    """Falcon's rotary and ALiBi layers are built without the cache's type (models/falcon.py)."""
    config = text_config(model)
    return bool(config.get("alibi", False)) or bool(config.get("rotary", True))


def _with_drafts(model: Model, setup: CacheSetup) -> list[CacheLayer]:
    """The layers, and with speculation the draft's: each keeps what the last attention layer does."""
    layers = [_expanded(model, layer) if model.architecture.family in _EXPANDED else layer for layer in model.cache_layers]
    drafts = sorted({t.layer for t in model.architecture.tensors if t.part == "mtp" and t.layer is not None})
    last = [layer for layer in layers if layer.kind in ("full", "latent")]
    if setup.speculative and drafts and last:
        layers += [last[-1]._replace(layer=number) for number in drafts]
    return layers


def _expanded(model: Model, layer: CacheLayer) -> CacheLayer:
    config = text_config(model)
    width = sum(v for v in (config.get("qk_nope_head_dim"), config.get("qk_rope_head_dim")) if isinstance(v, int)) or layer.k_dim
    return layer._replace(kind="full", kv_heads=layer.heads, k_dim=width, v_dim=width, latent_rank=0)


# --- block sizes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _BlockRule:
    attention: str
    cache: str
    capability: int | None
    block: int


@lru_cache(maxsize=1)
def _block_rules() -> tuple[_BlockRule, ...]:
    text = files("vram_plan_data").joinpath("vllm_blocks.csv").read_text("utf-8")
    return tuple(
        _BlockRule(row["attention"], row["cache"], int(row["capability"]) if row["capability"] else None, int(row["block_tokens"]))
        for row in csv.DictReader(text.splitlines())
    )


def _block_size(model: Model, setup: CacheSetup, attention: list[CacheLayer], states: list[int]) -> tuple[int, int]:
    """Tokens of a block, and the page a state is padded to (0: its own size)."""
    block = setup.block_size or _backend_block(attention, setup)
    if not states or not attention or not max(states):
        return block, 0
    latent = [layer for layer in attention if layer.kind == "latent"]
    # the attention page of one token: what the model's config says, not a layer's own
    width = latent[0].k_dim * (1 if setup.fp8 else 2) if latent else max(_width(layer, setup) for layer in attention)
    granule = max(block, 128) if latent else block
    block = max(block, granule * -(-max(states) // (granule * width)))
    return block, block * width


def _backend_block(attention: list[CacheLayer], setup: CacheSetup) -> int:
    """The block the attention back end of this GPU prefers: rows of data, the first that fits counts."""
    latent = any(layer.kind == "latent" for layer in attention)
    sparse = any(_is_sparse(layer) for layer in attention)
    widest = max((layer.k_dim for layer in attention), default=0)
    kind = ("sparse" if sparse else "latent") if latent else "indexed" if sparse else "wide" if widest >= 512 else "dense"
    cache = "fp8" if setup.fp8 else "16bit"
    for rule in _block_rules():
        if rule.attention in (kind, "any") and rule.cache in (cache, "any") and rule.capability in (None, setup.capability):
            return rule.block
    return 16


# --- recurrent states -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _tensors_by_layer(model: Model) -> Mapping[int, Mapping[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for tensor in model.architecture.tensors:
        if tensor.part == "text" and tensor.layer is not None:
            found[tensor.layer][tensor.role] = tensor
    return found


def _state_bytes(model: Model, layer: CacheLayer, setup: CacheSetup) -> tuple[int, int]:
    """Bytes of one rank's convolution and recurrent state, and the blocks kept for prefill checkpoints.

    The convolution keeps its last k − 1 inputs (and one more for each speculated token) in the model's 16 bits.
    Mamba-2 and Kimi's delta attention export a checkpoint from inside a prefill.
    """
    tensors, tp = _tensors_by_layer(model).get(layer.layer, {}), setup.tensor_parallel
    convolutions = [t.shape for role, t in tensors.items() if role.startswith(("ssm_conv1d", "shortconv.conv")) and len(t.shape) == 2]
    width = sum(shape[0] for shape in convolutions)
    kept = (max(shape[1] for shape in convolutions) - 1 + setup.speculative) if convolutions else 0
    kind = _state_kind(tensors)
    if kind == "mamba2" and "ssm_out" in tensors:
        width += _extra_groups(width, tensors["ssm_out"].shape[-1], layer.state_elements, tp)
    elif not convolutions:
        return (layer.conv_elements + layer.state_elements) // tp * _state_element_bytes(model, kind), 0
    return 2 * (width // tp * kept) + layer.state_elements // tp * _state_element_bytes(model, kind), int(kind in ("mamba2", "kda"))


def _state_kind(tensors: Mapping[str, Tensor]) -> str:
    for role, kind in (("ssm_conv1d_q", "kda"), ("ssm_x", "mamba1"), ("ssm_alpha", "gdn"), ("ssm_ba", "gdn"), ("ssm_conv1d", "mamba2")):
        if role in tensors:
            return kind
    return "other"


def _extra_groups(width: int, inner: int, state_elements: int, tp: int) -> int:
    """Columns added so that every rank has the B and C groups of its heads."""
    state = state_elements // inner if inner else 0
    groups = (width - inner) // (2 * state) if state else 0
    return 2 * state * (tp - groups) if groups and groups % tp else 0


def _state_element_bytes(model: Model, kind: str) -> int:
    """Bytes of one element of the recurrent state: the config's word where its class has one, else the model's dtype.

    Source: models/config.py (Nemotron-H: fp32 unless said; Qwen3.5: `mamba_ssm_dtype`), mamba_utils.py (KDA: fp32).
    """
    config = text_config(model)
    said = config.get("mamba_ssm_dtype")
    if kind == "kda":
        return 4
    if model.architecture.family.startswith("nemotron_h"):
        said = config.get("mamba_ssm_cache_dtype") or "float32"
    return 4 if said == "float32" else 2


# --- DeepSeek V4 ------------------------------------------------------------------------------------------------------


def _compressed_specs(model: Model) -> Iterator[Spec]:
    """DeepSeek V4: every layer keeps a window; a compressed one its entries, its pools' state, and an indexer's of both.

    Everything is in the packed fp8 layout, pages rounded up to 576 bytes; nothing is sharded. Source:
    models/deepseek_v4/attention.py and compressor.py, v1/attention/backends/mla/sparse_swa.py.
    """

    def page(size: int) -> int:
        return -(-size // _V4_ALIGNMENT) * _V4_ALIGNMENT

    for layer in model.cache_layers:
        yield Spec("latent_window", layer.layer, 64, page(64 * _PACKED_V4), (_PACKED_V4,), window=layer.window)
        ratio = layer.compress_ratio
        if not ratio:
            continue
        overlap = 2 if layer.index_dim else 1  # the sparse kind pools two overlapping series
        block = 4 if layer.index_dim else 8
        widths = [(layer.compressed_dim, _PACKED_V4)]
        if layer.index_dim:
            widths.append((layer.index_dim, _index_bytes(layer.index_dim)))
        for elements, packed in widths:
            yield Spec("latent", layer.layer, 256, page(256 // ratio * packed), (packed, ratio))
            yield Spec("latent_window", layer.layer, block, page(block * overlap * elements * 8), (elements,), window=overlap * ratio)
