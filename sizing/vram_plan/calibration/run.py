"""`calibrate`: look at the device, plan the work, measure, fit, and hold the fit against what it has not seen."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Final, Literal, overload

from ..errors import HardwareError, MissingExtraError, UsageError
from ..hardware.profiles import Figure, Fitted, HeldOut, Point, Profile, ProfiledDevice, Quantity, Software
from ..models.model import Model
from .fit import fit_points, possible, predict_step
from .layout import layout_of
from .process import INSTALL, Measurer
from .work import Facts, WorkPlan, plan_work

__all__ = ["calibrate"]

#: What a budget may be overrun by before a process is ended: torch's own start takes long on a loaded machine.
_GRACE_S: Final = 45.0
_MOST_BUDGET_S: Final = 3600.0
#: Of the budget, what a processor's plan of work takes: its cores are shared, and all takes longer than on a quiet machine.
_CPU_SHARE: Final = 0.6

Progress = Callable[[str, float], None]


@overload
def calibrate(
    model: Model | str | None = None, *, device: str | None = None, dtype: str | None = None, budget_s: float = 60,
    dry_run: Literal[False] = False, progress: Progress | None = None, store: bool = True,
) -> Profile: ...  # fmt: skip
@overload
def calibrate(
    model: Model | str | None = None, *, device: str | None = None, dtype: str | None = None, budget_s: float = 60,
    dry_run: Literal[True], progress: Progress | None = None, store: bool = True,
) -> WorkPlan: ...  # fmt: skip
def calibrate(
    model: Model | str | None = None, *, device: str | None = None, dtype: str | None = None, budget_s: float = 60,
    dry_run: bool = False, progress: Progress | None = None, store: bool = True,
) -> Profile | WorkPlan:  # fmt: skip
    """Measure this machine: bandwidth, matrix products, prompts and single tokens of decoders with random weights, and memory.

    `model` is measured too, as a configuration the fit has not seen, with fewer layers where it does not fit. `device` is what torch
    calls it (cuda, cuda:1, rocm, mps, cpu), by default a GPU; `dtype` bf16, f16 or f32. It takes up to `budget_s` seconds, a
    CPU rather half of them, and leaves a tenth, at least 1 GiB, of the free memory alone. `progress(what, seconds_left)` is called as it
    goes. `dry_run`: only the plan of work. `store` keeps the profile, so that later plans on this device use it. Bytes, seconds, SI rates.

    Raises MissingExtraError without torch, UsageError (an unknown device or dtype, a model the decoder cannot build, too small a
    budget), HardwareError where the device, its driver or its memory is the problem, and what `load` raises.
    """
    started = time.monotonic()
    if find_spec("torch") is None:
        raise MissingExtraError("calibration runs torch, which is not installed", INSTALL)
    if dtype is not None and dtype not in ("bf16", "f16", "f32"):
        raise UsageError(f"no calibration in {dtype!r}", "bf16, f16 or f32; 8 and 4 bits are measured besides where torch has the kernels")
    if not 0 < budget_s <= _MOST_BUDGET_S:
        raise UsageError(f"a budget of {budget_s:g} seconds cannot be meant", f"up to {_MOST_BUDGET_S:g}")
    model = _loaded(model)
    architecture = model.architecture if model else None
    if architecture:
        layout_of(architecture)

    def report(what: str, _: float) -> None:
        if progress:
            progress(what, max(started + budget_s - time.monotonic(), 0.0))

    report("starting torch", 0)
    with Measurer(started + budget_s + _GRACE_S, report) as measurer:
        facts = _facts(measurer, device, dtype)
        # each memory figure needs a process of its own, which takes as long to start as this one did
        spent = time.monotonic() - started
        budget_s *= 1.0 if facts.gpu else _CPU_SHARE
        work = plan_work(facts, max(budget_s - 3 * spent, budget_s / 4), architecture, model.name if model else "")
        if dry_run:
            return replace(work, seconds=work.seconds + time.monotonic() - started)
        memory, flags = _memory(work, device, started + budget_s / 2, started + budget_s + _GRACE_S, report)
        points = [*memory, *_measured(measurer, work, device, max(started + budget_s - time.monotonic(), budget_s / 4))]
        flags += measurer.flags
    profile = _profile(work, points, flags, model, time.monotonic() - started)
    if store:
        from ..hardware.profile_store import save_profile

        save_profile(profile)
    return profile


def _loaded(model: Model | str | None) -> Model | None:
    if not isinstance(model, str):
        return model
    from ..models.loading import load

    return load(model)


def _facts(measurer: Measurer, device: str | None, dtype: str | None) -> Facts:
    """The device as the measuring process sees it."""
    answers = [answer["facts"] for answer in measurer.ask("look", device=device, dtype=dtype) if isinstance(answer.get("facts"), dict)]
    if answers:
        return Facts(**{**answers[0], "kernels": tuple(answers[0]["kernels"]), "flags": tuple(answers[0]["flags"])})
    raise HardwareError("the measuring process did not say what device it runs on", "see whether torch works on this machine")


def _points(measurer: Measurer, do: str, **job: object) -> list[Point]:
    return [Point(**answer["point"]) for answer in measurer.ask(do, **job) if isinstance(answer.get("point"), dict)]


def _measured(measurer: Measurer, work: WorkPlan, device: str | None, seconds: float) -> list[Point]:
    f = work.facts
    return _points(
        measurer, "measure", device=device, dtype=work.dtype, threads=f.threads, grouped=f.grouped, graphs=f.graphs, uuid=f.uuid,
        usable=work.usable_bytes, seconds=seconds, buffers=work.buffer_bytes, matmul=work.matmul, runs=[asdict(run) for run in work.runs],
    )  # fmt: skip


def _memory(work: WorkPlan, device: str | None, half: float, ends: float, report: Progress) -> tuple[list[Point], list[str]]:
    """Each job in a process of its own; one that fails is left out and said, as is a second one when `half` of the time is gone."""
    points, flags = [], []
    for job in work.memory:
        report(f"memory of {job.name}", 0)
        if job.role != "fit" and time.monotonic() > half:
            flags.append(f"no time was left to measure the memory of {job.name}: nothing says how well memory is predicted")
            continue
        try:
            with Measurer(ends, exact_memory=True) as alone:
                points += _points(
                    alone, "memory", device=device, dtype=work.dtype, threads=work.facts.threads, uuid=work.facts.uuid,
                    usable=work.usable_bytes, job=asdict(job),
                )
        except HardwareError as error:
            flags.append(f"memory of {job.name} was not measured: {error.message}")
    return points, flags


# --- from points to a profile ---------------------------------------------------------------------------------------------


def _profile(work: WorkPlan, points: list[Point], flags: list[str], model: Model | None, wall_s: float) -> Profile:
    from .. import __version__

    mixtures = frozenset(run.name for run in work.runs if run.architecture.experts)
    points, odd = possible(points)
    fitted, said = fit_points(points, work.dtype, mixtures)
    fitted = _with_memory(fitted, points, work)
    held = (*_held_memory(fitted, points, work), *_held_steps(fitted, points, mixtures), *_held_prompts(fitted, points))
    f = work.facts
    return Profile(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        vram_plan=__version__,
        device=ProfiledDevice(f.kind, f.name, f.total_bytes, f.uuid, f.driver, f.power_limit_w, f.memory_clock_mhz, f.bus_width_bits),
        software=Software(f.torch, f.python, f.os, f.cuda, f.threads, f.allocator),
        dtype=work.dtype,
        model=model.name if model else None,
        points=tuple(points),
        fitted=fitted,
        held_out=held,
        flags=tuple(dict.fromkeys((*f.flags, *work.notes, *flags, *odd, *said, *_doubts(fitted, points, held, f)))),
        wall_s=round(wall_s, 2),
    )


def _part(points: Sequence[Point], shape: str, part: str) -> Point | None:
    return next((p for p in points if p.what == "memory" and p.shape == shape and p.part == part), None)


def _with_memory(fitted: Fitted, points: Sequence[Point], work: WorkPlan) -> Fitted:
    """Runtime and allocator, of the job made for it; what a second process differed by is the deviation."""
    first = next((job.name for job in work.memory if job.role == "fit"), "")
    found: dict[str, Figure] = {}
    for part in ("runtime", "allocator"):
        own = _part(points, first, part)
        others = [p.bytes for p in points if p.what == "memory" and p.part == part and p.shape != first]
        if own is not None and own.bytes >= 0:
            found[part] = Figure(own.bytes, max((abs(other - own.bytes) for other in others), default=0.0))
    return replace(fitted, runtime_bytes=found.get("runtime"), allocator_bytes=found.get("allocator"))


def _held(what: str, quantity: Quantity, predicted: float, measured: float, p: Point | None = None) -> HeldOut:
    return HeldOut(what, quantity, predicted, measured, predicted / measured - 1, p.mode if p and quantity == "decode" else None)


def _held_memory(fitted: Fitted, points: Sequence[Point], work: WorkPlan) -> list[HeldOut]:
    """The whole of the job that was no part of the fit: what the plan expects of its parts, and the fitted rest."""
    rest = sum(figure.value for figure in (fitted.runtime_bytes, fitted.allocator_bytes) if figure)
    rows = []
    for job in work.memory:
        total = _part(points, job.name, "total")
        expected = [p.expected_bytes for p in points if p.what == "memory" and p.shape == job.name and p.expected_bytes is not None]
        if job.role != "fit" and total is not None and total.bytes > 0:
            what = f"{job.name}, {total.layers} layers, a prompt of {job.prompt:,}"
            rows.append(_held(what, "memory", sum(expected) + rest, total.bytes))
    return rows


def _held_steps(fitted: Fitted, points: Sequence[Point], mixtures: frozenset[str]) -> list[HeldOut]:
    rows = []
    for p in points:
        if p.what == "decode" and p.part != "fit" and p.batch == 1:
            predicted = predict_step(fitted, p, p.shape in mixtures)
            if predicted is not None:
                rows.append(_held(f"{p.shape}, {p.layers} layers, a token after {p.depth:,}", "decode", predicted, p.median_s, p))
    return rows


def _held_prompts(fitted: Fitted, points: Sequence[Point]) -> list[HeldOut]:
    rows = []
    for p in points:
        prompt = p.what == "prefill" and p.part != "fit"
        predicted = fitted.prefill_s(p.flops, p.attention_flops, p.expert_bytes, p.dtype) if prompt else None
        if predicted is not None:
            rows.append(_held(f"{p.shape}, a prompt of {p.tokens:,}", "prefill", predicted, p.median_s, p))
    return rows


def _doubts(fitted: Fitted, points: Sequence[Point], held: Sequence[HeldOut], facts: Facts) -> list[str]:
    """What makes the figures doubtful: said, never corrected."""
    flags = []
    worst = max((abs(row.error) for row in held if row.quantity == "decode"), default=None)
    if worst is None:
        flags.append("no configuration was held against the fit")
    elif worst > 0.1:
        use = "plans keep the catalogue's constants" if facts.gpu and worst > 0.2 else "plans show that range"
        flags.append(f"the held-out steps were predicted up to {worst:.0%} off: {use}")
    read = fitted.read_bytes_per_s
    if read and fitted.kv_bytes_per_s and fitted.kv_bytes_per_s.value > 1.1 * read.value:
        flags.append("the cache seems to be read faster than memory can be: its share of a step is too small to tell")
    graph, eager = fitted.graph_layer_s, fitted.eager_layer_s
    if graph and eager and eager.value < graph.value:
        flags.append("steps launched from Python took less time a layer than recorded ones")
    slow = [figure for figure in (graph, eager) if figure and figure.value > 1.5e-3]
    if slow and facts.gpu:
        flags.append("more than 1.5 ms a layer: the host, a debugging mode or a battery holds the device up")
    return [*flags, *_memory_doubts(points, facts)]


def _memory_doubts(points: Sequence[Point], facts: Facts) -> list[str]:
    """Weights and cache that are not what the plan says; a small process has too little for a share to mean much."""
    allowed = 0.02 if facts.gpu else 0.05
    rows = [p for p in points if p.what == "memory" and p.part in ("weights", "kv_cache") and p.expected_bytes]
    off = [p for p in rows if abs(p.bytes / (p.expected_bytes or 1) - 1) > allowed and (p.expected_bytes or 0) > 400 << 20]
    return [f"{p.part} of {p.shape} took {p.bytes / (p.expected_bytes or 1) - 1:+.1%} of what is expected" for p in off]
