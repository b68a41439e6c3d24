"""Checkpoint quantisation: which weights a scheme stores in few bits, and which stay in 16.

Linear layers of the text model are quantised; embedding, head, norms, routers, convolutions, small state matrices,
draft projections and towers stay as they were, and so does every module the config's list of exceptions names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ..models.architecture import Tensor
from ..values import dataclass
from .mixes import quantisable
from .modules import NO_MODULES, ModuleList, module_names

__all__ = ["Scheme", "apply_scheme"]

#: Matrices schemes leave alone besides those llama.cpp does.
_KEPT: Final = frozenset({"token_embd", "output", "position_embd", "token_types", "per_layer_token_embd", "cls.output"})
_KEPT_ENDINGS: Final = ("ffn_gate_inp_shexp", "indexer.proj", "ssm_ba", "ssm_alpha", "ssm_beta")
_KEPT_PARTS: Final = ("nextn.", "hc_", "conv", "time_mix_lerp", "lru_a", "ffn_routed_", "_res_", "_compressor_")


@dataclass(frozen=True)
class Scheme:
    """A quantisation scheme as a config states it. `name` is that of a `Format`.

    `stored_as` is what linear layers get unless `skipped` names them; each of `groups` gives the modules it names a
    format of their own, the first that fits. `experts_only`: nothing but routed experts. `head`: embedding and head
    too. `towers`: vision and audio too. `stacks`: routed experts too, which are one parameter of all of them in transformers 5.
    `note` says what was not understood.
    """

    name: str
    stored_as: str
    skipped: ModuleList = NO_MODULES
    groups: tuple[tuple[ModuleList, str], ...] = ()
    experts_only: bool = False
    head: bool = False
    towers: bool = False
    stacks: bool = True
    note: str = ""

    @classmethod
    def plain(cls, name: str, stored_as: str) -> Scheme:
        """The scheme by name alone, as its tool applies it by default. bitsandbytes takes the place of `nn.Linear` only
        (transformers 5.23.0, integrations/bitsandbytes.py), so stacks of experts stay as they were."""
        bitsandbytes = stored_as in ("NF4", "NF4DQ", "BNB8")
        return cls(
            name, stored_as, head=stored_as.startswith("MLX"), towers=bitsandbytes, experts_only=stored_as == "MXFP4",
            stacks=not bitsandbytes,
        )  # fmt: skip


def apply_scheme(tensors: Sequence[Tensor], scheme: Scheme) -> tuple[Tensor, ...]:
    """The same weights, each with the number format the scheme stores it in."""
    if not scheme.stored_as and not scheme.groups:
        return tuple(tensors)
    experts_only = scheme.experts_only and any(t.experts for t in tensors)
    named = bool(scheme.skipped or scheme.groups)
    recurrent = {t.layer for t in tensors if t.role.startswith("ssm_")} if named else set()
    dense = {t.layer for t in tensors if t.role == "ffn_down"} if named else set()
    head = scheme.head or any(modules.holds(("lm_head",)) for modules, _ in scheme.groups)
    found = []
    for tensor in tensors:
        kind = tensor.stored_as
        if _may_change(tensor, scheme, head) and (scheme.stacks if tensor.experts else not experts_only):
            kind = _kind(tensor, scheme, tensor.layer in (dense if tensor.experts else recurrent)) if named else scheme.stored_as
        found.append(Tensor(tensor.role, tensor.layer, tensor.shape, tensor.experts, kind, tensor.part))
    return tuple(found)


def _may_change(tensor: Tensor, scheme: Scheme, head: bool) -> bool:
    if len(tensor.shape) < 2:
        return False
    if tensor.role in ("token_embd", "output"):
        return scheme.head or (head and tensor.role == "output")
    if tensor.part not in ("text", "mtp"):
        return scheme.towers and _is_linear(tensor.role)
    return tensor.layer is not None and _is_linear(tensor.role)


@lru_cache(maxsize=2048)
def _is_linear(role: str) -> bool:
    if role in _KEPT or role.endswith(_KEPT_ENDINGS) or any(part in role for part in _KEPT_PARTS):
        return False
    return quantisable(role) and "norm" not in role and "embd" not in role


def _kind(tensor: Tensor, scheme: Scheme, beside: bool) -> str:
    """The format of a weight that could be quantised, by the modules the config names."""
    names = module_names(tensor, beside)
    if scheme.skipped.holds(names):
        return tensor.stored_as
    for modules, kind in scheme.groups:
        if modules.holds(names):
            return kind
    return scheme.stored_as or tensor.stored_as
