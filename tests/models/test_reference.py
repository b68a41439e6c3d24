"""What the text that names a model means."""

from __future__ import annotations

import pytest
from vram_plan.models.reference import parse_reference


@pytest.mark.parametrize(
    ("text", "name", "revision", "quant", "filename"),
    [
        ("org/name", "org/name", None, None, None),
        ("org/name@v1", "org/name", "v1", None, None),
        ("org/name:Q4_K_M", "org/name", None, "Q4_K_M", None),
        ("hf.co/org/name:Q4_K_M", "org/name", None, "Q4_K_M", None),
        ("huggingface.co/org/name", "org/name", None, None, None),
        ("https://huggingface.co/org/name/", "org/name", None, None, None),
        ("https://huggingface.co/org/name?library=x", "org/name", None, None, None),
        ("https://huggingface.co/org/name/tree/main", "org/name", "main", None, None),
        ("https://huggingface.co/org/name/blob/main/a/x-Q8_0.gguf", "org/name", "main", None, "a/x-Q8_0.gguf"),
        ("https://huggingface.co/org/name/resolve/main/x.gguf?download=true", "org/name", "main", None, "x.gguf"),
    ],
)
def test_a_hub_id_or_its_address(text: str, name: str, revision: str | None, quant: str | None, filename: str | None) -> None:
    found = parse_reference(text)
    assert (found.kind, found.name, found.revision, found.quant, found.filename) == ("hub", name, revision, quant, filename)
