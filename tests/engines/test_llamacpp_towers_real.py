"""A real llama.cpp loads small towers written from vram-plan's own inventory; its log is compared with the plan.

Needs `xllamacpp` (in the extra `test`), a build later than the one whose source the rules were read from. On a
processor inputs lie in the graph's buffer too, as copies do on a GPU: the sizes are the same but for the rounding of each place.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engines.test_llamacpp_real import TINY, write_model
from model_files import gguf_header, text, write_sparse
from vram_plan.engines.llamacpp.towers import tower_terms
from vram_plan.engines.llamacpp.towers.file import stored_as
from vram_plan.models.assemble import assemble
from vram_plan.models.checkpoint import Checkpoint

pytest.importorskip("xllamacpp")

MIB = 2**20
#: Roles of the inventory and the names the files have for them.
_NAMES = {"mm.input_projection": "mm.input_projection.weight", "mm.soft_emb_norm": "mm.soft_emb_norm.weight", "mm.0": "mm.model.fc.weight"}
_LOAD = """
import os, sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.mmproj.path, p.mmproj_use_gpu = sys.argv[1], sys.argv[2], False
p.n_ctx, p.n_parallel, p.n_gpu_layers, p.verbosity = 512, 1, 0, 5
p.warmup, p.fit_params, p.no_extra_bufts = True, False, True
server = xllamacpp.Server(p)
os._exit(0)
"""


def config(kind: str, layers: int, width: int, image: int, patch: int, hidden: int) -> dict[str, Any]:
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": width // 64}
    words = {
        "model_type": "llama" if kind == "idefics3" else "gemma3_text",
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "vocab_size": 512,
    }
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 512, "head_dim": 64}
    return {
        "model_type": kind,
        "text_config": {**words, **sizes},
        "vision_config": {**vision, "image_size": image, "patch_size": patch, "vision_use_head": False},
        "mm_tokens_per_image": (image // patch // 4) ** 2,
        "scale_factor": 2,
    }


def write_tower(path: Path, raw: dict[str, Any]) -> Path:
    """The file as the converter writes it, weights all zero."""
    v, kind = raw["vision_config"], raw["model_type"]
    model = assemble(Checkpoint(name=kind, reference=kind, kind="local", source="a test", config=raw))
    layers = iter([t.layer for t in model.architecture.tensors if t.part in ("vision", "projector")])
    tensors = {}
    for role, shape, stored in stored_as(model, "F16"):
        layer = next(layers)
        name = role.replace("v.", "v." if layer is None else f"v.blk.{layer}.", 1)
        if role == "v.patch_embd":
            shape = (shape[0], 3, v["patch_size"], v["patch_size"])
        tensors[_NAMES.get(role, name if role.endswith(".bias") else f"{name}.weight")] = (shape, stored)
    numbers = {
        "image_size": v["image_size"], "patch_size": v["patch_size"], "embedding_length": v["hidden_size"],
        "feed_forward_length": v["intermediate_size"], "block_count": v["num_hidden_layers"],
        "attention.head_count": v["num_attention_heads"], "projection_dim": raw["text_config"]["hidden_size"],
        "projector.scale_factor": 4 if kind == "gemma3" else 2,
    }  # fmt: skip
    plain = {"general.architecture": "clip", "clip.projector_type": kind, **{f"clip.vision.{key}": value for key, value in numbers.items()}}
    header, data = gguf_header(plain, tensors)
    extra = text("clip.has_vision_encoder") + struct.pack("<I?", 7, True) + text("clip.use_gelu") + struct.pack("<I?", 7, True)
    extra += text("clip.vision.attention.layer_norm_epsilon") + struct.pack("<If", 6, 1e-6)
    for key in ("clip.vision.image_mean", "clip.vision.image_std"):
        extra += text(key) + struct.pack("<IIQ3f", 9, 6, 3, 0.5, 0.5, 0.5)
    body = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(plain) + 5) + extra + header[24:].rstrip(b"\\0")
    body += bytes(-len(body) % 32)
    return write_sparse(path, body, len(body) + data)


@pytest.mark.parametrize(
    ("kind", "layers", "width", "image", "patch"),
    [("gemma3", 3, 256, 448, 14), ("gemma3", 5, 384, 224, 14), ("idefics3", 4, 256, 384, 16), ("idefics3", 2, 512, 512, 16)],
)
def test_a_towers_buffer_is_what_a_real_engine_reserves(tmp_path: Path, kind: str, layers: int, width: int, image: int, patch: int) -> None:
    hidden = TINY["full"]["config"]["hidden_size"]
    raw = config(kind, layers, width, image, patch, hidden)
    file, compute = tower_terms(assemble(Checkpoint(name=kind, reference=kind, kind="local", source="a test", config=raw)))
    arguments = [str(write_model(tmp_path, "full")), str(write_tower(tmp_path / "mmproj.gguf", raw))]
    done = subprocess.run([sys.executable, "-c", _LOAD, *arguments], capture_output=True, text=True, timeout=60, check=False)
    log = done.stderr + done.stdout
    size = re.search(r"model size: +([\d.]+) MiB", log)
    buffer = re.findall(r"reserve_compute_meta: +CPU compute buffer size = +([\d.]+) MiB", log)
    assert size and buffer, log[-3000:]
    assert file.bytes / MIB == pytest.approx(float(size[1]), abs=0.006)
    assert compute.bytes / MIB == pytest.approx(float(buffer[-1]), abs=0.0051)
