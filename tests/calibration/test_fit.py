"""The fit finds constants it can know, and says when it cannot."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from vram_plan.calibration.fit import fit_points, possible, predict_step, solve
from vram_plan.hardware.profiles import Figure, Mode, Point

BW, KV, LAYER, EAGER, TOKEN, MOE = 900e9, 700e9, 40e-6, 300e-6, 150e-6, 60e-6
MB, GB = 1e6, 1e9
#: (bytes, layers) of two widths, one of them at two depths of layers.
SHAPES = {"narrow": ((0.4 * GB, 8), (1.0 * GB, 24)), "wide": ((7.0 * GB, 32),)}


def step(shape: str, size: float, layers: int, kv: float, mode: Mode, noise: float, rng: random.Random, **more: object) -> Point:
    """A step as a machine of exactly these constants would take, with a relative error."""
    extra = MOE * layers if "experts" in shape else 0.0
    rate = {"int4": 0.7 * BW}.get(str(more.get("dtype", "bf16")), BW)
    seconds = size / rate + kv / KV + layers * (LAYER if mode == "graph" else EAGER) + TOKEN + extra
    median = seconds * (1 + noise * rng.gauss(0, 1))
    fields = {"dtype": "bf16", "part": "fit", **more}
    return Point(
        "decode", shape, mode=mode, tokens=1, layers=layers, bytes=int(size), kv_bytes=int(kv), median_s=median, n=15,
        p10_s=median * (1 - 2 * noise), p90_s=median * (1 + 2 * noise), **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def ladder(noise: float, seed: int = 1, modes: tuple[Mode, ...] = ("graph", "eager")) -> list[Point]:
    """Recorded steps; from Python the device's time or the host's, whichever is longer."""
    rng = random.Random(seed)
    shapes = [(name, size, layers) for name, sizes in SHAPES.items() for size, layers in sizes]
    points = [step(*shape, kv, "graph", noise, rng, depth=round(kv)) for shape in shapes for kv in (1 * MB, 0.4 * shape[1])]
    if "eager" in modes:
        points += [replace(p, mode="eager", median_s=max(p.median_s, p.layers * EAGER + TOKEN)) for p in points]
    return points


def test_known_constants_come_back() -> None:
    fitted, flags = fit_points(ladder(0.0), "bf16")
    found = (fitted.weight_bytes_per_s["bf16"], fitted.kv_bytes_per_s, fitted.graph_layer_s, fitted.graph_token_s, fitted.eager_layer_s)
    for figure, true in zip(found, (BW, KV, LAYER, TOKEN, EAGER), strict=True):
        assert figure is not None
        assert figure.value == pytest.approx(true, rel=1e-4)
    assert flags == []


def test_a_step_from_python_takes_as_long_as_the_slower_of_host_and_device() -> None:
    fitted, _ = fit_points(ladder(0.0), "bf16")
    small, large = (fitted.decode_s("eager", "bf16", size, 0.0, 32) for size in (0.1 * GB, 50 * GB))
    assert small == pytest.approx(32 * EAGER + TOKEN, rel=1e-6)
    assert large == pytest.approx(50 * GB / BW + 32 * LAYER + TOKEN, rel=1e-3) == fitted.decode_s("graph", "bf16", 50 * GB, 0.0, 32)


def test_where_the_host_is_never_waited_for_its_times_are_the_devices() -> None:
    recorded = ladder(0.0, modes=("graph",))
    points = [*recorded, *(replace(p, mode="eager", median_s=0.995 * p.median_s) for p in recorded)]
    fitted, flags = fit_points(points, "bf16")
    assert fitted.eager_layer_s == fitted.graph_layer_s and fitted.eager_token_s == fitted.graph_token_s and flags == []


def test_experts_that_cannot_be_recorded_are_not_told_from_pythons_loop() -> None:
    points = [*ladder(0.0), step("8 experts", 0.5 * GB, 8, MB, "eager", 0.0, random.Random(1))]
    fitted, flags = fit_points(points, "bf16", frozenset({"8 experts"}))
    assert fitted.moe_layer_s is None and any("cannot record" in flag for flag in flags)


def test_a_point_faster_than_the_machine_is_left_out_and_said() -> None:
    plain = [Point("read", "memory", "f32", bytes=10**9, median_s=1 / 900, p10_s=1 / 910, n=30),
             Point("matmul", "m", "bf16", flops=1e12, median_s=0.01, p10_s=0.009, n=30)]  # fmt: skip
    steps = ladder(0.0)
    prompt = Point("prefill", "wide", "bf16", tokens=512, flops=2e12, median_s=0.02, n=3, part="fit")
    odd = [replace(steps[0], median_s=1e-6), replace(prompt, median_s=1e-6)]
    kept, flags = possible([*plain, *steps, prompt, *odd])
    assert kept == [*plain, *steps, prompt] and len(flags) == 2 and all("1 µs" in flag for flag in flags)


def test_the_deviation_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 80 noisy ladders, each constant is within two of its own deviations nearly always, and not by claiming everything."""
    true = {"weights": BW, "kv": KV, "layer": LAYER}
    within, sizes = dict.fromkeys(true, 0), dict.fromkeys(true, 0.0)
    for seed in range(80):
        fitted, _ = fit_points(ladder(0.01, seed, ("graph",)), "bf16")
        assert fitted.kv_bytes_per_s and fitted.graph_layer_s
        found = {"weights": fitted.weight_bytes_per_s["bf16"], "kv": fitted.kv_bytes_per_s, "layer": fitted.graph_layer_s}
        for name, figure in found.items():
            within[name] += abs(figure.value - true[name]) < 2 * figure.sd
            sizes[name] += figure.sd / true[name] / 80
    assert min(within.values()) > 0.75 * 80
    assert sizes["weights"] < 0.05 and sizes["kv"] < 0.1 and sizes["layer"] < 0.6


def test_one_width_cannot_tell_the_constants_apart() -> None:
    rng = random.Random(3)
    narrow = [step("narrow", s * 1.0, n, kv, "eager", 0.01, rng) for s, n in ((0.3 * GB, 8), (0.9 * GB, 24)) for kv in (MB, 40 * MB)]
    fitted, flags = fit_points(narrow, "bf16")
    assert fitted.weight_bytes_per_s == {} and fitted.eager_layer_s is None
    assert any("more widths" in flag for flag in flags)
    with pytest.raises(ValueError, match="tell the constants apart"):
        solve([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="tell the constants apart"):
        solve([[1.0, 2.0]], [1.0])


def test_constants_are_never_negative() -> None:
    s = solve([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]], [1.0, 2.1, 4.3])
    assert s.values[0] > 0 and s.values[1] == 0.0 and math.isnan(s.sds[1])


def test_a_cache_too_small_to_be_seen_is_read_like_weights() -> None:
    rng = random.Random(5)
    sizes = [(name, *size) for name, listed in SHAPES.items() for size in listed]
    points = [step(name, size, layers, kv, "eager", 0.02, rng) for name, size, layers in sizes for kv in (1e3, 2e3)]
    fitted, flags = fit_points(points, "bf16")
    assert fitted.kv_bytes_per_s is None and any("cache's share" in flag for flag in flags)
    held = step("other", 3 * GB, 20, 1e3, "eager", 0.0, rng, part="held-out")
    assert predict_step(fitted, held) == pytest.approx(held.median_s, rel=0.05)


def test_weights_from_a_cache_promise_no_more_than_the_memory() -> None:
    """Steps ten times as fast as memory reads: nothing of them says how long a model too large for the cache takes."""
    read = Point("read", "memory", "f32", bytes=10**9, median_s=10 / 9, p10_s=10 / 9, n=30)
    fitted, flags = fit_points([read, *ladder(0.0)], "bf16")
    assert fitted.weight_bytes_per_s == {} and any("stayed in a cache" in flag for flag in flags)
    fitted, flags = fit_points([replace(read, median_s=10 / 9, p10_s=10**9 / (0.95 * BW)), *ladder(0.0)], "bf16")
    assert fitted.weight_bytes_per_s["bf16"].value == pytest.approx(0.95 * BW) and any("taken as the memory's" in flag for flag in flags)


def test_packed_weights_and_experts_get_their_own_terms() -> None:
    rng = random.Random(7)
    points = ladder(0.0)
    points.append(step("narrow, int4", 0.2 * GB, 8, MB, "graph", 0.0, rng, dtype="int4"))
    points.append(step("8 experts", 0.5 * GB, 8, MB, "graph", 0.0, rng))
    fitted, _ = fit_points(points, "bf16", frozenset({"8 experts"}))
    assert fitted.weight_bytes_per_s["int4"].value == pytest.approx(0.7 * BW, rel=1e-3)
    assert fitted.moe_layer_s is not None and fitted.moe_layer_s.value == pytest.approx(MOE, rel=1e-3)
    mixture = step("8 experts", 2 * GB, 30, 100 * MB, "graph", 0.0, rng, part="held-out")
    assert predict_step(fitted, mixture, mixture=True) == pytest.approx(mixture.median_s, rel=1e-3)


def test_held_out_points_are_no_part_of_the_fit() -> None:
    points = ladder(0.0)
    odd = replace(points[0], part="held-out", median_s=1.0)
    assert fit_points([*points, odd], "bf16")[0] == fit_points(points, "bf16")[0]


def test_prompts_give_the_rate_of_matrices_and_of_attention() -> None:
    matrices, attention = 100e12, 50e12
    lengths = [(512, 2e12, 0.02e12), (2048, 8e12, 0.3e12), (8192, 32e12, 5e12)]
    points = [Point("prefill", "wide", "bf16", tokens=n, flops=f, attention_flops=a, median_s=f / matrices + a / attention, n=3, part="fit")
              for n, f, a in lengths]  # fmt: skip
    fitted, _ = fit_points(points, "bf16")
    assert fitted.prefill_flops is not None and fitted.attention_flops is not None
    assert (fitted.prefill_flops.value, fitted.attention_flops.value) == pytest.approx((matrices, attention), rel=1e-6)
    short, _ = fit_points(points[:2], "bf16")
    assert short.attention_flops is None and isinstance(short.prefill_flops, Figure)
