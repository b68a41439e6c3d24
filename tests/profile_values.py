"""A profile and its device, made by hand: no measurement of any card, round figures that tests can work out."""

from __future__ import annotations

from dataclasses import replace

from vram_plan.hardware.device import Device
from vram_plan.hardware.names import find_gpu
from vram_plan.hardware.profiles import Figure, Fitted, HeldOut, Point, Profile, ProfiledDevice, Software
from vram_plan.hardware.specs import device_of

__all__ = ["a_device", "a_profile"]

NAME = "NVIDIA GeForce RTX 4090"


def a_device(uuid: str = "GPU-1") -> Device:
    """An RTX 4090 as its driver would report it."""
    return replace(device_of(find_gpu("RTX 4090")), name=NAME, uuid=uuid, driver="580.10", power_limit_w=450.0)


def a_profile(uuid: str | None = "GPU-1") -> Profile:
    """Reads at 900 GB/s, 50 µs a layer in a graph and 250 without, 100 TFLOPS at prompts; held out to 4 %."""
    points = [
        Point(
            "decode", f"d{width}", "bf16", mode, tokens=1, depth=depth, layers=layers, bytes=size, kv_bytes=depth * width * layers // 2,
            median_s=t, p10_s=t * 0.98, p90_s=t * 1.03, n=15,
        )
        for width, layers, size in ((2048, 16, 2_000_000_000), (4096, 16, 7_000_000_000))
        for depth in (64, 16384)
        for mode, layer_s in (("graph", 50e-6), ("eager", 250e-6))
        for t in [size / 800e9 + depth * width * layers / 2 / 700e9 + layers * layer_s + 100e-6]
    ]  # fmt: skip
    fitted = Fitted(
        copy_bytes_per_s=Figure(900e9, 9e9), read_bytes_per_s=Figure(920e9, 9e9), weight_bytes_per_s={"bf16": Figure(800e9, 16e9)},
        kv_bytes_per_s=Figure(700e9, 35e9), graph_layer_s=Figure(50e-6, 2e-6), eager_layer_s=Figure(250e-6, 8e-6),
        graph_token_s=Figure(100e-6, 20e-6), eager_token_s=Figure(100e-6, 20e-6), moe_layer_s=Figure(80e-6, 10e-6),
        matmul_flops=Figure(150e12, 2e12), prefill_flops=Figure(100e12, 5e12), attention_flops=Figure(50e12, 5e12),
        runtime_bytes=Figure(500 << 20, 4 << 20), allocator_bytes=Figure(60 << 20, 10 << 20),
    )  # fmt: skip
    held = (
        HeldOut("decode, 2560 wide, after 64 tokens", "decode", 5.2e-3, 5.0e-3, 0.04, "graph"),
        HeldOut("decode, 2560 wide, after 64 tokens", "decode", 9.7e-3, 10.0e-3, -0.03, "eager"),
        HeldOut("prompt of 512 tokens, 2560 wide", "prefill", 0.054, 0.05, 0.08),
        HeldOut("all it holds, 2560 wide", "memory", 1.01e9, 1.0e9, 0.01),
    )
    return Profile(
        date="2026-11-22", vram_plan="0.1.0", device=ProfiledDevice("cuda", NAME, a_device().total, uuid, "580.10", 450.0, 10501.0, 384),
        software=Software("2.13.0+cu130", "3.11.9", "Linux", "13.0"), points=tuple(points), fitted=fitted, held_out=held, wall_s=48.0,
    )  # fmt: skip
