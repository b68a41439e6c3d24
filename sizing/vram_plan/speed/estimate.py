"""The estimate of a piece of work: decode and prefill rates with their ranges, what binds them, and the times that follow."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ..engines.base import Allocation, Work
from ..engines.weights import weights_of
from ..hardware import Device
from ..models.model import Model
from ..results import SpeedEstimate
from ..values import dataclass
from .constants import Spread, table
from .measured import decode_step, prefill_step
from .roofline import (
    decode_pieces,
    decode_terms,
    prefill_pieces,
    prefill_terms,
    server_pieces,
    server_prompt_terms,
    server_terms,
)
from .setting import Setting, setting_of
from .step import Step

__all__ = ["Host", "answer_step", "estimate", "prompt_step", "step_of"]


@dataclass(frozen=True, slots=True)
class Host:
    """Weight bytes in host memory: those a decode step reads, and all a prompt needs."""

    read: float = 0.0
    held: float = 0.0


def estimate(model: Model, work: Work, devices: tuple[Device, ...], allocation: Allocation | None = None) -> SpeedEstimate | None:
    """How fast this work runs on these devices; None without a device, or where a GPU's bandwidth is not known.

    `decode` is at `context` tokens of history for all sequences together, `prefill` one prompt alone on an idle machine, and
    `ttft_s` likewise, a server's work on a request included. `tpot_s` and `total_s` average over the answer's tokens where
    `output` says how many. Rates in tokens per second, times in seconds. Constants: vram_plan_data/speed_constants.json.
    """
    setting = _setting(model, work, devices, allocation) if model.architecture.kind == "decoder" else None
    if setting is None:
        return None
    host = _host(model, work, allocation) if allocation and allocation.host else Host()
    decode = _decode(setting, work.sequences, work.context, host)
    prefill = _prompt(setting, max(work.prompt, 1), host)
    answer = _decode(setting, work.sequences, *_answer(work, host)) if work.output else decode
    rate, watts = decode.rate(work.sequences), setting.watts
    ttft = prefill.total_s + answer.total_s + (assumed("request_s") if work.engine in ("vllm", "sglang") else 0.0)
    return SpeedEstimate(
        prefill=prefill.rate(max(work.prompt, 1)),
        decode=rate,
        ttft_s=ttft,
        tpot_s=answer.total_s,
        total_s=ttft + answer.total_s * (work.output - 1) if work.output else None,
        basis=setting.basis,
        tokens_per_joule_at_limit=rate.tokens_per_s / watts if watts else None,
        joules_per_token_at_most=watts / rate.low if watts else None,
    )


def step_of(
    model: Model, work: Work, devices: tuple[Device, ...], sequences: int, allocation: Allocation | None = None
) -> Step | None:
    """One token of `sequences` sequences at the planned context. None where a device's rates are not known."""
    setting = _setting(model, work, devices, allocation)
    if setting is None:
        return None
    host = _host(model, work, allocation) if allocation and allocation.host else Host()
    return _decode(setting, sequences, work.context, host)


def answer_step(model: Model, work: Work, devices: tuple[Device, ...], allocation: Allocation | None = None) -> Step | None:
    """The mean token of the answer where `output` says how long it is, else one at the planned context. None as for `step_of`."""
    setting = _setting(model, work, devices, allocation) if model.architecture.kind == "decoder" else None
    if setting is None:
        return None
    host = _host(model, work, allocation) if allocation and allocation.host else Host()
    return _decode(setting, work.sequences, *_answer(work, host)) if work.output else _decode(setting, work.sequences, work.context, host)


def prompt_step(model: Model, work: Work, devices: tuple[Device, ...], allocation: Allocation | None = None) -> Step | None:
    """The planned prompt, alone on an idle machine. None as for `step_of`."""
    setting = _setting(model, work, devices, allocation)
    host = _host(model, work, allocation) if allocation and allocation.host else Host()
    return _prompt(setting, max(work.prompt, 1), host) if setting else None


def _setting(model: Model, work: Work, devices: tuple[Device, ...], allocation: Allocation | None) -> Setting | None:
    """The setting on the devices the engine uses: it puts nothing on the others. None without a device or its rates."""
    layers: tuple[int, ...] = ()
    if allocation:
        devices = tuple(device for device, terms in zip(devices, allocation.devices, strict=False) if terms) or devices
        layers = tuple(allocation.figures.get("layers_per_device", ()))
    return setting_of(model, work, devices, layers) if devices else None


def _decode(setting: Setting, sequences: int, history: float, host: Host, prompts: float = 0.0, prompt: int = 0) -> Step:
    """One token of each sequence, with what was measured on the devices where something was."""
    step = (_llama_step if setting.gpus else _server_step)(setting, sequences, history, host, prompts, prompt)
    each = setting.ranks.each(sequences) if setting.ranks else sequences
    return decode_step(step, setting.measured, setting.reads, each, history, setting.element_bytes)


def _prompt(setting: Setting, prompt: int, host: Host) -> Step:
    """One prompt, likewise."""
    return prefill_step(_prefill(setting, prompt, host), setting.measured, setting.reads, prompt)


def _answer(work: Work, host: Host) -> tuple[float, Host, float, int]:
    """History with half the answer written; how many of the others' prompts a server computes between two tokens, and their length."""
    half = work.output / 2
    history = min(work.prompt + half, max(work.context - half, 1.0))
    return history, host, work.sequences / work.output if work.sequences > 1 else 0.0, work.prompt


def _llama_step(setting: Setting, sequences: int, history: float, host: Host, prompts: float = 0.0, prompt: int = 0) -> Step:
    """Layers one device after another: each GPU reads its share in turn, and each further one costs a hop.

    Beyond one sequence the arithmetic of the others is added as a prompt's: a rough sum, with its own wide range. Prompts are not.
    """
    weights = kv = compute = overhead = 0.0
    for gpu in setting.gpus:
        terms = decode_terms(gpu.decode, decode_pieces(setting.reads, gpu.rates, history, sequences, *setting.element_bytes))
        weights += terms.weights_s * gpu.share
        kv += terms.kv_s * gpu.share
        overhead += terms.overhead_s * gpu.share
        if sequences > 1:
            together = prefill_terms(gpu.prefill, prefill_pieces(setting.reads, gpu.rates, sequences, int(history), sequences))
            compute += together.compute_s * gpu.share * (sequences - 1) / sequences
    if host.read:
        weights *= max(0.0, 1.0 - host.read / setting.reads.weight_bytes(sequences))
    hops = (len(setting.gpus) - 1) * assumed("hop_s")
    spread = Spread(assumed("several_low"), assumed("several_high")) if sequences > 1 else setting.gpus[-1].decode.spread
    return Step(weights, kv, compute, overhead, hops, host.read / assumed("host_bandwidth_bytes_per_s"), 0.0, spread)


def _server_step(setting: Setting, sequences: int, history: float, host: Host, prompts: float = 0.0, prompt: int = 0) -> Step:
    """Tensor-parallel ranks step together; a token passes through all pipeline stages, each at work on a share of the sequences.

    Weights in host memory come over PCIe at every step.
    """
    c, ranks = setting.server, setting.ranks
    assert c is not None and ranks is not None  # noqa: S101  a setting without GPUs of a layer split has them
    terms = server_terms(c, server_pieces(setting.reads, ranks, history, sequences, setting.element_bytes, prompts, prompt))
    host_s = host.held / ranks.count / assumed("pcie_bytes_per_s")
    overhead = terms.overhead_s * setting.layer_factor
    return Step(terms.weights_s, terms.kv_s, terms.compute_s, overhead, terms.link_s, host_s, terms.prompts_s, c.spread)


def _prefill(setting: Setting, prompt: int, host: Host) -> Step:
    """One prompt on an idle machine; weights in host memory are copied over PCIe once a micro-batch."""
    if not setting.gpus:
        return _server_prefill(setting, prompt, host)
    compute = weights = overhead = 0.0
    for gpu in setting.gpus:
        terms = prefill_terms(gpu.prefill, prefill_pieces(setting.reads, gpu.rates, prompt, 0, setting.ubatch))
        compute += terms.compute_s * gpu.share
        weights += terms.weights_s * gpu.share
        overhead += terms.overhead_s * gpu.share
    if len(setting.gpus) > 1:
        whole = _in_turn(setting, prompt)
        compute, weights, overhead = compute * whole, weights * whole, overhead * whole
    copies = -(-prompt // setting.ubatch) * host.held / assumed("pcie_bytes_per_s")
    return Step(weights, 0.0, compute, overhead, 0.0, copies, 0.0, setting.gpus[-1].prefill.spread)


def _in_turn(setting: Setting, prompt: int) -> float:
    """What is left of a prompt's time when GPUs of a layer split work on different micro-batches at once.

    llama.cpp keeps up to four micro-batches of a batch under way on CUDA (ggml GGML_SCHED_MAX_COPIES, `pipeline parallelism`).
    """
    runs, stages = -(-prompt // setting.ubatch), min(len(setting.gpus), 4)
    return (runs + stages - 1) / (stages * runs) * (1 + assumed("pipeline_loss") * (1 - 1 / runs))


def _server_prefill(setting: Setting, prompt: int, host: Host) -> Step:
    c, ranks = setting.server, setting.ranks
    assert c is not None and ranks is not None  # noqa: S101  as in _server_step
    terms = server_prompt_terms(c, setting.reads, ranks, prompt)
    host_s = host.held / ranks.count / assumed("pcie_bytes_per_s")
    overhead = terms.overhead_s * setting.layer_factor
    return Step(terms.weights_s, 0.0, terms.compute_s, overhead, terms.link_s, host_s, 0.0, c.prefill_spread)


@lru_cache(maxsize=16)
def assumed(name: str) -> float:
    """A constant that was not fitted; its row says where it comes from."""
    return float(table()["assumed"][name]["value"])


#: Terms of the host that are no weights a step reads: the input table is only looked up.
_WEIGHTS: Final = "weights"


def _host(model: Model, work: Work, allocation: Allocation) -> Host:
    """What of the weights the engine puts in host memory, the input tables apart; of experts only the chosen are read."""
    held = sum(term.bytes for term in allocation.host if term.group == _WEIGHTS)
    weights = weights_of(model, work.format)
    held -= weights.tables
    if held <= 0:
        return Host()
    experts = sum(weights.experts)
    part = min(held, experts) if work.offload == "experts" else held * experts / max(sum(weights.layers) + weights.head, 1)
    setting_reads = 1.0 - (1.0 - model.architecture.experts_per_token / model.architecture.experts) ** work.sequences if experts else 1.0
    return Host(held - part + part * setting_reads, held)
