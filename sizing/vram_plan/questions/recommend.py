"""Which machine, engine, format and split for a model at a context, a concurrency and a speed.

Every machine is tried with every engine, split and format. Of each machine the best way to run on it is kept; machines are
then ranked by what they cost (the price where prices are given, else memory, then number of cards, then power), and one
that costs more is only listed for what it does better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ..engines import Work, engine_name
from ..errors import UsageError
from ..formats import Format
from ..hardware import Detection, Device
from ..models.loading import load
from ..models.model import Model
from ..planner import evaluate
from ..request import make_work, own_format
from ..results import Plan, SpeedEstimate
from ..values import dataclass
from .cells import Cell, Machine, cell_and_speed, parse_formats, parts_of, summary_of, usual_formats
from .machines import machines_to_try, splits
from .prices import Price, Prices, parse_prices
from .quality import Quality, loss_of, quality_of

__all__ = ["Miss", "Option", "Recommendation", "recommend"]

#: Losses up to each of these count as the same: nobody notices, few do, some do, most do.
QUALITY_STEPS: Final = (0.005, 0.03, 0.06, 0.15)
#: So much more speed is worth a line of its own.
FASTER: Final = 1.4
ENGINES: Final = ("llama.cpp", "vllm")


@dataclass(frozen=True, slots=True)
class Option:
    """One way to do it.

    `needed` is what it takes of all GPUs, in bytes (`Cell.needed`); `plan` has its memory, verdict, speed and launch
    commands. `loss` is the format's published or interpolated loss of quality (0.028 = 2.8 %), `power_w` the cards'
    limit, `price` as the prices given say, `price_per_million` that of a million generated tokens. `reason` is why it
    stands here, `traded` what it costs for that.
    """

    machine: Machine
    engine: str
    format: str
    tensor_parallel: int
    pipeline_parallel: int
    offload: str
    needed: int
    plan: Plan
    loss: float
    quality: Quality | None
    power_w: float | None
    price: Price | None
    price_per_million: float | None
    reason: str = ""
    traded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Miss:
    """A way that nearly does it: what it lacks, and what would make it do."""

    option: Option
    lacks: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`options` best first; where there are none, `misses` nearest first. `tried` counts the combinations looked at."""

    model: str
    context: int
    sequences: int
    min_decode: float | None
    max_ttft_s: float | None
    options: tuple[Option, ...]
    misses: tuple[Miss, ...]
    tried: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Try:
    """One combination, judged without a whole plan of it."""

    work: Work
    devices: tuple[Device, ...]
    machine: Machine
    cell: Cell
    speed: SpeedEstimate | None
    loss: float
    price: Price | None
    power_w: float | None

    @property
    def step(self) -> int:
        """Losses of one step count as the same."""
        return next((i for i, limit in enumerate(QUALITY_STEPS) if self.loss <= limit), len(QUALITY_STEPS))

    @property
    def rate(self) -> float | None:
        """Tokens/s of one sequence."""
        return self.speed.decode.tokens_per_s / self.work.sequences if self.speed else None

    @property
    def offloaded(self) -> bool:
        return self.work.offload == "experts"


@dataclass(frozen=True, slots=True)
class _Targets:
    """Tokens/s of one sequence at least, seconds to the first token at most."""

    decode: float | None
    ttft: float | None

    def shortfalls(self, tried: _Try) -> list[tuple[float, str]]:
        """How far it is from what was asked: 1.2 is a fifth too little. Unknown speed is not held against it."""
        found: list[tuple[float, str]] = []
        if tried.cell.verdict == "does_not_fit":
            short, count = max(-(tried.cell.headroom or 0), 0), len(tried.devices)
            found.append((1.01 + short * count / max(tried.machine.free, 1), _short(short, count)))
        if self.decode and tried.rate is not None and tried.rate < self.decode:
            found.append((self.decode / max(tried.rate, 1e-9), f"{tried.rate:,.1f} instead of {self.decode:g} tokens/s a sequence"))
        if self.ttft and tried.speed and tried.speed.ttft_s > self.ttft:
            found.append((tried.speed.ttft_s / self.ttft, f"{tried.speed.ttft_s:,.1f} s instead of {self.ttft:g} s to the first token"))
        return found


_Judged = tuple[_Try, list[tuple[float, str]]]


def recommend(
    model: Model | str,
    *,
    context: int | str | None = None,
    sequences: int = 1,
    min_decode: float | None = None,
    max_ttft_s: float | None = None,
    gpus: str | Sequence[str] | None = None,
    engines: str | Sequence[str] | None = None,
    quants: str | Sequence[str] | None = None,
    prices: Mapping[str, str | float] | Sequence[str] = (),
    kv_type: str | None = None,
    prompt: int | str | None = None,
    output: int | str | None = None,
    top: int = 5,
    offline: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Recommendation:
    """The best few machines with the engine, format and split to use, or the nearest misses and what would help them.

    `min_decode` is in tokens/s of one sequence, `max_ttft_s` in seconds. `gpus` are machines separated by ";" (a card
    without a count is tried up to 8 times), common cards by default, "local" for this machine's. `prices` is
    {"H100": "2.1/h"}; without it no money is reckoned with.
    `progress` is told how many machines are done, and of how many. Raises what `plan` raises.
    """
    loaded = load(model, offline=offline) if isinstance(model, str) else model
    targets = _Targets(_positive(min_decode, "the decode speed"), _positive(max_ttft_s, "the time to the first token"))
    names = [engine_name(engine) for engine in parts_of(engines) or ENGINES]
    basis = {"context": context, "sequences": sequences, "kv_type": kv_type, "prompt": prompt, "output": output}
    works = {name: _works(loaded, name, quants, basis) for name in names}
    search = _Search(loaded, works, targets, parse_prices(prices))
    best = search.over(machines_to_try(gpus), progress)
    meeting = [tried for tried, lacks in best if not lacks]
    options = tuple(_option(loaded, *row) for row in _ranked(meeting)[:top])
    first = next(iter(works.values()))[0]
    return Recommendation(
        model=loaded.name,
        context=first.context,
        sequences=first.sequences,
        min_decode=targets.decode,
        max_ttft_s=targets.ttft,
        options=options,
        misses=() if options else tuple(_miss(loaded, *judged) for judged in sorted(best, key=_distance)[:3]),
        tried=search.tried,
        notes=_notes(options, targets, quants is None, best),
    )


def _positive(value: float | None, what: str) -> float | None:
    if value is not None and not 0 < value < 1e9:
        raise UsageError(f"{what} is {value!r}", "a number above 0 belongs there")
    return value


def _works(model: Model, engine: str, quants: str | Sequence[str] | None, basis: Mapping[str, Any]) -> tuple[Work, ...]:
    """The work in every format of an engine that is worth running, least loss first."""
    work, _ = make_work(model, 1, engine=engine, **basis)
    formats = usual_formats(model, engine) if quants is None else parse_formats(quants, engine)
    losses = {format: _loss(model, format, engine) for format in formats}
    usable = [format for format in formats if quants is not None or losses[format] <= QUALITY_STEPS[-1]] or list(formats)
    return tuple(replace(work, format=format) for format in sorted(usable, key=lambda format: losses[format]))


def _loss(model: Model, format: Format, engine: str) -> float:
    """Nothing is lost in the format the model was published in, nor in a wider one."""
    own, _ = own_format(model, engine)
    return 0.0 if format.name == own.name or format.bits_per_weight >= 16 else loss_of(format)


class _Search:
    """The combinations, each judged once."""

    def __init__(self, model: Model, works: Mapping[str, tuple[Work, ...]], targets: _Targets, prices: Prices) -> None:
        self.model, self.works, self.targets, self.prices = model, works, targets, prices
        self.tried = 0

    def over(self, machines: Sequence[tuple[Device, ...]], progress: Callable[[int, int], None] | None) -> list[_Judged]:
        """The best way on each machine that runs it at all."""
        found = []
        for done, devices in enumerate(machines):
            if progress:
                progress(done, len(machines))
            best = self.best_of(devices)
            found += [best] if best else []
        return found

    def best_of(self, devices: tuple[Device, ...]) -> _Judged | None:
        """The best way to run on a machine and what it lacks; None where no engine runs there."""
        if not devices:
            return None
        ways = [self._judge(work, devices) for name in self.works if _runs(name, devices) for work in self._ways(name, devices)]
        found = self._best_meeting(ways)
        if found is None and self.model.architecture.experts and "llama.cpp" in self.works:
            found = self._best_meeting([self._judge(replace(work, offload="experts"), devices) for work in self.works["llama.cpp"]])
        return (found, []) if found else min(((way, self.targets.shortfalls(way)) for way in ways), key=_distance, default=None)

    def _ways(self, engine: str, devices: tuple[Device, ...]) -> Iterable[Work]:
        for work in self.works[engine]:
            for tp, pp in splits(engine, len(devices)):
                yield replace(work, tensor_parallel=tp, pipeline_parallel=pp)

    def _best_meeting(self, ways: Sequence[_Try]) -> _Try | None:
        """The least loss that does what is asked; of one step of quality the fastest, then the smallest."""
        meeting = [way for way in ways if not self.targets.shortfalls(way)]
        least = min((way.step for way in meeting), default=0)
        return max((way for way in meeting if way.step == least), key=_merit, default=None)

    def _judge(self, work: Work, devices: tuple[Device, ...]) -> _Try:
        self.tried += 1
        machine, watts = summary_of(devices), [device.power_limit_w for device in devices]
        assert machine is not None  # noqa: S101 - there are devices
        judged, speed = cell_and_speed(self.model, work, devices)
        return _Try(
            work=work,
            devices=devices,
            machine=machine,
            cell=judged,
            speed=speed,
            loss=_loss(self.model, work.format, work.engine),
            price=self.prices.total(devices),
            power_w=None if None in watts else sum(w for w in watts if w),
        )


def _option(model: Model, tried: _Try, reason: str = "", traded: tuple[str, ...] = ()) -> Option:
    work = tried.work
    per_million = tried.price.per_million(tried.speed.decode.tokens_per_s) if tried.price and tried.speed else None
    return Option(
        machine=tried.machine,
        engine=work.engine,
        format=work.format.name,
        tensor_parallel=work.tensor_parallel,
        pipeline_parallel=work.pipeline_parallel,
        offload=work.offload,
        needed=tried.cell.needed,
        plan=evaluate(model, work, Detection(tried.devices)),
        loss=tried.loss,
        quality=quality_of(work.format.name),
        power_w=tried.power_w,
        price=tried.price,
        price_per_million=per_million,
        reason=reason,
        traded=traded,
    )


def _runs(engine: str, devices: Sequence[Device]) -> bool:
    """vLLM and SGLang want CUDA or ROCm cards; a nameless card is taken for one."""
    if engine not in ("vllm", "sglang"):
        return True
    return all(device.vendor in ("NVIDIA", "AMD", "unknown") and not device.unified for device in devices)


def _short(size: int, count: int) -> str:
    from ..units import format_gib

    return f"{format_gib(size)} short" + (" on the fullest GPU" if count > 1 else "") if size else "the engine would refuse"


def _merit(tried: _Try) -> tuple[Any, ...]:
    return (tried.cell.verdict == "fits", tried.rate or 0.0, -tried.cell.needed, -tried.work.tensor_parallel)


def _distance(judged: _Judged) -> float:
    return max((ratio for ratio, _ in judged[1]), default=1.0)


def _cost(tried: _Try) -> tuple[Any, ...]:
    """What a machine costs to have, by what is known of it, after those whose quality or whose RAM is a price of its own."""
    money = (0, tried.price.amount) if tried.price else (1, 0.0)
    return (tried.offloaded, tried.step > 1, *money, tried.machine.total, tried.machine.gpus, tried.power_w or 0.0, -(tried.rate or 0.0))


def _ranked(found: Sequence[_Try]) -> list[tuple[_Try, str, tuple[str, ...]]]:
    """By cost, leaving out what costs more and does nothing better; each with its reason and what is traded."""
    kept: list[_Try] = []
    rows: list[tuple[_Try, str, tuple[str, ...]]] = []
    for tried in sorted(found, key=_cost):
        gains = _gains(tried, kept) if kept else [_first_reason(tried, found)]
        if gains:
            rows.append((tried, "; ".join(gains), _traded(tried, kept[0]) if kept else ()))
            kept.append(tried)
    return rows


def _first_reason(tried: _Try, found: Sequence[_Try]) -> str:
    what = "the cheapest" if tried.price else "the smallest"
    peers = sum(other.offloaded == tried.offloaded for other in found)
    held = " and hold it in GPU memory" if peers < len(found) else ""
    but = ", with its experts in RAM" if tried.offloaded else ", though only in a format that costs quality" if tried.step > 1 else ""
    return (f"{what} of the {peers} machines that do what was asked{held}" if peers > 1 else "does what was asked") + but


def _gains(tried: _Try, kept: Sequence[_Try]) -> list[str]:
    gains = []
    least = min(kept, key=lambda other: other.loss)
    if tried.step < least.step:
        gains.append(f"{tried.work.format.name} loses {_percent(tried.loss)}, not {_percent(least.loss)}")
    fastest = max(other.rate or 0.0 for other in kept)
    if tried.rate and fastest and tried.rate >= FASTER * fastest:
        gains.append(f"{tried.rate / fastest:.1f} × as fast: {tried.rate:,.0f} tokens/s a sequence")
    if tried.cell.verdict == "fits" and all(other.cell.verdict == "tight" for other in kept):
        gains.append("room to spare, where those before just fit")
    if tried.offloaded and tried.machine.total < min(other.machine.total for other in kept):
        gains.append(f"{tried.machine.total / 2**30:.0f} GiB of GPU memory are enough, with the experts in RAM")
    return gains


def _traded(tried: _Try, first: _Try) -> tuple[str, ...]:
    """What it costs against the first, and what is worse about it."""
    traded = []
    if tried.price and first.price:
        traded.append(f"{tried.price} instead of {first.price}")
    here, there = (f"{machine.total / 2**30:.0f}" for machine in (tried.machine, first.machine))
    if tried.machine.total > first.machine.total and here != there:
        traded.append(f"{here} GiB of GPU memory instead of {there}")
    if tried.machine.gpus > first.machine.gpus:
        traded.append(f"{tried.machine.gpus} GPUs instead of {first.machine.gpus}")
    if tried.power_w and first.power_w and tried.power_w > 1.1 * first.power_w:
        traded.append(f"{tried.power_w:,.0f} W instead of {first.power_w:,.0f}")
    if tried.step > first.step:
        traded.append(f"{tried.work.format.name} loses {_percent(tried.loss)}, not {_percent(first.loss)}")
    if tried.rate and first.rate and first.rate >= FASTER * tried.rate:
        traded.append(f"{tried.rate:,.0f} instead of {first.rate:,.0f} tokens/s a sequence")
    return tuple(traded)


def _percent(loss: float) -> str:
    return "nothing" if loss == 0 else f"{100 * loss:.2g} %"


def _miss(model: Model, tried: _Try, lacks: Sequence[tuple[float, str]]) -> Miss:
    option = _option(model, tried)
    return Miss(option, tuple(text for _, text in lacks), option.plan.fit.suggestions[:3])


def _notes(options: Sequence[Option], targets: _Targets, usual: bool, best: Sequence[_Judged]) -> tuple[str, ...]:
    notes = []
    if (targets.decode or targets.ttft) and any(tried.speed is None for tried, _ in best):
        notes.append("the speed of some machines is not known: they were not held to the speed asked for")
    if usual:
        notes.append(f"formats that lose more than {100 * QUALITY_STEPS[-1]:.0f} % are left out; name them with --quant")
    if options and len(best) > 1 and not any(option.price for option in options):
        notes.append("no prices given (--price 'RTX 3090=700'): the smallest machine stands first")
    return tuple(notes)
