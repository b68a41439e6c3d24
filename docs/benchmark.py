"""Measure the tool itself: whole-process time of the main job, plans per second, memory, and requests for a Hub model.

    python docs/benchmark.py

Prints medians; the figures with the machine's description are kept in docs/performance.md.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

JOB = [sys.executable, "-m", "vram_plan_cli", "llama3-8b", "--ctx", "16k", "--bits", "4"]
IMPORTS = [sys.executable, "-c", "import typer, rich.table, pydantic"]
RUNS = 15


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)  # noqa: S603
    return time.perf_counter() - start


def process_times() -> None:
    pairs = [(seconds(JOB), seconds(IMPORTS)) for _ in range(RUNS + 1)][1:]
    job, imports = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"vram-plan llama3-8b --ctx 16k --bits 4   {job * 1000:6.0f} ms")
    print(f"import typer, rich.table, pydantic       {imports * 1000:6.0f} ms")
    print(f"ratio, median of {RUNS} pairs               {ratio:6.2f}")
    print(f"peak memory of either, the larger        {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:6.0f} MiB")


def plan_rate() -> None:
    import vram_plan as vp

    model = vp.load("llama3-8b")
    for label, contexts in (("one request", [16384]), ("a sweep of contexts", list(range(1024, 65536, 64)))):
        vp.plan(model, context=contexts[0], bits=4, gpus="RTX 3090")
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < 2:
            for context in contexts:
                vp.plan(model, context=context, bits=4, gpus="RTX 3090")
            done += len(contexts)
        print(f"plan() a second, {label:20} {done / (time.perf_counter() - start):10,.0f}")


if __name__ == "__main__":
    process_times()
    plan_rate()
