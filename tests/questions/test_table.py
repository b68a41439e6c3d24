"""Formats × contexts."""

from __future__ import annotations

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def model() -> vp.Model:
    return vp.load("llama3.1-8b")


def test_a_cell_says_what_a_plan_says(model: vp.Model) -> None:
    table = vp.table(model, gpus="RTX 3060 12GB", quants="Q8_0,Q4_K_M", contexts="8k,64k", engine="llama.cpp")
    assert table.contexts == (8192, 65536) and [row.format for row in table.rows] == ["Q8_0", "Q4_K_M"]
    for row in table.rows:
        for cell in row.cells:
            plan = vp.plan(model, quant=row.format, context=cell.context, gpus="RTX 3060 12GB", engine="llama.cpp")
            assert (cell.needed, cell.headroom, cell.verdict) == (plan.memory.total, plan.fit.headroom, plan.fit.verdict)
            assert row.max_context == plan.fit.max_context
            assert row.weights == plan.need.weights


def test_a_pool_counts_by_what_is_used_of_it(model: vp.Model) -> None:
    """vLLM fills its share whatever is asked; the table tells what these sequences need."""
    row = vp.table(model, gpus="RTX 4090", quants="AWQ", contexts="8k,32k", engine="vllm").rows[0]
    assert row.cells[0].needed < row.cells[1].needed
    plan = vp.plan(model, quant="AWQ", context="8k", gpus="RTX 4090", engine="vllm")
    assert row.cells[0].headroom == plan.fit.headroom


def test_the_longest_context_lies_between_the_cells(model: vp.Model) -> None:
    for row in vp.table(model, gpus="RTX 3060 12GB").rows:
        fitting = [cell.context for cell in row.cells if cell.verdict in ("fits", "tight")]
        assert row.max_context is not None and row.max_context >= max(fitting, default=0)
        assert all(cell.context > row.max_context for cell in row.cells if cell.verdict == "does_not_fit")


@settings(max_examples=15, deadline=None)
@given(gpu=st.sampled_from(["8GB", "RTX 4090", "2x RTX 3090"]), engine=st.sampled_from(["ollama", "llama.cpp", "vllm", "transformers"]))
def test_memory_never_falls_along_a_row(gpu: str, engine: str) -> None:
    for row in vp.table("llama3.1-8b", gpus=gpu, engine=engine, contexts="2k,8k,32k,128k").rows:
        needed = [cell.needed for cell in row.cells]
        assert needed == sorted(needed)


def test_defaults_follow_the_model() -> None:
    assert vp.table("llama3-8b", gpus="8GB").contexts == (2048, 4096, 8192)
    own = vp.table("gpt-oss-20b", gpus="16GB")
    assert "MXFP4" in [row.format for row in own.rows]
    weights = [row.weights for row in own.rows]
    assert weights == sorted(weights, reverse=True)


def test_the_engine_follows_the_machine_and_the_formats(model: vp.Model) -> None:
    assert vp.table(model, gpus="24GB").engine == "ollama"
    assert vp.table(model, gpus="2x RTX 3090").engine == "vllm"
    assert vp.table(model, gpus="24GB", quants="BF16,Q4_K_M").engine == "ollama"
    assert vp.table(model, gpus="24GB", quants="FP8").engine == "vllm"


@pytest.mark.parametrize("wrong", [{"contexts": "long"}, {"quants": "Q4_X"}, {"contexts": ()}, {"quants": []}, {"sequences": 0}])
def test_what_cannot_be_meant_is_refused(model: vp.Model, wrong: dict) -> None:
    with pytest.raises(vp.UsageError):
        vp.table(model, gpus="8GB", **wrong)


def test_it_is_quick_enough_to_look_at() -> None:
    """12 × 8 cells are to take less than 0.3 s on an idle core; this machine may be busy."""
    import time

    model = vp.load("qwen3-8b")
    start = time.process_time()
    formats = "BF16,Q8_0,Q6_K,Q5_K_M,Q5_K_S,Q4_K_M,Q4_K_S,IQ4_XS,Q3_K_M,IQ3_M,Q2_K,IQ2_M"
    table = vp.table(model, gpus="RTX 3060 12GB", quants=formats, contexts="2k,4k,8k,16k,24k,32k,36k,40k")
    assert sum(len(row.cells) for row in table.rows) == 96
    assert time.process_time() - start < 2


def test_an_engine_of_one_machine_fits_no_two() -> None:
    table = vp.table("llama3-8b", gpus="2 nodes x 2xL40S", engine="llama.cpp", quants="Q4_K_M", contexts="4k")
    assert [cell.verdict for row in table.rows for cell in row.cells] == ["does_not_fit"]
    (row,) = vp.sweep(["llama3-8b"], quants="Q4_K_M", contexts="4k", gpus=["2 nodes x 2xL40S"])
    assert row.verdicts == ("does_not_fit",)
