"""The recorded flags of llama.cpp are those of a real one: `xllamacpp` holds the text of each (in the extra `test`)."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

FOUND = find_spec("xllamacpp")
pytestmark = pytest.mark.skipif(FOUND is None, reason="xllamacpp is not installed (extra `test`)")


def test_the_recorded_flags_are_llamacpps() -> None:
    assert FOUND is not None and FOUND.origin is not None
    compiled = b"".join(path.read_bytes() for path in Path(FOUND.origin).parent.glob("*.so"))
    recorded = json.loads((Path(__file__).parent / "data" / "flags.json").read_text())["llama.cpp"]["flags"].split()
    assert compiled and len(recorded) > 400
    assert [flag for flag in recorded if flag.encode() + b"\0" not in compiled] == []
