"""What runs on a card."""

from __future__ import annotations

import csv

import pytest
import vram_plan as vp
from vram_plan.models.catalog import CatalogRow, list_models
from vram_plan.models.loading import load_row
from vram_plan.questions import catalogue_fit
from vram_plan.questions.catalogue_fit import _candidates, _twins
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


def test_a_model_stored_in_several_formats_is_one_row(answer: vp.ModelsFit) -> None:
    """The plain checkpoint's, while it fits; models of one shape that are not the same stay apart."""
    names = [fit.name for fit in answer.models]
    assert "qwen3-8b" in names and "qwen3-8b-fp8" not in names and "qwen3-mlx" not in names and "qwen3-4b-2507" in names
    everything = [[row.name for row, _ in twins] for twins in _twins(list(_candidates(list_models(""))))]
    together = [names for names in everything if len(names) > 1]
    assert ["qwen3-32b", "qwen3-32b-fp8", "qwen3-32b-fp8-static-pertensor"] in together and ["qwen3-1.7b", "qwen3-mlx"] in together
    assert ["qwen2.5-coder-32b"] in everything and ["kimi-k2.6-nvfp4"] in everything
    assert sum(map(len, everything)) == len(list(_candidates(list_models(""))))


def test_what_writes_no_text_is_listed_only_where_it_is_asked_for(answer: vp.ModelsFit) -> None:
    assert not [fit.name for fit in answer.models if "embedding" in fit.name]
    assert [fit.name for fit in vp.models_for("24GB", query="qwen3-embedding").models][:1] == ["qwen3-embedding-8b"]


def test_where_the_plain_one_does_not_fit_a_twin_may(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def known(row: CatalogRow, *_: object) -> None:
        seen.append(row.name)

    monkeypatch.setattr(catalogue_fit, "_known", known)
    none = vp.models_for("8xH100", query="qwen3-32b", context="16k")
    assert none.models == () and none.too_large < len(seen)
    assert seen[(at := seen.index("qwen3-32b")) : at + 3] == ["qwen3-32b", "qwen3-32b-fp8", "qwen3-32b-fp8-static-pertensor"]


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
