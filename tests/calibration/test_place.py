"""The device a calibration takes, and what is beside the model's tensors on it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import vram_plan as vp
from vram_plan.calibration.memory import split_rest
from vram_plan.hardware.device import GIB, MIB

torch = pytest.importorskip("torch", reason="calibration runs torch")
from vram_plan.calibration import place  # noqa: E402
from vram_plan.calibration.place import limit_memory, open_place  # noqa: E402


@pytest.mark.parametrize("name", ["tpu", "gpu0", "", "meta", "cuda:x"])
def test_a_name_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(vp.UsageError) as caught:
        open_place(name)
    assert "cpu" in caught.value.hint


def test_a_device_that_is_not_here_is_a_hardware_error() -> None:
    absent = [] if torch.cuda.is_available() else ["cuda", "rocm"]
    for name in ["cuda:97", *absent, *([] if torch.backends.mps.is_available() else ["mps"])]:
        with pytest.raises(vp.HardwareError):
            open_place(name)


def test_the_cpu_is_always_there() -> None:
    assert open_place("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("told", "hip", "uuid"),
    [
        ("b2f5e2a1-0c1d-4e5f-8a9b-0123456789ab", False, "GPU-b2f5e2a1-0c1d-4e5f-8a9b-0123456789ab"),
        ("GPU-1", False, "GPU-1"),
        ("34633061-3262-3863-3364-396531663030", True, "4c0a2b8c3d9e1f00"),  # the letters of amdgpu's unique_id
        ("00000000-0000-0000-0000-000000000000", True, None),
        ("b2f5e2a1-0c1d-4e5f-8a9b-0123456789ab", True, None),
        ("", False, None),
    ],
)
def test_a_device_has_the_name_its_driver_gives_it(told: str, hip: bool, uuid: str | None) -> None:
    assert place._uuid(told, hip) == uuid


@pytest.mark.parametrize("kind", ["cuda", "mps", "cpu"])
def test_torch_may_take_no_more_than_was_planned(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    gpu = SimpleNamespace(
        mem_get_info=lambda place: (5 * GIB, 8 * GIB), recommended_max_memory=lambda: 8 * GIB,
        set_per_process_memory_fraction=lambda share, *place: told.append(share),
    )  # fmt: skip
    monkeypatch.setattr(place, "load_torch", lambda: SimpleNamespace(cuda=gpu, mps=gpu))
    limit_memory(SimpleNamespace(type=kind), 4 * GIB)  # type: ignore[arg-type]
    assert told == ([] if kind == "cpu" else [0.5])


def test_a_product_that_asks_the_host_is_found_before_it_spoils_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []

    def synchronises(*_: object, **__: object) -> None:
        raise RuntimeError("called a synchronizing CUDA operation")

    made = {name: lambda *a, **k: None for name in ("zeros", "arange")}
    fake = SimpleNamespace(
        **made, int32=None, _grouped_mm=synchronises, cuda=SimpleNamespace(set_sync_debug_mode=modes.append)
    )
    monkeypatch.setattr(place, "load_torch", lambda: fake)
    assert place._grouped_in_graphs(SimpleNamespace(type="cuda"), None) is False  # type: ignore[arg-type]
    assert modes == ["error", "default"]


def test_what_is_no_tensor_is_parted_without_rest() -> None:
    """A GPU's figures: 20 MiB of workspaces before the model, 3 GiB of tensors, 3.1 GiB reserved, 3.5 GiB held."""
    base, model, peak = 20 * MIB, 2 * GIB, GIB
    parts = split_rest(base, base + model + peak, 3 * GIB + 120 * MIB, 3 * GIB + 500 * MIB)
    assert parts["allocator"] == 100 * MIB
    assert parts["runtime"] == 400 * MIB
    assert model + peak + parts["allocator"] + parts["runtime"] == parts["total"]
