"""The table of published losses."""

from __future__ import annotations

import csv

import pytest
from vram_plan.formats import find_format
from vram_plan.questions.quality import loss_of, quality_of
from vram_plan_data import ROOT


def rows() -> list[dict[str, str]]:
    with (ROOT / "quality.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_whole_and_sourced() -> None:
    assert len({row["format"] for row in rows()}) == len(rows()) > 30
    for row in rows():
        assert find_format(row["format"]).name == row["format"]
        assert row["source"] and row["model"] and row["date"][:2] == "20"
        assert row["measure"] in ("perplexity", "OpenLLM v1 average")
        ratio = float(row["in_format"]) / float(row["at_16_bits"])
        assert 0.9 < ratio <= 1 if row["measure"].startswith("OpenLLM") else 1 <= ratio < 10


def test_losses_are_shares() -> None:
    quality = quality_of("Q4_K_M")
    assert quality is not None and quality.loss == pytest.approx(6.407115 / 6.231636 - 1, abs=1e-5)
    assert loss_of(find_format("BF16")) == 0
    order = [loss_of(find_format(name)) for name in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")]
    assert order == sorted(order)


def test_a_format_nobody_measured_takes_the_next_narrower_ones_loss() -> None:
    assert quality_of("MXFP8") is None
    assert 0 <= loss_of(find_format("MXFP8")) < 0.03
