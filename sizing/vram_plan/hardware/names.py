"""A GPU's name, forgivingly: `4090`, `rtx4090`, `a100 80g`, `M3 Max 64GB`, nvidia-smi's own. By rule, not by similarity.

A name is cut into words. Its memory is set apart; words that tell nothing (NVIDIA, GeForce, Graphics …) are dropped,
the rest must all be in a row's name or alias. A row with exactly these words wins over rows with more; a family name
takes the row whose `usual_for` lists it; what is left over with several rows is ambiguous.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import UnknownNameError, UsageError
from .catalog import catalogue, spec_at
from .device import GIB, GpuSpec
from .words import Name, Row, cut, read, rows_with

__all__ = ["Match", "find_gpu", "list_gpus", "match_gpu", "match_local"]

MAX_TEXT: Final = 200


class Match(NamedTuple):
    """The row chosen for a name; the memory that was asked for, in bytes (None: not said); what to tell about the choice."""

    spec: GpuSpec
    memory_bytes: int | None
    note: str


def _has_memory(spec: GpuSpec, memory_gb: float | None) -> bool:
    if memory_gb is None:
        return True
    if spec.memory_options:
        return any(abs(size / GIB - memory_gb) < 0.5 for size in spec.memory_options)
    if spec.usable_shares:
        return 4 <= memory_gb <= spec.memory_bytes / GIB + 0.5
    sizes = (spec.memory_bytes, spec.reported_bytes, spec.usable_bytes)
    return any(size is not None and abs(size / GIB - memory_gb) < 0.5 for size in sizes)


def _candidates(asked: Name) -> tuple[list[Row], list[Row]]:
    """Rows with exactly the words asked for, and all rows that have them."""
    exact, wider = [], []
    for row in rows_with(asked.words):
        if asked.vendors and row.vendor not in asked.vendors:
            continue
        fits = [name for name in (*row.names, *row.families) if asked.words <= name.words and asked.lines <= name.lines]
        if fits:
            wider.append(row)
            if any(name.words == asked.words for name in fits if name in row.names):
                exact.append(row)
    return exact, wider


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _listed(specs: list[GpuSpec]) -> str:
    names = [spec.name for spec in specs]
    shown = names[:8]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@lru_cache(maxsize=1)
def _run_together() -> dict[str, str]:
    return {"".join(cut(name)): spec.name for spec in catalogue() for name in (spec.name, *spec.aliases)}


def _unknown(text: str) -> UnknownNameError:
    from difflib import get_close_matches

    plain = _run_together()
    near = dict.fromkeys(plain[key] for key in get_close_matches("".join(cut(text))[:60], plain, n=6, cutoff=0.6))
    hint = f"did you mean {', '.join(list(near)[:3])}? " if near else ""
    return UnknownNameError(f"no GPU is called {_quoted(text)}", hint + "'vram-plan gpus' lists them; '24GB' stands for a nameless card")


def _sizes(specs: list[GpuSpec]) -> str:
    sizes = {size for spec in specs for size in (spec.memory_options or (spec.memory_bytes,))}
    return ", ".join(f"{size / GIB:g}" for size in sorted(sizes))


def _usual(rows: list[Row], asked: Name) -> Row | None:
    """The row that stands for a family, when the family's name is what was asked for."""
    for row in rows:
        for family in row.families:
            if family.words == asked.words and family.memory_gb == asked.memory_gb:
                return row
    return None


def _others(row: Row, rows: list[Row]) -> str:
    rest = [spec_at(other.place) for other in rows if other is not row]
    return f"; there is also {_listed(rest)}" if rest else ""


def _choose(text: str, asked: Name, exact: list[Row], wider: list[Row]) -> tuple[Row, str]:
    """The row meant and what to say of it. Raises UsageError when several are equally meant."""
    rows = exact or wider
    if usual := _usual(wider, asked):
        spec = spec_at(usual.place)
        alike = exact if len(exact) > 1 else wider
        return usual, f"{text} is taken as {spec.name}: {spec.usual_because}{_others(usual, alike)}"
    if len(rows) == 1:
        spec = spec_at(rows[0].place)
        plain = bool(exact) and (asked.memory_gb is not None or not any(name.memory_gb for name in rows[0].names))
        return rows[0], "" if plain else f"{text} is taken as {spec.name}"
    specs = [spec_at(row.place) for row in rows]
    if all(spec.memory_options for spec in specs) and asked.memory_gb is not None and _one_chip(specs):
        slowest = min(rows, key=lambda row: spec_at(row.place).fp32_flops or 0.0)
        chosen = spec_at(slowest.place).name
        return slowest, f"{text} is taken as {chosen}{_others(slowest, rows)}: its memory is the same, its speed is not"
    if _one_chip(specs) and specs[0].memory_options:
        raise _which_memory(text, specs)
    raise UsageError(f"{_quoted(text)} could be {_listed(specs)}", "name one of them, with its memory where that tells them apart")


def _which_memory(text: str, specs: list[GpuSpec]) -> UsageError:
    sizes = _sizes(specs)
    return UsageError(f"{_quoted(text)} comes with {sizes} GB of memory", f"say which: '{text} {sizes.split(', ')[-1]}GB'")


def _one_chip(specs: list[GpuSpec]) -> bool:
    """Whether the rows differ only in the number of GPU cores: `Apple M2 Ultra (60-core GPU)` and `(76-core GPU)`."""
    return len({spec.name.split(" (")[0] for spec in specs}) == 1


def match_gpu(text: str) -> Match:
    """The row a name means, with a note on what was chosen. Raises UnknownNameError or, when ambiguous, UsageError."""
    if not text.strip() or len(text) > MAX_TEXT:
        raise UsageError(f"{_quoted(text)} is not a GPU's name", "for example: 'RTX 4090', 'A100-80GB', 'M3 Max 64GB', '8GB'")
    text = " ".join(text.split())
    words, asked = read(text)
    if not asked.words:
        if re.search(r"\bi?mac", text.lower()):
            raise UsageError(f"{_quoted(text)} is a Mac: its chip and memory decide", "name them, for example 'M2 Ultra 64GB'")
        raise _unknown(text)
    if whole := _in_full(words, asked):
        return _whole_name(spec_at(whole.place), asked)
    exact, wider = _candidates(asked)
    if not wider:
        raise _unknown(text)
    fitting = [[row for row in rows if _has_memory(spec_at(row.place), asked.memory_gb)] for rows in (exact, wider)]
    if not fitting[1]:
        sold = _sizes([spec_at(row.place) for row in exact or wider])
        hint = f"'{asked.memory_gb:g}GB' stands for a nameless card of that size"
        raise UnknownNameError(f"no {_quoted(text)}: that GPU comes with {sold} GB", hint)
    row, note = _choose(text, asked, *fitting)
    return _answer(text, asked, spec_at(row.place), note)


def _in_full(words: tuple[str, ...], asked: Name) -> Row | None:
    """The row whose own name this is, or whose alias, when no other row shares it and it is no family's name."""
    rows = rows_with(words)
    if own := [row for row in rows if words == row.own]:
        return own[0]
    shared = [row for row in rows if words in row.aliases]
    return shared[0] if len(shared) == 1 and not _usual(shared, asked) else None


def _whole_name(spec: GpuSpec, asked: Name) -> Match:
    """A row's own full name: GH200's says the CPU's memory, a Mac's says none and means the largest."""
    memory = asked.memory_gb if asked.memory_gb and _has_memory(spec, asked.memory_gb) else None
    return _answer(spec.name, asked._replace(memory_gb=memory), spec, "")


def _answer(text: str, asked: Name, spec: GpuSpec, note: str) -> Match:
    """The row with the memory asked for. A unified memory that was not said is the largest, said so, or must be said."""
    if not spec.unified or asked.memory_gb is not None:
        return Match(spec, round(asked.memory_gb * GIB) if spec.unified and asked.memory_gb else None, note)
    if len(spec.memory_options) > 1 and not any("core" in word for word in asked.words):
        raise _which_memory(text, [spec])
    if len(spec.memory_options) > 1 or spec.vendor == "AMD":
        note = f"{note or spec.name}; taken with its largest memory, {spec.memory_bytes / GIB:g} GB"
    return Match(spec, None, note)


def find_gpu(text: str) -> GpuSpec:
    """The catalogue row a name means. Raises UnknownNameError (with the nearest names) or UsageError (ambiguous)."""
    return match_gpu(text).spec


def match_local(name: str, total_bytes: int) -> GpuSpec | None:
    """The row of a device the driver named, told apart by its real memory; None when the catalogue does not have it.

    A card with more memory than any row of its name (a rebuilt 48 GB RTX 4090) keeps the rates of its name.
    """
    words, asked = read(name[:MAX_TEXT])
    if not asked.words:
        return None
    exact, wider = _candidates(asked)
    in_full = _in_full(words, asked)
    specs = [spec_at(row.place) for row in ([in_full] if in_full else exact or wider)]
    near = [spec for spec in specs if _about(spec, total_bytes)]
    return min(near or specs, key=lambda spec: spec.bandwidth_bytes_per_s, default=None)


def _about(spec: GpuSpec, total_bytes: int) -> bool:
    """Whether a driver's total can be this row's memory: within an eighth (ECC takes a sixteenth), or a size it comes in."""
    return abs(spec.memory_bytes - total_bytes) * 8 <= spec.memory_bytes or total_bytes in spec.memory_options


def list_gpus(query: str = "") -> tuple[GpuSpec, ...]:
    """The rows whose name or alias has every word of the query (and its memory, `24GB`); all of them without one."""
    if not query.strip():
        return catalogue()
    wanted = cut(query[:MAX_TEXT])
    asked = read(query[:MAX_TEXT])[1]
    by_rule = {row.place for row in _candidates(asked)[1] if _has_memory(spec_at(row.place), asked.memory_gb)}

    def shown(index: int, spec: GpuSpec) -> bool:
        plain = " ".join((spec.name, spec.vendor, *spec.aliases)).lower()
        return index in by_rule or all(word in plain for word in wanted)

    return tuple(spec for index, spec in enumerate(catalogue()) if shown(index, spec))
