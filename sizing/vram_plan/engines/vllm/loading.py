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
from .allocator import allocated
from .layout import expert_shape, packed_bits
from .versions import numbers, table

__all__ = ["Held", "Loaded", "Loading", "loaded", "loading_of"]

#: A tensor of one rank: what it is, the shape of its part, its bytes as created.
Held = tuple[Tensor, tuple[int, ...], int]

_MIB: Final = 1 << 20
#: Roles whose tensors vLLM puts into one.
_FUSED: Final = {
    **dict.fromkeys(("attn_q", "attn_k", "attn_v"), "qkv"),
    **dict.fromkeys(("v.attn_q", "v.attn_k", "v.attn_v"), "v.qkv"),
    **dict.fromkeys(("attn_q_a", "attn_kv_a_mqa"), "qkv_a"),
    **{f"ffn_{side}{kind}": f"gate_up{kind}" for side in ("gate", "up") for kind in ("", "_shexp", "_exps")},
}
#: Rows of MXFP4 scales are swizzled for 8 warps: 2 × 8 × 2 × 8.
_SCALE_ROWS: Final = 256
_MXFP4_BLOCK: Final = 32
#: From this size on a tensor has memory of its own; what else an expert's layout is made from is freed again.
_OWN_SEGMENT: Final = 10 * _MIB
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
    act_order: bool
    awq_machete: bool
    moe_index: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes that loading adds to those created, why, and those it frees. `segments`: what PyTorch takes of the GPU beyond tensors."""

    extra: int
    freed: int
    why: str
    segments: int


@lru_cache(maxsize=256)
def loading_of(version: str | None) -> Loading:
    """The row of a version; the newest without one."""
    rows: list[Loading] = []
    so_far: dict[str, Any] = {}
    for row in table()["loading"]:
        so_far = {**so_far, **row}
        rows.append(Loading(since=numbers(row["since"]), **{name: so_far[name] for name in Loading.__annotations__ if name != "since"}))
    return rows[-1] if version is None else [row for row in rows if row.since <= numbers(version)][-1]


def loaded(held: Iterable[Held], rule: Loading, hopper: bool, triton: bool, act_order: bool = False) -> Loaded:
    """What loading does to one rank's tensors. `hopper`: compute capability 9; `triton`: MXFP4 experts run on Triton's kernels;
    `act_order`: GPTQ's rows are in an order of their own (activation order, with groups)."""
    together: dict[object, list[Held]] = defaultdict(list)
    for part in held:
        tensor = part[0]
        together[tensor.part, tensor.layer, _FUSED.get(tensor.role, tensor.role)].append(part)
    added: dict[str, int] = defaultdict(int)
    sizes: list[int] = []
    freed, latent = 0, False
    for parts in sorted(together.values(), key=_creation):
        tensor, shape, _ = parts[0]
        latent |= tensor.role == "attn_kv_b"
        if tensor.experts and tensor.stored_as == "MXFP4" and triton and len(shape) == 3:
            swizzled = _swizzled(parts, rule)
            added["MXFP4 experts laid out for Triton"] += sum(swizzled) - sum(size for *_, size in parts)
            sizes += [size for size in swizzled if size >= _OWN_SEGMENT]
        else:
            sizes += _created(parts)
        if triton and tensor.role.endswith("_exps.bias"):
            added["fp32 biases of the experts"] += sum(size for *_, size in parts)
        if tensor.role == "attn_kv_b" and packed_bits(tensor.stored_as) < 16:
            added["16-bit copies of kv_b_proj for MLA's decode"] += 2 * math.prod(shape)
        machete = hopper and _runs_on_machete(parts, act_order)
        more, less = _zero_points(parts, rule, machete)
        added["zero points and indices as Machete keeps them"] += more
        if act_order:
            added["indices of activation order"] += _order(parts, rule, machete)
        if rule.moe_index and tensor.stored_as.startswith("CT") and tensor.experts >= _MANY_EXPERTS and len(shape) == 3:
            added["two indices of every expert's inputs"] += 2 * 4 * shape[0] * shape[2]
        freed += less
    slack, idle = allocated(sizes)
    added["what the allocator rounds up"] += slack
    added["FlashInfer's workspace for MLA"] += rule.mla_workspace_mib * _MIB * latent
    return Loaded(sum(added.values()), freed, ", ".join(text for text, size in added.items() if size), slack + idle)


def _creation(parts: list[Held]) -> tuple[bool, int, bool]:
    """The order vLLM creates tensors in: towers before the text model, embedding, layers (attention first), head."""
    tensor = parts[0][0]
    layer = tensor.layer if tensor.layer is not None else -1 if "embd" in tensor.role else 1 << 30
    return tensor.part == "text", layer, tensor.role.startswith(("ffn", "exp_probs"))


def _created(parts: list[Held]) -> list[int]:
    """Tensors of weights that vLLM puts into one: packed values, scales, zero points."""
    stored_as = parts[0][0].stored_as
    bits, size = packed_bits(stored_as), sum(size for *_, size in parts)
    packed = sum(min(_packed(*part), part[2]) for part in parts)
    group = block_elements(stored_as)
    zeros = packed // group if bits < 8 and group > 1 and stored_as.startswith(("GPTQ", "AWQ", "CTZ")) else 0
    return [packed, max(size - packed - zeros, 0), zeros]


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


def _runs_on_machete(parts: list[Held], act_order: bool) -> bool:
    """Whether Hopper's kernel takes a packed matrix: whole tiles, and with activation order inputs that are not cut."""
    tensor, shape, _ = parts[0]
    if len(shape) != 2 or (act_order and shape[1] != tensor.shape[-1]):
        return False
    rows = sum(part[1][0] for part in parts)
    return block_elements(tensor.stored_as) in (0, 1, _MACHETE_GROUP) and shape[1] % _MACHETE[0] == 0 and rows % _MACHETE[1] == 0


def _zero_points(parts: list[Held], rule: Loading, machete: bool) -> tuple[int, int]:
    """Bytes added and freed by what a 4-bit kernel does with zero points: Machete (Hopper) widens them to 16 bits, or keeps unused ones;
    Marlin frees those of symmetric GPTQ."""
    tensor, shape, _ = parts[0]
    family, bits = tensor.stored_as.split("-")[0], packed_bits(tensor.stored_as)
    if family not in ("GPTQ", "AWQ", "CTZ") or tensor.experts or len(shape) != 2:
        return 0, 0
    elements, group = sum(math.prod(part[1]) for part in parts), block_elements(tensor.stored_as)
    groups = elements // group if group > 1 else sum(part[1][0] for part in parts)
    if family == "GPTQ":
        return (4 * shape[1] * rule.gptq_index, 0) if machete else (0, groups * bits // 8)
    return (groups * (16 - bits) // 8 if machete and (family == "CTZ" or rule.awq_machete) else 0), 0


def _order(parts: list[Held], rule: Loading, machete: bool) -> int:
    """Indices that sort the inputs of a packed matrix, beside those Machete keeps anyway, and scales of inputs other ranks have.

    Source: vLLM 0.19, kernels/linear/mixed_precision/{machete,marlin}.py, quantization/gptq_marlin.py,
    compressed_tensors_wNa16.py, marlin_utils.py (`marlin_repeat_scales_on_all_ranks`).
    """
    tensor, shape, _ = parts[0]
    family = tensor.stored_as.split("-")[0]
    if family not in ("GPTQ", "CT", "CTZ"):
        return 0
    counted = family == "GPTQ" and machete and rule.gptq_index
    stacked = shape[0] if len(shape) == 3 else 1
    indices = (1 if counted else 2) * 4 * shape[-1] * stacked
    groups = (tensor.shape[-1] - shape[-1]) // max(block_elements(tensor.stored_as), 1)
    return indices + sum(2 * groups * math.prod(part[1][:-1]) for part in parts)
