"""The public table of out-of-memory cells: each is planned not to fit, and every cell that ran is planned to fit."""

from __future__ import annotations

import pytest
import vram_plan as vp

from speed.cases import Case, speed_cases

#: Cells of one README, all of llama-bench: the whole context is the prompt or the answer.
SOURCE = "XiongjieDai/GPU-Benchmarks-on-LLM-Inference README.md"


#: The Macs' memory, which the README names them by.
MACS = {"Apple M1 (7-core GPU)": " 8GB", "Apple M1 Max (32-core GPU)": " 64GB", "Apple M2 Ultra (76-core GPU)": " 192GB"}


def cells() -> list[Case]:
    return [case for case in speed_cases() if case.source == SOURCE]


def verdict(case: Case) -> str:
    name = case.gpu + MACS.get(case.gpu, "")
    gpus = name if case.n_gpu == 1 else f"{case.n_gpu}x {name}"
    context = max(case.prompt, case.gen)
    options = {"flash_attn": case.flash_attn, "build": case.build}
    plan = vp.plan(case.model, engine="llama.cpp", quant=case.quant, context=context, gpus=gpus, options=options, offload="none")
    return plan.fit.verdict


@pytest.mark.parametrize("case", [case for case in cells() if case.oom], ids=lambda case: f"{case.id}-{case.gpu}")
def test_what_ran_out_of_memory_does_not_fit(case: Case) -> None:
    assert verdict(case) == "does_not_fit"


@pytest.mark.parametrize("case", [case for case in cells() if not case.oom], ids=lambda case: f"{case.id}-{case.gpu}")
def test_what_ran_fits(case: Case) -> None:
    assert verdict(case) in ("fits", "tight")
