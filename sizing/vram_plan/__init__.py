"""vram-plan: what a language model needs to run, byte by byte, before anything is downloaded or bought.

    >>> import vram_plan as vp
    >>> plan = vp.plan("llama3-8b", context="16k", bits=4, gpus="RTX 4060")
    >>> plan.fit.verdict, plan.memory.kv_cache

Sizes are bytes (int), rates SI floats, times seconds.
"""

from __future__ import annotations

from .errors import (
    AmbiguousModelError,
    ClosedModelError,
    FormatError,
    GatedModelError,
    HardwareError,
    HubError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
    UnknownNameError,
    UsageError,
    VramPlanError,
)
from .formats import Format, list_formats
from .hardware import Device, GpuSpec, list_gpus, local_devices
from .models import Model, load
from .models.architecture import Architecture, CacheLayer, Tensor
from .models.catalog import list_models
from .plan import Plan, Term
from .planner import max_context, max_sequences, plan

__version__ = "0.1.0"

__all__ = [
    "AmbiguousModelError",
    "Architecture",
    "CacheLayer",
    "ClosedModelError",
    "Device",
    "Format",
    "FormatError",
    "GatedModelError",
    "GpuSpec",
    "HardwareError",
    "HubError",
    "MissingExtraError",
    "Model",
    "ModelError",
    "ModelNotFoundError",
    "Plan",
    "Tensor",
    "Term",
    "UnknownNameError",
    "UsageError",
    "VramPlanError",
    "list_formats",
    "list_gpus",
    "list_models",
    "load",
    "local_devices",
    "max_context",
    "max_sequences",
    "plan",
]
