"""Asking the Hub over HTTP: redirects, retries, byte ranges, and one deadline for all of it.

Requests go through huggingface_hub's own session, so that proxies and certificates set up for it hold here too; its
retries are left aside, because they may take half a minute. Nothing is read beyond what was asked for, and the token
goes to the Hub alone, never to where it redirects.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

from ..errors import FormatError, GatedModelError, HubError, ModelNotFoundError, VramPlanError
from ..waiting import in_time
from .json_guard import load_json

__all__ = ["OFFLINE_WAYS", "Connection", "Deadline", "FileMissing", "RemoteFile", "endpoint", "is_offline"]

OFFLINE_WAYS: Final = "without the Hub: a catalogue name (`vram-plan models`), a local file or folder, or --offline for what is cached"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_MAX_HOPS: Final = 5
_MAX_TRIES: Final = 4
_REPO: Final = r"([\w.-]+(?:/[\w.-]+)?)"
_MAX_LISTING_BYTES: Final = 10_000_000
#: The deadline moves out by a second for each of these received: a large model on a slow line is no failure.
_BYTES_PER_EXTRA_SECOND: Final = 1_000_000

T = TypeVar("T")
#: Told what has come of a body so far: whether that is enough.
Enough = Callable[[bytearray], bool]


class FileMissing(Exception):
    """The repository is there, the file is not."""


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT as it is now, else as huggingface_hub has it."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


class Deadline:
    """Seconds left for the whole job. What arrives earns time, waiting does not."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s
        self._lock = threading.Lock()

    def earn(self, received_bytes: int) -> None:
        with self._lock:
            self._end += received_bytes / _BYTES_PER_EXTRA_SECOND

    def left_s(self) -> float:
        """Seconds left; raises HubError when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise HubError(f"the Hub ({_host(endpoint())}) was too slow: no full answer within {self.timeout_s:g} s", OFFLINE_WAYS)
        return left

    def guard(self, work: Callable[[], T]) -> T:
        """`work()`, given up when the time is over even if it hangs where no timeout reaches (a name look-up)."""
        return in_time(work, self.left_s, "vram-plan-hub")


@dataclass(frozen=True)
class Reply:
    """One answer: its status, its headers, at most as much of its body as was asked for, and where it came from."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def number(self, name: str) -> int | None:
        text = self.headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def file_bytes(self) -> int | None:
        """Size of the whole file: of the total in Content-Range, else of the length of a full answer."""
        if self.status in (206, 416):
            total = self.headers.get("content-range", "").rpartition("/")[2]
            return int(total) if total.isascii() and total.isdigit() and len(total) < 20 else None
        return self.number("content-length")


@dataclass(frozen=True)
class _Want:
    """What is wanted of a body: `limit` bytes, from `start` by a range request, fewer when `enough` says so."""

    limit: int
    start: int | None
    enough: Enough | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.start is None else {"range": f"bytes={self.start}-{self.start + self.limit - 1}"}


@dataclass
class Connection:
    """One repository at one revision, asked for files. `repo_id` follows a rename; `commit` is known after an answer."""

    repo_id: str
    revision: str
    deadline: Deadline
    base: str = field(default_factory=endpoint)
    token: str | None = field(default_factory=lambda: _token(), repr=False)
    commit: str | None = None
    partial: bool = False
    requests: int = 0

    def fetch(self, name: str, max_bytes: int) -> bytes:
        """A small file, whole. Raises FileMissing, FormatError when it is larger than `max_bytes`, and as `get` does."""
        reply = self.get(self.file_url(name), max_bytes + 1)
        if len(reply.body) > max_bytes:
            raise FormatError(f"{name} of {self.repo_id} has more than {max_bytes:,} bytes", "is it the right repository?")
        return reply.body

    def open(self, name: str) -> RemoteFile:
        return RemoteFile(self, name)

    def listing(self) -> tuple[str, ...]:
        """The names of all files. Raises FileMissing where the Hub knows no such repository, FormatError for an odd answer."""
        reply = self.get(self._list_url(), _MAX_LISTING_BYTES)
        found = load_json(reply.body, f"the Hub's list of the files of {self.repo_id}", _MAX_LISTING_BYTES)
        files = found.get("siblings") if isinstance(found, dict) else None
        names = [f.get("rfilename") if isinstance(f, dict) else None for f in files] if isinstance(files, list) else [None]
        if not all(isinstance(name, str) for name in names):
            raise FormatError(f"the Hub's list of the files of {self.repo_id} is not understood")
        if isinstance(sha := found.get("sha"), str) and self.commit is None and re.fullmatch(r"[0-9a-f]{40}", sha):
            self.commit = sha
        return tuple(name for name in names if isinstance(name, str))

    def file_url(self, name: str) -> str:
        return f"{self.base}/{self.repo_id}/resolve/{quote(self.revision, safe='')}/{quote(name)}"

    def _list_url(self) -> str:
        at = "" if self.revision == "main" else f"/revision/{quote(self.revision, safe='')}"
        return f"{self.base}/api/models/{self.repo_id}{at}?expand[]=siblings&expand[]=sha"

    def get(self, url: str, limit: int, start: int | None = None, enough: Enough | None = None) -> Reply:
        """GET, redirects followed: `limit` bytes from `start`, or the first `limit` bytes of the whole answer.

        Fewer when `enough` says so of what has come. Raises FileMissing (no such file), ModelNotFoundError (no such
        repository or revision), GatedModelError, HubError.
        """
        want = _Want(limit, start, enough)
        for _ in range(_MAX_HOPS):
            reply = self._tried(url, want)
            self._learn(reply)
            if reply.status not in _REDIRECTS:
                self._refuse(reply)
                return reply
            target = urljoin(url, reply.headers.get("location", ""))
            if urlsplit(target).scheme not in ("http", "https"):
                raise HubError(f"the Hub redirected {self.repo_id} to {target[:80]!r}, which cannot be followed", OFFLINE_WAYS)
            self._follow_rename(url, target)
            url = target
        raise HubError(f"the Hub redirected {self.repo_id} more than {_MAX_HOPS} times", OFFLINE_WAYS)

    # one request

    def _tried(self, url: str, want: _Want) -> Reply:
        """One hop, tried again after a busy answer (as long as it asks for) and once after a broken connection."""
        broken = 0
        for attempt in range(_MAX_TRIES):
            try:
                reply = self._send(url, want)
            except VramPlanError:
                raise
            except Exception as error:  # requests', httpx's or httpx2's, by huggingface_hub's version
                self.deadline.left_s()
                broken += 1
                if broken > 1:
                    raise HubError(f"the connection to {_host(url)} failed: {_words(error)}", OFFLINE_WAYS) from None
                continue
            if reply.status not in _RETRIED or attempt == _MAX_TRIES - 1:
                return reply
            wait_s = _wait_s(reply, attempt)
            if wait_s >= self.deadline.left_s():
                return reply
            time.sleep(wait_s)
        raise AssertionError("every try returns or raises")

    def _send(self, url: str, want: _Want) -> Reply:
        from huggingface_hub import get_session

        self.requests += 1
        session: Any = get_session()
        left_s = self.deadline.left_s()
        headers = {"user-agent": "vram-plan", "accept-encoding": "identity", **want.headers}
        if _origin(url) == _origin(self.base) and self.token:
            headers["authorization"] = f"Bearer {self.token}"
        if not isinstance(session.stream, bool):  # httpx, since huggingface_hub 1.0; requests has a flag of that name
            times = (left_s, left_s, left_s, left_s)
            with session.stream("GET", url, headers=headers, timeout=times, follow_redirects=False) as r:
                return self._take(Reply(r.status_code, _lower(r.headers), b"", url), r.iter_raw(), want)
        with session.get(url, headers=headers, timeout=(left_s, left_s), stream=True, allow_redirects=False) as r:
            return self._take(Reply(r.status_code, _lower(r.headers), b"", url), r.raw.stream(65536, decode_content=False), want)

    def _take(self, reply: Reply, chunks: Iterable[bytes], want: _Want) -> Reply:
        """The reply with what is wanted of its body; the connection is closed on the rest."""
        if reply.status not in (200, 206):
            return reply
        skip = (want.start or 0) if reply.status == 200 else 0  # a server that knows no ranges starts at the front
        body, skipped = bytearray(), 0
        for chunk in chunks:
            self.deadline.earn(len(chunk))
            self.deadline.left_s()
            drop = min(skip - skipped, len(chunk))
            skipped += drop
            body += chunk[drop:]
            if len(body) >= want.limit or (want.enough is not None and want.enough(body)):
                return replace(reply, body=bytes(body[: want.limit]))
        told = reply.number("content-length")
        if told is not None and len(body) + skipped < told:
            raise ConnectionError(f"the answer was cut off after {len(body) + skipped:,} of {told:,} bytes")
        return replace(reply, body=bytes(body))

    # what an answer says beside its body

    def _learn(self, reply: Reply) -> None:
        commit = reply.headers.get("x-repo-commit", "")
        if _origin(reply.url) != _origin(self.base) or not re.fullmatch(r"[0-9a-f]{40}", commit):
            return
        if self.commit not in (None, commit):
            raise HubError(f"{self.repo_id} was changed on the Hub while it was read", "run the command again")
        self.commit = commit

    def _follow_rename(self, url: str, target: str) -> None:
        """Ask for the rest under the new name at once."""
        if _origin(target) == _origin(self.base) and (old := self._repo_in(url)) == self.repo_id:
            new = self._repo_in(target)
            self.repo_id = new if new is not None and new != old else self.repo_id

    def _repo_in(self, url: str) -> str | None:
        path = unquote(urlsplit(url).path.removeprefix(urlsplit(self.base).path))
        match = re.fullmatch(rf"/api/models/{_REPO}(?:/revision/.*)?", path) or re.fullmatch(rf"/(?!api/){_REPO}/resolve/.*", path)
        return match[1] if match else None

    def _refuse(self, reply: Reply) -> None:
        status, code = reply.status, reply.headers.get("x-error-code", "")
        if status in (200, 206, 416):
            return
        page = f"https://huggingface.co/{self.repo_id}"
        if code == "RevisionNotFound":
            raise ModelNotFoundError(f"{self.repo_id} has no revision {self.revision!r}", f"see {page}/commits/main, or leave it out")
        if code == "RepoNotFound":
            raise ModelNotFoundError(
                f"the Hub has no model {self.repo_id}, or it is private",
                "check the spelling; for a private one: `hf auth login` or HF_TOKEN",
            )
        if _origin(reply.url) != _origin(self.base):
            raise HubError(f"the Hub's storage ({_host(reply.url)}) answered {status} for {self.repo_id}", OFFLINE_WAYS)
        if status in (401, 403):
            have = "the token given has no access to it" if self.token else "no token was given"
            raise GatedModelError(
                f"{self.repo_id} is gated on the Hub, and {have}",
                f"accept its licence at {page}, then `hf auth login` or set HF_TOKEN",
            )
        if status == 404:
            raise FileMissing
        if status == 429:
            wait = f"; it asks to wait {_wait_s(reply, 0):.0f} s" if "retry-after" in reply.headers or "ratelimit" in reply.headers else ""
            raise HubError(f"the Hub limits the rate of requests (429){wait}", f"wait, or `hf auth login` for more; {OFFLINE_WAYS}")
        raise HubError(f"the Hub answered {status} for {self.repo_id}", OFFLINE_WAYS)


class RemoteFile:
    """A file on the Hub, read by byte range. After the first read the place it was redirected to is asked directly."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self.file_bytes: int | None = None
        self._connection = connection
        self._url = connection.file_url(name)

    def read(self, start: int, count: int, enough: Enough | None = None) -> bytes:
        """`count` bytes from `start`, fewer where the file ends or `enough` says so.

        Raises as `Connection.get`, and HubError where another range than the one asked for came.
        """
        stopped = False

        def stop(body: bytearray) -> bool:
            nonlocal stopped
            stopped = enough is not None and enough(body)
            return stopped

        reply = self._connection.get(self._url, count, start, stop)
        self._url = reply.url
        if self.file_bytes is None:
            self.file_bytes = reply.file_bytes
        if reply.status == 416:
            return b""
        given = reply.headers.get("content-range", f"bytes {start}-") if reply.status == 206 else f"bytes {start}-"
        expected = count if self.file_bytes is None else max(min(count, self.file_bytes - start), 0)
        if not given.startswith(f"bytes {start}-") or (len(reply.body) < expected and not stopped):
            raise HubError(
                f"the Hub sent {len(reply.body):,} bytes ({given[:60]}) of {self.name}, not {expected:,} from {start:,}",
                f"try again; {OFFLINE_WAYS}",
            )
        return reply.body


def _token() -> str | None:
    from huggingface_hub import constants, get_token

    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _wait_s(reply: Reply, attempt: int) -> float:
    """Seconds to wait before asking again: Retry-After, the rate limit's reset (`"api";r=0;t=55`), else 0.5, 1, 2."""
    if (asked := reply.number("retry-after")) is not None:
        return float(asked)
    reset = re.search(r"\bt\s*=\s*(\d{1,9})", reply.headers.get("ratelimit", ""))
    return float(reset[1]) if reset and reply.status == 429 else 0.5 * 2**attempt


def _words(error: Exception) -> str:
    """What a client's exception says, short; never a URL, whose query may be a signed one."""
    text = re.sub(r"https?://\S+", "…", str(error)) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "…"
