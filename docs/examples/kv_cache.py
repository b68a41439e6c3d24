"""What one sequence keeps, by kind of model."""

import vram_plan as vp

for name in ("llama3-8b", "llama2-7b", "gemma3-27b", "deepseek-v3", "qwen3-next", "falcon-mamba-7b"):
    model = vp.load(name)
    kv = [model.kv_bytes(k * 1024) / 2**30 for k in (8, 16, 128)]
    print(f"{name:16} {kv[0]:6.2f} GiB at 8k {kv[1]:6.2f} at 16k {kv[2]:7.2f} at 128k, state {model.state_bytes / 2**20:6.1f} MiB")
