"""What drafts tokens for llama.cpp: a smaller model with a context of its own, or the model's own prediction (MTP) layers.

Either has as many cells as the model's context, in fp16 whatever the model's own are in (but see `draft_kv` of
`llamacpp_builds.toml`), and a compute buffer of its own. Source: llama.cpp 0c1e57098, common/speculative.cpp
(`common_base_params_to_speculative`, `common_speculative_init_result`), common/common.h, src/models/*.cpp (`graph_mtp`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from ...errors import UsageError
from ...formats import find_format, for_engine
from ...models.architecture import Architecture
from ...models.model import Model
from ..base import Work
from ..weights import weights_of
from .placement import on_gpu

__all__ = ["DRAFTED", "KV", "draft_model", "draft_work", "prediction_bytes", "predictor", "rolls_back"]

#: Tokens drafted at most (`--spec-draft-n-max`): the model gives logits of one more for each sequence.
DRAFTED: Final = 3
#: Cache type of what drafts, whatever the model's own (`-ctkd`, `-ctvd`).
KV: Final = "f16"
#: Families whose prediction layers llama.cpp runs, and those whose recurrent states it can take back by as many tokens
#: as are drafted, keeping a copy of each (src/llama-arch.cpp, `llm_arch_supports_rs_rollback`).
_PREDICTS: Final = frozenset({
    "bailing_moe_v3", "bailingmoe3", "cohere2_moe", "cohere2moe", "deepseek_v3", "deepseek2", "deepseek_v32", "deepseek32", "deepseek_v4",
    "deepseek4", "glm_moe_dsa", "glm-dsa", "glm4_moe", "glm4v_moe", "glm4moe", "hy_v3", "mimo_v2", "mimo_v2_flash", "mimo2", "nemotron_h",
    "nemotron_h_moe", "qwen3_next", "qwen3next", "qwen3_5", "qwen3_5_moe", "qwen35", "qwen35moe", "step3p5", "step35",
})  # fmt: skip
_ROLLS_BACK: Final = frozenset({
    "bailing_moe_v3", "bailingmoe3", "kimi_k3", "kimi-k3", "lfm2", "lfm2_moe", "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen3_5",
    "qwen3_5_moe", "qwen35", "qwen35moe", "qwen4_exp", "qwen4exp",
})  # fmt: skip


@lru_cache(maxsize=64)
def draft_model(value: Any) -> Model | None:
    """The draft model an option names: a loaded one, or a text `load` takes. Raises as `load` does."""
    if value is None or isinstance(value, Model):
        return value
    from ...models.loading import load

    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"draft is {str(value)[:40]!r}", "the name of a model belongs there, or a path")
    return load(value)


def draft_work(work: Work, draft: Model) -> Work:
    """The work as the draft model has it: its own file's format, else that of the model."""
    format = for_engine(find_format(draft.stored_format), work.engine) if draft.is_gguf else work.format
    return replace(work, format=format, kv_k=KV, kv_v=KV, offload="none", options=())


@lru_cache(maxsize=64)
def predictor(model: Model) -> Model:
    """A model's prediction layers as a model. Raises UsageError where it has none that llama.cpp runs."""
    a = model.architecture
    own = [t for t in a.tensors if t.part == "mtp"]
    tensors = tuple(t._replace(part="text", layer=t.layer - a.layers) for t in own if t.layer is not None and t.layer >= a.layers)
    owners = [layer for layer in a.cache_layers if layer.kv_heads and layer.kind not in ("shared", "cross")]
    if a.family not in _PREDICTS or not tensors or not owners:
        raise UsageError(f"{model.name} has no prediction layers llama.cpp drafts with", "leave mtp out, or name a draft model")
    count = 1 + max(t.layer or 0 for t in tensors)
    last = owners[-1]._replace(kind="latent" if owners[-1].latent_rank else "full", window=0)
    caches = tuple(last._replace(layer=i) for i in range(count))
    shape: Architecture = replace(a, layers=count, tensors=tensors, cache_layers=caches)
    return replace(model, architecture=shape, tensors=tensors)


def prediction_bytes(model: Model, work: Work) -> int:
    """What a model's prediction layers take on the GPU."""
    return sum(on_gpu(t) for t in weights_of(model, work.format).tensors if t.part == "mtp")


def rolls_back(model: Model) -> bool:
    return model.architecture.family in _ROLLS_BACK
