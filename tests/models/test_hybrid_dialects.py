"""State-space, linear-attention and short-convolution models: exact against transformers, and the traps in their configs."""

import json
from collections import Counter
from pathlib import Path

import pytest
from vram_plan.errors import FormatError
from vram_plan.models.dialects import read_architecture

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "oracle_extra_hybrid.jsonl").read_text().splitlines()]


def count(architecture, keep=lambda tensor: tensor.part != "mtp"):
    return sum(tensor.parameters for tensor in architecture.tensors if keep(tensor))


def read(model_type, **keys):
    return read_architecture({"model_type": model_type, **keys})


SMALL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_equals_transformers_to_the_parameter_and_byte(row):
    a = read_architecture(row["config"])
    experts = count(a, lambda t: t.experts and t.part == "text")
    total = count(a)
    got = {
        "params_total": total,
        "params_embedding": count(a, lambda t: t.role == "token_embd"),
        "params_lm_head": count(a, lambda t: t.role in ("output", "output.bias")),
        "params_experts": experts,
        "params_active": total - experts + (experts * min(a.experts_per_token, a.experts) // a.experts if a.experts else 0),
        "kv_bytes_bf16_8k": a.kv_bytes(8192),
        "kv_bytes_bf16_128k": a.kv_bytes(131072),
        "state_bytes": a.state_bytes,
    }
    assert a.basis == "formula"
    assert got == {key: row[key] if row[key] is not None else got[key] for key in got}


def test_mamba_width_is_intermediate_size_where_expand_says_otherwise():
    kind = {"hidden_size": 4096, "num_hidden_layers": 1, "vocab_size": 1000, "expand": 16}
    assert read("falcon_mamba", **kind, intermediate_size=8192).state_bytes == 8192 * (2 * 4 + 4 * 16)
    assert read("falcon_mamba", **kind).state_bytes == 65536 * (2 * 4 + 4 * 16)


def test_mamba_time_step_rank_auto_rounds_up():
    roles = {t.role: t.shape for t in read("mamba", hidden_size=520, num_hidden_layers=1, time_step_rank="auto").tensors}
    assert roles["ssm_dt"] == (1040, 33)


def test_jamba_with_one_expert_has_none():
    a = read("jamba", **SMALL, num_experts=1)
    assert a.experts == 0
    assert not any(t.experts for t in a.tensors)
    assert read("jamba", **SMALL).experts == 16


def test_falcon_h1_null_width_is_not_the_absent_one():
    def inner(**keys):
        a = read("falcon_h1", **SMALL, mamba_n_heads=16, **keys)
        return next(t.shape[1] for t in a.tensors if t.role == "ssm_out")

    assert inner(mamba_d_ssm=None) == 512  # mamba_expand x hidden
    assert inner() == 1024  # the class default
    assert inner(mamba_d_ssm=768) == 768


def test_head_count_auto_follows_from_the_head_size():
    a = read("bamba", **SMALL, intermediate_size=512, mamba_n_heads="auto", mamba_d_head=32, mamba_d_state=16)
    assert next(t.shape for t in a.tensors if t.role == "ssm_a") == (16,)


def test_falcon_h1_layers_keep_both_a_state_and_kv():
    a = read("falcon_h1", **SMALL)
    assert Counter((c.layer, c.kind) for c in a.cache_layers) == Counter({(i, k): 1 for i in range(4) for k in ("recurrent", "full")})


def test_zamba2_shares_blocks_but_not_caches():
    keys = {**SMALL, "layers_block_type": ["mamba", "hybrid", "hybrid", "hybrid", "mamba", "hybrid"], "n_mamba_heads": 8}
    one, two = read("zamba2", **keys, num_mem_blocks=1), read("zamba2", **keys, num_mem_blocks=2)
    assert [sum(t.role == "attn_q" for t in a.tensors) for a in (one, two)] == [1, 2]
    assert one.kv_bytes(1000) == two.kv_bytes(1000) == 4 * 2 * 2 * 128 * 1000 * 2  # 4 layers, K and V, 2 heads of 128
    assert sum(t.role == "ffn_gate_up_adapter_a" for t in one.tensors) == 4
    assert one.layers == 6  # the list counts, not num_hidden_layers


def test_nemotron_pattern_and_list_say_the_same():
    named = ["mamba", "moe", "attention", "mlp", "mamba"]
    keys = {"hidden_size": 256, "vocab_size": 1000, "n_routed_experts": 8}
    a, b = read("nemotron_h", **keys, hybrid_override_pattern="ME*-M"), read("nemotron_h", **keys, layers_block_type=named)
    assert a.tensors == b.tensors
    assert a.cache_layers == b.cache_layers
    assert a.layers == 5


def test_nemotron_draft_layers_are_apart():
    keys = {"hidden_size": 256, "vocab_size": 1000, "hybrid_override_pattern": "ME*", "n_routed_experts": 8, "moe_latent_size": 64}
    plain, drafting = read("nemotron_h", **keys), read("nemotron_h", **keys, num_nextn_predict_layers=1)
    assert count(plain) == count(drafting)
    draft = [t for t in drafting.tensors if t.part == "mtp"]
    assert {"nextn.eh_proj", "attn_q", "ffn_up_exps"} <= {t.role for t in draft}
    assert drafting.cache_layers == plain.cache_layers


def test_nemotron_without_moe_layers_has_no_experts():
    assert read("nemotron_h", hidden_size=256, hybrid_override_pattern="M-*", n_routed_experts=8).experts == 0


def test_qwen_draft_layers_are_apart_and_of_the_full_attention_kind():
    a = read("qwen3_5_moe_text", num_hidden_layers=4, num_experts=8, mtp_num_hidden_layers=1)
    draft = [t for t in a.tensors if t.part == "mtp"]
    assert count(a) == count(read("qwen3_5_moe_text", num_hidden_layers=4, num_experts=8))
    assert {"attn_q", "ffn_gate_exps", "nextn.eh_proj"} <= {t.role for t in draft}
    assert {t.layer for t in draft} == {4}


def test_full_attention_interval_stands_in_for_layer_types():
    a = read("qwen3_next", **SMALL, num_experts=4, full_attention_interval=2)
    assert [c.kind for c in a.cache_layers] == ["recurrent", "full", "recurrent", "full"]


def test_kimi_layer_numbers_count_from_one():
    a = read("kimi_linear", **SMALL, num_experts=4, linear_attn_config={"full_attn_layers": [2, 4], "kda_layers": [1, 3]})
    assert [c.kind for c in a.cache_layers] == ["recurrent", "latent", "recurrent", "latent"]


def test_kimi_k3_text_keys_add_what_llama_cpp_loads():
    linear = {"full_attn_layers": [4], "kda_layers": [1, 2, 3], "num_heads": 4, "head_dim": 32}
    keys = {**SMALL, "num_experts": 8, "moe_intermediate_size": 64, "num_shared_experts": 0, "kv_lora_rank": 64}
    plain = count(read("kimi_linear", **keys, linear_attn_config=linear))

    def more(**extra):
        return count(read("kimi_linear", **{**keys, "linear_attn_config": linear, **extra})) - plain

    assert more(mla_use_output_gate=True) == 256 * 4 * 128
    assert more(attn_res_block_size=12) == (4 * 2 + 1) * 2 * 256  # a norm and a score, twice a layer and once at the end
    assert more(linear_attn_config={**linear, "use_full_rank_gate": True}) == 3 * (256 * 128 - 256 * 32 - 32 * 128)
    narrower = 3 * (8 * 3 * 64 * (256 - 96) - 2 * 256 * 96)  # three layers of experts, less the way in and out
    assert more(routed_expert_hidden_size=96) == -narrower
    assert more(routed_expert_hidden_size=96, latent_moe_use_norm=True) == 3 * 96 - narrower


def test_ling_2_5_and_3_share_a_model_type_but_not_their_linear_attention():
    keys = {**SMALL, "layer_group_size": 4, "num_experts": 4, "moe_intermediate_size": 32, "intermediate_size": 64, "head_dim": 32}
    old = read("bailing_hybrid", **keys, architectures=["BailingMoeV2_5ForCausalLM"])
    new = read("bailing_hybrid", **keys, architectures=["BailingMoeV3ForCausalLM"])
    assert {t.role for t in new.tensors} - {t.role for t in old.tensors} >= {"ssm_f_a", "ssm_conv1d_q"}
    assert [c.kind for c in old.cache_layers] == [c.kind for c in new.cache_layers] == ["recurrent"] * 3 + ["latent"]
    assert old.state_bytes == 3 * 4 * 32 * 32 * 4


def test_minimax_original_layout_lists_attention_as_ones():
    a = read("minimax_text_01", **SMALL, attn_type_list=[0, 0, 1, 0], num_local_experts=2)
    assert [c.kind for c in a.cache_layers] == ["recurrent", "recurrent", "full", "recurrent"]


def test_states_in_the_models_dtype_are_not_counted_as_fp32():
    heads, head = 4, 64
    assert read("minimax", **SMALL, num_local_experts=2).state_bytes == 2 * heads * head * head * 2
    xlstm = read("xlstm", hidden_size=512, num_blocks=1, num_heads=4, vocab_size=100)
    assert xlstm.state_bytes == 4 * (64 * 128 + 64 + 1) * 2


def test_lfm2_feed_forward_width():
    def width(**keys):
        return next(t.shape[0] for t in read("lfm2", **SMALL, **keys).tensors if t.role == "ffn_up")

    assert width(block_ff_dim=12288) == 8192
    assert width(intermediate_size=12288, block_ff_dim=6656) == 4608  # the older key wins
    assert width(intermediate_size=12288, block_auto_adjust_ff_dim=False) == 12288
    assert width(intermediate_size=1000, block_ffn_dim_multiplier=1.3, block_multiple_of=64) == 896


def test_lfm2_older_tie_key_wins():
    a = read("lfm2", **SMALL, tie_embedding=False, tie_word_embeddings=True)
    assert not a.tied_embeddings
    assert read("lfm2", **SMALL).tied_embeddings


def test_lfm2_moe_that_names_no_kinds_is_a_labelled_guess():
    a = read("lfm2_moe", **SMALL)
    assert a.basis == "fallback"
    assert "convolutions" in a.notes[0]


def test_recurrent_gemma_window_and_pattern():
    keys = {"hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 5, "num_key_value_heads": 1}
    a = read("recurrent_gemma", **keys, attention_window_size=128)
    assert [c.kind for c in a.cache_layers] == ["recurrent", "recurrent", "sliding", "recurrent", "recurrent"]
    assert a.kv_bytes(100_000) == 127 * 2 * 64 * 2


def test_granite_without_experts_is_dense():
    kinds = ["mamba", "attention", "mamba", "mamba"]
    a = read("granitemoehybrid", **SMALL, num_local_experts=0, layer_types=kinds, shared_intermediate_size=64)
    assert a.experts == 0
    assert {t.role for t in a.tensors if t.role.startswith("ffn")} == {"ffn_norm", "ffn_gate", "ffn_up", "ffn_down"}
    assert [c.kind for c in a.cache_layers] == ["recurrent", "full", "recurrent", "recurrent"]


@pytest.mark.parametrize(
    ("keys", "billions"),
    [
        # arXiv 2503.14456: four models of 0.19 to 2.9 billion parameters
        ({"model_type": "rwkv7", "hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 65536, "gate_low_rank_dim": 128}, 0.19),
        ({"model_type": "rwkv7", "hidden_size": 2560, "num_hidden_layers": 32, "vocab_size": 65536}, 2.95),
        # the sizes in the models' names: RWKV-5 Eagle 7B (7.52 B), RWKV-6 Finch 1.6B and 3B
        ({"model_type": "rwkv5", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 65536}, 7.52),
        ({"model_type": "rwkv6", "hidden_size": 2048, "num_hidden_layers": 24, "vocab_size": 65536}, 1.6),
        ({"model_type": "rwkv6", "hidden_size": 2560, "num_hidden_layers": 32, "vocab_size": 65536}, 3.1),
    ],
)
def test_rwkv_sizes(keys, billions):
    a = read_architecture(keys)
    assert count(a) / 1e9 == pytest.approx(billions, abs=0.006)
    assert a.kv_bytes(8192) == 0


def test_plamo2_and_ring_sizes():
    plamo = read(
        "plamo2", hidden_size=2048, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=1, intermediate_size=8192,
        mamba_num_heads=32, vocab_size=100000,
    )  # fmt: skip
    ring = read(
        "bailing_moe_linear", hidden_size=2048, num_hidden_layers=20, num_attention_heads=16, num_key_value_heads=4, head_dim=128,
        intermediate_size=5120, layer_group_size=5, moe_intermediate_size=512, num_experts=256, num_experts_per_tok=8,
        num_shared_experts=1, first_k_dense_replace=1, vocab_size=157184,
    )  # fmt: skip
    assert round(count(plamo) / 1e9, 2) == 1.29  # PLaMo 2 1B
    assert round(count(ring) / 1e9, 1) == 16.4  # Ring-mini-linear-2.0
    assert Counter(c.kind for c in ring.cache_layers) == {"recurrent": 16, "full": 4}
    assert Counter(c.kind for c in plamo.cache_layers) == {"recurrent": 8, "full": 8}


@pytest.mark.parametrize(
    ("model_type", "keys", "said"),
    [
        ("granitemoehybrid", {**SMALL, "layer_types": ["mamba"]}, "layer_types"),
        ("qwen3_next", {**SMALL, "layer_types": ["linear_attention", 3, None, []]}, "layer_types"),
        ("nemotron_h", {"hybrid_override_pattern": "M?*"}, "hybrid_override_pattern"),
        ("nemotron_h", {"hybrid_override_pattern": "M" * 5000}, "hybrid_override_pattern"),
        ("nemotron_h", {"layers_block_type": ["mamba", {"kind": "moe"}]}, "layers_block_type"),
        ("bamba", {**SMALL, "mamba_expand": -2}, "mamba_expand"),
        ("mamba", {"hidden_size": 256, "expand": 1e12}, "expand"),
        ("mamba", {"hidden_size": 256, "expand": float("nan")}, "expand"),
        ("xlstm", {"hidden_size": 256, "qk_dim_factor": 0}, "qk_dim_factor"),
        ("jamba", {**SMALL, "attn_layer_period": 0}, "attn_layer_period"),
        ("lfm2", {**SMALL, "block_multiple_of": 0}, "block_multiple_of"),
        ("bailing_hybrid", {**SMALL, "layer_group_size": 0}, "layer_group_size"),
        ("qwen3_5_text", {"full_attention_interval": "often"}, "full_attention_interval"),
        ("qwen4_exp_text", {"num_hidden_layers": 4, "ple_layer_ids": [1], "heads_per_ngram": 1000, "indexer_head_dim": 0}, "n-gram tables"),
        ("kimi_linear", {**SMALL, "linear_attn_config": {"full_attn_layers": [1, "two"]}}, "full_attn_layers"),
    ],
)
def test_what_cannot_be_meant_is_said(model_type, keys, said):
    with pytest.raises(FormatError, match=said):
        read(model_type, **keys)
