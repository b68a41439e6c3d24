"""The commands table, compare, recommend and models --gpu: outputs, widths, errors, and the screens as they look."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from screen_values import TABLE
from vram_plan_cli.screens.table import print_table

QUESTIONS = {
    "table": ("table", "llama3.1-8b", "--gpu", "RTX 3060 12GB"),
    "compare": ("compare", "llama3-8b", "qwen3-8b", "--gpu", "RTX 3060 12GB", "--bits", "4"),
    "recommend": ("recommend", "llama3.1-8b", "--gpus", "1x RTX 4060; 1x RTX 4090", "--ctx", "16k", "--max-ttft", "60s"),
    "speed": ("speed", "llama3-8b", "--gpu", "H100", "--engine", "vllm", "--prompt", "1500", "--output", "500"),
    "models": ("models", "qwen3", "--gpu", "RTX 3060 12GB", "--ctx", "16k"),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("width", [40, 80])
def test_screens_keep_within_the_width(run, name: str, width: int) -> None:
    result = run(*QUESTIONS[name], "--width", str(width))
    assert result.code == 0 and result.err == "" and "\x1b" not in result.out
    assert max(len(line) for line in result.out.splitlines()) <= width


@pytest.mark.parametrize("name", QUESTIONS)
def test_quiet_is_the_answer_without_the_notes(run, name: str) -> None:
    loud, quiet = run(*QUESTIONS[name]).out.splitlines(), run(*QUESTIONS[name], "--quiet").out.splitlines()
    assert 0 < len(quiet) < len(loud)


@pytest.mark.parametrize("name", QUESTIONS)
def test_json_csv_and_markdown(run, name: str) -> None:
    answer = json.loads(run(*QUESTIONS[name], "--json").out)
    assert answer["schema"] == f"vram-plan/{name}/1"
    rows = list(csv.reader(io.StringIO(run(*QUESTIONS[name], "--csv").out)))
    assert len(rows) > 1 and len({len(row) for row in rows}) == 1
    lines = run(*QUESTIONS[name], "--markdown").out.splitlines()
    assert lines[1].startswith("| ---") and len({line.count("|") for line in lines}) == 1
    both = run(*QUESTIONS[name], "--json", "--csv")
    assert both.code == 2 and "choose one" in both.err.lower()


def test_a_plan_too_is_quiet_and_as_wide_as_asked(run) -> None:
    plan = ("llama3-8b", "--bits", "4", "--gpu", "RTX 4060")
    assert run(*plan, "--quiet").out.startswith("Fits, with") and len(run(*plan, "--quiet").out.splitlines()) == 1
    assert max(len(line) for line in run(*plan, "--width", "50").out.splitlines()) <= 50


def test_json_has_plain_numbers(run) -> None:
    table = json.loads(run(*QUESTIONS["table"], "--json").out)
    cell = table["rows"][0]["cells"][0]
    assert isinstance(cell["needed"], int) and cell["verdict"] in ("fits", "tight", "does_not_fit")
    best = json.loads(run(*QUESTIONS["recommend"], "--json").out)["options"][0]
    assert best["plan"]["schema"] == "vram-plan/1" and best["plan"]["fit"]["verdict"] in ("fits", "tight")


def test_recommend_check_exits_1_when_nothing_does_it(run) -> None:
    nothing = run("recommend", "llama3.1-70b", "--gpus", "1x RTX 4060", "--check")
    assert nothing.code == 1 and "short" in nothing.out and "The nearest" in nothing.out
    assert run(*QUESTIONS["recommend"], "--check").code == 0


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (("table", "lama3"), 3, "llama3"),
        (("table", "llama3-8b", "--ctx", "long"), 2, "16k"),
        (("table", "llama3-8b", "--quant", "Q4_X_M"), 2, "Q4_K_M"),
        (("table", "llama3-8b", "--gpu", "RTX 9999"), 2, "9999"),
        (("compare", "llama3-8b"), 2, "several"),
        (("compare", "llama3-8b", "--gpu", "8GB", "--gpu", "12GB", "--engine", "vlm"), 2, "vllm"),
        (("recommend", "llama3-8b", "--gpus", "8GB", "--max-ttft", "soon"), 2, "500ms"),
        (("recommend", "llama3-8b", "--gpus", "8GB", "--price", "H100"), 2, "H100=2.1/h"),
        (("models", "--ctx", "16k"), 2, "--gpu"),
        (("models", "--gpu", "RTX 9999"), 2, "9999"),
    ],
)
def test_errors_are_one_line_with_the_documented_code(run, args: tuple[str, ...], code: int, word: str) -> None:
    result = run(*args)
    assert (result.code, result.out) == (code, "") and len(result.err.strip().splitlines()) == 1
    assert word in result.err and "Traceback" not in result.err


# --- the screens in other widths and colours; as they look: test_screens.py -------------------------------------------


def test_a_narrow_table_keeps_the_longest_context(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(TABLE, "", width=28)
    header = capsys.readouterr().out.splitlines()[3]
    assert header.split() == ["format", "128k", "longest"]


def test_the_table_in_colour_says_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(TABLE, "")
    without = capsys.readouterr().out
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    print_table(TABLE, "")
    with_colour = capsys.readouterr().out
    assert "\x1b[32m" in with_colour and "\x1b[31m" in with_colour
    assert re.sub(r"\x1b\[[0-9;]*m", "", with_colour) == without
