"""Collect every text a user may read, so that another language can be added.

    python data/tools/build_messages.py [--check]

writes `data/vram_plan_data/messages.json`: the texts of each module, `{0}`, `{1}` … where values go. A language is a file beside it,
`messages.<language>.json`, that maps these texts to its own; what it leaves out stays English (see `vram_plan_cli/language.py`).
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sizing/vram_plan", "cli/vram_plan_cli")
#: Words with a space between them, or a word of its own that is no name of a file, key or option.
SPOKEN = re.compile(r"[A-Za-z]{2,}[,:;.]? (?:[A-Za-z{(×÷=]|\d)|[}\d%×] ?[a-z]{2,}|[a-z]{2,} ?\{")
#: Tables of columns, lines and groups whose names are shown.
HEADS = ("_HEADER", "_ROWS", "_VERDICT_WORDS", "GROUPS")
#: Texts for programs: patterns, commands, queries, markup.
NOT_SPOKEN = re.compile(
    r"\\[dsw.]|\(\?|</|^\s*[-$]|^https?:|^import |^from |[{;]\s*[a-z-]+:\s"  # patterns, markup, commands, style sheets
    r"|^#[0-9a-f]{3,8}$|^(?:bold|dim) [a-z]+$|^[a-z0-9]+(?:_[a-z0-9]+)+$"  # colours, styles, keys
    r"|^[<.#@{]?[\w.-]+[=/<]|^[a-z_.]+\{|^[A-Z_]+\b(?! [a-z])"  # settings, paths, metrics, constants
)


def template(node: ast.expr) -> str | None:
    """The text of a constant or an f-string, values as `{0}` …; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value.replace("{", "{{").replace("}", "}}") if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts, values = [], 0
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value).replace("{", "{{").replace("}", "}}"))
        else:
            parts.append(f"{{{values}}}")
            values += 1
    return "".join(parts)


def texts(tree: ast.AST) -> Iterator[str]:
    """Every constant and f-string of a module that is no docstring, annotation or default of a name."""
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    annotated = {
        id(part)
        for node in ast.walk(tree)
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None and not isinstance(note, ast.Subscript)
        for part in ast.walk(note)
    }
    labels = {id(node) for node in labels_of(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in skipped | inside | annotated:
            text = template(node)
            if text and (id(node) in labels or SPOKEN.search(text)) and not NOT_SPOKEN.search(text):
                yield text


def labels_of(tree: ast.AST) -> Iterator[ast.expr]:
    """Single words that are spoken: a term's name, a column's head, the label of a line."""
    for node in ast.walk(tree):
        called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and called in ("Term", "add_row", "_add_row", "add_column", "Section") and node.args:
            yield from (arg for arg in node.args[:1] if isinstance(arg, ast.Constant) and len(str(arg.value)) > 2)
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[1], ast.JoinedStr | ast.Call):
            yield from (part for part in node.elts[:1] if isinstance(part, ast.Constant) and str(part.value).isalpha())
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(getattr(target, "id", "") in HEADS for target in targets):
                yield from (word for word in words_of(node.value) if isinstance(word, ast.Constant) and str(word.value) > "@")


def words_of(table: ast.expr) -> list[ast.expr]:
    """The heads a table names: its own words, the values of a mapping, the first and last of each row."""
    if isinstance(table, ast.Dict):
        return table.values
    rows = getattr(table, "elts", [])
    return [word for row in rows for word in ((row.elts[0], row.elts[-1]) if isinstance(row, ast.Tuple) else (row,))]


def collected() -> dict[str, list[str]]:
    """Module → its texts, sorted."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            spoken = sorted(set(texts(ast.parse(path.read_text(encoding="utf-8")))))
            if spoken:
                found[str(path.relative_to(ROOT / package).with_suffix(""))] = spoken
    return found


def main() -> int:
    target = ROOT / "data/vram_plan_data/messages.json"
    text = json.dumps(collected(), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        target.write_text(text, encoding="utf-8")
    elif target.read_text(encoding="utf-8") != text:
        print(f"{target.relative_to(ROOT)} is not current: run make docs")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
