"""`room`, the quick path of the inverse questions, says what `allocate`'s terms add up to."""

from __future__ import annotations

from functools import cache

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.engines import engine_module
from vram_plan.engines.base import Work
from vram_plan.formats import find_format, for_engine
from vram_plan.hardware import Device, parse_gpus
from vram_plan.inverse import headroom, most_sequences, rooms_of

MACHINES = ("RTX 3060 12GB", "RTX 3090 + RTX 3060 12GB", "4x RTX 4090", "RX 7900 XTX", "M3 Max 64GB", "8GB")
MODELS = ("llama3-8b", "gemma3-12b", "qwen3-30b-a3b", "deepseek-v2-lite", "lfm2-1.2b")
Options = tuple[tuple[str, object], ...]
OPTIONS: tuple[Options, ...] = (
    (), (("ubatch", 64),), (("n_gpu_layers", 9),), (("mmproj", True),), (("kv_unified", True),), (("tensor_split", "3,1"),),
    (("flash_attn", False),), (("swa_full", True),), (("backend", "cpu"),),
)  # fmt: skip

loaded = cache(vp.load)


@cache
def machine(text: str) -> tuple[Device, ...]:
    return parse_gpus(text).devices


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(MODELS), gpus=st.sampled_from(MACHINES), quant=st.sampled_from(("Q4_K_M", "Q8_0", "BF16")),
    kv=st.sampled_from(("f16", "q8_0")), context=st.integers(1, 1 << 18), sequences=st.sampled_from((1, 2, 3, 16, 256, 257)),
    offload=st.sampled_from(("auto", "none", "experts", "5 layers")), options=st.sampled_from(OPTIONS),
)  # fmt: skip
def test_room_is_what_the_terms_leave(
    engine: str, name: str, gpus: str, quant: str, kv: str, context: int, sequences: int, offload: str, options: Options
) -> None:
    kv = "f16" if options == (("flash_attn", False),) else kv
    work = Work(engine, for_engine(find_format(quant), engine), kv, kv, context, sequences, offload=offload, options=options)
    devices = machine(gpus)
    found = engine_module(engine).allocate(loaded(name), work, devices)
    left = min(rooms_of(found, devices))
    assert headroom(loaded(name), work, devices) == (min(left, -1) if found.refusal else left)


def test_no_more_sequences_than_llamacpp_runs_are_promised() -> None:
    model, devices = loaded("llama3-8b"), machine("4x RTX 4090")
    work = Work("llama.cpp", for_engine(find_format("Q4_K_M"), "llama.cpp"), "f16", "f16", 512)
    assert most_sequences(model, work, devices) == 256
    assert engine_module("llama.cpp").allocate(model, Work(work.engine, work.format, "f16", "f16", 512, 257), devices).refusal
