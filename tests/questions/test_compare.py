"""Plans side by side."""

from __future__ import annotations

import pytest
import vram_plan as vp


def line(answer: vp.Comparison, name: str):
    return next(line for line in answer.lines if line.name == name)


def test_models_side_by_side() -> None:
    answer = vp.compare(["llama3-8b", "qwen3-14b"], gpus="RTX 3060 12GB", bits=4, context="8k", engines="llama.cpp")
    assert [subject.label for subject in answer.subjects] == ["Meta-Llama-3-8B", "Qwen3-14B"]
    weights = line(answer, "weights")
    assert weights.values == tuple(subject.plan.memory.weights for subject in answer.subjects)
    assert weights.differs and weights.best == (0,)
    assert "RTX 3060 12GB" in answer.same and "8,192 tokens" in answer.same


def test_machines_engines_and_formats_name_the_columns() -> None:
    gpus = vp.compare("llama3-8b", gpus=["8GB", "RTX 4090"], quants="Q4_K_M")
    assert [subject.label for subject in gpus.subjects] == ["GPU 8 GiB", "RTX 4090"]
    assert line(gpus, "longest context").best == (1,)
    both = vp.compare("llama3-8b", gpus="24GB", quants=["Q4_K_M", "Q8_0"], engines=["ollama", "llama.cpp"])
    assert len(both.subjects) == 4 and both.subjects[0].label == "ollama · Q4_K_M"


def test_what_hardly_differs_is_not_marked() -> None:
    answer = vp.compare("llama3-8b", gpus="24GB", quants=["Q5_K_M", "Q5_K_S"], engines="llama.cpp")
    weights = line(answer, "weights")
    assert weights.values[0] != weights.values[1] and not weights.differs and weights.best == ()


def test_only_what_fits_is_a_best_verdict() -> None:
    assert line(vp.compare("llama3.1-70b", gpus=["8GB", "12GB"], bits=4), "verdict").best == ()
    assert line(vp.compare("llama3-8b", gpus=["4GB", "24GB"], bits=4), "verdict").best == (1,)


@pytest.mark.parametrize("count", [1, 13])
def test_one_or_too_many_is_refused(count: int) -> None:
    with pytest.raises(vp.UsageError, match="between 2 and 12"):
        vp.compare("llama3-8b", gpus=["8GB"] * count)


def test_texts_may_list_engines_formats_and_machines() -> None:
    answer = vp.compare("llama3-8b", gpus="RTX 4090; 8GB", engines="ollama,llama.cpp", quants=["Q4_K_M, Q8_0"])
    assert [(s.plan.devices[0].name, s.plan.request.engine, s.plan.request.quant) for s in answer.subjects[:3]] == [
        ("NVIDIA GeForce RTX 4090", "ollama", "Q4_K_M"), ("NVIDIA GeForce RTX 4090", "ollama", "Q8_0"),
        ("NVIDIA GeForce RTX 4090", "llama.cpp", "Q4_K_M"),
    ]  # fmt: skip
    assert len(answer.subjects) == 8
