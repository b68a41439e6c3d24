"""The command, run in this process: plain, 80 columns, without the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from vram_plan_cli.app import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*args: str) -> Result:
        with pytest.raises(SystemExit) as caught:
            main(list(args))
        captured = capsys.readouterr()
        return Result(caught.value.code or 0, captured.out, captured.err)

    return call
