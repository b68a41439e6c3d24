"""The report in a real browser: light and dark, as narrow as a phone, without the network. Run with `make browser`."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from html import escape, unescape
from pathlib import Path

import pytest
import vram_plan as vp
from vram_plan_cli.plots.svg import COLOURS
from vram_plan_cli.report.content import report_page

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
#: Where screenshots are left to be looked at; else they go when the tests end.
KEPT = os.environ.get("VRAM_PLAN_SHOTS")
CASES = {
    "fits": ("llama3-8b", {"context": "16k", "bits": 4, "gpus": "RTX 4060"}),
    "too-large": ("gpt-oss-120b", {"context": "64k", "gpus": "2x RTX 4090", "tensor_parallel": 2}),
    "uneven": ("llama3-70b", {"bits": 4, "gpus": "RTX 3090 + NVIDIA RTX 6000 Ada Generation", "engine": "llama.cpp", "sequences": 4}),
    "nothing-named": ("qwen3-next", {"gpus": ()}),
}
WIDTHS = (320, 390, 820, 1280)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for name, (model, request) in CASES.items():
        (folder / f"{name}.html").write_text(report_page(vp.load(model, offline=True), request), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in CASES}


def chromium(folder: Path, *words: str) -> str:
    """What a fresh browser prints."""
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *words], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def shot(page: Path, folder: Path, width: int, dark: bool) -> bytes:
    place = (Path(KEPT) if KEPT else folder) / f"{page.stem}-{width}{'-dark' if dark else ''}.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    chromium(folder, *scheme, f"--window-size={width},{1600 if width > 600 else 3000}", f"--screenshot={place}", page.as_uri())
    return place.read_bytes()


def first_pixel(png: bytes) -> str:
    """The colour of the top left corner: no filter changes a first pixel."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert depth == 8 and kind in (2, 6) and width >= 320 and height >= 600
    packed = b"".join(png[at + 8 : at + 8 + size] for at, size in chunks(png) if png[at + 4 : at + 8] == b"IDAT")
    return "#" + zlib.decompress(packed)[1:4].hex()


def chunks(png: bytes) -> list[tuple[int, int]]:
    found, at = [], 8
    while at < len(png):
        size = struct.unpack(">I", png[at : at + 4])[0]
        found.append((at, size))
        at += size + 12
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["fits", "too-large"])
def test_it_follows_the_reader_into_the_dark(pages: dict[str, Path], tmp_path: Path, name: str, width: int, dark: bool) -> None:
    png = shot(pages[name], tmp_path, width, dark)
    assert first_pixel(png) == COLOURS["dark" if dark else "light"]["ground"]
    assert len(png) > 20_000  # something is drawn


MEASURE = """
const found = [];
function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const texts = [...page.querySelectorAll("svg")].filter(s => s.getClientRects().length).flatMap(s => {
    const box = s.viewBox.baseVal;
    return [...s.querySelectorAll("text")].filter(t => {
      const b = t.getBBox();
      return b.x < box.x - 1 || b.x + b.width > box.x + box.width + 1 || b.y < box.y - 1 || b.y + b.height > box.y + box.height + 1;
    }).map(t => t.textContent);
  });
  const crossed = [...page.querySelectorAll("svg")].filter(s => s.getClientRects().length).flatMap(s => {
    const boxes = [...s.querySelectorAll("text")].map(t => [t.getBBox(), t.textContent]);
    return boxes.flatMap(([a, one], i) => boxes.slice(i + 1).filter(([b]) => a.x < b.x + b.width - 1 && b.x < a.x + a.width - 1
      && a.y < b.y + b.height - 3 && b.y < a.y + a.height - 3).map(([_, other]) => one + " / " + other));
  });
  const outside = [...page.querySelectorAll("main *")].filter(e => e.getClientRects().length && !e.closest("svg")
    && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.tagName + ": " + e.textContent.slice(0, 60));
  const small = [...page.querySelectorAll("svg text")].filter(t => t.getClientRects().length)
    .map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a).filter(size => size < 10.5);
  found.push({width: root.clientWidth, scroll: root.scrollWidth, texts, outside, crossed, small: small.length,
    drawings: [...page.querySelectorAll("svg")].filter(s => s.getClientRects().length).length});
  document.getElementById("found").textContent = JSON.stringify(found);
}
"""


def measured(page: Path, folder: Path) -> list[dict[str, object]]:
    """The page in frames as wide as `WIDTHS`: how far it reaches, and what reaches out of it."""
    html = escape(page.read_text(encoding="utf-8").replace("<details>", "<details open>"))
    frames = "".join(f'<iframe width="{w}" height="900" style="border:0" srcdoc="{html}" onload="measure(this)"></iframe>' for w in WIDTHS)
    outer = folder / "outer.html"
    outer.write_text(f'<!DOCTYPE html><meta charset="utf-8"><script>{MEASURE}</script><p id="found"></p>{frames}', encoding="utf-8")
    dom = chromium(folder, "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", outer.as_uri())
    found = re.search(r'<p id="found">(.*?)</p>', dom, re.DOTALL)
    assert found
    answer: list[dict[str, object]] = json.loads(unescape(found[1]))
    return answer


@pytest.mark.parametrize("name", CASES)
def test_nothing_reaches_out_of_the_page(pages: dict[str, Path], tmp_path: Path, name: str) -> None:
    found = measured(pages[name], tmp_path)
    assert sorted(row["width"] for row in found) == list(WIDTHS)  # type: ignore[type-var]
    for row in found:
        assert row["scroll"] == row["width"], row
        assert row["texts"] == [] and row["outside"] == [] and row["crossed"] == [] and row["small"] == 0, row
        assert row["drawings"] in (2, 3), row


def requests(page: Path, folder: Path) -> set[str]:
    """Everything a page asked for; what the browser asks of its own accord has no origin."""
    log = folder / "net.json"
    chromium(folder, f"--log-net-log={log}", "--virtual-time-budget=3000", "--dump-dom", page.as_uri())
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [event["params"] for event in events if isinstance(event.get("params"), dict) and "initiator" in event["params"]]
    return {params["url"] for params in asked if params["initiator"] != "not an origin"}


def test_nothing_is_asked_of_the_network(pages: dict[str, Path], tmp_path: Path) -> None:
    asking = tmp_path / "asking.html"
    asking.write_text('<!DOCTYPE html><img src="http://asked.invalid/picture.png">', encoding="utf-8")
    assert any("asked.invalid" in url for url in requests(asking, tmp_path))  # the log would tell
    for page in pages.values():
        assert requests(page, tmp_path) == set()
