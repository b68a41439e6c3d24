"""Each scenario a machine can be in, at the pynvml boundary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from vram_plan.errors import HardwareError
from vram_plan.hardware import local, nvml, resolve
from vram_plan.hardware.device import Detection

from . import fake_nvml as fake
from .fake_nvml import GIB, MIB, FakeGpu, FakeNvml, process


@pytest.fixture
def see(monkeypatch):
    """Look at a machine with this library, in this environment."""

    def look(library: ModuleType | None, **environ: str) -> Detection:
        monkeypatch.setitem(sys.modules, "pynvml", library)
        found = nvml.nvidia_devices(environ)
        assert not isinstance(library, FakeNvml) or library.running == 0  # shut down again, whatever happened
        return found

    return look


def uuid(letter: str) -> str:
    return f"GPU-{letter * 8}-1111-2222-3333-{letter * 12}"


def a100(*slices: FakeGpu, letter: str = "a") -> FakeGpu:
    return FakeGpu("NVIDIA A100-SXM4-80GB", 81920 * MIB, 600 * MIB, uuid=uuid(letter), capability=(8, 0), mig=list(slices))


def mig_slice(profile: str, size_mib: int, letter: str, used: int = 0) -> FakeGpu:
    name = f"NVIDIA A100-SXM4-80GB MIG {profile}"
    return FakeGpu(name, size_mib * MIB, 0, used, uuid=f"MIG-{letter * 8}-1111", capability=(8, 0))


def test_one_card_and_what_holds_its_memory(see):
    compute, graphics = [process(40, 1200 * MIB), process(41, None)], [process(40, 1300 * MIB), process(9, 90 * MIB)]
    card = FakeGpu(used=1600 * MIB, compute=compute, graphics=graphics)
    device = see(FakeNvml(card, names={40: "/usr/bin/python3 -m vllm", 9: "/usr/lib/xorg/Xorg"})).devices[0]
    assert (device.name, device.vendor, device.uuid) == ("NVIDIA GeForce RTX 4090", "NVIDIA", card.uuid)
    assert (device.total, device.usable) == (24564 * MIB, 24216 * MIB)
    assert (device.free, device.used_by_others) == (22616 * MIB, 1600 * MIB)
    assert (device.compute_capability, device.driver, device.power_limit_w) == ("8.9", "580.82.07", 450.0)
    assert [(p.pid, p.name, p.bytes) for p in device.processes] == [
        (40, "python3", 1300 * MIB), (9, "Xorg", 90 * MIB), (41, None, None),
    ]  # fmt: skip
    assert device.spec is not None and device.spec.bandwidth_bytes_per_s == 1008e9
    assert device.basis == "measured" and not device.unified


def test_an_old_driver_counts_its_own_share_as_used(see):
    device = see(FakeNvml(FakeGpu(used=100 * MIB), old=True)).devices[0]
    assert (device.total, device.usable, device.free) == (24564 * MIB, 24564 * MIB, 24116 * MIB)
    assert device.processes == () and device.driver == "470.57.02"


def test_an_old_binding_does_not_know_the_second_memory_structure(see):
    library = FakeNvml(FakeGpu())
    library.nvmlDeviceGetMemoryInfo = lambda gpu: FakeNvml.nvmlDeviceGetMemoryInfo(library, gpu)
    assert see(library).devices[0].total == 24564 * MIB


def test_several_cards_each_with_its_own_row(see):
    ti, unheard_of = FakeGpu("NVIDIA GeForce RTX 4060 Ti", 16380 * MIB), FakeGpu("NVIDIA Quantum X9", 7 * GIB)
    found = see(FakeNvml(FakeGpu(), ti, unheard_of))
    rows = [device.spec and device.spec.name for device in found.devices]
    assert rows == ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4060 Ti 16GB", None]
    assert found.notes == () and found.reason == ""


def test_a_rebuilt_card_has_the_memory_the_driver_reports(see):
    device = see(FakeNvml(FakeGpu(total=49140 * MIB))).devices[0]
    assert device.total == 49140 * MIB
    assert device.spec is not None and device.spec.name == "NVIDIA GeForce RTX 4090"


def test_mig_slices_are_devices_and_their_parent_is_not(see):
    library = FakeNvml(a100(mig_slice("3g.40gb", 40192, "d", GIB), mig_slice("1g.10gb", 9728, "e")), FakeGpu(uuid=uuid("b")))
    found = see(library)
    assert [device.total >> 20 for device in found.devices] == [40192, 9728, 24564]
    assert [device.name[-11:] for device in found.devices[:2]] == ["MIG 3g.40gb", "MIG 1g.10gb"]
    assert found.devices[0].used_by_others == GIB
    assert found.devices[0].compute_capability == "8.0"
    whole, small = 312e12, found.devices[1].spec
    assert small is not None and small.fp16_flops == pytest.approx(whole * 14 / 108)
    assert small.bandwidth_bytes_per_s == pytest.approx(2039e9 * 9728 / 81920)
    assert "one MIG slice" in found.notes[0]


def test_mig_mode_without_slices(see):
    found = see(FakeNvml(a100()))
    assert found.devices == () and "no slices" in found.reason


@pytest.mark.parametrize(
    ("setting", "chosen", "note"),
    [
        ("1", "b", ""),
        ("1,0", "ba", ""),
        (f" {uuid('c')} , 0", "ca", ""),
        ("GPU-cccc", "c", ""),
        ("0,7,1", "a", "'7' names no GPU"),
        ("0,-1,1", "a", "hides the other"),
        ("-1", "", "hides all"),
        ("", "", "hides all"),
        ("GPU-zz", "", "'GPU-zz' names no GPU"),
        ("GPU-", "", "'GPU-' names no GPU"),
        ("one", "", "'one' names no GPU"),
        ("1,1", "", "twice"),
        ("9" * 5000, "", "names no GPU"),
    ],
)
def test_cuda_visible_devices(see, setting, chosen, note):
    library = FakeNvml(*(FakeGpu(uuid=uuid(letter)) for letter in "abc"))
    found = see(library, CUDA_VISIBLE_DEVICES=setting)
    assert [device.uuid for device in found.devices] == [uuid(letter) for letter in chosen]
    assert len(found.notes) == bool(note) and note in "".join(found.notes)
    assert bool(found.reason) is not bool(chosen)


def test_cuda_visible_devices_of_a_mig_machine(see):
    library = FakeNvml(FakeGpu(uuid=uuid("b")), a100(mig_slice("3g.40gb", 40192, "d"), mig_slice("1g.10gb", 9728, "e")))
    assert [d.uuid for d in see(library, CUDA_VISIBLE_DEVICES="MIG-eeee").devices] == ["MIG-eeeeeeee-1111"]
    assert [d.uuid for d in see(library, CUDA_VISIBLE_DEVICES="1").devices] == ["MIG-dddddddd-1111"]  # CUDA takes the first slice
    assert see(library, CUDA_VISIBLE_DEVICES="MIG-ffff").devices == ()


def test_numbers_of_unlike_cards_depend_on_cudas_order(see):
    library = FakeNvml(FakeGpu("NVIDIA GeForce RTX 3060", 12 * GIB, uuid=uuid("a")), FakeGpu(uuid=uuid("b")))
    assert "fastest first" in see(library, CUDA_VISIBLE_DEVICES="0").notes[0]
    assert see(library, CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID").notes == ()


@pytest.mark.parametrize("name", ["NVIDIA GB10", "Orin (nvgpu)", "NVIDIA Thor"])
def test_unified_memory_is_the_systems(see, monkeypatch, name):
    monkeypatch.setattr(nvml, "system_memory", lambda: 120 * GIB)
    monkeypatch.setattr(nvml, "available_memory", lambda: 100 * GIB)
    card = FakeGpu(name, capability=(12, 1), errors={"nvmlDeviceGetMemoryInfo": fake.NOT_SUPPORTED, "nvmlDeviceGetEnforcedPowerLimit": 3})
    device = see(FakeNvml(card)).devices[0]
    assert (device.total, device.usable, device.free, device.used_by_others) == (120 * GIB, 120 * GIB, 100 * GIB, 20 * GIB)
    assert device.unified and "shares the system's memory" in device.note


def test_a_card_that_hides_its_memory_gets_the_catalogues_labelled(see):
    device = see(FakeNvml(FakeGpu(errors={"nvmlDeviceGetMemoryInfo": fake.NOT_SUPPORTED}))).devices[0]
    assert (device.total >> 20, device.free, device.basis) == (24563, None, "fallback")
    assert device.available == device.usable < device.total


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo", "*"])
def test_one_lost_gpu_among_several(see, function):
    library = FakeNvml(FakeGpu(), FakeGpu(uuid=uuid("b"), errors={function: fake.GPU_IS_LOST}), FakeGpu(uuid=uuid("c")))
    found = see(library)
    assert [device.uuid for device in found.devices] == [FakeGpu().uuid, uuid("c")]
    assert found.notes == ("GPU 1 is lost (it has fallen off the bus): left out",)
    assert see(library, CUDA_VISIBLE_DEVICES="2").devices[0].uuid == uuid("c")  # the lost one keeps its number


def test_a_gpu_this_user_may_not_ask(see):
    found = see(FakeNvml(FakeGpu(errors={"nvmlDeviceGetHandleByIndex": fake.NO_PERMISSION})))
    assert found.devices == () and "does not answer" in found.reason


def test_figures_the_driver_does_not_give_are_none(see):
    missing = dict.fromkeys(
        ("nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementLimit",
         "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"), fake.NOT_SUPPORTED,
    )  # fmt: skip
    device = see(FakeNvml(FakeGpu(errors=missing))).devices[0]
    assert (device.compute_capability, device.power_limit_w, device.processes) == (None, None, ())


@pytest.mark.parametrize(
    ("code", "reason"), [(fake.LIBRARY_NOT_FOUND, "no NVIDIA driver"), (fake.DRIVER_NOT_LOADED, "the NVIDIA driver is not loaded")]
)
def test_no_driver_is_no_error(see, code, reason):
    assert see(FakeNvml(FakeGpu(), errors={"nvmlInit": code})) == Detection(reason=reason, local=True)


def test_no_gpu_and_no_binding(see):
    assert see(FakeNvml()).reason == "the NVIDIA driver shows no GPU"
    assert see(None).reason == "the package nvidia-ml-py is not installed"


@pytest.mark.parametrize(
    ("code", "says"), [(fake.VERSION_MISMATCH, "different versions"), (fake.NO_PERMISSION, "permission"), (fake.UNKNOWN, "does not answer")]
)
def test_a_broken_driver_is_an_error(see, code, says):
    with pytest.raises(HardwareError, match=says) as caught:
        see(FakeNvml(FakeGpu(), errors={"nvmlInit": code}))
    assert caught.value.exit_code == 6 and caught.value.hint


def test_the_wrong_pynvml_lacks_functions(see):
    library = ModuleType("pynvml")
    library.nvmlInit = lambda: None
    with pytest.raises(HardwareError, match="not NVIDIA's") as caught:
        see(library)
    assert "nvidia-ml-py" in caught.value.hint


def test_the_wrong_pynvml_answers_in_bytes(see):
    library = FakeNvml(FakeGpu())
    library.nvmlDeviceGetName = lambda gpu: gpu.name.encode()
    with pytest.raises(HardwareError, match="bytes") as caught:
        see(library)
    assert "nvidia-ml-py" in caught.value.hint and library.running == 0


def test_a_shutdown_that_fails_changes_nothing(see):
    assert len(see(FakeNvml(FakeGpu(), errors={"nvmlShutdown": fake.UNKNOWN})).devices) == 1


def test_local_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(FakeGpu(), FakeGpu(uuid=uuid("b"))))
    monkeypatch.setattr(local, "amd_devices", tuple)
    monkeypatch.setattr(local, "apple_devices", tuple)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [device.index for device in resolve("local").devices] == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in resolve(None).reason
    with pytest.raises(HardwareError, match="CUDA_VISIBLE_DEVICES"):
        resolve(" Local ")


def test_every_function_asked_for_is_in_nvidia_s_binding():
    pynvml = pytest.importorskip("pynvml")
    asked = set(re.findall(r'"(nvml\w+)"', Path(nvml.__file__).read_text(encoding="utf-8")))
    asked |= {"nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"}
    stood_in_for = {name for name in vars(FakeNvml) if name.startswith("nvml")}
    assert len(asked) > 12 and {name for name in asked | stood_in_for if not hasattr(pynvml, name)} == set()
    assert asked <= stood_in_for
    names = ("GPU_IS_LOST", "DRIVER_NOT_LOADED", "LIBRARY_NOT_FOUND", "NO_PERMISSION")
    codes = {name: getattr(pynvml, f"NVML_ERROR_{name}") for name in names}
    assert codes == {name: getattr(nvml, f"_{name}") for name in codes}
    assert pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH == fake.VERSION_MISMATCH


def test_loading_the_room_loads_no_driver_and_no_table():
    program = "import sys; from vram_plan.hardware import catalog; print('pynvml' in sys.modules, catalog._table.cache_info().currsize)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=True)
    assert run.stdout.split() == ["False", "0"]
