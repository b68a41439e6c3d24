"""What the configuration classes say where a config is silent: the defaults of every family with routed experts or MLA.

Source: transformers 5.23.0, models/*/configuration_*.py, under the class's own key names; only keys that shape weights or
cache, and only those with a default. A key that is there but null keeps its null, as in transformers.
"""

from __future__ import annotations

from typing import Final

from .config import Config

__all__ = ["CLASS_DEFAULTS", "with_defaults"]

#: Names of one and the same number; a config that uses one of them is not given the default of another.
_SYNONYMS: Final = (
    ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"),
    ("num_experts_per_tok", "moe_k", "moe_topk", "moe_top_k", "experts_per_token"),
    ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
    ("moe_intermediate_size", "expert_ffn_hidden_size"),
    ("intermediate_size", "ffn_hidden_size"),
    ("hidden_size", "d_model"),
    ("num_hidden_layers", "num_layers", "n_layers"),
    ("num_attention_heads", "n_heads"),
    ("num_key_value_heads", "num_attention_groups"),
    ("max_position_embeddings", "max_seq_len"),
    ("share_expert_dim", "share_expert_dims"),
    ("sliding_window", "sliding_window_size"),
    ("conv_kernel_size", "sconv_kernel_size"),
)


def with_defaults(c: Config, name: str) -> Config:
    """The config with its class's defaults under it; what was asked of it stays known to `c`."""
    absent = dict(CLASS_DEFAULTS[name])
    for synonyms in _SYNONYMS:
        if any(key in c.raw for key in synonyms):
            for key in synonyms:
                absent.pop(key, None)
    view = Config({**absent, **c.raw}, c.where)
    view.asked = c.asked
    return view


CLASS_DEFAULTS: Final[dict[str, dict[str, int]]] = {
    "afmoe": {
        "vocab_size": 200192, "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 1408, "num_hidden_layers": 32,
        "num_attention_heads": 16, "head_dim": 128, "max_position_embeddings": 16384, "num_experts": 64, "num_experts_per_tok": 6,
        "num_shared_experts": 2, "num_dense_layers": 1, "global_attn_every_n_layers": 4, "sliding_window": 1024,
    },
    "axk1": {
        "vocab_size": 163840, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
        "num_attention_heads": 64, "num_key_value_heads": 64, "max_position_embeddings": 32768, "n_routed_experts": 192,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128, "v_head_dim": 128,
    },
    "axk2": {
        "vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 5120, "moe_intermediate_size": 512, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 64, "max_position_embeddings": 131072, "n_routed_experts": 128,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "kv_lora_rank": 128, "q_lora_rank": 384, "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 64, "v_head_dim": 64, "index_head_dim": 128, "index_n_heads": 16, "gated_norm_rank": 16,
    },
    "beam": {
        "vocab_size": 151936, "hidden_size": 5120, "intermediate_size": 20480, "moe_intermediate_size": 2560, "num_hidden_layers": 52,
        "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 8192, "num_experts": 256,
        "num_experts_per_tok": 8, "sliding_window": 512,
    },
    "cohere2_moe": {
        "vocab_size": 256000, "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40, "num_attention_heads": 64,
        "head_dim": 128, "max_position_embeddings": 8192, "tie_word_embeddings": True, "num_experts": 8, "num_experts_per_tok": 2,
        "num_shared_experts": 0, "sliding_window": 4096, "sliding_window_pattern": 4, "prefix_dense_sliding_window_pattern": 1,
    },
    "dbrx": {
        "vocab_size": 32000, "d_model": 2048, "n_layers": 24, "n_heads": 16, "max_seq_len": 2048,
    },
    "deepseek_ocr2_text": {
        "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "moe_intermediate_size": 1407, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "n_routed_experts": 64, "n_shared_experts": 2,
    },
    "deepseek_v2": {
        "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "moe_intermediate_size": 1407, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "n_routed_experts": 64, "n_shared_experts": 2,
        "first_k_dense_replace": 0, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
        "v_head_dim": 128,
    },
    "deepseek_v3": {
        "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
        "num_attention_heads": 128, "num_key_value_heads": 128, "max_position_embeddings": 4096, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    },
    "deepseek_v32": {
        "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
        "num_attention_heads": 128, "num_key_value_heads": 128, "head_dim": 64, "max_position_embeddings": 163840, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "index_head_dim": 128, "index_n_heads": 64,
    },
    "deepseek_v4": {
        "vocab_size": 129280, "hidden_size": 4096, "moe_intermediate_size": 2048, "num_hidden_layers": 43, "num_attention_heads": 64,
        "num_key_value_heads": 1, "head_dim": 512, "max_position_embeddings": 1048576, "n_routed_experts": 256, "num_experts_per_tok": 6,
        "n_shared_experts": 1, "sliding_window": 128, "q_lora_rank": 1024, "index_head_dim": 128, "index_n_heads": 64,
        "num_nextn_predict_layers": 1, "hc_mult": 4, "o_groups": 8, "o_lora_rank": 1024,
    },
    "dots1": {
        "vocab_size": 152064, "hidden_size": 4608, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 62,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048, "first_k_dense_replace": 0,
        "max_window_layers": 62, "sliding_window": 4096,
    },
    "dots3_note_text": {
        "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 13824, "moe_intermediate_size": 1536, "num_hidden_layers": 46,
        "num_attention_heads": 128, "num_key_value_heads": 128, "max_position_embeddings": 524288, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "kv_lora_rank": 512, "q_lora_rank": 1024, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128, "v_head_dim": 128, "index_head_dim": 128, "index_n_heads": 64,
    },
    "ernie4_5_moe": {
        "vocab_size": 103424, "hidden_size": 2560, "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 28,
        "num_attention_heads": 20, "num_key_value_heads": 4, "max_position_embeddings": 131072, "tie_word_embeddings": True,
        "moe_num_experts": 64, "moe_k": 6, "moe_num_shared_experts": 2, "moe_layer_start_index": 1, "moe_layer_end_index": -1,
        "moe_layer_interval": 1,
    },
    "exaone_moe": {
        "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 16384, "moe_intermediate_size": 1024, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048, "num_experts": 64, "num_experts_per_tok": 8,
        "num_shared_experts": 1, "first_k_dense_replace": 1, "sliding_window": 4096, "sliding_window_pattern": 4,
    },
    "flex_olmo": {
        "vocab_size": 100352, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 4096, "num_experts": 7, "num_experts_per_tok": 5,
    },
    "flint": {
        "vocab_size": 150144, "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 512, "num_hidden_layers": 49,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 262144, "num_experts": 256,
        "num_experts_per_tok": 6, "shared_expert_intermediate_size": 1024, "sliding_window": 513, "decoder_sparse_step": 1,
    },
    "glm4_moe": {
        "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 46,
        "num_attention_heads": 96, "num_key_value_heads": 8, "max_position_embeddings": 131072, "n_routed_experts": 128,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 1,
    },
    "glm4_moe_lite": {
        "vocab_size": 154880, "hidden_size": 2048, "intermediate_size": 10240, "moe_intermediate_size": 1536, "num_hidden_layers": 47,
        "num_attention_heads": 20, "num_key_value_heads": 20, "max_position_embeddings": 202752, "n_routed_experts": 64,
        "num_experts_per_tok": 4, "n_shared_experts": 1, "kv_lora_rank": 512, "q_lora_rank": 768, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 192, "v_head_dim": 256,
    },
    "glm4v_moe_text": {
        "vocab_size": 151424, "hidden_size": 4096, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 46,
        "num_attention_heads": 96, "num_key_value_heads": 8, "max_position_embeddings": 65536, "n_routed_experts": 128,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 1, "attention_bias": True,
    },
    "glm_moe_dsa": {
        "vocab_size": 154880, "hidden_size": 6144, "intermediate_size": 12288, "moe_intermediate_size": 2048, "num_hidden_layers": 78,
        "num_attention_heads": 64, "num_key_value_heads": 64, "head_dim": 64, "max_position_embeddings": 202752, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 2048,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 192, "v_head_dim": 256, "index_head_dim": 128, "index_n_heads": 32,
    },
    "gpt_oss": {
        "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072, "num_local_experts": 128, "num_experts_per_tok": 4,
        "sliding_window": 128, "attention_bias": True,
    },
    "granitemoe": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "granitemoe_swa": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 0,
        "sliding_window": 128,
    },
    "granitemoeshared": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 0,
    },
    "hunyuan_v1_moe": {
        "vocab_size": 290943, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "num_experts": 1, "moe_topk": 1,
    },
    "hy_v3": {
        "vocab_size": 120832, "hidden_size": 4096, "intermediate_size": 13312, "moe_intermediate_size": 1536, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "num_experts": 192,
        "num_experts_per_tok": 8, "num_shared_experts": 1,
    },
    "hy_v4": {
        "vocab_size": 120832, "hidden_size": 2816, "intermediate_size": 6912, "moe_intermediate_size": 768, "num_hidden_layers": 34,
        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 256, "max_position_embeddings": 262144, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 192, "v_head_dim": 256, "index_head_dim": 128, "index_n_heads": 16, "hc_mult": 4,
    },
    "inkling2_text": {
        "vocab_size": 201024, "hidden_size": 4608, "num_hidden_layers": 48, "num_attention_heads": 48, "num_key_value_heads": 8,
        "head_dim": 128, "swa_num_attention_heads": 48, "swa_num_key_value_heads": 8, "swa_head_dim": 128,
        "sliding_window_size": 1024, "d_rel": 16, "rel_extent": 1024, "max_position_embeddings": 1048576, "conv_kernel_size": 4,
        "moe_intermediate_size": 2304,
        "n_routed_experts": 384, "num_experts_per_tok": 8,
    },
    "inkling_text": {
        "vocab_size": 201024, "hidden_size": 6144, "num_hidden_layers": 66, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 128, "swa_num_attention_heads": 64, "swa_num_key_value_heads": 16, "swa_head_dim": 128,
        "sliding_window_size": 512, "d_rel": 16, "rel_extent": 1024, "max_position_embeddings": 131072, "conv_kernel_size": 4,
        "intermediate_size": 24576,
        "moe_intermediate_size": 3072, "n_routed_experts": 256, "num_experts_per_tok": 6, "n_shared_experts": 2,
    },
    "jetmoe": {
        "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 12, "num_key_value_heads": 16,
        "kv_channels": 128, "max_position_embeddings": 4096, "tie_word_embeddings": True, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "kolibri1": {
        "vocab_size": 128000, "hidden_size": 2560, "moe_intermediate_size": 512, "num_hidden_layers": 50, "num_attention_heads": 48,
        "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 262144, "num_experts": 384, "num_experts_per_tok": 6,
        "shared_expert_intermediate_size": 512, "sliding_window": 513,
    },
    "laguna": {
        "vocab_size": 100352, "hidden_size": 2048, "intermediate_size": 8192, "moe_intermediate_size": 512, "num_hidden_layers": 40,
        "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "num_experts": 256,
        "num_experts_per_tok": 8, "shared_expert_intermediate_size": 512, "sliding_window": 512, "gating": True,
    },
    "llama4_text": {
        "vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 40,
        "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "num_local_experts": 16, "num_experts_per_tok": 1,
        "use_qk_norm": True, "intermediate_size_mlp": 16384, "interleave_moe_layer_step": 1, "no_rope_layer_interval": 4,
        "attention_chunk_size": 8192,
    },
    "longcat_flash": {
        "vocab_size": 131072, "hidden_size": 6144, "num_layers": 28, "num_attention_heads": 64, "head_dim": 64,
        "max_position_embeddings": 131072, "n_routed_experts": 512, "moe_topk": 12, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "ffn_hidden_size": 12288, "expert_ffn_hidden_size": 2048,
        "zero_expert_num": 256,
    },
    "mellum": {
        "vocab_size": 98304, "hidden_size": 2304, "intermediate_size": 7168, "moe_intermediate_size": 896, "num_hidden_layers": 28,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 131072, "num_experts": 64,
        "num_experts_per_tok": 8, "sliding_window": 1024,
    },
    "mimo_v2_flash": {
        "vocab_size": 152576, "hidden_size": 4096, "intermediate_size": 16384, "moe_intermediate_size": 2048, "num_hidden_layers": 48,
        "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 192, "max_position_embeddings": 131072, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "sliding_window": 129, "v_head_dim": 128,
    },
    "minicpm3": {
        "vocab_size": 73448, "hidden_size": 2560, "intermediate_size": 6400, "num_hidden_layers": 62, "num_attention_heads": 40,
        "num_key_value_heads": 40, "max_position_embeddings": 32768, "tie_word_embeddings": True, "kv_lora_rank": 256, "q_lora_rank": 768,
        "qk_rope_head_dim": 32, "qk_nope_head_dim": 64,
    },
    "minimax_m2": {
        "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 1536, "num_hidden_layers": 62, "num_attention_heads": 48,
        "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 196608, "num_local_experts": 256, "num_experts_per_tok": 8,
    },
    "minimax_m3_vl_text": {
        "vocab_size": 200064, "hidden_size": 6144, "intermediate_size": 3072, "num_hidden_layers": 60, "num_attention_heads": 64,
        "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 524288, "num_local_experts": 128, "num_experts_per_tok": 4,
        "shared_intermediate_size": 3072, "index_head_dim": 128, "index_n_heads": 4, "dense_intermediate_size": 12288,
    },
    "mistral4": {
        "vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 2048, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 1048576, "n_routed_experts": 128,
        "num_experts_per_tok": 4, "n_shared_experts": 1, "first_k_dense_replace": 0, "kv_lora_rank": 256, "q_lora_rank": 1024,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 128,
    },
    "mistral_large4_text": {
        "vocab_size": 204800, "hidden_size": 6144, "intermediate_size": 24576, "moe_intermediate_size": 6144, "num_hidden_layers": 72,
        "num_attention_heads": 64, "num_key_value_heads": 64, "head_dim": 64, "max_position_embeddings": 1048576, "n_routed_experts": 128,
        "num_experts_per_tok": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 64, "v_head_dim": 128, "index_head_dim": 128, "index_n_heads": 32,
    },
    "mixtral": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 131072, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
    "muse_spark_text": {
        "vocab_size": 202048, "hidden_size": 8192, "intermediate_size": 16384, "moe_intermediate_size": 4096, "num_hidden_layers": 62,
        "num_attention_heads": 128, "num_key_value_heads": 16, "head_dim": 64, "max_position_embeddings": 1048576,
        "num_local_experts": 256, "num_experts_per_tok": 8, "sliding_window": 2048, "moe_hidden_size": 4096,
    },
    "olmoe": {
        "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
        "max_position_embeddings": 4096, "num_experts": 64, "num_experts_per_tok": 8,
    },
    "openai_privacy_filter": {
        "vocab_size": 200064, "hidden_size": 640, "intermediate_size": 640, "num_hidden_layers": 8, "num_attention_heads": 14,
        "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 131072, "num_local_experts": 128, "num_experts_per_tok": 4,
        "sliding_window": 128, "attention_bias": True,
    },
    "phimoe": {
        "vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 6400, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 131072, "num_local_experts": 16, "num_experts_per_tok": 2,
    },
    "qwen2_moe": {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 32768, "num_experts": 60,
        "num_experts_per_tok": 4, "shared_expert_intermediate_size": 5632, "sliding_window": 4096, "max_window_layers": 28,
        "decoder_sparse_step": 1, "qkv_bias": True,
    },
    "qwen3_moe": {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 24,
        "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 32768, "num_experts": 128,
        "num_experts_per_tok": 8, "sliding_window": 4096, "decoder_sparse_step": 1,
    },
    "qwen3_omni_moe_talker_text": {
        "vocab_size": 3072, "hidden_size": 1024, "intermediate_size": 2048, "moe_intermediate_size": 384, "num_hidden_layers": 20,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768, "num_experts": 128,
        "num_experts_per_tok": 8, "decoder_sparse_step": 1,
    },
    "qwen3_omni_moe_text": {
        "vocab_size": 3584, "hidden_size": 2048, "intermediate_size": 18944, "moe_intermediate_size": 768, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768, "num_experts": 128,
        "num_experts_per_tok": 8, "decoder_sparse_step": 1,
    },
    "qwen3_vl_moe_text": {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 128000, "tie_word_embeddings": True,
        "num_experts": 60, "num_experts_per_tok": 4, "decoder_sparse_step": 1,
    },
    "solar_open": {
        "vocab_size": 196608, "hidden_size": 4096, "moe_intermediate_size": 1280, "num_hidden_layers": 48, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "n_routed_experts": 128, "num_experts_per_tok": 8,
        "n_shared_experts": 1,
    },
    "step3p5": {
        "vocab_size": 128815, "hidden_size": 4096, "intermediate_size": 11264, "moe_intermediate_size": 1280, "num_hidden_layers": 45,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 128000, "n_routed_experts": 288,
        "num_experts_per_tok": 8, "share_expert_dim": 1280,
    },
    "unlimited_ocr_text": {
        "vocab_size": 129280, "hidden_size": 1280, "intermediate_size": 6848, "moe_intermediate_size": 896, "num_hidden_layers": 12,
        "num_attention_heads": 10, "num_key_value_heads": 10, "max_position_embeddings": 32768, "n_routed_experts": 64,
        "num_experts_per_tok": 6, "n_shared_experts": 2, "sliding_window": 128,
    },
    "youtu": {
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 32, "num_attention_heads": 16,
        "num_key_value_heads": 16, "max_position_embeddings": 131072, "tie_word_embeddings": True, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    },
}  # fmt: skip
