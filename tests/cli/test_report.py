"""The report: one page, nothing fetched, nothing run, readable by everyone."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import vram_plan as vp
from vram_plan_cli.report.content import report_page, write_report
from vram_plan_cli.report.page import GENERATOR, colour_pairs, el, page

REQUEST = {"context": "16k", "bits": 4, "gpus": "RTX 4060"}
PLAN = ("llama3-8b", "--ctx", "16k", "--bits", "4", "--gpu", "RTX 4060")
VOID = {"meta", "link", "br", "img", "input", "hr"}
EVIL = "</title><script>alert('x')</script>\"><img src=http://example.invalid/x>&amp;"


class Reader(HTMLParser):
    """The page's elements with their attributes; fails on one that is not closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def model() -> vp.Model:
    return vp.load("llama3-8b", offline=True)


@pytest.fixture(scope="module")
def html(model: vp.Model) -> str:
    return report_page(model, REQUEST)


def test_it_has_every_part(html: str) -> None:
    words = " ".join(Reader(html).words)
    for part in (
        "Where the memory goes", "How long the context may get", "How fast it runs", "Formats and contexts", "On other GPUs",
        "How to start it with Ollama", "What to know", "The arithmetic",
    ):  # fmt: skip
        assert part in words
    assert "6.58 GiB" in words and "full after 24,832 tokens" in words and "8,030,261,248" in words and "Warning:" in words
    assert "ollama run llama3:8b-instruct-q4_K_M" in words and "RTX 3060 12GB" in words


def test_it_is_the_same_each_time_and_small(model: vp.Model, html: str) -> None:
    assert report_page(model, REQUEST) == html and len(html) < 100_000


def test_nothing_is_fetched_and_nothing_runs(html: str) -> None:
    read = Reader(html)
    assert {tag for tag, _ in read.elements}.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form", "a"})
    for _, attributes in read.elements:
        assert not any(name.startswith("on") or name in ("src", "href", "xlink:href", "srcset", "action") for name in attributes)
    assert "url(" not in html and "@import" not in html
    policy = next(m["content"] for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_it_can_be_read_without_seeing_it(html: str) -> None:
    read = Reader(html)
    assert read.all("html") == [{"lang": "en"}] and len(read.all("h1")) == len(read.all("title")) == len(read.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    assert all(drawing["role"] == "img" and len(drawing["aria-label"] or "") > 40 for drawing in read.all("svg"))
    assert len(read.all("table")) == len(read.all("caption")) > 3
    assert all(cell.get("scope") in ("col", "row") for cell in read.all("th"))


def test_colours_can_be_told_apart() -> None:
    """WCAG 2.2: words 4.5 to 1 against what is behind them, shapes 3 to 1."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    pairs = colour_pairs()
    assert len(pairs) > 40
    for what, ink, behind, least in pairs:
        low, high = sorted((luminance(ink), luminance(behind)))
        assert (high + 0.05) / (low + 0.05) >= least, what


def test_every_colour_of_the_page_is_one_of_those(html: str) -> None:
    known = {colour for _, ink, behind, _ in colour_pairs() for colour in (ink, behind)} | {"#c6cdd8", "#414b59", "#d9dee6", "#333c49"}
    assert set(re.findall(r"#[0-9a-f]{6}\b", html)) <= known


def test_what_a_model_says_of_itself_is_only_words(model: vp.Model) -> None:
    html = report_page(replace(model, name=EVIL, notes=(EVIL,)), REQUEST)
    read = Reader(html)
    assert {tag for tag, _ in read.elements}.isdisjoint({"script", "img"})
    assert any("alert('x')" in words for words in read.words)


def test_elements_escape_their_words_and_attributes() -> None:
    made = el("td", EVIL, el("b", "x < y"), class_=EVIL, hidden=True, id=False)
    assert made.count("<b>") == 1 and "<script" not in made and "<img" not in made and " hidden" in made and "id=" not in made
    assert Reader(page(EVIL, [made])).all("td")[0]["class"] == EVIL


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("llama3-8b", {"gpus": ()}),
        ("falcon-mamba-7b", {"gpus": "RTX 4090"}),
        ("gpt-oss-120b", {"gpus": "RTX 3090 + RTX 3060", "engine": "llama.cpp", "offload": "experts"}),
        ("llama3-70b", {"gpus": "2x RTX 3090", "engine": "vllm", "tensor_parallel": 2, "sequences": 4}),
        ("deepseek-v3", {"gpus": "2 nodes x 8xH100", "engine": "sglang", "tensor_parallel": 16, "output": 500}),
        ("qwen3-8b", {"gpus": "RTX 4090", "engine": "transformers", "kv_type": "f16"}),
    ],
)
def test_reports_of_odd_plans(name: str, request_: dict[str, object]) -> None:
    read = Reader(report_page(vp.load(name, offline=True), request_))
    assert len(read.all("h1")) == 1 and "None" not in " ".join(read.words)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_command_writes_it(run, tmp_path: Path, html: str) -> None:
    place = tmp_path / "plan.html"
    result = run("report", *PLAN, "-o", str(place))
    assert (result.code, result.out) == (0, f"written: {place}\n")
    assert place.read_text(encoding="utf-8") == html and [p.name for p in tmp_path.iterdir()] == ["plan.html"]
    assert run("report", *PLAN, "-o", str(place), "--quiet").out == ""


def test_only_a_report_is_written_over(run, tmp_path: Path) -> None:
    place = tmp_path / "precious.html"
    place.write_text("my own page", encoding="utf-8")
    refused = run("report", *PLAN, "-o", str(place))
    assert refused.code == 2 and "--force" in refused.err and place.read_text(encoding="utf-8") == "my own page"
    assert run("report", *PLAN, "-o", str(place), "--force").code == 0
    assert f'content="{GENERATOR}"' in place.read_text(encoding="utf-8")[:1000]
    assert run("report", *PLAN, "-o", str(place)).code == 0


def test_what_is_no_file_is_left_alone(run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert run("report", *PLAN, "-o", str(pipe), "--force").code == 2 and pipe.is_fifo()


def test_a_link_is_written_through(run, tmp_path: Path) -> None:
    link, place = tmp_path / "link.html", tmp_path / "plan.html"
    link.symlink_to(place)
    assert run("report", *PLAN, "-o", str(link)).code == 0 and link.is_symlink() and place.stat().st_size > 1000


@pytest.mark.parametrize("name", ["nowhere/plan.html", ".", "a\0b.html"])
def test_a_place_that_cannot_be_written_is_said_in_a_sentence(run, tmp_path: Path, name: str) -> None:
    result = run("report", *PLAN, "-o", os.path.join(tmp_path, name), "--force")  # noqa: PTH118 - a NUL is no path
    assert result.code == 2 and len(result.err.splitlines()) == 1 and "written" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "plan.html"
    write_report(str(place), page("old", []), force=False)
    before = place.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(vp.UsageError, match="No space left"):
        write_report(str(place), page("new", []), force=False)
    assert place.read_bytes() == before and list(tmp_path.iterdir()) == [place]
