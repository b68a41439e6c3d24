"""The measuring process: `python -m vram_plan.calibration.worker`. Jobs come as lines of JSON on stdin, answers go as lines to stdout.

A job is {"do": "look" | "measure" | "memory", …}. An answer is one of {"progress": …}, {"point": …}, {"flag": …}, {"facts": …},
{"done": true}, {"error": {"kind", "message", "hint"}}. When stdin closes, the process ends at once: nobody waits for it any more.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from ..errors import VramPlanError

if TYPE_CHECKING:
    from ..hardware.profiles import Point

__all__ = ["main"]


class _Speaker:
    """Writes answers, and is gone when nobody reads them."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._last = out, 0.0

    def say(self, **answer: Any) -> None:
        try:
            self._out.write(json.dumps(answer) + "\n")
            self._out.flush()
        except OSError:
            os._exit(1)

    def progress(self, what: str, left_s: float) -> None:
        """At most ten a second."""
        if time.monotonic() - self._last > 0.1:
            self._last = time.monotonic()
            self.say(progress={"what": what, "left_s": round(left_s, 1)})


def _jobs() -> queue.Queue[dict[str, Any]]:
    """Jobs as they come; the end of stdin ends the process, whatever it is doing."""
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(json.loads(line))
        waiting.put({"do": "stop"})
        time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def _look(job: Mapping[str, Any], speaker: _Speaker) -> None:
    from .place import look_at, open_place

    speaker.say(facts=asdict(look_at(open_place(job["device"]), job["dtype"])))


def _measure(job: Mapping[str, Any], speaker: _Speaker) -> None:
    """Every run built; bandwidth, products and the single tokens of all in rounds; at last the prompts."""
    from .driver import Watch, disturbances
    from .kernels import load_torch
    from .measure import Bench
    from .place import limit_memory, open_place

    torch, place = load_torch(), open_place(job["device"])
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    ends = time.monotonic() + job["seconds"]
    limit_memory(place, job["usable"])
    watch = Watch(job["uuid"])
    looks = [watch.look()]
    bench = Bench(
        place, dtype=job["dtype"], grouped=job["grouped"], graphs=job["graphs"], ends=ends, say=speaker.progress,
        look=lambda: looks.append(watch.look()),
    )  # fmt: skip
    with torch.inference_mode():
        for point in _points(bench, job):
            speaker.say(point=asdict(point))
    looks.append(watch.look())
    for flag in (*disturbances(looks), *bench.flags):
        speaker.say(flag=flag)


def _points(bench: Any, job: Mapping[str, Any]) -> Iterator[Point]:
    from .work import run_from_wire

    built = []
    for run in map(run_from_wire, job["runs"]):
        extra = run.role == "fit" and (run.weights != job["dtype"] or run.architecture.experts)
        if extra and bench.left < 0.5 * job["seconds"]:
            bench.flag(f"{run.name}: no time was left for it")
        elif found := bench.build(run):
            built.append(found)
    tasks = [*bench.bandwidth(tuple(job["buffers"])), *bench.products(tuple(tuple(shape) for shape in job["matmul"]))]
    yield from bench.rounds([*tasks, *(task for one in built for task in bench.tasks(*one))], bench.left * 0.6)
    del tasks
    bench.free()
    for one in built:
        yield from bench.prompts(*one)


def _memory(job: Mapping[str, Any], speaker: _Speaker) -> None:
    from .driver import Watch
    from .work import job_from_wire

    watch = Watch(job["uuid"])
    before = watch.look().used_bytes
    from .kernels import load_torch
    from .memory import memory_points
    from .place import limit_memory, open_place

    place = open_place(job["device"])
    limit_memory(place, job["usable"])
    if job["threads"]:
        load_torch().set_num_threads(job["threads"])
    for point in memory_points(job_from_wire(job["job"]), place, job["dtype"], before, job["uuid"]):
        speaker.say(point=asdict(point))


_DOES = {"look": _look, "measure": _measure, "memory": _memory}


def _answer(job: Mapping[str, Any], speaker: _Speaker) -> None:
    """One job; whatever goes wrong becomes an answer."""
    try:
        _DOES[job["do"]](job, speaker)
        speaker.say(done=True)
    except VramPlanError as error:
        speaker.say(error={"kind": error.code, "message": error.message, "hint": error.hint})
    except ImportError as error:
        speaker.say(error={"kind": "missing_extra", "message": f"torch cannot be imported: {str(error)[:300]}", "hint": ""})
    except Exception as error:  # torch raises RuntimeError for nearly everything
        from .measure import is_out_of_memory

        kind = "out_of_memory" if is_out_of_memory(error) else "hardware"
        words = (str(error).splitlines() or [""])[0][:300]
        speaker.say(error={"kind": kind, "message": f"{type(error).__name__}: {words}", "hint": ""})


def main() -> None:
    """Answer jobs until stdin closes. Ctrl-C is for the process that asked: it ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    speaker = _Speaker(os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    jobs = _jobs()
    while (job := jobs.get())["do"] != "stop":
        _answer(job, speaker)


if __name__ == "__main__":
    main()
