"""Write vram_plan_data/model_sizes.csv: each shipped model's parameters, so that what cannot fit need not be read.

    PYTHONPATH=sizing:data python data/tools/build_sizes.py
"""

from __future__ import annotations

from pathlib import Path

from vram_plan.models.catalog import list_models
from vram_plan.models.loading import load_row

TABLE = Path(__file__).parents[1] / "vram_plan_data" / "model_sizes.csv"


def main() -> None:
    lines = ["id,total,active,text,trained_context,kind,stored_format"]
    for row in sorted(list_models(), key=lambda row: row.id):
        model = load_row(row)
        p, a = model.parameters, model.architecture
        text = p.total - p.vision - p.audio - p.projector
        lines.append(f"{row.id},{p.total},{p.active},{text},{a.trained_context or ''},{a.kind},{model.stored_format}")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
