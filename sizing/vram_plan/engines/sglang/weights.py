"""The weights of one SGLang rank: split as vLLM splits them, with rope tables of SGLang's own.

Source: sglang 0.5.23, srt/layers/rotary_embedding/base.py (tables in fp32), mrope.py (as long as the config's positions),
srt/models/gemma3_causal.py (no scaling of the table).
"""

from __future__ import annotations

from collections.abc import Mapping

from ...hardware.device import Device
from ...models.architecture import Basis
from ...models.model import Model
from ...results import Term
from ..base import Work
from ..vllm.classes import text_config, vllm_class
from ..vllm.ropes import rope_tables
from ..vllm.weights import rank_weights, stage_layers
from ..weights import weights_of
from .settings import Settings

__all__ = ["weight_terms"]

#: vLLM's table of a rope with sections is as many times the config's positions; SGLang's is not.
_SECTIONED: int = 4
_ELEMENT: int = 4
#: The compute capability of B200, whose MXFP4 kernels want experts padded.
_BLACKWELL: int = 10


def weight_terms(model: Model, work: Work, s: Settings, rank: int, stage: int, device: Device | None) -> tuple[Term, ...]:
    """Parameters, rope tables and, where asked for, draft layers of a tensor-parallel rank in a pipeline stage."""
    capability = device.capability if device else None
    padding = s.profile.mxfp4_blackwell if capability and capability[0] == _BLACKWELL else None
    found = rank_weights(model, work, s.tp, s.pp, rank, stage, capability=capability, attention_tp=s.attention_tp, mxfp4=padding)
    basis: Basis = "fallback" if model.basis == "fallback" else "formula"
    draft = weights_of(model, work.format).mtp // s.tp if s.speculative and stage == s.pp - 1 else 0
    layers = stage_layers(model.architecture.layers, s.pp)
    tables, why = _tables(model, range(sum(layers[:stage]), sum(layers[: stage + 1])))
    terms = (
        Term("weights", found.parameter_bytes, basis, found.why or "this rank's share", "weights"),
        Term("buffers", tables, basis, why, "weights"),
        Term("allocator", found.segment_bytes, basis, "what PyTorch's segments hold beyond the tensors in them", "weights"),
        Term("draft", draft, basis, "the model's own draft layers", "weights"),
    )
    return tuple(term for term in terms if term.bytes)


def _tables(model: Model, layers: range) -> tuple[int, str]:
    """Bytes of the rope tables, whole on every rank, and their shapes."""
    tables = rope_tables(model, layers)
    config = text_config(model)
    scaling = config.get("rope_parameters") or config.get("rope_scaling")
    sectioned = isinstance(scaling, Mapping) and scaling.get("mrope_section") and "mrope1" not in vllm_class(model).rope
    shortest = min((t.positions for t in tables), default=0)
    plain = model.architecture.family.startswith("gemma3")
    shapes = [(shortest if plain else t.positions // (_SECTIONED if sectioned else 1), t.width) for t in tables]
    words = " + ".join(f"{positions:,} × {width} × {_ELEMENT} B" for positions, width in shapes)
    return sum(positions * width for positions, width in shapes) * _ELEMENT, f"rope tables {words}" if words else "no rope table"
