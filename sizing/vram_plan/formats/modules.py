"""The module names of Hugging Face checkpoints: what a weight may be called there, and lists that name modules.

Lists come in many dialects: `lm_head`, `model.layers.0.mlp.gate`, `model.layers.*.self_attn`, `*.mlp.gate*`,
`re:.*self_attn.*`. An entry holds for a weight when it names the weight's module or one around it, by whole
components; what stands before `layers` is not compared, since towers and wrappers vary it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Final

from ..models.architecture import Tensor
from ..values import dataclass

__all__ = ["NO_MODULES", "ModuleList", "module_names"]

#: What a role's module is called inside a layer; `|` separates what families call it.
_MODULES: Final = {
    "attn_q": "q_proj|wq", "attn_k": "k_proj|wk", "attn_v": "v_proj|wv",
    "attn_qkv": "qkv_proj|in_proj_qkv|in_proj_qkvz|Wqkv|query_key_value|W_pack",
    "attn_output": "o_proj|out_proj|dense|wo", "attn_gate": "in_proj_z|g_proj|in_proj_qkvz|gate_proj",
    "attn_q_a": "q_a_proj|wq_a|fused_qkv_a_proj", "attn_q_b": "q_b_proj|wq_b",
    "attn_kv_a_mqa": "kv_a_proj_with_mqa", "attn_kv_b": "kv_b_proj", "attn_kv": "wkv", "attn_output_a": "wo_a", "attn_output_b": "wo_b",
    "indexer.attn_q_b": "indexer.wq_b", "indexer.attn_k": "indexer.wk",
    "ssm_in": "in_proj", "ssm_out": "out_proj", "ssm_x": "x_proj", "ssm_dt": "dt_proj",
    "ssm_f_a": "f_a_proj", "ssm_f_b": "f_b_proj", "ssm_g_a": "g_a_proj", "ssm_g_b": "g_b_proj", "ssm_g": "g_proj",
    "shortconv.in_proj": "in_proj", "shortconv.out_proj": "out_proj",
    "ffn_latent_down": "fc1_latent_proj", "ffn_latent_up": "fc2_latent_proj",
    "ffn_gate": "gate_proj|w1|gate_up_proj|w3", "ffn_up": "up_proj|w3|gate_up_proj|fc1|w2", "ffn_down": "down_proj|w2|fc2|c_proj",
}  # fmt: skip
_ATTENTION: Final = ("self_attn", "attn", "attention", "mixer")
_RECURRENT: Final = ("linear_attn", "mixer", "mamba", "self_attn", "conv")
_FEED_FORWARD: Final = ("mlp", "ffn", "feed_forward", "block_sparse_moe", "mixer", "moe")
_SHARED: Final = ("shared_expert", "shared_experts")
_TOWERS: Final = {
    "vision": "vision_tower|visual|vision_model|vpm|vit",
    "audio": "audio_tower|audio",
    "projector": "multi_modal_projector|mm_projector|embed_vision|visual|vision_tower",
}
#: What may stand before `layers` or before the rest of a name.
_OUTER: Final = frozenset({"model", "language_model", "transformer", "backbone", "text_model"})
_LAYERS: Final = frozenset({"layers", "h", "blocks", "block"})
#: Bounds on patterns of an unknown file: so many, so long, with so many unbounded repeats once the outer ones are cut.
_MAX_EXPRESSIONS, _MAX_LENGTH, _MAX_REPEATS = 64, 200, 2
_FEW: Final = 16


@lru_cache(maxsize=1 << 15)
def _inner_names(role: str, beside: bool) -> tuple[str, ...]:
    """What the module of a role may be called inside its layer; `beside` as in `module_names`."""
    base = role.removesuffix("_exps").removesuffix("_shexp").removesuffix("_chexps")
    leaves = _MODULES.get(base, base).split("|")
    if not role.startswith("ffn_"):
        mixer = role.startswith(("ssm_", "shortconv")) or (beside and role in ("attn_qkv", "attn_gate"))
        return tuple(f"{block}.{leaf}" for block in (_RECURRENT if mixer else _ATTENTION) for leaf in leaves)
    if role.endswith("_exps") and beside:
        return tuple(f"experts.{leaf}" for leaf in (*leaves, *(f"0.{leaf}" for leaf in leaves)))
    if role.endswith("_exps"):
        return tuple(f"{block}.experts.{leaf}" for block in _FEED_FORWARD for leaf in (*leaves, *(f"0.{leaf}" for leaf in leaves)))
    if role.endswith("_shexp"):
        granite = "shared_mlp.output_linear" if base == "ffn_down" else "shared_mlp.input_linear"
        return (granite, *(f"{block}.{shared}.{leaf}" for block in _FEED_FORWARD for shared in _SHARED for leaf in leaves))
    return tuple(f"{block}.{leaf}" for block in _FEED_FORWARD for leaf in leaves)


def module_names(tensor: Tensor, beside: bool = False) -> tuple[str, ...]:
    """What a weight's module may be called, without what stands before `layers`.

    `beside`: its layer keeps a recurrent state, or, for experts, has a dense block as well (and they stand beside it).
    """
    if tensor.role in ("output", "token_embd"):
        return ("lm_head", "head", "embed_out") if tensor.role == "output" else ("embed_tokens", "wte", "word_embeddings")
    if tensor.part not in ("text", "mtp"):
        return _tower_names(tensor)
    names = tuple(f"layers.{tensor.layer}.{name}" for name in _inner_names(tensor.role, beside))
    return names if tensor.part == "text" else (*names, *(f"mtp.{name}" for name in names))


def _tower_names(tensor: Tensor) -> tuple[str, ...]:
    return tuple(f"{tower}.{tensor.role}" for tower in _TOWERS[tensor.part].split("|"))


@dataclass(frozen=True)
class ModuleList:
    """Entries of a config that name modules. Expressions too long or too costly to try are left out (`unread`)."""

    entries: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    @cached_property
    def _plain(self) -> frozenset[str]:
        return frozenset(_inner(entry) for entry in self.entries if not entry.startswith("re:") and "*" not in entry)

    @cached_property
    def _few(self) -> tuple[str, ...]:
        """Plain entries so few that each is quicker to look for than all runs of a name are to make."""
        return tuple(f".{entry}." for entry in self._plain if entry) if len(self._plain) <= _FEW else ()

    @cached_property
    def _prefixes(self) -> tuple[str, ...]:
        """Entries whose only wildcard is their end: `model.layers.0.self_attn*`."""
        globs = [e for e in self.entries if e.endswith("*") and e.count("*") == 1 and not e.startswith("re:")]
        return tuple(_inner(entry[:-1]) for entry in globs if len(entry) > 1)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        globs = [translate(_inner(e) + "*") for e in self.entries if "*" in e[:-1] and not e.startswith("re:") and e.count("*") <= 4]
        found = [re.compile(glob) for glob in dict.fromkeys(globs[:_MAX_EXPRESSIONS])]
        for entry in self.entries:
            pattern = _expression(entry) if entry.startswith("re:") and len(found) < 2 * _MAX_EXPRESSIONS else None
            if pattern is not None:
                found.append(pattern)
        return tuple(found)

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """Expressions that were not tried."""
        return tuple(entry[:60] for entry in self.entries if entry.startswith("re:") and _expression(entry) is None)

    def holds(self, names: Iterable[str]) -> bool:
        """True when an entry names one of the modules, or one around it."""
        return any(self._holds(name) for name in names)

    def _holds(self, name: str) -> bool:
        if self._few and any(entry in f".{name}." for entry in self._few):
            return True
        if self._plain and not self._few and not self._plain.isdisjoint(_runs(name)):
            return True
        if self._prefixes and name.startswith(self._prefixes):
            return True
        return any(pattern.match(name) or pattern.match(f"model.{name}") for pattern in self._patterns)


NO_MODULES: Final = ModuleList()


@lru_cache(maxsize=1 << 15)
def _runs(name: str) -> frozenset[str]:
    """Every run of whole components of a dotted name."""
    parts = name.split(".")
    return frozenset(".".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))


def _inner(entry: str) -> str:
    """An entry without what stands before `layers`: `model.language_model.layers.0.mlp` → `layers.0.mlp`."""
    parts = entry.removesuffix(".weight").split(".")
    while len(parts) > 1 and parts[0] in _OUTER:
        parts.pop(0)
    if len(parts) > 1 and parts[0] in _LAYERS:
        parts[0] = "layers"
    return ".".join(parts)


def _expression(entry: str) -> re.Pattern[str] | None:
    """A `re:` entry compiled, or None where it is no expression, or could take long: nested or many repeats."""
    text = entry.removeprefix("re:")
    if len(text) > _MAX_LENGTH:
        return None
    end = r"(?=\.|$)" if text.endswith("$") and not text.endswith(".*$") else ""  # the module itself, or one inside it
    text = text.removesuffix("$").removesuffix(".*")
    head = ".*" if text.startswith(".*") else ""
    rest = text.removeprefix(".*")
    if len(re.findall(r"[*+{]", rest)) > _MAX_REPEATS or re.search(r"[*+}]\)?[*+{]|\([^)]*[*+{][^)]*\)[*+{]", rest):
        return None
    try:
        return re.compile(head + rest + end)
    except re.error:
        return None
