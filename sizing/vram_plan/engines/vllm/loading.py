"""What loading on a GPU makes of the weights vLLM created: kernels repack them, keep copies and free parts; the allocator rounds.

By version: rows of `vllm_profiles.toml`, `[[loading]]`. Source: vLLM 0.11 to 0.32, model_executor/layers/fused_moe/oracle/mxfp4.py,
kernels/linear/mixed_precision/{machete,marlin}.py, layers/quantization/{gptq_marlin,auto_gptq,auto_awq}.py,
v1/attention/backends/mla/flashinfer_mla.py; triton_kernels, tensor_details/layout_details/hopper_{value,scale}.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from ...formats.storage import block_elements
from ...models.architecture import Tensor
from ...values import dataclass
from .layout import expert_shape, packed_bits
from .versions import numbers, table

__all__ = ["Held", "Loaded", "Loading", "loaded", "loading_of"]

#: A tensor of one rank: what it is, the shape of its part, its bytes as created.
Held = tuple[Tensor, tuple[int, ...], int]

_MIB: Final = 1 << 20
#: Roles whose tensors vLLM puts into one.
_FUSED: Final = {
    **dict.fromkeys(("attn_q", "attn_k", "attn_v"), "qkv"),
    **dict.fromkeys(("attn_q_a", "attn_kv_a_mqa"), "qkv_a"),
    **{f"ffn_{side}{kind}": f"gate_up{kind}" for side in ("gate", "up") for kind in ("", "_shexp", "_exps")},
}
#: Rows of MXFP4 scales are swizzled for 8 warps: 2 × 8 × 2 × 8.
_SCALE_ROWS: Final = 256
_MXFP4_BLOCK: Final = 32
#: Machete's tiles of inputs and outputs, and the group sizes it takes.
_MACHETE: Final = (64, 128)
_MACHETE_GROUP: Final = 128
#: From so many experts on MoE ran on Triton, not Marlin (compressed_tensors_moe.py of 0.8.5).
_MANY_EXPERTS: Final = 16


@dataclass(frozen=True, slots=True)
class Loading:
    """How one version and its successors load weights: the rows of `[[loading]]` up to `since`, together."""

    since: tuple[int, ...]
    mla_workspace_mib: int
    mxfp4_rows: int
    mxfp4_row_bytes: int
    mxfp4_groups: int
    mxfp4_scales_kept: bool
    gptq_index: bool
    awq_machete: bool
    moe_index: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes that loading adds to those created, why, and those it frees."""

    extra: int
    freed: int
    why: str


@lru_cache(maxsize=256)
def loading_of(version: str | None) -> Loading:
    """The row of a version; the newest without one."""
    rows: list[Loading] = []
    so_far: dict[str, Any] = {}
    for row in table()["loading"]:
        so_far = {**so_far, **row}
        rows.append(Loading(since=numbers(row["since"]), **{name: so_far[name] for name in Loading.__annotations__ if name != "since"}))
    return rows[-1] if version is None else [row for row in rows if row.since <= numbers(version)][-1]


def loaded(held: Iterable[Held], rule: Loading, hopper: bool, triton: bool) -> Loaded:
    """What loading does to one rank's tensors. `hopper`: compute capability 9; `triton`: MXFP4 experts run on Triton's kernels."""
    together: dict[object, list[Held]] = defaultdict(list)
    for part in held:
        tensor = part[0]
        together[tensor.part, tensor.layer, _FUSED.get(tensor.role, tensor.role)].append(part)
    added: dict[str, int] = defaultdict(int)
    freed, latent = 0, False
    for parts in together.values():
        tensor, shape, _ = parts[0]
        latent |= tensor.role == "attn_kv_b"
        if tensor.experts and tensor.stored_as == "MXFP4" and triton and len(shape) == 3:
            sizes = _swizzled(parts, rule)
            added["MXFP4 experts laid out for Triton"] += sum(sizes) - sum(size for *_, size in parts)
        else:
            sizes = [sum(min(_packed(*part), part[2]) for part in parts)]
        if triton and tensor.role.endswith("_exps.bias"):
            added["fp32 biases of the experts"] += sum(size for *_, size in parts)
        if tensor.role == "attn_kv_b" and packed_bits(tensor.stored_as) < 16:
            added["16-bit copies of kv_b_proj for MLA's decode"] += 2 * math.prod(shape)
        more, less = _zero_points(parts, rule, hopper)
        added["zero points and indices as Machete keeps them"] += more
        if rule.moe_index and tensor.stored_as.startswith("CT") and tensor.experts >= _MANY_EXPERTS and len(shape) == 3:
            added["two indices of every expert's inputs"] += 2 * 4 * shape[0] * shape[2]
        freed += less
        added["the allocator's rounding of large tensors to 2 MiB"] += sum(_slack(size) for size in sizes)
    added["FlashInfer's workspace for MLA"] += rule.mla_workspace_mib * _MIB * latent
    return Loaded(sum(added.values()), freed, ", ".join(text for text, size in added.items() if size))


def _packed(tensor: Tensor, shape: tuple[int, ...], size: int) -> int:
    return math.prod(shape) * packed_bits(tensor.stored_as) // 8


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _swizzled(parts: list[Held], rule: Loading) -> list[int]:
    """Values and scales of a stack of MXFP4 experts on Hopper, padded for Triton's layout, and the scales it was made from.

    Source: triton_kernels, `HopperMXValueLayout` and `HopperMXScaleLayout`; vLLM, `_swizzle_mxfp4`.
    """
    down = parts[0][0].role.startswith("ffn_down")
    shapes = [expert_shape("MXFP4", shape, down, (1, 64)) for _, shape, _ in parts]
    experts, rows, columns = shapes[0][0], sum(shape[1] for shape in shapes), shapes[0][2]
    values = experts * _up(rows, rule.mxfp4_rows) * _up(columns // 2, rule.mxfp4_row_bytes)
    groups = columns // _MXFP4_BLOCK
    scales = experts * _up(rows, _SCALE_ROWS) * _up(groups, rule.mxfp4_groups)
    return [values, scales, experts * rows * groups * rule.mxfp4_scales_kept]


def _zero_points(parts: list[Held], rule: Loading, hopper: bool) -> tuple[int, int]:
    """Bytes added and freed by what a 4-bit kernel does with zero points: Machete (Hopper) widens them to 16 bits, or keeps unused ones;
    Marlin frees those of symmetric GPTQ."""
    tensor, shape, _ = parts[0]
    family, bits = tensor.stored_as.split("-")[0], packed_bits(tensor.stored_as)
    if family not in ("GPTQ", "AWQ", "CTZ") or tensor.experts or len(shape) != 2:
        return 0, 0
    elements, group = sum(math.prod(part[1]) for part in parts), block_elements(tensor.stored_as)
    groups = elements // group if group > 1 else sum(part[1][0] for part in parts)
    rows = sum(part[1][0] for part in parts)
    machete = hopper and group in (0, 1, _MACHETE_GROUP) and shape[1] % _MACHETE[0] == 0 and rows % _MACHETE[1] == 0
    if family == "GPTQ":
        return (4 * shape[1] * rule.gptq_index, 0) if machete else (0, groups * bits // 8)
    return (groups * (16 - bits) // 8 if machete and (family == "CTZ" or rule.awq_machete) else 0), 0


def _slack(size: int) -> int:
    """What PyTorch's allocator keeps beyond a tensor of 10 MiB or more: its last 2 MiB, unless over 1 MiB of that is free."""
    rest = -size % (2 * _MIB)
    return rest if size >= 10 * _MIB and rest <= _MIB else 0
