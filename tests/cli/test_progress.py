"""Progress: on a terminal, after a second, and gone when it is done."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
import vram_plan as vp
from vram_plan_cli import progress as module
from vram_plan_cli.progress import after_a_second


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, seconds: list[float]) -> str:
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=iter(seconds).__next__))
    with after_a_second("reading") as progress:
        progress(1, 4)
        progress(2, 4)
    return out.getvalue()


def test_nothing_within_the_first_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, Terminal(), [0.0, 0.5, 0.9]) == ""


def test_a_bar_after_it_that_is_wiped_away(monkeypatch: pytest.MonkeyPatch) -> None:
    out = drawn(monkeypatch, Terminal(), [0.0, 0.5, 1.5])
    assert out.count("reading") == 1 and "2/4" in out and "1/4" not in out
    bar, wiped = out.split("\r")[1:3]
    assert wiped.isspace() and len(wiped) >= len(bar) and out.endswith("\r")


def test_nothing_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, io.StringIO(), [0.0, 5.0, 6.0]) == ""


def test_the_long_questions_tell_how_far_they_are() -> None:
    seen: list[tuple[int, int]] = []
    vp.recommend("llama3-8b", gpus="1x RTX 4060; 1x RTX 4090", progress=lambda *at: seen.append(at), offline=True)
    assert seen == [(0, 2), (1, 2)]
    seen.clear()
    vp.models_for("RTX 3060 12GB", query="smollm", progress=lambda *at: seen.append(at))
    assert [done for done, _ in seen] == list(range(len(seen))) and {total for _, total in seen} == {len(seen)}
