"""The arithmetic of one answer with and without the KV cache."""

import vram_plan as vp

model = vp.load("llama3-8b", offline=True)
prompt, output = 2000, 500
per_token = 2 * model.parameters.active
with_cache = (prompt + output) * per_token
without = sum(prompt + i for i in range(output)) * per_token
print(f"Llama-3-8B, a prompt of {prompt:,} tokens and an answer of {output}:")
print(f"with the cache      {prompt + output:>9,} tokens computed  {with_cache / 1e12:9,.0f} × 10¹² operations")
print(f"without             {without // per_token:>9,} tokens computed  {without / 1e12:9,.0f} × 10¹² operations")
print(f"which is {without / with_cache:,.0f} times as much")
print(f"the cache costs     {model.kv_bytes(prompt + output) / 2**20:,.0f} MiB")
