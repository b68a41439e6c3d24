"""Dense decoders, encoders and encoder-decoders against counts taken from transformers, and the traps in their configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vram_plan.errors import FormatError
from vram_plan.models.architecture import Architecture
from vram_plan.models.dialects import read_architecture

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "oracle_extra_dense.jsonl").read_text().splitlines()]


def total(a: Architecture, *roles: str) -> int:
    return sum(t.parameters for t in a.tensors if not roles or t.role in roles)


def read(model_type: str, **keys: Any) -> Architecture:
    return read_architecture({"model_type": model_type, **keys})


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_counts_and_cache_equal_transformers(row: dict[str, Any]) -> None:
    a = read_architecture(row["config"])
    found = {
        "basis": a.basis,
        "params_total": total(a),
        "params_embedding": total(a, "token_embd"),
        "params_lm_head": total(a, "output", "output.bias"),
        "kv_bytes_bf16_8k": a.kv_bytes(8192),
        "kv_bytes_bf16_128k": a.kv_bytes(131072),
        "state_bytes": a.state_bytes,
    }
    expected = {"basis": "formula", "state_bytes": 0, **{k: row[k] for k in found if k in row}}
    assert {k: found[k] for k in expected} == expected


SMALL = {"hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100}


def windows(a: Architecture) -> list[int]:
    return [layer.window for layer in a.cache_layers]


def test_an_explicit_null_window_is_not_an_absent_one() -> None:
    assert set(windows(read("mistral", **SMALL))) == {4096}
    assert set(windows(read("mistral", **SMALL, sliding_window=None))) == {0}


def test_qwen_windows_need_the_switch_and_spare_the_first_layers() -> None:
    assert set(windows(read("qwen2", **SMALL, sliding_window=512, max_window_layers=2))) == {0}
    on = read("qwen2", **SMALL, sliding_window=512, max_window_layers=2, use_sliding_window=True)
    assert windows(on) == [0, 0] + [512] * 6


@pytest.mark.parametrize(
    ("model_type", "keys", "full"),
    [
        ("gemma2", {}, [1, 3, 5, 7]),
        ("gemma3_text", {}, [5]),
        ("cohere2", {"sliding_window_pattern": 2}, [1, 3, 5, 7]),
        ("exaone4", {"sliding_window_pattern": "LLLG"}, [3, 7]),
        ("olmo3", {}, [3, 7]),
        ("cwm", {}, [0, 4]),
        ("olmo3", {"layer_types": ["full_attention"] * 7 + ["sliding_attention"]}, list(range(7))),
    ],
)
def test_which_layers_are_full(model_type: str, keys: dict[str, Any], full: list[int]) -> None:
    found = windows(read(model_type, **SMALL, **keys))
    assert [i for i, window in enumerate(found) if not window] == full


def test_falcons_multi_query_holds_for_the_old_architecture_only() -> None:
    keys = {**SMALL, "num_kv_heads": 2, "multi_query": True}
    assert read("falcon", **keys).cache_layers[0].kv_heads == 1
    assert read("falcon", **keys, new_decoder_architecture=True).cache_layers[0].kv_heads == 2


def test_blooms_n_embed_wins() -> None:
    assert read("bloom", n_embed=128, hidden_size=64, n_layer=2, n_head=8, vocab_size=100).hidden_size == 128


def test_flan_t5_has_a_head_of_its_own() -> None:
    """The published size of google/flan-t5-large; the transformers class alone would be built tied."""
    keys: dict[str, Any] = {"d_model": 1024, "d_ff": 2816, "d_kv": 64, "num_layers": 24, "num_heads": 16, "vocab_size": 32128}
    keys["feed_forward_proj"] = "gated-gelu"
    assert total(read("t5", **keys, tie_word_embeddings=False)) == 783_150_080
    assert total(read("t5", **keys)) == 783_150_080 - 32128 * 1024


def test_nomic_embed_v2_has_experts_in_every_other_layer() -> None:
    """The published size of nomic-ai/nomic-embed-text-v2-moe: 475 M, of which 305 M are used."""
    keys = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": 3072, "vocab_size": 250048, "type_vocab_size": 1}
    biases = {"activation_function": "gelu", "qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True}
    a = read("nomic_bert", **keys, **biases, num_experts=8, moe_every_n_layers=2, moe_top_k=2)
    routed = sum(t.parameters for t in a.tensors if t.experts)
    assert round(total(a) / 1e6) == 475
    assert round((total(a) - routed * 6 // 8) / 1e6) == 305


def test_a_head_named_model_is_still_a_head() -> None:
    keys = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100, "tie_word_embeddings": False}
    assert total(read("gpt2", **keys, architectures=["GPT2LMHeadModel"]), "output") == 6400
    assert total(read("gpt2", **keys, architectures=["GPT2Model"]), "output") == 0


def test_gemma4_shares_caches_and_lets_k_stand_for_v() -> None:
    keys = {**SMALL, "num_key_value_heads": 2, "num_kv_shared_layers": 4, "attention_k_eq_v": True, "hidden_size_per_layer_input": 0}
    a = read("gemma4_text", **keys, layer_types=["sliding_attention", "full_attention"] * 4)
    assert [layer.source for layer in a.cache_layers] == [None] * 4 + [2, 3, 2, 3]
    assert [t.layer for t in a.tensors if t.role == "attn_v"] == [0, 2]
    assert a.kv_bytes(1000) == sum(layer.kv_elements(1000) for layer in a.cache_layers[:4]) * 2


def test_nemotron_nas_layers_without_attention_keep_nothing() -> None:
    def blocks(kept: int) -> list[dict[str, Any]]:
        attention = [{"n_heads_in_group": 2}] * kept + [{"no_op": True}, {"replace_with_linear": True}] * ((8 - kept) // 2)
        return [{"attention": a, "ffn": {"ffn_mult": 2.0}} for a in attention]

    a = read("nemotron-nas", **SMALL, block_configs=blocks(4))
    assert [(layer.layer, layer.kv_heads) for layer in a.cache_layers] == [(0, 2), (1, 2), (2, 2), (3, 2)]


def test_the_decoder_lists_its_own_cache_and_the_encoders() -> None:
    a = read("bart", d_model=64, encoder_layers=3, decoder_layers=2, decoder_attention_heads=4, vocab_size=100)
    assert a.kind == "encoder-decoder"
    assert [layer.kind for layer in a.cache_layers] == ["full", "cross"] * 2
    assert a.kv_bytes(10) == 2 * 2 * 64 * 10 * 2
    assert all(layer.kv_heads * layer.k_dim == 64 for layer in a.cache_layers)


def test_encoders_keep_no_cache() -> None:
    a = read("bert", **SMALL, architectures=["BertModel"])
    assert a.kind == "encoder"
    assert a.cache_layers == ()


@pytest.mark.parametrize(
    ("model_type", "keys"),
    [
        ("olmo3", {"layer_types": ["full_attention"]}),
        ("gemma4_text", {"num_kv_shared_layers": 8}),
        ("gemma3n_text", {"intermediate_size": [8]}),
        ("nemotron-nas", {"block_configs": [{}] * 8}),
        ("nemotron-nas", {"block_configs": [{"attention": {}}]}),
        ("opt", {"word_embed_proj_dim": -1}),
        ("whisper", {"encoder_layers": "six"}),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(model_type: str, keys: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"config\.json"):
        read_architecture({**SMALL, **keys, "model_type": model_type})


def test_fused_and_split_projections_are_named_as_their_files_store_them() -> None:
    assert {t.role for t in read("phi3", **SMALL).tensors} >= {"attn_qkv", "ffn_up"}
    assert {t.role for t in read("llama", **SMALL).tensors} >= {"attn_q", "attn_k", "attn_v", "ffn_gate"}
