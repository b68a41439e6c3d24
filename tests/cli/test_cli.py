"""The command: exit codes, one line on stderr, JSON, and the screens people read."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest
from vram_plan_cli.app import main


def test_the_main_job(run) -> None:
    result = run("llama3-8b", "--ctx", "16k", "--bits", "4", "--gpu", "RTX 4060")
    assert result.code == 0 and result.err == ""
    assert "Q4_K_M" in result.out and "16,384 tokens" in result.out and "2.00 GiB" in result.out
    assert max(len(line) for line in result.out.splitlines()) <= 80
    assert len(result.out.splitlines()) <= 30


def test_plan_may_be_said_or_left_out(run) -> None:
    short = run("llama3-8b", "--gpu", "24GB", "--json")
    assert run("plan", "llama3-8b", "--gpu", "24GB", "--json").out == short.out
    assert run("--gpu", "24GB", "llama3-8b", "--json").out == short.out
    assert json.loads(short.out)["schema"] == "vram-plan/1"


def test_explain_writes_the_formulas_out(run) -> None:
    out = run("llama3-8b", "--ctx", "8k", "--bits", "4", "--gpu", "8GB", "--explain").out
    for heading in ("Parameters", "Weights as Q4_K_M", "KV cache", "Verdict"):
        assert heading in out
    assert "8,030,261,248" in out and "8 heads × (128 K + 128 V)" in out


def test_check_exits_1_when_it_does_not_fit(run) -> None:
    assert run("llama3-70b", "--bits", "4", "--gpu", "RTX 4060", "--check").code == 1
    assert run("llama3-8b", "--bits", "4", "--gpu", "RTX 4090", "--check").code == 0


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("lama3",), 3, ("llama3-8b",)),
        (("qwen3-vl",  "--ctx", "x"), 2, ("16k",)),
        (("gpt-4",), 3, ("not published", "gpt-oss")),
        (("claude-3-opus",), 3, ("not published",)),
        (("codellama-x", ), 3, ()),
        (("./nowhere.gguf",), 3, ("nowhere.gguf",)),
        (("llama3-8b", "--bits", "7"), 2, ("4",)),
        (("llama3-8b", "--quant", "Q4_X_M"), 2, ("Q4_K_M",)),
        (("llama3-8b", "--engine", "vlm"), 2, ("vllm",)),
        (("llama3-8b", "--gpu", "RTX 9999"), 2, ()),
        (("llama3-8b", "--set", "novalue"), 2, ("--set",)),
        (("llama3-8b", "--set", "wrong=1", "--gpu", "8GB"), 2, ("wrong",)),
        (("llama3-8b", "--frobnicate"), 2, ("frobnicate",)),
        (("models", "nothing-has-this-name"), 2, ()),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_documented_code(run, args: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.code == code
    assert result.out == "" and len(result.err.strip().splitlines()) == 1 and "Traceback" not in result.err
    for word in words:
        assert word in result.err


def test_experts_in_ram_are_offered_with_their_speed_and_explained(run) -> None:
    card = ("qwen3-30b-a3b", "--bits", "4", "--engine", "llama.cpp", "--gpu", "RTX 3060 12GB")
    offered = next(line for line in run(*card, "--width", "120").out.splitlines() if "--offload experts" in line)
    assert "the rest in RAM, about" in offered and "tokens/s" in offered
    taken = " ".join(run(*card, "--offload", "experts").out.split())
    assert "Fits" in taken and "uses 8 of 128 experts" in taken and "weights in host memory" in taken and "--n-cpu-moe 48" in taken
    layers = " ".join(run(*card, "--offload", "20 layers").out.split())
    assert "the fewer layers the faster; --offload experts" in layers


def test_json_errors_are_json_on_stdout_too(run) -> None:
    result = run("lama3", "--json")
    error = json.loads(result.out)["error"]
    assert result.code == 3 and error["code"] == "model_not_found" and error["hint"]


def test_a_family_name_gets_the_list(run) -> None:
    result = run("codellama-")
    assert result.code in (0, 3)
    result = run("nemotron")
    assert result.code == 3 and "," in result.err


@pytest.mark.parametrize("command", ["models", "gpus", "formats"])
def test_lists_print_rows_and_json(run, command: str) -> None:
    assert len(run(command).out.splitlines()) > 20
    rows = json.loads(run(command, "--json").out)
    assert len(rows) > 20 and all(row["name"] for row in rows)


def test_lists_take_a_query(run) -> None:
    assert "Q4_K_M" in run("formats", "q4_k").out
    assert "4090" in run("gpus", "4090").out
    assert "llama3-8b" in run("models", "llama 3").out


def test_hardware_says_what_there_is_or_why_not(run) -> None:
    result = run("hardware")
    assert result.code == 0 and result.out.strip()
    assert isinstance(json.loads(run("hardware", "--json").out)["devices"], list)


def test_nothing_generic_is_imported_before_it_is_needed() -> None:
    import subprocess
    import sys

    heavy = ("torch", "huggingface_hub", "pynvml", "rich.console", "vram_plan.planner")
    code = f"import vram_plan_cli.app, sys; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_terminal_without_unicode_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as caught:
        main(["llama3-8b", "--bits", "4", "--gpu", "8GB"])
    sys.stdout.flush()
    assert not caught.value.code and b"Fits, with" in written.getvalue()


def test_shell_completion_offers_commands_and_models() -> None:
    import os
    import subprocess
    import sys

    def complete(words: str) -> str:
        env = os.environ | {"_VRAM_PLAN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
        code = "from vram_plan_cli.app import main; main()"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False).stdout

    assert {"plan", "models", "gpus"} <= set(complete("vram-plan ").split())
    assert "llama3-8b" in complete("vram-plan plan ").split()


def test_times_and_energy_are_on_the_screen(run) -> None:
    out = run("llama3-8b", "--bits", "4", "--gpu", "RTX 4090", "--prompt", "2000", "--output", "500", "--width", "200").out
    assert re.search(r"^answer +of 500 tokens complete after [\d.]+ s, [\d.]+ ms a token on average$", out, re.MULTILINE)
    assert re.search(r"^energy +at most [\d.]+ J a token, the GPUs' power limits drawn throughout$", out, re.MULTILINE)


def test_help_is_a_command_too(run) -> None:
    assert run("help").out == run("--help").out
    assert run("help", "table").out == run("table", "--help").out


@pytest.mark.parametrize("command", [("llama3-8b",), ("table", "llama3-8b"), ("models",), ("report", "llama3-8b", "-o", "no.html")])
def test_a_second_machine_is_not_dropped_silently(run, command: tuple[str, ...]) -> None:
    result = run(*command, "--gpu", "RTX 3090", "--gpu=RTX 3060")
    assert result.code == 2 and result.out == "" and "RTX 3090 + RTX 3060" in result.err


def test_max_ctx_plans_the_longest_that_fits(run) -> None:
    longest = json.loads(run("qwen3-8b", "--bits", "4", "--gpu", "8GB", "--max-ctx", "--json").out)
    assert longest["fit"]["verdict"] != "does_not_fit" and longest["request"]["context"] == longest["fit"]["max_context"] == 22784
    trained = json.loads(run("llama3-8b", "--bits", "4", "--gpu", "8GB", "--max-ctx", "--json").out)
    assert trained["request"]["context"] == 8192 < trained["fit"]["max_context"]
    assert run("llama3-8b", "--max-ctx", "--ctx", "4k").code == 2
    assert json.loads(run("llama3-70b", "--bits", "4", "--gpu", "8GB", "--max-ctx", "--json").out)["fit"]["verdict"] == "does_not_fit"


def test_a_picture_of_another_kind_is_refused_before_anything_is_said(run) -> None:
    result = run("llama3-8b", "--save", "plan.gif")
    assert result.code == 2 and result.out == "" and ".svg" in result.err


def test_a_prompt_longer_than_the_context_is_said(run) -> None:
    result = run("llama3-8b", "--bits", "4", "--prompt", "30000", "--output", "500", "--gpu", "24GB")
    assert "give --ctx 30k" in " ".join(result.out.split())


def test_a_cache_type_of_another_engine_names_it(run) -> None:
    assert "--engine ollama or llama.cpp" in run("qwen3-8b", "--kv", "q8_0").err


def test_what_does_not_fit_says_first_what_would(run) -> None:
    result = run("qwen3-30b-a3b", "--ctx", "16k", "--bits", "4", "--engine", "llama.cpp", "--gpu", "RTX 3060 12GB")
    assert result.out.index("What would fit:") < result.out.index("\nweights") and "if it fitted: " in result.out
    assert "llama-server" not in result.out.partition("--offload experts")[2].partition("note")[0] and "Start" not in result.out
