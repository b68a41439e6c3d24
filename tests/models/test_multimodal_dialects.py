"""Multimodal configs: what they leave out, nest or mean otherwise, and published totals. Exact rows: data/oracle_extra_multimodal.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from vram_plan.errors import FormatError
from vram_plan.models.architecture import Architecture
from vram_plan.models.dialects import read_architecture
from vram_plan.models.model import Model, Parameters


def parameters(a: Architecture) -> Parameters:
    return Model(a.name, "", "", None, a, a.tensors, "BF16", None, a.basis).parameters


def read(**config: Any) -> Architecture:
    return read_architecture(config)


SO400M = {
    "hidden_size": 1152,
    "image_size": 980,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
PHI3 = {
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 8192,
    "vocab_size": 32064,
}
LLAMA3 = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256,
}  # fmt: skip
QWEN25 = {
    "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "intermediate_size": 18944, "vocab_size": 151666,
}  # fmt: skip
INTERNLM2 = {
    "model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 92553, "bias": False, "tie_word_embeddings": False,
}  # fmt: skip
INTERNVIT = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096, "image_size": 448, "patch_size": 14,
    "qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm",
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "published"),
    [
        ({"model_type": "phi3_v", "architectures": ["Phi3VForCausalLM"], **PHI3}, 4_146_621_440),
        ({"model_type": "minicpmv", "architectures": ["MiniCPMV"], "query_num": 96, **LLAMA3, "vision_config": SO400M}, 8_537_092_336),
        ({"model_type": "minicpmv", "architectures": ["MiniCPMV"], "version": 2.6, **QWEN25, "vision_config": SO400M}, 8_099_175_152),
        (
            {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "llm_config": INTERNLM2, "vision_config": INTERNVIT},
            8_075_365_376,
        ),
        (
            {
                "model_type": "phi4mm", "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8,
                "intermediate_size": 8192, "vocab_size": 200064, "tie_word_embeddings": True, "vision_lora": {"r": 256},
                "speech_lora": {"r": 320},
            },
            5_574_460_384,
        ),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else None,
)  # fmt: skip
def test_remote_code_models_have_their_published_totals(config: Mapping[str, Any], published: int) -> None:
    assert parameters(read_architecture(config)).total == published


def test_authors_flat_llava_has_its_clip_and_projector() -> None:
    p = parameters(
        read(model_type="llava", architectures=["LlavaLlamaForCausalLM"], hidden_size=4096, num_hidden_layers=32, vocab_size=32000)
    )
    assert (p.vision, p.projector, p.total) == (303_507_456, 20_979_712, 7_062_902_784)


def test_outer_flag_ties_and_the_nested_one_does_only_where_the_class_says_so() -> None:
    text = {"model_type": "qwen2", "hidden_size": 896, "num_attention_heads": 14, "num_hidden_layers": 2, "tie_word_embeddings": True}
    assert read(model_type="llava", tie_word_embeddings=False, text_config=text).tied_embeddings
    assert not read(model_type="llava_next", tie_word_embeddings=False, text_config=text).tied_embeddings
    assert read(model_type="internvl", text_config={**text, "tie_word_embeddings": False}).tied_embeddings  # its class default


def test_text_config_with_three_keys_takes_the_rest_from_the_class() -> None:
    a = read(model_type="llava", text_config={"vocab_size": 32064, "model_type": "llama", "max_position_embeddings": 4096})
    assert (a.layers, a.hidden_size, a.vocab_size, a.trained_context) == (32, 4096, 32064, 4096)


def test_a_section_given_in_part_takes_the_towers_defaults_not_the_models() -> None:
    whole = parameters(read(model_type="llava")).vision
    part = parameters(
        read(model_type="llava", vision_config={"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14})
    ).vision
    assert whole == 303_507_456
    assert part < 100_000_000


def test_cross_attention_layers_keep_nothing_per_text_token() -> None:
    a = read(model_type="mllama", text_config={"num_hidden_layers": 5, "cross_attention_layers": [3]})
    assert [layer.kind for layer in a.cache_layers] == ["full", "full", "full", "cross", "full"]
    assert a.kv_bytes(1000) == 4 * 1000 * 2 * 8 * 128 * 2


def test_towers_stand_beside_the_text_and_not_in_active() -> None:
    a = read(
        model_type="qwen2_5_vl",
        hidden_size=2048,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=2,
        intermediate_size=11008,
    )
    p = parameters(a)
    assert {t.part for t in a.tensors} == {"text", "vision"}
    assert p.active == p.total - p.vision


def test_gemma_3n_says_what_it_leaves_out_and_counts_it_when_named() -> None:
    silent = read(model_type="gemma3n", text_config={})
    named = read(model_type="gemma3n", architectures=["Gemma3nForConditionalGeneration"], text_config={})
    assert any("towers" in note for note in silent.notes)
    assert parameters(named).vision == 294_126_912
    assert parameters(named).audio == 681_348_640


def test_an_unknown_timm_tower_is_named_not_guessed() -> None:
    a = read(model_type="perception_lm", vision_config={"architecture": "vit_of_nobody"}, text_config={"num_hidden_layers": 2})
    assert any("vit_of_nobody" in note for note in a.notes)
    assert parameters(a).vision == 0


def test_omni_models_count_the_thinker_and_say_so() -> None:
    a = read(
        model_type="qwen3_omni_moe", thinker_config={"text_config": {"num_hidden_layers": 48}, "audio_config": {}, "vision_config": {}}
    )
    assert (a.layers, a.experts, a.experts_per_token) == (48, 128, 8)
    assert parameters(a).total == 31_719_205_488
    assert any("thinker" in note for note in a.notes)


def test_an_unknown_text_model_inside_a_known_one_is_a_labelled_guess() -> None:
    text = {"model_type": "nobodys_text", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    a = read(model_type="llava", text_config=text)
    assert a.basis == "fallback"
    assert any("nobodys_text" in note for note in a.notes)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llava", "vision_config": {"num_hidden_layers": -1}},
        {"model_type": "llava", "vision_config": {"image_size": "big"}},
        {"model_type": "qwen2_vl", "vision_config": {"depth": 1 << 62}},
        {"model_type": "gemma4", "audio_config": {"num_hidden_layers": [3]}, "text_config": {}},
        {"model_type": "mllama", "text_config": {"cross_attention_layers": ["x"]}},
        {"model_type": "sam_in_disguise", "vision_config": {}},
    ],
    ids=lambda c: c["model_type"],
)
def test_hostile_towers_are_one_clear_error(config: Mapping[str, Any]) -> None:
    with pytest.raises(FormatError):
        read_architecture(config)


def test_mistral_small_has_a_head_of_its_own() -> None:
    """24,011,361,280 parameters, as its checkpoint and vLLM's logs have them; tied where the text model says so, as Ministral 3B's does."""
    text = {
        "model_type": "mistral", "head_dim": 128, "hidden_size": 5120, "intermediate_size": 32768, "num_attention_heads": 32,
        "num_hidden_layers": 40, "num_key_value_heads": 8, "vocab_size": 131072,
    }  # fmt: skip
    tower = {"model_type": "pixtral", "head_dim": 64, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    config = {"model_type": "mistral3", "text_config": text, "vision_config": {**tower, "num_hidden_layers": 24, "patch_size": 14}}
    assert parameters(read_architecture(config)).total == 24_011_361_280
    assert not read_architecture(config).tied_embeddings
    assert read_architecture({**config, "text_config": {**text, "tie_word_embeddings": True}}).tied_embeddings
    assert read_architecture({**config, "tie_word_embeddings": True}).tied_embeddings
    assert read(model_type="mistral3").tied_embeddings  # transformers' class, all by default


def test_nested_configs_that_name_each_other_end() -> None:
    assert read(model_type="llava", text_config={"model_type": "llava"}).layers == 32
