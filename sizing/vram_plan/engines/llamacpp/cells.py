"""What a llama.cpp context is asked for, and what it keeps between batches: KV cells and recurrent state.

Source: llama.cpp 0c1e57098: src/llama-context.cpp (padding of n_ctx), llama-kv-cache-iswa.cpp (ring of a sliding window),
llama-kv-cache.cpp, llama-hparams.cpp (`n_embd_r`, `n_embd_s`).
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import Final, NamedTuple

from ...formats.cache_types import CACHE_TYPES
from ...models.architecture import Architecture, CacheLayer
from ...models.gguf_families import WINDOWS
from ...models.model import Model
from ...values import dataclass
from .tape import padded

__all__ = ["CELLS", "Context", "KvGroup", "cache_layers", "kv_groups", "state_elements", "state_widths"]

#: Families whose configs llama.cpp's converter turns into an architecture that has windows (`WINDOWS`, by GGUF name).
_WINDOWED: Final = frozenset({
    "afmoe", "cohere2", "cohere2_moe", "deepseek_v4", "dots3", "exaone4", "exaone4_5", "exaone_moe", "gemma2", "gemma3", "gemma3_text",
    "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified", "gpt_oss", "granite_swa", "granitemoe_swa", "laguna", "lfm2",
    "llama4", "llama4_text", "maple", "mellum", "mimo_v2", "mimo_v2_flash", "olmo3", "plamo3", "smallthinker", "spark2_5", "step3p5",
})  # fmt: skip
#: Families with a latent that llama.cpp caches as K and V of every head (src/models/minicpm3.cpp, plm.cpp).
_EXPANDED: Final = frozenset({"minicpm3", "plm"})
#: Layers of the one EXAONE 4 (32B) with windows: llama.cpp knows it by their number (src/models/exaone4.cpp).
_EXAONE_LAYERS: Final = 64
#: Numbers of cells are multiples of this (GGML_PAD(cparams.n_ctx, 256)).
CELLS: Final = 256


class Context(NamedTuple):
    """One llama_context. `length` is the cells of one sequence, `streams` the caches that long: 1 when `unified`.

    `fuses`: experts are weighed and summed up in one step; `picks_last`: models with prediction layers pick the rows asked for
    after the last layer, not within it.
    """

    length: int
    parallel: int
    unified: bool
    ubatch: int
    flash: bool
    kv_k: str
    kv_v: str
    outputs: int
    swa_full: bool = False
    mask_cast: bool = False
    fp16_copies: bool = True
    rotates: bool = True
    rollback: int = 0
    mixed: bool = False
    picks_last: bool = True
    fuses: bool = False

    @property
    def states(self) -> int:
        """Copies of a sequence's recurrent state, all sequences: one more for each token that may be taken back."""
        return self.parallel * (1 + self.rollback)

    @property
    def streams(self) -> int:
        return 1 if self.unified else self.parallel

    @property
    def tokens(self) -> int:
        """Tokens of the largest graph reserved: a whole number for each sequence."""
        return -(-min(self.ubatch, self.cells) // self.parallel) * self.parallel

    @property
    def cells(self) -> int:
        """n_ctx: the cells of all sequences."""
        return self.length * self.streams

    def ring(self, window: int) -> int:
        """Cells one stream keeps of a layer that sees `window` tokens: the window of every sequence and one batch more."""
        if self.swa_full or not window:
            return self.length
        return padded(min(self.length, window * (self.parallel if self.unified else 1) + self.ubatch), CELLS)


@lru_cache(maxsize=256)
def cache_layers(a: Architecture) -> tuple[CacheLayer, ...]:
    """What llama.cpp caches: windows of families it does not implement them for (Mistral, Phi-3, Qwen2) are as long as the context."""
    if a.family in _EXPANDED:
        return tuple(_expanded(a, layer) for layer in a.cache_layers)
    if (a.family in _WINDOWED or a.family in WINDOWS) and (a.family != "exaone4" or a.layers == _EXAONE_LAYERS):
        return a.cache_layers
    return tuple(layer._replace(kind="full", window=0) if layer.kind in ("sliding", "chunked") else layer for layer in a.cache_layers)


def _expanded(a: Architecture, layer: CacheLayer) -> CacheLayer:
    """K and V of every head, made of the latent."""
    shapes = {t.role: t.shape for t in a.tensors if t.layer == layer.layer and t.part == "text"}
    heads = layer.heads or a.heads
    q, both = (shapes.get(role, (0,))[0] for role in ("attn_q_b" if "attn_q_b" in shapes else "attn_q", "attn_kv_b"))
    k_dim, v_dim = q // heads, shapes.get("attn_output", (0, 0))[-1] // heads
    return layer._replace(kind="full", kv_heads=heads, k_dim=k_dim, v_dim=v_dim, latent_rank=0) if both else layer


@dataclass(frozen=True, slots=True)
class KvGroup:
    """`count` layers that cache the same: bytes of K and V a cell, and what each tensor's last row is padded by."""

    count: int
    window: int
    k_cell: int
    v_cell: int
    k_pad: int
    v_pad: int

    def bytes(self, context: Context) -> int:
        """K and V of all streams: one tensor each a layer, allocated at whole multiples of 128 bytes."""
        cells = context.ring(self.window) * context.streams
        sizes = padded(cells * self.k_cell + self.k_pad), padded(cells * self.v_cell + self.v_pad)
        return self.count * sum(sizes)


@lru_cache(maxsize=1024)
def kv_groups(model: Model, layers: tuple[int, ...], kinds: tuple[str, str], flash: bool, row_padding: bool) -> tuple[KvGroup, ...]:
    """What these layers cache, equal ones together. Without flash attention V is kept transposed, and where its width
    varies from layer to layer (Gemma 4) each gets the widest (llama-kv-cache.cpp, `n_embd_v_gqa_max`)."""
    chosen = set(layers)
    owners = [layer for layer in cache_layers(model.architecture) if layer.kv_heads and layer.kind not in ("shared", "cross")]
    widest = max((layer.kv_heads * layer.v_dim for layer in owners), default=0)
    counts: dict[tuple[int, int, int], int] = defaultdict(int)
    for layer in owners:
        if layer.layer in chosen:
            v_width = layer.kv_heads * layer.v_dim
            counts[layer.window, layer.kv_heads * layer.k_dim + layer.index_dim, v_width if flash or not v_width else widest] += 1
    pads = kinds if row_padding else ("f16", "f16")
    return tuple(
        KvGroup(count, window, _row(k, kinds[0]), _row(v, kinds[1]), _row_pad(k, pads[0]), _row_pad(v, pads[1]))
        for (window, k, v), count in counts.items()
    )


def _row(width: int, kind: str) -> int:
    return int(-(-width * CACHE_TYPES[kind] // 1))


def _row_pad(width: int, kind: str) -> int:
    """CUDA pads the end of a quantised tensor to rows of 512 elements (`MATRIX_ROW_PADDING`)."""
    return _row(-width % 512, kind) if width and kind not in ("f32", "f16", "bf16") else 0


@lru_cache(maxsize=256)
def state_widths(model: Model) -> tuple[tuple[int, int, int], ...]:
    """(layer, convolution elements, state elements) one sequence keeps; both in fp32.

    The inventory counts a convolution as transformers keeps it, all inputs of the kernel; llama.cpp drops the oldest.
    """
    if not model.state_bytes:
        return ()
    kernels: dict[int, int] = defaultdict(int)
    for tensor in model.architecture.tensors:
        if tensor.layer is not None and tensor.part == "text" and ("conv1d" in tensor.role or tensor.role == "shortconv.conv"):
            kernels[tensor.layer] = max(kernels[tensor.layer], tensor.shape[-1] if len(tensor.shape) > 1 else 0)
    found = []
    for layer in model.cache_layers:
        if layer.conv_elements or layer.state_elements:
            kernel = kernels[layer.layer]
            conv = layer.conv_elements * (kernel - 1) // kernel if kernel else layer.conv_elements
            found.append((layer.layer, conv, layer.state_elements))
    return tuple(found)


@lru_cache(maxsize=1024)
def state_elements(model: Model, layers: tuple[int, ...]) -> int:
    """Elements these layers keep of one sequence."""
    chosen = set(layers)
    return sum(conv + state for layer, conv, state in state_widths(model) if layer in chosen)
