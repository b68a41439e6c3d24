"""Engines' HTTP servers on loopback, written from their API documentation; they misbehave as told.

Ollama: docs/api.md of ollama/ollama fb3076099. llama-server: tools/server/README.md of llama.cpp 0c1e57098, the replies as a real one
gave them (xllamacpp 2026.10). vLLM: `/v1/models`, `/version` and `/metrics` of 0.32.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Any


@dataclass
class EngineServer:
    """`pages` by path: a JSON value, text, bytes, a (status, headers, body), or a function of the request's body that gives one.

    `endless` paths never stop sending, `slow` ones send a byte a tenth of a second. `asked` holds (method, path, headers, body).
    """

    pages: dict[str, Answer]
    endless: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    address: str = ""


def ollama(models: list[dict[str, Any]], show: dict[str, Any] | None = None, version: str = "0.33.2", **more: Answer) -> EngineServer:
    return EngineServer({"/api/version": {"version": version}, "/api/ps": {"models": models}, "/api/show": show or {}, **more})


def loaded(name: str, size: int, size_vram: int, context: int = 4096, quant: str = "Q4_K_M") -> dict[str, Any]:
    """A row of `/api/ps`."""
    details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "8.0B",
               "quantization_level": quant}  # fmt: skip
    return {"name": name, "model": name, "size": size, "digest": "2ae6f6dd7a3d", "details": details,
            "expires_at": "2026-11-22T14:38:31.83753-07:00", "size_vram": size_vram, "context_length": context}  # fmt: skip


def vllm(model: str, length: int, labels: dict[str, str], version: str = "0.32.0", **more: Answer) -> EngineServer:
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    models = {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "vllm", "root": model, "max_model_len": length}]}
    metrics = f"# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{{{text}}} 1.0\n"
    return EngineServer({"/v1/models": models, "/version": {"version": version}, "/metrics": metrics, **more})


def streamed(prompt: int, output: int, gap_s: float = 0.002) -> Callable[[Any], Iterator[bytes]]:
    """`/v1/completions` with `stream`: an event a token, then the use of tokens."""

    def events(body: Any) -> Iterator[bytes]:
        time.sleep(10 * gap_s)
        for i in range(output):
            yield b'data: {"choices":[{"index":0,"text":" %d"}]}\n\n' % i
            time.sleep(gap_s)
        yield b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % (prompt, output)

    return events


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"null"))

    def _serve(self, body: Any) -> None:
        engine: EngineServer = self.server.engine
        engine.asked.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}, body))
        with suppress(BrokenPipeError, ConnectionResetError):
            self._answer(engine, body)

    def _answer(self, engine: EngineServer, body: Any) -> None:
        if self.path in engine.endless:
            self._head(200, {})
            while True:
                self.wfile.write(b"x" * 65536)
        if self.path in engine.slow:
            self._head(200, {"content-length": "1000"})
            for _ in range(1000):
                self.wfile.write(b" ")
                time.sleep(0.1)
        page = engine.pages.get(self.path, (404, {}, b"not found"))
        page = page(body) if callable(page) else page
        status, headers, data = page if isinstance(page, tuple) else (200, {}, page)
        if isinstance(data, Iterator):
            self._head(status, headers)
            for part in data:
                self.wfile.write(part)
                self.wfile.flush()
            return
        raw = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
        self._head(status, {"content-length": str(len(raw)), **headers})
        self.wfile.write(raw)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


@contextmanager
def serving(engine: EngineServer) -> Iterator[EngineServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.engine = engine  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    engine.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
