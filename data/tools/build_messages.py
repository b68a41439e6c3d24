"""Collect every text a user may read, so that another language can be added.

    python data/tools/build_messages.py [--check]

writes `data/vram_plan_data/messages.json`: the texts of each module, `{0}`, `{1}` … where values go. A language is a file beside it,
`messages.<language>.json`, that maps these texts to its own; what it leaves out stays English (see `vram_plan_cli/language.py`).
"""

from __future__ import annotations

import ast
import csv
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sizing/vram_plan", "cli/vram_plan_cli")
#: Words with a space between them, or a word of its own that is no name of a file, key or option.
SPOKEN = re.compile(r"[A-Za-z]{2,}[,:;.']? (?:[A-Za-z{(×÷=]|\d)|[}\d%×] ?(?:a )?[a-z]{2,}|}-[a-z]{2,}|[a-z]{2,} ?\{")
#: An option with words about it.
OPTION = re.compile(r"--[a-z-]+ (?:.* )?[a-z]+ [a-z]+")
#: Columns of the shipped tables that are shown as they are.
DATA = (("llamacpp_runtime.csv", "source"), ("formats.csv", "note"), ("gguf_mixes.csv", "note"), ("gpus.csv", "usual_because"))
#: Kinds (`Literal`) whose words are shown.
KINDS = ("Basis", "Bound", "CacheKind", "Mode", "What", "Quantity")
#: Single words that are said within a module's sentences.
WORDS = {"engines/transformers/forward": ["experts", "feed-forward", "norm", "state"], "engines/ollama": ["refuses"]}
#: Tables of columns, lines and groups whose names are shown.
HEADS = ("_HEADER", "_ROWS", "_WORDS", "_COLUMNS", "GROUPS")
#: What the parser of the command line says.
PARSER = [
    "  [default: {0}]", "  [env var: {0}]", "  [required]", "Arguments", "Commands", "Got unexpected extra argument(s) ({0})",
    "Install completion for the current shell.", "Invalid value for {0}: {1}", "Missing argument {0}", "No such option: {0}",
    "No such option: {0} Did you mean {1}?", "Option {0} does not take a value", "Option {0} requires an argument", "Options",
    "Show completion for the current shell, to copy it or customize the installation.", "Show this message and exit.", "Usage: ",
]  # fmt: skip
#: Texts for programs: patterns, commands, queries, markup.
NOT_SPOKEN = re.compile(
    r"\\[dswS.]|\.\*$|\(\?|</|^\s*[-$]|^https?:|^(?:from [\w.]+ )?import "  # patterns, markup, commands
    r"|\{\{[a-z-]+:\S|;[a-z-]+:\S"  # style sheets
    r"|^#[0-9a-f]{3,8}$|-of-\{|var\(--|^(?:bold|dim) [a-z]+$|^[a-z0-9]+(?:_[a-z0-9]+)+$"  # colours, styles, keys
    r"|^[<.#@{]?[\w.-]+[=/<](?!s )|^[a-z_.]+\{|^[A-Z_]+\b(?! [a-z])"  # settings, paths, metrics, constants
)


def template(node: ast.expr) -> str | None:
    """The text of a constant, an f-string or a sum of texts, values as `{0}` …; None for anything else."""
    parts, count = [], 0
    for part in parts_of(node):
        if isinstance(part, str):
            parts.append(part.replace("{", "{{").replace("}", "}}"))
        else:
            parts.append(f"{{{count}}}")
            count += 1
    return "".join(parts) if count < len(parts) else None


def parts_of(node: ast.expr) -> Iterator[str | ast.expr]:
    """The literal pieces of a text, and what stands between them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for part in node.values:
            yield from parts_of(part) if isinstance(part, ast.Constant) else [part]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from (*parts_of(node.left), *parts_of(node.right))
    else:
        yield node


def texts(tree: ast.AST) -> Iterator[str]:
    """Every constant, f-string and sum of texts of a module that is no docstring, annotation or default of a name."""
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skipped |= {id(part) for node in ast.walk(tree) for part in inner_texts(node)}
    skipped |= {
        id(part)
        for node in ast.walk(tree)
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None and not isinstance(note, ast.Subscript)
        for part in ast.walk(note)
    }
    labels = {id(node) for node in labels_of(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and id(node) not in skipped:
            text = template(node)
            if text and id(node) in labels:
                if re.search("[a-z]", text):
                    yield text.replace("_", " ").replace("kv cache", "KV cache")
            elif text and text.startswith("--") and re.search(": .*[a-z]{2}", text):
                yield renumbered(text.partition(": ")[2])  # an option, which stays, and what it makes of the plan
            elif text and (OPTION.match(text) or (SPOKEN.search(text) and not NOT_SPOKEN.search(text))):
                yield text


def helps(tree: ast.Module) -> Iterator[str]:
    """What the help of a command says: the docstring of its function."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and (text := ast.get_docstring(node)):
            yield text


def renumbered(text: str) -> str:
    count = itertools.count()
    return re.sub(r"\{\d+\}", lambda _: f"{{{next(count)}}}", text)


def inner_texts(node: ast.AST) -> list[ast.expr]:
    """What is part of a longer text."""
    if isinstance(node, ast.JoinedStr):
        return node.values
    return [node.left, node.right] if isinstance(node, ast.BinOp) else []


def labels_of(tree: ast.AST) -> Iterator[ast.expr]:
    """Single words that are spoken: a term's name, a column's head, the label of a line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Constant) and node.format_spec:
            yield node.value
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in KINDS and isinstance(node.value, ast.Subscript):
            yield from getattr(node.value.slice, "elts", [])
        if isinstance(node, ast.Attribute) and node.attr == "join" and isinstance(node.value, ast.Constant):
            yield node.value
        called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and called in ("Term", "add_row", "_add_row", "add_column", "Section", "say") and node.args:
            yield from (arg for arg in node.args[:1] if isinstance(arg, ast.Constant) and len(str(arg.value)) > 2)
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[1], ast.JoinedStr | ast.Call | ast.Attribute):
            yield from (part for part in node.elts[:1] if isinstance(part, ast.Constant) and str(part.value).isalpha())
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(getattr(target, "id", "").endswith(HEADS) for target in targets):
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
            module = str(path.relative_to(ROOT / package).with_suffix(""))
            tree = ast.parse(path.read_text(encoding="utf-8"))
            spoken = {*texts(tree), *WORDS.get(module, ()), *(helps(tree) if module.startswith(("app", "commands/")) else ())}
            if spoken:
                found[module] = sorted(spoken)
    return found | {name: shown_of(name, column) for name, column in DATA} | {"typer": PARSER}


def shown_of(name: str, column: str) -> list[str]:
    """The texts of one column of a shipped table."""
    with (ROOT / "data/vram_plan_data" / name).open(encoding="utf-8", newline="") as file:
        return sorted({row[column].replace("{", "{{").replace("}", "}}") for row in csv.DictReader(file) if row[column]})


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
