"""Another language: every text is collected, templates find their texts, and files nobody should trust do no harm."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

import pytest
import vram_plan as vp
import vram_plan_data
from screen_values import devices
from vram_plan_cli import language
from vram_plan_cli.language import Language, chosen_language

SHIPPED = json.loads((vram_plan_data.ROOT / "messages.json").read_text(encoding="utf-8"))
VALUE = re.compile(r"(\{\d+\})")
#: A word of plain English: no option, path, unit or name with a capital, a digit or a mark within.
WORD = re.compile(r"(?<![\w./-])[A-Za-z]?[a-z]{2,}(?:-[a-z]+)*(?![\w/-]|\.\w)")
#: What is called so in every language: GPUs and their architectures, engines and their options, formats' kinds, weights' roles.
NAMES = {
    "Ollama", "ollama", "llama", "vllm", "vLLM", "sglang", "transformers", "cuda", "metal", "gguf", "scheme", "dtype", "output", "version",
    "ms", "gpt", "Xorg", "ada", "ampere", "hopper", "blackwell", "turing", "apple", "rdna", "cdna",
} | {word for spec in vp.list_gpus() for word in WORD.findall(f"{spec.name} {spec.name.rpartition(' ')[0]}")}  # fmt: skip
#: A line to type: what runs, with its environment.
COMMAND = re.compile(r"\s*(?:[A-Z_]+=\S+ )*(?:ollama|llama-server|vllm|python|pip|vram-plan|/set) .*")
OPTION = re.compile(r"--[a-z-]+(?: \"[^\"]*\"| [\w.]+)?")


def marked(text: str) -> str:
    """The text in another alphabet, its values left in their places."""

    def letter(found: re.Match[str]) -> str:
        return chr((0x430 if found[0].islower() else 0x410) + ord(found[0].lower()) - ord("a"))

    return "".join(part if VALUE.fullmatch(part) else re.sub("[A-Za-z]", letter, part) for part in VALUE.split(text))


MARKED = {text: marked(text) for texts in SHIPPED.values() for text in texts}
ALL = Language(MARKED)


def english(said: str, also: Sequence[str] = ()) -> list[str]:
    """The lines in which words were left as they are, without commands."""
    kept = NAMES | {word for text in also for word in WORD.findall(text)}
    lines = [OPTION.sub("", line) for line in said.splitlines() if not COMMAND.fullmatch(line)]
    return [line for line in lines if set(WORD.findall(line)) - kept]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another language is spoken: of what was collected no letter is Latin."""
    monkeypatch.setenv("VRAM_PLAN_LANG", "xx")
    monkeypatch.setattr(language, "_read", {"xx": ALL}.__getitem__)
    monkeypatch.setattr(vp, "local_devices", devices)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    chosen_language.cache_clear()
    yield
    chosen_language.cache_clear()


@pytest.mark.parametrize("engine", ["ollama", "llama.cpp", "vllm", "sglang", "transformers"])
@pytest.mark.parametrize("model", ["llama3-8b", "gemma3-27b", "deepseek-v3", "qwen3-next"])
def test_what_a_plan_says_is_collected(model: str, engine: str) -> None:
    plan = vp.plan(model, engine=engine, gpus="2x RTX 3090", bits=16 if engine == "sglang" else 8)
    said = [note.text for note in plan.notes] + [term.why for device in plan.devices for term in device.terms]
    assert said and [text for text in said if english(ALL.say(text))] == []


@pytest.mark.parametrize(
    "request_",
    [{"model": "lama3-8"}, {"model": "llama3-8b", "context": "long"}, {"model": "llama3-8b", "bits": 7},
     {"model": "llama3-8b", "gpus": "RTX 9999"}, {"model": "llama3-8b", "engine": "vllm", "options": {"x": 1}}],
)  # fmt: skip
def test_what_an_error_says_is_collected(request_: dict) -> None:
    with pytest.raises(vp.VramPlanError) as caught:
        vp.plan(request_.pop("model"), **request_)
    assert english(ALL.say(caught.value.message), [str(asked) for asked in request_.values()]) == []


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
    [
        "llama3-8b --ctx 16k --bits 4 --gpu 'RTX 4060' --explain --plot", "deepseek-v3.1 --gpu 8xH100 --explain",
        "gpt-oss-20b --engine ollama --parallel 5 --gpu 'RTX 3060 12GB' --explain", "llama3-8b --ctx 64k --max-ctx",
        "qwen3-30b-a3b --gpu 8GB --bits 4 --offload experts --output 500 --explain", "llama3-70b --gpu 2x3090 --explain",
        "falcon-mamba-7b --gpu 'M3 Max 64GB' --engine llama.cpp --explain", "qwen3-8b", "llama3-8b --quiet --gpu 8GB",
        "llama3-70b --gpu '2 nodes x 8xH100' --engine sglang --tp 8 --explain",
        "qwen3-next --gpu 'RTX 3090 + RTX 3060' --engine llama.cpp",
        "gemma3-27b --ctx 128k --engine transformers --gpu A100-80GB --explain --plot", "llama3-8b --tp 3 --gpu 3x3090 --engine vllm",
        "table qwen3-8b --gpu 8GB", "table gpt-oss-20b --engine vllm", "compare llama3-8b qwen3-8b --bits 4 --gpu 'RTX 4060'",
        "compare llama3-70b --gpu 'RTX 3090; H100'", "recommend qwen3-8b --gpus '1x RTX 4060'",
        "recommend llama3-70b --gpus 'RTX 4060'",
        "recommend gpt-oss-120b --ctx 64k --parallel 8 --gpus 'H100; 1x RTX 4090' --price 'H100=2/h'",
        "speed gpt-oss-20b --gpu H100 --output 500",
        "llava-1.5-7b --bits 4 --gpu 'RTX 4060'", "llama3-8b --gpu 'RTX 3090' --engine llama.cpp --set draft=llama3.2-1b",
        "models --gpu 8GB qwen3", "models qwen3", "gpus 4090", "formats", "hardware",
        "speed llama3-8b --gpu 'RTX 4090' --engine vllm",
    ],
)  # fmt: skip
def test_every_sentence_of_a_screen_is_translated(run, words: str, elsewhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    given = shlex.split(words)
    assert english((said := run(*given)).out + said.err, given) == []


@pytest.mark.parametrize(
    "words",
    [
        "lama3-8", "llama", "gpt-4o", "/nowhere/model.gguf", "llama3-8b --ctx long", "llama3-8b --bits 7", "llama3-8b --quant Q9",
        "table", "llama3-8b --gpu 'RTX 9999'", "llama3-8b --engine fast", "llama3-8b --engine vllm --set x=1", "llama3-8b --set x",
        "compare llama3-8b", "llama3-8b --kv q9", "llama3-8b --bits four", "recommend llama3-8b --top 99", "llama3-8b 4060",
        "llama3-8b --check --gpu none", "--nothing", "llama3-8b --ctx 8k --max-ctx", "llama3-8b --json --plot",
        "table llama3-8b --json --csv", "models --ctx 8k", "gpus nothing-like-it", "llama3-8b --gpu 8GB --gpu 6GB",
        "verify llama3-8b --against /nowhere.log", "recommend llama3-8b --max-ttft soon", "llama3-8b --offload some",
        "calibrate --show nothing", "speed llama3-8b --gpu 8GB --most 0",
    ],
)  # fmt: skip
def test_every_error_is_translated(run, words: str, elsewhere: None) -> None:
    given = shlex.split(words)
    said = run(*given)
    assert said.code and said.err and english(said.err, [*given, "none nobody"]) == []


@pytest.mark.parametrize(
    "words",
    ["llama3-8b --ctx 16k --bits 4 --gpu 'RTX 4060'", "gpt-oss-120b --gpu '2x RTX 4090' --tp 2", "deepseek-v3.1",
     "qwen3-next --engine llama.cpp --gpu 'RTX 3090 + RTX 3060' --output 500"],
)  # fmt: skip
def test_every_sentence_of_a_report_is_translated(run, words: str, elsewhere: None, tmp_path: Path) -> None:
    """What is seen and what is read out; code stays."""
    place = tmp_path / "plan.html"
    assert run("report", *shlex.split(words), "-o", str(place)).code == 0
    page = re.sub(r"<style>.*?</style>|<meta[^>]*>|<code>.*?</code>", "", place.read_text(encoding="utf-8"), flags=re.DOTALL)
    seen = [unescape(text) for text in re.split(r"<[^>]*>|\n", page) if text.strip()]
    assert 'lang="xx"' in page and english("\n".join([*seen, *map(unescape, re.findall(r'aria-label="([^"]*)"', page))])) == []


@pytest.mark.parametrize(
    "command",
    ["", "plan", "table", "compare", "recommend", "speed", "models", "calibrate", "verify", "report", "gpus", "formats", "hardware"],
)
def test_every_help_is_translated(run, command: str, elsewhere: None) -> None:
    said = run(*filter(None, [command, "--help"])).out
    commands = ["plan table compare recommend speed models calibrate verify report gpus formats hardware"]
    assert marked("Usage") in said and english(said, [*commands, "str int float list range auto vram-plan nvml"]) == []


def test_the_marks_are_found() -> None:
    """The test above can fail: English that was not collected is seen, names and commands are not."""
    assert english("Fits well.") and english("a 3 sizes") and english("memory-bound")
    assert not english("RTX 4060 Laptop GPU · Q4_K_M · 4.30 GiB\n  ollama run llama3:8b\n--ctx 8k\nпласе ое --gpu \"8GB\"")


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
