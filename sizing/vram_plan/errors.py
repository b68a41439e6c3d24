"""Everything that can go wrong, as one tree. Each error carries the command's exit code.

VramPlanError
├── UsageError (2)            an option or argument that cannot be meant
│   └── UnknownNameError      a format, engine, option or GPU name nobody has; names the nearest
├── ModelError (3)            the model cannot be had
│   ├── ModelNotFoundError    no such model
│   ├── AmbiguousModelError   several models answer to that name
│   ├── ClosedModelError      its sizes were never published
│   └── GatedModelError       its licence must be accepted, or a token is missing
├── HubError (4)              the Hugging Face Hub did not answer as it should
├── EngineError (4)           a running engine's server did not answer as it should
├── FormatError (5)           a config or a file was not understood
├── HardwareError (6)         the driver or the device is the problem
└── MissingExtraError (7)     an optional package is not installed
"""

from __future__ import annotations

__all__ = [
    "AmbiguousModelError",
    "ClosedModelError",
    "EngineError",
    "FormatError",
    "GatedModelError",
    "HardwareError",
    "HubError",
    "MissingExtraError",
    "ModelError",
    "ModelNotFoundError",
    "UnknownNameError",
    "UsageError",
    "VramPlanError",
]


class VramPlanError(Exception):
    """Root of the tree: a sentence saying what was wrong and where, and a hint saying what to do."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(VramPlanError):
    code = "usage"
    exit_code = 2


class UnknownNameError(UsageError):
    code = "unknown_name"


class ModelError(VramPlanError):
    code = "model"
    exit_code = 3


class ModelNotFoundError(ModelError):
    code = "model_not_found"


class AmbiguousModelError(ModelError):
    code = "model_ambiguous"


class ClosedModelError(ModelError):
    code = "model_closed"


class GatedModelError(ModelError):
    code = "model_gated"


class HubError(VramPlanError):
    code = "hub"
    exit_code = 4


class EngineError(VramPlanError):
    code = "engine"
    exit_code = 4


class FormatError(VramPlanError):
    code = "not_understood"
    exit_code = 5


class HardwareError(VramPlanError):
    code = "hardware"
    exit_code = 6


class MissingExtraError(VramPlanError):
    code = "missing_extra"
    exit_code = 7
