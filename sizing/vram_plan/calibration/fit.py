"""From measured times to constants: least squares on relative errors with no negative constants, and what they then predict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median
from typing import Final

from ..hardware.profiles import Figure, Fitted, Mode, Point

__all__ = ["Solution", "fit_points", "possible", "predict_step", "solve"]

#: Columns nearer to being sums of each other than this cannot be told apart by times that scatter by a percent.
_SINGULAR: Final = 1e-7
#: Attention is fitted apart where it is more than this share of a prompt's arithmetic.
_ATTENTION_SHARE: Final = 0.1
#: A step from Python that takes so many times what a recorded one does had the device wait.
_WAITED: Final = 1.1
#: Weights read faster than memory by more than this came from a cache in part.
_CACHED: Final = 1.02
#: Faster than this many times the best rate of the plain reads and products is no measurement.
_IMPOSSIBLE: Final = 2.0
#: A larger error on the fitted points themselves is said.
_GOOD_FIT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Solution:
    """Constants with their standard deviations, and the largest relative error on the rows they were fitted to."""

    values: tuple[float, ...]
    sds: tuple[float, ...]
    worst: float


def _factor(gram: Sequence[Sequence[float]]) -> list[list[float]] | None:
    """Cholesky's lower factor of a matrix with ones on its diagonal; None where it is (nearly) singular."""
    size = len(gram)
    low = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = gram[i][j] - sum(low[i][k] * low[j][k] for k in range(j))
            if i == j:
                if rest < _SINGULAR:
                    return None
                low[i][i] = math.sqrt(rest)
            else:
                low[i][j] = rest / low[j][j]
    return low


def _inverse(low: Sequence[Sequence[float]]) -> list[list[float]]:
    """The inverse of the matrix a Cholesky factor is of."""
    size = len(low)
    inverse = []
    for unit in range(size):
        y = [0.0] * size
        for i in range(size):
            y[i] = ((1.0 if i == unit else 0.0) - sum(low[i][k] * y[k] for k in range(i))) / low[i][i]
        for i in reversed(range(size)):
            y[i] = (y[i] - sum(low[k][i] * y[k] for k in range(i + 1, size))) / low[i][i]
        inverse.append(y)
    return inverse


def _least_squares(rows: Sequence[Sequence[float]], columns: Sequence[int]) -> tuple[list[float], list[float]] | None:
    """Values and the diagonal of the inverse for these columns, the target being 1 everywhere; None where they are not independent."""
    scale = [math.sqrt(sum(row[c] ** 2 for row in rows)) for c in columns]
    if not all(scale):
        return None
    scaled = [[row[c] / s for c, s in zip(columns, scale, strict=True)] for row in rows]
    gram = [[sum(row[i] * row[j] for row in scaled) for j in range(len(columns))] for i in range(len(columns))]
    low = _factor(gram)
    if low is None:
        return None
    inverse = _inverse(low)
    sums = [sum(row[i] for row in scaled) for i in range(len(columns))]
    values = [sum(a * b for a, b in zip(line, sums, strict=True)) / s for line, s in zip(inverse, scale, strict=True)]
    return values, [inverse[i][i] / s**2 for i, s in enumerate(scale)]


def solve(design: Sequence[Sequence[float]], times: Sequence[float], noise: float = 0.0) -> Solution:
    """Nonnegative constants x with design · x ≈ times, each row weighted by 1 ÷ its time. `noise`: the times' relative scatter.

    Every choice of columns is tried, so the answer is the best there is; a constant left out is 0 with no deviation known (nan).
    Raises ValueError where the rows are fewer than the columns or cannot tell them apart.
    """
    size = len(design[0]) if design else 0
    rows = [[entry / seconds for entry in row] for row, seconds in zip(design, times, strict=True)]
    if len(rows) < size or _least_squares(rows, range(size)) is None:
        raise ValueError("these measurements cannot tell the constants apart: more widths, layers or depths are needed")
    best: tuple[float, tuple[int, ...], list[float], list[float]] | None = None
    for count in range(size, 0, -1):
        for columns in combinations(range(size), count):
            found = _least_squares(rows, columns)
            if found is None or min(found[0]) < 0:
                continue
            rest = sum((1 - sum(row[c] * v for c, v in zip(columns, found[0], strict=True))) ** 2 for row in rows)
            if best is None or rest < best[0]:
                best = rest, columns, *found
    if best is None:
        raise ValueError("no positive constants describe these times")
    rest, columns, values, spread = best
    variance = max(rest / max(len(rows) - len(columns), 1), noise**2)
    full, sds = [0.0] * size, [math.nan] * size
    for c, value, factor in zip(columns, values, spread, strict=True):
        full[c], sds[c] = value, math.sqrt(variance * factor)
    worst = max(abs(1 - sum(entry * x for entry, x in zip(row, full, strict=True))) for row in rows)
    return Solution(tuple(full), tuple(sds), worst)


def _scatter(points: Iterable[Point]) -> float:
    """The usual relative standard error of the medians, from their 10th and 90th percentile."""
    errors = [1.25 * (p.p90_s - p.p10_s) / 2.56 / p.median_s / math.sqrt(p.n) for p in points if p.n and p.median_s]
    return median(errors) if errors else 0.0


def _rate(value: float, sd: float) -> Figure | None:
    """A rate from seconds a unit; None where the fit found none."""
    return Figure(1 / value, sd / value**2) if value > 0 else None


def _time(value: float, sd: float) -> Figure:
    """A time the fit put at its lower bound is nothing, with no deviation known."""
    return Figure(value, sd if value > 0 else 0.0)


def _decode(fitted: Fitted, points: Sequence[Point], dtype: str, mode: Mode, memory: Figure | None, flags: list[str]) -> Fitted:
    """Weights, cache, layers and token of one mode."""
    try:
        s, fitted = _with_rates(fitted, points, dtype, memory, flags)
    except ValueError as error:
        flags.append(f"{mode} steps: {error}")
        return fitted
    layer, token = _time(s.values[-2], s.sds[-2]), _time(s.values[-1], s.sds[-1])
    if s.worst > _GOOD_FIT:
        flags.append(f"{mode} steps: the fit leaves up to {s.worst:.0%} unexplained")
    if mode == "graph":
        return replace(fitted, graph_layer_s=layer, graph_token_s=token)
    return replace(fitted, eager_layer_s=layer, eager_token_s=token)


def _launches(fitted: Fitted, points: Sequence[Point], recorded: Sequence[Point]) -> Fitted:
    """What launching takes, by the steps that took longer from Python than recorded: there the device waited for the host.

    Where none did, launching takes less than the device: no more than that is known, and no more is needed.
    """
    device = {(p.shape, p.layers, p.depth): p.median_s for p in recorded}
    waited = [p for p in points if p.median_s > _WAITED * device.get((p.shape, p.layers, p.depth), math.inf)]
    if not waited:
        return replace(fitted, eager_layer_s=fitted.graph_layer_s, eager_token_s=fitted.graph_token_s)
    one = len({p.layers for p in waited}) == 1
    s = solve([[p.layers] if one else [p.layers, 1.0] for p in waited], [p.median_s for p in waited], _scatter(waited))
    token = Figure(0.0) if one else _time(s.values[1], s.sds[1])
    return replace(fitted, eager_layer_s=_time(s.values[0], s.sds[0]), eager_token_s=token)


def _with_rates(
    fitted: Fitted, points: Sequence[Point], dtype: str, memory: Figure | None, flags: list[str]
) -> tuple[Solution, Fitted]:  # fmt: skip
    """All four constants, of weights at most `memory`; where the cache's share is too small to tell its rate, it is read like weights."""
    times, noise = [p.median_s for p in points], _scatter(points)
    s = solve([[p.bytes, p.kv_bytes, p.layers, 1.0] for p in points], times, noise)
    kv = _rate(s.values[1], s.sds[1])
    if kv is None or kv.sd > kv.value:
        flags.append("the cache's share of a step was too small to tell its rate: taken as the weights'")
        s, kv = solve([[p.bytes + p.kv_bytes, p.layers, 1.0] for p in points], times, noise), None
    weights = _rate(s.values[0], s.sds[0])
    if weights is None:
        raise ValueError("the weights' bytes made no difference to the time")
    if memory and weights.value > _CACHED * memory.value:
        flags.append("the weights were read faster than memory can be, part of them from a cache: taken as the memory's rate")
        s, weights = _beside(points, memory.value, noise), memory
        kv = _rate(s.values[0], s.sds[0])
    return s, replace(fitted, weight_bytes_per_s={**fitted.weight_bytes_per_s, dtype: weights}, kv_bytes_per_s=kv)


def _beside(points: Sequence[Point], rate: float, noise: float) -> Solution:
    """What cache, layers and tokens take beside weights read at this rate. Raises ValueError where nothing is left for them."""
    times = [p.median_s - p.bytes / rate for p in points]
    if min(times) <= 0:
        raise ValueError("the weights stayed in a cache, which tells nothing of memory: larger models are needed (a larger --budget)")
    return solve([[p.kv_bytes, p.layers, 1.0] for p in points], times, noise)


def predict_step(fitted: Fitted, p: Point, mixture: bool = False) -> float | None:
    """Seconds of a step of one sequence by the formula plans use; None where its weights' format or its mode was not measured."""
    return fitted.decode_s(p.mode or "eager", p.dtype, p.bytes, p.kv_bytes, p.layers, p.layers if mixture else 0)


def _prefill(fitted: Fitted, points: Sequence[Point]) -> Fitted:
    if not points:
        return fitted
    apart = len(points) > 2 and any(p.attention_flops > _ATTENTION_SHARE * p.flops for p in points)
    design = [[p.flops, p.attention_flops] if apart else [p.flops + p.attention_flops] for p in points]
    s = solve(design, [p.median_s for p in points], _scatter(points))
    attention = _rate(s.values[1], s.sds[1]) if apart else None
    return replace(fitted, prefill_flops=_rate(s.values[0], s.sds[0]), attention_flops=attention)


def _packed(fitted: Fitted, points: Sequence[Point], memory: Figure | None, flags: list[str]) -> Fitted:
    """The rate of 8- and 4-bit weights: what a step takes beyond the times a layer and a token already known."""
    rates = dict(fitted.weight_bytes_per_s)
    for kind in dict.fromkeys(p.dtype for p in points):
        chosen = [p for p in points if p.dtype == kind]
        modes: set[Mode | None] = {p.mode for p in chosen}
        chosen = [p for p in chosen if p.mode == ("graph" if "graph" in modes else "eager")]
        kv = fitted.kv_bytes_per_s
        times = [p.median_s - (fitted.fixed_s(p.mode or "eager", p.layers) or 0.0) - (p.kv_bytes / kv.value if kv else 0.0) for p in chosen]
        if min(times) <= 0:
            flags.append(f"{kind} weights: a step took less time than its layers' fixed time, so no rate could be told")
            continue
        s = solve([[p.bytes] for p in chosen], times, _scatter(chosen))
        rate = _rate(s.values[0], s.sds[0])
        if rate:
            rates[kind] = memory if memory and rate.value > _CACHED * memory.value else rate
    return replace(fitted, weight_bytes_per_s=rates)


def _mixture(fitted: Fitted, points: Sequence[Point], flags: list[str]) -> Fitted:
    """What a layer of routed experts takes beyond its bytes and a plain layer's time."""
    mode = "graph" if fitted.graph_layer_s else "eager"
    chosen = [p for p in points if p.mode == mode]
    if points and not chosen:
        flags.append("torch cannot record steps with experts here: what their layers take besides is not known")
    if not chosen or predict_step(fitted, chosen[0]) is None:
        return fitted
    extra = [(p.median_s - (predict_step(fitted, p) or 0.0)) / p.layers for p in chosen]
    if median(extra) <= 0:
        flags.append("a layer of experts took no longer than its bytes and a plain layer")
        return fitted
    spread = median(p.median_s / p.layers for p in chosen) * _scatter(chosen)
    return replace(fitted, moe_layer_s=Figure(median(extra), spread))


def _best(points: Sequence[Point], what: str, shape: str = "") -> Figure | None:
    """The highest rate of one kind of point, bytes or operations a second."""
    rates = []
    for p in points:
        if p.what == what and shape in ("", p.shape) and p.median_s:
            amount = p.flops or p.bytes
            rates.append(Figure(amount / p.median_s, amount / p.median_s * _scatter([p])))
    return max(rates, key=lambda rate: rate.value, default=None)


def _memory(points: Sequence[Point]) -> Figure | None:
    """What memory gives at its quickest: the plain reads and copies of a large buffer, where nothing else took a part of it."""
    rates = [p.bytes / p.p10_s for p in points if p.what in ("read", "copy") and p.shape == "memory" and p.p10_s]
    return Figure(max(rates)) if rates else None


def possible(points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """The points without those that read or computed faster than the machine can, and what is to be said of them."""
    read = max((p.bytes / p.p10_s for p in points if p.what in ("read", "copy") and p.p10_s), default=math.inf)
    compute = max((p.flops / p.p10_s for p in points if p.what == "matmul" and p.p10_s), default=math.inf)
    timed = [p for p in points if p.what in ("decode", "prefill")]
    odd = {
        id(p) for p in timed if p.median_s <= 0 or (p.bytes + p.kv_bytes) / p.median_s > _IMPOSSIBLE * read
        or (p.what == "prefill" and p.flops / p.median_s > _IMPOSSIBLE * compute)
    }  # fmt: skip
    said = (f"{p.shape}, {p.what} of {p.tokens:,} after {p.depth:,}: {p.median_s * 1e6:.3g} µs" for p in timed if id(p) in odd)
    flags = [f"{words} is faster than the memory or the cores can be: left out" for words in said]
    return [p for p in points if id(p) not in odd], flags


def fit_points(points: Sequence[Point], dtype: str, mixtures: frozenset[str] = frozenset()) -> tuple[Fitted, list[str]]:
    """All constants the points of the role "fit" tell, and what is to be said of them. `mixtures`: shapes with routed experts.

    Memory points of that role give runtime and allocator. What cannot be told stays None and is said.
    """
    flags: list[str] = []
    own = [p for p in points if p.part == "fit"]
    steps = [p for p in own if p.what == "decode" and p.batch == 1 and p.shape not in mixtures]
    copy, read = _best(points, "copy", "memory"), _best(points, "read", "memory")
    fitted = Fitted(copy_bytes_per_s=copy, read_bytes_per_s=read, matmul_flops=_best(points, "matmul"))
    memory = _memory(points)
    modes: tuple[Mode, ...] = ("graph", "eager")
    for mode in modes:
        chosen = [p for p in steps if p.mode == mode and p.dtype == dtype]
        if mode == "eager" and fitted.graph_layer_s and chosen:
            fitted = _launches(fitted, chosen, [p for p in steps if p.mode == "graph"])
        elif chosen:
            fitted = _decode(fitted, chosen, dtype, mode, memory, flags)
    fitted = _packed(fitted, [p for p in steps if p.dtype != dtype], memory, flags)
    fitted = _mixture(fitted, [p for p in own if p.what == "decode" and p.shape in mixtures and p.batch == 1], flags)
    return _prefill(fitted, [p for p in own if p.what == "prefill"]), flags
