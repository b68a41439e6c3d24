"""NVIDIA GPUs of this machine, asked of the driver through pynvml (the package nvidia-ml-py).

A figure the driver does not give is None, never a guess; a GPU that has fallen off the bus is passed over with a note.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import HardwareError
from .device import Detection, Device, GpuSpec, Process
from .unified import available_memory, system_memory
from .visible import Gpu, visible_devices

if TYPE_CHECKING:
    from ..models.architecture import Basis

__all__ = ["nvidia_devices"]

# Return codes of nvml.h.
_NO_PERMISSION: Final = 4
_DRIVER_NOT_LOADED: Final = 9
_LIBRARY_NOT_FOUND: Final = 12
_GPU_IS_LOST: Final = 15
_VERSION_MISMATCH: Final = 18

_NEEDED: Final = (
    "NVMLError", "nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName",
    "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlSystemGetDriverVersion",
)  # fmt: skip
_WRONG_PACKAGE: Final = "pip uninstall pynvml && pip install --force-reinstall nvidia-ml-py"
_PROFILE: Final = re.compile(r"\bMIG (\d)g\.\d+gb")
#: A GPU has seven compute slices (A100, H100, B200), these have four (NVIDIA MIG User Guide, supported profiles).
_FOUR_SLICES: Final = re.compile(r"\bA30\b|\bRTX PRO\b")


def _no_driver() -> bool:
    """True where the driver's library is not there to be loaded: loading is tried as the binding would, but without
    its own import, which takes longer than everything else a plan needs."""
    if "pynvml" in sys.modules or not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return True
    return False


def _library() -> ModuleType | None:
    """The NVML binding; None when it is not installed. Raises HardwareError for another package of the same name."""
    try:
        import pynvml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None
    missing = [name for name in _NEEDED if not hasattr(pynvml, name)]
    if missing:
        raise HardwareError(f"the installed pynvml is not NVIDIA's: it lacks {missing[0]}", _WRONG_PACKAGE)
    library: ModuleType = pynvml
    return library


def match_local(name: str, total: int) -> GpuSpec | None:
    """The catalogue's row of a name the driver gave; the table of names is loaded only where there is a GPU."""
    from .names import match_local as match

    return match(name, total)


class _Nvml:
    """Questions to the driver: None where it has no answer."""

    def __init__(self, library: ModuleType) -> None:
        self.library: Any = library

    def ask(self, function: str, *arguments: Any, **named: Any) -> Any:
        """One question. None: this device, driver or binding does not know it. A lost GPU raises."""
        try:
            return getattr(self.library, function)(*arguments, **named)
        except (AttributeError, TypeError, UnicodeDecodeError):
            return None
        except self.library.NVMLError as error:
            if getattr(error, "value", None) == _GPU_IS_LOST:
                raise
            return None

    def text(self, function: str, *arguments: Any) -> str | None:
        """As `ask`, for text. NVIDIA's binding answers in str; an old or foreign one in bytes."""
        answer = self.ask(function, *arguments)
        if isinstance(answer, bytes):
            raise HardwareError(f"the installed pynvml is not NVIDIA's, or is very old: {function} answers in bytes", _WRONG_PACKAGE)
        return str(answer) if answer else None

    def memory(self, handle: Any) -> tuple[int, int, int] | None:
        """(total, reserved by the driver, free) in bytes. Drivers before R510 count what they reserve as used."""
        version = getattr(self.library, "nvmlMemory_v2", None)
        info = self.ask("nvmlDeviceGetMemoryInfo", handle, version=version) if version else None
        info = info or self.ask("nvmlDeviceGetMemoryInfo", handle)
        if info is None or not int(info.total):
            return None
        return int(info.total), int(getattr(info, "reserved", 0)), int(info.free)

    def processes(self, handle: Any) -> tuple[Process, ...]:
        """Programs that hold memory, the largest first. Under Windows and WSL the driver does not say how much."""
        found: dict[int, int | None] = {}
        for kind in ("Compute", "Graphics"):
            for entry in self.ask(f"nvmlDeviceGet{kind}RunningProcesses", handle) or ():
                size = getattr(entry, "usedGpuMemory", None)
                known = found.get(int(entry.pid))
                found[int(entry.pid)] = known if size is None else max(int(size), known or 0)
        listed = [Process(pid, self._process_name(pid), size) for pid, size in found.items()]
        return tuple(sorted(listed, key=lambda process: -(process.bytes or 0)))

    def _process_name(self, pid: int) -> str | None:
        answer = self.ask("nvmlSystemGetProcessName", pid)
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer or "")
        return PurePath(text.split(" -")[0]).name or None

    def power_w(self, handle: Any) -> float | None:
        limit = self.ask("nvmlDeviceGetEnforcedPowerLimit", handle) or self.ask("nvmlDeviceGetPowerManagementLimit", handle)
        return limit / 1000 if limit else None

    def capability(self, handle: Any) -> str | None:
        pair = self.ask("nvmlDeviceGetCudaComputeCapability", handle)
        return f"{pair[0]}.{pair[1]}" if pair else None


def _start(library: Any) -> str:
    """Start NVML; why it cannot be, when there simply is no driver. Raises HardwareError when the driver is broken."""
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        code = getattr(error, "value", None)
        if code in (_LIBRARY_NOT_FOUND, _DRIVER_NOT_LOADED):
            return "no NVIDIA driver" if code == _LIBRARY_NOT_FOUND else "the NVIDIA driver is not loaded"
        if code == _VERSION_MISMATCH:
            hint = "restart the machine, or reload the nvidia module"
            raise HardwareError("the NVIDIA driver and its library are of different versions", hint) from None
        if code == _NO_PERMISSION:
            hint = "check the rights of /dev/nvidia*, or the container's GPU settings"
            raise HardwareError("no permission to ask the NVIDIA driver", hint) from None
        hint = "see whether nvidia-smi works; --gpu plans for a named card"
        raise HardwareError(f"the NVIDIA driver does not answer: {error}", hint) from None
    return ""


class _Memory(NamedTuple):
    total: int
    usable: int
    free: int | None
    basis: Basis
    note: str
    unified: bool = False


def _memory_of(nvml: _Nvml, handle: Any, name: str, spec: GpuSpec | None) -> _Memory | None:
    """A device's memory: the driver's figures, the system's for unified memory, the catalogue's at worst."""
    if memory := nvml.memory(handle):
        total, reserved, free = memory
        usable = max(total - reserved, free)
        own = f"; {reserved >> 20} MiB of the total are its own" if reserved else ""
        return _Memory(total, usable, free, "measured", "as the driver reports now" + own)
    if spec is not None and not spec.unified:
        usable = spec.usable_bytes or spec.memory_bytes
        note = "the driver does not say how much memory there is: the catalogue's figure, nothing known of what is free"
        return _Memory(spec.reported_bytes or spec.memory_bytes, usable, None, "fallback", note)
    if not (total := system_memory() or 0):
        return None
    free = min(available_memory() or total, total)
    note = f"{name} shares the system's memory, so the driver reports none of its own: the system's figures"
    return _Memory(total, total, free, "measured", note, unified=True)


def _device(nvml: _Nvml, handle: Any, driver: str | None, parent: Any = None, parent_spec: GpuSpec | None = None) -> Device | None:
    """One GPU, or one MIG slice of `parent`. None when not even its memory can be had."""
    name = nvml.text("nvmlDeviceGetName", handle) or "NVIDIA GPU"
    total = (nvml.memory(handle) or (0, 0, 0))[0]
    spec = _slice_spec(name, total, parent_spec) if parent is not None else match_local(name, total or system_memory() or 0)
    memory = _memory_of(nvml, handle, name, spec)
    if memory is None:
        return None
    physical = handle if parent is None else parent
    used = memory.usable - (memory.usable if memory.free is None else memory.free)
    return Device(
        name, 0, memory.total, memory.usable, memory.free, used_by_others=used, spec=spec, vendor="NVIDIA",
        unified=memory.unified, uuid=nvml.text("nvmlDeviceGetUUID", handle), driver=driver,
        compute_capability=nvml.capability(physical), power_limit_w=nvml.power_w(physical), processes=nvml.processes(handle),
        basis=memory.basis, note=memory.note,
    )  # fmt: skip


def _slice_spec(name: str, total: int, parent: GpuSpec | None) -> GpuSpec | None:
    profile = _PROFILE.search(name)
    if parent is None or profile is None or not total:
        return None
    from .mig import slices_of

    known = slices_of(parent).get(profile[0].removeprefix("MIG "))
    share = float(known.processors) if known else int(profile[1]) / (4 if _FOUR_SLICES.search(name) else 7)
    return parent.slice(name, min(1.0, share), total)


def _slices(nvml: _Nvml, handle: Any, driver: str | None, spec: GpuSpec | None) -> Iterator[Device]:
    for index in range(int(nvml.ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0)):
        piece = nvml.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        device = _device(nvml, piece, driver, handle, spec) if piece is not None else None
        if device is not None:
            yield device


def _gpu(nvml: _Nvml, index: int, driver: str | None) -> tuple[Gpu, str]:
    """The GPU with this number, and what is wrong with it, if anything."""
    try:
        handle = nvml.library.nvmlDeviceGetHandleByIndex(index)
        uuid, name = nvml.text("nvmlDeviceGetUUID", handle), nvml.text("nvmlDeviceGetName", handle) or ""
        if (nvml.ask("nvmlDeviceGetMigMode", handle) or (0, 0))[0] == 1:
            total = (nvml.memory(handle) or (0, 0, 0))[0]
            slices = tuple(_slices(nvml, handle, driver, match_local(name, total)))
            empty = f"GPU {index} ({name}) is in MIG mode and has no slices: nothing can run on it"
            return Gpu(uuid, None, slices, name), "" if slices else empty
        device = _device(nvml, handle, driver)
        return Gpu(uuid, device, (), name), "" if device else f"GPU {index} ({name}) does not say how much memory it has: left out"
    except nvml.library.NVMLError as error:
        lost = getattr(error, "value", None) == _GPU_IS_LOST
        return Gpu(None, None), f"GPU {index} {'is lost (it has fallen off the bus)' if lost else f'does not answer ({error})'}: left out"


def nvidia_devices(environ: Mapping[str, str] | None = None) -> Detection:
    """This machine's NVIDIA GPUs and MIG slices, as CUDA would show them, with what is free now.

    No driver or no binding: no devices, and the reason. Raises HardwareError when the driver or the binding is broken.
    """
    if _no_driver():
        return Detection(reason="no NVIDIA driver", local=True)
    library = _library()
    if library is None:
        return Detection(reason="the package nvidia-ml-py is not installed", local=True)
    if reason := _start(library):
        return Detection(reason=reason, local=True)
    nvml = _Nvml(library)
    try:
        driver = nvml.text("nvmlSystemGetDriverVersion")
        found = [_gpu(nvml, index, driver) for index in range(int(nvml.ask("nvmlDeviceGetCount") or 0))]
    finally:
        with contextlib.suppress(nvml.library.NVMLError):
            nvml.library.nvmlShutdown()
    gpus, notes = [gpu for gpu, _ in found], [note for _, note in found if note]
    devices, more = visible_devices(gpus, os.environ if environ is None else environ)
    reason = "" if devices else "; ".join(notes + more) or "the NVIDIA driver shows no GPU"
    return Detection(tuple(devices), (*notes, *more), reason, local=True)
