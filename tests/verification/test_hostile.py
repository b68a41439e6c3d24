"""Logs nobody meant to be read: huge lines, binary, streams without end, figures that cannot be. No traceback, no hang, little memory."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import vram_plan as vp
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.hardware import resolve
from vram_plan.verification.logs import observe_lines, read_log
from vram_plan.verification.reading import Limits, log_lines
from vram_plan.verification.verify import reconciled

LOGS = Path(__file__).parents[1] / "data" / "logs"
REAL = [line for path in sorted(LOGS.glob("*.log")) for line in path.read_text("utf-8").splitlines()]


def test_lines_are_cut_and_their_rest_is_passed_over() -> None:
    data = b"first\n" + b"x" * 3_000_000 + b"\r\nlast"
    assert [len(line) for line in log_lines(io.BytesIO(data), "a log", Limits(max_line=1000))] == [5, 1000, 4]


def test_a_huge_line_takes_little_memory() -> None:
    class Zeros(io.RawIOBase):
        left = 20 << 20

        def read(self, size: int = -1) -> bytes:
            self.left -= size
            return b"a" * size if self.left > 0 else b""

    tracemalloc.start()
    list(log_lines(Zeros(), "a log"))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20


def test_bytes_and_lines_are_bounded() -> None:
    assert len(list(log_lines(io.BytesIO(b"ab\n" * 100_000), "a log", Limits(max_lines=50_000)))) < 80_000
    assert len(list(log_lines(io.BytesIO(b"ab\n" * 1_000_000), "a log", Limits(max_bytes=300_000)))) < 130_000


@pytest.mark.parametrize("data", [bytes(range(256)) * 64, b"\x7fELF" + bytes(4000), b"GGUF\x03\0\0\0" + bytes(1000), b"\0" * 10])
def test_binary_is_no_log(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(vp.FormatError, match="not text"):
        read_log(str(path))


def test_what_windows_powershell_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_bytes("Model loading took 14.29 GiB memory and 4 seconds\r\n".encode("utf-16"))
    assert read_log(str(path)).figure("weights", 0) is not None


def test_docker_wraps_lines_in_json(tmp_path: Path) -> None:
    path = tmp_path / "container-json.log"
    lines = ["print_info: n_layer = 32", "print_info: file type   = Q8_0", "load_tensors:        CUDA0 model buffer size =  8000.00 MiB"]
    path.write_text("".join(f'{{"log":"{line}\\n","stream":"stderr","time":"2026-11-22T10:00:00Z"}}\n' for line in lines))
    seen = read_log(str(path))
    assert seen.facts["layers"] == 32 and {s.name: s.value for s in seen.settings} == {"backend": "cuda", "quant": "Q8_0"}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be asked there whether they hold something")
def test_a_pipe_that_goes_on_for_ever_and_one_that_stays_silent() -> None:
    reading, writing = os.pipe()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                os.write(writing, b"Model loading took 1.00 GiB memory\n")
            except OSError:
                return

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    started = time.monotonic()
    with os.fdopen(reading, "rb") as file:
        assert any("1.00" in line for line in log_lines(file, "a pipe", Limits(seconds=0.5)))
        stop.set()
    thread.join(2)
    os.close(writing)
    assert time.monotonic() - started < 5
    reading, writing = os.pipe()
    os.write(writing, b"Model loading took 1.00 GiB memory\n")
    with os.fdopen(reading, "rb") as file:
        assert list(log_lines(file, "a pipe", Limits(idle=0.2))) == ["Model loading took 1.00 GiB memory"]
    os.close(writing)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "none.log"), "\0", "x" * 5000):
        with pytest.raises(vp.VramPlanError):
            read_log(name)
    (tmp_path / "empty.log").write_text("")
    with pytest.raises(vp.FormatError, match="empty"):
        read_log(str(tmp_path / "empty.log"))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(vp.FormatError, match="pipe"):
            read_log(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    "line",
    [
        "CUDA0 model buffer size = 99999999999999999999.00 MiB", "CUDA999 model buffer size = 1.00 MiB", "KV self size = 1.2.3 MiB",
        "llama_context: n_ctx = 99999999999999999999", "llama_context: n_seq_max = 0\nllama_context: n_ctx = 5",
        "offloaded 99999/0 layers to GPU", "Model loading took ,,, GiB", "Model loading took -5 GiB", "GPU KV cache size: ,0 tokens",
        "non-default args: {'tensor_parallel_size': 99999999999, 'model': '" + "x" * 9000, "GPU KV cache size: 0 tokens",
        "server_args=ServerArgs(tp_size=0, context_length=-5, mem_fraction_static=7.5, page_size=0)\nmax_total_num_tokens=5",
        "Load weight begin. avail mem=0 GB\nLoad weight end. avail mem=99 GB", 'msg="model weights" device=CUDA0 size="9 TiB"',
        "msg=load request=\"{Operation:commit Parallel:0 KvSize:99999999999999999999 BatchSize:0}\"\nmsg=\"kv cache\" device=CPU size=1 B",
        "Available KV cache memory: 0.00 GiB\nGPU KV cache size: 10 tokens",
        "Available KV cache memory: 99999999 GiB\nGPU KV cache size: 1 tokens",
        "memory_breakdown_print: |   - CUDA0 (x) | 1 = 1 + (1 = 1 + 1 + 1) + 17592186029324 |\nCUDA0 model buffer size = 1.00 MiB",
        "prompt eval time = 0.00 ms / 999999999 tokens (inf ms per token, 0.00 tokens per second)\nCUDA0 model buffer size = 5.00 MiB\n"
        "eval time = 0.00 ms / 1 tokens (x, 0.00 tokens per second)",
    ],
)  # fmt: skip
def test_figures_that_cannot_be(line: str) -> None:
    """Either a sentence or a comparison, whatever the numbers."""
    _compare(line.split("\n"))


def _compare(lines: list[str]) -> None:
    try:
        seen = observe_lines(lines, "a log", 32, 4096)
        reconciled(vp.load("llama3-8b"), seen, {}, resolve("RTX 4090"))
    except vp.VramPlanError as error:
        assert "\n" not in error.message


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(REAL), min_size=1, max_size=40), st.data())
def test_shuffled_and_spoilt_lines(lines: list[str], data: st.DataObject) -> None:
    """Lines of all engines in any order, some with other digits."""
    spoilt = [_spoil(line, data) for line in lines]
    _compare(spoilt)


def _spoil(line: str, data: st.DataObject) -> str:
    at = data.draw(st.integers(0, max(len(line) - 1, 0)))
    return line[:at] + data.draw(st.sampled_from(["", "9", "-", ".", "0", "999999", "é", "\t"])) + line[at + 1 :]


def test_progress_counts_bytes_and_seconds(tmp_path: Path) -> None:
    path = tmp_path / "long.log"
    path.write_text("load_tensors:        CUDA0 model buffer size = 4403.49 MiB\n" * 5000)
    told: list[tuple[int, int]] = []
    vp.verify("llama3-8b", str(path), gpus="RTX 4090", progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (path.stat().st_size,) * 2 and len(told) > 2
