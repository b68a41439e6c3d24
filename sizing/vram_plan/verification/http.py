"""Asking a server on this machine, or one that was named: no redirects, no proxies, bounded replies, one deadline for all of it.

Only the standard library: nothing of the user's network settings (proxies, .netrc, cookies) is sent anywhere.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from ..errors import EngineError, UsageError
from ..models.json_guard import load_json
from ..waiting import in_time

__all__ = ["MAX_REPLY", "Server", "server_at"]

MAX_REPLY: Final = 16_000_000
_CHUNK: Final = 1 << 16
_MAX_LINE: Final = 1 << 20

T = TypeVar("T")


@dataclass(slots=True)
class Server:
    """One server. `timeout_s` is for everything asked of it; `api_key` goes to it alone."""

    scheme: str
    host: str
    port: int
    base: str = ""
    timeout_s: float = 30.0
    api_key: str | None = field(default=None, repr=False)
    #: Told the seconds waited of those there are.
    progress: Callable[[int, int], None] | None = field(default=None, repr=False)
    _end: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.timeout_s

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.base}"

    def more_time(self, seconds: float) -> None:
        """From here on at least so many seconds."""
        self._end = max(self._end, time.monotonic() + seconds)
        self.timeout_s = max(self.timeout_s, seconds)

    def ask(self, path: str, body: Any = None) -> tuple[int, bytes]:
        """The status and the body of an answer. Raises EngineError where none comes, in time, in bounds and from that host."""
        return self._guarded(lambda: self._read(path, body))

    def json(self, path: str, body: Any = None) -> Any | None:
        """The JSON of an answer; None where the server knows no such page. Raises EngineError, FormatError."""
        status, data = self.ask(path, body)
        if status in (404, 405, 501):
            return None
        self._refuse(status, path, data)
        return load_json(data, f"the answer of {self.address}{path}", MAX_REPLY)

    def text(self, path: str) -> str | None:
        status, data = self.ask(path)
        return data.decode("utf-8", "replace") if status == 200 else None

    def events(self, path: str, body: Any) -> list[tuple[float, bytes]]:
        """The lines of a streamed answer, each with the second it came after the request was sent."""
        return self._guarded(lambda: self._stream(path, body))

    # one request

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise EngineError(f"{self.address} was too slow: no full answer within {self.timeout_s:g} s", "give it longer with --timeout")
        return left

    def _guarded(self, work: Callable[[], T]) -> T:
        """`work()`, given up when the time is over; what went wrong in words."""
        try:
            return in_time(work, self._waiting, "vram-plan-verify", 0.5)
        except (OSError, HTTPException, ValueError) as error:
            raise self._failure(error) from None

    def _waiting(self) -> float:
        left = self._left()
        if self.progress is not None:
            self.progress(round(self.timeout_s - left), round(self.timeout_s))
        return left

    def _failure(self, error: Exception) -> EngineError:
        why = "connection refused" if isinstance(error, ConnectionRefusedError) else _words(error)
        return EngineError(f"nothing that can be read answers at {self.address}: {why}", "is the server running, and is this its port?")

    @contextmanager
    def _open(self, path: str, body: Any) -> Iterator[tuple[HTTPConnection, HTTPResponse]]:
        kind = HTTPSConnection if self.scheme == "https" else HTTPConnection
        connection = kind(self.host, self.port, timeout=self._left())
        headers = {"accept": "application/json, text/plain", "user-agent": "vram-plan", "connection": "close"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        data = None
        if body is not None:
            data, headers["content-type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request("GET" if body is None else "POST", self.base + path, body=data, headers=headers)
            with connection.getresponse() as reply:
                if 300 <= reply.status < 400:
                    target = (reply.headers.get("location") or "")[:120]
                    raise EngineError(f"{self.address} redirects to {target!a}, which is not followed", "give that address if it is meant")
                yield connection, reply
        finally:
            connection.close()

    def _read(self, path: str, body: Any) -> tuple[int, bytes]:
        with self._open(path, body) as (connection, reply):
            data = bytearray()
            while chunk := self._chunk(connection, reply):
                data += chunk
                if len(data) > MAX_REPLY:
                    raise EngineError(f"the answer of {self.address}{path} is over {MAX_REPLY:,} bytes", "is it the engine's server?")
            return reply.status, bytes(data)

    def _chunk(self, connection: HTTPConnection, reply: HTTPResponse) -> bytes:
        if connection.sock is not None:
            connection.sock.settimeout(self._left())
        self._left()
        return reply.read1(_CHUNK)

    def _stream(self, path: str, body: Any) -> list[tuple[float, bytes]]:
        started = time.monotonic()
        with self._open(path, body) as (connection, reply):
            if reply.status != 200:
                self._refuse(reply.status, path, reply.read(4096))
            return list(self._lines(connection, reply, path, started))

    def _lines(self, connection: HTTPConnection, reply: HTTPResponse, path: str, started: float) -> Iterator[tuple[float, bytes]]:
        rest, size = b"", 0
        while chunk := self._chunk(connection, reply):
            size += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield time.monotonic() - started, line
            if size > MAX_REPLY or len(rest) > _MAX_LINE:
                raise EngineError(f"the answer of {self.address}{path} does not end", "is it the engine's server?")
        if rest:
            yield time.monotonic() - started, rest

    def _refuse(self, status: int, path: str, data: bytes) -> None:
        if status in (401, 403):
            raise EngineError(f"{self.address}{path} asks for a key ({status})", "give it with --api-key or VRAM_PLAN_API_KEY")
        if status == 503 and b"oading model" in data:
            raise EngineError(f"{self.address} is still loading its model", "ask again when it is ready")
        if status != 200:
            said = " ".join(data[:200].decode("utf-8", "replace").split())
            raise EngineError(f"{self.address}{path} answered {status}: {''.join(c if c.isprintable() else '?' for c in said)[:160]}")


def _words(error: BaseException) -> str:
    if isinstance(error, (socket.timeout, TimeoutError)):
        return "no answer in time"
    text = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return "".join(c if c.isprintable() else "?" for c in text)[:120]


def server_at(text: str, timeout_s: float, api_key: str | None = None) -> Server:
    """The server an address names: `http://127.0.0.1:8080`, `localhost:8080`, `https://host/path`. Raises UsageError."""
    address = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or any(ord(c) < 33 or ord(c) == 127 for c in address):
        raise UsageError(f"{text[:80]!a} is no address of a server", "write it as http://127.0.0.1:8080")
    if parts.username is not None or parts.password is not None:
        raise UsageError("the address holds a user's name or password", "give a key with --api-key or VRAM_PLAN_API_KEY")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise UsageError("the key holds characters that cannot be sent", "is it copied whole, without line ends?")
    base = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/api")
    return Server(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), base, timeout_s, api_key)
