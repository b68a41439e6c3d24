"""Another language: every text is collected, templates find their texts, and files nobody should trust do no harm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import vram_plan as vp
import vram_plan_data
from vram_plan_cli import language
from vram_plan_cli.language import Language, chosen_language

SHIPPED = json.loads((vram_plan_data.ROOT / "messages.json").read_text(encoding="utf-8"))
ALL = Language({text: text for texts in SHIPPED.values() for text in texts})


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    chosen_language.cache_clear()
    yield
    chosen_language.cache_clear()


def collected(text: str) -> bool:
    """Whether every clause of it is."""
    return all(ALL._whole(part) is not None for part in text.split("; ")) or ALL._whole(text) is not None


@pytest.mark.parametrize("engine", ["ollama", "llama.cpp", "vllm", "sglang", "transformers"])
@pytest.mark.parametrize("model", ["llama3-8b", "gemma3-27b", "deepseek-v3", "qwen3-next"])
def test_what_a_plan_says_is_collected(model: str, engine: str) -> None:
    plan = vp.plan(model, engine=engine, gpus="2x RTX 3090", bits=16 if engine == "sglang" else 8)
    said = [note.text for note in plan.notes] + [term.why for device in plan.devices for term in device.terms]
    assert said and [text for text in said if not collected(text)] == []


@pytest.mark.parametrize(
    "request_",
    [{"model": "lama3-8"}, {"model": "llama3-8b", "context": "long"}, {"model": "llama3-8b", "bits": 7},
     {"model": "llama3-8b", "gpus": "RTX 9999"}, {"model": "llama3-8b", "engine": "vllm", "options": {"x": 1}}],
)  # fmt: skip
def test_what_an_error_says_is_collected(request_: dict) -> None:
    with pytest.raises(vp.VramPlanError) as caught:
        vp.plan(request_.pop("model"), **request_)
    assert ALL._whole(caught.value.message) is not None


def test_values_keep_their_places_or_change_them() -> None:
    german = Language({"{0} of {1} free": "von {1} sind {0} frei", "no GPU": "keine GPU", "with {{braces}} {0}": "mit {{Klammern}} {0}"})
    assert german.say("3 GiB of 8 GiB free") == "von 8 GiB sind 3 GiB frei"
    assert german.say("no GPU of 8 GiB free") == "von 8 GiB sind keine GPU frei"
    assert german.say("no GPU; unheard of") == "keine GPU; unheard of"
    assert german.say("  no GPU") == "  keine GPU"
    assert german.say("with {braces} 1") == "mit {Klammern} 1"
    assert german.say("never heard") == "never heard"


def test_a_plan_and_an_error_are_said_in_it(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "messages.de.json"
    texts = {"Fits, with {0} to spare.": "Passt, {0} bleiben frei.", "weights": "Gewichte", "note": "Hinweis",
             "no model is called {0}": "kein Modell heißt {0}"}  # fmt: skip
    path.write_text(json.dumps(texts))
    monkeypatch.setenv("VRAM_PLAN_LANG", str(path))
    plan = run("llama3-8b", "--bits", "4", "--gpu", "RTX 4090")
    assert plan.code == 0 and "Passt, " in plan.out and "\nGewichte" in plan.out and "\nHinweis" in plan.out
    assert run("lama3-8").err.startswith("kein Modell heißt 'lama3-8'")
    assert '"weights"' in run("llama3-8b", "--json").out


@pytest.mark.parametrize(
    "words",
    [("llama3.1-8b", "--gpu", "RTX 3090"), ("gpus", "4090"),
     ("compare", "qwen3-8b", "llama3-8b", "--bits", "4", "--gpu", "RTX 4060"), ("models", "--gpu", "8GB", "qwen3"),
     ("recommend", "qwen3-8b", "--gpus", "1x RTX 4060"), ("table", "qwen3-8b", "--gpu", "8GB")],
)  # fmt: skip
def test_every_sentence_of_a_screen_is_translated(run, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a language of marked texts no line of the screen has three plain words of English in a row."""
    path = tmp_path / "messages.xx.json"
    path.write_text(json.dumps({text: re.sub(r"\b[a-zA-Z]{2,}\b(?![^{]*\})", "xx", text) for texts in SHIPPED.values() for text in texts}))
    monkeypatch.setenv("VRAM_PLAN_LANG", str(path))
    plain = [line for line in run(*words).out.splitlines() if re.search(r"(?:\b(?!xx\b)[a-z]{2,}\b[ ,]+){3}", line)]
    assert plain == []


def test_a_template_that_answers_itself_ends() -> None:
    assert Language({"{0} a": "{0} a {0}", "b {0}": "b"}).say("b " + "a " * 50 + "a")
    assert Language({"x{0}": "{0}{7}"}).say("xy") == "y"


@pytest.mark.parametrize("content", [b"", b"[]", b"{" * 10_000, b"\xff\xfe", b'{"a": ' * 5000])
def test_a_file_that_is_no_language_is_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "messages.xx.json"
    path.write_bytes(content)
    monkeypatch.setenv("VRAM_PLAN_LANG", str(path))
    with pytest.raises(vp.UsageError, match="VRAM_PLAN_LANG"):
        language.say("no GPU")


def test_english_needs_no_file_and_another_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert language.say("no GPU") == "no GPU"
    chosen_language.cache_clear()
    path = tmp_path / "messages.de.json"
    path.write_text(json.dumps({"no GPU": "keine GPU", "odd": 3}))
    monkeypatch.setenv("VRAM_PLAN_LANG", str(path))
    assert language.say("no GPU") == "keine GPU"
