"""The buffer of a vision tower against what llama.cpp 0c1e57098 reserves for it on an emulated CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import vram_plan as vp

#: Bytes of the tower's compute buffer, weights taken off what `mtmd_get_memory_usage` says.
RESERVED = [
    ("Qwen/Qwen2-VL-2B-Instruct", 280056832),
    ("Qwen/Qwen2.5-VL-7B-Instruct", 739024896),
    ("Qwen/Qwen3-VL-2B-Instruct", 338153728),
    ("Qwen/Qwen3-VL-8B-Instruct", 390154816),
    ("Qwen/Qwen3.5-9B", 260147776),
    ("google/gemma-3-4b-it", 127138112),
    ("google/gemma-4-26B-A4B", 157938624),
    ("google/gemma-4-E2B-it", 106129408),
    ("zai-org/GLM-4.5V", 540070912),
    ("llava-hf/llava-1.5-7b-hf", 24956544),
    ("mistralai/Ministral-3-3B-Instruct-2512", 67624960),
]


def tower(name: str, **options: object) -> dict[str, vp.Term]:
    found = vp.plan(name, engine="llama.cpp", quant="Q4_K_M", context=4096, options={"mmproj": True, **options})
    return {term.name: term for term in found.devices[0].terms}


@pytest.mark.parametrize(("name", "reserved"), RESERVED)
def test_a_towers_buffer_is_what_the_engine_reserves(name: str, reserved: int) -> None:
    term = tower(name)["mmproj_compute"]
    assert term.bytes == pytest.approx(reserved, rel=0.003)
    assert term.basis == "formula"


def test_a_projectors_log() -> None:
    """Qwen3.6-27B's projector at 1472 × 1472: 248 MiB, and 888 MiB of weights (llama.cpp's log)."""
    terms = tower("qwen3.6-27b")
    assert terms["mmproj_compute"].bytes / 2**20 == pytest.approx(248, rel=0.002)
    assert terms["mmproj"].bytes / 2**20 == pytest.approx(888, rel=0.005)
    assert "1472 × 1472" in terms["mmproj_compute"].why


@pytest.mark.parametrize("name", ["meta-llama/Llama-4-Scout-17B-16E-Instruct"])
def test_towers_nobody_checked_are_said_to_be_a_guess(name: str) -> None:
    term = tower(name)["mmproj_compute"]
    assert term.basis == "fallback"
    assert 2**20 < term.bytes < 2**30


def test_a_model_without_a_tower_has_no_file_for_it(tmp_path: Path) -> None:
    assert "mmproj" not in tower("llama3-8b")
