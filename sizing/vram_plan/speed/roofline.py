"""The roofline: seconds of one decode step and of one prompt, as sums of named terms.

Each term is a quantity at the catalogue's full rate (a *piece*: bytes ÷ bandwidth, operations ÷ rate, layers) times a fitted
constant. Only + − × ÷ are used here, so the tool that fits the constants runs these very functions over arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

from .constants import DecodeConstants, PrefillConstants, ServerConstants
from .hardware import Rates
from .reads import Reads

__all__ = [
    "DecodePieces", "DecodeTerms", "PrefillPieces", "PrefillTerms", "ServerPieces", "ServerTerms", "decode_pieces", "decode_terms",
    "prefill_pieces", "prefill_terms", "server_pieces", "server_terms",
]  # fmt: skip

#: What llama.cpp computes at once of a prompt, by default (llama.cpp common/common.h: n_ubatch 512).
UBATCH = 512


@dataclass(frozen=True, slots=True)
class DecodePieces:
    """One token of each of `sequences`: seconds at full rate. `issue_s` is weight bytes ÷ fp32 rate: per byte per flop."""

    weights_s: float
    issue_s: float
    kv_s: float
    state_s: float
    layers: float


@dataclass(frozen=True, slots=True)
class DecodeTerms:
    weights_s: float
    kv_s: float
    overhead_s: float

    @property
    def total_s(self) -> float:
        return self.weights_s + self.kv_s + self.overhead_s


def decode_pieces(reads: Reads, rates: Rates, history: float, sequences: float, k_bytes: float, v_bytes: float) -> DecodePieces:
    """What llama.cpp reads to write one more token of each sequence after `history` others."""
    weights = reads.weight_bytes(sequences)
    return DecodePieces(
        weights_s=weights / rates.bandwidth,
        issue_s=weights / rates.fp32_flops,
        kv_s=sequences * reads.kv_bytes(history, k_bytes, v_bytes) / rates.bandwidth,
        state_s=sequences * 2 * reads.state_bytes / rates.bandwidth,
        layers=reads.layers,
    )


def decode_terms(c: DecodeConstants, p: DecodePieces) -> DecodeTerms:
    """Weights ÷ achieved bandwidth, the issue of their instructions, the cache, and a fixed time a layer. In seconds.

    The issue term (weight bytes ÷ fp32 rate) is why cards with much bandwidth for their arithmetic (A100, H100, V100, P100)
    reach a smaller share of it. Ignored: sampling, and the host's work between tokens beyond the layers' fixed time.
    """
    return DecodeTerms(
        weights_s=p.weights_s / c.weight_share + p.issue_s / c.issue_bytes_per_flop,
        kv_s=p.kv_s / c.kv_share + p.state_s / c.state_share,
        overhead_s=p.layers * c.layer_s,
    )


@dataclass(frozen=True, slots=True)
class PrefillPieces:
    """One prompt in micro-batches: seconds at full rate; `layer_runs` is layers × micro-batches."""

    tensor_s: float
    issue_s: float
    attention_s: float
    weights_s: float
    layer_runs: float
    tensor_flops: float


@dataclass(frozen=True, slots=True)
class PrefillTerms:
    compute_s: float
    weights_s: float
    overhead_s: float

    @property
    def total_s(self) -> float:
        return self.compute_s + self.weights_s + self.overhead_s


def prefill_pieces(reads: Reads, rates: Rates, prompt: int, depth: int = 0, ubatch: int = UBATCH) -> PrefillPieces:
    """What `prompt` tokens after `depth` others take. The output matrix works for the last token only and is left out."""
    runs = -(-prompt // ubatch)
    at_once = min(prompt, ubatch)
    flops = 2.0 * reads.active_parameters * prompt
    weights = reads.shared_bytes + reads.expert_bytes * reads.touched(at_once)
    return PrefillPieces(
        tensor_s=flops / rates.tensor_flops,
        issue_s=flops / rates.issue_flops,
        attention_s=reads.mean_attention_flops(prompt, depth) * prompt / rates.tensor_flops,
        weights_s=runs * weights / rates.bandwidth,
        layer_runs=runs * reads.layers,
        tensor_flops=rates.tensor_flops,
    )


def prefill_terms(c: PrefillConstants, p: PrefillPieces) -> PrefillTerms:
    """Matrix work, attention, the weights once a micro-batch, a fixed time a layer and micro-batch. In seconds.

    Large GPUs reach a smaller share of their matrix rate on 512 tokens at once: `scale_exponent`, about 10¹⁴ operations a second.
    """
    slower = (p.tensor_flops / 1e14) ** c.scale_exponent
    return PrefillTerms(
        compute_s=p.tensor_s * slower / c.tensor_share + p.issue_s / c.issue_share + p.attention_s * slower / c.attention_share,
        weights_s=p.weights_s / c.weight_share,
        overhead_s=p.layer_runs * c.layer_s,
    )


@dataclass(frozen=True, slots=True)
class ServerPieces:
    """One step of a server: seconds at full rate on one of the tensor-parallel GPUs."""

    weights_s: float
    kv_s: float
    compute_s: float
    layers: float
    reduces: float
    link_s: float
    prefill_s: float


@dataclass(frozen=True, slots=True)
class ServerTerms:
    weights_s: float
    kv_s: float
    compute_s: float
    overhead_s: float
    link_s: float
    prefill_s: float

    @property
    def total_s(self) -> float:
        return self.weights_s + self.kv_s + self.compute_s + self.overhead_s + self.link_s + self.prefill_s


def server_pieces(
    reads: Reads,
    rates: Rates,
    peak_flops: float,
    history: float,
    sequences: int,
    kv_element_bytes: tuple[float, float],
    ranks: int,
    link_bytes_per_s: float | None,
    prefill_flops_per_token: float,
) -> ServerPieces:
    """One token of each sequence on `ranks` tensor-parallel GPUs; `prefill_flops_per_token` of others' prompts in between."""
    kv = sequences * (reads.kv_bytes(history, *kv_element_bytes) + 2 * reads.state_bytes)
    flops = 2.0 * sequences * (reads.active_parameters + reads.head_parameters) + sequences * reads.attention_flops(history)
    moved = 2.0 * reads.layers * sequences * reads.hidden_size * 2 * 2 * (ranks - 1) / ranks
    return ServerPieces(
        weights_s=reads.weight_bytes(sequences) / ranks / rates.bandwidth,
        kv_s=kv / ranks / rates.bandwidth,
        compute_s=flops / ranks / peak_flops,
        layers=reads.layers,
        reduces=2.0 * reads.layers if ranks > 1 else 0.0,
        link_s=moved / link_bytes_per_s if link_bytes_per_s and ranks > 1 else 0.0,
        prefill_s=prefill_flops_per_token / ranks / peak_flops,
    )


def server_terms(c: ServerConstants, p: ServerPieces) -> ServerTerms:
    """Reads, arithmetic, a fixed time a layer, two all-reduces a layer, and the prompts computed between. In seconds."""
    return ServerTerms(
        weights_s=p.weights_s / c.weight_share,
        kv_s=p.kv_s / c.weight_share,
        compute_s=p.compute_s / c.compute_share,
        overhead_s=p.layers * c.layer_s,
        link_s=p.reduces * c.reduce_s + p.link_s,
        prefill_s=p.prefill_s / c.prefill_share,
    )
