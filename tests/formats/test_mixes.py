"""GGUF mixes against llama.cpp's quantiser: exact sizes of whole files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vram_plan.errors import FormatError
from vram_plan.formats import inventory_bytes
from vram_plan.formats.gguf_inventory import as_gguf, gguf_facts
from vram_plan.formats.mixes import GgufFacts, mix_bits, mix_names, mix_types
from vram_plan.models.architecture import Tensor

from formats.catalogue_models import architecture

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "gguf_sizes.jsonl").read_text(encoding="utf-8").splitlines()]
SIXTEEN_BITS = json.loads((Path(__file__).parents[1] / "data" / "gguf_16bit_sizes.json").read_text(encoding="utf-8"))["rows"]
MIB = 1 << 20


def size(model: str, mix: str) -> int:
    tensors = as_gguf(architecture(model))
    return inventory_bytes(mix_types(tensors, mix, gguf_facts(architecture(model), tensors)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["model"])
def test_every_known_file_size_comes_out(row: dict[str, Any]) -> None:
    for mix, mib in row.get("sizes_mib", {}).items():
        assert size(row["model"], mix) / MIB == pytest.approx(mib, abs=0.01), mix
    for mix, exact in row.get("sizes_bytes", {}).items():
        assert size(row["model"], mix) == exact, mix


@pytest.mark.parametrize("row", SIXTEEN_BITS, ids=lambda row: row["model"])
def test_the_converter_writes_the_same_bytes(row: dict[str, Any]) -> None:
    """Exact, but for Llama 3.1's rope table of one fp32 number for every other column of a head."""
    found = inventory_bytes(t for t in as_gguf(architecture(row["model"])) if t.part == "text")
    assert found in (row["text_bytes"], row["text_bytes"] - 128, row["text_bytes"] - 256)


def test_the_listed_bits_are_those_of_a_whole_llama_3_8b_file() -> None:
    model = architecture("meta-llama/Meta-Llama-3-8B")
    parameters = sum(t.parameters for t in model.tensors)
    for mix, (_, bits, _) in mix_bits().items():
        assert size("meta-llama/Meta-Llama-3-8B", mix) * 8 / parameters == pytest.approx(bits, abs=5e-4), mix


def test_more_bits_never_make_a_smaller_file() -> None:
    ladders = (
        ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_XS", "IQ4_NL"),
        ("Q2_K_S", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0", "F16", "F32"),
        ("Q4_0", "Q4_1", "Q5_0", "Q5_1"),
    )
    for model in ("Qwen/Qwen3-30B-A3B", "meta-llama/Llama-3.2-3B-Instruct", "google/gemma-2-9b"):
        for ladder in ladders:
            sizes = [size(model, mix) for mix in ladder]
            assert sizes == sorted(sizes), (model, ladder)


def test_an_importance_matrix_changes_the_rules_it_should() -> None:
    layers = [Tensor("ffn_down", layer, (512, 512), stored_as="F16") for layer in range(16)]
    with_it, without = GgufFacts(16, 1, imatrix=True), GgufFacts(16, 1)
    assert [t.stored_as for t in mix_types(layers, "Q4_0", with_it)] == ["Q4_1"] * 2 + ["Q4_0"] * 14
    assert {t.stored_as for t in mix_types(layers, "Q4_0", without)} == {"Q4_0"}
    assert {t.stored_as for t in mix_types(layers, "IQ4_XS", with_it)} == {"IQ4_XS"}
    assert [t.stored_as for t in mix_types(layers, "IQ4_XS", without)][:3] == ["Q5_K", "Q5_K", "IQ4_XS"]


def test_a_row_no_block_divides_falls_back() -> None:
    kinds = {c: mix_types([Tensor("attn_q", 0, (64, c), stored_as="F16")], "Q4_K_M", GgufFacts(1, 1))[0].stored_as for c in (256, 288, 100)}
    assert kinds == {256: "Q4_K", 288: "Q5_0", 100: "F16"}


def test_the_order_of_the_tensors_is_kept_whatever_it_is() -> None:
    tensors = as_gguf(architecture("Qwen/Qwen3-0.6B"))
    facts = gguf_facts(architecture("Qwen/Qwen3-0.6B"), tensors)
    forward, backward = mix_types(tensors, "Q4_K_M", facts), mix_types(tensors[::-1], "Q4_K_M", facts)
    assert forward == backward[::-1]
    assert [(t.role, t.layer) for t in forward] == [(t.role, t.layer) for t in tensors]


def test_an_unknown_mix_is_refused() -> None:
    with pytest.raises(FormatError, match="Q9_K"):
        mix_types((), "Q9_K", GgufFacts(1, 1))
    assert "Q4_K_M" in mix_names()


def test_towers_and_dropped_draft_layers_are_not_in_the_file() -> None:
    expected = {"google/gemma-3-27b-it": {"text"}, "deepseek-ai/DeepSeek-V3": {"text"}, "zai-org/GLM-5": {"text", "mtp"}}
    assert {model: {t.part for t in as_gguf(architecture(model))} for model in expected} == expected


def test_router_corrections_are_in_the_file_though_no_parameters() -> None:
    def count(model: str) -> int:
        return sum(t.role == "exp_probs_b.bias" and t.stored_as == "F32" for t in as_gguf(architecture(model)))

    assert count("deepseek-ai/DeepSeek-V3") == 58
    assert count("deepseek-ai/DeepSeek-V2-Lite") == count("Qwen/Qwen3-30B-A3B") == 0


def test_a_latent_up_projection_is_split_without_losing_a_weight() -> None:
    model = architecture("deepseek-ai/DeepSeek-V2-Lite")
    tensors = as_gguf(model)
    before = sum(t.parameters for t in model.tensors if t.role == "attn_kv_b")
    after = sum(t.parameters for t in tensors if t.role in ("attn_k_b", "attn_v_b"))
    assert before == after > 0
    assert {t.shape for t in tensors if t.role == "attn_k_b"} == {(16, 512, 128)}
    assert {t.shape for t in tensors if t.role == "attn_v_b"} == {(16, 128, 512)}
