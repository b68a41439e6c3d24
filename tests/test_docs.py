"""The pages: every link inside the repository leads somewhere, and every command is shown somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if "_build" not in path.parts]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in headings(linked), f"{page.name} links to {target}#{anchor}, which is no heading"


def test_every_command_is_shown() -> None:
    from vram_plan_cli.app import app

    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "cli.md")
    names = {info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands} - {"plan"}
    assert {name for name in names if f"$ vram-plan {name}" not in shown} == set()


def test_every_page_is_in_the_site() -> None:
    listed = {
        (page.parent / f"{entry.strip()}.md").resolve()
        for page in PAGES
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for entry in block.splitlines()
        if entry.strip() and not entry.startswith(":")
    }
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {ROOT / "docs" / "index.md"}
    assert pages == listed


def test_the_guide_shows_what_its_index_promises() -> None:
    """Each command of the first twenty stands on the page that the index names, with what it prints."""
    guide = ROOT / "docs" / "guide"
    index = (guide / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| \[[^\]]+\]\(([^)#]+)[^)]*\) \| `([^`]+)` \|$", index, re.MULTILINE)
    assert len(rows) == 20
    for page, command in rows:
        assert f"\n$ {command}" in (guide / page).read_text(encoding="utf-8"), f"{page} does not show {command}"


def test_the_hardware_shown_is_what_that_machine_prints() -> None:
    drawn = (ROOT / "tests" / "data" / "screens" / "hardware-80.txt").read_text(encoding="utf-8")
    assert f"$ vram-plan hardware\n{drawn}```" in (ROOT / "docs" / "guide" / "fits.md").read_text(encoding="utf-8")
