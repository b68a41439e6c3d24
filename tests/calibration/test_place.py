"""The device a calibration takes, and what is beside the model's tensors on it."""

from __future__ import annotations

import pytest
import vram_plan as vp
from vram_plan.calibration.memory import split_rest
from vram_plan.hardware.device import GIB, MIB

torch = pytest.importorskip("torch", reason="calibration runs torch")
from vram_plan.calibration.place import open_place  # noqa: E402


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


def test_what_is_no_tensor_is_parted_without_rest() -> None:
    """A GPU's figures: 20 MiB of workspaces before the model, 3 GiB of tensors, 3.1 GiB reserved, 3.5 GiB held."""
    base, model, peak = 20 * MIB, 2 * GIB, GIB
    parts = split_rest(base, base + model + peak, 3 * GIB + 120 * MIB, 3 * GIB + 500 * MIB)
    assert parts["allocator"] == 100 * MIB
    assert parts["runtime"] == 400 * MIB
    assert model + peak + parts["allocator"] + parts["runtime"] == parts["total"]
