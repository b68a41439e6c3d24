"""The measuring process is bounded in what it may say and in time, and never outlives the one that started it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.calibration.process import Measurer

READ = "import sys, json, time\njob = json.loads(sys.stdin.readline())\nsay = lambda **a: print(json.dumps(a), flush=True)\n"


def asked(script: str, seconds: float = 20, progress: Any = None) -> tuple[list[Any], Measurer]:
    with Measurer(time.monotonic() + seconds, progress, (sys.executable, "-c", READ + script)) as measurer:
        return list(measurer.ask("measure", x=1)), measurer


def test_points_progress_and_flags_are_told_apart() -> None:
    seen: list[tuple[str, float]] = []
    answers, measurer = asked(
        "say(progress={'what': 'a', 'left_s': 3})\nsay(flag='hot')\nsay(point=job)\nsay(done=True)", progress=lambda *a: seen.append(a)
    )
    assert answers == [{"point": {"do": "measure", "x": 1}}]
    assert measurer.flags == ["hot"]
    assert seen == [("a", 3.0)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [("usage", vp.UsageError), ("missing_extra", vp.MissingExtraError), ("out_of_memory", vp.HardwareError), ("odd", vp.HardwareError)],
)
def test_what_goes_wrong_there_is_raised_here(kind: str, error: type[vp.VramPlanError]) -> None:
    with pytest.raises(error, match="no such thing") as caught:
        asked(f"say(error={{'kind': '{kind}', 'message': 'no such thing', 'hint': 'h'}})")
    assert "install" in caught.value.hint if kind == "missing_extra" else caught.value.hint == "h"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sys.exit(3)", "ended with 3"),
        ("import os; os.kill(os.getpid(), 9)", "memory"),
        ("print('not json', flush=True)", "no answer"),
        ("print('[' * 100000, flush=True)", "no answer|died"),
        ("print('[1]', flush=True)", "no answer"),
        ("say(error=7)", "measuring failed"),
        ("sys.stdout.write('x' * 3_000_000); sys.stdout.flush(); time.sleep(9)", "died"),
        ("[say(point='y' * 500_000) for _ in range(60)]; say(done=True)", "died"),
    ],
)
def test_a_process_that_dies_or_talks_nonsense_is_a_hardware_error(script: str, words: str) -> None:
    with pytest.raises(vp.HardwareError, match=words):
        asked(script)


def test_one_that_never_answers_is_ended_at_the_deadline() -> None:
    started = time.monotonic()
    with pytest.raises(vp.HardwareError, match="time allowed"):
        asked("time.sleep(60)", seconds=1.5)
    assert time.monotonic() - started < 12


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def test_an_interrupted_calibration_leaves_no_process_behind() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    measurer = Measurer(time.monotonic() + 20, interrupt, (sys.executable, "-c", READ + "say(progress={'what': 'a'})\ntime.sleep(60)"))

    def ask() -> Iterator[Any]:
        with measurer:
            yield from measurer.ask("measure")

    with pytest.raises(KeyboardInterrupt):
        list(ask())
    assert measurer._process.returncode is not None and not _alive(measurer._process.pid)
