"""The device a calibration runs on: choosing it, and a first short look at what it is and how fast, to size the work."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HardwareError, UsageError
from ..hardware.cpu import cpu_name
from ..hardware.device import MIB
from ..hardware.unified import available_memory, system_memory
from .clock import Clock
from .driver import Watch, busy
from .kernels import WeightKind, fill, has_kernel, linear_of, load_torch
from .layout import Matrix
from .work import DTYPE_BYTES, Facts

if TYPE_CHECKING:
    from torch import device, dtype

__all__ = ["dtype_named", "limit_memory", "look_at", "open_place"]

_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_LLC_GUESS = 32 * MIB


def dtype_named(name: str) -> dtype:
    found: dtype = getattr(load_torch(), _NAMES[name])
    return found


def open_place(wanted: str | None) -> device:
    """The device torch calls `wanted`; without a wish a GPU where torch has one, else the CPU.

    Raises UsageError for a name torch does not know, HardwareError where that device is not here.
    """
    torch = load_torch()
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        place: device = torch.device("cuda" if wanted == "rocm" else wanted)
    except RuntimeError:
        raise UsageError(f"no device is called {wanted!r}", "cuda, cuda:1, rocm, mps or cpu") from None
    if place.type == "cuda" and not (torch.cuda.is_available() and (place.index or 0) < torch.cuda.device_count()):
        raise HardwareError(f"torch {torch.__version__} finds no device {wanted}", "install a torch built for it, or name another --device")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise HardwareError("torch finds no Metal device here", "use --device cpu")
    if place.type not in ("cuda", "mps", "cpu"):
        raise UsageError(f"calibration knows no {place.type} devices", "cuda, rocm, mps or cpu")
    if place.type == "cuda":
        place = torch.device("cuda", place.index or 0)
        torch.cuda.set_device(place)
    return place


def _last_cache() -> int:
    """Bytes of the CPU's last-level cache, as Linux lists it; 32 MiB where that is not known."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text[:-1].isdigit() and text[-1] in "KM":
            sizes.append(int(text[:-1]) << (10 if text[-1] == "K" else 20))
    return max(sizes, default=_LLC_GUESS)


def _identity(place: device) -> dict[str, Any]:
    """What tells the device apart, its memory and its cache."""
    torch = load_torch()
    if place.type == "cuda":
        p = torch.cuda.get_device_properties(place)
        free, total = torch.cuda.mem_get_info(place)
        uuid = _uuid(str(getattr(p, "uuid", "") or ""), bool(torch.version.hip))
        watch = Watch(None if torch.version.hip else uuid)
        clock = getattr(p, "memory_clock_rate", 0) / 1000 or None
        return {
            "kind": "rocm" if torch.version.hip else "cuda", "name": p.name, "total_bytes": total, "free_bytes": free, "uuid": uuid,
            "cache_bytes": int(getattr(p, "L2_cache_size", 0)) or 50 * MIB, "cuda": torch.version.hip or torch.version.cuda,
            "driver": watch.driver, "power_limit_w": watch.power_limit_w, "memory_clock_mhz": clock,
            "bus_width_bits": getattr(p, "memory_bus_width", None), "allocator": _allocator(),
        }  # fmt: skip
    total = system_memory() or 0
    free = min(available_memory() or total // 2, _group_limit() or total)
    if place.type == "mps":
        limit = int(torch.mps.recommended_max_memory())
        return {"kind": "mps", "name": cpu_name(), "total_bytes": total, "free_bytes": min(free, limit), "cache_bytes": _LLC_GUESS}
    return {"kind": "cpu", "name": cpu_name(), "total_bytes": total, "free_bytes": free, "cache_bytes": _last_cache()}


def _uuid(told: str, hip: bool) -> str | None:
    """As the driver names the device: NVIDIA's with its prefix; AMD's 16 bytes are the letters of amdgpu's `unique_id`."""
    if not told:
        return None
    if not hip:
        return told if told.startswith(("GPU-", "MIG-")) else f"GPU-{told}"
    with contextlib.suppress(ValueError):
        letters = bytes.fromhex(told.replace("-", "")).decode("ascii").strip("\0")
        return letters if int(letters, 16) else None
    return None


def _allocator() -> str:
    """How torch's allocator is set, by its newer or its older name."""
    return os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or ""


def limit_memory(place: device, usable: int) -> None:
    """Let torch take no more than `usable` bytes of a GPU: beyond it is out of memory here, while others still have theirs."""
    torch = load_torch()
    if place.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(usable / torch.cuda.mem_get_info(place)[1], 1.0), place)
    elif place.type == "mps":
        torch.mps.set_per_process_memory_fraction(min(usable / torch.mps.recommended_max_memory(), 1.0))


def _group_limit() -> int | None:
    """What a container may still take, where it is limited (cgroup 2)."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
    except OSError:
        return None
    return max(int(limit) - int(used), 0) if limit.isdigit() and used.isdigit() else None


def _choose_threads(clock: Clock, busy: bool) -> int:
    """All threads, or one: where others use the cores, threads wait for each other, up to a hundred times longer than they work.

    All must win three of three short rounds, stalls counted.
    """
    torch = load_torch()
    most = int(torch.get_num_threads())
    if most == 1 or busy:
        torch.set_num_threads(1)
        return 1
    linear, x = linear_of(Matrix(2048, 1024), "plain", torch.float32, clock.place), fill(torch.empty(1, 1024))

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        linear(x)
        return sum(clock.times(lambda: linear(x), 12))

    best = most if all(seconds(most) < 0.9 * seconds(1) for _ in range(3)) else 1
    torch.set_num_threads(best)
    return best


def _busy_cores() -> list[str]:
    """What is to be said of other work on this machine's cores, where the system tells."""
    try:
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):
        return []
    busy = load > max(1.5, 0.5 * cores)
    return [f"other work on the cores: {load:.1f} running on {cores} when measuring began"] if busy else []


def _stream(clock: Clock, kind: WeightKind, name: str) -> float:
    """Weight bytes a second of one row times a matrix too large for most caches."""
    torch = load_torch()
    matrix = Matrix(16384, 4096 if clock.place.type != "cpu" else 1536)
    linear = linear_of(matrix, kind, dtype_named(name), clock.place)
    x = fill(torch.empty(1, matrix.columns, dtype=dtype_named(name), device=clock.place))
    clock.times(lambda: linear(x), 1)
    return 3 * linear.nbytes / sum(clock.times(lambda: linear(x), 3))


def _matmul_rate(clock: Clock, name: str) -> float:
    """Operations a second: a small product first, a larger one only where that was quick."""
    torch = load_torch()
    rate = 0.0
    for rows, width in ((16, 512), (64, 1024), (512, 4096)):
        x, w = (fill(torch.empty(n, width, dtype=dtype_named(name), device=clock.place)) for n in (rows, width))
        rate = 2.0 * rows * width * width / clock.rough(partial(torch.nn.functional.linear, x, w))
        if 2.0 * 512 * 4096 * 4096 * 4 / rate > 0.2 or rows == 512:
            break
    return rate


def look_at(place: device, wanted: str | None) -> Facts:
    """The device as it is now. `wanted`: the dtype asked for."""
    torch = load_torch()
    clock, identity = Clock(place), _identity(place)
    flags = _busy_cores() if place.type == "cpu" else busy(Watch(identity.get("uuid")).look())
    threads = _choose_threads(clock, bool(flags)) if place.type == "cpu" else None
    name = wanted or _usual_dtype(clock)
    rates = {name: _stream(clock, "plain", name)}
    packed: tuple[WeightKind, ...] = ("int8", "int4")
    for kind in packed:
        if has_kernel(kind, dtype_named("bf16"), place):
            rate = _stream(clock, kind, "bf16")
            if rate / DTYPE_BYTES[kind] > rates[name] / DTYPE_BYTES[name]:
                rates[kind] = rate
            else:
                flags.append(f"torch's kernel for {kind} weights is slower here than {name}: not measured")
    big = torch.empty(32 * MIB, dtype=torch.uint8, device=place)
    fill_rate = big.nbytes / clock.rough(lambda: fill(big))
    flags += ["the device says nothing of throttling or other processes"] if place.type == "cuda" and not identity["driver"] else []
    return Facts(
        **identity, dtype=name, stream_bytes_per_s=rates, matmul_flops=_matmul_rate(clock, name), fill_bytes_per_s=fill_rate,
        torch=str(torch.__version__), python=platform.python_version(), os=f"{platform.system()} {platform.release()}"[:60],
        threads=threads, graphs=place.type == "cuda", grouped=place.type == "cuda" and _grouped_in_graphs(place, dtype_named(name)),
        kernels=tuple(kind for kind in ("int8", "int4") if kind in rates), flags=tuple(flags),
    )  # fmt: skip


def _usual_dtype(clock: Clock) -> str:
    """bf16; f16 on GPUs without it (before Ampere, Metal's older ones), f32 on CPUs that only imitate it."""
    torch = load_torch()
    if clock.place.type == "cuda":
        return "bf16" if torch.version.hip or torch.cuda.get_device_capability(clock.place)[0] >= 8 else "f16"
    if clock.place.type == "mps":
        return "f16"
    return "bf16" if _fast_bf16(clock) else "f32"


def _fast_bf16(clock: Clock) -> bool:
    """Whether a CPU multiplies bf16 as fast as f32: an x86 by its instructions, another by trying."""
    torch = load_torch()
    if platform.machine().lower() in ("x86_64", "amd64"):
        known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(known and known())
    return _matmul_rate(clock, "bf16") >= 0.8 * _matmul_rate(clock, "f32")


def _grouped_in_graphs(place: device, dtype: dtype) -> bool:
    """Whether torch's grouped product of this dtype can be recorded into a graph here (no step back to the host)."""
    torch = load_torch()
    try:
        x, w = (torch.zeros(shape, dtype=dtype, device=place) for shape in ((8, 256), (4, 256, 256)))
        ends = torch.arange(2, 9, 2, dtype=torch.int32, device=place)
        torch.cuda.set_sync_debug_mode("error")  # a recording that fails would spoil later ones: a step to the host is found before
        torch._grouped_mm(x, w, offs=ends)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            torch._grouped_mm(x, w, offs=ends)
        graph.replay()
        torch.cuda.synchronize()
    except (RuntimeError, AttributeError, TypeError):
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True
