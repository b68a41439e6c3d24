"""Names of accelerators cut into words, and the catalogue's rows that have given words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from .catalog import raw_names

__all__ = ["Name", "Row", "cut", "read", "rows_with"]

#: Words that say whose it is and nothing more.
_VENDORS: Final = {
    "nvidia": "NVIDIA", "geforce": "NVIDIA", "tesla": "NVIDIA", "jetson": "NVIDIA", "amd": "AMD", "radeon": "AMD",
    "instinct": "AMD", "intel": "Intel", "apple": "Apple", "google": "Google",
}  # fmt: skip
_NOISE: Final = frozenset(
    (
        "gpu", "gpus", "graphics", "graphic", "card", "generation", "edition", "corporation", "the",
        "hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "gddr6x", "gddr7",
    )
)  # fmt: skip
#: Product lines: may be left out, but must be right when given.
_LINES: Final = frozenset({"rtx", "gtx", "rx", "arc"})
_SYNONYMS: Final = {"mobile": "laptop", "notebook": "laptop", "sxm2": "sxm", "sxm3": "sxm", "sxm4": "sxm", "sxm5": "sxm", "sxm6": "sxm"}
#: What is dropped before a name is cut: marks, and the Macs' own names.
_DROPPED: Final = re.compile(r"\((?:r|tm)\)|macbook(?: pro| air)?|mac (?:studio|mini|pro)|imac")
_SPELLINGS: Final = (("max-q", "maxq"), ("max q", "maxq"), (" gpu core", " core"))
_BREAKS: Final = str.maketrans(dict.fromkeys("()[]{}®™,;:/_-+'\"\t\r", " "))
_SIZE: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(?:gib|gb|g|q)")
_UNITS: Final = frozenset({"gb", "gib", "g"})
_JOINED: Final = _UNITS | {"core", "cores"}


class Name(NamedTuple):
    """A name in pieces. `words` are those that tell; `memory_gb` is what was said of memory."""

    words: frozenset[str]
    lines: frozenset[str]
    vendors: frozenset[str]
    memory_gb: float | None


def _plain(text: str) -> str:
    low = _DROPPED.sub(" ", text.lower())
    for written, meant in _SPELLINGS:
        low = low.replace(written, meant)
    return low.translate(_BREAKS)


def cut(text: str) -> list[str]:
    """A name in words, lower case, nothing judged yet."""
    return _plain(text).split()


def _join_units(words: Sequence[str]) -> list[str]:
    """`80 gb` → `80gb`, `40 core` → `40core`."""
    out: list[str] = []
    for word in words:
        if out and word in _JOINED and out[-1].replace(".", "", 1).isdigit():
            out[-1] += "core" if word[0] == "c" else word
        else:
            out.append(word)
    return out


def _name(words: Sequence[str]) -> Name:
    telling, lines, vendors, memory = set(), set(), set(), None
    for word in words if _JOINED.isdisjoint(words) else _join_units(words):
        if word in _VENDORS:
            vendors.add(_VENDORS[word])
        elif word in _LINES:
            lines.add(word)
        elif word[0].isdigit() and (size := _SIZE.fullmatch(word)):
            memory = float(size[1])
        elif word not in _NOISE:
            telling.add(_SYNONYMS.get(word, word))
    return Name(frozenset(telling), frozenset(lines), frozenset(vendors), memory)


class Row(NamedTuple):
    """A row of the catalogue: its place, its maker, its own name and its aliases in words, the families it stands for."""

    place: int
    vendor: str
    own: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    names: tuple[Name, ...]
    families: tuple[Name, ...]


@lru_cache(maxsize=1)
def _texts() -> tuple[list[tuple[str, list[str], list[str]]], list[str], frozenset[str]]:
    """The rows' names; each row's as one text, to look words up in quickly; every word there is."""
    raw = list(raw_names())
    text = "\n".join(" ".join((*names, *families)) for _, names, families in raw)
    plain = _plain(text)
    return raw, plain.split("\n"), frozenset(plain.split()) | _SYNONYMS.keys()


@lru_cache(maxsize=512)
def _row(index: int) -> Row:
    vendor, names, families = _texts()[0][index]
    cuts = tuple(dict.fromkeys(tuple(cut(name)) for name in names))
    return Row(index, vendor, cuts[0], cuts[1:], tuple(map(_name, cuts)), tuple(_name(cut(name)) for name in families))


def rows_with(words: Iterable[str]) -> list[Row]:
    """The rows in whose names all these words can be found (`40core` is written `40-core`: it is not looked for)."""
    sought = [word for word in words if not word.endswith("core")]
    return [_row(index) for index, text in enumerate(_texts()[1]) if all(word in text for word in sought)]


def _split(word: str, known: frozenset[str]) -> list[str]:
    """A word run together (`rtx4090`, `m3max64gb`) in known words, the longest first; itself when that cannot be done."""
    ends: dict[int, list[str]] = {0: []}
    for stop in range(1, len(word) + 1):
        for start in range(stop):
            piece = word[start:stop]
            if start and word[start - 1].isdigit() and piece[0].isdigit():
                continue  # a number is one piece
            fits = piece in known or (piece.endswith(("gb", "gib")) and _SIZE.fullmatch(piece))
            if start in ends and fits and (stop not in ends or len(ends[start]) + 1 < len(ends[stop])):
                ends[stop] = [*ends[start], piece]
    return ends.get(len(word), [word])


def read(text: str) -> tuple[tuple[str, ...], Name]:
    """What a person or a driver wrote: its words, those run together cut, and what they tell."""
    known = _texts()[2]
    words: list[str] = []
    for word in cut(text):
        plain = word in known or word in _UNITS or _SIZE.fullmatch(word) or len(word) > 40
        words.extend([word] if plain else _split(word, known))
    return tuple(words), _name(words)
