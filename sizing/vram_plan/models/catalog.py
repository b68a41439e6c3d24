"""The shipped models, found by the names people type. Matching is by rule: a name is cut into words, words that say
nothing of the shape (instruct, chat, hf, a release date) are left out, and what remains must be equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from ..errors import AmbiguousModelError, ClosedModelError, ModelNotFoundError
from ..values import dataclass
from .dialects import read_architecture

__all__ = ["CatalogRow", "find_model", "known_id", "list_models", "row_config", "short_name"]

#: Words of a model's name that leave its shape as it is.
_VARIANT: Final = frozenset(
    (
        "instruct",
        "chat",
        "it",
        "base",
        "hf",
        "pt",
        "text",
        "meta",
        "latest",
        "dynamic",
        "preview",
        "gguf",
        "bnb",
        "mlx",
        "unsloth",
        "nvidia",
        "qat",
        "uncensored",
        "abliterated",
    )
)
_FORMAT: Final = re.compile(
    r"[-:_.](?:quantized\.|(?P<bnb>bnb-))?((?:ud-)?i?q[1-8](?:_[0-9a-z]+){0,2}|mxfp4(?:_moe)?|[bf]f?p?16|fp32|fp8|nvfp4|awq|gptq(?:-int[48])?|nf4|int[48]|w\d+a\d+|"
    r"[48]-?bit)(?:-int[48]|-dynamic|-\d+g|-gguf)*$",
    re.IGNORECASE,
)
#: What follows `gpt` in the closed models' names beside a version.
_GPT_SIZES: Final = ("turbo", "mini", "nano", "image", "realtime", "audio", "codex")
_WORD: Final = re.compile(r"\d+(?:\.\d+)*[a-z]*\d*[a-z]*|[a-z]+")


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """One shipped model. `line` is its row of the table, parsed when it is wanted."""

    id: str
    name: str
    same_as: str
    source: str
    overrides: tuple[tuple[str, Any], ...] = ()


def short_name(model_id: str) -> str:
    """The name people type: `meta-llama/Meta-Llama-3-8B` → `llama3-8b`."""
    plain = re.sub(r"(?<=\d)_(?=\d+b)", ".", model_id.rsplit("/", 1)[-1].lower()).replace("_", "-")  # Qwen-1_8B
    chunks = [c for c in plain.split("-") if c not in _VARIANT or c == "mlx"]
    name = ""
    for chunk in chunks:
        stick = not name or (re.fullmatch(r"\d(\.\d+)?", chunk) and name[-1].isalpha() and "-" not in name)
        name += chunk if stick else f"-{chunk}"
    return name


def words(text: str) -> tuple[str, ...]:
    """A name's words: letters and numbers apart, sizes (`8b`, `8x7b`) whole, separators gone."""
    return tuple(_WORD.findall(text.rsplit("/", 1)[-1].lower()))


def stripped(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in parts if word not in _VARIANT)


def undated(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Without release dates (`2407`) and point releases (`v 0.1`)."""
    kept: list[str] = []
    for word in parts:
        if kept and kept[-1] == "v" and re.fullmatch(r"0\.\d", word):
            kept.pop()
        elif not re.fullmatch(r"\d{4}", word):
            kept.append(word)
    return tuple(kept)


@lru_cache(maxsize=1)
def _lines() -> dict[str, str]:
    """Row id → its line of the table, not parsed: one answer needs one row."""
    from vram_plan_data import ROOT

    lines = (ROOT / "models.jsonl").read_text(encoding="utf-8").splitlines()
    return {line[7 : line.index('"', 7)]: line for line in lines}


@lru_cache(maxsize=1)
def _names() -> Mapping[str, Any]:
    from vram_plan_data import ROOT

    names: Mapping[str, Any] = json.loads((ROOT / "aliases.json").read_text(encoding="utf-8"))
    return names


@lru_cache(maxsize=1)
def _rows() -> dict[str, CatalogRow]:
    rows = {id: CatalogRow(id, short_name(id), "", "") for id in _lines()}
    for row in _names()["same"]:
        overrides = tuple(sorted(row.get("set", {}).items()))
        rows[row["id"]] = CatalogRow(row["id"], short_name(row["id"]), row["as"], row["source"], overrides)
    return rows


@lru_cache(maxsize=1)
def _index() -> dict[tuple[str, ...], list[str]]:
    """Every form of every row's name → the ids that have it, plainest ids first."""
    index: dict[tuple[str, ...], list[str]] = {}
    for id in sorted(_rows(), key=lambda id: (len(words(id)), id)):
        full = words(id)
        for form in dict.fromkeys((full, stripped(full), undated(stripped(full)))):
            index.setdefault(form, []).append(id)
    return index


def row_config(row: CatalogRow) -> tuple[dict[str, Any], str]:
    """A row's config (its architecture facts) and where they come from."""
    from vram_plan_data.folding import unfolded

    record = json.loads(_lines()[row.same_as or row.id])
    config: dict[str, Any] = unfolded(record["config"])
    config.update(row.overrides)
    source = f"{record['source']}, as {row.same_as}: {row.source}" if row.same_as else str(record["source"])
    return config, source


def known_id(model_id: str) -> CatalogRow | None:
    """The row of exactly this Hub id, or of its instruct, base or quantised sibling of the same organisation."""
    rows = _rows()
    for id in (model_id, *_index().get(stripped(words(model_id)), ())):
        if id in rows and id.split("/")[0].lower() == model_id.split("/")[0].lower():
            return rows[id]
    return None


def list_models(query: str = "") -> tuple[CatalogRow, ...]:
    """Every row whose id or short name has all of the query's words, by name."""
    wanted = words(query)
    return tuple(
        sorted(
            (row for row in _rows().values() if all(any(word.startswith(want) for word in words(row.id)) for want in wanted)),
            key=lambda row: row.name,
        )
    )


def find_model(text: str) -> tuple[CatalogRow, str | None, bool]:
    """The row a name means, the number format the name ends in (or None), and whether it is only the nearest by rule
    (a release date was left out, or the name is the beginning of one model's).

    Raises ModelNotFoundError with the nearest names, AmbiguousModelError with the list, ClosedModelError.
    """
    name, format = _split_format(text)
    for asked, quant in ((text, None), (name, format)):
        row, loose = _match(asked)
        if row:
            return row, quant, loose
    _refuse_closed(words(text))
    only = _only_member(text, stripped(words(name)))
    if only:
        return only, format, True
    raise ModelNotFoundError(f"no model is called {text[:60]!r}", _nearest(name))


def _split_format(text: str) -> tuple[str, str | None]:
    match = _FORMAT.search(text)
    if not match:
        return text, None
    return text[: match.start()], "NF4" if match["bnb"] and "4" in match[2] else match[2]


@lru_cache(maxsize=1)
def _aliases() -> dict[tuple[str, ...], str]:
    return {words(alias): id for alias, id in _names()["aliases"].items()}


def _match(text: str) -> tuple[CatalogRow | None, bool]:
    full = words(text)
    if not full:
        return None, False
    rows, index, aliases = _rows(), _index(), _aliases()
    for form in dict.fromkeys((full, stripped(full))):
        if form in aliases:
            return rows[aliases[form]], False
        if form in index:
            return _one_shape(text, index[form]), False
    loose = undated(stripped(full))
    if loose in index and loose != stripped(full):
        return _one_shape(text, index[loose]), True
    return None, False


def _one_shape(text: str, ids: list[str]) -> CatalogRow:
    """The plainest of rows of one shape; rows of different shapes are told apart by the person who asks."""
    rows = _rows()
    plain = [id for id in ids if "quantization_config" not in _lines().get(rows[id].same_as or id, "")] or ids
    if not _same_config([rows[id] for id in plain]) and len({_shape(rows[id]) for id in plain}) > 1:
        raise AmbiguousModelError(f"{text[:60]!r} names {len(plain)} models of different shape", f"which one: {', '.join(plain[:12])}?")
    return rows[plain[0]]


def _same_config(rows: list[CatalogRow]) -> bool:
    """Whether rows are one config word for word: then they need not be read to be known of one shape."""
    return all(row_config(row)[0] == row_config(rows[0])[0] for row in rows[1:])


def _shape(row: CatalogRow) -> tuple[object, object]:
    architecture = read_architecture(row_config(row)[0])
    return tuple((t.role, t.layer, t.shape) for t in architecture.tensors), architecture.cache_layers


def _refuse_closed(parts: tuple[str, ...]) -> None:
    closed = _names()["closed"]
    first = parts[0] if parts else ""
    joined = "".join(parts[:2])
    family = first if first in closed else joined if joined in closed else None
    if family == "gpt" and not all(part[0].isdigit() or part in _GPT_SIZES for part in parts[1:2]):
        return  # gpt-oss, gpt-j, gpt-neox: open models of the name
    if family:
        open_kin = ", ".join(closed[family])
        raise ClosedModelError(
            f"the sizes of {family} models are not published, so they cannot be planned", f"open models of the kind: {open_kin}"
        )


def _only_member(text: str, parts: tuple[str, ...]) -> CatalogRow | None:
    """The one model whose name begins with these words; several are listed in the error."""
    within = [row for id, row in _rows().items() if parts and stripped(words(id))[: len(parts)] == parts]
    names = list(dict.fromkeys(row.name for row in sorted(within, key=lambda row: (len(row.name), row.name))))
    if len(names) > 1:
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        raise AmbiguousModelError(f"{text[:60]!r} is a family of {len(names)} models", f"which one: {', '.join(names[:12])}{more}?")
    return within[0] if within else None


def _nearest(text: str) -> str:
    rows = _rows()
    names = {row.name: row.name for row in rows.values()} | {alias: rows[id].name for alias, id in _names()["aliases"].items()}
    found = get_close_matches(text.lower().replace(":", "-"), sorted(names), n=6, cutoff=0.6)
    near = list(dict.fromkeys(names[name] for name in found))[:3]
    if not near:
        return "see the names with: vram-plan models; or name a Hub id (org/name) or a file"
    return f"did you mean {', '.join(near)}?"
