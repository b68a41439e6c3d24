"""Vision and audio towers against llama.cpp 0c1e57098: files its converter wrote, buffers its server reserves.

Each case has a config, the bytes of its file's tensors in each format, and what clip.cpp logs when it loads the file on a device
that takes what CUDA takes and allocates nothing: the buffer of each tower, to a hundredth of a MiB, and the tokens it puts out.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.engines.llamacpp.towers import reads_towers, tower_inputs, tower_terms
from vram_plan.engines.llamacpp.towers.audio import AUDIO
from vram_plan.engines.llamacpp.towers.graph import Graph
from vram_plan.engines.llamacpp.towers.images import IMAGES
from vram_plan.errors import UsageError, VramPlanError
from vram_plan.formats.gguf_inventory import as_gguf
from vram_plan.formats.storage import storage_bytes
from vram_plan.models.assemble import assemble
from vram_plan.models.checkpoint import Checkpoint

MIB = 2**20
CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "llamacpp_towers.jsonl").read_text().splitlines()]
#: Families held to nothing: there was no file to load.
UNSEEN = {"qwen4_exp", "minicpmo", "granite_speech_plus", "qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "internvl_chat"}


def from_config(config: dict[str, Any], name: str) -> vp.Model:
    return assemble(Checkpoint(name=name, reference=name, kind="local", source="a test", config=config))


@lru_cache(maxsize=64)
def named(name: str) -> vp.Model:
    return from_config(next(case["config"] for case in CASES if case["name"] == name), name)


def tower(name: str, **options: object) -> dict[str, vp.Term]:
    found = vp.plan(name, engine="llama.cpp", quant="Q4_K_M", context=4096, options={"mmproj": True, **options})
    return {term.name: term for term in found.devices[0].terms}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_towers_buffer_is_what_the_engine_reserves(case: dict[str, Any]) -> None:
    _, compute = tower_terms(named(case["name"]))
    assert compute.basis == ("measured" if case["config"]["model_type"] == "gemma3n" else "formula")
    assert compute.bytes / MIB == pytest.approx(sum(case["compute_mib"]), abs=0.0051 * len(case["compute_mib"]))
    tokens = [
        int(number.replace(",", "")) for number in re.findall(r"(?:pixels|tower|pixels through the tower|sound), ([\d,]+\d)", compute.why)
    ]
    assert tokens == case["tokens"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_towers_file_is_what_the_converter_writes(case: dict[str, Any]) -> None:
    found = {kind: tower_terms(named(case["name"]), kind)[0].bytes for kind in case["file"]}
    assert found == case["file"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_hosts_buffer_holds_what_the_towers_are_given(case: dict[str, Any]) -> None:
    """Where attention has no kernel the engine keeps a buffer it tried and does not use: to 1 %."""
    close = {"abs": 0.0126 * len(case["host_mib"])} if all(case["flash"]) else {"rel": 0.01}
    assert tower_inputs(named(case["name"])) / MIB == pytest.approx(sum(case["host_mib"]), **close)


def test_every_graph_was_held_to_the_engine() -> None:
    seen = {named(case["name"]).architecture.family for case in CASES}
    assert {*IMAGES, *AUDIO} - seen <= UNSEEN
    assert len(CASES) > 50


def test_internvl_as_published_has_the_same_tower() -> None:
    """`internvl_chat` has query, key and value in one matrix, which its converter cuts into three."""
    config = next(case["config"] for case in CASES if case["name"] == "internvl3-8b")
    vision = {
        **config["vision_config"],
        "model_type": "intern_vit_6b",
        "qkv_bias": True,
        "qk_normalization": False,
        "norm_type": "layer_norm",
    }
    published = {"model_type": "internvl_chat", "llm_config": config["text_config"], "vision_config": vision, "downsample_ratio": 0.5}
    published["vision_config"].update(image_size=448, patch_size=14)
    assert [t.bytes for t in tower_terms(from_config(published, "chat"))] == [t.bytes for t in tower_terms(named("internvl3-8b"))]


def test_deepseek_ocr_calls_itself_deepseek_vl2() -> None:
    """Its encoders are Unlimited-OCR's; a patch embedding nothing reads is all it has besides."""
    sam = {"downsample_channels": [512, 1024], "global_attn_indexes": [2, 5, 8, 11], "heads": 12, "layers": 12, "width": 768}
    clip = {"heads": 16, "image_size": 224, "layers": 24, "patch_size": 14, "width": 1024}
    words = {"hidden_size": 1280, "num_hidden_layers": 2, "num_attention_heads": 10, "num_key_value_heads": 10, "use_mla": False}
    widths = {"clip-l-14-224": clip, "sam_vit_b": sam}
    found = from_config({"model_type": "deepseek_vl_v2", "language_config": words, "vision_config": {"width": widths}}, "ocr")
    (file, compute), (same, alike) = tower_terms(found), tower_terms(named("unlimited_ocr"))
    assert compute.bytes == alike.bytes and file.bytes - same.bytes == 4 * 1024 * 588


def test_two_towers_the_engine_does_not_load_together_are_told() -> None:
    found = vp.plan("Qwen/Qwen3-Omni-30B-A3B-Instruct", engine="llama.cpp", quant="Q4_K_M", context=4096, options={"mmproj": True})
    assert any("refuses a file with both" in note.text for note in found.notes)


def test_a_projectors_log() -> None:
    """Qwen3.6-27B's projector at 1472 × 1472: 248.1 MiB, and 887.99 MiB of weights in BF16 (llama.cpp's log)."""
    terms = tower("qwen3.6-27b", mmproj_type="bf16")
    assert terms["mmproj_compute"].bytes / MIB == pytest.approx(248.1, abs=0.01)
    assert terms["mmproj"].bytes / MIB == pytest.approx(887.99, abs=0.01)
    assert "1472 × 1472" in terms["mmproj_compute"].why


def test_the_file_may_be_in_another_format() -> None:
    sizes = {kind: tower("qwen3.6-27b", mmproj_type=kind)["mmproj"].bytes for kind in ("q8_0", "bf16", "f32")}
    assert sizes["q8_0"] < 0.7 * sizes["bf16"] < 0.4 * sizes["f32"]
    with pytest.raises(UsageError, match="mmproj_type"):
        tower("qwen3.6-27b", mmproj_type="q4_k_m")


def test_a_graph_nobody_laid_out_is_said_to_be_a_guess() -> None:
    raw = {"model_type": "granite4_vision", "text_config": {"model_type": "granite", "hidden_size": 2048, "num_hidden_layers": 2}}
    _, compute = tower_terms(from_config(raw, "granite"))
    assert compute.basis == "fallback"


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.2-11B-Vision-Instruct", "microsoft/Phi-3.5-vision-instruct"])
def test_images_nobody_reads_are_not_counted(name: str) -> None:
    found = vp.plan(name, engine="llama.cpp", quant="Q4_K_M", context=4096, options={"mmproj": True})
    assert not any(term.name.startswith("mmproj") for term in found.devices[0].terms)
    assert any("reads neither images nor sound" in note.text for note in found.notes)


def test_a_model_without_a_tower_has_no_file_for_it() -> None:
    assert "mmproj" not in tower("llama3-8b")


def test_the_text_models_file_has_no_other_senses() -> None:
    """Janus-Pro: its image tokenizer counts as text to transformers; the converter's file has 614,547,456 bytes without it."""
    tensors = as_gguf(named("janus-pro-7b").architecture)
    assert sum(storage_bytes(t.stored_as, t.shape) for t in tensors) == 614_547_456


def test_attention_without_a_kernel_keeps_every_score() -> None:
    """Llama 4's heads are 88 wide: scores of 577 × 577 patches and 16 heads in 32 bits are kept at once."""
    assert not Graph(88).flash and Graph(72).flash
    assert tower_terms(named("llama4-scout"))[1].bytes > 4 * 16 * 577**2


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([case["name"] for case in CASES]), st.sampled_from(["vision_config", "audio_config"]), st.data())
def test_a_spoilt_config_is_an_error_or_a_plan(name: str, part: str, data: st.DataObject) -> None:
    config = json.loads(json.dumps(next(case["config"] for case in CASES if case["name"] == name)))
    inner = config.get("thinker_config", config).get(part) or {"x": 1}
    values = st.one_of(st.integers(-1, 600), st.none(), st.text(max_size=3), st.lists(st.integers(-1, 99), max_size=3), st.booleans())
    for key in data.draw(st.lists(st.sampled_from(sorted(inner)), max_size=2)):
        inner[key] = data.draw(values)
    try:
        model = from_config(config, "spoilt")
        terms = tower_terms(model)
    except VramPlanError:
        return
    assert all(term.bytes >= 0 for term in terms)
    assert reads_towers(model)
