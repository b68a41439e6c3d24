"""What `--gpu` may say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vram_plan.errors import UsageError, VramPlanError
from vram_plan.hardware import parse_gpus
from vram_plan.hardware.mig import _table

GIB = 1 << 30
R3090, R3060, H100 = "NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3060 12GB", "NVIDIA H100 80GB HBM3"
A100 = "NVIDIA A100-SXM4-80GB"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("RTX 3090", [R3090]), ("2x3090", [R3090] * 2), ("2xA100-80GB", [A100] * 2), ("2 x RTX 3090", [R3090] * 2),
        ("2×3090", [R3090] * 2), ("2*3090", [R3090] * 2), ("8 H100", [H100] * 8), ("RTX 3090 x2", [R3090] * 2),
        ("3090 * 3", [R3090] * 3), ("RTX 3090 + RTX 3060", [R3090, R3060]), ("2x3090+3060", [R3090, R3090, R3060]),
        ("3060, 2x 3090", [R3060, R3090, R3090]), ("3090 and 3060", [R3090, R3060]), ("3090 & 3060", [R3090, R3060]),
        ("3090x2", [R3090] * 2), ("7900xtx", ["AMD Radeon RX 7900 XTX"]), ("2x7800xt", ["AMD Radeon RX 7800 XT"] * 2),
        ("RX 7900 XTX", ["AMD Radeon RX 7900 XTX"]), ("Ryzen AI MAX+ 395 128GB + 3090", ["AMD Radeon 8060S, 128 GB", R3090]),
        ("MI250", ["AMD Instinct MI250"] * 2), ("M3 Max 64GB", ["Apple M3 Max (40-core GPU), 64 GB"]), ("8GB", ["GPU 8 GiB"]),
        ("2x24GB", ["GPU 24 GiB"] * 2), ("10 GB + 12 GiB", ["GPU 10 GiB", "GPU 12 GiB"]), ("1 TB", ["GPU 1024 GiB"]),
    ],
)  # fmt: skip
def test_sets(text, names):
    devices = parse_gpus(text).devices
    assert [device.name for device in devices] == names
    assert [device.index for device in devices] == list(range(len(names)))
    assert all(device.node == 0 and device.free == device.usable <= device.total for device in devices)


@pytest.mark.parametrize("text", ["2 nodes x 8xH100", "2 nodes of 8xH100", "2 nodes: 8 H100", "2 machines 8xH100", "2 NODES × 8×h100"])
def test_nodes(text):
    found = parse_gpus(text)
    assert [device.node for device in found.devices] == [0] * 8 + [1] * 8
    assert [device.index for device in found.devices] == list(range(16))
    assert {device.name for device in found.devices} == {H100} and len(found.notes) == 1


def test_a_nameless_card():
    device = parse_gpus("8GB").devices[0]
    assert (device.total, device.usable, device.free, device.spec, device.vendor) == (8 * GIB, 8 * GIB, 8 * GIB, None, "unknown")
    assert parse_gpus("512 MB").devices[0].total == GIB // 2
    assert parse_gpus("7.5GiB").devices[0].total == GIB * 15 // 2


def test_a_catalogue_card_has_the_driver_s_memory():
    device = parse_gpus("4090").devices[0]
    assert (round(device.total / 2**20), round(device.usable / 2**20)) == (24564, 24080)
    assert device.spec is not None and device.spec.memory_bytes == 24 * GIB
    assert device.basis == "measured" and "24080 MiB" in device.note


@pytest.mark.parametrize(
    ("text", "share"),
    [("M1 16GB", 2 / 3), ("M4 32GB", 2 / 3), ("M3 Pro 36GB", 3 / 4), ("M2 Ultra 192GB", 3 / 4), ("Strix Halo 64GB", 3 / 4)],
)
def test_unified_memory_is_not_all_the_gpu_s(text, share):
    device = parse_gpus(text).devices[0]
    assert device.unified and device.total % GIB == 0
    assert device.usable == int(device.total * share)


def test_notes_say_what_was_chosen_once():
    assert len(parse_gpus("H100 + H100").notes) == 1
    assert "2 GPUs of 64 GB" in parse_gpus("MI250").notes[0]
    assert parse_gpus("4090").notes == ()


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "+", "3090+", "3090++3060", "0x4090", "73x4090", "37xMI250", "2 nodes", "0 nodes x 4090", "2x", "x2", "2x2x3090",
        "999999999 nodes x 8xH100", "100 nodes x 72xH100", "0.1GB", "99999TB", "+".join(["3090"] * 80), "a" * 501, "nodes x 8xH100",
        "3090 3060", "-1x4090", "1e9x4090", "NaN", "local + 3090",
    ],
)  # fmt: skip
def test_refused_in_a_sentence(text):
    with pytest.raises(UsageError) as caught:
        parse_gpus(text)
    assert 10 < len(caught.value.message) < 200 and caught.value.hint


def test_the_largest_sets():
    assert len(parse_gpus("72xGB200").devices) == 72
    assert len(parse_gpus("512 nodes x 8xH100").devices) == 4096


PIECES = st.sampled_from(
    ["2", "x", " ", "+", "3090", "nodes", "GB", "8", "rtx", ",", "h100", "local", "m3 max", "64gb", "×", "*", ".", "\t", "𝟚"]
)


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join)))
def test_any_text_gives_devices_or_a_sentence(text):
    try:
        assert 1 <= len(parse_gpus(text).devices) <= 4096
    except VramPlanError as error:
        assert error.exit_code == 2 and error.message


# --- MIG slices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "gib"),
    [
        ("H100 MIG 3g.40gb", f"{H100} MIG 3g.40gb", 39.5), ("A100-80GB:2g.20gb", f"{A100} MIG 2g.20gb", 19.5),
        ("a100 mig 1g.5gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.75), ("H100-MIG-1g-10gb", f"{H100} MIG 1g.10gb", 9.75),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", f"{H100} MIG 1g.10gb", 9.75), ("A30 2g.12gb", "NVIDIA A30 MIG 2g.12gb", 11.69),
        ("H100 NVL MIG 3g.47gb", "NVIDIA H100 NVL MIG 3g.47gb", 46.38), ("H200/1g.18gb", "NVIDIA H200 MIG 1g.18gb", 16),
        ("B200 MIG 3g.90gb", "NVIDIA B200 MIG 3g.90gb", 178.35 / 2),
        ("1x A100 80GB PCIe MIG 7g.80gb", "NVIDIA A100 80GB PCIe MIG 7g.80gb", 79),
    ],
)  # fmt: skip
def test_a_slice_of_a_gpu_is_a_device(text: str, name: str, gib: float) -> None:
    (device,) = parse_gpus(text).devices
    assert device.name == name and device.is_slice and device.usable == device.free == device.total
    assert abs(device.usable / GIB - gib) < 0.01 and device.compute_capability


def test_a_slice_is_as_fast_as_its_share() -> None:
    found, whole = parse_gpus("H100 MIG 3g.40gb"), parse_gpus("H100").devices[0].spec
    piece = found.devices[0].spec
    assert piece is not None and whole is not None and piece.bf16_flops and whole.bf16_flops
    assert piece.bf16_flops / whole.bf16_flops == pytest.approx(60 / 132)
    assert piece.bandwidth_bytes_per_s / whole.bandwidth_bytes_per_s == pytest.approx(39.5 / 79.647, rel=1e-3)
    assert "45% of the card's processors" in found.notes[0] and "one slice" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("H100 MIG 5g.60gb", "1g.10gb, 1g.20gb, 2g.20gb, 3g.40gb"), ("A100-80GB:3g.20gb", "A100"), ("RTX 4090 MIG 1g.6gb", "cannot be cut"),
        ("2x H100 MIG 3g.40gb", "one MIG slice"), ("H100 MIG 3g.40gb + H100", "one MIG slice"), ("MIG 3g.40gb", "not a GPU"),
        ("2 nodes x H100 MIG 3g.40gb", "one MIG slice"), ("H1000 MIG 3g.40gb", "no GPU is called"),
    ],
)  # fmt: skip
def test_impossible_slices_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_gpus(text)
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_every_slice_of_the_table_can_be_named() -> None:
    for gpu, slices in _table().items():
        shares = [(float(one.processors), one.memory_bytes or 0) for one in slices.values()]
        assert all(0 < share <= 1 for share, _ in shares)
        for profile, one in slices.items():
            device = parse_gpus(f"{gpu} MIG {profile}").devices[0]
            assert device.name == f"{gpu} MIG {profile}" and one.memory_bytes in (None, device.total)
            assert 0.8 < device.usable / GIB / float(profile[3:-2]) < 1.02
