"""What llama.cpp knows of the architectures GGUF files name: which there are, which keep no cache, which layers slide.

Source: llama.cpp 0c1e57098, src/llama-arch.cpp, src/llama-model.cpp, src/models/*.cpp.
"""

from __future__ import annotations

from typing import Final, Literal

from ..values import dataclass

__all__ = ["DIFFUSION", "ENCODERS", "KNOWN", "WINDOWS", "WindowRule"]

#: Architectures llama.cpp reads (src/llama-arch.cpp, `LLM_ARCH_NAMES`), and Ollama's own names of some.
KNOWN: Final = frozenset({
    "afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe", "bailingmoe2", "bailingmoe3", "bert", "bitnet", "bloom",
    "chameleon", "chatglm", "clip", "codeshell", "cogvlm", "cohere2", "cohere2moe", "command-r", "dbrx", "deci", "deepseek",
    "deepseek2", "deepseek2-ocr", "deepseek32", "deepseek4", "dots1", "dots3note", "dream", "ernie4_5", "ernie4_5-moe", "eurobert",
    "exaone", "exaone-moe", "exaone4", "falcon", "falcon-h1", "gemma", "gemma-embedding", "gemma2", "gemma3", "gemma3n", "gemma4",
    "glm-dsa", "glm4", "glm4moe", "glm5-next", "gpt-oss", "gpt2", "gptj", "gptneox", "gptoss", "granite", "granite_swa",
    "granitehybrid", "granitemoe", "grok", "grovemoe", "hunyuan-dense", "hunyuan-moe", "hunyuan_vl", "hy_v3", "hy_v4", "internlm2",
    "jais", "jais2", "jamba", "jina-bert-v2", "jina-bert-v3", "kimi-k3", "kimi-linear", "laguna", "lfm2", "lfm2moe", "llada",
    "llada-moe", "llama", "llama-embed", "llama4", "maincoder", "mamba", "mamba2", "maple", "mellum", "mimo2", "minicpm", "minicpm3",
    "minimax-01", "minimax-m2", "minimax-m3", "mistral3", "mistral4", "mllama", "modern-bert", "mpt", "muse-glimmer", "nanbeige",
    "nemotron", "nemotron_h", "nemotron_h_moe", "neo-bert", "nomic-bert", "nomic-bert-moe", "olmo", "olmo2", "olmoe", "openelm",
    "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo", "plamo2", "plamo3", "plm", "qwen", "qwen2", "qwen25vl",
    "qwen2moe", "qwen2vl", "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "refact", "rnd1", "rwkv6",
    "rwkv6qwen2", "rwkv7", "seed_oss", "smallthinker", "smollm3", "spark2_5", "stablelm", "starcoder", "starcoder2", "step35", "t5",
    "t5encoder", "talkie", "xverse",
})  # fmt: skip
#: Those that llama.cpp gives no cache (`llama_model::create_memory`): encoders, and decoders that diffuse whole blocks.
ENCODERS: Final = frozenset({
    "bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "nomic-bert",
    "nomic-bert-moe", "t5encoder",
})  # fmt: skip
DIFFUSION: Final = frozenset({"dream", "llada", "llada-moe", "rnd1"})


@dataclass(frozen=True, slots=True)
class WindowRule:
    """Which layers slide when the file lists no pattern: all but every n-th (0: all), the first of n full where `first`.

    `size` is used where the file gives none; `fixed` always; `listed` means the file must list the layers.
    """

    every: int = 0
    first: bool = False
    size: int = 0
    fixed: int = 0
    kind: Literal["sliding", "chunked"] = "sliding"
    listed: bool = False


_LISTED: Final = WindowRule(listed=True)
#: `load_swa_pattern` and `n_swa` in src/models/*.cpp. The `sliding_window` of any other architecture is not used by llama.cpp.
WINDOWS: Final[dict[str, WindowRule]] = {
    "afmoe": WindowRule(4),
    "cohere2": WindowRule(4),
    "cohere2moe": WindowRule(4, first=True),
    "deepseek4": WindowRule(),
    "dots3note": _LISTED,
    "exaone-moe": WindowRule(4, size=128),
    "exaone4": WindowRule(4),
    "gemma2": WindowRule(2, size=4096),
    "gemma3": WindowRule(6),
    "gemma3n": WindowRule(5),
    "gemma4": _LISTED,
    "gpt-oss": WindowRule(2),
    "gptoss": WindowRule(2),
    "granite_swa": _LISTED,
    "laguna": WindowRule(4, first=True),
    "lfm2": WindowRule(),
    "llama4": WindowRule(4, fixed=8192, kind="chunked"),
    "maple": _LISTED,
    "mellum": WindowRule(4),
    "mimo2": _LISTED,
    "muse-glimmer": WindowRule(4),
    "olmo2": WindowRule(4),
    "plamo3": WindowRule(8),
    "smallthinker": WindowRule(4, first=True, fixed=4096),
    "spark2_5": _LISTED,
    "step35": _LISTED,
}
