"""What runs on a card."""

from __future__ import annotations

import csv

import pytest
import vram_plan as vp
from vram_plan.models.catalog import list_models
from vram_plan.models.loading import load_row
from vram_plan_data import ROOT


@pytest.fixture(scope="module")
def answer() -> vp.ModelsFit:
    return vp.models_for("RTX 3060 12GB", query="qwen3", context="16k")


def test_what_is_listed_fits_as_its_plan_says(answer: vp.ModelsFit) -> None:
    assert len(answer.models) > 5
    for fit in answer.models[:6]:
        row = next(row for row in list_models("qwen3") if row.id == fit.id)
        plan = vp.plan(load_row(row), engine=answer.engine, quant=fit.format, context="16k", gpus="RTX 3060 12GB")
        assert plan.fit.verdict == fit.verdict and fit.needed == plan.memory.total and fit.loss <= 0.06
        assert fit.max_context >= 16384
        assert plan.fit.max_context is None or fit.max_context <= plan.fit.max_context or fit.max_context == fit.trained_context


def test_the_largest_comes_first_and_the_rest_is_counted(answer: vp.ModelsFit) -> None:
    sizes = [fit.parameters for fit in answer.models]
    assert sizes == sorted(sizes, reverse=True)
    assert answer.too_large > 0
    slow = vp.models_for("RTX 3060 12GB", query="qwen3", context="16k", min_decode=40)
    assert slow.too_slow + len(slow.models) == len(answer.models)
    assert all(fit.decode is None or fit.decode.tokens_per_s >= 40 for fit in slow.models)


def test_models_trained_for_less_are_left_out() -> None:
    answer = vp.models_for("24GB", query="llama-2", context="16k")
    assert answer.too_short > 0 and all((fit.trained_context or 16384) >= 16384 for fit in answer.models)


def test_the_table_of_sizes_is_current() -> None:
    with (ROOT / "model_sizes.csv").open(encoding="utf-8", newline="") as file:
        sizes = {row["id"]: row for row in csv.DictReader(file)}
    rows = {row.id: row for row in list_models()}
    assert sizes.keys() == rows.keys(), "run data/tools/build_sizes.py"
    for id in sorted(rows)[::12]:
        model = load_row(rows[id])
        assert int(sizes[id]["total"]) == model.parameters.total
        assert int(sizes[id]["active"]) == model.parameters.active
        assert sizes[id]["kind"] == model.architecture.kind


def test_a_name_nobody_has_and_no_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(vp.UnknownNameError):
        vp.models_for("24GB", query="nothing-has-this-name")
    monkeypatch.setattr("vram_plan.questions.cells.local_devices", lambda: type("D", (), {"devices": (), "reason": "none", "notes": ()})())
    with pytest.raises(vp.HardwareError):
        vp.models_for(None, query="qwen3")
