"""The GGUF mixes: which number format llama.cpp's quantiser gives each tensor of a model.

The rules are rows of `gguf_mixes.csv`. A cell lists alternatives, `Q6_K more | Q5_K large`: the first whose conditions
all hold is taken, `-` and an empty rest mean the mix's base type. Source: llama.cpp, src/llama-quant.cpp.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Final

from vram_plan_data import ROOT

from ..errors import FormatError
from ..models.architecture import Tensor
from ..values import dataclass
from .storage import block_elements

__all__ = ["GgufFacts", "is_mix", "mix_bits", "mix_names", "mix_types", "quantisable"]

PLAIN_MIXES: Final = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What the rules ask of a model. `layers` counts the draft (MTP) layers in the file too; `group` is query heads
    per KV head of the first layer, 0 where that has no attention; `large` is llama.cpp's type "70B"."""

    layers: int
    group: int
    experts: int = 0
    large: bool = False
    falcon: bool = False
    imatrix: bool = False


#: Conditions of a cell: of the model, the index of the tensor among its kind (or its layer), and how many there are.
_CONDITIONS: Final[dict[str, Callable[[GgufFacts, int, int], bool]]] = {
    "gqa4": lambda f, i, n: f.group >= 4,
    "experts4": lambda f, i, n: f.experts >= 4,
    "experts8": lambda f, i, n: f.experts == 8,
    "large": lambda f, i, n: f.large,
    "falcon": lambda f, i, n: f.falcon,
    "imatrix": lambda f, i, n: f.imatrix,
    "first2": lambda f, i, n: i < 2,
    "first4": lambda f, i, n: i < 4,
    "earliest": lambda f, i, n: i < n // 16,
    "early": lambda f, i, n: i < n // 8,
    "early_counted": lambda f, i, n: i < n // 8,
    "middle": lambda f, i, n: n // 8 <= i < 7 * n // 8,
    "more": lambda f, i, n: i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2,
}
_TEXT: Final = ("name", "typical_bits", "note", "source")
_Cell = tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]

#: What a role's name must end in, or hold, to fall into a column of the table; the first match counts.
_ENDINGS: Final = {
    "attn_qkv": "attn_v",
    "attn_kv_b": "attn_v",
    "attn_v": "attn_v",
    "attn_k": "attn_k",
    "attn_q": "attn_q",
    "attn_output": "attn_output",
}
_STACKS: Final = ("enc.", "dec.")
_PARTS: Final = ("ffn_up", "ffn_gate", "ffn_down")

#: Names the quantiser never touches, by a part of the name, and those that have no `.weight` at their end.
_KEPT: Final = (
    "ffn_gate_tid2eid", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "time_mix_first", "time_mix_w0", "time_mix_w1",
    "time_mix_w2", "time_mix_v0", "time_mix_v1", "time_mix_v2", "time_mix_a0", "time_mix_a1", "time_mix_a2", "time_mix_g1", "time_mix_g2",
    "time_mix_decay_w1", "time_mix_decay_w2", "time_mix_lerp_fused",
)  # fmt: skip
_KEPT_ENDINGS: Final = ("_norm", ".bias", "ffn_gate_inp", "attn_rel_b", "shortconv.conv", "indexer.k_proj", "indexer.q_proj")
_KEPT_NAMES: Final = frozenset({"position_embd", "token_types", "ssm_a", "ssm_d", "ssm_dt_b", "time_mix_decay"})


@lru_cache(maxsize=1024)
def quantisable(role: str) -> bool:
    """Whether the quantiser may touch a matrix of this role (`tensor_allows_quantization`; 1-D ones it never does)."""
    return not (role in _KEPT_NAMES or role.endswith(_KEPT_ENDINGS) or any(part in role for part in _KEPT))


@lru_cache(maxsize=1024)
def _column(role: str) -> str:
    """The table's column for a role; "" for those that always get the base type."""
    if role in ("output", "token_embd", "per_layer_token_embd"):
        return "output" if role == "output" else "token_embd"
    if role.startswith(_STACKS) and role.endswith("attn_output"):  # called attn_o there
        return ""
    for ending, column in _ENDINGS.items():
        if role.endswith(ending):
            return column
    return next((part for part in _PARTS if part in role), "")


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, _Cell]]:
    with (ROOT / "gguf_mixes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["name"]: {key: _cell(text, row["base"]) for key, text in row.items() if key not in _TEXT} for row in rows}


def _cell(text: str, base: str) -> _Cell:
    found = []
    for alternative in (*text.split("|"), "-"):
        kind, *conditions = alternative.split()
        found.append((base if kind == "-" else kind, tuple((c.removeprefix("!"), not c.startswith("!")) for c in conditions)))
        if not conditions:
            break
    return tuple(found)


def _choose(cell: _Cell, facts: GgufFacts, index: int, count: int) -> str:
    return next(kind for kind, conditions in cell if all(_CONDITIONS[name](facts, index, count) is wanted for name, wanted in conditions))


def mix_names() -> tuple[str, ...]:
    """Every mix `mix_types` knows."""
    return (*PLAIN_MIXES, *_table())


@lru_cache(maxsize=1)
def mix_bits() -> dict[str, tuple[str, float, str]]:
    """Each quantised mix's base type, bits per weight of a whole Llama-3-8B file, and a word about it."""
    with (ROOT / "gguf_mixes.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: (row["base"], float(row["typical_bits"]), row["note"]) for row in csv.DictReader(file)}


def is_mix(name: str) -> bool:
    return name in PLAIN_MIXES or name in _table()


def mix_types(tensors: Sequence[Tensor], mix: str, facts: GgufFacts) -> tuple[Tensor, ...]:
    """The tensors of a 16-bit GGUF, each stored as the mix stores it, in the same order.

    Raises FormatError for a mix nobody has.
    """
    if not is_mix(mix):
        raise FormatError(f"no GGUF mix is called {mix[:40]!r}", f"known: {', '.join(mix_names())}")
    mixer, found, placed = _Mixer(mix, facts, tensors), list(tensors), []
    kinds: dict[tuple[str, tuple[int, ...]], str | None] = {}
    for position, (role, layer, shape, experts, _, part) in enumerate(tensors):
        key = role, shape
        if key not in kinds:
            kinds[key] = mixer.settled(role, shape)
        kind = kinds[key]
        if kind:
            found[position] = Tensor(role, layer, shape, experts, kind, part)
        elif kind is None:
            placed.append(position)
    for position in sorted(placed, key=lambda p: _order(tensors[p])):
        found[position] = tensors[position]._replace(stored_as=mixer.placed(tensors[position]))
    return tuple(found)


def _order(tensor: Tensor) -> tuple[int, str]:
    """The quantiser's order: what is of no layer first, then by layer and name (`weight_name_comparer`)."""
    layer = -1 if tensor.layer is None else tensor.layer
    if tensor.role.startswith(_STACKS) and layer >= 0:
        return -1, f"{tensor.role[:4]}blk.{layer}.{tensor.role[4:]}."
    return layer, tensor.role


class _Mixer:
    """One pass over a model's tensors: what their role and shape alone decide, and the running counts of those whose place does."""

    def __init__(self, mix: str, facts: GgufFacts, tensors: Sequence[Tensor]) -> None:
        self.plain = mix if mix in PLAIN_MIXES else ""
        self.cells = {} if self.plain else _table()[mix]
        self.base = self.plain or self.cells["base"][0][0]
        self.moe_only = mix == "MXFP4_MOE"
        self.facts = facts
        roles = Counter(map(itemgetter(0), tensors))
        self.tied = "output" not in roles
        self.values = sum(count for role, count in roles.items() if _column(role) == "attn_v")
        self.seen = dict.fromkeys(self.cells, 0)

    def settled(self, role: str, shape: tuple[int, ...]) -> str | None:
        """The format of every tensor of this role and shape: "" as it is; None where it depends on their place."""
        if math.prod(shape[:-1]) <= 1 or not quantisable(role):
            return ""
        if self.plain:
            return self.plain
        column = _column(role)
        if column == "output" or (column == "token_embd" and self.tied):
            return _fitting(self._output(shape), shape[-1])
        if self.moe_only:
            return _fitting(self.base if math.prod(shape[:-2]) > 1 else "Q8_0", shape[-1])
        cell = self.cells[column or "base"]
        return None if len(cell) > 1 else _fitting(cell[0][0], shape[-1])

    def placed(self, tensor: Tensor) -> str:
        """The format of the next tensor, in the quantiser's order, of those whose place decides."""
        column = _column(tensor.role)
        cell, counted = self.cells[column], self.seen[column]
        self.seen[column] += 1
        if column == "attn_v":
            kind = _choose(cell, self.facts, counted, self.values)
        else:
            by_layer = self.facts.experts > 1 and cell[0][1] != (("early_counted", True),)
            kind = _choose(cell, self.facts, (tensor.layer or 0) if by_layer else counted, self.facts.layers)
        return _fitting(kind, tensor.shape[-1])

    def _output(self, shape: tuple[int, ...]) -> str:
        """The head, and the embedding where it is the head as well."""
        if self.facts.falcon or shape[-1] % block_elements(self.base):
            return "Q8_0"
        return self.cells["output"][0][0]


#: What the quantiser falls back to where a row is no multiple of the block (`tensor_type_fallback`).
_SMALLER: Final = {
    "Q2_0": "Q4_0", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL", "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
}  # fmt: skip


@lru_cache(maxsize=4096)
def _fitting(kind: str, columns: int) -> str:
    if columns % block_elements(kind):
        kind = _SMALLER.get(kind, kind)
    return "F16" if columns % block_elements(kind) else kind
