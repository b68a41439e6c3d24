"""A Hub on loopback: it speaks what huggingface_hub speaks to the Hub, counts, and misbehaves as told.

Files are a head and a size: the rest reads as zeros, so that a 30 GB checkpoint costs nothing.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_DTYPE_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "U8": 1}


@dataclass
class File:
    head: bytes
    size: int = -1
    lfs: bool = False

    def __post_init__(self) -> None:
        self.size = len(self.head) if self.size < 0 else self.size

    def slice(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            step = min(end, start + 65536)
            yield self.head[start:step].ljust(step - start, b"\0")
            start = step


@dataclass
class Repo:
    files: dict[str, File]
    commit: str | None = COMMIT
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    token: str | None = None


@dataclass
class Fault:
    """Something wrong with the answers whose path contains `match`, the next `times` of them.

    `status`: that status and headers. `hang`: no answer. `trickle`: a byte each tenth of a second. `cut`: half of
    the body. `long`: a Content-Length beyond the body. `short`: a range's last byte is missing. `shifted`: another
    range than asked for.
    """

    match: str
    kind: str
    times: int = 10**9
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    method: str
    path: str
    range: str | None
    authorization: str | None
    status: int = 0
    bytes: int = 0


class HubServer:
    """`repos` by name; `moved` old name → new; `faults` come first. `seen` lists every request with the body bytes sent."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.ranges = True
        self.redirect_configs = False
        self.redirect_weights = False
        self.storage: str | None = None  # the address weights are redirected to; default: this server
        self.stop = threading.Event()
        self._http = _QuietServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def fault(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.match in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    @property
    def requests(self) -> int:
        return len(self.seen)

    @property
    def bytes(self) -> int:
        return sum(s.bytes for s in self.seen)


@contextmanager
def serving(**repos: Repo) -> Iterator[HubServer]:
    """A server while the block runs. Repositories may be given as `org__name=Repo(...)`."""
    server = HubServer()
    server.repos.update({name.replace("__", "/"): repo for name, repo in repos.items()})
    thread = threading.Thread(target=server._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server._http.shutdown()
        server._http.server_close()
        thread.join()


class _QuietServer(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self.seen = Seen(self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"))
            hub.seen.append(self.seen)
            self.fault = hub.fault(self.path)
            if self.fault is not None and self.fault.kind == "hang":
                hub.stop.wait(20)
                self.close_connection = True
            elif self.fault is not None and self.fault.kind == "status":
                self.say(self.fault.status, self.fault.headers)
            else:
                self.route(urlsplit(self.path).path)

        def route(self, path: str) -> None:
            if path.startswith("/api/models/"):
                self.api(unquote(path.removeprefix("/api/models/")))
            elif path.startswith("/api/resolve-cache/models/"):
                org, name, _, filename = path.removeprefix("/api/resolve-cache/models/").split("/", 3)
                self.give(hub.repos[f"{org}/{name}"], unquote(filename))
            elif path.startswith("/storage/"):
                org, name, filename = path.removeprefix("/storage/").split("/", 2)
                self.give(hub.repos[f"{org}/{name}"], unquote(filename))
            elif "/resolve/" in path:
                name, rest = path[1:].split("/resolve/", 1)
                revision, filename = rest.split("/", 1)
                self.resolve(unquote(name), unquote(revision), unquote(filename))
            else:
                self.say(404)

        def api(self, name: str) -> None:
            name, _, revision = name.partition("/revision/")
            if name in hub.moved:
                self.say(307, {"Location": f"/api/models/{hub.moved[name]}"})
            elif (repo := self.repo(name, revision or "main")) is not None:
                siblings = [{"rfilename": f} for f in repo.files]
                self.send(json.dumps({"id": name, "sha": repo.commit, "siblings": siblings}).encode())

        def resolve(self, name: str, revision: str, filename: str) -> None:
            if name in hub.moved:
                self.say(307, {"Location": f"/{hub.moved[name]}/resolve/{revision}/{filename}"})
                return
            repo = self.repo(name, revision)
            if repo is None:
                return
            about = {"X-Repo-Commit": repo.commit} if repo.commit else {}
            if filename not in repo.files:
                self.say(404, {"X-Error-Code": "EntryNotFound"})
            elif repo.files[filename].lfs and hub.redirect_weights:
                self.say(302, about | {"Location": f"{hub.storage or hub.url}/storage/{name}/{filename}?signature=secret"})
            elif not repo.files[filename].lfs and hub.redirect_configs:
                self.say(307, about | {"Location": f"/api/resolve-cache/models/{name}/{repo.commit}/{filename}"})
            else:
                self.give(repo, filename)

        def repo(self, name: str, revision: str) -> Repo | None:
            """The repository, or None when the refusal has been said."""
            repo = hub.repos.get(name)
            if repo is None:  # as the Hub does, so that nobody learns which private names exist
                self.say(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
            elif repo.gated and self.seen.authorization != f"Bearer {repo.token}":
                self.say(403 if self.seen.authorization else 401, {"X-Error-Code": "GatedRepo"})
            elif revision not in (*repo.revisions, repo.commit):
                self.say(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                return repo
            return None

        def give(self, repo: Repo, filename: str) -> None:
            file = repo.files[filename]
            about = {"X-Repo-Commit": repo.commit, "ETag": f'"{filename}"'} if repo.commit else {}
            asked = self.seen.range if hub.ranges else None
            start, end = 0, file.size
            if asked is not None:
                first, last = asked.removeprefix("bytes=").split("-")
                start, end = int(first), min(int(last) + 1, file.size)
                if start >= file.size:
                    self.say(416, {"Content-Range": f"bytes */{file.size}"})
                    return
                kind = self.fault.kind if self.fault is not None else ""
                start, end = (start + 1 if kind == "shifted" else start), (end - 1 if kind == "short" else end)
                about["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
            self.head(200 if asked is None else 206, about, end - start)
            self.body(file, start, end)

        def send(self, body: bytes) -> None:
            self.head(200, {"Content-Type": "application/json"}, len(body))
            self.body(File(body), 0, len(body))

        def say(self, status: int, headers: Mapping[str, str] | None = None) -> None:
            self.head(status, headers or {}, 0)

        def head(self, status: int, headers: Mapping[str, str], length: int) -> None:
            self.seen.status = status
            long = self.fault is not None and self.fault.kind == "long"
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(length + 100 if long else length)}.items():
                self.send_header(name, value)
            self.end_headers()

        def body(self, file: File, start: int, end: int) -> None:
            if self.command == "HEAD":
                return
            kind = self.fault.kind if self.fault is not None else ""
            if kind in ("cut", "long"):
                end = start + (end - start) // 2 if kind == "cut" else end
                self.close_connection = True
            try:
                for piece in file.slice(start, end):
                    for part in (piece[i : i + 1] for i in range(len(piece))) if kind == "trickle" else (piece,):
                        self.wfile.write(part)
                        self.seen.bytes += len(part)
                        if kind == "trickle" and hub.stop.wait(0.1):
                            return
            except OSError:  # the client has had enough
                self.close_connection = True

    return Handler


# files


def json_file(value: object) -> File:
    return File(json.dumps(value).encode())


def safetensors_file(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> File:
    """Names → (dtype, shape). The header as the safetensors library writes it; the data reads as zeros."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = _DTYPE_BYTES[dtype]
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return File(struct.pack("<Q", len(text)) + text, 8 + len(text) + offset, lfs=True)


def gguf_file(metadata: Mapping[str, object], tensors: Mapping[str, tuple[int, ...]], kind: int = 0) -> File:
    """Metadata of texts, numbers (u32, u16 for split.*), and lists of texts or floats; F32 tensors, shapes as GGUF orders them."""
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _text(key) + _gguf_value(key, value)
    offset = 0
    for name, shape in tensors.items():
        out += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        size = 4
        for n in shape:
            size *= n
        offset += size + -size % 32
    header = len(out)
    return File(bytes(out), header + -header % 32 + offset, lfs=True)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _gguf_value(key: str, value: object) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list):
        texts = bool(value) and isinstance(value[0], str)
        head = struct.pack("<IIQ", 9, 8 if texts else 6, len(value))
        return head + (b"".join(_text(v) for v in value) if texts else struct.pack(f"<{len(value)}f", *value))
    if key in ("split.no", "split.count"):
        return struct.pack("<IH", 2, value)
    return struct.pack("<II", 4, value)


