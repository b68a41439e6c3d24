"""vram-plan: what a language model needs to run, byte by byte, before anything is downloaded or bought.

    >>> import vram_plan as vp
    >>> plan = vp.plan("llama3-8b", context="16k", bits=4, gpus="RTX 4060")
    >>> plan.fit.verdict, plan.memory.kv_cache

Sizes are bytes (int), rates SI floats, times seconds. A name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration.run import calibrate
    from .errors import (
        AmbiguousModelError,
        ClosedModelError,
        EngineError,
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
    from .explanation import Section, explain
    from .formats import Format, list_formats
    from .hardware import Device, GpuSpec, list_gpus, local_devices
    from .hardware.profile_store import StoredProfile, export_profile, find_profile, import_profile, remove_profile, stored_profiles
    from .hardware.profiles import Profile
    from .models.architecture import Architecture, CacheLayer, Tensor
    from .models.catalog import list_models
    from .models.loading import load
    from .models.model import Model
    from .planner import max_context, max_sequences, plan
    from .questions.batches import BatchCurve, BatchLoad, batch_curve
    from .questions.catalogue_fit import ModelsFit, models_for
    from .questions.compare import Comparison, compare
    from .questions.curve import ContextCurve, context_curve
    from .questions.recommend import Recommendation, recommend
    from .questions.sweep import SweepRow, sweep
    from .questions.table import Table, table
    from .results import Plan, Term
    from .units import format_count, format_gib, parse_tokens
    from .verification.values import Reconciliation
    from .verification.verify import verify

__version__ = "0.1.0"

_HOMES = {
    "calibration.run": "calibrate",
    "errors": (
        "AmbiguousModelError ClosedModelError EngineError FormatError GatedModelError HardwareError HubError MissingExtraError ModelError "
        "ModelNotFoundError UnknownNameError UsageError VramPlanError"
    ),
    "explanation": "Section explain",
    "formats": "Format list_formats",
    "hardware": "Device GpuSpec list_gpus local_devices",
    "hardware.profile_store": "StoredProfile export_profile find_profile import_profile remove_profile stored_profiles",
    "hardware.profiles": "Profile",
    "models.architecture": "Architecture CacheLayer Tensor",
    "models.catalog": "list_models",
    "models.loading": "load",
    "models.model": "Model",
    "questions.batches": "BatchCurve BatchLoad batch_curve",
    "questions.catalogue_fit": "ModelsFit models_for",
    "questions.compare": "Comparison compare",
    "questions.curve": "ContextCurve context_curve",
    "questions.recommend": "Recommendation recommend",
    "questions.sweep": "SweepRow sweep",
    "questions.table": "Table table",
    "results": "Plan Term",
    "planner": "max_context max_sequences plan",
    "units": "format_count format_gib parse_tokens",
    "verification.values": "Reconciliation",
    "verification.verify": "verify",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AmbiguousModelError",
    "Architecture",
    "BatchCurve",
    "BatchLoad",
    "CacheLayer",
    "ClosedModelError",
    "Comparison",
    "ContextCurve",
    "Device",
    "EngineError",
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
    "ModelsFit",
    "Plan",
    "Profile",
    "Recommendation",
    "Reconciliation",
    "Section",
    "StoredProfile",
    "SweepRow",
    "Table",
    "Tensor",
    "Term",
    "UnknownNameError",
    "UsageError",
    "VramPlanError",
    "batch_curve",
    "calibrate",
    "compare",
    "context_curve",
    "explain",
    "export_profile",
    "find_profile",
    "format_count",
    "format_gib",
    "import_profile",
    "list_formats",
    "list_gpus",
    "list_models",
    "load",
    "local_devices",
    "max_context",
    "max_sequences",
    "models_for",
    "parse_tokens",
    "plan",
    "recommend",
    "remove_profile",
    "stored_profiles",
    "sweep",
    "table",
    "verify",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
