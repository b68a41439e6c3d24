"""The command, and the environment, that starts exactly what was planned: one file an engine.

Everything that comes from outside (names, paths, tags) is quoted. Flags are those of llama.cpp 0c1e57098, Ollama 0.33,
vLLM 0.32, SGLang 0.5.23 and transformers 5.23; the tests compare them with the engines' own lists.
"""

from __future__ import annotations

from importlib import import_module

from ..engines import Allocation, Work
from ..hardware.device import Device
from ..models.model import Model
from ..results import LaunchCommand

__all__ = ["launch"]


def launch(model: Model, work: Work, devices: tuple[Device, ...], allocation: Allocation) -> tuple[LaunchCommand, ...]:
    """Commands in the order they are run: one, or a line for each machine. `command` is one shell line, but Python for transformers."""
    room = import_module(f".{work.engine.replace('.', '')}", __name__)
    found: tuple[LaunchCommand, ...] = room.commands(model, work, devices, allocation.figures)
    return found
