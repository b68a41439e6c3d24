"""What changed between versions of vLLM: the rows of `vllm_profiles.toml`."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ...errors import UsageError
from ...hardware.device import GIB, Device
from ...values import dataclass

__all__ = ["Profile", "batch_defaults", "numbers", "profile_of", "table"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A row of vllm_profiles.toml: how one version and its successors behave."""

    since: tuple[int, ...]
    gpu_memory_utilization: float
    logit_bytes: int
    logit_bytes_moe: int
    top_k_buffer: bool
    moe_chunk_tokens: int
    graphs_in_budget: bool
    whole_prompts: bool
    batches_in_flight: int
    tokens_by_requests: bool
    non_torch_mib: tuple[int, ...]
    non_torch_plain_mib: tuple[int, ...]
    source: str
    name: str


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The whole file."""
    return tomllib.loads(files("vram_plan_data").joinpath("vllm_profiles.toml").read_text("utf-8"))


@lru_cache(maxsize=1)
def _profiles() -> tuple[Profile, ...]:
    return tuple(
        Profile(
            since=numbers(row["since"]),
            non_torch_mib=tuple(row["non_torch_mib"]),
            non_torch_plain_mib=tuple(row["non_torch_plain_mib"]),
            name=row["since"],
            **{key: row[key] for key in Profile.__annotations__ if key not in ("since", "non_torch_mib", "non_torch_plain_mib", "name")},
        )
        for row in table()["version"]
    )


@lru_cache(maxsize=256)
def profile_of(version: str | None) -> Profile:
    """The row of a version; the newest without one."""
    return _profiles()[-1] if version is None else [row for row in _profiles() if row.since <= numbers(version)][-1]


@lru_cache(maxsize=256)
def numbers(version: str) -> tuple[int, ...]:
    """The parts of a version such as "0.19" or "v0.26.1rc1": (0, 26, 1). Raises UsageError for text without numbers."""
    found = re.fullmatch(r"\s*v?(\d{1,4}(?:\.\d{1,6}){0,3})\D?.{0,40}", version)
    if not found:
        raise UsageError(f"{version[:40]!r} is no version of vLLM", 'write it as "0.19"')
    return tuple(int(part) for part in found[1].split("."))


def batch_defaults(device: Device | None, version: str | None = None) -> tuple[int, int]:
    """Tokens of a batch and sequences at once that `vllm serve` takes on this GPU when it is not told."""
    total, name = (device.total / GIB, device.name.lower()) if device else (0.0, "")
    for row in table()["batch"]:
        newer = version is None or numbers(row["since"]) <= numbers(version)
        if newer and total >= row["from_gib"] and not (row["not_named"] and row["not_named"] in name):
            return row["max_num_batched_tokens"], row["max_num_seqs"]
    raise AssertionError("the last row fits every version and GPU")
