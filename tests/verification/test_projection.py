"""llama.cpp's own projection: a program that prints as `llama-fit-params` does, given headers alone; the real one where it is installed."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import pytest
import vram_plan as vp
from hub_server import File, Repo, serving
from model_files import gguf_header, llama_gguf, write_gguf
from vram_plan.verification.projection import header_file

if sys.platform == "win32":
    pytest.skip("a shell script stands in for the program", allow_module_level=True)

#: Prints what a file says, and checks that it can be read as a GGUF: as the real one prints (llama.cpp 0c1e57098, common/fit.cpp).
_PROGRAM = """#!{python}
import sys
words = sys.argv[1:]
path = words[words.index("--model") + 1]
with open(path, "rb") as file:
    assert file.read(4) == b"GGUF"
with open("{note}", "w") as file:
    file.write(path + chr(10) + " ".join(words))
{body}
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(body: str) -> Path:
        note = tmp_path / "words.txt"
        script = tmp_path / "llama-fit-params"
        script.write_text(_PROGRAM.format(python=sys.executable, note=note, body=body))
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", str(tmp_path))
        return note

    return install


def small(folder: Path) -> Path:
    return write_gguf(folder / "small.gguf", *llama_gguf())


def test_a_file_on_this_disk(tmp_path: Path, program) -> None:
    path = small(tmp_path)
    plan = vp.plan(str(path), engine="llama.cpp", context=4096, sequences=2, options={"ubatch": 256}, gpus="RTX 3060")
    sizes = {term.name: term.bytes >> 20 for term in plan.devices[0].terms}
    host = {term.name: term.bytes >> 20 for term in plan.host.terms}
    told = f"CUDA0 {sizes['weights']} {sizes['kv_cache']} {sizes['compute']} "
    note = program(f'print("{told}"); print("Host {host["weights"]} 0 {host["compute"]} ")')
    found = vp.verify(str(path), "llama.cpp", context=4096, sequences=2, options={"ubatch": 256}, gpus="RTX 3060")
    assert found.within(0) and {line.name for line in found.lines if line.place == 0} >= {"weights", "context", "compute", "total"}
    used, words = note.read_text().split("\n")
    assert used == str(path)
    assert "-c 8192 -np 2 -ctk f16 -ctv f16 -ub 256 -fa on --fit-print on" in words


def test_a_header_from_the_hub_with_a_hole_for_the_data(tmp_path: Path, program, monkeypatch: pytest.MonkeyPatch) -> None:
    head, data = gguf_header(*llama_gguf(24))
    with serving(org__small_GGUF=Repo({"small-Q4_K_M.gguf": File(head, len(head) + data, lfs=True)})) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("VRAM_PLAN_CACHE", str(tmp_path))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        model = vp.load("org/small_GGUF:Q4_K_M")
        with header_file(model, 5) as path:
            assert path.stat().st_size == len(head) + data and path.stat().st_blocks * 512 < data / 2
            assert vp.load(str(path)).tensors == model.tensors


@pytest.mark.parametrize(
    ("body", "says"),
    [("sys.exit(3)", r"failed \(3\)"), ("print('what')", "printed no projection"), ("print('CUDA0 x 1 2')", "printed no projection"),
     ("import time; time.sleep(30)", "no answer within"),
     ("sys.stderr.write('error: invalid argument\\x1b'); sys.exit(1)", "invalid argument")],
)  # fmt: skip
def test_a_program_that_fails(tmp_path: Path, program, body: str, says: str) -> None:
    path = small(tmp_path)
    program(body)
    with pytest.raises(vp.EngineError, match=says):
        vp.verify(str(path), "llama.cpp", timeout_s=1)


def test_what_cannot_be_projected(tmp_path: Path, program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("print('Host 1 1 1 ')")
    with pytest.raises(vp.UsageError, match="no GGUF"):
        vp.verify("llama3-8b", "llama.cpp")
    with pytest.raises(vp.UsageError, match="a cache for each sequence"):
        vp.verify(str(small(tmp_path)), "llama.cpp", options={"kv_unified": True})
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(vp.UsageError, match="not installed"):
        vp.verify(str(small(tmp_path)), "llama.cpp")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("llama-fit-params") is None, reason="llama.cpp's llama-fit-params is not installed")
@pytest.mark.parametrize("kind", ["full", "sliding window", "Mamba hybrid", "latent", "mixture of experts"])
def test_the_real_program(tmp_path: Path, kind: str) -> None:
    """Headers of tiny models on the host: to the MiB."""
    from verification.test_server_real import _writer

    path = _writer()(tmp_path, kind)
    found = vp.verify(str(path), "llama.cpp", context=8192, sequences=2)
    assert found.within(0), found.lines
