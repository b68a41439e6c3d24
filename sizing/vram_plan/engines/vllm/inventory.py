"""The weights vLLM allocates for a model: those of the checkpoint, and the few that only vLLM has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from ...formats import Format, apply_format
from ...formats.schemes import apply_scheme, scheme_from_config
from ...models.architecture import Tensor
from ...models.model import Model
from .classes import VllmClass, text_config, vllm_class
from .shards import LayerHeads, cut_of

__all__ = ["has_act_order", "layer_heads", "vllm_tensors"]

#: An indexer's projections that are rows of `qkv_proj` (models/minimax_m3).
_FUSED_INDEXER: Final = ("indexer.q_proj", "indexer.k_proj")


@lru_cache(maxsize=128)
def vllm_tensors(model: Model, format: Format) -> tuple[Tensor, ...]:
    """The weights in a format, with what vLLM allocates besides: a V projection beside every K, correction biases."""
    kind = vllm_class(model)
    own = format.name == model.stored_format and model.quantization
    if own and model.quantization is not None:
        scheme = scheme_from_config(model.quantization, model.config)
        tensors = apply_scheme(model.architecture.tensors, scheme) if scheme else model.architecture.tensors
    else:
        tensors = apply_format(model.architecture, format)
    tensors = tuple(t for t in tensors if t.part != "mtp" and t.parameters)
    if not own and format.family == "scheme":
        tensors = tuple(t._replace(stored_as=format.stored_as) if _without_exceptions(t, format, kind) else t for t in tensors)
    queries = {t.layer: t.stored_as for t in tensors if t.role == "attn_q"}
    tensors = tuple(t._replace(stored_as=queries[t.layer]) if t.role in _FUSED_INDEXER and t.layer in queries else t for t in tensors)
    head = (t._replace(role="output") for t in tensors if kind.own_head and model.tied_embeddings and t.role == "token_embd")
    return (*tensors, *head, *_missing_v(tensors), *_missing_k_biases(tensors), *_missing_biases(model, kind, tensors))


def has_act_order(model: Model, format: Format) -> bool:
    """Whether a checkpoint's rows are sorted by activation and its groups are not (GPTQ's desc_act, compressed-tensors' actorder)."""
    config = model.quantization
    if config is None or format.name != model.stored_format:
        return False
    if str(config.get("quant_method")).lower() == "gptq":
        return bool(config.get("desc_act")) and config.get("group_size") != -1
    groups = config.get("config_groups")
    found = [group.get("weights") for group in groups.values() if isinstance(group, Mapping)] if isinstance(groups, Mapping) else []
    return any(isinstance(weights, Mapping) and weights.get("actorder") in ("group", "dynamic", True) for weights in found)


def _without_exceptions(tensor: Tensor, format: Format, kind: VllmClass) -> bool:
    """Whether a format asked for by name alone, with no list of exceptions, also takes a router or a tower's matrix.

    FP8 is what `--quantization fp8` makes of a 16-bit checkpoint while it loads; 4-bit checkpoints of vision models
    leave the tower out. SigLIP and CLIP quantise an MLP only in multiples of 64 (siglip.py, clip.py).
    """
    family = format.stored_as.split("-")[0]
    if tensor.role == "ffn_gate_inp":
        return "quantised" in kind.router and family in ("AWQ", "GPTQ")
    if tensor.part not in ("vision", "projector") or family not in ("FP8T", "FP8C") or kind.tower & {"whole", "divides"}:
        return False
    siglip = "position_ids" in kind.rope and tensor.role.startswith("v.ffn_")
    return len(tensor.shape) == 2 and cut_of(tensor.role) != "whole" and not (siglip and any(n % 64 for n in tensor.shape))


def _missing_v(tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """K and V that share a projection (Gemma-4's full layers) are allocated as two: `QKVParallelLinear`."""
    with_v = {t.layer for t in tensors if t.role == "attn_v"}
    for tensor in tensors:
        if tensor.role == "attn_k" and tensor.part == "text" and tensor.layer not in with_v:
            yield tensor._replace(role="attn_v")


def _missing_k_biases(tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Where Q has a bias K has one too, as the three are one matrix (Whisper's K has none in its checkpoint)."""
    biases = {(t.role, t.layer) for t in tensors if t.role.endswith(("attn_q.bias", "attn_k.bias"))}
    for tensor in tensors:
        query = (f"{tensor.role.removesuffix('k')}q.bias", tensor.layer)
        if tensor.role.endswith("attn_k") and query in biases and (f"{tensor.role}.bias", tensor.layer) not in biases:
            yield Tensor(f"{tensor.role}.bias", tensor.layer, tensor.shape[:1], part=tensor.part)


def _missing_biases(model: Model, kind: VllmClass, tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """One fp32 value an expert that steers the routing; checkpoints keep it as a buffer, vLLM as a parameter."""
    topk = text_config(model).get("topk_method")
    if "bias" not in kind.router or any(t.role == "exp_probs_b.bias" for t in tensors) or topk in ("greedy", "group_limited_greedy"):
        return
    for tensor in tensors:
        if tensor.role == "ffn_gate_inp":
            yield Tensor("exp_probs_b.bias", tensor.layer, tensor.shape[:1], stored_as="F32")


@lru_cache(maxsize=128)
def layer_heads(model: Model) -> dict[int | None, LayerHeads]:
    """Heads by layer: of its attention, or of its Mamba-2 mixer."""
    found: dict[int | None, LayerHeads] = {c.layer: LayerHeads(c.heads, c.kv_heads) for c in model.cache_layers if c.heads}
    by_layer: dict[int | None, dict[str, Tensor]] = {}
    for tensor in model.architecture.tensors:
        if tensor.role in ("ssm_d", "ssm_out", "ssm_conv1d"):
            by_layer.setdefault(tensor.layer, {})[tensor.role] = tensor
    states = {c.layer: c.state_elements for c in model.cache_layers if c.state_elements}
    for layer, mixer in by_layer.items():
        if len(mixer) < 3 or len(mixer["ssm_out"].shape) != 2 or not all(t.shape and t.parameters for t in mixer.values()):
            continue
        inner, old = mixer["ssm_out"].shape[1], found.get(layer, LayerHeads())
        state = states.get(layer or 0, 0) // inner
        groups = (mixer["ssm_conv1d"].shape[0] - inner) // (2 * state) if state else 0  # B and C are convolved beside the inner width
        if groups > 0:
            found[layer] = LayerHeads(old.heads, old.kv_heads, inner, groups, mixer["ssm_d"].shape[0])
    return found
