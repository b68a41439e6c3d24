"""Terms that were measured on the device itself take the place of typical ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import vram_plan as vp
from profile_values import a_device, a_profile
from vram_plan.hardware.profiles import EngineScale, Profile

MIB = 1 << 20


def runtime(engine: str, profile: Profile | None) -> vp.Term:
    plan = vp.plan("llama3-8b", context="4k", bits=4, engine=engine, gpus=[replace(a_device(), profile=profile)])
    return next(term for term in plan.devices[0].terms if term.name in ("runtime", "non_torch"))


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama", "vllm", "sglang", "transformers"])
def test_what_the_engine_itself_held_comes_first(engine: str):
    measured = replace(a_profile(), engines={engine: EngineScale(runtime_bytes=777 * MIB, date="2026-11-22")})
    term = runtime(engine, measured)
    assert (term.bytes, term.basis) == (777 * MIB, "measured")
    assert term.why == f"what {engine} itself held here on 2026-11-22"
    assert runtime(engine, None).bytes != term.bytes


def test_transformers_is_the_torch_that_was_calibrated():
    term = runtime("transformers", a_profile())
    assert (term.bytes, term.basis) == (500 * MIB, "measured")
    assert term.why == "what torch held here besides its tensors: calibration of 2026-11-22"


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama", "vllm", "sglang"])
def test_other_engines_take_nothing_from_torchs_own(engine: str):
    assert runtime(engine, a_profile()) == runtime(engine, None)


def test_a_larger_runtime_leaves_vllm_a_smaller_pool():
    def pool(mib: int) -> int:
        profile = replace(a_profile(), engines={"vllm": EngineScale(runtime_bytes=mib * MIB)})
        plan = vp.plan("llama3-8b", context="4k", bits=4, engine="vllm", gpus=[replace(a_device(), profile=profile)])
        return int(plan.engine["available_kv"])

    assert pool(200) - pool(500) == 300 * MIB
