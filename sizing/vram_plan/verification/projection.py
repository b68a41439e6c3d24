"""llama.cpp's own projection of a model's memory, before any download: `llama-fit-params` on a file that is a header alone.

The engine reads the metadata and the tensor list; where the data would be is a hole in the file, which takes no space. It prints
whole MiB for each device: model, context (cache and states), compute. Source: llama.cpp 0c1e57098, tools/fit-params, common/fit.cpp.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..errors import EngineError, FormatError, UsageError
from ..models import gguf
from ..models.model import Model
from ..units import MIB
from .values import HOST, Figure, Observation, Place, Seen

__all__ = ["header_file", "observe_projection"]

PROGRAM: Final = "llama-fit-params"
_LINE: Final = re.compile(r"^(\S{1,40}) (\d{1,9}) (\d{1,9}) (\d{1,9}) ?$", re.MULTILINE)
_FIRST: Final = 1 << 20
_MOST: Final = 64 << 20
_PRINTED: Final = 1 << 20


def observe_projection(model: Model, request: Mapping[str, Any], timeout_s: float) -> Observation:
    """What the engine would take with the settings asked for. Raises UsageError without the program, or for a model that is no GGUF."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise UsageError(f"{PROGRAM} is not installed", "it comes with llama.cpp: put its folder into PATH, or give a log")
    settings = _settings(request)
    with header_file(model, timeout_s) as path:
        out = _run([program, "--model", str(path), *_flags(settings), "--fit-print", "on"], timeout_s)
    figures = _figures(out)
    if not figures:
        raise EngineError(f"{PROGRAM} printed no projection", "is it of 2026 or newer? older ones know no --fit-print")
    seen = tuple(Seen(name, value, "as asked for") for name, value in settings.items())
    backend = () if any(isinstance(figure.place, int) for figure in figures) else (Seen("backend", "cpu", "no device but the host"),)
    return Observation("llama.cpp", f"{PROGRAM}'s projection", None, figures, (*seen, *backend))


def _settings(request: Mapping[str, Any]) -> dict[str, Any]:
    from ..units import parse_tokens

    options = request.get("options") or {}
    found: dict[str, Any] = {"context": parse_tokens(request.get("context") or 8192), "sequences": int(request.get("sequences") or 1)}
    for name in ("kv_type_k", "kv_type_v"):
        found[name] = str(request.get(name) or request.get("kv_type") or "f16")
    if options.get("kv_unified"):
        raise UsageError(f"{PROGRAM} makes a cache for each sequence, no shared pool", "leave kv_unified out")
    return found | {name: options[name] for name in ("ubatch", "batch", "flash_attn", "n_gpu_layers") if name in options}


def _flags(s: Mapping[str, Any]) -> list[str]:
    words = ["-c", str(s["context"] * s["sequences"]), "-np", str(s["sequences"]), "-ctk", s["kv_type_k"], "-ctv", s["kv_type_v"]]
    for name, flag in (("ubatch", "-ub"), ("batch", "-b"), ("n_gpu_layers", "-ngl")):
        words += [flag, str(int(s[name]))] if name in s else []
    return [*words, "-fa", "on" if s.get("flash_attn", True) else "off"]


def _run(command: list[str], timeout_s: float) -> str:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=said, timeout=timeout_s, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise EngineError(f"{PROGRAM} gave no answer within {timeout_s:g} s", "give it longer with --timeout") from None
        except OSError as error:
            raise EngineError(f"{PROGRAM} cannot be run: {error.strerror}") from None
        out.seek(0)
        said.seek(0)
        printed, errors = out.read(_PRINTED).decode("utf-8", "replace"), said.read(_PRINTED).decode("utf-8", "replace")
    if done.returncode:
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), "")
        raise EngineError(f"{PROGRAM} failed ({done.returncode}): {''.join(c if c.isprintable() else '?' for c in last)[:160]}")
    return printed


def _figures(printed: str) -> tuple[Figure, ...]:
    """A line a device, whole MiB rounded down; the host last."""
    found = []
    for number, match in enumerate(_LINE.finditer(printed)):
        place: Place = HOST if match[1] == "Host" else number
        for name, size in zip(("weights", "context", "compute"), match.groups()[1:], strict=True):
            value = (int(size) + 0.5) * MIB if int(size) else 0.0
            found.append(Figure(name, value, "bytes", place, MIB, match[0].strip()))
    return tuple(found)


# --- a file that is a header alone ----------------------------------------------------------------------------------------


@contextmanager
def header_file(model: Model, timeout_s: float) -> Iterator[Path]:
    """The model's GGUF: the file itself where it is on this disk, else its header as on the Hub with a hole for the data."""
    if not model.is_gguf:
        raise UsageError(f"{model.name} is no GGUF", "name one: org/name:Q4_K_M on the Hub, or a file")
    local = _on_disk(model)
    if local is not None:
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="vram-plan-") as folder:
        yield _from_hub(model, Path(folder), timeout_s)


def _on_disk(model: Model) -> Path | None:
    text = model.source.partition("Ollama's store, ")[2] or (model.reference if model.source == model.reference else "")
    path = Path(text).expanduser() if text else None
    return path if path is not None and path.is_file() else None


_SOURCE: Final = re.compile(r"Hugging Face Hub, ([\w.-]{1,96}/[\w.-]{1,96})(?:@[0-9a-f]{1,40})?, (.{1,250}\.gguf)", re.IGNORECASE)


def _from_hub(model: Model, folder: Path, timeout_s: float) -> Path:
    from ..models.hub_http import Connection, Deadline, FileMissing

    match = _SOURCE.match(model.source)
    if match is None:
        raise UsageError(f"the file of {model.name} is not known ({model.source[:80]})", "name the GGUF by its path, or on the Hub")
    deadline = Deadline(timeout_s)
    connection = Connection(match[1], model.revision or "main", deadline)
    paths = []
    for name in gguf.split_names(match[2]):
        try:
            head, size = deadline.guard(lambda name=name: _header(connection, name))  # type: ignore[misc]
        except FileMissing:
            raise EngineError(f"{match[1]} has no file {name} on the Hub now") from None
        path = folder / name.rpartition("/")[2]
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size)
        paths.append(path)
    return paths[0]


def _header(connection: Any, name: str) -> tuple[bytes, int]:
    """The bytes of a file up to where its data begins, or a little beyond, and the file's size."""
    remote, count = connection.open(name), _FIRST
    while True:
        head = remote.read(0, count)
        size = remote.file_bytes
        try:
            gguf.parse(lambda offset, length, head=head: head[offset : offset + length], name, None)  # type: ignore[misc]
        except FormatError:
            if count >= _MOST or len(head) < count:
                raise
            count *= 4
            continue
        if size is None:
            raise EngineError(f"the Hub does not tell how large {name} is")
        return head, size
