"""The estimate of a piece of work: decode and prefill rates with their ranges, what binds them, and the times that follow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from ..engines.base import Allocation, Work
from ..engines.weights import weights_of
from ..formats.cache_types import CACHE_TYPES
from ..hardware import Device
from ..models.model import Model
from ..results import EstimatedRate, SpeedEstimate
from .constants import Evidence, Spread, decode_constants, prefill_constants, server_constants, table
from .hardware import Rates, backend_of, rates_of
from .reads import Reads, reads_of
from .roofline import UBATCH, decode_pieces, decode_terms, prefill_pieces, prefill_terms
from .server import link_rate, peak_flops, prefill_flops, server_pieces, server_terms
from .words import age_of, flag, shares_in_words

__all__ = ["Step", "estimate", "step_of"]

_LLAMA: Final = ("llama.cpp", "ollama")
_BOUND: Final = {"weights": "memory", "KV": "memory", "compute": "compute", "per-layer overhead": "overhead", "link": "link",
                 "weights on the host": "link", "others' prompts": "compute"}  # fmt: skip


class Step:
    """Seconds by what they go to, what constants they rest on, and how far measurements lay from such sums."""

    __slots__ = ("evidence", "spread", "terms", "total_s")

    def __init__(self, terms: Mapping[str, float], spread: Spread, evidence: Evidence) -> None:
        self.terms = terms
        self.spread = spread
        self.evidence = evidence
        self.total_s = sum(terms.values())

    @property
    def bound(self) -> str:
        sums: dict[str, float] = {}
        for name, value in self.terms.items():
            sums[_BOUND[name]] = sums.get(_BOUND[name], 0.0) + value
        return max(sums, key=lambda key: sums[key])

    @property
    def words(self) -> str:
        return shares_in_words(self.bound, self.terms)

    def rate(self, tokens: float) -> EstimatedRate:
        """`tokens` in this time, with its range."""
        rate = tokens / self.total_s
        return EstimatedRate(rate, rate * self.spread.low, rate * self.spread.high, self.bound, self.words)  # type: ignore[arg-type]


def estimate(model: Model, work: Work, devices: tuple[Device, ...], allocation: Allocation | None = None) -> SpeedEstimate | None:
    """How fast this work runs on these devices; None without a device, or where a GPU's bandwidth is not known.

    `decode` is at `context` tokens of history for all sequences together, `prefill` one prompt alone on an idle machine;
    `ttft_s` likewise. `tpot_s` and `total_s` average over the answer's tokens, where `output` says how many.
    """
    if not devices or model.architecture.kind != "decoder":
        return None
    host = _host_weights(model, work, allocation)
    decode = step_of(model, work, devices, work.context, host)
    if decode is None:
        return None
    prefill = _prefill(model, work, devices, host)
    answer = _answer_step(model, work, devices, host) if work.output else decode
    first = answer or decode
    ttft = prefill.total_s + first.total_s
    total = ttft + first.total_s * max(work.output - 1, 0) if work.output else None
    return SpeedEstimate(
        prefill.rate(work.prompt), decode.rate(work.sequences), ttft, first.total_s, total, _basis(decode.evidence, work),
        _tokens_per_joule(work.sequences / decode.total_s, devices),
    )  # fmt: skip


def _answer_step(model: Model, work: Work, devices: tuple[Device, ...], host: tuple[int, int]) -> Step | None:
    """The mean step of the answer: half of it written. On a server, the other sequences' prompts are computed in between."""
    history = min(work.prompt + work.output // 2, max(work.context - work.output // 2, 1))
    return step_of(model, work, devices, history, host, answering=True)


def step_of(
    model: Model, work: Work, devices: tuple[Device, ...], history: int, host: tuple[int, int] = (0, 0), answering: bool = False
) -> Step | None:
    """One token of every sequence after `history` others. None where a device's rates are not known."""
    reads = reads_of(model, work.format)
    if work.engine in _LLAMA:
        return _llama_step(reads, work, devices, history, host)
    between = work.sequences / work.output * prefill_flops(reads, work.prompt) if answering and work.sequences > 1 else 0.0
    return _server_step(reads, work, devices, history, host, between)


def _rates(work: Work, devices: tuple[Device, ...]) -> tuple[str, list[Rates]]:
    """The backend, and the rates of the devices; empty where one of them is not known."""
    backend = str(work.option("backend") or backend_of(devices[0].vendor))
    backend = backend if backend in table()["llama.cpp"] else backend_of(devices[0].vendor)
    found = [rates_of(device, backend) for device in devices]
    return backend, [rates for rates in found if rates] if all(found) else []


def _llama_step(reads: Reads, work: Work, devices: tuple[Device, ...], history: int, host: tuple[int, int]) -> Step | None:
    """Layers one device after another: each GPU reads its share in turn, and each further one costs a hop."""
    backend, rates = _rates(work, devices)
    if not rates:
        return None
    k_bytes, v_bytes = _element_bytes(work)
    sums = {"weights": 0.0, "KV": 0.0, "per-layer overhead": 0.0}
    on_gpu = 1.0 - host[0] / max(reads.weight_bytes(work.sequences), 1.0)
    for one, share in zip(rates, _shares(devices), strict=True):
        c = _decode_constants(backend, one.architecture, reads, work)
        terms = decode_terms(c, decode_pieces(reads, one, history, work.sequences, k_bytes, v_bytes))
        sums["weights"] += terms.weights_s * share * max(on_gpu, 0.0)
        sums["KV"] += terms.kv_s * share
        sums["per-layer overhead"] += terms.overhead_s * share
    sums["link"] = (len(devices) - 1) * float(table()["assumed"]["hop_s"]["value"])
    sums["weights on the host"] = host[0] / float(table()["assumed"]["host_bandwidth_bytes_per_s"]["value"])
    return Step(sums, c.spread, c.evidence)


def _decode_constants(backend: str, architecture: str, reads: Reads, work: Work) -> Any:
    moe, flash, age = _settings(reads, work)
    return decode_constants(backend, architecture, reads.weight_family, moe, flash, age)


def _settings(reads: Reads, work: Work) -> tuple[bool, bool, float]:
    return bool(reads.experts), flag(work.option("flash_attn"), True), age_of(work.option("build", ""))


def _server_step(reads: Reads, work: Work, devices: tuple[Device, ...], history: int, host: tuple[int, int], between: float) -> Step | None:
    """Tensor-parallel ranks step together; pipeline stages follow one another, so a token passes through all of them."""
    rates = _rates(work, devices)[1]
    if not rates:
        return None
    slowest = min(rates, key=lambda one: one.bandwidth)
    ranks = max(1, len(devices) // work.pipeline_parallel)
    pieces = server_pieces(
        reads, slowest, peak_flops(slowest, work.format), history, work.sequences, _element_bytes(work), ranks, link_rate(devices), between
    )
    c = server_constants(_server_name(work.engine), slowest.architecture, bool(reads.experts))
    terms = server_terms(c, pieces)
    eager = float(table()["assumed"]["transformers_layer"]["value"]) if work.engine == "transformers" else 1.0
    sums = {
        "weights": terms.weights_s, "KV": terms.kv_s, "compute": terms.compute_s, "per-layer overhead": terms.overhead_s * eager,
        "link": terms.link_s, "others' prompts": terms.prefill_s,
        "weights on the host": host[0] / ranks / float(table()["assumed"]["pcie_bytes_per_s"]["value"]),
    }  # fmt: skip
    return Step(sums, c.spread, c.evidence)


def _server_name(engine: str) -> str:
    return engine if engine in table()["servers"] else "vllm"


def _prefill(model: Model, work: Work, devices: tuple[Device, ...], host: tuple[int, int]) -> Step:
    """One prompt on an idle machine."""
    reads = reads_of(model, work.format)
    backend, rates = _rates(work, devices)
    prompt = max(work.prompt, 1)
    if work.engine not in _LLAMA:
        return _server_prefill(reads, work, devices, rates, prompt)
    moe, flash, age = _settings(reads, work)
    ubatch = _ubatch(work)
    sums = {"compute": 0.0, "weights": 0.0, "per-layer overhead": 0.0}
    for one, share in zip(rates, _shares(devices), strict=True):
        c = prefill_constants(backend, one.architecture, reads.weight_family, moe, flash, age)
        terms = prefill_terms(c, prefill_pieces(reads, one, prompt, 0, ubatch))
        sums["compute"] += terms.compute_s * share
        sums["weights"] += terms.weights_s * share
        sums["per-layer overhead"] += terms.overhead_s * share
    sums["weights on the host"] = -(-prompt // ubatch) * host[1] / float(table()["assumed"]["pcie_bytes_per_s"]["value"])
    return Step(sums, c.spread, c.evidence)


def _ubatch(work: Work) -> int:
    value = str(work.option("ubatch", UBATCH))
    return int(value) if value.isdigit() and 0 < int(value) <= 1 << 16 else UBATCH


def _server_prefill(reads: Reads, work: Work, devices: tuple[Device, ...], rates: list[Rates], prompt: int) -> Step:
    slowest = min(rates, key=lambda one: one.bandwidth)
    ranks = max(1, len(devices) // work.pipeline_parallel)
    c = server_constants(_server_name(work.engine), slowest.architecture, bool(reads.experts))
    flops = prefill_flops(reads, prompt)
    sums = {
        "compute": flops / ranks / peak_flops(slowest, work.format) / c.prefill_share,
        "weights": (reads.shared_bytes + reads.expert_bytes * reads.touched(prompt)) / ranks / slowest.bandwidth / c.weight_share,
        "per-layer overhead": reads.layers * c.layer_s,
    }
    return Step(sums, c.prefill_spread, c.evidence)


@lru_cache(maxsize=512)
def _shares(devices: tuple[Device, ...]) -> tuple[float, ...]:
    """Each GPU's share of the layers: by its memory, as llama.cpp splits."""
    total = sum(device.usable for device in devices) or len(devices)
    return tuple((device.usable or 1) / total for device in devices)


@lru_cache(maxsize=64)
def _types(k: str, v: str) -> tuple[float, float]:
    return float(CACHE_TYPES[k]), float(CACHE_TYPES[v])


def _element_bytes(work: Work) -> tuple[float, float]:
    return _types(work.kv_k, work.kv_v)


def _host_weights(model: Model, work: Work, allocation: Allocation | None) -> tuple[int, int]:
    """Weight bytes in host memory: those read at every token, and all that a prompt needs. The input table is only looked up."""
    held = sum(term.bytes for term in allocation.host if term.group == "weights") if allocation else 0
    weights, reads = weights_of(model, work.format), reads_of(model, work.format)
    held -= weights.embedding
    if held <= 0:
        return 0, 0
    experts = min(held, sum(weights.experts)) if work.offload == "experts" else int(held * sum(weights.experts) / max(weights.total, 1))
    return int(held - experts + experts * reads.touched(work.sequences)), held


def _basis(evidence: Evidence, work: Work) -> str:
    basis = f"fitted constants ({evidence.label}; {evidence.rows} measurements on {evidence.gpus} GPUs)"
    return f"{basis}; eager kernels assumed" if work.engine == "transformers" else basis


def _tokens_per_joule(rate: float, devices: tuple[Device, ...]) -> float | None:
    """An upper bound: the rate at the power limit of all GPUs, the rest of the machine left out."""
    watts = [device.power_limit_w or (device.spec.power_w if device.spec else None) for device in devices]
    return rate / sum(w for w in watts if w) if all(watts) else None
