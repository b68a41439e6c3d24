"""Write the index of families: the module whose import alone makes the reader of a `model_type` known.

    python data/tools/build_families.py

A `model_type` that is missing from the index is still found, by importing every module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [str(ROOT), str(ROOT.parent / "sizing")]
ASK = """
import json, sys
from importlib import import_module
from vram_plan.models.dialects import registry
import_module("vram_plan.models.dialects." + sys.argv[1])
print(json.dumps([sorted(registry._FAMILIES), sum(name.startswith("vram_plan.models.dialects.") for name in sys.modules)]))
"""


def families_of(module: str) -> tuple[list[str], int]:
    """The families an import of this module alone makes known, and how many modules it imports."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(SOURCES)}
    done = subprocess.run([sys.executable, "-c", ASK, module], capture_output=True, text=True, check=True, env=env)  # noqa: S603
    names, imported = json.loads(done.stdout)
    return names, imported


def main() -> None:
    best: dict[str, tuple[int, str]] = {}
    for path in sorted((ROOT.parent / "sizing/vram_plan/models/dialects").glob("*.py")):
        if path.stem != "__init__":
            names, imported = families_of(path.stem)
            for name in names:
                best[name] = min(best.get(name, (imported, path.stem)), (imported, path.stem))
    index = {name: module for name, (_, module) in sorted(best.items())}
    (ROOT / "vram_plan_data" / "families.json").write_text(json.dumps(index, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
