"""The shipped catalogue: names by rule, nothing by guess."""

from __future__ import annotations

import pytest
import vram_plan as vp
from vram_plan.models import catalog
from vram_plan.models.loading import load


def test_there_are_at_least_180_models_each_with_a_source_and_a_known_family() -> None:
    rows = [row for row in vp.list_models() if not row.same_as]
    assert len(rows) >= 180
    for row in rows:
        config, source = catalog.row_config(row)
        assert source and config, row.id


@pytest.mark.parametrize("row", [row.id for row in vp.list_models()])
def test_every_row_loads_by_its_own_id_and_name(row: str) -> None:
    found, _, loose = catalog.find_model(row)
    assert found.id == row and not loose
    model = load(row.rsplit("/", 1)[-1])
    assert model.parameters.total > 0 and model.parameters.active > 0


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        ("llama3-8b", "meta-llama/Meta-Llama-3-8B"),
        ("llama3:8b", "meta-llama/Meta-Llama-3-8B"),
        ("LLAMA-3-8B", "meta-llama/Meta-Llama-3-8B"),
        ("Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
        ("llama3.3:70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B"),
        ("qwen3:30b", "Qwen/Qwen3-30B-A3B"),
        ("qwen2.5:7b", "Qwen/Qwen2.5-7B"),
        ("Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-14B"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
        ("gpt-oss:120b", "openai/gpt-oss-120b"),
        ("gemma3-27b", "google/gemma-3-27b-it"),
        ("gemma3:4b-it-qat", "google/gemma-3-4b-it"),
        ("deepseek-r1", "deepseek-ai/DeepSeek-R1"),
        ("deepseek-r1:8b", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B"),
        ("mistral", "mistralai/Mistral-7B-v0.3"),
        ("mistral:7b", "mistralai/Mistral-7B-v0.3"),
        ("mixtral:8x7b", "mistralai/Mixtral-8x7B-v0.1"),
        ("phi4", "microsoft/phi-4"),
        ("kimi-k2", "moonshotai/Kimi-K2-Instruct"),
    ],
)
def test_what_people_type(typed: str, id: str) -> None:
    assert catalog.find_model(typed)[0].id == id


@pytest.mark.parametrize(
    ("typed", "id", "quant"),
    [
        ("llama3:8b-instruct-q4_K_M", "meta-llama/Meta-Llama-3-8B", "Q4_K_M"),
        ("Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "meta-llama/Meta-Llama-3.1-8B", "AWQ"),
        ("Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "meta-llama/Meta-Llama-3.1-8B", "W4A16"),
        ("Llama-3.1-8B-Instruct-FP8-dynamic", "meta-llama/Meta-Llama-3.1-8B", "FP8"),
        ("Llama-3.2-3B-Instruct-bnb-4bit", "meta-llama/Llama-3.2-3B-Instruct", "NF4"),
        ("gemma-3-27b-it-qat-q4_0-gguf", "google/gemma-3-27b-it", "Q4_0"),
        ("qwen2.5-32b-instruct-awq", "Qwen/Qwen2.5-32B", "AWQ"),
        ("gemma3:27b-it-q8_0", "google/gemma-3-27b-it", "Q8_0"),
    ],
)
def test_a_format_in_the_name_is_taken(typed: str, id: str, quant: str) -> None:
    model = load(typed)
    assert (model.name, model.stored_format) == (id, quant)


def test_no_match_names_the_nearest() -> None:
    with pytest.raises(vp.ModelNotFoundError) as caught:
        load("lama3")
    assert "llama3-8b" in caught.value.hint and caught.value.exit_code == 3


def test_several_matches_are_listed() -> None:
    with pytest.raises(vp.AmbiguousModelError) as caught:
        load("nemotron")
    assert caught.value.exit_code == 3 and caught.value.hint.count(",") >= 1


@pytest.mark.parametrize("typed", ["gpt-4", "gpt-4o-mini", "chatgpt", "claude-3-opus", "claude", "gemini-1.5-pro", "o3-mini", "grok-3"])
def test_closed_models_get_a_sentence(typed: str) -> None:
    with pytest.raises(vp.ClosedModelError) as caught:
        load(typed)
    assert "not published" in caught.value.message
    for name in caught.value.hint.split(": ", 1)[1].split(", "):
        assert load(name).parameters.total


def test_a_name_that_is_only_near_is_said_to_be() -> None:
    assert any("was read as" in note for note in load("pythia").notes)
    assert not load("llama3-8b").notes


@pytest.mark.parametrize("typed", ["", "   ", "\0", "x" * 5000])
def test_no_name_at_all(typed: str) -> None:
    with pytest.raises(vp.VramPlanError):
        load(typed)


def test_open_models_called_gpt_are_not_closed() -> None:
    assert catalog.find_model("gpt-j-6b")[0].id == "EleutherAI/gpt-j-6b"
    with pytest.raises(vp.ModelNotFoundError) as caught:
        catalog.find_model("gpt-oss-40b")
    assert not isinstance(caught.value, vp.ClosedModelError)


def test_a_family_of_many_is_not_guessed_at() -> None:
    with pytest.raises(vp.AmbiguousModelError, match="family"):
        catalog.find_model("llama")


@pytest.mark.parametrize(
    ("tag", "quant"),
    [
        ("llama3:8b", "Q4_0"),
        ("llama3.1:8b", "Q4_K_M"),
        ("deepseek-r1:671b", "Q4_K_M"),
        ("gpt-oss:20b", "MXFP4"),
        ("qwen3:8b-q8_0", "Q8_0"),
    ],
)
def test_an_ollama_tag_is_the_file_ollama_would_pull(tag: str, quant: str) -> None:
    plan = vp.plan(tag, gpus="8GB")
    assert (plan.request.engine, plan.request.quant) == ("ollama", quant)


def test_what_names_a_gguf_format_runs_where_ggufs_do() -> None:
    assert vp.plan("llama3-8b-q4_k_m").request.engine == "ollama"
    assert vp.plan("llama3-8b").request.engine == "vllm"
