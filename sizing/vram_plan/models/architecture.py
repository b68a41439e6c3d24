"""The two lists everything is summed from: the weights of a model, and what each layer keeps per sequence."""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property
from typing import Final, Literal, NamedTuple

from ..values import dataclass

__all__ = ["LOOKED_UP", "Architecture", "Basis", "CacheKind", "CacheLayer", "Part", "Tensor"]

Basis = Literal["exact", "formula", "measured", "fallback"]
Part = Literal["text", "vision", "audio", "projector", "mtp"]
CacheKind = Literal["full", "sliding", "chunked", "latent", "compressed", "recurrent", "shared", "cross"]

#: Bytes per element of the cache types transformers itself can hold.
CACHE_ELEMENT_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "fp8": 1}


#: Tables a token's row is looked up in, never multiplied with (`token_embd` is, where it is the output matrix too).
LOOKED_UP: Final = frozenset({"token_embd", "position_embd", "token_types", "per_layer_token_embd"})
#: Roles of constant tables: they take bytes in a file, but nobody trained them.
_TABLES = ("rope_", "buffer.")


class Tensor(NamedTuple):
    """One weight, or one stack of expert weights.

    `role` is the field's most used short name, the one GGUF files use: `token_embd`, `output`, `attn_q`, `ffn_down`,
    `ffn_down_exps`, `ssm_in` …; a bias ends in `.bias`. `shape` is row-major as in torch, so the last number is the
    length of a row (the input width); a stack of routed experts has their number first, and in `experts`.
    `stored_as` is a key of `formats.storage` (`BF16`, `Q4_K`, …).
    """

    role: str
    layer: int | None
    shape: tuple[int, ...]
    experts: int = 0
    stored_as: str = "BF16"
    part: Part = "text"

    @property
    def parameters(self) -> int:
        """Elements; none for a constant table some files carry (rope frequencies, position numbers)."""
        return 0 if self.role.startswith(_TABLES) else math.prod(self.shape)


class CacheLayer(NamedTuple):
    """What one layer keeps for one sequence. A layer with attention and a state (Falcon-H1) has two of these.

    Per token: `kv_heads × (k_dim + v_dim) + index_dim` elements. A latent layer (MLA) has one head whose `k_dim` is
    the latent and the rotary part together, and no V. A `compressed` layer keeps `window` tokens and, of all
    before, one entry of `compressed_dim` elements for every `compress_ratio` tokens (and an index key of
    `index_dim` with each). A `shared` layer reads the cache of layer `source`. `conv_elements` are kept in the
    model's dtype, `state_elements` in fp32.
    """

    layer: int
    kind: CacheKind
    heads: int = 0
    kv_heads: int = 0
    k_dim: int = 0
    v_dim: int = 0
    window: int = 0
    index_dim: int = 0
    latent_rank: int = 0
    compress_ratio: int = 0
    compressed_dim: int = 0
    conv_elements: int = 0
    state_elements: int = 0
    source: int | None = None

    @property
    def anywhere(self) -> CacheLayer:
        """The same, whichever layer it is of: what layers have in common."""
        return CacheLayer(0, *self[1:-1])

    @property
    def elements_per_token(self) -> int:
        """K and V (or latent) elements one more token adds while no window is full; the index key apart."""
        return self.kv_heads * (self.k_dim + self.v_dim)

    def tokens_held(self, context: int) -> int:
        """Tokens whose K and V are kept after `context` tokens, as transformers holds them: a window of W keeps W − 1."""
        if self.kind in ("sliding", "chunked", "compressed") and self.window:
            return min(context, self.window - 1)
        return 0 if self.kind in ("recurrent", "shared", "cross") else context

    def kv_elements(self, context: int) -> int:
        """Elements kept for one sequence of `context` tokens, constant state apart."""
        held = self.tokens_held(context) * self.elements_per_token
        if self.compress_ratio:
            return held + context // self.compress_ratio * (self.compressed_dim + self.index_dim)
        return held + (context * self.index_dim if self.index_dim else 0)


@dataclass(frozen=True)
class Architecture:
    """A model's shape, as its config or file header tells it; the weights' number formats apart.

    `family` is the dialect that read it. `basis` is `formula` for a known family, `fallback` for the standard
    reading of an unknown one. `dtype` is what the config says weights and activations are. `parallel_residual` where a layer's
    feed-forward part has a norm of its own and reads the layer's input, not what attention made of it.
    """

    name: str
    family: str
    kind: Literal["decoder", "encoder", "encoder-decoder"]
    hidden_size: int
    layers: int
    vocab_size: int
    heads: int
    trained_context: int | None
    tied_embeddings: bool
    tensors: tuple[Tensor, ...]
    cache_layers: tuple[CacheLayer, ...]
    experts: int = 0
    experts_per_token: int = 0
    dtype: str = "BF16"
    basis: Basis = "formula"
    notes: tuple[str, ...] = ()
    parallel_residual: bool = False

    def __hash__(self) -> int:
        """Of its shape in short: hashing every tensor costs more than a plan."""
        return hash((self.name, self.hidden_size, self.layers, self.vocab_size, len(self.tensors)))

    def kv_bytes(self, context: int, element_bytes: float = 2) -> int:
        """Bytes one sequence of `context` tokens keeps, as transformers' cache holds them (no engine's padding)."""
        return int(sum(count * layer.kv_elements(context) for layer, count in self.cache_kinds) * element_bytes)

    @cached_property
    def cache_kinds(self) -> tuple[tuple[CacheLayer, int], ...]:
        """The cache layers that differ in more than their place, and how many there are of each."""
        counts = Counter(layer.anywhere for layer in self.cache_layers)
        return tuple(counts.items())

    @cached_property
    def state_bytes(self) -> int:
        """Constant bytes per sequence: convolution states in 16 bits, recurrent states in fp32."""
        return sum(2 * layer.conv_elements + 4 * layer.state_elements for layer in self.cache_layers)
