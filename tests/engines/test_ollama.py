"""What Ollama passes to llama.cpp: batch, context, tower, and the formats of its tags."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import pytest
import vram_plan as vp
from vram_plan.engines.llamacpp.placement import file_weights
from vram_plan.engines.ollama import default_context, tag_format
from vram_plan.formats import find_format, for_engine
from vram_plan.hardware import resolve
from vram_plan_data import ROOT

GIB = 2**30


def test_the_batch_grows_with_the_context_where_memory_is_left() -> None:
    model = vp.load("llama3.1-8b")
    rows = ((4096, "RTX 4090", 512), (8192, "RTX 4090", 1024), (131072, "RTX 4090", 512), (65536, "H100", 2048), (16384, "8GB", 512))
    for context, gpu, batch in rows:
        assert vp.plan(model, engine="ollama", quant="Q4_K_M", context=context, gpus=gpu).engine["n_ubatch"] == batch
    chosen = vp.plan(model, engine="ollama", quant="Q4_K_M", context=65536, gpus="RTX 4090", options={"ubatch": 256})
    assert chosen.engine["n_ubatch"] == 256


def test_the_memory_is_llama_cpps_at_that_batch() -> None:
    request = {"quant": "Q4_K_M", "context": 16384, "gpus": "RTX 4090"}
    ollama = vp.plan("llama3-8b", engine="ollama", **request)
    llamacpp = vp.plan("llama3-8b", engine="llama.cpp", options={"ubatch": 1024}, **request)
    assert ollama.memory == llamacpp.memory
    assert ollama.engine["ollama_ps_gb"] == round((ollama.memory.total - ollama.memory.runtime) / 1e9, 1)


def test_ps_shows_one_cache_of_two_and_no_towers_weights() -> None:
    """Of Gemma 3's two caches the log's second line, the windows', replaces the first; a tower's weights have no such line."""
    plan = vp.plan("gemma3-12b", engine="ollama", quant="Q4_K_M", context=32768, gpus="RTX 4090")
    sizes = {term.name: term.bytes for term in plan.devices[0].terms}
    windows = 40 * 2 * 8 * 256 * 2 * (1024 + plan.engine["n_ubatch"])
    assert plan.engine["ollama_ps_gb"] == round((sizes["weights"] + sizes["compute"] + sizes["mmproj_compute"] + windows) / 1e9, 1)
    assert windows < sizes["kv_cache"] / 2


def used(plan: vp.Plan) -> list[bool]:
    return [device.used > 0 for device in plan.devices]


def test_one_gpu_is_used_where_it_holds_all_with_a_fifth_to_spare() -> None:
    request = {"engine": "ollama", "quant": "Q4_K_M", "context": 8192}
    plan = vp.plan("llama3-8b", gpus="RTX 3060 12GB + RTX 4090", **request)
    assert used(plan) == [False, True] and plan.engine["gpus_used"] == 1
    assert plan.memory == vp.plan("llama3-8b", gpus="RTX 4090", **request).memory
    assert any("1 of the 2 GPUs" in note.text for note in plan.notes)
    assert used(vp.plan("llama3-8b", gpus="RTX 3060 12GB + RTX 4090", options={"spread": True}, **request)) == [True, True]
    assert used(vp.plan("llama3-70b", gpus="2x RTX 4090", **request)) == [True, True]
    assert used(vp.plan("llama3-70b", gpus="RTX 3090 + RX 7900 XTX + RX 7900 XTX", **request)) == [False, True, True]


def test_some_architectures_run_one_request_at_a_time() -> None:
    request = {"engine": "ollama", "quant": "Q4_K_M", "context": 8192, "gpus": "H100"}
    assert vp.plan("qwen3.5-9b", sequences=2, **request).fit.verdict == "does_not_fit"
    assert vp.plan("qwen3.5-9b", **request).fit.max_sequences == 1
    assert vp.plan("bge-large-en", engine="ollama", quant="F16", context=512, gpus="H100").fit.max_sequences == 1


def test_a_model_that_embeds_takes_its_context_at_once() -> None:
    assert vp.plan("bge-large-en", engine="ollama", quant="F16", context=300, gpus="H100").engine["n_ubatch"] == 300


def test_one_cache_type_for_k_and_v() -> None:
    plan = vp.plan("llama3-8b", engine="ollama", quant="Q4_K_M", context=8192, gpus="H100", kv_type_k="q8_0", kv_type_v="f16")
    assert plan.fit.verdict == "does_not_fit"


def test_a_gpu_before_pascal_has_no_flash_attention() -> None:
    maxwell = replace(resolve("8GB").devices[0], vendor="NVIDIA", compute_capability="5.2")
    for device, batch, flash in ((maxwell, 256, False), (replace(maxwell, compute_capability="6.1"), 512, True)):
        engine = vp.plan("llama3.1-8b", engine="ollama", quant="Q4_K_M", context=16384, gpus=(device,)).engine
        assert (engine["n_ubatch"], engine["flash_attn"]) == (batch, flash)


def test_a_gibibyte_is_kept_free_unless_the_layers_are_set() -> None:
    """llama-server chooses the layers so that 1 GiB stays free: what just fits is left to the CPU in part."""
    request = {"engine": "ollama", "quant": "Q4_K_M", "gpus": "RTX 4060"}
    longest = vp.max_context("llama3.1-8b", **request)
    assert longest
    full = vp.plan("llama3.1-8b", context=longest, **request)
    assert full.fit.verdict != "does_not_fit" and full.engine["auto_offload"]
    assert any("num_gpu" in note.text for note in full.notes) and "num_gpu 33" in full.launch[0].note
    assert "auto_offload" not in vp.plan("llama3.1-8b", context=4096, **request).engine
    told = vp.plan("llama3.1-8b", context=longest, options={"n_gpu_layers": 33}, **request)
    assert "auto_offload" not in told.engine


#: Macs: what Metal may take counts, 2/3 of 32 GB and 3/4 of 64 GB.
_TIERS = [
    ("M3 Max 64GB", 262144), ("M2 Pro 32GB", 4096), ("RTX 4060", 4096), ("RTX 4090", 32768), ("RTX 3090", 32768), ("2x RTX 4090", 262144),
    ("H100", 262144),
]  # fmt: skip


@pytest.mark.parametrize(("gpu", "tokens"), _TIERS)
def test_the_default_context_goes_by_memory(gpu: str, tokens: int) -> None:
    assert default_context(resolve(gpu).devices) == tokens


def test_that_it_cuts_prompts_is_said() -> None:
    notes = " ".join(note.text for note in vp.plan("llama3-8b", engine="ollama", quant="Q4_K_M", context=8192, gpus="RTX 4060").notes)
    assert "4,096" in notes and "num_ctx 8192" in notes and "cuts" in notes


def test_a_tags_tower_is_loaded_and_counted() -> None:
    with_tower = vp.plan("gemma3-27b", engine="ollama", quant="Q4_K_M", context=4096)
    without = vp.plan("gemma3-27b", engine="ollama", quant="Q4_K_M", context=4096, options={"mmproj": False})
    terms = {term.name: term.bytes for term in with_tower.devices[0].terms}
    assert terms["mmproj"] > 0.7 * GIB
    assert with_tower.memory.weights - without.memory.weights == terms["mmproj"]


@pytest.mark.parametrize(
    ("tag", "format"),
    [
        ("llama3:8b", "Q4_0"), ("llama3", "Q4_0"), ("llama3.1:8b", "Q4_K_M"), ("gemma3:27b", "Q4_K_M"), ("gpt-oss:20b", "MXFP4"),
        ("llama3:8b-instruct-q8_0", "Q8_0"), ("llama3:8b-instruct-fp16", "F16"), ("qwen3:30b-a3b-q4_K_M", "Q4_K_M"),
        ("llama3.2:1b", "Q8_0"), ("llama3.2:3b", "Q4_K_M"), ("llama3.2:1b-instruct-q4_K_M", "Q4_K_M"), ("gemma3:270m", "Q8_0"),
        ("user/llama3:8b", "Q4_0"), ("mistral:7b-instruct-v0.3-q2_K", "Q2_K"),
    ],
)  # fmt: skip
def test_a_tags_format(tag: str, format: str) -> None:
    assert tag_format(tag) == format


_LIBRARY, _TAGS = (
    list(csv.DictReader((ROOT / name).read_text(encoding="utf-8").splitlines())) for name in ("ollama_library.csv", "ollama_tags.csv")
)
#: "4.7 GB (id)" in a source: what was seen of the tag's size.
_SIZE = re.compile(r"([\d.]+) (GB|MB)\b")
VERIFIED = [row for row in _LIBRARY if row["status"] == "verified" and _SIZE.search(row["source"])]


def test_rows_of_tags_say_how_they_are_known() -> None:
    for row in (*_LIBRARY, *_TAGS):
        assert row["status"] in ("verified", "recalled") and row["source"] and find_format(row["format"])
        assert ("recalled" in row["source"]) or row["status"] == "verified", row
    assert len(VERIFIED) > 25
    assert all(row["format"] == tag_format(row["tag"]) for row in _LIBRARY)


@pytest.mark.parametrize("row", VERIFIED, ids=[row["tag"] for row in VERIFIED])
def test_the_size_seen_is_that_of_the_format(row: dict[str, str]) -> None:
    """Of the usual formats the row's gives the size nearest to what `ollama list` or the README shows."""
    number, unit = _SIZE.search(row["source"]).groups()  # type: ignore[union-attr]
    seen = float(number) * (1e9 if unit == "GB" else 1e6)
    model = vp.load(row["model"])
    tower = 2 * (model.parameters.vision + model.parameters.projector) if "with its tower" in row["source"] else 0
    sizes = {kind: file_weights(model, for_engine(find_format(kind), "ollama")).file + tower for kind in {row["format"], *KINDS}}
    assert min(sizes, key=lambda kind: abs(sizes[kind] - seen)) == row["format"]
    assert seen * 0.95 < sizes[row["format"]] < seen * 1.06 + 5e8 * (seen >= 1e10)  # whole GB are cut, not rounded


KINDS = ("Q4_0", "Q4_K_M", "Q8_0", "F16")
