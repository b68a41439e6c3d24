"""What `--against` names: a log, a server, the driver, or llama.cpp's projection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..models.model import Model
from .reading import Progress
from .values import Observation

__all__ = ["LOCAL", "observe"]

#: A server's name → its address on this machine (the engines' default ports).
LOCAL: Final = {
    "ollama": "http://127.0.0.1:11434", "llama-server": "http://127.0.0.1:8080", "vllm": "http://127.0.0.1:8000",
    "sglang": "http://127.0.0.1:30000",
}  # fmt: skip
_ADDRESS: Final = re.compile(r"(?:[\w.-]{1,253}|\[[0-9a-fA-F:]{2,45}\]):\d{1,5}(?:/.*)?")


def observe(
    against: str, shape: tuple[int, int], names: tuple[str, ...], *, model: Model | None, request: Mapping[str, Any], timeout_s: float,
    api_key: str | None, measure: bool, progress: Progress | None,
) -> Observation:  # fmt: skip
    """What is seen there of the model with this many layers and this width, which goes by these names."""
    driver = against == "nvml" or against.startswith("nvml:")
    address = None if driver else _address(against)
    if measure and address is None:
        raise UsageError("only a running server can be measured", "give its address: --against http://127.0.0.1:8080")
    if address is not None:
        return _server(address, names, timeout_s, api_key, measure, progress)
    if driver:
        from .driver import observe_driver

        return observe_driver(against, request.get("engine"))
    if against in ("llama.cpp", "llama-fit-params"):
        if model is None:
            raise UsageError("llama.cpp's projection needs the model, not only its plan", "give the model's name")
        from .projection import observe_projection

        return observe_projection(model, request, timeout_s)
    from .logs import read_log

    return read_log(against, *shape, progress=progress)


def _address(against: str) -> str | None:
    if against in LOCAL:
        return LOCAL[against]
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", against):
        return against
    return against if _ADDRESS.fullmatch(against) and not _exists(against) else None


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _server(
    address: str, names: tuple[str, ...], timeout_s: float, api_key: str | None, measure: bool, progress: Progress | None
) -> Observation:
    from .http import server_at
    from .servers import observe_server

    server = server_at(address, timeout_s, api_key)
    server.progress = progress
    seen = observe_server(server, names)
    if not measure:
        return seen
    from .measuring import measured

    return replace(seen, rates=(measured(server, seen),))
