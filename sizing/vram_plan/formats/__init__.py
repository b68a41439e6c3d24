"""How numbers are stored: dtypes, ggml blocks, GGUF mixes and checkpoint quantisation schemes."""
