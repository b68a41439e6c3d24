"""What llama.cpp's model code does differently from family to family, where a model's weights do not tell.

Names are those of configs (`model_type`) and of GGUF files. Source: llama.cpp 0c1e57098, src/models/*.cpp.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "DEEPSTACK", "INDEX_BEST", "LAYER_NORMS", "NORMS_V", "NO_ROTARY", "NO_ROTARY_HYBRIDS", "PICKS_FIRST", "PROJECTS_FIRST",
    "RESIDUAL_FIRST", "RESIDUAL_FIRST_AFTER", "RMS_NORMS", "ROTARY_BUT_FOURTH", "ROTARY_IN_WINDOWS", "ROUTER_BIAS", "ROWS_AFTER_NORM",
    "ROWS_BEFORE_NORM", "SCALES_EMBEDDED", "SCALES_UNTURNED", "TURNS_FIRST", "WEIGHS_FIRST",
]  # fmt: skip

#: Families without rotary embeddings in attention: their queries and keys are cached as projected.
NO_ROTARY: Final = frozenset({
    "nemotron_h", "nemotron_h_moe", "jamba", "gpt2", "mpt", "bloom", "gpt_bigcode", "starcoder", "opt",
    "kimi_linear", "kimi-linear",
})  # fmt: skip

#: Likewise where some of their layers are recurrent.
NO_ROTARY_HYBRIDS: Final = frozenset({"granitemoehybrid", "granitehybrid"})
#: Families whose every fourth layer goes without, and those that turn in layers with a window only (`use_rope`).
ROTARY_BUT_FOURTH: Final = frozenset({"smollm3", "llama4", "llama4_text", "afmoe"})
ROTARY_IN_WINDOWS: Final = frozenset({
    "cohere2", "cohere2_moe", "cohere2moe", "exaone4", "exaone4_5", "exaone_moe", "exaone-moe", "muse_glimmer", "muse-glimmer",
})  # fmt: skip
#: Families that multiply the tokens' embeddings by a number.
SCALES_EMBEDDED: Final = frozenset({
    "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified", "granite",
    "granite_swa", "granitemoe", "granitemoe_swa", "granitemoehybrid", "granitemoeshared", "granitehybrid", "minicpm", "minicpm3",
})  # fmt: skip
#: Families that multiply queries they do not turn by a number that grows with the position (`attn_temp_tuning`).
SCALES_UNTURNED: Final = frozenset({"llama4", "llama4_text"})
#: Families that norm V, with no weights.
NORMS_V: Final = frozenset({"gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified"})
#: Families that turn queries and keys before they norm them.
TURNS_FIRST: Final = frozenset({"hunyuan_v1_dense", "hunyuan_v1_moe", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "maincoder"})
#: Families with layer norms whose weights have no bias to tell them by (`LLM_NORM`).
LAYER_NORMS: Final = frozenset({"cohere", "command-r", "cohere2", "dbrx", "olmo", "mpt"})
#: Families with RMS norms although they have a bias.
RMS_NORMS: Final = frozenset({"phimoe"})
#: Families that make probabilities of the experts picked only.
PICKS_FIRST: Final = frozenset({"gpt_oss", "gpt-oss", "gptoss"})
#: Families that project what attention gives before a parallel feed-forward, not after it.
PROJECTS_FIRST: Final = frozenset({"phi", "phi2", "phi-msft"})
#: Families whose router has a bias their configs' weights do not name.
ROUTER_BIAS: Final = frozenset({"lfm2_moe", "lfm2moe"})
#: Families that weigh what an expert gets, not what it gives (`weight_before_ffn`).
WEIGHS_FIRST: Final = frozenset({"llama4", "llama4_text"})
#: Tokens attention sees of those an index scores (`index_topk` of DeepSeek-V3.2 and GLM-5).
INDEX_BEST: Final = 2048
#: Layers whose input a vision tower's features are added to, where the tokens' embeddings carry them (`n_deepstack_layers`).
DEEPSTACK: Final = {"qwen3_vl": 3, "qwen3_vl_moe": 3, "qwen3vl": 3, "qwen3vlmoe": 3, "qwen3_omni_moe": 3}
#: Families that pick the rows asked for after the last layer, not within it: before the last norm, or after it; what
#: they pick from is an output too, for draft layers (src/models/*.cpp, `t_h_nextn`).
ROWS_BEFORE_NORM: Final = frozenset({"gpt_oss", "gpt-oss", "gptoss", "mimo_v2", "mimo_v2_flash", "mimo2", "step3p5", "step35"})
ROWS_AFTER_NORM: Final = frozenset({
    "bailing_moe_v3", "bailingmoe3", "cohere2_moe", "cohere2moe", "gemma4", "gemma4_text", "gemma4_unified", "hy_v3", "nemotron_h",
    "nemotron_h_moe", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next", "qwen35", "qwen35moe", "qwen3next",
})  # fmt: skip

#: Families that add a result to the residual, not the residual to it: the sum may take the residual's place. The first
#: of their mixers as well, the others of their feed-forward parts only.
RESIDUAL_FIRST: Final = frozenset({"lfm2", "lfm2_moe", "lfm2moe", "jamba"})
RESIDUAL_FIRST_AFTER: Final = RESIDUAL_FIRST | {"phi3", "phi3_v", "phi4_multimodal", "phimoe"}
