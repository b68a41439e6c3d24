"""The roofline: seconds of one decode step and of one prompt, as sums of named terms.

Each term is a quantity at the catalogue's full rate (a *piece*: bytes ÷ bandwidth, operations ÷ rate, layers) times a fitted
constant. Only + − × ÷ are used here, so the tool that fits the constants runs these very functions over arrays.
"""

from __future__ import annotations

from ..values import dataclass
from .constants import DecodeConstants, PrefillConstants, ServerConstants
from .hardware import Rates
from .reads import Reads

__all__ = [
    "DecodePieces", "DecodeTerms", "PrefillPieces", "PrefillTerms", "Ranks", "ServerPieces", "ServerTerms", "decode_pieces", "decode_terms",
    "prefill_flops", "prefill_pieces", "prefill_terms", "server_pieces", "server_prompt_terms", "server_terms",
]  # fmt: skip

#: What llama.cpp computes at once of a prompt, by default (llama.cpp common/common.h: n_ubatch 512).
UBATCH = 512


@dataclass(frozen=True, slots=True)
class DecodePieces:
    """One token of each of `sequences`: seconds at full rate. `issue_s` is weight bytes ÷ fp32 rate: per byte per flop.

    `repeat` is query heads ÷ KV heads: attention without its own kernels reads a KV head once for each of its query heads.
    """

    weights_s: float
    issue_s: float
    kv_s: float
    repeat: float
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
        repeat=reads.repeat,
        state_s=sequences * 2 * reads.state_bytes / rates.bandwidth,
        layers=reads.layers * rates.layer_scale,
    )


def decode_terms(c: DecodeConstants, p: DecodePieces) -> DecodeTerms:
    """Weights ÷ achieved bandwidth, the issue of their instructions, the cache, and a fixed time a layer. In seconds.

    The issue term (weight bytes ÷ fp32 rate) is why cards with much bandwidth for their arithmetic (A100, H100, V100, P100)
    reach a smaller share of it. Ignored: sampling, and the host's work between tokens beyond the layers' fixed time.
    """
    return DecodeTerms(
        weights_s=p.weights_s / c.weight_share + p.issue_s / c.issue_bytes_per_flop,
        kv_s=p.kv_s * p.repeat**c.repeat_exponent / c.kv_share + p.state_s / c.state_share,
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
        layer_runs=runs * reads.layers * rates.layer_scale,
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
    """One step of a server: seconds at full rate on one of the tensor-parallel GPUs. `weights_s` is all but the routed experts.

    `prompts_s` and `prompts_link_s` are of the other sequences' prompts that fall into one step.
    """

    weights_s: float
    experts_s: float
    kv_s: float
    compute_s: float
    layers: float
    sequences: float
    reduces: float
    link_s: float
    prompts_s: float
    prompts_link_s: float


@dataclass(frozen=True, slots=True)
class ServerTerms:
    weights_s: float
    kv_s: float
    compute_s: float
    overhead_s: float
    link_s: float
    prompts_s: float

    @property
    def total_s(self) -> float:
        return self.weights_s + self.kv_s + self.compute_s + self.overhead_s + self.link_s + self.prompts_s


@dataclass(frozen=True, slots=True)
class Ranks:
    """The GPUs of one tensor-parallel group: rates of the slowest, the matrix rate of the format, bytes per second to the others.

    `copies` such groups each take a share of the sequences (data parallelism); routed experts are spread over all of them.
    Of `stages` in a pipeline each works on another share of the sequences, and a token passes through all.
    """

    count: int
    rates: Rates
    peak_flops: float
    link_bytes_per_s: float | None
    copies: int = 1
    stages: int = 1

    def each(self, sequences: int) -> int:
        """Sequences of one step of one copy."""
        return -(-sequences // (self.copies * self.stages))

    def group(self, reads: Reads) -> int:
        """GPUs that wait for each other at every layer."""
        return self.count * (self.copies if reads.experts else 1)

    def reduced_s(self, reads: Reads, tokens: float) -> float:
        """Seconds at the link's full rate to sum the results of `tokens` tokens: two all-reduces of 16-bit vectors a layer."""
        group = self.group(reads)
        if group == 1 or not self.link_bytes_per_s:
            return 0.0
        return 2.0 * reads.layers * tokens * reads.hidden_size * 2 * 2 * (group - 1) / group / self.link_bytes_per_s


def server_pieces(
    reads: Reads, ranks: Ranks, history: float, sequences: int, kv_element_bytes: tuple[float, float], prompts: float = 0.0, prompt: int = 0
) -> ServerPieces:
    """One token of each sequence after `history` others; between two steps `prompts` prompts of `prompt` tokens are computed."""
    each = ranks.each(sequences)
    kv = each * (reads.kv_bytes(history, *kv_element_bytes) + 2 * reads.state_bytes)
    flops = 2.0 * each * (reads.active_parameters + reads.head_parameters) + each * reads.attention_flops(history)
    prompts /= ranks.copies * ranks.stages
    bandwidth, peak = ranks.count * ranks.rates.bandwidth, ranks.count * ranks.peak_flops
    return ServerPieces(
        weights_s=(reads.shared_bytes + reads.head_bytes) / bandwidth,
        experts_s=reads.expert_bytes * reads.touched(each * ranks.copies) / bandwidth / ranks.copies,
        kv_s=kv / bandwidth,
        compute_s=flops / peak,
        layers=reads.layers,
        sequences=each,
        reduces=2.0 * reads.layers if ranks.group(reads) > 1 else 0.0,
        link_s=ranks.reduced_s(reads, each),
        prompts_s=prompts * prefill_flops(reads, prompt) / peak,
        prompts_link_s=prompts * ranks.reduced_s(reads, prompt),
    )


def prefill_flops(reads: Reads, prompt: int) -> float:
    """Floating-point operations of one prompt, the output matrix apart."""
    return prompt * (2.0 * reads.active_parameters + reads.mean_attention_flops(prompt, 0))


def server_terms(c: ServerConstants, p: ServerPieces) -> ServerTerms:
    """Reads, arithmetic, a fixed time a layer and a sequence, two all-reduces a layer, and the prompts computed between. In seconds.

    The host's work for each sequence (sampling, detokenising, scheduling) is what a large batch adds beyond its bytes.
    """
    return ServerTerms(
        weights_s=p.weights_s / c.weight_share + p.experts_s / c.expert_share,
        kv_s=p.kv_s / c.kv_share,
        compute_s=p.compute_s / c.compute_share,
        overhead_s=p.layers * c.layer_s + p.sequences * c.sequence_s,
        link_s=p.reduces * c.reduce_s + p.link_s / c.link_share,
        prompts_s=p.prompts_s / c.prompt_share + p.prompts_link_s / c.link_share,
    )


def server_prompt_terms(c: ServerConstants, reads: Reads, ranks: Ranks, prompt: int) -> ServerTerms:
    """One prompt alone on an idle server. The share fitted to prompts computed beside decoding is no larger than the decode's own
    here, since nothing overlaps it. `idle_prompt` is what times to the first token took beyond that, and `idle_exponent` how little
    mixtures gain from a format's faster matrix units."""
    bandwidth = ranks.count * ranks.rates.bandwidth
    experts = reads.expert_bytes * reads.touched(prompt) / ranks.copies
    fixed = c.layer_s + (2 * c.reduce_s if ranks.group(reads) > 1 else 0.0)
    compute = prefill_flops(reads, prompt) / ranks.count / ranks.peak_flops / min(c.prompt_share, c.compute_share)
    return ServerTerms(
        weights_s=reads.shared_bytes / bandwidth / c.weight_share + experts / bandwidth / c.expert_share,
        kv_s=0.0,
        compute_s=compute * c.idle_prompt * (ranks.peak_flops / ranks.rates.bf16_flops) ** c.idle_exponent,
        overhead_s=reads.layers * fixed,
        link_s=ranks.reduced_s(reads, prompt) / c.link_share,
        prompts_s=0.0,
    )
