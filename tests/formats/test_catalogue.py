"""Formats by name and by bits."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vram_plan.errors import UnknownNameError, UsageError
from vram_plan.formats import apply_format, find_format, for_engine, format_for_bits, inventory_bytes, list_formats
from vram_plan.formats.storage import is_stored_format

from formats.catalogue_models import architecture


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("q4_k_m", "Q4_K_M"), ("Q4KM", "Q4_K_M"), (" q4-k-m ", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("q8", "Q8_0"), ("iq4xs", "IQ4_XS"),
        ("awq", "AWQ"), ("AWQ-4/128", "AWQ"), ("GPTQ-4/32", "GPTQ-4/32"), ("gptq-int8", "GPTQ-INT8"), ("fp8", "FP8"), ("fp8_e4m3", "FP8"),
        ("fp8-dynamic", "FP8-CHANNEL"), ("nf4", "NF4"), ("int8", "INT8"), ("int4", "W4A16"), ("4bit", "Q4_K_M"), ("8-bit", "Q8_0"),
        ("bf16", "BF16"), ("fp16", "F16"), ("float32", "F32"), ("mxfp4", "MXFP4"), ("MXFP4_MOE", "MXFP4_MOE"), ("nvfp4", "NVFP4"),
    ],
)  # fmt: skip
def test_names_are_read_forgivingly(text: str, name: str) -> None:
    assert find_format(text).name == name


def test_every_format_is_found_by_its_name_and_by_what_it_stores() -> None:
    for format in list_formats():
        assert find_format(format.name) == format
        assert is_stored_format(format.stored_as)
        assert format.source and format.note and 1 < format.bits_per_weight <= 32, format.name


@pytest.mark.parametrize(("text", "near"), [("Q5_K_X", "Q5_K_"), ("q4_k_n", "Q4_K_"), ("awk", "AWQ"), ("fp9", "FP8")])
def test_an_unknown_name_gets_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        find_format(text)
    assert repr(text) in error.value.message and near in error.value.hint


def test_a_dynamic_mix_is_not_guessed() -> None:
    with pytest.raises(UnknownNameError) as error:
        find_format("UD-Q4_K_XL")
    assert "header" in error.value.hint


@given(st.text(max_size=200))
def test_any_text_gives_a_format_or_a_usage_error(text: str) -> None:
    try:
        assert find_format(text).name
    except UsageError as error:
        assert error.message


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        ("ollama", {2: "Q2_K", 3: "Q3_K_M", 4: "Q4_K_M", 5: "Q5_K_M", 6: "Q6_K", 8: "Q8_0", 16: "F16"}),
        ("llama.cpp", {2: "Q2_K", 3: "Q3_K_M", 4: "Q4_K_M", 5: "Q5_K_M", 6: "Q6_K", 8: "Q8_0", 16: "F16"}),
        ("vllm", {4: "AWQ", 8: "FP8", 16: "BF16"}),
        ("sglang", {4: "AWQ", 8: "FP8", 16: "BF16"}),
        ("transformers", {4: "NF4", 8: "INT8", 16: "BF16"}),
    ],
)
def test_bits_mean_the_engines_usual_format(engine: str, names: dict[int, str]) -> None:
    assert {bits: format_for_bits(bits, engine).name for bits in names} == names
    for bits in {1, 2, 3, 5, 6, 7, 9, 32} - set(names):
        with pytest.raises(UsageError) as error:
            format_for_bits(bits, engine)
        assert all(str(legal) in error.value.hint for legal in names)


def test_an_engine_nobody_has() -> None:
    with pytest.raises(UnknownNameError, match="tgi"):
        format_for_bits(4, "tgi")


def test_lists_can_be_searched() -> None:
    assert len(list_formats()) > 50
    assert {f.name for f in list_formats("q4_k")} == {"Q4_K_S", "Q4_K_M"}
    assert {f.family for f in list_formats("gguf")} == {"gguf"}
    assert list_formats("no such format") == ()


def test_sixteen_bits_of_a_gguf_keep_norms_in_fp32_and_leave_towers_out() -> None:
    model = architecture("google/gemma-3-4b-it")
    plain, gguf = find_format("BF16"), for_engine(find_format("BF16"), "ollama")
    assert inventory_bytes(apply_format(model, plain)) == 2 * sum(t.parameters for t in model.tensors)
    assert {t.part for t in apply_format(model, gguf)} == {"text"}
    assert {t.stored_as for t in apply_format(model, gguf)} == {"BF16", "F32"}
    assert for_engine(find_format("AWQ"), "ollama") == find_format("AWQ")
    assert for_engine(plain, "vllm") == plain


def test_llamacpp_keeps_what_is_no_expert_of_an_mxfp4_model_in_q8() -> None:
    """12.1 GB, the file ggml-org publishes of gpt-oss-20b; Ollama's has 16 bits there: 13.8 GB."""
    model, mxfp4 = architecture("openai/gpt-oss-20b"), find_format("MXFP4")
    assert inventory_bytes(apply_format(model, for_engine(mxfp4, "llama.cpp"))) == pytest.approx(12.1e9, rel=0.003)
    assert inventory_bytes(apply_format(model, for_engine(mxfp4, "ollama"))) == pytest.approx(13.8e9, rel=0.003)


def test_the_classic_numbers() -> None:
    model = architecture("meta-llama/Llama-2-7b-hf")
    assert inventory_bytes(apply_format(model, find_format("BF16"))) == 13_476_831_232
    assert inventory_bytes(apply_format(model, find_format("Q4_K_M"))) == pytest.approx(4.08e9, rel=0.01)
    smaller = [inventory_bytes(apply_format(model, find_format(name))) for name in ("NVFP4", "AWQ", "W4A16")]
    assert smaller == sorted(smaller, reverse=True)


def test_a_thousand_tensors_take_milliseconds() -> None:
    model = architecture("deepseek-ai/DeepSeek-V3")
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        apply_format(model, find_format("Q4_K_M"))
        best = min(best, time.perf_counter() - start)
    assert best < 0.08  # about 4 ms on one quiet core
