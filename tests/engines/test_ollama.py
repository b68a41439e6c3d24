"""What Ollama passes to llama.cpp: batch, context, tower, and the formats of its tags."""

from __future__ import annotations

import pytest
import vram_plan as vp
from vram_plan.engines.ollama import default_context, tag_format
from vram_plan.hardware import resolve

GIB = 2**30


def test_the_batch_grows_with_the_context_where_memory_is_left() -> None:
    model = vp.load("llama3-8b")
    rows = ((4096, "RTX 4090", 512), (8192, "RTX 4090", 1024), (131072, "RTX 4090", 512), (65536, "H100", 2048), (16384, "8GB", 512))
    for context, gpu, batch in rows:
        assert vp.plan(model, engine="ollama", quant="Q4_K_M", context=context, gpus=gpu).engine["n_ubatch"] == batch
    chosen = vp.plan(model, engine="ollama", quant="Q4_K_M", context=65536, gpus="RTX 4090", options={"ubatch": 256})
    assert chosen.engine["n_ubatch"] == 256


def test_the_memory_is_llama_cpps_at_that_batch() -> None:
    request = {"quant": "Q4_K_M", "context": 16384, "gpus": "RTX 4090"}
    ollama = vp.plan("llama3-8b", engine="ollama", **request)
    llamacpp = vp.plan("llama3-8b", engine="llama.cpp", options={"ubatch": 1024}, **request)
    assert ollama.memory == llamacpp.memory
    shown = ollama.engine["ollama_ps_gb"]
    assert shown == round((ollama.memory.total - ollama.memory.runtime) / 1e9, 1)


_TIERS = [("RTX 4060", 4096), ("RTX 4090", 32768), ("RTX 3090", 32768), ("2x RTX 4090", 262144), ("H100", 262144)]


@pytest.mark.parametrize(("gpu", "tokens"), _TIERS)
def test_the_default_context_goes_by_memory(gpu: str, tokens: int) -> None:
    assert default_context(resolve(gpu).devices) == tokens


def test_that_it_cuts_prompts_is_said() -> None:
    notes = " ".join(note.text for note in vp.plan("llama3-8b", engine="ollama", quant="Q4_K_M", context=8192, gpus="RTX 4060").notes)
    assert "4,096" in notes and "num_ctx 8192" in notes and "cuts" in notes


def test_a_tags_tower_is_loaded_and_counted() -> None:
    with_tower = vp.plan("gemma3-27b", engine="ollama", quant="Q4_K_M", context=4096)
    without = vp.plan("gemma3-27b", engine="ollama", quant="Q4_K_M", context=4096, options={"mmproj": False})
    terms = {term.name: term.bytes for term in with_tower.devices[0].terms}
    assert terms["mmproj"] > 0.7 * GIB
    assert with_tower.memory.weights - without.memory.weights == terms["mmproj"]


@pytest.mark.parametrize(
    ("tag", "format"),
    [
        ("llama3:8b", "Q4_0"), ("llama3", "Q4_0"), ("llama3.1:8b", "Q4_K_M"), ("gemma3:27b", "Q4_K_M"), ("gpt-oss:20b", "MXFP4_MOE"),
        ("llama3:8b-instruct-q8_0", "Q8_0"), ("llama3:8b-instruct-fp16", "F16"), ("qwen3:30b-a3b-q4_K_M", "Q4_K_M"),
        ("user/llama3:8b", "Q4_0"), ("mistral:7b-instruct-v0.3-q2_K", "Q2_K"),
    ],
)  # fmt: skip
def test_a_tags_format(tag: str, format: str) -> None:
    assert tag_format(tag) == format
