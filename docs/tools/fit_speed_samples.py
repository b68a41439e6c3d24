"""The measurements as columns: the roofline's pieces of each, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from fit_speed_cpu import processor
from speed.cases import Case, speed_cases
from vram_plan.engines.weights import weights_of
from vram_plan.formats import Format, find_format
from vram_plan.hardware import Device, device_of, find_gpu
from vram_plan.models.loading import load
from vram_plan.speed.constants import generation, server_constants
from vram_plan.speed.estimate import assumed
from vram_plan.speed.hardware import Rates, rates_of
from vram_plan.speed.reads import Reads, reads_of
from vram_plan.speed.roofline import Ranks, decode_pieces, prefill_pieces, server_pieces, server_prompt_terms
from vram_plan.speed.server import link_rate, peak_flops, quantises_activations
from vram_plan.speed.words import age_of, version_age

Samples = dict[str, Any]
_GIB = 1 << 30
#: A server with so few requests hardly makes a prompt wait.
IDLE_REQUESTS = 4
#: Of shorter prompts the time is mostly not the model's.
IDLE_PROMPT = 2000


def _device(case: Case) -> Device:
    return processor(case) if case.backend == "cpu" else device_of(find_gpu(case.gpu))


def _setting(case: Case, backend: str) -> tuple[Reads, Rates, float, float]:
    model, format = load(case.model, offline=True), find_format(case.quant)
    size = weights_of(model, format).total
    rates = rates_of(_device(case), backend)
    if rates is None:
        raise SystemExit(f"{case.gpu} has no rates")
    return reads_of(model, format), rates, (case.size_gib * _GIB / size if case.size_gib else 1.0), size


def _columns(rows: list[dict[str, Any]]) -> Samples:
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def _common(case: Case, reads: Reads, rates: Rates, seconds: float) -> dict[str, Any]:
    return {
        "gpu": rates.architecture if case.backend == "cpu" else case.gpu, "group": f"{case.gpu} {case.source}",
        "architecture": rates.architecture, "moe": bool(reads.experts), "family": reads.weight_family,
        "flash": case.flash_attn, "age": age_of(case.build) if case.build else 0.0, "direct": _direct(case, reads),
        "told": case.trust == "A", "average": case.engine == "llamafile", "seconds": seconds,
        "generation": generation(rates.architecture), "dies": rates.dies - 1,
    }  # fmt: skip


def _direct(case: Case, reads: Reads) -> bool:
    """Whether a row counts in full. On processors Ollama's do: people ran them. Prompts in formats of grids were
    measured on one: left out, it is told by none."""
    if case.backend == "cpu":
        return case.metric != "prefill" or reads.weight_family != "grid"
    return case.engine not in ("llamafile", "ollama")


def _llama(case: Case, backend: str, metric: str) -> bool:
    single = case.backend == backend and case.metric == metric and case.n_gpu == 1 and case.batch == 1
    return single and case.tokens_per_s is not None and not case.suspect


def _plain(piece: Any) -> dict[str, float]:
    return {field.name: getattr(piece, field.name) for field in fields(piece)}


def decode_samples(backend: str) -> Samples:
    """llama.cpp on one GPU, one sequence. A file larger than the format says (a mix of its own) reads as much more."""
    rows = []
    for case in speed_cases():
        if _llama(case, backend, "decode") and case.tokens_per_s:
            reads, rates, scale, size = _setting(case, backend)
            piece = _plain(decode_pieces(reads, rates, case.history, 1, 2.0, 2.0))
            piece["weights_s"] *= scale
            piece["issue_s"] *= scale
            rows.append(piece | _common(case, reads, rates, 1 / case.tokens_per_s) | {"naive_s": size * scale / rates.bandwidth})
    return _columns(rows)


def prefill_samples(backend: str) -> Samples:
    """llama.cpp's prompts of 256 tokens and more on one GPU."""
    rows = []
    for case in speed_cases():
        if _llama(case, backend, "prefill") and case.tokens_per_s and case.prompt >= 256:
            reads, rates, scale, _ = _setting(case, backend)
            piece = _plain(prefill_pieces(reads, rates, case.prompt, case.depth, case.ubatch))
            piece["weights_s"] *= scale
            rows.append(piece | _common(case, reads, rates, case.prompt / case.tokens_per_s))
    return _columns(rows)


def served(engine: str) -> Iterator[tuple[Case, Format, Reads, Ranks]]:
    """A server's measurements at a constant number of requests."""
    for case in speed_cases():
        if case.engine != engine or not case.tpot_ms or case.tp != case.n_gpu or case.suspect:
            continue
        format, device = find_format(case.quant), device_of(find_gpu(case.gpu))
        rates = rates_of(device, "cuda")
        if rates is None:
            raise SystemExit(f"{case.gpu} has no rates")
        ranks = Ranks(case.tp, rates, peak_flops(rates, format), link_rate((device,)))
        yield case, format, reads_of(load(case.model, offline=True), format), ranks


def idle_samples(engine: str) -> Samples:
    """Times to the first token at no more than 4 requests at once: what a prompt took beyond all but its arithmetic."""
    rows = []
    for case, format, reads, ranks in served(engine):
        if case.ttft_ms and case.batch <= IDLE_REQUESTS and case.prompt >= IDLE_PROMPT:
            age = version_age(case.version) if engine == "vllm" else 0.0
            c = server_constants(engine, ranks.rates.architecture, bool(reads.experts), quantises_activations(format), age)
            terms = server_prompt_terms(c, reads, ranks, case.prompt)
            other = terms.total_s - terms.compute_s + assumed("request_s") + (case.tpot_ms or 0.0) / 1000
            wide = ranks.peak_flops / ranks.rates.bf16_flops
            rows.append({"moe": bool(reads.experts), "seconds": case.ttft_ms / 1000 - other, "compute": terms.compute_s, "wide": wide})
    return _columns(rows)


def server_samples(engine: str) -> Samples:
    """Servers' time per output token."""
    rows = []
    for case, format, reads, ranks in served(engine):
        element, prompts = 1.0 if case.kv == "fp8" else 2.0, case.batch / max(case.gen, 1)
        piece = _plain(server_pieces(reads, ranks, case.prompt + case.gen / 2, case.batch, (element, element), prompts, case.prompt))
        naive = (weights_of(load(case.model, offline=True), format).total / case.tp) / ranks.rates.bandwidth
        group = f"{case.model} {case.quant} {case.gpu}"
        own = {"naive_s": naive, "fp8": quantises_activations(format), "model": case.model, "group": group}
        age = version_age(case.version) if engine == "vllm" else 0.0
        rows.append(piece | _common(case, reads, ranks.rates, (case.tpot_ms or 0.0) / 1000) | own | {"age": age})
    return _columns(rows)
