"""Many verdicts."""

from __future__ import annotations

import vram_plan as vp


def test_a_sweep_says_what_plans_say() -> None:
    contexts = [1024 * k for k in (1, 3, 8, 20, 33, 50, 64, 100, 128)]
    rows = list(vp.sweep(["llama3.1-8b"], quants="Q8_0,Q4_K_M", contexts=contexts, gpus=["8GB", "RTX 3060 12GB", "4GB"]))
    assert len(rows) == 6
    for row, gpu in zip(rows, ("8GB", "RTX 3060 12GB", "4GB") * 2, strict=True):
        plans = [vp.plan("llama3.1-8b", engine="llama.cpp", quant=row.format, context=context, gpus=gpu) for context in contexts]
        assert row.verdicts == tuple(plan.fit.verdict for plan in plans)
    assert {verdict for row in rows for verdict in row.verdicts} >= {"fits", "does_not_fit"}


def test_one_context_and_no_gpu() -> None:
    (row,) = vp.sweep(["llama3-8b"], quants="Q4_K_M", contexts=4096, gpus=["24GB"])
    assert row.verdicts == ("fits",)
    (row,) = vp.sweep(["llama3-8b"], quants="Q4_K_M", contexts="4k,8k", gpus=[()])
    assert row.verdicts == ("unknown", "unknown")
