"""Rows of text as CSV, Markdown or JSON, for pipes and pastes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

from vram_plan import UsageError

__all__ = ["as_csv", "as_json", "as_markdown", "one_of"]


def one_of(json: bool, csv: bool, markdown: bool) -> str:
    """Which output was asked for: json, csv, markdown, or "" for the screen. Raises UsageError for two."""
    asked = [name for name, wanted in (("json", json), ("csv", csv), ("markdown", markdown)) if wanted]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]} were both given", "choose one output")
    return asked[0] if asked else ""


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """RFC 4180 with \\n; None is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A pipe table; the first `left` columns are aligned left, the others right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in (header, rule, *rows))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def as_json(schema: str, answer: Any) -> str:
    """A result of the library with its schema's name first."""
    return json.dumps({"schema": schema, **_plain(answer)}, indent=2)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Fraction) else value
