"""A real llama.cpp loads small models written from vram-plan's own inventory; its log is compared with the plan.

Needs `xllamacpp` (in the extra `test`), a build of llama.cpp later than the one whose source the rules were
read from. Weights, KV and state agree to the log's last digit, the compute buffer to 72 bytes for each token of a micro-batch.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from model_files import gguf_header, text, write_sparse
from vram_plan.engines.weights import weights_of
from vram_plan.formats import find_format, for_engine

pytest.importorskip("xllamacpp")

MIB = 2**20
TINY = json.loads((Path(__file__).parents[1] / "data" / "tiny_ggufs.json").read_text())
#: Tensors whose names in a file do not end in `.weight`, and the shapes llama.cpp wants of Mamba 2's vectors.
_BARE = ("ssm_a", "ssm_d")
_LOAD = """
import os, sys, xllamacpp
path, context, ubatch, parallel, kv = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_ubatch, p.n_batch, p.n_parallel = path, context, ubatch, 2048, parallel
p.warmup, p.fit_params, p.no_extra_bufts, p.n_gpu_layers, p.verbosity, p.kv_unified = False, False, True, 0, 5, False
p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
p.cache_type_k = p.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + kv.upper())
server = xllamacpp.Server(p)
os._exit(0)
"""


def write_model(folder: Path, kind: str) -> Path:
    """A GGUF of a tiny model: metadata from the data file, tensors from vram-plan's inventory, weights all zero."""
    config = folder / "config.json"
    config.write_text(json.dumps(TINY[kind]["config"]))
    model = vp.load(str(config))
    metadata = {**TINY[kind]["metadata"], "general.file_type": 1, "tokenizer.ggml.model": "test"}
    metadata["tokenizer.ggml.tokens"] = [f"tok_{i}" for i in range(512)]
    arch = metadata["general.architecture"]
    tensors = {}
    for tensor in weights_of(model, for_engine(find_format("F16"), "llama.cpp")).tensors:
        role, shape = tensor.role, tensor.shape
        name = role.removesuffix(".bias")
        if arch == "granitehybrid" and name in (*_BARE, "ssm_norm"):
            shape = (*shape, 1) if name in _BARE else (1, *shape)
        if arch == "qwen3next":
            name = name.replace("attn_post_norm", "post_attention_norm")
        ending = ".bias" if role.endswith(".bias") else "" if name in _BARE else ".weight"
        tensors[("" if tensor.layer is None else f"blk.{tensor.layer}.") + name + ending] = (shape, tensor.stored_as)
    header, data = _header(metadata, tensors)
    return write_sparse(folder / "model.gguf", header, len(header) + data)


def _header(metadata: dict[str, Any], tensors: dict[str, Any]) -> tuple[bytes, int]:
    """As `gguf_header`, with real numbers in 32 bits and the tokens' scores, which llama.cpp insists on."""
    floats = {key: value for key, value in metadata.items() if isinstance(value, float)}
    plain = {key: value for key, value in metadata.items() if key not in floats}
    header, data = gguf_header(plain, tensors)
    extra = b"".join(text(key) + struct.pack("<If", 6, value) for key, value in floats.items())
    extra += text("tokenizer.ggml.scores") + struct.pack("<IIQ512f", 9, 6, 512, *[0.0] * 512)
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata) + 1)
    body = start + extra + header[24:].rstrip(b"\0")
    return body + bytes(-len(body) % 32), data


def loaded(path: Path, context: int, ubatch: int, parallel: int, kv: str) -> dict[str, float]:
    """Sizes in MiB as the log prints them, summed by kind of buffer."""
    arguments = [str(path), str(context), str(ubatch), str(parallel), kv]
    done = subprocess.run([sys.executable, "-c", _LOAD, *arguments], capture_output=True, text=True, timeout=30, check=False)
    found: dict[str, float] = {}
    for what, size in re.findall(r"CPU(?:_Mapped)? +(model|KV|RS|compute) buffer size = +([\d.]+) MiB", done.stderr + done.stdout):
        found[what] = found.get(what, 0.0) + float(size)
    assert done.returncode == 0 and "compute" in found, done.stderr[-800:]
    return found


@pytest.mark.parametrize("kind", sorted(TINY))
@pytest.mark.parametrize(
    ("context", "ubatch", "parallel", "kv"), [(1024, 128, 1, "f16"), (4096, 512, 1, "q8_0"), (2048, 256, 2, "f16"), (8192, 64, 1, "f16")]
)
def test_buffers_are_what_the_engine_allocates(tmp_path: Path, kind: str, context: int, ubatch: int, parallel: int, kv: str) -> None:
    found = loaded(write_model(tmp_path, kind), context, ubatch, parallel, kv)
    options = {"ubatch": ubatch, "backend": "cpu", "build": "2026-11"}
    plan = vp.plan(
        str(tmp_path / "config.json"), engine="llama.cpp", quant="F16", context=context // parallel, sequences=parallel, kv_type=kv,
        options=options,
    )  # fmt: skip
    host = {term.name: term.bytes / MIB for term in plan.host.terms}
    assert host["weights"] == pytest.approx(found["model"], abs=0.02)
    assert host.get("kv_cache", 0.0) == pytest.approx(found.get("KV", 0.0) + found.get("RS", 0.0), abs=0.02)
    assert host["compute"] == pytest.approx(found["compute"], abs=72 * ubatch / MIB + 0.006)
