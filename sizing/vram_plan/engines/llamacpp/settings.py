"""What llama.cpp was asked to do: its options, checked, and what differs between its builds and backends."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from vram_plan_data import ROOT

from ...errors import UsageError
from ...hardware.device import MIB, Device
from ...models.architecture import Basis
from ...models.model import Model
from ...values import dataclass
from ..base import Work
from ..options import choice, flag, whole
from .draft import draft_model
from .towers.file import KINDS

__all__ = ["OPTIONS", "Build", "Settings", "build_of", "runtime_of", "settings_of"]

OPTIONS: Final[Mapping[str, str]] = {
    "ubatch": "tokens computed at once, 1 to 65536 (512)",
    "batch": "tokens of one batch, 1 to 1048576 (2048)",
    "kv_unified": "true: one pool of cells for all sequences; false: a cache for each (false)",
    "flash_attn": "true or false (true)",
    "logits": "last: logits of one token a sequence; all: of the whole batch (last)",
    "swa_full": "true: sliding-window layers keep the whole context (false)",
    "n_gpu_layers": "layers on the GPUs, counted from the back, the output being one of them; 0 to 100000 (all)",
    "tensor_split": "shares of the layers each GPU gets, as 3,1 (by free memory)",
    "backend": "cuda, rocm, vulkan, metal or cpu (by the GPU's vendor)",
    "build": "llama.cpp of that month or day, as 2026-05 or 2026-05-20 (2026-10)",
    "draft": "a smaller model that drafts tokens, named as MODEL is (none)",
    "mtp": "true: the model's own prediction layers draft tokens (false)",
    "mmproj": "true: the file with the vision or audio tower is loaded too (false)",
    "mmproj_type": "f16, bf16, f32 or q8_0: what that file is written in (f16)",
}
_BACKENDS: Final = {"NVIDIA": "cuda", "AMD": "rocm", "Apple": "metal", "Intel": "vulkan", "CPU": "cpu"}
#: Backends that sum up experts in one step. Left out where no device is named: `llama-fit-params` on one that fuses nothing.
_FUSING: Final = frozenset({"cuda", "rocm", "metal"})
_BATCH, _UBATCH = 2048, 512


@dataclass(frozen=True, slots=True)
class Build:
    date: str
    mask_cast: bool
    outputs: str
    fp16_copies: bool
    rotates: bool
    cells: int
    embeds: int
    source: str
    rollback: bool = False
    draft_kv: str = "model"
    picks_last: bool = False
    mixed: bool = False
    fuses: bool = False


@lru_cache(maxsize=1)
def _builds() -> tuple[Build, ...]:
    rows = tomllib.loads((ROOT / "llamacpp_builds.toml").read_text(encoding="utf-8"))["build"]
    return tuple(sorted((Build(**row) for row in rows), key=lambda build: build.date))


@lru_cache(maxsize=64)
def build_of(month: str) -> Build:
    """The rules of llama.cpp as of a day, or the end of a month. Raises UsageError for what is neither."""
    parts = month.strip().split("-")
    if not 2 <= len(parts) <= 3 or not all(part.isdigit() for part in parts) or len(parts[0]) != 4:
        raise UsageError(f"build {month[:40]!r} is no month", "write it as 2026-10, or with a day as 2026-10-15")
    known = [build for build in _builds() if build.date <= "-".join(f"{part:0>2}" for part in (*parts, "31")[:3])]
    return known[-1] if known else _builds()[0]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options as values; `gpu_layers` is None for all of them."""

    ubatch: int
    batch: int
    unified: bool
    flash: bool
    all_logits: bool
    swa_full: bool
    gpu_layers: int | None
    tensor_split: tuple[float, ...]
    backend: str
    fuses: bool
    build: Build
    mmproj: bool
    mmproj_type: str
    draft: Model | None = None
    mtp: bool = False

    @property
    def drafts(self) -> bool:
        return self.draft is not None or self.mtp


def settings_of(work: Work, devices: tuple[Device, ...], defaults: tuple[tuple[str, Any], ...] = ()) -> Settings:
    """The work's options with llama.cpp's defaults, or those given. Raises UsageError for a value that cannot be meant."""
    return _settings(work.options, defaults, devices[0].vendor if devices else "", work.kv_v)


@lru_cache(maxsize=512)
def _settings(options: tuple[tuple[str, Any], ...], defaults: tuple[tuple[str, Any], ...], vendor: str, kv_v: str) -> Settings:
    given = {**dict(defaults), **dict(options)}
    batch = whole(given, "batch", 1, 1 << 20) or _BATCH
    flash = flag(given, "flash_attn", True)
    if given.get("draft") is not None and flag(given, "mtp", False):
        raise UsageError("both draft and mtp were given", "one of them drafts")
    if not flash and kv_v not in ("f32", "f16", "bf16"):
        raise UsageError(f"V in {kv_v} needs flash attention", "leave flash_attn on, or take kv_v f16")
    backend, build = _backend(given, vendor), build_of(str(given.get("build", "2026-10")))
    return Settings(
        ubatch=min(whole(given, "ubatch", 1, 1 << 16) or _UBATCH, batch),
        batch=batch,
        unified=flag(given, "kv_unified", False),
        flash=flash,
        all_logits=choice(given, "logits", ("last", "all")) == "all",
        swa_full=flag(given, "swa_full", False),
        gpu_layers=whole(given, "n_gpu_layers", 0, 100_000),
        tensor_split=_split(given.get("tensor_split")),
        backend=backend,
        fuses=build.fuses and backend in _FUSING and bool(vendor or given.get("backend")),
        build=build,
        mmproj=flag(given, "mmproj", False),
        mmproj_type=(choice(given, "mmproj_type", tuple(kind.lower() for kind in KINDS)) or "f16").upper(),
        draft=draft_model(given.get("draft")),
        mtp=flag(given, "mtp", False),
    )


def _backend(given: Mapping[str, Any], vendor: str) -> str:
    named = choice(given, "backend", ("cuda", "rocm", "vulkan", "metal", "cpu"))
    if vendor == "CPU" and named not in ("", None, "cpu"):
        raise UsageError(f"backend is {named} on a processor", "leave it out, or name a GPU with --gpu")
    return named or _BACKENDS.get(vendor, "cuda")


def _split(value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    parts = value if isinstance(value, (list, tuple)) else str(value).replace("/", ",").split(",")
    try:
        shares = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        shares = ()
    if not 0 < len(shares) <= 128 or not all(0 <= share < 1e9 for share in shares) or not sum(shares):
        raise UsageError(f"tensor_split is {str(value)[:40]!r}", "write a share for each GPU, as 3,1")
    return shares


@lru_cache(maxsize=1)
def _runtimes() -> tuple[dict[str, str], ...]:
    with (ROOT / "llamacpp_runtime.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@lru_cache(maxsize=256)
def runtime_of(vendor: str, capability: str, total: int) -> tuple[int, Basis, str]:
    """Bytes a GPU holds beyond what llama.cpp counts (context, BLAS, kernels), how that is known, and from what."""
    for row in _runtimes():
        near = capability == row["compute_capability"] or capability.split(".")[0] == row["compute_capability"]
        small = not row["up_to_gib"] or total <= int(row["up_to_gib"]) << 30
        if row["vendor"] in ("", vendor) and (not row["compute_capability"] or near) and small:
            basis: Basis = "measured" if row["basis"] == "measured" else "fallback"
            return int(row["mib"]) * MIB, basis, row["source"]
    raise AssertionError("the last row holds for every GPU")
