"""Starting the measuring process and reading its answers: bounded in size, by a deadline, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

from ..errors import FormatError, HardwareError, MissingExtraError, UsageError, VramPlanError

__all__ = ["INSTALL", "Measurer"]

INSTALL: Final = "pip install 'vram-plan[calibrate]'"
_LINE_BYTES: Final = 1 << 20
_ALL_BYTES: Final = 16 << 20
#: Threads kept on their cores: without it, two of torch's wait for each other wherever others use the cores too.
_ENVIRONMENT: Final = {"OMP_PROC_BIND": "true", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
#: glibc told to give each freed tensor back at once: else it keeps up to 130 MB, by chance, and memory is no sum of tensors.
_EXACT_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
_ERRORS: Final[Mapping[str, type[VramPlanError]]] = {"usage": UsageError, "missing_extra": MissingExtraError, "not_understood": FormatError}

Progress = Callable[[str, float], None]


class Measurer:
    """One measuring process; leaving the `with` block ends it, whatever it does.

    `ends` (monotonic seconds): no answer is awaited longer. `progress(what, seconds_left)` is called as it reports.
    `exact_memory`: it gives freed memory back at once.
    """

    def __init__(
        self, ends: float, progress: Progress | None = None, command: tuple[str, ...] | None = None, *, exact_memory: bool = False
    ) -> None:
        self._ends, self._progress, self._exact = ends, progress, exact_memory
        self._command = command or (sys.executable, "-P", "-m", "vram_plan.calibration.worker")
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        self.flags: list[str] = []

    def __enter__(self) -> Self:
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)  # noqa: PTH100 (zip files on the path)
        environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": path} | (_EXACT_MEMORY if self._exact else {})
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        try:
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=nowhere, env=environment)  # noqa: S603
        except OSError as error:
            raise HardwareError(f"the measuring process could not be started: {error}", "see whether there is memory for it") from None
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait(10)

    def _read(self) -> None:
        """Lines into the queue until the process ends or has said too much; None is the end."""
        total, out = 0, self._process.stdout
        with contextlib.suppress(OSError, ValueError):
            while out and (line := out.readline(_LINE_BYTES)):
                total += len(line)
                if total > _ALL_BYTES or not line.endswith(b"\n"):
                    break
                self._answers.put(line)
        self._answers.put(None)

    def ask(self, do: str, **job: Any) -> Iterator[Mapping[str, Any]]:
        """The points (or facts) of one job, as they come. Flags are collected in `flags`.

        Raises what the process reports, HardwareError when it dies, says something else, or does not finish by the deadline.
        """
        assert self._process.stdin is not None  # noqa: S101 (opened as a pipe)
        try:
            self._process.stdin.write(json.dumps({"do": do, **job}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        while not (answer := self._next()).get("done"):
            if "error" in answer:
                raise _error(answer["error"])
            if isinstance(told := answer.get("progress"), dict):
                if self._progress:
                    self._progress(str(told.get("what", ""))[:200], float(told.get("left_s", 0)))
            elif "flag" in answer:
                self.flags.append(str(answer["flag"])[:300])
            else:
                yield answer

    def _next(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=max(self._ends - time.monotonic(), 0.01))
        except queue.Empty:
            hint = "the machine may be busy with something else; try again, or give a larger --budget"
            raise HardwareError("measuring did not finish in the time allowed", hint) from None
        if line is None:
            raise self._died()
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            hint = "report it with the versions of torch and driver"
            raise HardwareError("the measuring process answered something that is no answer", hint)
        return answer

    def _died(self) -> HardwareError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.returncode
        why = "killed, perhaps for lack of memory" if code == -9 else "it said too much" if code is None else f"ended with {code}"
        return HardwareError(f"the measuring process died ({why})", "see whether torch runs at all, and how much memory is free")


def _error(told: Any) -> VramPlanError:
    row = told if isinstance(told, dict) else {}
    kind, message, hint = (str(row.get(key, ""))[:400] for key in ("kind", "message", "hint"))
    error = _ERRORS.get(kind, HardwareError)
    return error(message or "measuring failed", INSTALL if error is MissingExtraError else hint)
