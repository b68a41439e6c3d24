"""Refit data/vram_plan_data/speed_constants.json from tests/data/speed_cases.jsonl: `python docs/tools/fit_speed.py`.

Needs numpy and scipy (the program itself does not). The roofline's own functions are run over arrays, so what is fitted
is what is planned with. Each backend has one set of constants, each architecture may differ from it by as much as its
measurements insist on (a Gaussian prior on the logarithm), and a heavy-tailed loss (Student's t, 2 degrees) keeps throttled or
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

from fit_speed_models import Decode, Prefill, Server  # noqa: E402
from fit_speed_samples import Samples, decode_samples, idle_samples, prefill_samples, server_samples  # noqa: E402
from vram_plan.speed import constants  # noqa: E402

TABLE = ROOT / "data" / "vram_plan_data" / "speed_constants.json"
DEGREES = 2.0
#: A heavy-tailed loss has several minima. Two descents: at once, and first with errors taken as wider, where there are fewer.
DESCENTS = ((1.0,), (4.0, 2.0, 1.0))
#: At most this many measurements of one GPU in one source (of servers: one model on one GPU) count in full; copied scoreboards a third.
FULL_ROWS = 8
LESS_TRUSTED = 0.35
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
        loss = np.sqrt((DEGREES + 1) * np.log1p(error * error / DEGREES)) * root
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
    """Seconds of every sample, by constants that have not seen its GPU."""
    out = np.empty(len(samples["seconds"]))
    for name in sorted(set(samples[groups])):
        mask = np.asarray(samples[groups]) == name
        if mask.all():
            out[mask] = predict(form, samples, *fit(form, samples))
        else:
            out[mask] = predict(form, select(samples, mask), *fit(form, select(samples, ~mask)))
    return out


def spread(ratio: np.ndarray, floor: float) -> list[float]:
    """Measured ÷ estimated rate at both ends of a range for nine in ten, at least ± `floor`."""
    if len(ratio) < 8:
        return [round(1 / (1 + 2 * floor), 3), round(1 + 2 * floor, 3)]
    low, high = np.percentile(ratio, [5.0, 95.0])
    return [round(float(min(low, 1 - floor)), 3), round(float(max(high, 1 + floor)), 3)]


def score(name: str, samples: Samples, seconds: np.ndarray, mask: np.ndarray, ends: dict[bool, list[float]]) -> dict[str, Any] | None:
    """The row of the accuracy table for the samples of `mask`."""
    if not mask.any():
        return None
    part = select(samples, mask)
    ratio = part["seconds"] / seconds[mask]  # estimated rate ÷ measured rate
    error = np.abs(ratio - 1)
    naive = np.abs(part["seconds"] / part["naive_s"] - 1) if "naive_s" in part else None
    inside = [ends[bool(m)][0] <= 1 / r <= ends[bool(m)][1] for r, m in zip(ratio, part["moe"], strict=True)]
    return {
        "class": name, "rows": int(mask.sum()), "gpus": len(set(part["gpu"])), "median": round(float(np.median(error)), 4),
        "p90": round(float(np.percentile(error, 90)), 4), "within_20": round(float(np.mean(error <= 0.2)), 3),
        "inside": round(float(np.mean(inside)), 3),
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


def accuracy_rows(name: str, samples: Samples, seconds: np.ndarray, ends: dict[bool, list[float]]) -> list[dict[str, Any]]:
    direct, moe = np.asarray(samples["direct"]), np.asarray(samples["moe"])
    hbm = np.isin(samples["architecture"], HBM)
    parts = [(name, direct)]
    if "cuda" in name:
        parts += [(f"{name}, GDDR and LPDDR", direct & ~hbm), (f"{name}, HBM", direct & hbm)]
    parts += [(f"{name}, mixtures of experts", direct & moe & ~moe.all()), (f"{name}, LocalScore and Ollama", ~direct)]
    return [row for label, mask in parts if (row := score(label, samples, seconds, mask, ends))]


def one(name: str, form: Any, samples: Samples, groups: str = "gpu", floor: float = 0.08) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One part of the table and its accuracy rows."""
    unseen = left_out(form, samples, groups)
    ratio = unseen / samples["seconds"]  # measured rate ÷ estimated rate
    moe, direct = np.asarray(samples["moe"]), np.asarray(samples["direct"])
    ends = {flag: spread(ratio[(moe == flag) & direct], floor) for flag in (False, True)}
    if not moe.all():  # few GPUs ran mixtures of experts: their range is no narrower than the dense models'
        ends[True] = [min(ends[False][0], ends[True][0]), max(ends[False][1], ends[True][1])]
    p, known = fit(form, samples)
    part = form.table(p, known, per_architecture(samples)) | counts(samples) | {"spread": ends[False], "spread_moe": ends[True]}
    return part, shown(accuracy_rows(name, samples, unseen, ends))


def server(engine: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An engine's part: errors on GPUs and on models left out; the range holds nine in ten of both together."""
    samples, name = server_samples(engine), f"{engine} time per output token"
    moe = np.asarray(samples["moe"])
    unseen = {"GPU": left_out(Server(), samples), "model": left_out(Server(), samples, "model")}
    ratio = np.concatenate([seconds / samples["seconds"] for seconds in unseen.values()])
    ends = {flag: spread(ratio[np.tile(moe == flag, 2)], 0.12) for flag in (False, True)}
    p, known = fit(Server(), samples)
    part = Server().table(p, known, per_architecture(samples)) | counts(samples)
    part |= {"spread": ends[False], "spread_moe": ends[True]}
    masks = {"dense": ~moe, "mixtures of experts": moe, "all": np.full(len(moe), True)}
    rows = [score(f"{name}, {kind}, {what} left out", samples, unseen[what], mask, ends) for kind, mask in masks.items() for what in unseen]
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


def main() -> None:
    old = json.loads(TABLE.read_text(encoding="utf-8"))
    table: dict[str, Any] = {"fitted": datetime.date.today().isoformat(), "fitted_on": "tests/data/speed_cases.jsonl", "form": old["form"]}
    table["architectures"], table["assumed"] = old["architectures"], old["assumed"]
    accuracy: list[dict[str, Any]] = []
    table["llama.cpp"] = {}
    for backend in ("cuda", "metal", "rocm", "vulkan"):
        decode, rows = one(f"llama.cpp decode, {backend}", Decode(backend), decode_samples(backend))
        prefill, more = one(f"llama.cpp prefill, {backend}", Prefill(backend), prefill_samples(backend), floor=0.15)
        table["llama.cpp"][backend] = {"decode": decode, "prefill": prefill}
        accuracy += rows + more
    table["servers"] = {}
    for engine in ("vllm", "sglang"):
        table["servers"][engine], rows = server(engine)
        accuracy += rows
    table["accuracy"] = accuracy
    idle(table)


if __name__ == "__main__":
    main()
