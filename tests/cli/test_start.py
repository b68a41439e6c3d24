"""Commands on the screen: whole when pasted, at any width."""

from __future__ import annotations

import ast
import shlex
from dataclasses import replace

import pytest
import vram_plan as vp
from vram_plan.results import LaunchCommand
from vram_plan_cli.screens.start import copyable, start_lines, starts

PLANS = {
    "llama.cpp": vp.plan("qwen3-8b", engine="llama.cpp", bits=4, gpus="RTX 3090 + RTX 3060"),
    "ollama": vp.plan("qwen3-8b", engine="ollama", bits=4, gpus="RTX 3090", kv_type="q8_0", sequences=4),
    "vllm": vp.plan("deepseek-v3.1", engine="vllm", gpus="2 nodes x 8xH100"),
    "transformers": vp.plan("qwen3-8b", engine="transformers", bits=4, gpus="RTX 3090"),
}


def commands(lines: list[str]) -> list[str]:
    """What a shell or Python makes of pasted lines: comments gone, broken lines joined."""
    pasted = "\n".join(f"  {line}" for line in lines if not line.startswith(("#", "/set"))).replace("\\\n", "")
    return [" ".join(shlex.split(line, posix=False)) for line in pasted.splitlines()]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
@pytest.mark.parametrize("engine", PLANS)
def test_pasted_lines_are_the_command(engine: str, width: int) -> None:
    plan = PLANS[engine]
    lines = copyable(plan, width)
    whole = [" ".join(shlex.split(line, posix=False)) for command in start_lines(plan) for line in command.splitlines()]
    assert commands(lines) == whole
    assert all(len(line) <= width - 2 or " " not in line.removesuffix(" \\").strip() or line.lstrip().startswith("-") for line in lines)


def test_python_stays_python() -> None:
    code = "\n".join(copyable(PLANS["transformers"], 50))
    assert ast.dump(ast.parse(code)) == ast.dump(ast.parse(PLANS["transformers"].launch[0].command))


def test_quoted_words_are_not_broken() -> None:
    plan = PLANS["llama.cpp"]
    command = LaunchCommand("llama.cpp", "llama-server -m '/a very long/path with blanks/model file.gguf' -c 1024")
    (first, second, third) = copyable(replace(plan, launch=(command,)), 40)
    assert (first, second, third) == ("llama-server \\", "  -m '/a very long/path with blanks/model file.gguf' \\", "  -c 1024")


@pytest.mark.parametrize(
    ("engine", "request_", "does"),
    [("llama.cpp", {"gpus": "8GB"}, False), ("ollama", {"gpus": "8GB"}, True), ("vllm", {"gpus": "RTX 3090", "sequences": 64}, True),
     ("vllm", {"gpus": "8GB"}, False), ("llama.cpp", {}, True)],
)  # fmt: skip
def test_what_would_not_start_is_not_offered(engine: str, request_: dict, does: bool) -> None:
    quant = "AWQ" if engine == "vllm" else "Q8_0"
    assert starts(vp.plan("qwen3-8b", engine=engine, quant=quant, context="16k", **request_)) is does
