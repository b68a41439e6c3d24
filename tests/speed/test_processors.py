"""llama.cpp and Ollama on processors: what people measured, and what a plan's speed there follows."""

from __future__ import annotations

from statistics import median, quantiles

import pytest
import vram_plan as vp
from vram_plan.hardware.cpus import cpu_catalogue
from vram_plan.hardware.parse import parse_gpus
from vram_plan.speed.constants import table

from speed.cases import Case, speed_cases

ROWS = [case for case in speed_cases() if case.backend == "cpu"]
CORES = {row.name: row.cores for row in cpu_catalogue()}


def name(case: Case) -> str:
    spec = parse_gpus(case.gpu).devices[0].spec
    assert spec is not None
    return spec.name


def speed(model: str = "llama3.1-8b", gpu: str = "Ryzen 9 7950X 64GB", **more: object) -> vp.SpeedEstimate:
    given = {"engine": "llama.cpp", "quant": "Q4_K_M", "context": "4k", "prompt": 2048} | more
    found = vp.plan(model, gpus=gpu, **given).speed
    assert found is not None
    return found


def test_the_measurements_are_of_processors_of_the_catalogue() -> None:
    assert len(ROWS) >= 140
    assert len({name(case) for case in ROWS}) >= 25
    for case in ROWS:
        assert case.engine in ("llama.cpp", "ollama")
        assert 0 <= case.threads <= 2 * CORES[name(case)], case.id


@pytest.mark.parametrize(("metric", "mid", "ninth"), [("decode", 0.15, 0.50), ("prefill", 0.15, 0.60)])
def test_a_plan_tells_what_was_measured(metric: str, mid: float, ninth: float) -> None:
    errors = []
    for case in ROWS:
        whole = not case.threads or case.threads >= CORES[name(case)]
        if case.metric == metric and not case.suspect and whole and not case.depth and case.tokens_per_s:
            options = {"flash_attn": case.flash_attn, "build": case.build}
            tokens = case.prompt if metric == "prefill" else max(1, round(case.history))
            given = {"quant": case.quant, "context": tokens, "prompt": tokens, "options": options}
            found = speed(case.model, case.gpu.replace(" 2GB", " 8GB"), **given)
            errors.append(abs(getattr(found, metric).tokens_per_s / case.tokens_per_s - 1))
    assert len(errors) >= 30
    assert median(errors) <= mid
    assert quantiles(errors, n=10)[-1] <= ninth


def test_processors_left_out_are_told_better_than_by_division() -> None:
    row = next(row for row in table()["accuracy"] if row["class"] == "llama.cpp decode, cpu")
    assert row["gpus"] >= 25
    assert row["median"] <= 0.25 < 0.6 < row["naive_median"]
    assert row["inside"] >= 0.7


def test_memory_makes_writing_fast_and_arithmetic_prompts() -> None:
    slow, fast = (speed(gpu=f"Ryzen 9 7950X 64GB DDR5-{mts}") for mts in (3600, 7200))
    assert 1.6 < fast.decode.tokens_per_s / slow.decode.tokens_per_s < 2.0
    assert fast.prefill.tokens_per_s < 1.1 * slow.prefill.tokens_per_s
    assert speed(gpu="Ryzen 9 7950X 64GB 1 channel").decode.tokens_per_s < 0.6 * speed().decode.tokens_per_s
    few, many = (speed(gpu=gpu) for gpu in ("EPYC 9124 384GB", "EPYC 9554 384GB"))
    assert many.prefill.tokens_per_s > 2 * few.prefill.tokens_per_s


def test_formats_looked_up_in_grids_are_slow_to_read_prompts_in() -> None:
    assert speed(quant="IQ2_XS").prefill.tokens_per_s < 0.7 * speed(quant="Q2_K").prefill.tokens_per_s


def test_ollama_is_as_fast_as_llama() -> None:
    assert speed(engine="ollama").decode == speed(options={"build": "2026-06"}).decode


def test_the_basis_says_on_how_many_processors_it_rests() -> None:
    assert "14 measurements on one processor" in speed().basis
    unseen = speed(gpu="EPYC 9654 384GB")
    assert "no measurement of AMD EPYC 9654" in unseen.basis
    assert "processors" in unseen.basis


def test_another_backend_has_no_speed() -> None:
    assert vp.plan("llama3-8b", engine="llama.cpp", bits=4, gpus="RTX 4090", options={"backend": "cpu"}).speed is None


def test_transformers_there_needs_a_calibration() -> None:
    assert vp.plan("llama3-8b", engine="transformers", gpus="i7-8700 64GB").speed is None
