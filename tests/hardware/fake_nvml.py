"""A stand-in for the module `pynvml`, at the boundary: GPUs as data, errors with NVML's own codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

GIB, MIB = 1 << 30, 1 << 20
NO_PERMISSION, NOT_SUPPORTED, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND = 4, 3, 9, 12, 13
GPU_IS_LOST, VERSION_MISMATCH, UNKNOWN = 15, 18, 999


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass
class FakeGpu:
    """One GPU or MIG slice. `errors` maps a function's name to the code it fails with; memory is in bytes."""

    name: str = "NVIDIA GeForce RTX 4090"
    total: int = 24564 * MIB
    reserved: int = 348 * MIB
    used: int = 0
    uuid: str = "GPU-11111111-0000-0000-0000-000000000000"
    capability: tuple[int, int] = (8, 9)
    power_mw: int = 450_000
    compute: list = field(default_factory=list)
    graphics: list = field(default_factory=list)
    mig: list[FakeGpu] | None = None
    errors: dict[str, int] = field(default_factory=dict)


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


class FakeNvml(ModuleType):
    """`gpus` in the driver's order; `errors` for the whole library; `old` is a driver without the newer functions."""

    NVMLError = NVMLError
    nvmlMemory_v2 = 0x2000028

    def __init__(self, *gpus: FakeGpu, errors: dict | None = None, old: bool = False, names: dict | None = None) -> None:
        super().__init__("pynvml")
        self.gpus, self.errors, self.old, self.names = gpus, errors or {}, old, names or {}
        self.running = 0

    def _check(self, function: str, gpu: FakeGpu | None = None) -> None:
        for errors in (self.errors, gpu.errors if gpu else {}):
            code = errors.get(function, errors.get("*"))
            if code is not None:
                raise NVMLError(code)

    def nvmlInit(self) -> None:
        self._check("nvmlInit")
        self.running += 1

    def nvmlShutdown(self) -> None:
        self.running -= 1
        self._check("nvmlShutdown")

    def nvmlSystemGetDriverVersion(self) -> str:
        self._check("nvmlSystemGetDriverVersion")
        return "470.57.02" if self.old else "580.82.07"

    def nvmlDeviceGetCount(self) -> int:
        self._check("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        gpu = self.gpus[index]
        self._check("nvmlDeviceGetHandleByIndex", gpu)
        return gpu

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        self._check("nvmlDeviceGetName", gpu)
        return gpu.name

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        self._check("nvmlDeviceGetUUID", gpu)
        return gpu.uuid

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> SimpleNamespace:
        self._check("nvmlDeviceGetMemoryInfo", gpu)
        free = gpu.total - gpu.reserved - gpu.used
        if version is None:
            return SimpleNamespace(total=gpu.total, used=gpu.used + gpu.reserved, free=free)
        if self.old:
            raise NVMLError(FUNCTION_NOT_FOUND)
        return SimpleNamespace(version=version, total=gpu.total, reserved=gpu.reserved, used=gpu.used, free=free)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list:
        self._check("nvmlDeviceGetComputeRunningProcesses", gpu)
        if self.old:
            raise NVMLError(FUNCTION_NOT_FOUND)
        return gpu.compute

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list:
        self._check("nvmlDeviceGetGraphicsRunningProcesses", gpu)
        return gpu.graphics

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid not in self.names:
            raise NVMLError(6)
        return self.names[pid]

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> tuple[int, int]:
        self._check("nvmlDeviceGetCudaComputeCapability", gpu)
        return gpu.capability

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        self._check("nvmlDeviceGetEnforcedPowerLimit", gpu)
        return gpu.power_mw

    def nvmlDeviceGetPowerManagementLimit(self, gpu: FakeGpu) -> int:
        self._check("nvmlDeviceGetPowerManagementLimit", gpu)
        return gpu.power_mw

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        self._check("nvmlDeviceGetMigMode", gpu)
        if gpu.mig is None and "A100" not in gpu.name:
            raise NVMLError(NOT_SUPPORTED)
        return [int(gpu.mig is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:
        if gpu.mig is None or index >= len(gpu.mig):
            raise NVMLError(6)
        return gpu.mig[index]
