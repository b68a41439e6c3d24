"""transformers: a few lines of Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..engines import Work
from ..hardware.device import Device
from ..models.model import Model
from ..results import LaunchCommand
from .shared import checkpoint, dtype, format_note, needs_remote_code, revision

__all__ = ["commands"]


def commands(model: Model, work: Work, devices: tuple[Device, ...], figures: Mapping[str, Any]) -> tuple[LaunchCommand, ...]:
    """Python that loads the model as planned and generates up to the context."""
    load = [repr(checkpoint(model)), *([f"revision={model.revision!r}"] if revision(model) else []), f"dtype={dtype(model, work)!r}"]
    one = 'device_map="cpu"' if devices and devices[0].vendor == "CPU" else "device_map=0"
    load.append('device_map="auto"' if len(devices) > 1 or work.offload.endswith("layers") else one)
    packed = _PACKED.get(work.format.name) if work.format.name != model.stored_format else None
    if packed:
        load.append(f"quantization_config=BitsAndBytesConfig({packed})")
    attention = {"flash": "flash_attention_2"}.get(figures.get("attention", "sdpa"), figures.get("attention", "sdpa"))
    load.append(f"attn_implementation={attention!r}")
    if needs_remote_code(model):
        load.append("trust_remote_code=True")
    static = ', cache_implementation="static"' if figures.get("cache") == "static" else ""
    kind = "AutoModelForImageTextToText" if model.parameters.vision else "AutoModelForCausalLM"
    lines = [
        f"from transformers import {kind}, AutoTokenizer{', BitsAndBytesConfig' if packed else ''}",
        f"model = {kind}.from_pretrained({', '.join(load)})",
        f"tokenizer = AutoTokenizer.from_pretrained({checkpoint(model)!r})",
        f'prompts = tokenizer(["…"] * {work.sequences}, return_tensors="pt").to(model.device)',
        f"answer = model.generate(**prompts, max_length={work.context}{static})",
    ]
    note = "Python" if packed or not format_note("vllm", model, work) else f"Python; {format_note('vllm', model, work)}"
    return (LaunchCommand("transformers", "\n".join(lines), {}, note),)


_PACKED: Final = {
    "NF4": 'load_in_4bit=True, bnb_4bit_quant_type="nf4"',
    "NF4-DQ": 'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True',
    "INT8": "load_in_8bit=True",
}
