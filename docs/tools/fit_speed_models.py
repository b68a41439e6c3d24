"""The constants as logarithms with priors, and the roofline's own functions over arrays of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from vram_plan.speed.constants import DecodeConstants, Evidence, PrefillConstants, ServerConstants, Spread
from vram_plan.speed.roofline import DecodePieces, PrefillPieces, ServerPieces, decode_terms, prefill_terms, server_terms

_SPREAD = Spread(1.0, 1.0)
_EVIDENCE = Evidence("", 0, 0, True)
Array = Any


def _pieces(kind: Any, samples: dict[str, Array]) -> Any:
    return kind(**{name: samples[name] for name in kind.__dataclass_fields__})


def _r(value: float) -> float:
    return float(f"{value:.4g}")


def _own(p: Array, n: int, known: list[str], rows: dict[str, dict[str, int]], names: tuple[str, ...]) -> dict[str, Any]:
    parts = p[n:].reshape(len(names), len(known))
    return {key: {name: _r(np.exp(parts[j][i])) for j, name in enumerate(names)} | rows[key] for i, key in enumerate(known)}


class Form:
    """What is fitted: a prior, seconds of samples, and itself as it is where one GPU or one model must not be known.

    Errors are taken as `NOISE` wide, with tails of Student's t at so many degrees."""

    DEGREES = 4.0

    FAMILIES = ("plain", "simple", "k", "fp4")

    def blind(self, groups: str, name: str) -> Form:
        return self

    def family(self, samples: dict[str, Array]) -> Array:
        """Each sample's kernel family; K where it is not told apart."""
        return np.array([self.FAMILIES.index(name if name in self.FAMILIES else "k") for name in samples["family"]])


class Decode(Form):
    """Parameters: share, layer, moe, kv plain, kv flash, issue, four families, old build, LocalScore's layer and total, heads' repeats,
    a generation's layer, the second die's share. Of Apple's chips alone are generations and dies told apart."""

    NOISE = 0.1
    OWN = 2

    def __init__(self, backend: str = "cuda") -> None:
        self.OWN_SD = (0.1 if backend in ("cuda", "metal") else 0.2, 0.3)
        self.repeats, self.repeats_flash = backend in ("metal", "cpu"), backend == "cpu"
        self.old = 0.0 if backend == "cuda" else 0.3  # what it came to on CUDA
        self.caches = (0.25, 0.9) if backend in ("cuda", "metal") else (0.15, 0.75)

    def prior(self) -> tuple[Array, Array]:
        """Only Metal's plain attention was seen to read a KV head for each of its query heads; elsewhere the exponent stays 0.
        The start for caches on AMD is what Vulkan came to on the same GPUs: plain attention 0.13, flash attention 0.77."""
        repeat, free = (0.25, 0.4) if self.repeats else (0.0, 1e-6)
        newer, dies = (-0.1, -0.05) if self.repeats else (0.0, 0.0)
        mean = [np.log(0.89), np.log(70.0), 0.3, *np.log(self.caches), np.log(1 / 3.0), 0, 0, 0, 0, self.old, 0, 0, repeat, newer, dies]
        sd = [0.1, 0.7, 0.5, 0.7, 0.3, 1.0, 0.1, 0.1, 0.1, 0.1, 0.3, 0.15, 0.15, free, 0.1, 0.05]
        return np.array(mean), np.array(sd)

    def seconds(self, s: dict[str, Array], p: Array, own: Array) -> Array:
        share = np.minimum(np.exp(p[0] + own[0] + p[15] * s["dies"]), 0.98)
        layer = np.exp(p[1] + own[1] + p[14] * s["generation"] + p[2] * s["moe"] + p[10] * s["age"] + p[11] * s["average"]) * 1e-6
        kv_share = share * np.exp(np.where(s["flash"], p[4], p[3]))
        repeat = np.where(s["flash"] & (not self.repeats_flash), 0.0, p[13])
        c = DecodeConstants(share * np.exp(p[6:10])[self.family(s)], np.exp(p[5]), kv_share, repeat, share, layer, _SPREAD, _EVIDENCE)
        total: Array = decode_terms(c, _pieces(DecodePieces, s)).total_s
        return total * np.exp(p[12] * s["average"])

    def table(self, p: Array, known: list[str], rows: dict[str, dict[str, int]]) -> dict[str, Any]:
        e = np.exp(p)
        return {
            "bandwidth_share": _r(e[0]), "layer_us": _r(e[1]), "moe_layer": _r(e[2]), "kv_share_plain": _r(e[3]),
            "kv_share_flash": _r(e[4]), "repeat_plain": _r(p[13]) if self.repeats else 0.0,
            "repeat_flash": _r(p[13]) if self.repeats_flash else 0.0, "issue_bytes_per_flop": _r(e[5]),
            "family": {name: _r(e[6 + i]) for i, name in enumerate(self.FAMILIES)}, "old_build_layer": _r(e[10]),
            "generation_layer": _r(e[14]), "die_share": _r(e[15]),
            "architectures": _own(p, 16, known, rows, ("bandwidth_share", "layer_us")),
        }  # fmt: skip


class Prefill(Form):
    """Parameters: tensor share, four families, four issue shares, moe, attention flash and plain, old build, layer, weights, scale,
    new build. An architecture's own: shares, mixtures, what builds since 2025 brought it.

    On AMD and through Vulkan architectures differ more than on CUDA and Metal: kernels are tuned for few of them.
    """

    OWN = 3

    def __init__(self, backend: str = "cuda") -> None:
        self.OWN_SD = {"rocm": (0.8, 0.5, 0.8), "vulkan": (0.5, 0.3, 0.2)}.get(backend, (0.25, 0.3, 0.2))
        self.NOISE = 0.2 if backend == "vulkan" else 0.1
        self.scale = 0.1 if backend in ("rocm", "vulkan") else 0.3  # few sizes of card: no more than they show

    def prior(self) -> tuple[Array, Array]:
        mean = [np.log(0.7), 0, 0, 0, 0, 0, 0, 0, 0, np.log(0.5), np.log(0.25), np.log(0.07), 0, np.log(60.0), np.log(0.8), 0, 0]
        sd = [0.5, 0.4, 0.4, 0.4, 0.4, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5, 0.3, 0.7, 0.15, self.scale, 0.2]
        return np.array(mean), np.array(sd)

    def seconds(self, s: dict[str, Array], p: Array, own: Array) -> Array:
        family = self.family(s)
        older, newer = np.maximum(s["age"], 0.0), np.clip(-2.0 * s["age"], 0.0, 1.0)
        after = np.exp((p[9] + own[1]) * s["moe"] + (p[12] * older + (p[16] + own[2]) * newer) * (family > 0))
        c = PrefillConstants(
            np.minimum(np.exp(p[0] + own[0] + p[1:5][family]), 0.98) * after, np.exp(p[5:9][family] + own[0]) * after,
            np.exp(np.where(s["flash"], p[10], p[11]) + own[0]), np.minimum(np.exp(p[14]), 0.98), np.exp(p[13]) * 1e-6, p[15],
            _SPREAD, _EVIDENCE,
        )  # fmt: skip
        total: Array = prefill_terms(c, _pieces(PrefillPieces, s)).total_s
        return total

    def table(self, p: Array, known: list[str], rows: dict[str, dict[str, int]]) -> dict[str, Any]:
        e = np.exp(p)
        return {
            "tensor_share": _r(e[0]), "family": {name: _r(e[1 + i]) for i, name in enumerate(self.FAMILIES)},
            "issue_share": {name: _r(e[5 + i]) for i, name in enumerate(self.FAMILIES)}, "moe_share": _r(e[9]),
            "attention_share_flash": _r(e[10]), "attention_share_plain": _r(e[11]), "old_build": _r(e[12]),
            "layer_us": _r(e[13]), "weight_share": _r(min(e[14], 0.98)),
            "scale_exponent": _r(p[15]), "new_build": _r(e[16]),
            "architectures": _own(p, 17, known, rows, ("share", "moe_share", "new_build")),
        }  # fmt: skip


class Server(Form):
    """Parameters: shares of bandwidth for weights, experts and KV; of the matrix rate for a step, for prompts dense and of mixtures;
    of the link; layer, sequence, all-reduce; a mixture's layer, its FP8 layer, its layer and experts in old versions.

    Dense models and mixtures are fitted together: what they share (the GPU, attention, links, the host) two models tell better
    than one, and dense models were measured on one GPU only. `like` is what another engine came to on the same kinds of GPU: an engine
    measured little is then looked for half as far around it.
    """

    DEGREES = 2.0
    NOISE = 0.1
    OWN = 2
    OWN_SD = (0.1, 0.2)
    NAMES = (
        "bandwidth_share", "expert_share", "kv_share", "compute_share", "prompt_share", "moe_prompt_share", "link_share",
        "layer_us", "sequence_us", "reduce_us", "moe_layer", "moe_fp8_layer", "moe_old_layer", "old_expert_share",
    )  # fmt: skip
    MEAN = (0.88, 0.75, 0.9, 0.5, 0.6, 0.3, 0.8, 65.0, 8.0, 6.0, 1.35, 1.0, 1.0, 1.0)
    SD = (0.1, 0.25, 0.07, 0.4, 0.15, 0.5, 0.15, 0.4, 0.7, 0.5, 0.3, 0.2, 0.3, 0.3)

    def __init__(self, like: Array | None = None) -> None:
        self.like = like

    def prior(self) -> tuple[Array, Array]:
        if self.like is None:
            return np.log(np.array(self.MEAN)), np.array(self.SD)
        return self.like[: len(self.MEAN)], np.array(self.SD) / 2

    def seconds(self, s: dict[str, Array], p: Array, own: Array) -> Array:
        e = dict(zip(self.NAMES, np.exp(p), strict=True))
        scale, moe, old = np.exp(own[0]), s["moe"], s["age"] * s["moe"]
        layer = e["layer_us"] * np.exp(own[1]) * np.where(moe, e["moe_layer"] * np.where(s["fp8"], e["moe_fp8_layer"], 1.0), 1.0)
        c = ServerConstants(
            np.minimum(e["bandwidth_share"] * scale, 0.98), np.minimum(e["expert_share"] * scale * e["old_expert_share"] ** old, 0.98),
            np.minimum(e["kv_share"] * scale, 0.98), np.minimum(e["compute_share"], 0.98),
            np.where(moe, e["moe_prompt_share"], e["prompt_share"]), e["link_share"], layer * e["moe_old_layer"] ** old * 1e-6,
            e["sequence_us"] * 1e-6, e["reduce_us"] * 1e-6, 1.0, 0.0, _SPREAD, _SPREAD, _EVIDENCE,
        )  # fmt: skip
        total: Array = server_terms(c, _pieces(ServerPieces, s)).total_s
        return total

    def table(self, p: Array, known: list[str], rows: dict[str, dict[str, int]]) -> dict[str, Any]:
        named = {name: _r(value) for name, value in zip(self.NAMES, np.exp(p[: len(self.NAMES)]), strict=True)}
        return named | {"architectures": _own(p, len(self.NAMES), known, rows, ("bandwidth_share", "layer_us"))}
