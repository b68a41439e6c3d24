"""Every screen as it looks at three widths, held in tests/data/screens. `make screens` writes them anew: look at the difference."""

from __future__ import annotations

import os

import pytest
import vram_plan as vp
from screen_values import DATA, SCREENS, devices

WIDTHS = (60, 80, 120)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(vp, "local_devices", devices)
    monkeypatch.setattr(vp, "stored_profiles", lambda: ())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_screen(plain: None, capsys: pytest.CaptureFixture[str], name: str, width: int) -> None:
    SCREENS[name](width)
    drawn, place = capsys.readouterr().out, DATA / f"{name}-{width}.txt"
    if os.environ.get("VRAM_PLAN_SCREENS") == "write":
        place.write_text(drawn, encoding="utf-8")
    assert drawn == place.read_text(encoding="utf-8"), "if this is how it should look: make screens"
    assert "\x1b" not in drawn and max(map(len, drawn.splitlines())) <= width
    assert all(line == line.rstrip() for line in drawn.splitlines())


def test_no_screen_is_kept_that_is_not_drawn() -> None:
    assert {path.name for path in DATA.glob("*.txt")} == {f"{name}-{width}.txt" for name in SCREENS for width in WIDTHS}
