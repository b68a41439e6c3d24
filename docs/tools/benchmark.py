"""Measure the tool itself: processor time of the main job, plans per second, memory, and requests for a Hub model.

    python docs/tools/benchmark.py

Prints medians; the figures with the machine's description are kept in docs/performance.md.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

JOB = [sys.executable, "-m", "vram_plan_cli", "llama3-8b", "--ctx", "16k", "--bits", "4"]
IMPORTS = [sys.executable, "-c", "import typer, rich.table, pydantic"]
RUNS = 15


def seconds(command: list[str]) -> float:
    """Processor time of a whole process, user and system: on a shared machine it varies less than the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def process_times() -> None:
    pairs = [(seconds(JOB), seconds(IMPORTS)) for _ in range(RUNS + 1)][1:]
    job, imports = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"vram-plan llama3-8b --ctx 16k --bits 4   {job * 1000:6.0f} ms")
    print(f"import typer, rich.table, pydantic       {imports * 1000:6.0f} ms")
    print(f"ratio, median of {RUNS} pairs               {ratio:6.2f}")
    print(f"peak memory of either, the larger        {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:6.0f} MiB")


def plan_rate() -> None:
    """Plans per second of processor time: contexts never asked before, then the same ones again (the inverses are remembered)."""
    import vram_plan as vp

    model = vp.load("llama3-8b")
    for engine in ("ollama", "llama.cpp", "vllm", "sglang", "transformers"):
        vp.plan(model, context=1000, bits=4, gpus="RTX 3090", engine=engine)
        for label in ("new contexts", "asked before"):
            start, contexts = time.process_time(), range(1024, 65536, 64)
            for context in contexts:
                vp.plan(model, context=context, bits=4, gpus="RTX 3090", engine=engine)
            print(f"plan() a second, {engine:12} {label}  {len(contexts) / (time.process_time() - start):7,.0f}")


def questions() -> None:
    """The questions over many plans, in processor seconds of one core."""
    import vram_plan as vp

    def timed(label: str, run: Callable[[], object]) -> None:
        start = time.process_time()
        run()
        print(f"{label:40} {time.process_time() - start:6.2f} s")

    formats = "BF16,Q8_0,Q6_K,Q5_K_M,Q5_K_S,Q4_K_M,Q4_K_S,IQ4_XS,Q3_K_M,IQ3_M,Q2_K,IQ2_M"
    model = vp.load("qwen3-8b")
    timed("table of 12 × 8 cells", lambda: vp.table(model, gpus="RTX 3060 12GB", quants=formats, contexts="1k,2k,4k,8k,16k,24k,32k,40k"))
    timed("models --gpu 'RTX 3060 12GB' --ctx 16k", lambda: vp.models_for("RTX 3060 12GB", context="16k"))
    timed("recommend over the common cards", lambda: vp.recommend(model, context="16k", min_decode=20))
    names = ("llama3-8b", "llama3.1-70b", "qwen3-8b", "qwen3-32b", "gemma3-12b", "gemma3-27b", "phi4", "gpt-oss-20b", "qwen3-30b-a3b",
             "qwen3-14b")  # fmt: skip
    gpus = [spec.name for spec in vp.list_gpus() if not spec.unified and spec.gpus_per_card == 1][:50]
    contexts = [256 * i for i in range(1, 201)]
    sweep = vp.sweep(names, quants=formats.split(",")[1:11], contexts=contexts, gpus=gpus)
    timed("sweep of a million combinations", lambda: print(f"{sum(len(row.verdicts) for row in sweep):,} verdicts"))


def hub_requests() -> None:
    """Requests and bytes for a model of the Hub, counted by the tests' server on loopback: at first, and once cached."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from hub_server import Repo, json_file, safetensors_file, serving

    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    tensors = {f"model.layers.{n}.{part}.weight": ("BF16", (4096, 4096)) for n in range(32) for part in parts}
    config = json_file({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32})
    weights = safetensors_file(tensors)
    repo = Repo({"config.json": config, "model.safetensors": weights})
    with tempfile.TemporaryDirectory() as cache, serving(org__model=repo) as hub:
        ask = [sys.executable, "-m", "vram_plan_cli", "org/model", "--gpu", "24GB"]
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": cache, "HF_HUB_OFFLINE": "0"}
        for label in ("at first", "once cached"):
            requests, read = hub.requests, hub.bytes
            subprocess.run(ask, env=env, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
            asked, got = hub.requests - requests, hub.bytes - read
            print(f"one safetensors file, {label:12} {asked} requests, {got:,} bytes (header {len(weights.head):,})")


if __name__ == "__main__":
    process_times()
    plan_rate()
    questions()
    hub_requests()
