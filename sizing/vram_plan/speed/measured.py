"""A device's calibration in place of the fitted constants, and what real engines did on it beside what was predicted.

transformers runs torch's own kernels one by one: it takes the rates and times measured so. vLLM and SGLang replay graphs: they take
the bandwidth and a layer's time in a graph, and keep the range their class was found to have, since their kernels are their own.
llama.cpp's kernels have nothing to do with torch's. Any engine that `verify` measured here is scaled to what it did instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..engines.base import Work
from ..hardware import Device
from ..values import dataclass
from .constants import Spread
from .hardware import Rates
from .reads import Reads
from .step import Step

if TYPE_CHECKING:
    from ..hardware.profiles import EngineScale, Fitted, Mode, Profile

__all__ = ["MOST_ERROR", "Measured", "decode_step", "described", "measured_of", "prefill_step", "rates_measured", "why_no_speed"]

#: A calibration further off than this on what it had not seen is not used where there are fitted constants; where there are none
#: (a processor, a card no catalogue describes) up to the second, with that as its range.
MOST_ERROR: Final = 0.20
_MOST_ALONE: Final = 0.90
#: No range is narrower: equal GPUs of one machine differ by as much (stas00/ml-engineering, compute/accelerator).
LEAST_ERROR: Final = 0.05
_OWN_KERNELS: Final = ("llama.cpp", "ollama")
_DTYPES: Final = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured, for one engine and format. Of `decode` and `prefill` those that are False keep the fitted constants;
    a range of None keeps the fitted range."""

    basis: str
    fitted: Fitted | None = None
    mode: Mode = "eager"
    dtype: str = "bf16"
    ranks: int = 1
    decode: bool = False
    prefill: bool = False
    decode_range: Spread | None = None
    prefill_range: Spread | None = None
    decode_scale: float = 1.0
    prefill_scale: float = 1.0

    @property
    def whole(self) -> bool:
        """True where tokens and prompts need no fitted constant."""
        return self.decode and self.prefill


def described(device: Device, engine: str) -> bool:
    """Whether fitted constants tell this device's speed: a catalogue row does, but a processor's only for llama.cpp's kernels."""
    return device.spec is not None and (device.vendor != "CPU" or engine in _OWN_KERNELS)


def measured_of(work: Work, devices: tuple[Device, ...], ranks: int, fitted_basis: str) -> Measured | None:
    """What the devices' profiles say of this engine; None where they say nothing. The slowest device's where they differ."""
    profiles = [device.profile for device in devices if device.profile]
    if not profiles or len(profiles) < len(devices):
        return None
    scales = [profile.engines[work.engine] for profile in profiles if work.engine in profile.engines]
    if len(scales) == len(profiles) and any(scale.decode_scale or scale.prefill_scale for scale in scales):
        return _scaled(work.engine, min(scales, key=lambda one: one.decode_scale or 1.0), fitted_basis)
    profile = min(profiles, key=lambda one: one.fitted.copy_bytes_per_s.value if one.fitted.copy_bytes_per_s else 0.0)
    if work.engine in _OWN_KERNELS or not profile.points:
        return None
    most = MOST_ERROR if all(described(device, work.engine) for device in devices) else _MOST_ALONE
    return _calibrated(work, profile, ranks, fitted_basis, most)


def _scaled(engine: str, scale: EngineScale, fitted_basis: str) -> Measured:
    runs = f"{scale.samples} runs" if scale.samples > 1 else "one run"
    factors = [f"{what} × {value:.2f}" for what, value in (("decode", scale.decode_scale), ("prefill", scale.prefill_scale)) if value]
    basis = f"measured: {runs} of {engine}{f' {scale.version}' if scale.version else ''} here, {scale.date[:10]} ({', '.join(factors)}"
    return Measured(f"{basis}); {fitted_basis}", decode_scale=scale.decode_scale or 1.0, prefill_scale=scale.prefill_scale or 1.0)


def _calibrated(work: Work, profile: Profile, ranks: int, fitted_basis: str, most: float) -> Measured:
    fitted = profile.fitted
    mode: Mode = "graph" if work.engine != "transformers" and fitted.graph_layer_s else "eager"
    dtype = _dtype(work.format.name, profile)
    day = f"calibration of {profile.date[:10]}"
    decode_error, prefill_error = profile.worst_error("decode", mode), profile.worst_error("prefill")
    if why := _left_aside(decode_error, fitted.decode_s(mode, dtype, 1.0, 1.0, 1), mode, dtype, most):
        return Measured(f"{fitted_basis}; the {day} is not used: {why}")
    torch = f"torch {profile.software.torch}, " if profile.software else ""
    words = f"measured: {day}, {torch}{dtype}, decode held out within {_percent(decode_error)}"
    prompts = fitted.prefill_flops is not None and prefill_error is not None and prefill_error <= most
    if work.engine != "transformers":
        return Measured(f"{words}; range of {fitted_basis}", fitted, mode, dtype, ranks, True, prompts)
    words += f", prompts within {_percent(prefill_error)}" if prompts else f"; prompts: {fitted_basis}"
    scatter = _scatter(profile, mode)
    return Measured(words, fitted, mode, dtype, 1, True, prompts, _range(decode_error, scatter), _range(prefill_error, scatter))


def _dtype(format: str, profile: Profile) -> str:
    """Whose rate to take: the format's own; on a GPU else that of the dtype measured, since bytes take the same time there. On a
    processor each dtype has kernels of its own, whose rates differ several times."""
    own = _DTYPES.get(format, "")
    return own if own in profile.fitted.weight_bytes_per_s or profile.device.kind == "cpu" else profile.dtype


def _left_aside(error: float | None, step_s: float | None, mode: Mode, dtype: str, most: float) -> str:
    """Why a calibration is not used, if so."""
    if step_s is None:
        return f"it has no times of {mode} steps in {dtype or 'this format'}" + (f" (measure with --dtype {dtype})" if dtype else "")
    if error is None:
        return "what it had not seen was not measured"
    return f"off by {100 * error:.0f} % on what it had not seen" if error > most else ""


def _percent(error: float | None) -> str:
    return f"{100 * (error or 0.0):.1f} %"


def _scatter(profile: Profile, mode: Mode) -> float:
    """How far single steps lay from their median, as a share of it: on a busy machine more than any check of medians shows."""
    steps = [p for p in profile.points if p.what == "decode" and p.mode == mode and p.median_s > 0]
    shares = sorted((p.p90_s - p.p10_s) / 2 / p.median_s for p in steps)
    return shares[len(shares) // 2] if shares else 0.0


def _range(error: float | None, scatter: float) -> Spread:
    """Rates between 1 − e and 1 + e of the estimate: e is the held-out error, no less than the steps themselves scattered."""
    most = min(max(error or 0.0, scatter, LEAST_ERROR), _MOST_ALONE)
    return Spread(1 - most, 1 + most)


def why_no_speed(work: Work, devices: tuple[Device, ...]) -> str:
    """What keeps a measured device that no catalogue describes from having a speed; empty where nothing was measured."""
    profile = next((device.profile for device in devices if device.profile and not described(device, work.engine)), None)
    if profile is None or not profile.points or work.engine in _OWN_KERNELS:
        return ""
    found = _calibrated(work, profile, 1, "", _MOST_ALONE)
    return "no prompt was measured that it had not seen" if found.decode else found.basis.partition("is not used: ")[2]


def rates_measured(device: Device) -> Rates | None:
    """The rates of a device no catalogue row describes, as its calibration found them; None without one."""
    if device.profile is None:
        return None
    fitted = device.profile.fitted
    bandwidth, matmul = fitted.read_bytes_per_s or fitted.copy_bytes_per_s, fitted.matmul_flops
    if bandwidth is None or matmul is None:
        return None
    b, m = bandwidth.value, matmul.value
    return Rates(b, m, m, m, m, m, m, architecture=device.vendor.lower())


def decode_step(step: Step, measured: Measured | None, reads: Reads, sequences: int, history: float, elements: tuple[float, float]) -> Step:
    """The step with the measured parts in place of the fitted. The first sequence's arithmetic is in the weights' rate,
    that of the others comes on top."""
    if measured is None or measured.fitted is None or not measured.decode:
        return _slower(step, measured.decode_scale) if measured else step
    m, f, ranks = measured, measured.fitted, measured.ranks
    weights, kv = reads.weight_bytes(sequences) / ranks, sequences * (reads.kv_bytes(history, *elements) + 2 * reads.state_bytes) / ranks
    moe_layers = reads.layers if reads.experts else 0
    weights_s, kv_s, fixed_s = f.decode_parts(m.mode, m.dtype, weights, kv, reads.layers, moe_layers) or (0.0, 0.0, 0.0)
    per_sequence = 2.0 * (reads.active_parameters + reads.head_parameters) + reads.attention_flops(history)
    compute = f.matmul_flops.value if f.matmul_flops else 0.0
    return replace(
        step,
        weights=weights_s,
        kv=kv_s,
        overhead=fixed_s,
        compute=(sequences - 1) * per_sequence / ranks / compute if compute else step.compute,
        spread=m.decode_range or step.spread,
    )


def prefill_step(step: Step, measured: Measured | None, reads: Reads, prompt: int) -> Step:
    """One prompt at the measured rates; never quicker than a decode step's reads and launches."""
    if measured is None or measured.fitted is None or not measured.prefill:
        return _slower(step, measured.prefill_scale) if measured else step
    m, f = measured, measured.fitted
    matrices = 2.0 * reads.active_parameters * prompt / m.ranks
    attention, experts = reads.mean_attention_flops(prompt, 0) * prompt / m.ranks, reads.expert_bytes * reads.touched(prompt) / m.ranks
    compute = f.prefill_s(matrices, attention, experts if reads.experts else 0.0, m.dtype) or 0.0
    one = decode_step(step, m, reads, 1, 0.0, (0.0, 0.0))
    least = one.weights + one.overhead
    rest = max(least - compute, 0.0)
    weights = rest * one.weights / least if least else 0.0
    return replace(step, weights=weights, compute=compute, overhead=rest - weights, spread=m.prefill_range or step.spread)


def _slower(step: Step, rate: float) -> Step:
    """Every part of the step at this share of its rate."""
    if rate == 1.0:
        return step
    parts = ("weights", "kv", "compute", "overhead", "link", "host", "prompts")
    return replace(step, **{part: getattr(step, part) / rate for part in parts})
