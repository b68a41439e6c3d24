"""Routed experts and latent attention: what configs leave out, rename or mean otherwise. Exact rows: data/oracle_extra_moe.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vram_plan.errors import FormatError
from vram_plan.models.architecture import Architecture
from vram_plan.models.dialects import read_architecture
from vram_plan.models.dialects.moe_defaults import CLASS_DEFAULTS

ROWS = [json.loads(line)["config"] for line in (Path(__file__).parents[1] / "data/oracle_extra_moe.jsonl").read_text().splitlines()]
SMALL = {"num_hidden_layers": 4, "num_layers": 2}


def read(**config: Any) -> Architecture:
    return read_architecture(config)


def total(a: Architecture, part: str = "text") -> int:
    return sum(t.parameters for t in a.tensors if t.part == part)


def roles(a: Architecture, layer: int) -> dict[str, tuple[int, ...]]:
    return {t.role: t.shape for t in a.tensors if t.layer == layer}


#: Totals the publishers or their files state; the sizes are those of the published configs.
PUBLISHED = {
    # modeling_deepseek.py's checkpoint: 16.4 B, 2.8 B active (paper, arXiv 2401.06066)
    "DeepSeek-MoE-16B": (
        {"model_type": "deepseek", "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 28,
         "num_attention_heads": 16, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
         "vocab_size": 102400}, 16.4e9, 2.8e9),
    "Grok-2": (
        {"model_type": "git", "vocab_size": 131072, "hidden_size": 8192, "intermediate_size": 32768, "moe_intermediate_size": 16384,
         "num_hidden_layers": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "num_local_experts": 8,
         "num_experts_per_tok": 2, "residual_moe": True}, 270e9, 115e9),
    "Arctic": (
        {"model_type": "arctic", "hidden_size": 7168, "intermediate_size": 4864, "num_hidden_layers": 35, "num_attention_heads": 56,
         "num_key_value_heads": 8, "num_local_experts": 128, "num_experts_per_tok": 2, "vocab_size": 32000, "moe_layer_frequency": 1},
        480e9, 17e9),
    "Ling-mini-2.0": (
        {"model_type": "bailing_moe_v2", "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 20, "num_attention_heads": 16,
         "num_key_value_heads": 4, "head_dim": 128, "num_experts": 256, "num_experts_per_tok": 8, "num_shared_experts": 1,
         "moe_intermediate_size": 512, "first_k_dense_replace": 1, "vocab_size": 157184, "use_qk_norm": True}, 16.26e9, 1.43e9),
    "Ling-lite": (
        {"model_type": "bailing_moe", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 4, "head_dim": 128, "num_experts": 64, "num_experts_per_tok": 6, "num_shared_experts": 2,
         "moe_intermediate_size": 1408, "vocab_size": 126464}, 16.8e9, 2.75e9),
    "Hunyuan-Large": (
        {"model_type": "hunyuan", "hidden_size": 6400, "intermediate_size": 18304, "num_hidden_layers": 64, "num_attention_heads": 80,
         "num_key_value_heads": 8, "num_experts": 16, "moe_topk": 1, "num_shared_expert": 1, "use_cla": True, "cla_share_factor": 2,
         "use_qk_norm": True, "vocab_size": 128512, "tie_word_embeddings": True}, 389e9, 52e9),
    "LongCat-Flash": ({"model_type": "longcat_flash"}, 560e9, 31.3e9),
    "JetMoE-8B": ({"model_type": "jetmoe", "num_hidden_layers": 24}, 8.52e9, 2.3e9),
    "Step-3.5-Flash": (
        {"model_type": "step3p5", "vocab_size": 128896, "num_attention_groups": 8, "moe_num_experts": 288, "moe_top_k": 8,
         "share_expert_dims": 1280, "moe_layers_enum": ",".join(str(i) for i in range(3, 45)), "sliding_window": 512,
         "layer_types": (["full_attention"] + ["sliding_attention"] * 3) * 12, "attention_other_setting": {"num_attention_heads": 96},
         "num_nextn_predict_layers": 3}, 197e9, 11.9e9),
    "DeepSeek-V4-Pro": (
        {"model_type": "deepseek_ref", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128, "n_routed_experts": 384,
         "moe_intermediate_size": 3072, "q_lora_rank": 1536, "o_groups": 16, "compress_ratios": [128, 128] + [4, 128] * 29 + [4, 0],
         "num_nextn_predict_layers": 1}, 1.57e12, 49e9),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_families_without_an_oracle_come_to_their_published_size(name: str) -> None:
    config, stated, stated_active = PUBLISHED[name]
    a = read_architecture(config)
    experts = sum(t.parameters for t in a.tensors if t.experts and t.part == "text")
    active = total(a) - experts + experts * a.experts_per_token // a.experts
    assert a.basis == "formula"
    assert total(a) == pytest.approx(stated, rel=0.01)
    assert active == pytest.approx(stated_active, rel=0.05)


#: The Hub's safetensors totals of unquantised files (V4: of the published ones), MTP layers included, and how many of those
#: numbers are buffers to transformers: each router's correction bias, and V4's tables for its hash layers.
STORED = {
    "DeepSeek-R1 BF16": ({"model_type": "deepseek_v3", "num_nextn_predict_layers": 1}, 684_489_845_504, 256 * 59),
    "DeepSeek-V3.2": ({"model_type": "deepseek_v32", "num_nextn_predict_layers": 1}, 685_355_329_792, 256 * 59),
    "DeepSeek-MoE-16B": (PUBLISHED["DeepSeek-MoE-16B"][0], 16_375_728_128, 0),
    "DeepSeek-V4-Flash": (
        {"model_type": "deepseek_v4", "compress_ratios": [0, 0] + [4, 128] * 20 + [4, 0], "num_nextn_predict_layers": 1},
        290_944_616_402, 256 * 41 + 3 * 6 * 129_280),
    "DeepSeek-V4-Pro": (PUBLISHED["DeepSeek-V4-Pro"][0], 1_598_839_674_782, 384 * 59 + 3 * 6 * 129_280),
    "GLM-4.5": (
        {"model_type": "glm4_moe", "attention_bias": True, "head_dim": 128, "hidden_size": 5120, "intermediate_size": 12288,
         "moe_intermediate_size": 1536, "n_routed_experts": 160, "num_hidden_layers": 92, "first_k_dense_replace": 3,
         "use_qk_norm": True, "num_nextn_predict_layers": 1}, 358_337_791_296, 160 * 90),
    "GLM-4.5-Air": (
        {"model_type": "glm4_moe", "attention_bias": True, "head_dim": 128, "num_nextn_predict_layers": 1}, 110_468_824_832, 128 * 46),
    "GLM-5": ({"model_type": "glm_moe_dsa", "num_nextn_predict_layers": 1}, 753_864_139_008, 256 * 76),
    "Hy3": ({"model_type": "hy_v3", "num_nextn_predict_layers": 1}, 298_786_155_776, 192 * 80),
    "Ling-mini-2.0": (PUBLISHED["Ling-mini-2.0"][0], 16_255_643_392, 256 * 19),
    "Ling-1T": (
        {"model_type": "bailing_moe_v2", "hidden_size": 8192, "intermediate_size": 18432, "num_hidden_layers": 80,
         "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "num_experts": 256, "num_experts_per_tok": 8,
         "num_shared_experts": 1, "moe_intermediate_size": 2048, "first_k_dense_replace": 4, "vocab_size": 157184},
        999_705_328_640, 256 * 76),
    "LongCat-Flash": ({"model_type": "longcat_flash", "num_nextn_predict_layers": 1}, 561_862_880_256, 768 * 28),
    "MiniMax-M2": ({"model_type": "minimax_m2", "use_mtp": True, "num_mtp_modules": 3}, 228_689_764_864, 256 * 62),
    "Step-3.5-Flash": (PUBLISHED["Step-3.5-Flash"][0], 199_384_301_376, 288 * 42),
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_a_model_is_as_large_as_its_files(name: str) -> None:
    config, stated, buffers = STORED[name]
    a = read_architecture(config)
    assert total(a) + total(a, "mtp") + buffers == stated
    assert not any(layer.layer >= 2 * a.layers for layer in a.cache_layers)


def test_an_mtp_layer_is_apart_from_the_model() -> None:
    without = read(model_type="deepseek_v3", num_nextn_predict_layers=0)
    with_one = read(model_type="deepseek_v3", num_nextn_predict_layers=1)
    assert total(with_one) == total(without)
    assert total(without, "mtp") == 0
    assert {t.layer for t in with_one.tensors if t.part == "mtp"} == {61}
    assert with_one.kv_bytes(8192) == without.kv_bytes(8192)


def test_null_is_not_absent() -> None:
    """DeepSeek-V2-Lite says `q_lora_rank: null`; leaving the key out means the class's 1536."""
    assert "attn_q" in roles(read(model_type="deepseek_v2", q_lora_rank=None, num_experts_per_tok=6), 0)
    assert roles(read(model_type="deepseek_v2", num_experts_per_tok=6), 0)["attn_q_a"][0] == 1536


def test_a_renamed_key_beats_the_default_of_its_synonym() -> None:
    for key in ("n_routed_experts", "num_experts", "num_local_experts"):
        assert read_architecture({"model_type": "deepseek_v3", **SMALL, key: 32}).experts == 32


@pytest.mark.parametrize(
    ("kind", "tied"), [("ernie4_5_moe", True), ("jetmoe", True), ("cohere2_moe", True), ("minicpm3", True), ("mixtral", False)]
)
def test_class_defaults_decide_whether_the_head_is_tied(kind: str, tied: bool) -> None:
    found = read_architecture({"model_type": kind})
    assert found.tied_embeddings is tied
    assert any(t.role == "output" for t in found.tensors) is not tied


def test_a_window_that_is_switched_off_is_no_window() -> None:
    off = read(model_type="qwen2_moe", sliding_window=4096, use_sliding_window=False, max_window_layers=28)
    assert {layer.kind for layer in off.cache_layers} == {"full"}
    on = read(model_type="qwen2_moe", sliding_window=4096, use_sliding_window=True, max_window_layers=4)
    assert [layer.window for layer in on.cache_layers[:6]] == [4096, 0, 4096, 0, 0, 0]


def test_only_some_layers_route() -> None:
    def routed(a: Architecture) -> list[int]:
        return sorted({t.layer for t in a.tensors if t.role == "ffn_gate_exps" and t.layer is not None})

    assert routed(read(model_type="qwen3_moe", num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=[3])) == [1, 5]
    assert routed(read(model_type="deepseek", num_hidden_layers=6, n_routed_experts=8, first_k_dense_replace=1, moe_layer_freq=2)) == [2, 4]
    assert routed(read(model_type="llama4_text", num_hidden_layers=6, interleave_moe_layer_step=2)) == [1, 3, 5]
    assert routed(read(model_type="ernie4_5_moe", num_hidden_layers=6, moe_layer_start_index=2, moe_layer_end_index=4)) == [2, 3, 4]
    assert routed(read(model_type="step3p5", num_hidden_layers=6, moe_layers_enum="1, 4,5")) == [1, 4, 5]
    assert routed(read(model_type="dots1", num_hidden_layers=3)) == []


def test_chunked_layers_hold_a_chunk() -> None:
    a = read(model_type="llama4_text")
    assert [layer.kind for layer in a.cache_layers[:4]] == ["chunked", "chunked", "chunked", "full"]
    per_token = 2 * 8 * 128
    assert a.kv_bytes(131072) == 2 * per_token * (36 * 8191 + 12 * 131072)


def test_an_index_key_is_cached_only_where_the_layer_has_an_indexer() -> None:
    a = read(model_type="glm_moe_dsa", num_hidden_layers=8, index_topk_freq=4, index_skip_topk_offset=3)
    assert [layer.index_dim for layer in a.cache_layers] == [128, 128, 128, 0, 0, 0, 128, 0]
    assert a.kv_bytes(1000) == 2 * 1000 * (8 * 576 + 4 * 128)
    assert [("indexer.proj" in roles(a, layer)) for layer in range(8)] == [layer.index_dim > 0 for layer in a.cache_layers]


def test_compressed_layers_keep_a_window_and_one_entry_for_several_tokens() -> None:
    a = read(model_type="deepseek_v4", num_hidden_layers=3, compress_ratios=[0, 4, 128, 0])
    window = 127
    assert [layer.kv_elements(1024) for layer in a.cache_layers] == [window * 1024, window * 512 + 256 * 640, window * 512 + 8 * 512]
    assert a.state_bytes == 2 * 2 * 4 * (512 + 128)
    assert a.cache_layers[2].kv_elements(127) == 127 * 512


def test_shared_keys_and_values_are_stored_once() -> None:
    sizes = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
             "num_experts": 4, "vocab_size": 1000}  # fmt: skip
    alone = read(model_type="hunyuan", **sizes)
    shared = read(model_type="hunyuan", **sizes, use_cla=True, cla_share_factor=2)
    assert shared.kv_bytes(4096) * 2 == alone.kv_bytes(4096)
    assert [layer.source for layer in shared.cache_layers] == [None, 0, None, 2]
    assert total(alone) - total(shared) == 2 * 2 * 512 * 256


def test_zero_experts_have_a_router_row_and_no_weights() -> None:
    a = read(model_type="longcat_flash", num_layers=2, n_routed_experts=16, zero_expert_num=8)
    assert roles(a, 0)["ffn_gate_inp"][0] == 24
    assert roles(a, 0)["ffn_gate_exps"][0] == 16
    assert len(a.cache_layers) == 4


def test_mimo_windows_have_their_own_heads_and_value_width() -> None:
    a = read(model_type="mimo_v2_flash", num_hidden_layers=4, sliding_window_size=128, hybrid_layer_pattern=[0, 1, 1, 0])
    assert [(layer.kv_heads, layer.k_dim, layer.v_dim) for layer in a.cache_layers[:2]] == [(4, 192, 128), (8, 192, 128)]
    assert [layer.tokens_held(8192) for layer in a.cache_layers] == [8192, 128, 128, 8192]


def test_small_deepseek_vl2_has_no_latent() -> None:
    a = read(model_type="deepseek_v2", use_mla=False, hidden_size=1280, num_hidden_layers=3, num_attention_heads=10,
             num_key_value_heads=10, kv_lora_rank=None, q_lora_rank=None, qk_rope_head_dim=0, qk_nope_head_dim=0, v_head_dim=0,
             first_k_dense_replace=1)  # fmt: skip
    assert {layer.kind for layer in a.cache_layers} == {"full"}
    assert a.cache_layers[0].elements_per_token == 2 * 1280


@pytest.mark.parametrize(
    ("kind", "key"),
    [("glm_moe_dsa", "indexer_types"), ("gpt_oss", "layer_types"), ("deepseek_v4", "compress_ratios"), ("hy_v3", "mlp_layer_types")],
)
def test_a_list_shorter_than_the_model_is_refused(kind: str, key: str) -> None:
    with pytest.raises(FormatError, match=key):
        read_architecture({"model_type": kind, "num_hidden_layers": 6, key: ["full"] * 5})


@pytest.mark.parametrize("kind", sorted(CLASS_DEFAULTS))
@pytest.mark.parametrize("odd", [-1, 0, "many", [], {}, 2**62, 1e300])
def test_values_that_cannot_be_meant_are_refused_or_read(kind: str, odd: Any) -> None:
    """Every key of the class in turn: an answer or one clear error, never another exception."""
    for key in CLASS_DEFAULTS[kind]:
        config = {"model_type": kind, "num_experts_per_tok": 2, **SMALL, key: odd}
        if kind == "dbrx":
            config["n_layers"] = config.get("n_layers", 2)
        try:
            found = read_architecture(config)
        except FormatError as error:
            assert str(error)
        else:
            assert all(min(t.shape) >= 0 for t in found.tensors)
            assert found.kv_bytes(4096) >= 0


@pytest.mark.parametrize("config", ROWS, ids=lambda config: str(config["model_type"]))
def test_layers_are_whole(config: dict[str, Any]) -> None:
    """Every layer has weights and every cached layer belongs to one; a longer context never takes less."""
    a = read_architecture(config)
    assert {t.layer for t in a.tensors if t.part == "text"} >= set(range(a.layers))
    assert all(t.shape[0] == t.experts for t in a.tensors if t.experts)
    held = [a.kv_bytes(context) for context in (0, 1, 127, 128, 4096, 4097, 131072)]
    assert held == sorted(held)
    assert held[0] == 0
