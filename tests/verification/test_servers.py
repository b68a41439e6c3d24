"""Running servers on loopback: what they tell, what is sent to them, one generation measured; and servers that misbehave."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from vram_plan.hardware import profile_store
from vram_plan.verification.http import server_at
from vram_plan.verification.sources import _address

from .engine_server import EngineServer, loaded, ollama, serving, streamed, vllm

SHOW = {"model_info": {"general.architecture": "llama", "general.parameter_count": 8030261248, "llama.block_count": 32,
                       "llama.embedding_length": 4096, "llama.vocab_size": 128256}}  # fmt: skip
GENERATED = {"model": "llama3:8b", "response": "…", "done": True, "prompt_eval_count": 1200, "prompt_eval_duration": 300_000_000,
             "eval_count": 64, "eval_duration": 640_000_000}  # fmt: skip


def planned(context: int = 8192) -> tuple[int, int]:
    """Bytes of buffers on the GPU, and with those in RAM."""
    plan = vp.plan("llama3:8b", engine="ollama", quant="Q4_K_M", context=context, gpus="RTX 4090")
    on_gpu = sum(term.bytes for term in plan.devices[0].terms if term.group != "runtime")
    return on_gpu, on_gpu + plan.host.used


def test_ollama() -> None:
    size, _ = planned()
    with serving(ollama([loaded("llama3:8b", size, size, 8192)], SHOW)) as server:
        found = vp.verify("llama3:8b", server.address, gpus="RTX 4090")
    lines = {line.name: line for line in found.lines}
    assert found.engine == "ollama" and found.engine_version == "0.33.2" and found.within(0)
    assert lines["buffers"].error == 0 and lines["parameters"].error == 0
    assert found.plan.request.context == 8192 and found.plan.request.quant == "Q4_K_M"
    assert {method for method, *_ in server.asked} == {"GET", "POST"} and not any("generate" in path for _, path, *_ in server.asked)
    assert all("authorization" not in headers for _, _, headers, _ in server.asked)


def test_ollama_partly_in_ram() -> None:
    with serving(ollama([loaded("llama3:8b", 6_000_000_000, 4_500_000_000)], SHOW)) as server:
        found = vp.verify("llama3:8b", server.address, gpus="RTX 4090")
    assert any("75 % of it is on the GPU" in note for note in found.notes)


def test_ollama_with_several_models() -> None:
    size, _ = planned()
    rows = [loaded("nomic-embed-text:latest", 300_000_000, 300_000_000, 2048, "F16"), loaded("llama3:8b", size, size, 8192)]
    with serving(ollama(rows, SHOW)) as server:
        assert vp.verify("llama3:8b", server.address, gpus="RTX 4090").within(0)
        with pytest.raises(vp.EngineError, match=r"2 models loaded: nomic-embed-text:latest, llama3:8b"):
            vp.verify("qwen3-8b", server.address, gpus="RTX 4090")


def test_ollama_with_nothing_loaded() -> None:
    with serving(ollama([])) as server, pytest.raises(vp.EngineError) as caught:
        vp.verify("llama3:8b", server.address)
    assert "no model loaded" in caught.value.message and "ollama run" in caught.value.hint and caught.value.exit_code == 4


def test_measured_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of one generation, beside the estimate for a request of its length; kept for later plans on this machine."""
    from vram_plan.hardware import Detection, resolve
    from vram_plan.verification import saving, verify

    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    machine = Detection(resolve("RTX 4090").devices, local=True)
    monkeypatch.setattr(verify, "local_devices", lambda: machine)
    monkeypatch.setattr(saving, "local_devices", lambda: machine)
    size, _ = planned()
    with serving(ollama([loaded("llama3:8b", size, size, 8192)], SHOW, **{"/api/generate": GENERATED})) as server:
        found = vp.verify("llama3:8b", server.address, measure=True, save=True)
    lines = {line.name: line for line in found.lines}
    assert lines["prefill"].actual == 4000 and lines["decode"].actual == 100
    body = next(body for _, path, _, body in server.asked if path == "/api/generate")
    assert body["options"]["num_ctx"] == 8192 and body["options"]["num_predict"] == 64 and body["stream"] is False
    assert found.saved and "decode × 0." in found.saved
    [stored] = profile_store.stored_profiles()
    assert stored.profile and stored.profile.engines["ollama"].decode_scale == pytest.approx(100 / (lines["decode"].predicted or 0))
    assert stored.profile.engines["ollama"].version == "0.33.2"


def test_saving_needs_this_machine_and_something_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRAM_PLAN_DATA_DIR", str(tmp_path))
    size, _ = planned()
    with serving(ollama([loaded("llama3:8b", size, size, 8192)], SHOW)) as server, pytest.raises(vp.UsageError, match="this machine"):
        vp.verify("llama3:8b", server.address, gpus="RTX 4090", save=True)
    assert not profile_store.stored_profiles()


def test_llama_server() -> None:
    """Its replies as a real one gave them (xllamacpp 2026.10), cut."""
    plan = vp.plan("llama3-8b", engine="llama.cpp", quant="Q8_0", gpus="RTX 4090")
    meta = {"vocab_type": 2, "n_vocab": 128256, "n_ctx": 4096, "n_ctx_train": 8192, "n_embd": 4096, "n_params": 8030261248,
            "size": plan.engine["file_bytes"], "ftype": "Q8_0"}  # fmt: skip
    metrics = "llamacpp:tokens_predicted_total 640\nllamacpp:prompt_tokens_seconds 1830.16\nllamacpp:predicted_tokens_seconds 57.2\n"
    timings = {"cache_n": 0, "prompt_n": 900, "prompt_per_second": 3000.0, "predicted_n": 64, "predicted_per_second": 80.0}
    pages = {
        "/props": {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 4, "model_path": "/m/llama3.gguf", "model_ftype": "Q8_0",
                   "build_info": "b10809-5266f24da"},
        "/v1/models": {"object": "list", "data": [{"id": "llama3", "owned_by": "llamacpp", "meta": meta}]}, "/metrics": metrics,
        "/completion": {"content": "", "timings": timings},
    }  # fmt: skip
    with serving(EngineServer(pages)) as server:
        found = vp.verify("llama3-8b", server.address + "/v1", gpus="RTX 4090", measure=True)
    lines = {line.name: line for line in found.lines}
    assert found.engine == "llama.cpp" and found.engine_version == "b10809-5266f24da" and found.within(0)
    assert lines["file_bytes"].error == 0 and lines["parameters"].error == 0 and lines["decode"].actual == 80
    assert any("4 slots of 4,096" in note for note in found.notes) and any("57.2 tokens/s" in note for note in found.notes)
    assert any("no buffers" in note for note in found.notes)


def test_vllm() -> None:
    plan = vp.plan("qwen3-8b", engine="vllm", context=16384, gpus="H100")
    labels = {"block_size": "16", "gpu_memory_utilization": "0.92", "num_gpu_blocks": str(plan.engine["num_blocks"]), "cache_dtype": "auto",
              "enable_prefix_caching": "True", "kv_cache_memory_bytes": "None"}  # fmt: skip
    with serving(vllm("Qwen/Qwen3-8B", 16384, labels, **{"/v1/completions": streamed(700, 32)})) as server:
        found = vp.verify("qwen3-8b", server.address, gpus="H100", measure=True)
    lines = {line.name: line for line in found.lines}
    assert found.within(0) and lines["num_blocks"].counts and found.plan.request.context == 16384
    assert {s.name for s in found.settings} == {"context", "block_size", "gpu_memory_utilization", "prefix_caching", "version"}
    assert 50 < (lines["decode"].actual or 0) < 600  # an event every 2 ms, on a busy machine later
    other = dict(labels, num_gpu_blocks="10000")
    with serving(vllm("Qwen/Qwen3-8B", 16384, other)) as server:
        assert not vp.verify("qwen3-8b", server.address, gpus="H100").within(0.05)


def test_a_key_is_sent_only_where_it_was_given() -> None:
    def guarded(body: Any) -> Any:
        return (401, {}, b"no key")

    with serving(EngineServer({"/props": guarded})) as server:
        with pytest.raises(vp.EngineError, match="asks for a key"):
            vp.verify("llama3-8b", server.address)
        with pytest.raises(vp.EngineError):
            vp.verify("llama3-8b", server.address, api_key="sk-secret")
    sent = [headers.get("authorization") for *_, headers, _ in server.asked]
    assert sent == [None, "Bearer sk-secret"]


# --- servers that misbehave -----------------------------------------------------------------------------------------------


def refused(server: EngineServer, timeout_s: float = 2.0, **request: Any) -> str:
    started = time.monotonic()
    with pytest.raises(vp.VramPlanError) as caught:
        vp.verify("llama3:8b", server.address, timeout_s=timeout_s, gpus="RTX 4090", **request)
    assert time.monotonic() - started < timeout_s + 3
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    return caught.value.message


@pytest.mark.parametrize(
    "page",
    [b"", b"not json", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 5000, b"null", b'"text"', b"[]", b'{"models": 3}', b'{"version": 7}',
     b"NaN", b"1e999", b'{"models": [1, 2]}', (500, {}, b"<html>"), (204, {}, b""), (200, {"content-encoding": "gzip"}, b"\x1f\x8b")],
)  # fmt: skip
def test_wrong_replies(page: Any) -> None:
    pages = dict.fromkeys(("/props", "/api/version", "/api/ps", "/api/show", "/v1/models", "/metrics", "/version"), page)
    with serving(EngineServer(pages)) as server:
        refused(server)
    with serving(ollama([])) as server:
        server.pages["/api/ps"] = page
        refused(server)


@pytest.mark.parametrize(
    "row",
    [{}, {"name": 3, "size": "x"}, {"name": "llama3:8b", "size": -1, "size_vram": 1e30}, {"name": "a\x1b[31m" * 400, "size": True},
     {"name": "llama3:8b", "size": 5, "size_vram": 5, "context_length": 1 << 60, "details": "x"}],
)  # fmt: skip
def test_wrong_rows_are_passed_over(row: dict[str, Any]) -> None:
    with serving(ollama([row], {"model_info": {"general.architecture": "\x1b", "general.parameter_count": 1e300}})) as server:
        try:
            found = vp.verify("llama3:8b", server.address, gpus="RTX 4090")
        except vp.VramPlanError:
            return
    assert "\x1b" not in repr(found.notes).replace("\\x1b", "\x1b" if "\x1b" in "".join(found.notes) else "")


def test_endless_slow_and_silent_servers() -> None:
    with serving(EngineServer({}, endless=("/props",))) as server:
        assert "over 16,000,000 bytes" in refused(server, 20)
    with serving(EngineServer({}, slow=("/props",))) as server:
        assert "too slow" in refused(server, 0.6)


def test_redirects_are_not_followed() -> None:
    with serving(EngineServer({})) as elsewhere, serving(EngineServer({})) as server:
        server.pages["/props"] = (302, {"location": f"{elsewhere.address}/steal"}, b"")
        assert "redirects to" in refused(server, api_key="sk-secret")
        assert not elsewhere.asked


def test_nobody_answers() -> None:
    with serving(EngineServer({})) as server:
        address = server.address
    with pytest.raises(vp.EngineError) as caught:
        vp.verify("llama3:8b", address, timeout_s=2)
    assert "connection refused" in caught.value.message and address in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"prompt_eval_count": 0}, {"prompt_eval_count": "5", "prompt_eval_duration": "1"},
     {"prompt_eval_count": 5, "prompt_eval_duration": 0, "eval_count": 5, "eval_duration": 1},
     {"prompt_eval_count": 10**30, "prompt_eval_duration": 1, "eval_count": 1}],
)  # fmt: skip
def test_generations_that_tell_nothing(answer: Any) -> None:
    size, _ = planned()
    with serving(ollama([loaded("llama3:8b", size, size)], SHOW, **{"/api/generate": answer})) as server:
        refused(server, measure=True)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://127.0.0.1",
        "http://",
        "http://user:secret@127.0.0.1:8080",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://a b/",
        "http://\x00",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(vp.UsageError) as caught:
        server_at(text, 1)
    assert "secret" not in caught.value.message


def test_addresses() -> None:
    assert server_at("http://127.0.0.1:8080/v1/", 1).address == "http://127.0.0.1:8080"
    assert server_at("https://host.example/llm/api", 1).address == "https://host.example:443/llm"
    assert server_at("http://[::1]:9", 1).address == "http://[::1]:9"
    assert _address("ollama") == "http://127.0.0.1:11434" and _address("localhost:8080") == "localhost:8080"
    assert _address("C:\\logs\\server.log") is None and _address("server.log") is None and _address("-") is None
