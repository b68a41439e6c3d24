"""What vLLM leaves for its KV cache: the share of the GPU it asks for, less what the profile run finds in use.

The parts were fitted on start-up logs (38 runs of vLLM 0.19 on H100: mean error 0.06 GiB) and read in vLLM 0.32.0:
v1/worker/gpu_worker.py (determine_available_memory), engine/arg_utils.py (defaults), v1/worker/gpu/model_runner.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ...hardware.device import GIB, MIB, Device
from ...models.model import Model
from ...values import dataclass
from .settings import Settings
from .versions import Profile, table

__all__ = [
    "activation_bytes",
    "capability",
    "context_bytes",
    "graph_bytes",
    "linked",
    "non_torch_bytes",
]

#: Sizes CUDA graphs are captured at: 1, 2, 4, 8 … 256 by 8, 272 … 1024 by 16 (config/vllm.py).
CAPTURE_SIZES: Final = (1, 2, 4, *range(8, 256, 8), *range(256, 1025, 16))
#: The largest of them, and where it is larger: B200's kind, and gpt-oss whatever the sequences (models/config.py).
_LARGEST, _LARGEST_NEWER = 512, 1024
#: Bytes of the graphs, and of one layer's of the sizes up to 512, by capability 9 and above, or less; experts take more (vLLM's
#: own estimates in 28 logs of 0.19 on H100 and one of 0.21 on 24 GB).
_GRAPH_BYTES: Final = ((int(0.2 * GIB), int(0.0165 * GIB)), (int(0.05 * GIB), int(0.013 * GIB)))
_GRAPH_EXPERTS: Final = 1.15
#: What a vision tower's profile adds at 8,192 tokens (logged).
_TOWER_BYTES: Final = int(0.18 * GIB)
#: What else is there when the sampler peaks (logged, alike on all models).
_SAMPLER_BYTES: Final = 48 * MIB
#: What the process holds before vLLM looks: the driver's context, and NCCL's first buffers (H100: 79.19 − 78.68 and − 77.65 GiB).
_CONTEXT: Final = (int(0.51 * GIB), int(1.54 * GIB), int(0.3 * GIB), int(0.45 * GIB))


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Widths the activation peak hangs on."""

    vocab: int
    hidden: int
    dense: int
    expert: int
    towers: bool


@lru_cache(maxsize=256)
def _sizes(model: Model) -> _Sizes:
    a = model.architecture
    text = [t for t in a.tensors if t.part == "text" and t.layer is not None]
    down = [t for t in text if t.role.startswith("ffn_down") and len(t.shape) >= 2]
    return _Sizes(
        -(-a.vocab_size // 64) * 64,
        a.hidden_size,
        max((t.shape[-1] for t in down if not t.experts), default=0),
        max((t.shape[-1] for t in down if t.experts), default=0),
        any(t.part in ("vision", "audio") for t in a.tensors),
    )


def activation_bytes(
    model: Model, s: Settings, device: Device | None, *, samples: bool, marlin: bool = True, experts_cut: int | None = None
) -> tuple[int, str]:
    """Peak of the profile run, and why: the sampler on all sequences, or the feed-forward on a whole batch.

    The experts' workspace stays allocated and adds to either; the Triton experts of MXFP4 have none (`marlin` False); each is cut
    over `experts_cut` ranks. Copies (data parallelism) gather the tokens of all for them. `samples`: whether this pipeline stage
    is the last. Logits are gathered, so tensor parallelism does not shrink them.
    """
    z, a, profile, tokens, sequences, tp = _sizes(model), model.architecture, s.profile, s.tokens, s.sequences, s.tp
    per_logit = profile.logit_bytes_moe if a.experts or model.state_bytes else profile.logit_bytes
    residual = 2 * tokens * z.hidden
    sampler = sequences * z.vocab * per_logit + residual + _SAMPLER_BYTES if samples else 0
    if samples and profile.top_k_buffer:
        sampler += 4 * z.vocab * _multiprocessors(device)
    feed_forward = 6 * tokens * z.dense // tp + 4 * residual
    workspace = _workspace(z, a.experts_per_token, s, experts_cut or tp * s.dp) if z.expert and marlin else 0
    tower = _TOWER_BYTES * tokens // 8192 if z.towers else 0
    if sampler >= feed_forward:
        why = f"sampler: {sequences:,} sequences × {z.vocab:,} logits × {per_logit} B"
    else:
        why = f"feed-forward of a batch of {tokens:,} tokens × 3 × {z.dense // tp:,} × 2 B"
    if workspace:
        why += f"; {workspace / MIB:,.0f} MiB experts' workspace"
    return max(sampler, feed_forward) + workspace + tower, why


def _workspace(z: _Sizes, chosen: int, s: Settings, cut: int) -> int:
    """Two buffers a routed token, each as wide as the wider of the expert's matrices' sides; and the tokens of all copies.

    Source: vLLM 0.10 to 0.32, layers/fused_moe (fused_moe.py, modular_kernel.py; the all-gather of `--all2all-backend`'s default).
    """
    tokens = s.tokens * s.dp
    at_once = min(tokens, s.profile.moe_chunk_tokens or tokens)
    width = max(2 * z.expert // cut, z.hidden) + max(z.expert // cut, z.hidden)
    return 2 * at_once * chosen * width + (2 * tokens * z.hidden if s.dp > 1 else 0)


def _multiprocessors(device: Device | None) -> int:
    row = table()["multiprocessors"][0]
    name = device.name.lower() if device else ""
    return int(next((count for part, count in row["names"].items() if part.lower() in name), row["usual"]))


def linked(device: Device | None) -> bool:
    """Whether NCCL and the fused all-reduce find NVLink: data-centre cards from Hopper on."""
    return capability(device) in (9, 10)


def capability(device: Device | None) -> int:
    """The major number of the compute capability; 9 without a device, 8 where it is not known."""
    if device is None:
        return 9
    return device.capability[0] if device.capability else 8


def non_torch_bytes(model: Model, profile: Profile, device: Device | None, tp: int) -> int:
    """What the driver, NCCL and the all-reduce's workspaces take between start and the end of the profile (logged)."""
    row = profile.non_torch_mib if linked(device) else profile.non_torch_plain_mib
    extra: int = sum(e["non_torch_mib"] for e in table()["extra"] if e["family"] == model.architecture.family)
    return (row[0 if tp == 1 else 1 if tp == 2 else 2] + extra) * MIB


def context_bytes(device: Device | None, ranks: int) -> int:
    """What the process holds before vLLM takes its measure: outside the budget (logged)."""
    return _CONTEXT[(0 if linked(device) else 2) + (ranks > 1)]


def graph_bytes(model: Model, device: Device | None, *, sequences: int, layers: int, tokens: int, eager: bool) -> int:
    """CUDA graphs of one stage's layers, by the batch sizes captured: up to twice the sequences."""
    if eager:
        return 0
    most = _LARGEST_NEWER if capability(device) == 10 else _LARGEST
    largest = min(_LARGEST_NEWER if model.architecture.family == "gpt_oss" else min(2 * sequences, most), tokens)
    share = sum(size <= largest for size in CAPTURE_SIZES) / sum(size <= _LARGEST for size in CAPTURE_SIZES)
    fixed, per_layer = _GRAPH_BYTES[0 if linked(device) else 1]
    return int(fixed + layers * per_layer * share * (_GRAPH_EXPERTS if model.architecture.experts else 1))
