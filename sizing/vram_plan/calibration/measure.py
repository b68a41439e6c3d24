"""The measuring itself: bandwidth, products, prompts and single tokens, each point taken in rounds over all points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..hardware.profiles import Point
from .clock import Clock, summary
from .decoder import Decoder
from .kernels import PlainLinear, choose_product, fill, load_torch
from .layout import layout_of
from .place import dtype_named
from .shapes import first_layers
from .work import ROUNDS, STEPS, Run

if TYPE_CHECKING:
    from torch import device

__all__ = ["Bench", "is_out_of_memory"]

#: The driver is asked while the device has work for so long.
_LOOK_S = 0.1
_NO_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate", "alloc_failed")
#: Most rounds, where the steps are quick and the time allows.
_MOST_ROUNDS = 9
#: A later round this much slower than the first: heat or a neighbour.
_DRIFT, _SPREAD = 1.10, 1.15


@dataclass(slots=True)
class _Task:
    """One point being measured: in words, what it will say, what to call, the times of each round."""

    words: str
    point: Point
    call: Callable[[], Any]
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def times(self) -> list[float]:
        return [seconds for one in self.rounds for seconds in one]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory, on whichever device."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(told in words for told in _NO_MEMORY)


class Bench:
    """Measures on one device until `ends` (monotonic seconds). `say` gets each thing being measured and the seconds left; `look` is
    called once a round while the device works."""

    def __init__(
        self, place: device, *, dtype: str, grouped: bool, graphs: bool, ends: float, say: Callable[[str, float], None],
        look: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.torch, self.place, self.clock = load_torch(), place, Clock(place)
        self.dtype, self.use_grouped, self.use_graphs, self.ends, self._say = dtype, grouped, graphs, ends, say
        self.look = look
        self.flags: list[str] = []
        self._graph_pool: Any = None

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def say(self, what: str) -> None:
        self._say(what, max(self.left, 0.0))

    def flag(self, text: str) -> None:
        if text not in self.flags:
            self.flags.append(text)

    # --- bandwidth and products ---

    def bandwidth(self, sizes: tuple[int, int]) -> Iterator[_Task]:
        """Copying a buffer, and reading one: the smaller stays in the last cache, the larger does not."""
        for name, size in zip(("cache", "memory"), sizes, strict=True):
            source = fill(self.torch.empty(size // 4, dtype=self.torch.float32, device=self.place))
            target = self.torch.empty_like(source)
            yield _Task(f"copying, {name}", Point("copy", name, "f32", bytes=2 * source.nbytes), partial(target.copy_, source))
            yield _Task(f"reading, {name}", Point("read", name, "f32", bytes=source.nbytes), source.sum)

    def products(self, shapes: tuple[tuple[int, int, int], ...]) -> Iterator[_Task]:
        """Rows × inputs by inputs × columns, of random numbers."""
        dtype = dtype_named(self.dtype)
        for rows, columns, inputs in shapes:
            x, w = (fill(self.torch.empty(n, inputs, dtype=dtype, device=self.place)) for n in (rows, columns))
            point = Point("matmul", f"{rows}x{columns}x{inputs}", self.dtype, tokens=rows, flops=2.0 * rows * columns * inputs)
            yield _Task(f"matrix product of {rows} rows", point, partial(self.torch.nn.functional.linear, x, w))

    # --- decoders ---

    def build(self, run: Run) -> tuple[Decoder, Run] | None:
        """The run's decoder. Out of memory halves its layers and says so; None when not even one layer fits."""
        layers = run.architecture.layers
        while layers:
            try:
                return self._built(replace(run, architecture=first_layers(run.architecture, layers))), run
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.free()
                then = f"tried with {layers // 2}" if layers > 1 else "left out"
                self.flag(f"{run.name}: out of memory with {layers} layers, {then}")
                layers //= 2
                run = replace(run, depths=tuple(dict.fromkeys((min(n, layers), depth) for n, depth in run.depths)))
        return None

    def _built(self, run: Run) -> Decoder:
        self.say(f"{run.name}: building")
        torch = self.torch
        packed = run.weights in ("int8", "int4")
        kind: Any = run.weights if packed else "plain"
        dtype = torch.bfloat16 if packed else dtype_named(run.weights)
        capacity = max(run.capacity, *run.prompts, 1)
        decoder = Decoder(layout_of(run.architecture), dtype, self.place, capacity=capacity, weights=kind, grouped=self.use_grouped)
        seen: dict[tuple[int, int], bool] = {}
        for layer in decoder.layers:
            for linear in (layer.qkv, layer.out, *((layer.dense.up, layer.dense.down) if layer.dense else ())):
                if isinstance(linear, PlainLinear):
                    rows, columns = linear.weight.shape
                    if (rows, columns) not in seen:
                        choose_product(linear, columns, self.clock.rough)
                        seen[rows, columns] = linear.by_vector
                    linear.by_vector = seen[rows, columns]
        return decoder

    def free(self) -> None:
        """Give what torch keeps in reserve back to the device."""
        if self.place.type == "cuda":
            self.torch.cuda.empty_cache()
        elif self.place.type == "mps":
            self.torch.mps.empty_cache()

    def tasks(self, decoder: Decoder, run: Run) -> Iterator[_Task]:
        """Every single-token point of a run; a step that cannot run is left out and said."""
        for layers, depth in run.depths:
            yield from self._steps(decoder, run, layers, depth)
        for count, depth in run.batches:
            try:
                yield from self._steps(decoder.for_sequences(count, depth), run, len(decoder.layers), depth)
            except (RuntimeError, MemoryError) as error:
                self._skip(f"{run.name}: {count} sequences", error)

    def _steps(self, decoder: Decoder, run: Run, layers: int, depth: int) -> Iterator[_Task]:
        point = Point(
            "decode", run.name, run.weights, tokens=1, depth=depth, batch=decoder.sequences, layers=layers,
            bytes=decoder.read_bytes(layers), kv_bytes=decoder.kv_read_bytes(depth, layers), part=run.role,
            flops=decoder.layout.matrix_flops(layers) * decoder.sequences,
        )  # fmt: skip

        def eager() -> None:
            decoder.step(depth, layers)

        words = f"{run.name}: a token after {depth:,}"
        try:
            eager()
            yield _Task(words, replace(point, mode="eager"), eager)
            if self.use_graphs and decoder.recordable:
                yield _Task(words, replace(point, mode="graph"), self._recorded(eager))
        except (RuntimeError, MemoryError) as error:
            self._skip(words, error)

    def _recorded(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """The call as a CUDA graph, so that launching its kernels takes no time of the host's."""
        torch = self.torch
        if self._graph_pool is None:
            self._graph_pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._graph_pool):
                call()
        except RuntimeError:
            self.use_graphs = False  # the allocator may be left in the middle of the recording
            self.flag("a step could not be recorded: later ones are only launched from Python")
            raise
        replay: Callable[[], Any] = graph.replay
        return replay

    def _skip(self, what: str, error: BaseException) -> None:
        if is_out_of_memory(error):
            self.free()
            self.flag(f"{what}: out of memory, left out")
        else:
            self.flag(f"{what}: torch cannot run it here ({str(error).splitlines()[0][:100] if str(error) else type(error).__name__})")

    def rounds(self, tasks: list[_Task], share_s: float) -> Iterator[Point]:
        """Rounds over all tasks, so that a drift of the machine touches all alike: three at least, more where time is left."""
        started = time.monotonic()
        if not tasks:
            return
        longest = max(tasks, key=lambda task: task.point.bytes)
        for number in range(_MOST_ROUNDS):
            begun = time.monotonic()
            for task in tasks:
                self.say(f"{task.words}, round {number + 1}")
                if number and time.monotonic() > started + 2 * share_s:
                    break
                for _ in range(1 if self.place.type == "cpu" else 3):
                    task.call()
                task.rounds.append(self.clock.times(task.call, STEPS))
            for _ in range(min(int(_LOOK_S / longest.times[-1]) + 1, 1000) if self.place.type == "cuda" else 0):
                longest.call()
            self.look()
            self.clock.finish()
            took = time.monotonic() - begun
            if number + 1 >= ROUNDS and time.monotonic() + took > started + share_s:
                break
        self._steadiness(tasks)
        for task in tasks:
            s = summary(task.times)
            yield replace(task.point, median_s=s.median_s, p10_s=s.p10_s, p90_s=s.p90_s, n=s.n)

    def _steadiness(self, tasks: list[_Task]) -> None:
        """Says how many steps scattered, and how many took longer or shorter in the last round than in the first."""
        spread = [(s := summary(task.times)).p90_s / s.median_s for task in tasks]
        wide = [ratio for ratio in spread if ratio > _SPREAD]
        if wide:
            most = f"the 90th percentile is up to {max(wide):.2f} of the median"
            self.flag(f"the times of {len(wide)} of {len(spread)} points scatter: {most}")
        if len(tasks[0].rounds) < ROUNDS:
            self.flag(f"there was time for {len(tasks[0].rounds)} of {ROUNDS} rounds: what else ran here took part of it")
        moved = [summary(task.rounds[-1]).median_s / summary(task.rounds[0]).median_s for task in tasks]
        drifted = [max(ratio, 1 / ratio) for ratio in moved if max(ratio, 1 / ratio) > _DRIFT]
        if drifted:
            self.flag(f"{len(drifted)} of {len(tasks)} points changed by up to {max(drifted) - 1:.0%} from the first round to the last")

    def prompts(self, decoder: Decoder, run: Run) -> Iterator[Point]:
        """Prompts of each length: the first always, three times or more after one that is not counted; others while time is left."""
        for number, tokens in enumerate(run.prompts):
            if number and self.left <= 0:
                break
            self.say(f"{run.name}: a prompt of {tokens:,}")
            ids = self.torch.randint(0, decoder.layout.vocab, (tokens,), device=self.place)
            point = Point(
                "prefill", run.name, run.weights, mode="eager", tokens=tokens, layers=len(decoder.layers), bytes=decoder.read_bytes(),
                flops=decoder.layout.matrix_flops() * tokens, attention_flops=decoder.layout.attention_flops(tokens), part=run.role,
                expert_bytes=decoder.expert_bytes(tokens),
            )  # fmt: skip
            try:
                decoder.prefill(ids)
                once = self.clock.times(partial(decoder.prefill, ids), 1)
                more = max(min(int(self.left * 0.03 / max(once[0], 1e-6)), 7), 2)
                s = summary(once + self.clock.times(partial(decoder.prefill, ids), more))
            except (RuntimeError, MemoryError) as error:
                self._skip(f"{run.name}: a prompt of {tokens:,}", error)
                continue
            yield replace(point, median_s=s.median_s, p10_s=s.p10_s, p90_s=s.p90_s, n=s.n)
