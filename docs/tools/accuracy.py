"""Write docs/accuracy.md: `python docs/tools/accuracy.py`. Each section is a function that returns Markdown.

With --cases, print every case of memory as tab-separated lines instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("docs/tools", "sizing", "data", "tests")]

from accuracy_memory import case_lines, memory_section  # noqa: E402
from accuracy_speed import speed_section  # noqa: E402

SECTIONS: tuple[Callable[[], str], ...] = (memory_section, speed_section)
PAGE = ROOT / "docs" / "accuracy.md"


def page() -> str:
    """The whole page."""
    return "\n".join(["# How accurate it is", "", *(section() for section in SECTIONS)]).rstrip() + "\n"


if __name__ == "__main__":
    if "--cases" in sys.argv:
        print("\n".join(case_lines()))
    else:
        PAGE.write_text(page(), encoding="utf-8")
