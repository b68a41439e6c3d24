"""`vram-plan verify`: the screen, JSON, exit codes, standard input, and one line on stderr for what cannot be read."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from verification.engine_server import EngineServer, loaded, ollama, serving

LOGS = Path(__file__).parents[1] / "data" / "logs"
A100 = str(LOGS / "llamacpp_b7342_qwen3-coder-30b_a100.log")
L40S = str(LOGS / "vllm_0.19_qwen3.5-9b_l40s.log")


@pytest.mark.parametrize("width", [50, 80, 140])
def test_the_screen(run, width: int) -> None:
    result = run("verify", "qwen3-coder-30b-a3b", "--against", A100, "--width", str(width))
    assert result.code == 0 and result.err == ""
    assert "The plan is what the engine did" in result.out and "29.94 GiB" in result.out and "…" not in result.out
    assert max(len(line) for line in result.out.splitlines()) <= width
    command = " ".join(result.out.replace("\n", " ").split("plan it so")[1].split())
    assert command.startswith("vram-plan qwen3-coder-30b-a3b --engine llama.cpp --ctx 16384 --parallel 4 --quant Q8_0")


def test_quiet_is_the_verdict_alone(run) -> None:
    out = run("verify", "qwen3.5-9b", "-a", L40S, "--gpu", "L40S", "--quiet").out
    assert len(out.splitlines()) == 1 and out.startswith("The plan is within 5 %")


def test_json(run) -> None:
    answer = json.loads(run("verify", "qwen3-coder-30b-a3b", "-a", A100, "--json").out)
    assert answer["schema"] == "vram-plan/verify/1" and answer["engine"] == "llama.cpp" and answer["worst"]["error"] == 0
    assert answer["plan"]["schema"] == "vram-plan/1" and answer["command"].startswith("vram-plan ")
    line = next(line for line in answer["lines"] if line["name"] == "kv_cache")
    assert line["place"] == 0 and line["predicted"] == line["actual"] == 6 << 30 and "KV buffer size" in line["seen"]
    ubatch = next(s for s in answer["settings"] if s["name"] == "ubatch")
    assert (ubatch["asked"], ubatch["engine"], ubatch["taken"]) == (None, 512, True) and "n_ubatch" in ubatch["seen"]


def test_check_and_tolerance(run) -> None:
    asked = ("verify", "qwen3-coder-30b-a3b", "-a", A100, "--ctx", "8k", "--check", "--quiet")
    assert run(*asked).code == 1
    assert run(*asked, "--tolerance", "60").code == 0
    assert run("verify", "qwen3-coder-30b-a3b", "-a", A100, "--check", "--tolerance", "0").code == 0


def test_standard_input(run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Input(io.TextIOWrapper):
        pass

    monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(Path(A100).read_bytes())))
    out = run("verify", "qwen3-coder-30b-a3b", "-a", "-").out
    assert "standard" in out and "The plan is what the engine did" in out


def test_a_server(run) -> None:
    row = loaded("llama3:8b", 5_000_000_000, 5_000_000_000, 8192)
    with serving(ollama([row])) as server:
        result = run("verify", "llama3:8b", "-a", server.address, "--gpu", "RTX 4090")
    assert result.code == 0 and "Ollama 0.33.2" in result.out and "4.66 GiB" in result.out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("llama3-8b",), 2, ("--against",)), (("llama3-8b", "-a", "./nowhere.log"), 3, ("nowhere.log",)),
        (("llama3-8b", "-a", str(LOGS.parent / "tiny_ggufs.json")), 5, ("no memory figures",)),
        (("llama3-8b", "-a", "http://127.0.0.1:1"), 4, ("127.0.0.1:1",)),
        (("llama3-8b", "-a", "ftp://x"), 2, ("http://",)), (("llama3-8b", "-a", A100, "--measure"), 2, ("running server",)),
        (("llama3-8b", "-a", A100, "--save"), 2, ("this machine",)), (("llama3-8b", "-a", A100, "--set", "wrong=1"), 2, ("wrong",)),
        (("llama3-8b", "-a", "llama.cpp"), 2, ("llama-fit-params",)), (("llama3-8b", "-a", "nvml"), 6, ()),
        (("llama3-8b", "-a", A100, "--tolerance", "-1"), 2, ()), (("llama3-8b", "-a", A100, "--timeout", "0"), 2, ()),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_the_documented_code(
    run, args: tuple[str, ...], code: int, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    result = run("verify", *args)
    assert result.code == code and result.out == "" and len(result.err.splitlines()) == 1
    assert all(word in result.err for word in words) and "Traceback" not in result.err


def test_what_a_server_says_cannot_move_the_cursor(run) -> None:
    evil = "llama3\x1b[2J\x07:8b\u202e"
    with serving(ollama([loaded(evil, 5, 5)], {"model_info": {"general.architecture": "\x1b]0;x"}})) as server:
        result = run("verify", "llama3:8b", "-a", server.address, "--gpu", "RTX 4090")
    assert "\x1b" not in result.out + result.err and "\x07" not in result.out + result.err


def test_what_a_log_says_cannot_move_the_cursor(run, tmp_path: Path) -> None:
    path = tmp_path / "evil.log"
    path.write_text("print_info: general.name = a\x1b]0;x\x07\x9b2Jb\nprint_info: n_layer = 3\nCUDA0 model buffer size = 5.00 MiB\n"
                    "Device 0: NVIDIA \x9b31m 4090, compute capability 8.9\n")  # fmt: skip
    result = run("verify", "llama3:8b", "-a", str(path))
    assert not {"\x1b", "\x07", "\x9b"} & set(result.out + result.err)


def test_a_key_is_never_shown(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRAM_PLAN_API_KEY", "sk-very-secret")
    with serving(EngineServer({"/props": (401, {}, b"")})) as server:
        result = run("verify", "llama3-8b", "-a", server.address)
    assert result.code == 4 and "secret" not in result.out + result.err
    assert server.asked[0][2]["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in run("verify", "--help").out
