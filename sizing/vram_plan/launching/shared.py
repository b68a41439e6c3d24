"""Words of a command, and what vLLM's, SGLang's and transformers' commands share."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..engines import Work
from ..hardware.device import Device
from ..models.model import Model

__all__ = [
    "HEAD", "cache_type", "checkpoint", "dtype", "flag", "format_note", "given", "is_path", "line", "name", "needs_remote_code",
    "quantization", "revision", "shape", "size", "switch",
]  # fmt: skip

#: Stands for the first machine's address where there are several.
HEAD: Final = "HEAD_IP"
#: Formats vLLM and SGLang make of a 16-bit checkpoint while loading it.
_ONLINE: Final = {
    "vllm": {"FP8": "fp8", "NF4": "bitsandbytes"},
    "sglang": {"FP8": "fp8", "FP8-CHANNEL": "w8a8_fp8", "NF4": "bitsandbytes"},
}
_SERVER_CACHE: Final = {"vllm": "fp8", "sglang": "fp8_e4m3"}
_DTYPES: Final = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def line(words: Iterable[object]) -> str:
    """One shell line, each word quoted where it must be."""
    return " ".join(shlex.quote(str(word)) for word in words)


def name(text: str) -> str:
    """A name or path that no program takes for an option."""
    cleaned = text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
    return f"./{cleaned}" if cleaned.startswith("-") else cleaned


def checkpoint(model: Model) -> str:
    """What engines that read the Hub or a folder are given: the Hub id, or the path."""
    return name(model.reference if is_path(model) else model.name.split(":")[0])


def is_path(model: Model) -> bool:
    """Whether the model was read from a path: then that is its source, word for word."""
    return model.source == model.reference


def shape(work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tensor and pipeline parallelism, and the machines they need."""
    tp, pp = figures.get("tensor_parallel", work.tensor_parallel), figures.get("pipeline_parallel", work.pipeline_parallel)
    gpus = tp * pp * figures.get("data_parallel", 1)
    return tp, pp, max(len({device.node for device in devices[:gpus]}), 1)


def size(text: str, count: int) -> list[object]:
    """A flag for a count that is 1 by itself."""
    return [text, count] if count > 1 else []


def given(work: Work, names: Iterable[tuple[str, str]]) -> list[object]:
    """The options that were given, as flags."""
    return [word for option, text in names if work.option(option) is not None for word in (text, work.option(option))]


def switch(work: Work, option: str, text: str, when: bool) -> list[object]:
    """A flag without a value, where the option was given and is `when`."""
    return [text] if work.option(option) is not None and flag(work, option) == when else []


def flag(work: Work, option: str) -> bool:
    """An option that is true or false; false where it was not given."""
    return str(work.option(option)).strip().lower() in ("true", "1", "yes", "on")


def cache_type(engine: str, work: Work) -> list[object]:
    """The type of the KV cache, where it is not the model's own."""
    return ["--kv-cache-dtype", _SERVER_CACHE[engine]] if work.kv_k == "fp8" else []


def revision(model: Model) -> list[object]:
    """The revision that was read, of a model on the Hub."""
    return ["--revision", name(model.revision)] if model.revision and not is_path(model) else []


def quantization(engine: str, model: Model, work: Work) -> list[object]:
    """What makes the engine convert a 16-bit checkpoint while it loads."""
    online = _ONLINE[engine].get(work.format.name)
    if not online or not _plain(model) or work.format.name == model.stored_format:
        return []
    loader = ["--load-format", online] if (engine, online) == ("vllm", "bitsandbytes") else []
    return ["--quantization", online, *loader]


def _plain(model: Model) -> bool:
    return model.stored_format in _DTYPES


def format_note(engine: str, model: Model, work: Work) -> str:
    """Said where the checkpoint named is not in the planned format and the engine does not convert it."""
    wanted, stored = work.format.name, model.stored_format
    if wanted == stored or quantization(engine, model, work) or {wanted, stored} <= _DTYPES.keys():
        return ""
    return f"this checkpoint is in {stored}: name one in {wanted} instead"


def dtype(model: Model, work: Work) -> str:
    """The type of what is not packed: the planned one, or the checkpoint's own."""
    return _DTYPES.get(work.format.name if work.format.family == "dtype" else model.architecture.dtype, "bfloat16")


def needs_remote_code(model: Model) -> bool:
    """Whether the checkpoint brings classes of its own (`auto_map` in its config)."""
    return bool((model.config or {}).get("auto_map"))
