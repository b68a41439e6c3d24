"""The index of families is complete, and only an index."""

from __future__ import annotations

import json
import subprocess
import sys

from vram_plan.models.dialects import registry
from vram_plan_data import ROOT


def test_the_index_has_every_family() -> None:
    index = json.loads((ROOT / "families.json").read_text())
    assert set(index) == set(registry.all_families()), "run: python data/tools/build_families.py"


def test_a_family_of_the_index_needs_no_other_import() -> None:
    code = (
        "import sys; from vram_plan.models.dialects import registry as r; r.all_families = dict\n"
        "print(all(r.reader_of(n) for n in ('llama', 'qwen3', 'mixtral')), 'vram_plan.models.dialects.vision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_family_missing_from_the_index_is_found_all_the_same(monkeypatch) -> None:
    monkeypatch.setattr(registry, "_index", dict)
    assert registry.reader_of("llama") is registry.all_families()["llama"]
    assert registry.reader_of("no-such-type") is None


def test_every_family_reads_alone_what_it_reads_among_all() -> None:
    """Each catalogue row's family in a process that has imported nothing else."""
    code = (
        "import sys\n"
        "from vram_plan.models import catalog\n"
        "from vram_plan.models.dialects import read_architecture\n"
        "row = catalog._rows()[sys.argv[1]]\n"
        "print(sum(t.parameters for t in read_architecture(catalog.row_config(row)[0]).tensors))"
    )
    from vram_plan.models import catalog
    from vram_plan.models.dialects import read_architecture

    kinds = {}
    for row in catalog.list_models():
        kinds.setdefault(catalog.row_config(row)[0].get("model_type"), row)
    rows = [row for kind, row in kinds.items() if registry._index().get(kind, "").startswith(("multimodal", "nested"))]
    running = [(row, subprocess.Popen([sys.executable, "-c", code, row.id], stdout=subprocess.PIPE, text=True)) for row in rows]
    for row, process in running:
        alone = process.communicate()[0].strip()
        assert alone == str(sum(t.parameters for t in read_architecture(catalog.row_config(row)[0]).tensors)), row.id
