"""Plots: what stands in them, in a terminal and as a file."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import vram_plan as vp
from rich.console import Console
from vram_plan_cli.plots.chart import Axis, Bar, Bars, Chart, Mark, Series, ticks
from vram_plan_cli.plots.files import save_chart
from vram_plan_cli.plots.plan import context_chart, time_bars
from vram_plan_cli.plots.svg import bars_svg, chart_svg
from vram_plan_cli.plots.terminal import print_bars, print_chart

SVG = "{http://www.w3.org/2000/svg}"
PLAN = ("llama3-8b", "--ctx", "16k", "--bits", "4", "--gpu", "RTX 4060")
STACK = Chart(
    "Memory",
    Axis("tokens", binary=True),
    Axis("GiB"),
    (
        Series("weights", ((0, 4), (65536, 4)), "area"),
        Series("nothing", ((0, 0), (65536, 0)), "area"),
        Series("cache", ((0, 0), (65536, 8)), "area"),
    ),
    (Mark("y", 8, "8 GiB free"), Mark("x", 32768, "full after 32,768 tokens")),
    "From 4 to 12 GiB.",
)  # fmt: skip
FIT = Chart("Time", Axis("tokens", binary=True), Axis("ms"), (
    Series("fitted", ((0, 10), (32768, 20))), Series("measured", ((1024, 10.5), (16384, 15)), "points"),
))  # fmt: skip


def lines(chart: Chart, width: int = 60, height: int = 12, encoding: str = "utf-8") -> list[str]:
    import io

    buffer = io.BytesIO()
    out = Console(file=io.TextIOWrapper(buffer, encoding=encoding, write_through=True), width=width, color_system=None)
    print_chart(chart, out, height)
    return buffer.getvalue().decode(encoding).splitlines()


def test_a_stack_in_the_terminal() -> None:
    assert lines(STACK, 40, 9) == """\
Memory (GiB)
    │                 │
    │                 │            ▒▒▒▒▒
 10 ┤                 │     ▒▒▒▒▒▒▒▒▒▒▒▒
    │─────────────────│═════════════════
    │           ▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
  5 ┤     ▒▒▒▒▒▒▒▒▒▒▒▒│▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
    │█████████████████│█████████████████
    │█████████████████│█████████████████
    │█████████████████│█████████████████
    └───────────────────────────────────
     0               32k             64k
                                  tokens
█ weights   ▒ cache
── 8 GiB free
│ full after 32,768 tokens
""".splitlines()


@pytest.mark.parametrize("chart", [STACK, FIT], ids=["stack", "fit"])
@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_it_keeps_within_the_width(chart: Chart, width: int) -> None:
    assert max(map(len, lines(chart, width))) <= width


def test_a_terminal_without_unicode_gets_ascii() -> None:
    drawn = "\n".join(lines(FIT, encoding="ascii"))
    assert drawn.isascii() and "?" not in drawn and "o measured" in drawn and drawn.count("o") > 3


def test_points_lie_on_their_line() -> None:
    drawn = lines(FIT, 80, 20)
    rows = {i for i, line in enumerate(drawn) if "●" in line and "measured" not in line}
    assert len(rows) == 2
    column = next(line for line in drawn if "●" in line).index("●")
    assert abs((column - 5) / 73 - 0.5) < 0.03


@pytest.mark.parametrize(
    ("axis", "high", "labels"),
    [
        (Axis("", binary=True), 28556, ["0", "4k", "8k", "12k", "16k", "20k", "24k"]),
        (Axis("", binary=True), 3 << 20, ["0", "512k", "1M", "1.5M", "2M", "2.5M", "3M"]),
        (Axis(""), 8.1, ["0", "2", "4", "6", "8"]),
        (Axis(""), 0.031, ["0", "0.005", "0.01", "0.015", "0.02", "0.025", "0.03"]),
    ],
)
def test_ticks_are_round(axis: Axis, high: float, labels: list[str]) -> None:
    assert [label for _, label in ticks(axis, high, 7)] == labels


@pytest.mark.parametrize("chart", [Chart("", Axis(""), Axis(""), ()), Chart("", Axis(""), Axis(""), (Series("a", ((0, 0),), "area"),))])
def test_nothing_to_draw_is_no_failure(chart: Chart) -> None:
    assert lines(chart)
    ET.fromstring(chart_svg(chart))


def test_the_svg_is_small_and_says_what_it_shows() -> None:
    drawn = chart_svg(STACK)
    root = ET.fromstring(drawn)
    assert drawn == chart_svg(STACK) and len(drawn) < 8000
    assert root.attrib["role"] == "img" and "From 4 to 12 GiB." in root.attrib["aria-label"]
    assert root.findtext(f"{SVG}title") == "Memory" and root.findtext(f"{SVG}desc") == "From 4 to 12 GiB."
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"weights", "cache", "8 GiB free", "full after 32,768 tokens", "32k"} <= words and "nothing" not in words
    assert len(root.findall(f"{SVG}polygon")) == 2
    assert "href" not in drawn and "url(" not in drawn and "<script" not in drawn


def test_the_svg_escapes_what_it_is_given() -> None:
    evil = '"><script>alert(1)</script>&'
    chart = Chart(evil, Axis(evil), Axis(evil), (Series(evil, ((0, 1), (1, 1)), "area"),), (Mark("y", 1, evil),), evil)
    for drawn in (chart_svg(chart), chart_svg(chart, alone=False), bars_svg(Bars(evil, (Bar(evil, ((evil, 1.0),), evil),), evil))):
        root = ET.fromstring(drawn)
        assert not [e for e in root.iter() if "script" in e.tag] and root.attrib["aria-label"].startswith(evil)


def test_bars_fill_to_scale() -> None:
    bars = Bars("", (Bar("a", (("x", 1.0), ("gone", 0.0), ("y", 1.0)), "2", scale=4.0), Bar("b", (("x", 3.0),), "3")))
    root = ET.fromstring(bars_svg(bars, width=400, alone=False))
    parts = [(float(r.attrib["x"]), float(r.attrib["width"])) for r in root.findall(f"{SVG}rect") if r.attrib["height"] == "22"]
    assert parts == [(0, 400), (0, 100), (100, 100), (0, 400), (0, 400)]
    assert "gone" not in {text.text for text in root.iter(f"{SVG}text")}


def test_bars_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars("Time", (Bar("a", (("x", 1.0), ("y", 3.0)), "4 s"), Bar("bb", (("y", 1.0),), "1 s")))
    print_bars(bars, Console(width=27, color_system=None))
    assert capsys.readouterr().out.splitlines() == ["Time", "a   ████▓▓▓▓▓▓▓▓▓▓▓▓▓▓  4 s", "bb  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓  1 s", "█ x   ▓ y"]


# --- the plan's own ---------------------------------------------------------------------------------------------------


def test_the_plans_chart_ends_where_the_plan_does() -> None:
    curve = vp.context_curve("llama3-8b", context="16k", bits=4, gpus="RTX 4060", offline=True)
    chart = context_chart(curve)
    assert f"full after {curve.max_context:,} tokens" in chart.summary
    assert {mark.axis: mark.at for mark in chart.marks} == {"y": pytest.approx((curve.limit or 0) / 2**30), "x": curve.max_context}
    bars = time_bars(curve)
    assert bars is not None and "weights" in bars.summary and len(bars.bars) == 2


def test_plot_comes_below_the_plan(run) -> None:
    plain, drawn = run(*PLAN), run(*PLAN, "--plot")
    assert drawn.code == 0 and drawn.out.startswith(plain.out) and "\x1b" not in drawn.out
    assert "Memory against context on RTX 4060 (GiB)" in drawn.out and "Where the time goes" in drawn.out
    assert "full after 24,832 tokens" in drawn.out and max(map(len, drawn.out.splitlines())) <= 80


def test_plot_and_json_are_one_too_many(run) -> None:
    assert run(*PLAN, "--plot", "--json").code == 2


@pytest.mark.parametrize(
    "request_", [("falcon-mamba-7b", "--gpu", "RTX 4090"), ("llama3-70b", "--bits", "4", "--gpu", "8GB"), ("llama3-8b",)]
)
def test_plots_of_odd_plans(run, request_: tuple[str, ...]) -> None:
    result = run(*request_, "--plot")
    assert result.code == 0 and result.err == "" and "Memory against context" in result.out


def test_save_writes_an_svg(run, tmp_path: Path) -> None:
    place = tmp_path / "plan.svg"
    assert run(*PLAN, "--save", str(place)).code == 0
    assert "full after 24,832 tokens" in place.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["plan.svg"]


@pytest.mark.parametrize("name", ["plan.gif", "plan", "nowhere/plan.svg"])
def test_save_elsewhere_is_refused_in_a_sentence(run, tmp_path: Path, name: str) -> None:
    result = run(*PLAN, "--save", str(tmp_path / name))
    assert result.code == 2 and len(result.err.splitlines()) == 1


def test_a_png_without_matplotlib_names_the_extra(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run(*PLAN, "--save", str(tmp_path / "plan.png"))
    assert result.code == 7 and "vram-plan[plot]" in result.err and not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_a_png_is_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    for name, chart in (("stack", STACK), ("fit", FIT)):
        save_chart(chart, str(tmp_path / f"{name}.png"))
        head = (tmp_path / f"{name}.png").read_bytes()[:24]
        assert head.startswith(b"\x89PNG") and struct.unpack(">II", head[16:24]) == (1200, 720)
