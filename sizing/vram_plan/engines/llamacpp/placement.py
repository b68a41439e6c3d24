"""Where llama.cpp puts each layer: on which GPU, or left in host memory.

Layers are counted from the back, the output matrix being the last: `n_gpu_layers` of them go to the GPUs, in shares
proportional to free memory or as `tensor_split` says. The embedding table stays in host memory always; where it is
the output matrix too, it is loaded a second time. Source: llama.cpp 0c1e57098, src/llama-model.cpp (`load_tensors`,
`get_layer_buft_list`), src/llama-arch.cpp (`LLM_TENSOR_INFOS`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from functools import cached_property, lru_cache
from typing import Final

from ...formats import Format
from ...formats.storage import storage_bytes
from ...models.architecture import LOOKED_UP, Basis, Tensor
from ...models.model import Model
from ...values import dataclass
from ..weights import weights_of
from .tape import padded

__all__ = ["FIRST", "HOST", "FileWeights", "Placement", "file_weights", "matrices", "on_gpu", "placed"]

HOST: Final = -1
#: Tensors of no layer that are kept with the first.
FIRST: Final = frozenset({"per_layer_model_proj", "per_layer_proj_norm"})
_WHOLE: Final = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, eq=False)
class FileWeights:
    """A GGUF's bytes by where they may go: of each layer its experts and the rest, the output layer, the input layer.

    `head` is the output matrix with what belongs to it; a tied embedding counts there as well as in `inputs`, but
    once in `file`.
    """

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    head: int
    inputs: int
    file: int
    basis: Basis
    tied: bool


@lru_cache(maxsize=256)
def file_weights(model: Model, format: Format) -> FileWeights:
    """The sums of a model's GGUF; vision and audio towers are a file of their own, draft (MTP) layers are not loaded."""
    weights = weights_of(model, format)
    head = inputs = embedding = 0
    tied = model.architecture.kind != "encoder"
    layers: dict[int, int] = defaultdict(int)
    stacks: dict[int, int] = defaultdict(int)
    for role, layer, shape, experts, stored_as, part in weights.tensors:
        if part != "text":
            continue
        size, layer = _allocated(stored_as, shape), 0 if role in FIRST else layer
        if layer is not None:
            (stacks if experts else layers)[layer] += size
            continue
        if role not in LOOKED_UP:  # the input layer stays on the CPU
            head, tied = head + size, tied and role != "output"
            continue
        inputs, embedding = inputs + size, size if role == "token_embd" else embedding
    count = len(weights.layers)
    rest, routed = (tuple(sums[i] for i in range(count)) for sums in (layers, stacks))
    head += embedding if tied else 0
    return FileWeights(rest, routed, head, inputs, weights.total - weights.towers + weights.mtp, weights.basis, tied)


@lru_cache(maxsize=256)
def matrices(model: Model, format: Format) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Of each layer, role and bytes on a GPU of every matrix: these are copied in one by one where they are in host memory."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for tensor in weights_of(model, format).tensors:
        layer = 0 if tensor.role in FIRST else tensor.layer
        if tensor.part == "text" and layer is not None and len(tensor.shape) > 1:
            found[layer][tensor.role] = on_gpu(tensor)
    return tuple(tuple(found[i].items()) for i in range(max(found, default=-1) + 1))


def on_gpu(tensor: Tensor) -> int:
    """Bytes of a tensor as allocated: CUDA pads the last row of a quantised one to a multiple of 512 elements."""
    return _allocated(tensor.stored_as, tensor.shape)


@lru_cache(maxsize=1 << 14)
def _allocated(stored_as: str, shape: tuple[int, ...]) -> int:
    size, rest = storage_bytes(stored_as, shape), -shape[-1] % 512
    if rest and stored_as not in _WHOLE:
        size += storage_bytes(stored_as, (1, rest))
    return padded(size)


@dataclass(frozen=True)
class Placement:
    """Which device each layer is on (HOST: none), and how many of the first layers keep their experts in host memory."""

    homes: tuple[int, ...]
    output: int
    expert_layers: int
    devices: int

    def layers_on(self, device: int) -> tuple[int, ...]:
        return self._layers.get(device, ())

    @cached_property
    def _layers(self) -> dict[int, tuple[int, ...]]:
        return {device: tuple(i for i, home in enumerate(self.homes) if home == device) for device in set(self.homes)}

    @property
    def all_on_gpu(self) -> bool:
        return self.output != HOST and HOST not in self.homes

    @property
    def pipelined(self) -> bool:
        """Several GPUs, and nothing left on the host or moved by hand: batches overlap, with 4 copies of the inputs."""
        return self.devices > 1 and self.all_on_gpu and not self.expert_layers


@lru_cache(maxsize=4096)
def placed(layers: int, gpu_layers: int, shares: tuple[float, ...], expert_layers: int = 0) -> Placement:
    """Of `layers` layers and the output, the last `gpu_layers` on the GPUs, in these shares of the number of layers."""
    total, ends = sum(shares) or 1.0, []
    for i in range(len(shares)):
        ends.append(sum(shares[: i + 1]) / total)
    start = max(layers + 1 - gpu_layers, 0)
    active = min(gpu_layers, layers + 1)

    def home(layer: int) -> int:
        return HOST if layer < start else min(bisect_right(ends, (layer - start) / active), len(shares) - 1)

    return Placement(tuple(home(i) for i in range(layers)), home(layers), expert_layers, len(shares))
