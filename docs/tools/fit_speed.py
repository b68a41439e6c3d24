"""Refit data/vram_plan_data/speed_constants.json from tests/data/speed_cases.jsonl: `python docs/tools/fit_speed.py`,
or of the parts named after it.

Needs numpy and scipy (the program itself does not). The roofline's own functions are run over arrays, so what is fitted
is what is planned with. Each backend has one set of constants, each architecture may differ from it by as much as its
measurements insist on (a Gaussian prior on the logarithm), and a heavy-tailed loss (Student's t) keeps throttled or
mislabelled submissions from steering. Errors and ranges are of GPUs left out of the fit, one at a time.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "sizing"), str(ROOT / "data"), str(ROOT / "tests")]

from fit_speed_cpu import CpuDecode, CpuPrefill  # noqa: E402
from fit_speed_models import Decode, Prefill, Server  # noqa: E402
from fit_speed_samples import Samples, decode_samples, idle_samples, prefill_samples, server_samples  # noqa: E402
from vram_plan.speed import constants  # noqa: E402

TABLE = ROOT / "data" / "vram_plan_data" / "speed_constants.json"
#: A heavy-tailed loss has several minima. Two descents: at once, and first with errors taken as wider, where there are fewer.
DESCENTS = ((1.0,), (4.0, 2.0, 1.0))
#: At most this many measurements of one GPU in one source (of servers: one model on one GPU) count in full; copied scoreboards a third.
FULL_ROWS = 8
LESS_TRUSTED = 0.35
BACKENDS = ("cuda", "metal", "rocm", "vulkan", "cpu")
#: Server engines, and the other whose measurements say where to look for one measured less.
SERVERS = {"vllm": "", "sglang": "vllm"}
#: Percentiles of what unseen GPUs did that a range reaches to.
SHARE = (5.0, 95.0)
#: Of n GPUs the range is widened by this ÷ n, on the logarithm: chosen so that rows of GPUs the range was not told by are held.
FEW = 0.7
#: A prompt alone on an engine none was measured of.
IDLE_UNKNOWN = {"factor": 1.0, "exponent": 0.0, "spread": [0.5, 1.5], "rows": 0}


def weights(samples: Samples) -> np.ndarray:
    count = Counter(samples["group"])
    pairs = zip(samples["group"], samples["direct"], strict=True)
    return np.array([min(1.0, FULL_ROWS / count[group]) * (1.0 if direct else LESS_TRUSTED) for group, direct in pairs])


def fit(form: Any, samples: Samples) -> tuple[np.ndarray, list[str]]:
    """The parameters of one backend and the architectures they know: the better of two descents."""
    known = sorted(set(samples["architecture"]))
    place = np.array([known.index(a) for a in samples["architecture"]])
    mean, sd = form.prior()
    n, k = len(mean), len(known)
    root = np.sqrt(weights(samples))
    target = np.log(samples["seconds"])

    def residuals(p: np.ndarray, wider: float) -> np.ndarray:
        own = p[n:].reshape(form.OWN, k)
        error = (np.log(form.seconds(samples, p[:n], own[:, place])) - target) / (wider * form.NOISE)
        loss = np.sqrt((form.DEGREES + 1) * np.log1p(error * error / form.DEGREES)) * root
        return np.concatenate([loss, (p[:n] - mean) / sd, (own / np.array(form.OWN_SD)[:, None]).ravel()])

    found = []
    for steps in DESCENTS:
        p = np.concatenate([mean, np.zeros(form.OWN * k)])
        for wider in steps:
            p = least_squares(residuals, p, max_nfev=200, args=(wider,)).x
        found.append(p)
    return min(found, key=lambda p: float(np.sum(residuals(p, 1.0) ** 2))), known


def predict(form: Any, samples: Samples, p: np.ndarray, known: list[str]) -> np.ndarray:
    n, k = len(form.prior()[0]), len(known)
    own = np.concatenate([p[n:].reshape(form.OWN, k), np.zeros((form.OWN, 1))], axis=1)
    place = np.array([known.index(a) if a in known else k for a in samples["architecture"]])
    return form.seconds(samples, p[:n], own[:, place])


def select(samples: Samples, mask: np.ndarray) -> Samples:
    return {key: np.asarray(value)[mask] for key, value in samples.items()}


def left_out(form: Any, samples: Samples, groups: str = "gpu") -> np.ndarray:
    """Seconds of every sample, by constants that have not seen its GPU (or its model)."""
    out = np.empty(len(samples["seconds"]))
    for name in sorted(set(samples[groups])):
        mask = np.asarray(samples[groups]) == name
        blind = form.blind(groups, name)
        out[mask] = predict(blind, select(samples, mask), *fit(blind, samples if mask.all() else select(samples, ~mask)))
    return out


Ends = dict[bool, list[float]]


def spread(ratio: np.ndarray, floor: float, gpus: int = 100) -> list[float]:
    """Measured ÷ estimated rate at both ends of a range for nine in ten, at least ± `floor`; few GPUs say little of others."""
    if len(ratio) < 4:
        return [round(1 / (1 + 2 * floor), 3), round(1 + 2 * floor, 3)]
    low, high = np.percentile(ratio, SHARE)
    return [round(float(end) ** (1 + FEW / max(gpus, 1)), 3) for end in (min(low, 1 - floor), max(high, 1 + floor))]


def judged(samples: Samples, seconds: np.ndarray, groups: str = "gpu") -> Samples:
    """Measured ÷ estimated rates with what ranges are told by; `group` is what must not be known."""
    columns = {key: np.asarray(samples[key]) for key in ("moe", "gpu", "direct")}
    return columns | {"ratio": seconds / samples["seconds"], "group": np.asarray(samples[groups])}


def joined(*parts: Samples) -> Samples:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def spreads(rows: Samples, floor: float) -> Ends:
    """The ranges of dense models and of mixtures, of first-hand rows. Mixtures ran on few GPUs: theirs is drawn towards the dense
    models' as by one GPU more."""
    direct = select(rows, rows["direct"])
    moe = direct["moe"]
    dense = select(direct, ~moe if (~moe).sum() >= 8 else np.full(len(moe), True))
    mixed = select(direct, moe)
    ends = spread(dense["ratio"], floor, len(set(dense["gpu"])))
    count = len(set(mixed["gpu"]))
    own = spread(mixed["ratio"], floor, count) if moe.sum() >= 4 else [end**1.5 for end in ends]
    return {False: ends, True: [round((count * o + e) / (count + 1), 3) for o, e in zip(own, ends, strict=True)]}


def held(rows: Samples, told: Samples, floor: float) -> np.ndarray:
    """Which rows lie in the range that all others tell: none of their GPU (or model) is among those."""
    inside = np.empty(len(rows["ratio"]), bool)
    for name in set(rows["group"]):
        ends = spreads(select(told, told["group"] != name), floor)
        for i in np.flatnonzero(rows["group"] == name):
            low, high = ends[bool(rows["moe"][i])]
            inside[i] = low <= rows["ratio"][i] <= high
    return inside


def score(name: str, samples: Samples, seconds: np.ndarray, mask: np.ndarray, inside: np.ndarray) -> dict[str, Any] | None:
    """The row of the accuracy table for the samples of `mask`."""
    if not mask.any():
        return None
    part = select(samples, mask)
    ratio = part["seconds"] / seconds[mask]  # estimated rate ÷ measured rate
    error = np.abs(ratio - 1)
    naive = np.abs(part["seconds"] / part["naive_s"] - 1) if "naive_s" in part else None
    return {
        "class": name, "rows": int(mask.sum()), "gpus": len(set(part["gpu"])), "median": round(float(np.median(error)), 4),
        "p90": round(float(np.percentile(error, 90)), 4), "within_20": round(float(np.mean(error <= 0.2)), 3),
        "inside": round(float(np.mean(inside[mask])), 3),
        "naive_median": round(float(np.median(naive)), 4) if naive is not None else None,
        "naive_p90": round(float(np.percentile(naive, 90)), 4) if naive is not None else None,
    }  # fmt: skip


def counts(samples: Samples) -> dict[str, int]:
    return {"rows": len(samples["gpu"]), "gpus": len(set(samples["gpu"]))}


def per_architecture(samples: Samples) -> dict[str, dict[str, int]]:
    rows: dict[str, set[str]] = defaultdict(set)
    for gpu, key in zip(samples["gpu"], samples["architecture"], strict=True):
        rows[key].add(gpu)
    total = Counter(samples["architecture"])
    return {key: {"rows": total[key], "gpus": len(gpus)} for key, gpus in sorted(rows.items())}


HBM = ("a100", "h100", "volta", "pascal-hbm")


#: Builds of llama.cpp since about the autumn of 2025.
NEW = -0.2


def accuracy_rows(name: str, samples: Samples, seconds: np.ndarray, inside: np.ndarray) -> list[dict[str, Any]]:
    direct, moe, new = np.asarray(samples["direct"]), np.asarray(samples["moe"]), np.asarray(samples["age"]) < NEW
    hbm = np.isin(samples["architecture"], HBM)
    parts = [(name, direct)]
    if "cuda" in name:
        parts += [(f"{name}, GDDR and LPDDR", direct & ~hbm), (f"{name}, HBM", direct & hbm)]
    if "rocm" in name or "vulkan" in name:
        parts += [(f"{name}, builds since autumn 2025", direct & new)]
    if cpu := name.endswith("cpu"):
        parts += [(f"{name}, memory's speed told", direct & np.asarray(samples["told"]))]
    others = "IQ1 to IQ3, on one processor" if cpu else "LocalScore and Ollama"
    parts += [(f"{name}, mixtures of experts", direct & moe & ~moe.all()), (f"{name}, {others}", ~direct)]
    return [row for label, mask in parts if (row := score(label, samples, seconds, mask, inside))]


def one(name: str, form: Any, samples: Samples, kin: Samples | None, floor: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One part of the table and its accuracy rows. `kin` are judged rows that widen a range few GPUs tell."""
    unseen, (p, known) = left_out(form, samples), fit(form, samples)
    part = form.table(p, known, per_architecture(samples)) | counts(samples)
    rows = judged(samples, unseen)
    told = rows | {"direct": rows["direct"] & ~outdated(samples, part)}
    told = joined(told, kin) if kin else told
    ends = spreads(told, floor)
    return part | {"spread": ends[False], "spread_moe": ends[True]}, shown(accuracy_rows(name, samples, unseen, held(rows, told, floor)))


def outdated(samples: Samples, part: dict[str, Any]) -> np.ndarray:
    """Rows of builds whose prompts were less than half as fast as today's on that architecture: they tell nothing of today's range."""
    gain = part.get("new_build", 1.0)
    slow = [key for key, own in part["architectures"].items() if gain * own.get("new_build", 1.0) > 2]
    return np.isin(samples["architecture"], slow) & (np.asarray(samples["age"]) >= NEW)


class Like(Server):
    """A server engine whose constants are looked for around what another's measurements came to."""

    def __init__(self, others: Samples) -> None:
        self.others = others
        super().__init__(fit(Server(), others)[0])

    def blind(self, groups: str, name: str) -> Server:
        mask = np.asarray(self.others[groups]) == name
        return Like(select(self.others, ~mask)) if mask.any() and not mask.all() else self


def server(engine: str, like: str = "") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An engine's part: errors on GPUs and on models left out; the range holds nine in ten of both together."""
    samples, name = server_samples(engine), f"{engine} time per output token"
    form = Like(server_samples(like)) if like else Server()
    moe = np.asarray(samples["moe"])
    unseen = {"GPU": left_out(form, samples), "model": left_out(form, samples, "model")}
    both = {what: [judged(samples, seconds, by) for seconds in unseen.values()] for what, by in (("GPU", "gpu"), ("model", "model"))}
    inside = {what: held(rows[what == "model"], joined(*rows), 0.12) for what, rows in both.items()}
    ends, (p, known) = spreads(joined(*both["GPU"]), 0.12), fit(form, samples)
    part = form.table(p, known, per_architecture(samples)) | counts(samples)
    part |= {"spread": ends[False], "spread_moe": ends[True]}
    masks = {"dense": ~moe, "mixtures of experts": moe, "all": np.full(len(moe), True)}
    scored = ((kind, what, mask) for kind, mask in masks.items() for what in unseen)
    rows = [score(f"{name}, {kind}, {what} left out", samples, unseen[what], mask, inside[what]) for kind, what, mask in scored]
    return part, shown([row for row in rows if row])


def idle(table: dict[str, Any]) -> None:
    """A prompt alone: what times to the first token took beyond the shares fitted to prompts beside decoding, once those are written."""
    for part in table["servers"].values():
        part["idle_prompt"] = {"dense": IDLE_UNKNOWN, "moe": IDLE_UNKNOWN}
    write(table)
    for engine, part in table["servers"].items():
        s = idle_samples(engine)
        for kind, mask in (("dense", ~s["moe"]), ("moe", s["moe"])):
            if not mask.any():
                continue
            one = select(s, mask)
            took, wide = np.log(np.maximum(one["seconds"], 1e-3) / one["compute"]), np.log(one["wide"])
            exponent = float(np.clip(np.polyfit(wide, took, 1)[0], 0.0, 1.0)) if len(set(one["wide"])) > 1 else 0.0
            factor = float(np.exp(np.median(took - exponent * wide)))
            ratio = np.exp(exponent * wide - took) * factor
            found = {"factor": round(factor, 3), "exponent": round(exponent, 3), "spread": spread(ratio, 0.2), "rows": int(mask.sum())}
            part["idle_prompt"][kind] = found
            print(f"{engine}, a prompt alone, {kind}: {found}, off by {np.median(np.abs(1 / ratio - 1)):.1%}")
    write(table)


def write(table: dict[str, Any]) -> None:
    TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    constants.table.cache_clear()
    constants.server_constants.cache_clear()


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        counted = f"{row['class']:64s} {row['rows']:4d} rows {row['gpus']:2d} GPUs"
        print(f"{counted}  {row['median']:6.1%} {row['p90']:6.1%}  inside {row['inside']:.0%}", flush=True)
    return rows


def vulkan_rows() -> Samples:
    """What decode through Vulkan came to, for ranges."""
    samples = decode_samples("vulkan")
    return judged(samples, left_out(Decode("vulkan"), samples))


def part_of(row: dict[str, Any]) -> str:
    """The backend or the server engine a row of the accuracy table is of."""
    name: str = row["class"]
    return name.split(", ")[1] if name.startswith("llama.cpp") else name.split()[0]


def llama(backend: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kin = vulkan_rows() if backend == "rocm" else None  # few AMD cards were measured through ROCm
    forms = (CpuDecode(), CpuPrefill()) if backend == "cpu" else (Decode(backend), Prefill(backend))
    floors = (0.4, 0.4) if backend == "cpu" else (0.05, 0.15)  # of processors so that rows of those the range was not told by are held
    decode, rows = one(f"llama.cpp decode, {backend}", forms[0], decode_samples(backend), kin, floors[0])
    prefill, more = one(f"llama.cpp prefill, {backend}", forms[1], prefill_samples(backend), None, floors[1])
    return {"decode": decode, "prefill": prefill}, rows + more


def main(parts: list[str]) -> None:
    """Fits all, or the named parts (`cuda`, `metal`, …, `cpu`, `vllm`, `sglang`), and keeps what the table has of the others."""
    fitted = {part: llama(part) for part in BACKENDS if part in parts or not parts}
    served = {part: server(part, like) for part, like in SERVERS.items() if part in parts or not parts}
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    table["fitted"] = datetime.date.today().isoformat()
    table["llama.cpp"] |= {part: found[0] for part, found in fitted.items()}
    table["servers"] |= {part: found[0] for part, found in served.items()}
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in (*table["llama.cpp"], *table["servers"])}
    for row in table["accuracy"]:
        rows[part_of(row)].append(row)
    rows |= {part: found[1] for part, found in (fitted | served).items()}
    table["accuracy"] = [row for part in rows.values() for row in part]
    idle(table)


if __name__ == "__main__":
    main(sys.argv[1:])
