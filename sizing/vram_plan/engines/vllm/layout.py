"""How many bytes vLLM allocates for one rank's part of a weight in a number format.

Most formats take what their files take. vLLM keeps no `g_idx` of a GPTQ matrix, gives GPTQ experts biases, rounds
experts whose part is no multiple of a group or a block, and pads MXFP4 experts for the kernel it picks.
Source: vLLM 0.32, model_executor/layers/quantization (auto_gptq.py, moe_wna16.py), fused_moe/oracle/{fp8,mxfp4}.py.
"""

from __future__ import annotations

import math
from typing import Final

from ...formats.storage import block_elements, storage_bytes

__all__ = ["expert_bias_bytes", "expert_bytes", "expert_shape", "linear_bytes", "mxfp4_padding", "packed_bits"]

_BLOCK: Final = 128
#: Below this an FP8 scale block or a WNA16 group is not made smaller.
SMALLEST_GROUP: Final = 32
#: Multiples the hidden and the intermediate size are padded to before MXFP4 experts are allocated, by compute capability:
#: Marlin (Ampere, Ada, consumer Blackwell), Triton (Hopper), FlashInfer's TRT-LLM kernels (B200).
_MXFP4_PADDING: Final = {9: (1, 64), 10: (256, 128)}
_MXFP4_MARLIN: Final = (256, 128)


def linear_bytes(stored_as: str, shape: tuple[int, ...]) -> int:
    """One rank's part of a matrix or vector that is no expert's. Plain floats are loaded in 16 bits."""
    if stored_as in ("F16", "F32", "BF16"):
        return 2 * math.prod(shape)
    if stored_as.startswith("GPTQ"):
        return storage_bytes("AWQ" + (stored_as[4:] or "-4/128"), shape)
    return storage_bytes(stored_as, shape)


def mxfp4_padding(capability: tuple[int, int] | None, marlin: bool = False) -> tuple[int, int]:
    """What hidden and intermediate size are rounded up to on a GPU of that compute capability; Hopper where unknown."""
    if marlin:
        return _MXFP4_MARLIN
    return _MXFP4_PADDING.get(capability[0] if capability else 9, _MXFP4_MARLIN)


def expert_shape(stored_as: str, shape: tuple[int, ...], down: bool, padding: tuple[int, int]) -> tuple[int, ...]:
    """A stack's shape as allocated; `shape` is one rank's part. Only MXFP4 is padded: rows and columns swap roles in `down`."""
    if stored_as != "MXFP4" or len(shape) != 3:
        return shape
    rows, columns = padding if down else padding[::-1]
    return shape[0], -(-shape[1] // rows) * rows, -(-shape[2] // columns) * columns


def expert_bytes(stored_as: str, shape: tuple[int, ...], down: bool, padding: tuple[int, int], intermediate: int) -> int:
    """One rank's part of a stack of experts (number, rows, columns); `intermediate` is its part of an expert's width."""
    family = stored_as.split("-")[0]
    if family in ("AWQ", "GPTQ") and len(shape) == 3:
        return _wna16_bytes(stored_as, family, shape, intermediate)
    if family in ("FP8B", "FP8BE") and len(shape) == 3 and intermediate % _BLOCK:
        return _refined_fp8_bytes(shape, math.gcd(_BLOCK, intermediate, shape[1] if down else shape[2]))
    if family == "NVFP4S" and down:  # modelopt.py counts whole groups of 16
        return math.prod(shape) // 2 + math.prod(shape[:-1]) * (shape[-1] // 16) + 8 * shape[0]
    return linear_bytes(stored_as, expert_shape(stored_as, shape, down, padding))


def expert_bias_bytes(shape: tuple[int, ...], stored_as: str, down: bool, padding: tuple[int, int]) -> int:
    """A stack of expert biases, padded as its matrices."""
    if stored_as != "MXFP4":
        return 2 * math.prod(shape)
    to = padding[0] if down else padding[1]
    return 2 * shape[0] * (-(-shape[1] // to) * to)


def _wna16_bytes(stored_as: str, family: str, shape: tuple[int, ...], intermediate: int) -> int:
    """Marlin's layout with zero points (and GPTQ's zero biases), else the Triton one, its groups halved until they divide."""
    group = block_elements(stored_as)
    bits = packed_bits(stored_as)
    if group <= 1 or intermediate % group == 0:
        biases = 2 * shape[0] * shape[1] if family == "GPTQ" else 0
        return storage_bytes("AWQ" + (stored_as.removeprefix(family) or "-4/128"), shape) + biases
    while intermediate % group and group > SMALLEST_GROUP:
        group //= 2
    scales = shape[0] * shape[1] * (shape[2] // group)
    zeros = scales * bits // 8 if family == "AWQ" else 0
    return math.prod(shape) * bits // 8 + 2 * scales + zeros


def _refined_fp8_bytes(shape: tuple[int, ...], block: int) -> int:
    """FP8 experts whose scales are spread to smaller blocks, because a rank's part is no whole number of 128."""
    block = max(block, SMALLEST_GROUP)
    return math.prod(shape) + 4 * shape[0] * -(-shape[1] // block) * -(-shape[2] // block)


def packed_bits(stored_as: str) -> int:
    """Bits of one packed weight, scales apart; 16 for plain floats."""
    if stored_as in ("F16", "F32", "BF16"):
        return 16
    family, _, rest = stored_as.partition("-")
    if rest[:1].isdigit():
        return int(rest[0])
    return 8 if family in ("FP8T", "FP8C", "FP8B", "FP8BE", "INT8", "BNB8", "EETQ", "MXFP8") else 4
