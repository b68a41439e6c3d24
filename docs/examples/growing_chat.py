"""A chat grows on a card with 8 GB, to the point where it does not fit."""

import vram_plan as vp

model = vp.load("llama3-8b", offline=True)
print(" context   KV cache  in use / 8 GB card   tokens/s   of the time, KV")
for context in (1, 2048, 4096, 8192, 16384, 24576, 32768):
    plan = vp.plan(model, engine="llama.cpp", quant="Q4_K_M", context=context, gpus="RTX 4060")
    device, speed = plan.devices[0], plan.speed
    if plan.fit.verdict == "does_not_fit":
        short = -(device.headroom or 0) / 2**20
        print(f"{context:8,} {plan.memory.kv_cache / 2**20:6,.0f} MiB  does not fit: {short:,.0f} MiB short")
        continue
    kv = speed.decode.why.partition("% KV")[0].split()[-1] if "KV" in speed.decode.why else "0"
    used = f"{device.used / 2**30:.2f} / {device.usable / 2**30:.2f} GiB"
    print(f"{context:8,} {plan.memory.kv_cache / 2**20:6,.0f} MiB    {used}      {speed.decode.tokens_per_s:5.1f}       {kv:>3} %")
print(f"longest that fits: {vp.max_context(model, engine='llama.cpp', quant='Q4_K_M', context=8192, gpus='RTX 4060'):,} tokens")
