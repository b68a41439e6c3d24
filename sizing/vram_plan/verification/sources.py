"""What `--against` names: a log, a server, the driver, or llama.cpp's projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..models.model import Model
from .values import Observation

__all__ = ["LOCAL", "observe"]

#: A server's name → its address on this machine (the engines' default ports).
LOCAL: Final = {
    "ollama": "http://127.0.0.1:11434", "llama-server": "http://127.0.0.1:8080", "vllm": "http://127.0.0.1:8000",
}  # fmt: skip


def observe(
    against: str,
    shape: tuple[int, int],
    *,
    model: Model | None,
    request: Mapping[str, Any],
    timeout_s: float,
    api_key: str | None,
    measure: bool,
) -> Observation:
    from .logs import read_log

    return read_log(against, shape[0] or None, shape[1] or None)
