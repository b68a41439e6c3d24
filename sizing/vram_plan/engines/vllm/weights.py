"""What one vLLM rank holds of a model before any request: parameters, and the tables and buffers beside them.

Parameters are as vLLM creates them, before it repacks them; what loading on CUDA makes of them is apart (`loading`).
Source: vLLM 0.32 (its classes built with real configs, no weights), the files named in each function.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ...formats import Format
from ...models.architecture import Tensor
from ...models.model import Model
from ...values import dataclass
from ..base import Work
from .classes import VllmClass, vision_heads, vllm_class
from .inventory import has_act_order, layer_heads, vllm_tensors
from .layout import expert_bias_bytes, expert_bytes, linear_bytes, mxfp4_padding
from .legal import refusal
from .loading import Held, Loaded, Loading, loaded, loading_of
from .ropes import batch_buffer_bytes, layer_buffer_bytes, rope_tables
from .shards import LayerHeads, local_shape, stage_layers

__all__ = ["RankWeights", "rank_weights", "refusal", "stage_layers"]

DEFAULT_BATCH_TOKENS: Final = 8192
#: Projections of a value a head, too narrow for Marlin once cut: whole in checkpoints of these methods (qwen_gdn_linear_attn.py).
_NARROW, _MARLIN_METHODS = ("ssm_alpha", "ssm_beta"), ("awq", "gptq", "auto-round")
#: What ranks with attention of their own do not cut over the others: mixers and embedding (sglang, layers/dp_attention.py).
_ATTENTION: Final = ("attn_", "ssm_", "shortconv", "indexer", "token_embd")


@dataclass(frozen=True, slots=True)
class RankWeights:
    """Bytes one rank allocates when the model is loaded.

    `parameter_bytes` and `buffer_bytes` are as created; `extra_bytes` is what loading on CUDA adds to them, `freed_bytes`
    what it frees. Each comes with the reason it is that number. `segment_bytes`: what PyTorch takes of the GPU beyond tensors.
    """

    parameter_bytes: int
    buffer_bytes: int
    extra_bytes: int
    freed_bytes: int
    why: str
    buffer_why: str
    extra_why: str
    segment_bytes: int = 0

    @property
    def total(self) -> int:
        """What vLLM's log calls "Model loading took"."""
        return self.parameter_bytes + self.buffer_bytes + self.extra_bytes - self.freed_bytes


def rank_weights(
    model: Model,
    work: Work,
    tp: int,
    pp: int,
    rank: int = 0,
    stage: int = 0,
    *,
    capability: tuple[int, int] | None = None,
    attention_tp: int | None = None,
    mxfp4: tuple[int, int] | None = None,
) -> RankWeights:
    """Weights and buffers of tensor-parallel rank `rank`, counted over all copies, in pipeline stage `stage`.

    Buffers of one step hold the option `max_num_batched_tokens`, 8192 where it is not set. `capability` is the GPU's
    compute capability, Hopper's where not given. `attention_tp`: so many ranks share attention and embedding, where that is fewer.
    `mxfp4`: what hidden and intermediate size of MXFP4 experts are rounded up to, where not as in vLLM.
    """
    tokens = work.option("max_num_batched_tokens")
    batch_tokens = tokens if isinstance(tokens, int) else DEFAULT_BATCH_TOKENS
    marlin = work.option("moe_backend") == "marlin"
    copies = (work.option("data_parallel") or 1) if work.engine == "vllm" else 1
    experts = _local_experts(model.architecture.experts, tp * copies, rank) if work.expert_parallel else 0
    version = work.option("version") if work.engine == "vllm" else None
    kernels = loading_of(version if isinstance(version, str) else None), capability is None or capability[0] == 9
    cut, padding = _Cut(tp, pp, stage, experts, tp * copies, attention_tp or tp), mxfp4 or mxfp4_padding(capability, marlin)
    sums = _stage_sums(model, work.format, cut, padding, kernels)
    buffers, why = _buffers(model, tp, pp, stage, batch_tokens)
    return RankWeights(sums.parameters, buffers, sums.loaded.extra, sums.loaded.freed, sums.why, why, sums.loaded.why, sums.loaded.segments)


@dataclass(frozen=True, slots=True)
class _Sums:
    parameters: int
    loaded: Loaded
    why: str


@dataclass(frozen=True, slots=True)
class _Cut:
    """How a rank's part is cut: `experts` whole routed experts of it with expert parallelism, else each over `expert_tp` ranks."""

    tp: int
    pp: int
    stage: int
    experts: int
    expert_tp: int
    attention_tp: int

    @property
    def spread(self) -> bool:
        """Whether ranks part the tokens between them for the experts, the shared ones too (`use_sequence_parallel_moe`)."""
        return bool(self.experts) and self.expert_tp > self.tp > 1


@lru_cache(maxsize=1024)
def _stage_sums(model: Model, format: Format, cut: _Cut, padding: tuple[int, int], kernels: tuple[Loading, bool]) -> _Sums:
    held = tuple(_held(model, format, vllm_class(model), cut, padding))
    rule, hopper = kernels
    after = loaded(held, rule, hopper, padding[0] == 1, has_act_order(model, format))
    why = f"{model.parameters.total:,} parameters in {format.name}" + _split_words(cut)
    return _Sums(sum(size for *_, size in held), after, why)


def _split_words(cut: _Cut) -> str:
    words = [f"cut over {cut.tp} ranks; norms, routers and missing KV heads whole on each"] if cut.tp > 1 else []
    words += [f"stage {cut.stage + 1} of {cut.pp}"] if cut.pp > 1 else []
    words += [f"{cut.experts} experts a rank"] if cut.experts else []
    words += [f"experts cut over {cut.expert_tp} ranks"] if cut.expert_tp > cut.tp and not cut.experts else []
    return (": " if words else "") + "; ".join(words)


def _held(model: Model, format: Format, kind: VllmClass, cut: _Cut, padding: tuple[int, int]) -> Iterator[Held]:
    """Every tensor of one rank: what it is, the shape of its part, its bytes."""
    heads = layer_heads(model)
    marlin = format.name == model.stored_format and str((model.quantization or {}).get("quant_method")) in _MARLIN_METHODS
    dropped = _unused_vision_layers(model, kind)
    inside = _stage_range(model.architecture.layers, cut.pp, cut.stage)
    tensors = vllm_tensors(model, format)
    stacks = {t.layer: t.stored_as for t in tensors if t.experts and len(t.shape) == 3}
    for tensor in tensors:
        if tensor.layer is not None and (tensor.layer not in inside if tensor.part == "text" else tensor.layer in dropped):
            continue
        if tensor.part == "text" and tensor.layer is None and not _on_stage(tensor.role, kind, cut.pp, cut.stage, model.tied_embeddings):
            continue
        routed = tensor.experts > 1
        shared = cut.spread and tensor.role.endswith("_shexp")
        whole = _uncut(tensor, kind, model, cut.tp) or (marlin and tensor.role in _NARROW) or (routed and cut.experts) or shared
        ranks = cut.expert_tp if routed else cut.attention_tp if tensor.role.startswith(_ATTENTION) else cut.tp
        shape = local_shape(tensor, 1 if whole else ranks, heads.get(tensor.layer, LayerHeads()))
        if tensor.role == "token_embd" and "embedding" in kind.tower:
            shape = tensor.shape
        if routed and cut.experts:
            shape = (min(cut.experts, shape[0]), *shape[1:])
        yield tensor, shape, _bytes(tensor, shape, kind, padding, stacks.get(tensor.layer, ""))


def _uncut(tensor: Tensor, kind: VllmClass, model: Model, tp: int) -> bool:
    """Whether every rank has the whole of a weight that another class would cut."""
    if tensor.part == "text" and not tensor.role.startswith("mm."):
        return "mlp" in kind.tower and tensor.role.startswith("ffn_")
    if tensor.role == "mm.patch":  # gemma4_unified.py: patches go straight into a ColumnParallelLinear
        return False
    if "whole" in kind.tower or ("divides" in kind.tower and vision_heads(model) % tp):
        return True
    starts = [start for word, start in (("projector", "mm."), ("attention", "v.attn_")) if word in kind.tower]
    return tensor.role.startswith(tuple(starts))


def _bytes(tensor: Tensor, shape: tuple[int, ...], kind: VllmClass, padding: tuple[int, int], stack: str) -> int:
    role = tensor.role
    down = role.startswith("ffn_down")
    if tensor.experts and role.endswith(".bias"):
        return expert_bias_bytes(shape, stack, down, padding)
    if tensor.experts and len(shape) == 3:
        intermediate = shape[2] if down else shape[1] // (2 if "gate_up" in role else 1)
        return expert_bytes(tensor.stored_as, shape, down, padding, intermediate)
    if _is_fp32(role, kind):
        size = 4
        for length in shape:
            size *= length
        return size
    return linear_bytes(tensor.stored_as, shape)


def _is_fp32(role: str, kind: VllmClass) -> bool:
    """Parameters kept in fp32: state decay, correction biases, the indexer's norm, some classes' routers."""
    if role in ("ssm_a", "exp_probs_b.bias") or role.startswith(("indexer.k_norm", "hc_", "output_hc_")):
        return True
    return role == "ffn_gate_inp" and "fp32" in kind.router


def _unused_vision_layers(model: Model, kind: VllmClass) -> range:
    """LLaVA reads its tower before the last layers, which are not built (llava.py, `vision_feature_layer`: the last but one
    where a config does not say; LLaVA-OneVision's the last)."""
    config = model.config or {}
    layer = config.get("vision_feature_layer", -1 if config.get("model_type") == "llava_onevision" else -2)
    count = 1 + max((t.layer or 0 for t in model.architecture.tensors if t.part == "vision"), default=-1)
    if "feature" not in kind.tower or not isinstance(layer, int) or not -count <= layer < 0:
        return range(0)
    return range(count + 1 + layer, count)


def _stage_range(layers: int, pp: int, stage: int) -> range:
    counts = stage_layers(layers, pp)
    start = sum(counts[:stage])
    return range(start, start + counts[stage]) if pp > 1 else range(max(layers, 1 << 20))


def _on_stage(role: str, kind: VllmClass, pp: int, stage: int, tied: bool) -> bool:
    """Whether a pipeline stage allocates a tensor outside the layers."""
    if pp == 1:
        return True
    if role.startswith(("token_embd", "per_layer")):
        return kind.embedding == "every" or stage == 0 or (tied and stage == pp - 1 and role == "token_embd")
    if role.startswith("output"):
        return stage == pp - 1 or (kind.head == "every" and role in ("output", "output.bias"))
    return True


def _local_experts(experts: int, ranks: int, rank: int) -> int:
    """Experts of one rank; the first ranks have one more where they do not divide (fused_moe/layer.py)."""
    return experts // ranks + (rank < experts % ranks) if experts else 0


@lru_cache(maxsize=1024)
def _buffers(model: Model, tp: int, pp: int, stage: int, batch_tokens: int) -> tuple[int, str]:
    inside = _stage_range(model.architecture.layers, pp, stage)
    tables, batch = rope_tables(model, inside), batch_buffer_bytes(model, batch_tokens, tp)
    words = [f"{t.positions:,} × {t.width} × {t.element_bytes} B" for t in tables]
    why = "rope tables " + " + ".join(words) if words else "no rope table"
    total = sum(t.bytes for t in tables) + batch + layer_buffer_bytes(model, tp, inside)
    return total, why + (f"; {batch_tokens:,} tokens of step buffers" if batch else "")
