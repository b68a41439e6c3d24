"""What the text that names a model means: a path, a Hub id, an Ollama tag or a catalogue name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

from ..errors import ModelNotFoundError, UsageError
from ..values import dataclass

__all__ = ["Reference", "parse_reference"]

_HUB: Final = re.compile(
    r"([\w.-]{1,96}/[\w.-]{1,96})(?:/((?:[\w.-]+/)*[\w.-]+\.gguf))?(?::([\w.-]{1,40}))?(?:@([\w./-]{1,100}))?/?"
)
#: An address copied from the browser, or as Ollama writes it; a page of a repository may show a revision.
_ADDRESS: Final = re.compile(r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/([^?#]+)(?:[?#].*)?")
_PAGE: Final = re.compile(r"([^/]+/[^/]+)/(?:tree|blob|resolve)/([^/]+)(/.*\.gguf)?(?:/.*)?")
_FILE: Final = (".gguf", ".safetensors", ".json")
_MAX_TEXT: Final = 4096


@dataclass(frozen=True, slots=True)
class Reference:
    """`text` as typed; `kind` says where to look; the other fields as the kind needs them."""

    text: str
    kind: Literal["path", "hub", "name"]
    name: str
    revision: str | None = None
    quant: str | None = None
    filename: str | None = None


def parse_reference(text: str) -> Reference:
    """Anything that exists as a path is one; `org/name…` is a Hub id; the rest is a name or an Ollama tag.

    Raises UsageError for text that is none of them, ModelNotFoundError for a path that does not exist.
    """
    if not text.strip() or len(text) > _MAX_TEXT or "\0" in text:
        raise UsageError("the model's name is empty or no name", "for example: vram-plan llama3-8b")
    text = text.strip()
    if _exists(text):
        return Reference(text, "path", text)
    if text.startswith(("/", "./", "../", "~", ".\\")) or (text.lower().endswith(_FILE) and text.count("/") != 2 and "/" not in text):
        raise ModelNotFoundError(f"there is no file or folder {text[:200]!r}", "check the path, or name a model: vram-plan models")
    match = _HUB.fullmatch(_repository(text))
    if match:
        repo, filename, quant, revision = match.groups()
        return Reference(text, "hub", repo, revision, quant, filename)
    if "/" in text:
        raise ModelNotFoundError(
            f"{text[:200]!r} is no path that exists and no Hub id",
            "a Hub id is org/name, org/name@revision, org/name:Q4_K_M or org/name/file.gguf",
        )
    return Reference(text, "name", text)


def _repository(text: str) -> str:
    """`https://huggingface.co/org/name/tree/main` → `org/name@main`; anything else as it is."""
    address = _ADDRESS.fullmatch(text)
    if not address:
        return text
    page = _PAGE.fullmatch(address[1])
    return f"{page[1]}{page[3] or ''}@{page[2]}" if page else address[1]


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists() or Path(text).expanduser().is_symlink()
    except (OSError, ValueError, RuntimeError):
        return False
