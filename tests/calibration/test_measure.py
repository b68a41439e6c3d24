"""The bench: what happens when memory runs out, when time runs out, and when nobody waits any more."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from vram_plan.calibration.shapes import ladder_shape
from vram_plan.calibration.work import ROUNDS, Run

pytest.importorskip("torch")
from vram_plan.calibration import measure
from vram_plan.calibration.clock import Clock
from vram_plan.calibration.decoder import Decoder
from vram_plan.calibration.kernels import load_torch

torch = load_torch()
RUN = Run("width 128", "fit", ladder_shape(128, 4, 256), "f32", 16, depths=((2, 8), (4, 16)), batches=((3, 8),), prompts=(8, 12))


def bench(seconds: float = 5, said: list[str] | None = None) -> measure.Bench:
    torch.set_num_threads(1)
    say = (said if said is not None else []).append
    ends = time.monotonic() + seconds
    return measure.Bench(torch.device("cpu"), dtype="f32", grouped=False, graphs=False, ends=ends, say=lambda what, left: say(what))


def points_of(b: measure.Bench, run: Run = RUN, share: float = 0.2) -> list[Any]:
    with torch.inference_mode():
        built = b.build(run)
        return [] if built is None else [*b.rounds(list(b.tasks(*built)), share), *b.prompts(*built)]


def test_points_carry_the_bytes_and_arithmetic_of_their_step() -> None:
    said: list[str] = []
    points = points_of(bench(said=said))
    layout = RUN.layout()
    deep = next(p for p in points if p.what == "decode" and p.layers == 4 and p.batch == 1)
    assert deep.bytes == 4 * (layout.parameters - 256 * 128), "the embedding is looked up, not read"
    assert deep.kv_bytes == 4 * layout.kv_elements(16) and deep.n >= 5 * ROUNDS
    shallow = next(p for p in points if p.what == "decode" and p.layers == 2)
    assert deep.bytes - shallow.bytes == 4 * 2 * layout.layers[0].parameters and shallow.kv_bytes == 4 * layout.kv_elements(8) // 2
    three = next(p for p in points if p.batch == 3)
    assert three.bytes == deep.bytes and three.kv_bytes == 3 * 4 * layout.kv_elements(8) and three.flops == 3 * deep.flops
    prompt = next(p for p in points if p.what == "prefill" and p.tokens == 12)
    assert prompt.flops == 12 * layout.matrix_flops() and prompt.attention_flops == layout.attention_flops(12)
    assert any("round 1" in what for what in said) and any("building" in what for what in said)


def test_a_mixture_reads_its_chosen_experts_only() -> None:
    layout = (run := Run("m", "fit", ladder_shape(128, 1, 256, mixture=True), "f32", 8, depths=((1, 8),))).layout()
    assert layout.layers[0].routed is not None
    (point,) = points_of(bench(), run)
    resting = layout.layers[0].routed.parameters * 6 // 8
    assert point.bytes == 4 * (layout.parameters - 256 * 128 - resting)


def test_out_of_memory_halves_the_layers_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    class Small(Decoder):
        def __init__(self, layout: Any, *args: Any, **named: Any) -> None:
            tried.append(len(layout.layers))
            if len(layout.layers) > 1:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            super().__init__(layout, *args, **named)

    monkeypatch.setattr(measure, "Decoder", Small)
    b = bench()
    assert {p.layers for p in points_of(b) if p.what == "decode"} == {1}
    assert tried == [4, 2, 1] and sum("out of memory" in flag for flag in b.flags) == 2


def test_a_run_no_layer_of_which_fits_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(measure, "Decoder", full)
    b = bench()
    assert points_of(b) == [] and "left out" in b.flags[-1]


def test_another_error_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(measure, "Decoder", broken)
    with pytest.raises(RuntimeError, match="no kernel image"):
        points_of(bench())


def test_without_time_each_point_is_still_taken_once_and_that_is_said() -> None:
    b = bench(seconds=-1)
    points = points_of(b, share=-1)
    assert [p.n for p in points if p.what == "decode"] == [5, 5, 5]
    assert [p.tokens for p in points if p.what == "prefill"] == [8]
    assert any("1 of 3 rounds" in flag for flag in b.flags)


class FakeCuda:
    """What the bench asks of `torch.cuda`, so that its own bookkeeping can be seen without a GPU: no kernel is recorded or timed."""

    def __init__(self) -> None:
        self.pools: list[object] = []
        self.replays = self.now = 0

    def graph_pool_handle(self) -> str:
        return "pool"

    def Stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    current_stream = Stream

    def stream(self, stream: object) -> Any:
        return nullcontext()

    def CUDAGraph(self) -> Any:
        def replay() -> None:
            self.replays += 1

        return SimpleNamespace(replay=replay)

    def graph(self, graph: object, pool: object) -> Any:
        self.pools.append(pool)
        return nullcontext()

    def Event(self, enable_timing: bool) -> Any:
        event = SimpleNamespace(at=0)

        def record() -> None:
            event.at, self.now = self.now, self.now + 3

        event.record, event.elapsed_time = record, lambda other: float(other.at - event.at)
        return event

    def synchronize(self, place: object) -> None:
        pass


def test_each_step_is_recorded_once_and_replayed_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    b, fake = bench(), FakeCuda()
    monkeypatch.setattr(b, "torch", SimpleNamespace(**{name: getattr(torch, name) for name in ("float32", "randint")}, cuda=fake))
    b.use_graphs = True
    with torch.inference_mode():
        built = b.build(RUN)
        assert built is not None
        points = list(b.rounds(list(b.tasks(*built)), 0.2))
    assert [p.mode for p in points] == ["eager", "graph"] * 3
    assert fake.pools == ["pool"] * 3 and fake.replays >= 3 * ROUNDS * 5
    for eager, graph in zip(points[::2], points[1::2], strict=True):
        assert (eager.bytes, eager.kv_bytes, eager.depth) == (graph.bytes, graph.kv_bytes, graph.depth)


def test_a_recording_that_breaks_off_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    b, fake = bench(), FakeCuda()

    def broken(graph: object, pool: object) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(fake, "graph", broken)
    monkeypatch.setattr(b, "torch", SimpleNamespace(float32=torch.float32, cuda=fake))
    b.use_graphs = True
    with torch.inference_mode():
        built = b.build(RUN)
        assert built is not None
        assert [task.point.mode for task in b.tasks(*built)] == ["eager"] * 3
    assert any("could not be recorded" in flag for flag in b.flags)


def test_experts_one_by_one_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench()
    b.use_graphs = True
    with torch.inference_mode():
        built = b.build(Run("m", "fit", ladder_shape(128, 1, 256, mixture=True), "f32", 8, depths=((1, 8),)))
        assert built is not None and [task.point.mode for task in b.tasks(*built)] == ["eager"]


def test_a_gpus_times_are_those_between_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(SimpleNamespace(type="cuda"))  # type: ignore[arg-type]
    monkeypatch.setattr(clock, "torch", SimpleNamespace(cuda=FakeCuda()))
    assert clock.times(lambda: None, 4) == [0.003] * 4


def test_the_measuring_process_ends_when_nobody_waits_any_more() -> None:
    command = [sys.executable, "-m", "vram_plan.calibration.worker"]
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    assert worker.stdin is not None
    worker.stdin.write(b'{"do": "look", "device": "cpu", "dtype": "f32"}\n')
    worker.stdin.close()
    assert worker.wait(20) == 0
