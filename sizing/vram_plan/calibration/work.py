"""What a calibration is going to do: the models that fit memory and time, and what is run on them. Pure: no torch, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..errors import HardwareError
from ..hardware.device import GIB, MIB
from ..models.architecture import Architecture
from .layout import Layout, layout_of
from .shapes import first_layers, from_wire, ladder_shape

__all__ = [
    "DTYPE_BYTES", "ROUNDS", "STEPS", "Facts", "Job", "Run", "WorkPlan", "job_from_wire", "plan_work", "run_from_wire",
    "usable_bytes",
]  # fmt: skip

DTYPE_BYTES: Final[Mapping[str, float]] = {"bf16": 2, "f16": 2, "f32": 4, "int8": 1, "int4": 0.625}
#: With less time left, memory is measured of one model only, and nothing says how well that predicts.
_TWO_PROCESSES_S: Final = 3.0
#: Times each point is taken: rounds over all points, steps of one point in a round after one that is not counted.
ROUNDS, STEPS = 3, 5
#: Shares of the budget: steps of one token; building; the rest is bandwidth, matrix products, prompts, memory and slack.
_DECODE_SHARE, _BUILD_SHARE, _PROMPT_SHARE = 0.4, 0.2, 0.01
#: A weight read from a cache says nothing of memory: so many times the last level's size.
_CACHES = {"cpu": 4, "gpu": 8}
#: Seconds a layer takes beside its bytes, only to guess how long a step will be.
_LAYER_GUESS_S = 3e-4

Role = Literal["fit", "held-out", "model"]


@dataclass(frozen=True, slots=True)
class Facts:
    """The device as the measuring process found it, and the dtype to measure in. Rates are rough: they only size the work."""

    kind: Literal["cuda", "rocm", "mps", "cpu"]
    name: str
    total_bytes: int
    free_bytes: int
    cache_bytes: int
    dtype: str
    stream_bytes_per_s: Mapping[str, float]
    matmul_flops: float
    fill_bytes_per_s: float
    torch: str
    python: str
    os: str
    uuid: str | None = None
    driver: str | None = None
    cuda: str | None = None
    threads: int | None = None
    allocator: str = ""
    power_limit_w: float | None = None
    memory_clock_mhz: float | None = None
    bus_width_bits: int | None = None
    graphs: bool = False
    grouped: bool = False
    kernels: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def gpu(self) -> bool:
        return self.kind != "cpu"


@dataclass(frozen=True, slots=True)
class Run:
    """One model to build and what is run on it. `depths` are (layers, depth) of single steps, `batches` (sequences, depth) of steps
    of several sequences, `prompts` lengths. A run of the role "fit" makes the constants; others are predicted by them."""

    name: str
    role: Role
    architecture: Architecture
    weights: str
    capacity: int
    depths: tuple[tuple[int, int], ...] = ()
    batches: tuple[tuple[int, int], ...] = ()
    prompts: tuple[int, ...] = ()

    def layout(self) -> Layout:
        return layout_of(self.architecture)


@dataclass(frozen=True, slots=True)
class Job:
    """What is fresh in a process of its own: a model held in memory, a prompt and a few tokens run."""

    name: str
    role: Role
    architecture: Architecture
    capacity: int
    prompt: int


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """All that will be done, and about how long it takes. `usable_bytes` is what it stays below."""

    facts: Facts
    dtype: str
    budget_s: float
    usable_bytes: int
    runs: tuple[Run, ...]
    memory: tuple[Job, ...]
    buffer_bytes: tuple[int, int]
    matmul: tuple[tuple[int, int, int], ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def in_words(self) -> tuple[str, ...]:
        """One line a thing to be measured, with sizes."""
        element = DTYPE_BYTES[self.dtype]
        lines = [
            f"stay below {self.usable_bytes / GIB:.1f} GiB of {self.facts.free_bytes / GIB:.1f} GiB free on {self.facts.name}",
            "copy and read " + " and ".join(f"{size / MIB:,.0f} MiB" for size in self.buffer_bytes),
            "multiply " + ", ".join(f"{m} × {k} by {k} × {n}" for m, n, k in self.matmul) + f" in {self.dtype}",
        ]
        for run in self.runs:
            size = run.layout().parameters * DTYPE_BYTES.get(run.weights, element)
            what = [f"a token after {depth:,} with {layers} layers" for layers, depth in run.depths]
            what += [f"a token of {count} sequences after {depth:,}" for count, depth in run.batches]
            what += [f"a prompt of {tokens:,}" for tokens in run.prompts]
            aside = "" if run.role == "fit" else ", not part of the fit"
            lines.append(f"{run.name} ({size / GIB:.2f} GiB in {run.weights}{aside}): {'; '.join(what)}")
        lines += [f"memory of {job.name} in a process of its own, a prompt of {job.prompt:,}" for job in self.memory]
        return (*lines, *self.notes)


def usable_bytes(free: int) -> int:
    """What a calibration may take of what is free now: a tenth, and at least 1 GiB, is left to others."""
    return max(free - max(GIB, free // 10), 0)


@dataclass(frozen=True, slots=True)
class _Step:
    """One rung: two widths for the fit and a third, wider one that is held out; layers of each (the first: shallow and deep)."""

    widths: tuple[int, int, int]
    shallow: int
    deep: int
    wide: int
    held: int
    contexts: tuple[int, int]
    prompts: tuple[int, ...]
    vocab: int


def _steps(gpu: bool) -> tuple[_Step, ...]:
    """From the most telling to the least."""
    prompts = (512, 2048, 8192) if gpu else (128, 256)
    rungs = [
        _Step((2048, 4096, 5120), 8, 24 if layers >= 24 else 16, layers, held, (64, 16384), prompts, 32000)
        for layers, held in ((32, 12), (24, 8), (16, 6), (12, 4), (10, 3), (8, 3), (6, 2))
    ]
    rungs.append(_Step((2048, 4096, 5120), 4, 12, 4, 3, (64, 4096), prompts[:2], 32000))
    for layers in (8, 4):
        rungs.append(_Step((1024, 2048, 2560), layers, 3 * layers, layers, layers, (64, 2048), prompts[:2], 8192))
    for layers in (8, 4):
        rungs.append(_Step((512, 1024, 1280), layers, 3 * layers, layers, layers, (64, 1024), (64, 128), 4096))
    rungs.append(_Step((256, 512, 640), 4, 12, 4, 4, (32, 512), (32, 64), 2048))
    return (*rungs, _Step((128, 256, 320), 2, 6, 2, 2, (16, 256), (16, 32), 1024))


def _weight_bytes(architecture: Architecture, element: float) -> int:
    return int(layout_of(architecture).parameters * element)


def _held_bytes(run: Run, element: float) -> int:
    """Weights, cache and the caches of its batches."""
    layout = run.layout()
    caches = [(1, run.capacity), *run.batches]
    cache = sum(count * layout.kv_elements(depth) for count, depth in caches) * (2 if element < 2 else element)
    return int(layout.parameters * DTYPE_BYTES.get(run.weights, element) + cache)


def _decode_seconds(run: Run, facts: Facts, element: float) -> float:
    """A guess of all its steps: bytes at the rate seen and a time a layer, three rounds of six steps, graphs and not."""
    layout, rate = run.layout(), facts.stream_bytes_per_s.get(run.weights, 1e9)
    total = 0.0
    each = layout.parameters * DTYPE_BYTES.get(run.weights, element) / max(len(layout.layers), 1)
    for layers, depth in run.depths:
        kv = layout.kv_elements(depth) / len(layout.layers) * layers * 2
        total += each * layers / rate + 3 * kv / rate + layers * _LAYER_GUESS_S
    for count, depth in run.batches:
        more = 0.0 if facts.gpu else 0.5 * (count - 1)
        total += (each * len(layout.layers) * (1 + more) + 6 * count * layout.kv_elements(depth)) / rate
    return total * ROUNDS * (STEPS + 1) * (2 if facts.graphs else 1)


def _prompts(layout: Layout, lengths: tuple[int, ...], facts: Facts, limit_s: float) -> tuple[int, ...]:
    """Those short enough; always the first. A prompt reaches about half of the matrix rate."""
    each = layout.matrix_flops() / max(facts.matmul_flops / 2, 1)
    return tuple(tokens for i, tokens in enumerate(lengths) if i == 0 or each * tokens <= limit_s)


def _runs(step: _Step, facts: Facts, dtype: str, budget_s: float) -> tuple[Run, ...]:
    """The models of one rung: the narrow at two depths of layers, the wide, and the held-out one."""
    small, large, other = step.widths
    short, long = step.contexts
    batches = ((8, 512), (32, 512)) if facts.gpu else ((4, short),)
    wide = ladder_shape(large, step.wide, step.vocab)
    limit, reach = budget_s * _PROMPT_SHARE, 2 * long
    runs = [
        Run(f"width {small}", "fit", ladder_shape(small, step.deep, step.vocab), dtype, reach,
            depths=((step.shallow, short), (step.shallow, reach), (step.deep, short), (step.deep, reach)), batches=batches),
        Run(f"width {large}", "fit", wide, dtype, long, depths=((step.wide, short), (step.wide, long)),
            prompts=_prompts(layout_of(wide), step.prompts, facts, limit)),
    ]  # fmt: skip
    held = ladder_shape(other, step.held, step.vocab)
    middle = tuple(step.prompts[:1])
    runs.append(Run(f"width {other}", "held-out", held, dtype, long, depths=((step.held, short), (step.held, long)), prompts=middle))
    return tuple(runs)


def _more_runs(step: _Step, facts: Facts) -> tuple[Run, ...]:
    """What is added where memory and time are left: a mixture of experts, and 8- and 4-bit weights at two widths."""
    small, large, _ = step.widths
    short = step.contexts[0]
    mixture = ladder_shape(small, max(step.shallow // 2, 1), step.vocab, mixture=True)
    more = [Run(f"width {small}, 8 experts", "fit", mixture, facts.dtype, short, depths=((mixture.layers, short),))]
    for kind in facts.kernels:
        for width, layers in ((large, max(step.wide // 2, 2)), (small, step.shallow)):
            name = f"width {width}, {kind}"
            more.append(Run(name, "fit", ladder_shape(width, layers, step.vocab), kind, short, depths=((layers, short),)))
    return tuple(more)


def plan_work(facts: Facts, budget_s: float, model: Architecture | None = None, name: str = "") -> WorkPlan:
    """The most telling rung that fits the free memory and the budget, and what else there is time for.

    `budget_s` is what is left for it; where even the smallest rung takes longer, that is what is done. Raises UsageError for a model
    the decoder cannot build, HardwareError where there is no memory for the smallest.
    """
    dtype = facts.dtype
    usable, element = usable_bytes(facts.free_bytes), DTYPE_BYTES[dtype]
    steps = _steps(facts.gpu)
    share = 0.5 if model is not None else 0.7
    chosen = next((s for s in steps if _fits(_runs(s, facts, dtype, budget_s), facts, element, usable * share, budget_s * share)), None)
    notes = []
    if chosen is None:
        chosen = steps[-1]
        if sum(_held_bytes(run, element) for run in _runs(chosen, facts, dtype, budget_s)) > usable:
            hint = "free some, or stop what else runs there"
            raise HardwareError(f"{facts.name} has {facts.free_bytes / GIB:.2f} GiB free, of which 1 GiB is left alone: too little", hint)
    runs = list(_runs(chosen, facts, dtype, budget_s))
    if model is not None:
        run, note = _model_run(model, name or model.name, runs, facts, usable, budget_s)
        runs += [run] if run else []
        notes += [note] if note else []
    for run in _more_runs(chosen, facts):
        if _fits((*runs, run), facts, element, usable, budget_s):
            runs.append(run)
    limit = _CACHES["gpu" if facts.gpu else "cpu"] * facts.cache_bytes
    smallest = _weight_bytes(first_layers(runs[0].architecture, chosen.shallow), element)
    if smallest < limit:
        notes.append(f"the smallest weights ({smallest / MIB:,.0f} MiB) are not {limit / MIB:,.0f} MiB: they are partly read from cache")
    seconds = _total_seconds(runs, facts, element)
    return WorkPlan(
        facts, dtype, budget_s, usable, tuple(runs), _memory_jobs(runs, budget_s), _buffers(facts, usable),
        _products(facts, budget_s), min(seconds + 0.25 * budget_s, budget_s), tuple(notes),
    )  # fmt: skip


def _total_seconds(runs: list[Run], facts: Facts, element: float) -> float:
    built = sum(_held_bytes(run, element) for run in runs) / facts.fill_bytes_per_s
    return built + sum(_decode_seconds(run, facts, element) for run in runs)


def _fits(runs: tuple[Run, ...], facts: Facts, element: float, usable: float, budget_s: float) -> bool:
    held = sum(_held_bytes(run, element) for run in runs)
    if held > 0.75 * usable or held / facts.fill_bytes_per_s > _BUILD_SHARE * budget_s:
        return False
    return sum(_decode_seconds(run, facts, element) for run in runs) <= _DECODE_SHARE * budget_s


def _model_run(model: Architecture, name: str, runs: list[Run], facts: Facts, usable: int, budget_s: float) -> tuple[Run | None, str]:
    """The model asked for, with as many of its layers as memory and time leave room for; none where not even one has room."""
    element = DTYPE_BYTES[facts.dtype]
    short, long = min(depth for _, depth in runs[1].depths), max(depth for _, depth in runs[1].depths)
    layers = model.layers
    while layers:
        cut = first_layers(model, layers)
        prompts = _prompts(layout_of(cut), runs[-1].prompts, facts, budget_s * _PROMPT_SHARE)
        run = Run(name, "model", cut, facts.dtype, long, depths=((layers, short), (layers, long)), prompts=prompts)
        if _fits((*runs, run), facts, element, usable, budget_s):
            note = f"{name} is run with {layers} of its {model.layers} layers, to stay within memory and time"
            return run, note if layers < model.layers else ""
        layers = layers * 3 // 4
    return None, f"{name} is not run: memory or time has no room for one layer of it beside its embedding; a larger --budget may"


def _memory_jobs(runs: list[Run], budget_s: float) -> tuple[Job, ...]:
    """One to learn what a process takes besides, one of another model to see whether that predicts it."""
    prompt = max((tokens for run in runs for tokens in run.prompts), default=32)
    told = [run for run in runs if run.role == "model"] or [run for run in runs if run.role == "held-out"]
    fit = Job(runs[0].name, "fit", runs[0].architecture, max(runs[0].capacity, prompt), prompt)
    if budget_s < _TWO_PROCESSES_S:
        return (fit,)
    return fit, Job(told[0].name, told[0].role, told[0].architecture, max(told[0].capacity, prompt), prompt)


def _buffers(facts: Facts, usable: int) -> tuple[int, int]:
    """A buffer that fits the last cache, and one far too large for it, yet no more than a tenth of what may be taken."""
    large = max(512 * MIB, 8 * facts.cache_bytes) if facts.gpu else max(128 * MIB, 4 * facts.cache_bytes)
    return max(facts.cache_bytes // 4, MIB), max(min(large, usable // 10), 8 * MIB)


def _products(facts: Facts, budget_s: float) -> tuple[tuple[int, int, int], ...]:
    """Rows, columns, inputs of the matrix products: those of a large model's block, less where they would take too long."""
    if facts.gpu:
        return (512, 14336, 4096), (2048, 14336, 4096)
    for scale in (4, 2, 1):
        shape = (64 * scale, 3584 * scale // 2, 1024 * scale // 2)
        if 2.0 * shape[0] * shape[1] * shape[2] / max(facts.matmul_flops, 1) * ROUNDS * (STEPS + 1) < 0.04 * budget_s:
            return (shape,)
    return ((64, 1792, 512),)


def run_from_wire(wire: Mapping[str, Any]) -> Run:
    """A run the parent process wrote with `dataclasses.asdict`."""
    depths, batches = (tuple((int(a), int(b)) for a, b in wire[name]) for name in ("depths", "batches"))
    architecture, prompts = from_wire(wire["architecture"]), tuple(wire["prompts"])
    return Run(wire["name"], wire["role"], architecture, wire["weights"], wire["capacity"], depths, batches, prompts)


def job_from_wire(wire: Mapping[str, Any]) -> Job:
    """A memory job the parent process wrote with `dataclasses.asdict`."""
    return Job(**{**wire, "architecture": from_wire(wire["architecture"])})
