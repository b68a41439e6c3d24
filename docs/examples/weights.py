"""Arithmetic against what formats really take."""

import vram_plan as vp

model = vp.load("llama2-7b")
total = model.parameters.total
print(f"{total:,} parameters")
print(f"at 16 bits by arithmetic  {total * 2 / 1e9:6.2f} GB = {total * 2 / 2**30:.2f} GiB")
print(f"at  4 bits by arithmetic  {total / 2 / 1e9:6.2f} GB = {total / 2 / 2**30:.2f} GiB")
for quant in ("F16", "Q8_0", "Q4_K_M", "Q4_0"):
    weights = vp.plan(model, quant=quant, engine="llama.cpp").need.weights
    print(f"as {quant:22} {weights / 1e9:6.2f} GB = {weights / 2**30:.2f} GiB, {8 * weights / total:.2f} bits a parameter")
