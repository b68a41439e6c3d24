"""The fitted constants of `vram_plan_data/speed_constants.json`, resolved for one class and architecture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vram_plan_data import ROOT

from ..values import dataclass

__all__ = [
    "DecodeConstants", "Evidence", "PrefillConstants", "ServerConstants", "Spread", "architecture_key", "decode_constants",
    "generation", "prefill_constants", "server_constants", "table",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spread:
    """Measured ÷ estimated at the ends of the range, and what share of unseen GPUs' measurements it holds."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a class was fitted on, in words for the answer's `basis`."""

    label: str
    rows: int
    gpus: int
    own_architecture: bool


@dataclass(frozen=True, slots=True)
class DecodeConstants:
    """Multipliers of the decode pieces. Shares are of the catalogue's bandwidth; `layer_s` is a layer's fixed time a token."""

    weight_share: float
    issue_bytes_per_flop: float
    kv_share: float
    repeat_exponent: float
    state_share: float
    layer_s: float
    spread: Spread
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class PrefillConstants:
    """Multipliers of the prefill pieces: shares of the matrix rate, of the issue rate and of the bandwidth."""

    tensor_share: float
    issue_share: float
    attention_share: float
    weight_share: float
    layer_s: float
    scale_exponent: float
    spread: Spread
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class ServerConstants:
    """Multipliers of a server's step: shares of the bandwidth, of the matrix rate (a step's and a prompt's) and of the link;
    the fixed times of a layer, a sequence and an all-reduce."""

    weight_share: float
    expert_share: float
    kv_share: float
    compute_share: float
    prompt_share: float
    link_share: float
    layer_s: float
    sequence_s: float
    reduce_s: float
    idle_prompt: float
    idle_exponent: float
    spread: Spread
    prefill_spread: Spread
    evidence: Evidence


@lru_cache(maxsize=1)
def table() -> Mapping[str, Any]:
    """The whole table, as read."""
    data: Mapping[str, Any] = json.loads((ROOT / "speed_constants.json").read_text(encoding="utf-8"))
    return data


@lru_cache(maxsize=1024)
def architecture_key(vendor: str, name: str, capability: str | None) -> str:
    """The class of one GPU: the first row of `architectures` that it matches; its maker's name in lower case if none. Each processor
    is its own."""
    if vendor == "CPU":
        return name
    for row in table()["architectures"]:
        if row["vendor"] == vendor and row.get("capability", capability) == capability and re.search(row.get("name", ""), name):
            return str(row["key"])
    return vendor.lower()


@lru_cache(maxsize=256)
def generation(key: str) -> int:
    """Which of its maker's generations a class is, counted from an arbitrary one; 0 where that was not seen to matter."""
    return next((int(row.get("generation", 0)) for row in table()["architectures"] if row["key"] == key), 0)


def _evidence(backend: str, part: Mapping[str, Any], architecture: str, own: Mapping[str, Any]) -> Evidence:
    found = own.get(architecture)
    label = f"{backend}, {architecture}" if found else f"{backend} pool: no measurement of {architecture}"
    row = found or part
    return Evidence(label, row["rows"], row["gpus"], found is not None)


def _of(families: Mapping[str, float], family: str) -> float:
    """A kernel family's; the K formats' where it was not told apart."""
    return families.get(family, families["k"])


@lru_cache(maxsize=2048)
def decode_constants(
    backend: str, architecture: str, family: str, moe: bool, flash_attention: bool, age: float, dies: int = 1
) -> DecodeConstants:
    """llama.cpp's decode constants. `age` is 1 for builds of May 2024 and before, −0.5 for the newest."""
    part = table()["llama.cpp"][backend]["decode"]
    own = part["architectures"].get(architecture, {})
    share = min(part["bandwidth_share"] * own.get("bandwidth_share", 1.0) * part["die_share"] ** (dies - 1), 0.98)
    layer = part["layer_us"] * own.get("layer_us", 1.0) * part["old_build_layer"] ** age * (part["moe_layer"] if moe else 1.0)
    layer *= part["generation_layer"] ** generation(architecture)
    spread = part["spread_moe" if moe else "spread"]
    kv_share = part["kv_share_flash" if flash_attention else "kv_share_plain"]
    return DecodeConstants(
        share * _of(part["family"], family), part["issue_bytes_per_flop"], share * kv_share,
        part.get("repeat_flash", 0.0) if flash_attention else part["repeat_plain"], share, layer * 1e-6, Spread(*spread),
        _evidence(backend, part, architecture, part["architectures"]),
    )  # fmt: skip


@lru_cache(maxsize=2048)
def prefill_constants(backend: str, architecture: str, family: str, moe: bool, flash_attention: bool, age: float) -> PrefillConstants:
    """llama.cpp's prefill constants. What builds since mid-2025 brought, they brought to few GPUs: an architecture's own says it."""
    part = table()["llama.cpp"][backend]["prefill"]
    own = part["architectures"].get(architecture, {})
    scale = own.get("share", 1.0)
    newer = (part["new_build"] * own.get("new_build", 1.0)) ** min(max(-2.0 * age, 0.0), 1.0)
    older = part["old_build"] ** max(age, 0.0) * newer if family != "plain" else 1.0
    after = (part["moe_share"] * own.get("moe_share", 1.0) if moe else 1.0) * older
    spread = part["spread_moe" if moe else "spread"]
    attention = part["attention_share_flash" if flash_attention else "attention_share_plain"]
    return PrefillConstants(
        min(part["tensor_share"] * scale * _of(part["family"], family), 0.98) * after, _of(part["issue_share"], family) * scale * after,
        attention * scale, part["weight_share"], part["layer_us"] * 1e-6,
        part["scale_exponent"], Spread(*spread), _evidence(backend, part, architecture, part["architectures"]),
    )  # fmt: skip


@lru_cache(maxsize=512)
def server_constants(engine: str, architecture: str, moe: bool, fp8: bool = False, age: float = 0.0) -> ServerConstants:
    """A server engine's constants. `fp8` is of a mixture's layers; `age` is 1 for versions before its experts' kernels of 2026."""
    part = table()["servers"][engine]
    own = part["architectures"].get(architecture, {})
    scale = own.get("bandwidth_share", 1.0)
    layer = part["layer_us"] * own.get("layer_us", 1.0)
    old = age if moe else 0.0
    idle = part["idle_prompt"]["moe" if moe else "dense"]
    if moe:
        layer *= part["moe_layer"] * (part["moe_fp8_layer"] if fp8 else 1.0) * part["moe_old_layer"] ** old
    return ServerConstants(
        min(part["bandwidth_share"] * scale, 0.98), min(part["expert_share"] * scale * part["old_expert_share"] ** old, 0.98),
        min(part["kv_share"] * scale, 0.98), part["compute_share"], part["moe_prompt_share" if moe else "prompt_share"],
        part["link_share"], layer * 1e-6, part["sequence_us"] * 1e-6, part["reduce_us"] * 1e-6, idle["factor"], idle["exponent"],
        Spread(*part["spread_moe" if moe else "spread"]), Spread(*idle["spread"]),
        _evidence(engine, part, architecture, part["architectures"]),
    )  # fmt: skip
