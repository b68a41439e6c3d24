"""What vLLM refuses to start with, in its own words' sense, and what would be legal.

Source: vLLM 0.32, config/model.py (`verify_with_parallel_config`), model_executor/layers/linear.py (`QKVParallelLinear`),
vocab_parallel_embedding.py, quantization/{auto_awq,auto_gptq,fp8}.py, compressed_tensors, models/registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import Final

from ...formats import Format
from ...formats.storage import block_elements
from ...models.architecture import Tensor
from ...models.model import Model
from ...values import dataclass
from ..base import Work
from .classes import vision_heads, vllm_class
from .inventory import has_act_order, layer_heads, vllm_tensors
from .loading import loading_of
from .shards import cut_of, padded_vocab, stage_layers
from .versions import numbers

__all__ = ["refusal"]

_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
_FP8_BLOCK: Final = 128
#: The version these rules are of, and what a class it no longer has was last run by.
_VERSION: Final = "0.32"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What of the work the rules hang on."""

    format: Format
    expert_parallel: bool
    version: str
    copies: int = 1


def refusal(model: Model, work: Work, tp: int, pp: int) -> str | None:
    """Why vLLM would not start with this split, and what would be legal; None when it would."""
    own = work.engine == "vllm"  # SGLang, which cuts alike, has versions of its own
    version, copies = (work.option("version"), work.option("data_parallel") or 1) if own else (None, 1)
    return _refusal(model, _Asked(work.format, work.expert_parallel, str(version or _VERSION), copies), tp, pp)


@lru_cache(maxsize=2048)
def _refusal(model: Model, asked: _Asked, tp: int, pp: int) -> str | None:
    problem = _unsupported(model, asked) or _checkpoint(model, asked) or _stages(model, pp)
    if problem:
        return problem
    problem = _split(model, asked, tp)
    if problem is None:
        return None
    legal = [str(size) for size in _SIZES if size != tp and _split(model, asked, size) is None]
    return f"{problem}; tensor parallelism of {', '.join(legal)} would be" if legal else problem


def _unsupported(model: Model, asked: _Asked) -> str | None:
    """A class that was taken out, unless an older version was asked for."""
    until = vllm_class(model).until
    if not until or numbers(asked.version)[:2] <= numbers(until)[:2]:
        return None
    return f"vLLM runs {model.architecture.name} up to version {until} only"


def _checkpoint(model: Model, asked: _Asked) -> str | None:
    """A checkpoint whose quantisation config vLLM does not take."""
    config = model.quantization
    if asked.format.name != model.stored_format or config is None:
        return None
    if str(config.get("quant_method")).lower() == "gptq" and "desc_act" not in config:
        return "the checkpoint's GPTQ config does not say desc_act, which vLLM asks for"
    if has_act_order(model, asked.format) and not loading_of(asked.version).act_order:
        return "vLLM no longer runs checkpoints with activation order and groups (GPTQ's desc_act, compressed-tensors' actorder)"
    return None


def _stages(model: Model, pp: int) -> str | None:
    """A pipeline the class or its layers do not allow."""
    if pp == 1:
        return None
    if not vllm_class(model).pipeline:
        return f"vLLM has no pipeline parallelism for {model.architecture.name}"
    layers = model.architecture.layers
    if pp > layers:
        return f"{layers} layers cannot be cut into {pp} pipeline stages"
    starts = list(accumulate(stage_layers(layers, pp)))[:-1]
    for layer in model.cache_layers:
        if layer.kind == "shared" and layer.source is not None and any(layer.source < start <= layer.layer for start in starts):
            return f"layer {layer.layer} shares the KV cache of layer {layer.source}, which pipeline parallelism would put on another stage"
    return None


def _split(model: Model, asked: _Asked, tp: int) -> str | None:
    """What tensor parallelism of this size breaks first."""
    if tp * asked.copies == 1:  # what a checkpoint's own config says of a matrix, not a format by name
        return _groups(model, asked, tp) if model.quantization and asked.format.name == model.stored_format else None
    rules: tuple[Callable[[Model, _Asked, int], str | None], ...] = (_heads, _states, _vocabulary, _vision, _widths, _groups)
    return next((problem for rule in rules if (problem := rule(model, asked, tp))), None)


def _heads(model: Model, asked: _Asked, tp: int) -> str | None:
    heads = model.architecture.heads
    if heads and heads % tp:
        return f"{heads} attention heads are not divisible by tensor parallelism {tp}"
    for kv in sorted({c.kv_heads for c in model.cache_layers if c.kind in ("full", "sliding", "chunked") and c.kv_heads}):
        if kv % tp and tp % kv:
            return f"{kv} KV heads are neither divisible by tensor parallelism {tp} nor a divisor of it"
    return None


def _states(model: Model, asked: _Asked, tp: int) -> str | None:
    """State groups of Mamba-2 mixers (mamba_mixer2.py): a single one is repeated."""
    groups = next((heads.groups for heads in layer_heads(model).values() if heads.groups > 1 and heads.groups % tp), 0)
    return f"{groups} state groups are not divisible by tensor parallelism {tp}" if groups else None


def _vocabulary(model: Model, asked: _Asked, tp: int) -> str | None:
    padded = padded_vocab(model.architecture.vocab_size)
    return f"the padded vocabulary of {padded:,} is not divisible by tensor parallelism {tp}" if padded % tp else None


def _vision(model: Model, asked: _Asked, tp: int) -> str | None:
    """Heads of a tower that is cut like the text model."""
    heads = vision_heads(model)
    kind = vllm_class(model)
    cut = kind.tower <= {"feature"} and kind.native and any(t.part == "vision" for t in model.architecture.tensors)
    return f"the vision tower's {heads} heads are not divisible by tensor parallelism {tp}" if cut and heads and heads % tp else None


def _widths(model: Model, asked: _Asked, tp: int) -> str | None:
    """Matrices cut by columns, experts included, must come out whole."""
    for tensor in _cut_by_columns(model, asked):
        ranks = _ranks(tensor, asked, tp)
        if tensor.shape[-1] % ranks:
            return f"{tensor.role} has {tensor.shape[-1]:,} inputs, not divisible by {_words(ranks, tp)}"
    return None


def _groups(model: Model, asked: _Asked, tp: int) -> str | None:
    """Quantised matrices cut by columns must be cut between groups or blocks; some layouts can make them smaller."""
    for tensor in _cut_by_columns(model, asked):
        family = tensor.stored_as.split("-")[0]
        ranks = _ranks(tensor, asked, tp)
        local = tensor.shape[-1] // ranks
        if tensor.experts:
            problem = family in ("CT", "CTZ") and local % max(block_elements(tensor.stored_as), 1)
        elif family in ("AWQ", "GPTQ", "CT", "CTZ"):
            problem = bool(local % max(block_elements(tensor.stored_as), 1))
        else:
            problem = family in ("FP8B", "FP8BE") and bool(local % _FP8_BLOCK)
        if problem:
            split = f" a rank at {_words(ranks, tp)}" if ranks > 1 else ""
            return f"{tensor.role} has {local:,} inputs{split}: no whole number of {tensor.stored_as}'s groups"
    return None


def _ranks(tensor: Tensor, asked: _Asked, tp: int) -> int:
    """Ranks a matrix is cut over: experts, which expert parallelism leaves whole, over those of all copies."""
    if not tensor.experts:
        return tp
    return 1 if asked.expert_parallel else tp * asked.copies


def _words(ranks: int, tp: int) -> str:
    return f"tensor parallelism {tp}" if ranks == tp else f"{ranks} ranks (tensor × data parallelism)"


def _cut_by_columns(model: Model, asked: _Asked) -> Iterator[Tensor]:
    """One matrix of each role and shape that `RowParallelLinear` cuts."""
    found = {(t.role, t.shape[-1], t.stored_as): t for t in vllm_tensors(model, asked.format) if t.part == "text" and len(t.shape) > 1}
    return (t for t in found.values() if cut_of(t.role) == "columns")
