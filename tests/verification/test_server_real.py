"""A real llama-server (xllamacpp) on loopback: its log, `/props`, `/metrics`, `/slots`, one measured generation.

Needs `xllamacpp` (in the extra `test`), which serves llama-server's HTTP on a free port of this machine.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import vram_plan as vp
from vram_plan.verification.http import server_at

pytest.importorskip("xllamacpp")

_SERVE = """
import sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_ubatch, p.n_batch, p.n_parallel = sys.argv[1], 4096, 256, 512, 2
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.warmup, p.fit_params, p.no_extra_bufts, p.n_gpu_layers, p.verbosity, p.kv_unified = False, False, True, 0, 4, False
p.endpoint_metrics = p.endpoint_props = p.endpoint_slots = True
server = xllamacpp.Server(p)
print("ADDRESS", server.listening_address, flush=True)
sys.stdin.read()
"""


def _writer():
    path = Path(__file__).parents[1] / "engines" / "test_llamacpp_real.py"
    spec = importlib.util.spec_from_file_location("real_llamacpp_models", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_model


@pytest.fixture(scope="module", params=["full", "sliding window", "Mamba hybrid"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, Path]]:
    """The folder of a tiny model, the address of its server, and the server's log."""
    folder = tmp_path_factory.mktemp("served")
    path, log = _writer()(folder, request.param), folder / "server.log"
    with log.open("wb") as said:
        served = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
        try:
            assert served.stdout is not None
            line = next((line for line in served.stdout if line.startswith("ADDRESS")), "")
            assert line, log.read_text()[-800:]
            yield folder, line.split()[1], log
        finally:
            served.kill()
            served.communicate()


def test_its_log(running: tuple[Path, str, Path]) -> None:
    folder, _, log = running
    for _ in range(50):
        if "model loaded" in log.read_text():
            break
        time.sleep(0.1)
    found = vp.verify(str(folder / "config.json"), str(log), quant="F16", options={"logits": "last"})
    lines = {(line.name, line.place): line for line in found.lines}
    assert found.engine == "llama.cpp" and found.plan.request.sequences == 2 and found.plan.request.context == 2048
    assert found.plan.engine["n_ubatch"] == 256
    assert lines["weights", "host"].error == 0 and lines["kv_cache", "host"].error == 0
    compute = lines["compute", "host"]
    assert compute.actual and compute.predicted and -0.05 < (compute.actual - compute.predicted) / 2**20 < 2 * 256 * 4 * 256 / 2**20 + 0.05


def test_what_it_says_over_http(running: tuple[Path, str, Path]) -> None:
    folder, address, _ = running
    found = vp.verify(str(folder / "model.gguf"), address)
    lines = {line.name: line for line in found.lines}
    assert lines["file_bytes"].error == 0 and lines["parameters"].error == 0 and found.within(0)
    assert found.plan.request.context == 2048 and found.plan.request.quant == "F16"
    assert any("2 slots of 2,048 tokens" in note for note in found.notes)
    assert isinstance(server_at(address, 5).json("/slots"), list)


def test_measured(running: tuple[Path, str, Path]) -> None:
    folder, address, log = running
    found = vp.verify(str(folder / "model.gguf"), address, measure=True, timeout_s=60, gpus="RTX 3060")
    rates = {line.name: line for line in found.lines if line.unit == "tokens/s"}
    assert rates["decode"].actual and rates["decode"].actual > 0 and rates["prefill"].actual and rates["prefill"].actual > 0
    told = re.findall(r" eval time = .*?/ +(\d+) tokens .*?([\d.]+) tokens per second", log.read_text())
    assert any(int(tokens) == 64 and float(rate) == pytest.approx(rates["decode"].actual, rel=0.01) for tokens, rate in told)
    again = vp.verify(str(folder / "model.gguf"), address)
    assert any("on average" in note for note in again.notes)
