"""Another language than English. Texts are translated where they are printed, by the templates of `messages.json`.

A language is a JSON file that maps those templates to its own, `{0}`, `{1}` … where the values go, in any order. It is shipped as
`messages.<language>.json` and chosen by VRAM_PLAN_LANG (`de`), or named there by its path. JSON, CSV and Markdown stay as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

__all__ = ["Language", "chosen_language", "say"]

_VALUE = re.compile(r"(?<!\{)\{(\d{1,2})\}(?!\})")
_MOST_BYTES = 1 << 21
_MOST_TEXT = 2000
_FEW = 8


class Language:
    """Translations by template. What has none is left as it is, clause by clause."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        texts = {**{_inner(key): _inner(text) for key, text in texts.items()}, **texts}
        self.exact = {_plain(key): _plain(text) for key, text in texts.items() if not _VALUE.search(key)}
        self.tails = {key: text for key, text in self.exact.items() if key.startswith(" ") and key.strip()}
        shaped = [(_pieces(key), text) for key, text in texts.items() if _VALUE.search(key)]
        self.shaped = sorted(shaped, key=lambda row: -sum(map(len, row[0])))
        #: `{0} of {1}` fits nearly everything: such are tried on clauses alone, when nothing else fits.
        self.loose = [row for row in self.shaped if sum(map(len, row[0])) < _FEW]
        self.shaped = [row for row in self.shaped if sum(map(len, row[0])) >= _FEW]

    def say(self, text: str) -> str:
        """The text in this language, its values translated too where they are texts."""
        blank = len(text) - len(text.lstrip())
        body = text[blank:]
        if len(text) > _MOST_TEXT or not body.strip():
            return text
        return text[:blank] + (self._closely(body) or self._by_clauses(body))

    def _whole(self, text: str) -> str | None:
        return self._closely(text) or self._filled_in(text, self.loose)

    def _closely(self, text: str) -> str | None:
        if text in self.exact:
            return self.exact[text]
        for tail, said in self.tails.items():  # what the code adds at the end of another text
            if text.endswith(tail) and (head := self._whole(text.removesuffix(tail))):
                return head + said
        return self._filled_in(text, self.shaped)

    def _filled_in(self, text: str, shaped: Sequence[tuple[tuple[str, ...], str]]) -> str | None:
        for pieces, translation in shaped:
            values = _values(text, pieces)
            if values is not None:
                filled = _filled(translation, [self.say(value) if value != text else value for value in values])
                return filled if len(filled) <= _MOST_TEXT else text
        return None

    def _by_clauses(self, text: str) -> str:
        for mark in ("; ", ". ", ", ", ": "):
            head, found, tail = text.partition(mark)
            if found:
                sentence = self._whole(f"{head}.") if mark == ". " else None
                return f"{sentence} {self.say(tail)}" if sentence else f"{self._whole(head) or head}{mark}{self.say(tail)}"
        return self._filled_in(text, self.loose) or text


def _inner(text: str) -> str:
    """A clause without the mark that joins it to the one before, at which texts are parted."""
    return re.sub(r"^[;,.:] ", "", text)


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


def say(text: str) -> str:
    """A text in the chosen language."""
    language = chosen_language()
    return language.say(text) if language else text
