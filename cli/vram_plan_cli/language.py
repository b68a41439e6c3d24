"""Another language than English. Texts are translated where they are printed, by the templates of `messages.json`.

A language is a JSON file that maps those templates to its own, `{0}`, `{1}` … where the values go, in any order. It is shipped as
`messages.<language>.json` and chosen by VRAM_PLAN_LANG (`de`), or named there by its path. JSON, CSV and Markdown stay as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final

__all__ = ["Language", "chosen_language", "language_tag", "say"]

_VALUE = re.compile(r"(?<!\{)\{(\d{1,2})\}(?!\})")
#: A word somebody may read; names, units and options have a capital, a digit or a mark in them.
_WORD = re.compile(r"(?<![\w./-])[A-Z]?[a-z]{2,}(?:-[a-z]+)*(?![\w/-]|\.\w)")
#: Where a figure stands beside words.
_FIGURE = re.compile(r"(?<=[a-z)]) +(?=[+−-]?\d)|(?<=[\d%✓!✗]) +(?=[A-Za-z])")
_BRACKETS = re.compile(r"(.+?) \(([^()]+)\)(.*)")
_MOST_BYTES = 1 << 21
_MOST_TEXT = 2000
_DEEP = 12
_MOST_TRIES = 300
_MOST_KNOWN = 4096
_MARKS: Final = {mark: mark for mark in ("; ", ". ", ": ", ", ")}

_Shape = tuple[tuple[str, ...], str]


class Language:
    """Translations by template. Of the ways to part a text into templates and clauses, the one that leaves least of it in English."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        texts = {**{_inner(key): _inner(text) for key, text in texts.items()}, **texts}
        self._exact = {_plain(key): _plain(text) for key, text in texts.items() if not _VALUE.search(key)}
        self._marks = _MARKS | {key: text for key, text in self._exact.items() if key.startswith(" ") and key.endswith(" ")}
        shapes = [(_pieces(key), text) for key, text in texts.items() if _VALUE.search(key)]
        shapes += [_after(key, text) for key, text in texts.items() if key.startswith(" ") and key.strip()]
        self._shapes: dict[str, list[_Shape]] = {}
        for first in {pieces[0][:1] for pieces, _ in shapes} | {""}:
            fitting = [shape for shape in shapes if shape[0][0][:1] in ("", first)]
            self._shapes[first] = sorted(fitting, key=lambda shape: -sum(map(len, shape[0])))
        self._known: dict[str, tuple[int, str]] = {}
        self._tries = 0

    def say(self, text: str) -> str:
        """The text in this language, its values translated too where they are texts. What has no translation is left as it is."""
        if len(text) > _MOST_TEXT:
            return text
        self._tries = 0
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        return self._best(text, _DEEP)[1]

    def _best(self, text: str, deep: int) -> tuple[int, str]:
        """How many letters stay English at least, and the text so."""
        if text not in self._known:
            best, body = self._parted(text, deep), text.strip()
            if best[0] and body != text:
                left, said = self._best(body, deep)
                best = min(best, (left, text.replace(body, said)), key=lambda way: way[0])
            if best[0] and text[:1].isupper() and text[1:2].islower():  # a hint said as a sentence of its own
                left, said = self._best(text[0].lower() + text[1:], deep)
                best = min(best, (left, said[:1].upper() + said[1:]), key=lambda way: way[0])
            if best[0] and text.endswith("."):
                left, said = self._best(text[:-1], deep)
                best = min(best, (left, f"{said}."), key=lambda way: way[0])
            self._known[text] = best
        return self._known[text]

    def _parted(self, text: str, deep: int) -> tuple[int, str]:
        best = _english(text), text
        if text in self._exact:
            return 0, self._exact[text]
        if not best[0] or not deep or self._tries > _MOST_TRIES:
            return best
        self._tries += 1
        if " · " in text:  # joins what stands alone, never within a template
            parts = text.split(" · ")
            return self._together(parts, (" · ",) * (len(parts) - 1), deep)
        for way in chain(self._templates(text, deep), self._clauses(text, deep)):
            if way[0] < best[0] and len(way[1]) <= _MOST_TEXT:
                best = way
                if not best[0]:
                    break
        return best

    def _templates(self, text: str, deep: int) -> Iterator[tuple[int, str]]:
        for pieces, translation in self._shapes.get(text[:1], self._shapes[""]):
            values = _values(text, pieces)
            if values is None or text in values:
                continue
            said = [self._best(value, deep - 1) for value in values]
            yield sum(left for left, _ in said), _filled(translation, [value for _, value in said])

    def _clauses(self, text: str, deep: int) -> Iterator[tuple[int, str]]:
        for mark, said in self._marks.items():
            for head, found, tail in dict.fromkeys((text.partition(mark), text.rpartition(mark))):
                if found:
                    stop = "." if mark == ". " else ""  # a sentence has its own
                    yield self._together((head + stop, tail), (said[len(stop) :],), deep)
        if split := _BRACKETS.fullmatch(text):
            yield self._together(split.groups(), (" (", ")"), deep)
        if split := _FIGURE.search(text):
            yield self._together((text[: split.start()], text[split.end() :]), (split[0],), deep)

    def _together(self, parts: Sequence[str], marks: Sequence[str], deep: int) -> tuple[int, str]:
        """The parts said one by one, the marks between them."""
        said = [self._best(part, deep - 1) for part in parts]
        return sum(left for left, _ in said), "".join(chain.from_iterable(zip_longest((text for _, text in said), marks, fillvalue="")))


def _english(text: str) -> int:
    return sum(map(len, _WORD.findall(text)))


def _inner(text: str) -> str:
    """A clause without the marks that join it to those beside it, at which texts are parted."""
    return re.sub(r"^[;,.:] |[;,:] $", "", text)


def _after(key: str, text: str) -> _Shape:
    """The shape of whatever ends in this."""
    return ("", *_pieces(key)), "{0}" + _VALUE.sub(lambda m: f"{{{int(m[1]) + 1}}}", text)


def _plain(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}")


def _pieces(template: str) -> tuple[str, ...]:
    """What stands between the values; values that touch are one."""
    return tuple(_plain(piece) for piece in _VALUE.split(template)[::2])


def _values(text: str, pieces: Sequence[str]) -> list[str] | None:
    """What stands in the places of a template, each as short as it can be; None where the text is not of its shape."""
    first, *middle, last = pieces
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return None
    values, at, end = [], len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return None
        values.append(text[at:found])
        at = found + len(piece)
    return [*values, text[at:end]]


def _filled(translation: str, values: Sequence[str]) -> str:
    return _plain(_VALUE.sub(lambda m: values[int(m[1])] if int(m[1]) < len(values) else "", translation))


@lru_cache(maxsize=1)
def chosen_language() -> Language | None:
    """The language VRAM_PLAN_LANG names; None for English. Raises UsageError where there is no such language."""
    name = os.environ.get("VRAM_PLAN_LANG", "")
    return None if name in ("", "en") else _read(name)


def _read(name: str) -> Language:
    from vram_plan import UsageError
    from vram_plan_data import ROOT

    path = Path(name) if name.endswith(".json") else ROOT / f"messages.{name}.json"
    try:
        with path.open("rb") as file:
            texts = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        known = "leave it out for English, or name a messages file"
        raise UsageError(f"VRAM_PLAN_LANG: {name[:80]!r} is no language here", known) from error
    if not isinstance(texts, dict):
        raise UsageError(f"VRAM_PLAN_LANG: {name[:80]!r} maps no texts", "it is a JSON object, text to text")
    return Language({key: text for key, text in texts.items() if isinstance(text, str)})


def language_tag() -> str:
    """What HTML calls the language: `de`, also for a file `messages.de.json`; English where the name does not tell."""
    name = os.environ.get("VRAM_PLAN_LANG", "").removesuffix(".json").rpartition(".")[2]
    return name if re.fullmatch(r"[a-zA-Z]{2,3}(?:-[a-zA-Z0-9]{2,8})?", name) else "en"


def say(text: str) -> str:
    """A text in the chosen language."""
    language = chosen_language()
    return language.say(text) if language else text
